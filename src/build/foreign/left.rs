//! What buildpacks have left where an exporter of another lifecycle is about to read. Such programs follow links, wait for FIFOs, and
//! have credentials in a file: a document that is a link to that would end up in the image, or in a message. Pure; `src/worker/left.rs`
//! looks and carries out.

use std::ffi::OsStr;
use std::path::{Component, Path};

use coracle_cnb::{Group, GroupElement};

use crate::build::folders::guest;

/// Of one document; ours reads no more of one either.
const LARGEST_DOCUMENT: u64 = 16 << 20;

/// What an entry of a folder is, without following links (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File {
        /// Bytes.
        size: u64,
    },
    Link,
    Fifo,
    Socket,
    Device,
}

/// An entry that was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Relative to the tree.
    pub(crate) path: &'a Path,
    pub(crate) kind: Kind,
    /// Whether `<name>.toml` lies beside it, which makes a layer of it.
    pub(crate) is_layer: bool,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    Layers,
    Workspace,
}

impl Tree {
    /// Where it is in a guest.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Layers => guest::LAYERS,
            Self::Workspace => guest::WORKSPACE,
        }
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays, and where it is a folder what is in it is looked at.
    Stays,
    /// It stays, and nobody reads it.
    IsNobodys,
    /// It goes.
    Goes,
    /// Nothing is exported.
    Refused(String),
}

/// What has a place of its own.
enum Place<'a> {
    /// A buildpack's folder.
    OfBuildpack(&'a GroupElement),
    /// A layer's or a buildpack's document.
    Document(&'a GroupElement),
    /// A layer.
    Layer(&'a GroupElement),
    /// Bills of materials, and what the phases keep beside buildpacks.
    OfPhases(Option<&'a GroupElement>),
    /// What goes into the image, or into the cache, as it is.
    Content,
    /// No exporter asks for it.
    Nowhere,
}

/// What becomes of an entry below the layers' folder or the workspace.
pub(crate) fn verdict(tree: Tree, found: &Found<'_>, group: &Group) -> Verdict {
    let refused = |what: &str, by: Option<&GroupElement>, belongs: &str, next: &str| {
        let (path, tree) = (found.path.display(), tree.path());
        let by = by.map(|by| format!(", left by buildpack {},", by.name())).unwrap_or_default();
        Verdict::Refused(format!(
            "`{tree}/{path}`{by} is {what} where {belongs} belongs; the exporter of another lifecycle is not started on that: {next}, or choose other buildpacks with --buildpack"
        ))
    };
    const ITSELF: &str = "have the buildpack put what is meant there itself";
    match (place(tree, found, group), found.kind) {
        // Exporters archive links as links and FIFOs by their names; no process is left behind a socket.
        (Place::Content, Kind::Folder | Kind::File { .. } | Kind::Link | Kind::Fifo) => Verdict::Stays,
        (Place::Content, Kind::Socket) => Verdict::Goes,
        (Place::Content, Kind::Device) => refused("a device", None, "a file or folder", ITSELF),
        (Place::Nowhere, _) => Verdict::IsNobodys,
        (Place::OfBuildpack(_) | Place::Layer(_) | Place::OfPhases(_), Kind::Folder) => Verdict::Stays,
        (Place::OfPhases(_), Kind::File { .. }) => Verdict::Stays,
        (Place::OfPhases(by), kind) => {
            refused(name(kind), by, "a bill of materials or a folder of them", ITSELF)
        }
        (Place::OfBuildpack(by), kind) => refused(name(kind), Some(by), "the buildpack's folder", ITSELF),
        (Place::Layer(by), kind) => refused(name(kind), Some(by), "a layer", ITSELF),
        (Place::Document(_), Kind::File { size: 0..=LARGEST_DOCUMENT }) => Verdict::Stays,
        (Place::Document(by), Kind::File { .. }) => {
            refused("a file of more than 16 MiB", Some(by), "a document", "have the buildpack write less")
        }
        (Place::Document(by), kind) => refused(name(kind), Some(by), "a document", ITSELF),
    }
}

fn place<'a>(tree: Tree, found: &Found<'_>, group: &'a Group) -> Place<'a> {
    if tree == Tree::Workspace {
        return Place::Content;
    }
    let parts: Vec<&OsStr> = found
        .path
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let of = |folder: &OsStr| group.group.iter().find(|element| *folder == *element.id.dir());
    let [first, below @ ..] = parts.as_slice() else { return Place::Nowhere };
    if *first == "sbom" || *first == "config" {
        return Place::OfPhases(below.get(1).and_then(|folder| of(folder)));
    }
    let Some(element) = of(first) else { return Place::Nowhere };
    match below {
        [] => Place::OfBuildpack(element),
        [name] if is_document(name) => Place::Document(element),
        [name] if name.to_string_lossy().contains(".sbom.") => Place::OfPhases(Some(element)),
        [_] if found.is_layer || found.kind == Kind::Folder => Place::Layer(element),
        [_] => Place::Nowhere,
        _ => Place::Content,
    }
}

/// `launch.toml`, `<layer>.toml` and their kind (Buildpack API); `<layer>.sha`, which exporters read that speak older Platform APIs.
fn is_document(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".toml") || name.ends_with(".sha")
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Folder => "a folder",
        Kind::File { .. } => "a file",
        Kind::Link => "a symbolic link",
        Kind::Fifo => "a FIFO",
        Kind::Socket => "a socket",
        Kind::Device => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_what_goes_and_what_stays() {
        let group = "[[group]]\nid = \"a/b\"\nversion = \"1\"\n";
        let group: Group = coracle_cnb::read_toml("group.toml", group).unwrap();
        let kinds = [
            Kind::Folder,
            Kind::File { size: 1 },
            Kind::File { size: LARGEST_DOCUMENT + 1 },
            Kind::Link,
            Kind::Fifo,
            Kind::Socket,
            Kind::Device,
        ];
        let mut table = String::new();
        for (tree, path, is_layer) in [
            (Tree::Layers, "a_b", false),
            (Tree::Layers, "other", false),
            (Tree::Layers, "a_b/launch.toml", false),
            (Tree::Layers, "a_b/x.toml", false),
            (Tree::Layers, "a_b/x.sha", false),
            (Tree::Layers, "a_b/x.sbom.cdx.json", false),
            // Who reads documents takes it for that of the layer `x.sbom`.
            (Tree::Layers, "a_b/x.sbom.toml", false),
            (Tree::Layers, "a_b/x", true),
            (Tree::Layers, "a_b/x", false),
            (Tree::Layers, "a_b/x/launch.toml", false),
            (Tree::Layers, "sbom", false),
            (Tree::Layers, "sbom/launch/a_b/x/sbom.cdx.json", false),
            (Tree::Layers, "config/metadata.toml", false),
            (Tree::Workspace, "a_b/x.toml", false),
        ] {
            for kind in kinds {
                let found = Found { path: Path::new(path), kind, is_layer };
                let verdict = match verdict(tree, &found, &group) {
                    // How it goes on, tests of the worker say.
                    Verdict::Refused(why) => why.split(';').next().unwrap_or_default().to_owned(),
                    other => format!("{other:?}"),
                };
                let layer = if is_layer { " (a layer)" } else { "" };
                table.push_str(&format!("{}/{path}{layer}, {kind:?}: {verdict}\n", tree.path()));
            }
        }
        insta::assert_snapshot!(table);
    }
}
