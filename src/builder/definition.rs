//! `builder.toml`, as the platform that made the format describes it: read whole, and only what can be done is accepted.

use std::path::{Path, PathBuf};

use coracle_cnb::{BuildpackId, GroupElement, OrderGroup, RunImageEntry, SystemToml};
use coracle_images::{Platform, Reference};
use serde::Deserialize;

use super::BuilderError;

/// What a `builder.toml` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) description: String,
    pub(super) buildpacks: Vec<Wanted>,
    pub(super) order: Vec<OrderGroup>,
    /// What goes around each group of it.
    pub(super) system: SystemToml,
    pub(super) build_image: Reference,
    /// Never empty.
    pub(super) run_images: Vec<RunImageEntry>,
    /// Empty where none is named.
    pub(super) stack_id: String,
    pub(super) lifecycle: Lifecycle,
}

/// Which lifecycle the builder is to have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// That of this program.
    Own,
    /// The same, although the file names a version.
    OwnInsteadOf(String),
    /// That of a release archive, or of a folder with what is in one; relative to the file's own folder.
    At(PathBuf),
}

/// One of the file's buildpacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Relative to the file's own folder.
    pub(super) folder: PathBuf,
    /// Empty, or what the folder must hold.
    pub(super) id: String,
    pub(super) version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[derive(Default)]
struct Document {
    description: String,
    buildpacks: Vec<Module>,
    extensions: Vec<toml::Table>,
    order: Vec<Group>,
    order_extensions: Vec<toml::Table>,
    stack: Stack,
    lifecycle: NamedLifecycle,
    build: Build,
    run: Run,
    targets: Vec<Target>,
    system: System,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Module {
    id: String,
    version: String,
    uri: String,
    image: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NamedLifecycle {
    uri: String,
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Group {
    group: Vec<Member>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct System {
    pre: SystemGroup,
    post: SystemGroup,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SystemGroup {
    buildpacks: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    id: BuildpackId,
    #[serde(default)]
    version: String,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Stack {
    id: String,
    build_image: String,
    run_image: String,
    run_image_mirrors: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Build {
    image: String,
    env: Vec<toml::Table>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Run {
    images: Vec<RunImage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunImage {
    image: String,
    #[serde(default)]
    mirrors: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Target {
    os: String,
    arch: String,
}

impl Definition {
    /// Read `builder.toml` at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, BuilderError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BuilderError::Read { path: path.to_owned(), source })?;
        let document: Document = coracle_cnb::read_toml("builder.toml", &text)
            .map_err(|source| BuilderError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        document.resolve()
    }
}

impl Document {
    fn resolve(self) -> Result<Definition, BuilderError> {
        self.refuse_unsupported()?;
        let of_stack = |new: String, old: &str| if new.is_empty() { old.to_owned() } else { new };
        let build_image = of_stack(self.build.image, &self.stack.build_image);
        if build_image.is_empty() {
            return Err(BuilderError::Missing("the build image, as `image` of [build]"));
        }
        let mut run_images: Vec<RunImageEntry> = self
            .run
            .images
            .into_iter()
            .map(|run| RunImageEntry { image: run.image, mirrors: run.mirrors })
            .collect();
        if run_images.is_empty() && !self.stack.run_image.is_empty() {
            run_images
                .push(RunImageEntry { image: self.stack.run_image, mirrors: self.stack.run_image_mirrors });
        }
        if run_images.is_empty() {
            return Err(BuilderError::Missing("a run image, as `image` of [[run.images]]"));
        }
        for name in run_images.iter().flat_map(|run| run.mirrors.iter().chain([&run.image])) {
            name.parse::<Reference>()?;
        }
        if self.order.iter().all(|group| group.group.is_empty()) {
            return Err(BuilderError::Missing("the buildpacks to try, as [[order]] with [[order.group]]"));
        }
        Ok(Definition {
            description: self.description,
            buildpacks: self.buildpacks.into_iter().map(Module::resolve).collect::<Result<_, _>>()?,
            order: self.order.into_iter().map(Group::resolve).collect(),
            system: self.system.resolve(),
            build_image: build_image.parse()?,
            run_images,
            stack_id: self.stack.id,
            lifecycle: self.lifecycle.resolve()?,
        })
    }

    fn refuse_unsupported(&self) -> Result<(), BuilderError> {
        let refuse = |what, instead| Err(BuilderError::Unsupported { what, instead });
        if !self.extensions.is_empty() || !self.order_extensions.is_empty() {
            return refuse("image extensions", "remove [[extensions]] and [[order-extensions]]");
        }
        if !self.build.env.is_empty() {
            return refuse("[[build.env]]", "set the variables when building: coracle build --env");
        }
        let host = Platform::host();
        let fits = |target: &Target| {
            (target.os.is_empty() || target.os == host.os)
                && (target.arch.is_empty() || target.arch == host.architecture)
        };
        if !self.targets.is_empty() && !self.targets.iter().any(fits) {
            return refuse("targets of another kind of machine only", "create the builder on such a machine");
        }
        Ok(())
    }
}

impl Module {
    fn resolve(self) -> Result<Wanted, BuilderError> {
        let refuse =
            |locator: &str, instead| Err(BuilderError::Locator { locator: locator.to_owned(), instead });
        if !self.image.is_empty() {
            return refuse(&self.image, "extract the image's buildpack to a folder and name that as `uri`");
        }
        let uri = match without_scheme(&self.uri) {
            (Some("docker"), _) => {
                return refuse(&self.uri, "extract the image's buildpack to a folder and name that as `uri`");
            }
            (Some("http" | "https"), _) => {
                return refuse(&self.uri, "download it, extract it to a folder and name that as `uri`");
            }
            (Some("urn"), _) => {
                return refuse(
                    &self.uri,
                    "fetch the registry's buildpack to a folder and name that as `uri`",
                );
            }
            (_, path) => path,
        };
        if uri.is_empty() {
            return refuse(&self.id, "say where it is: `uri` with the path of its folder");
        }
        Ok(Wanted { folder: uri.into(), id: self.id, version: self.version })
    }
}

impl NamedLifecycle {
    fn resolve(self) -> Result<Lifecycle, BuilderError> {
        if self.uri.is_empty() {
            let named = Some(self.version).filter(|version| !version.is_empty());
            return Ok(named.map_or(Lifecycle::Own, Lifecycle::OwnInsteadOf));
        }
        match without_scheme(&self.uri) {
            (None | Some("file"), path) => Ok(Lifecycle::At(path.into())),
            (Some(_), _) => Err(BuilderError::Unsupported {
                what: "a lifecycle that is not on this machine",
                instead: "download its release archive and name the file as `uri` of [lifecycle]",
            }),
        }
    }
}

/// The scheme of a locator, and what follows it.
fn without_scheme(uri: &str) -> (Option<&str>, &str) {
    match uri.split_once(':') {
        Some((scheme @ ("file" | "docker" | "http" | "https" | "urn"), rest)) => {
            (Some(scheme), rest.strip_prefix("//").unwrap_or(rest))
        }
        _ => (None, uri),
    }
}

impl Group {
    fn resolve(self) -> OrderGroup {
        OrderGroup { group: self.group.into_iter().map(Member::resolve).collect() }
    }
}

impl Member {
    fn resolve(self) -> GroupElement {
        let Self { id, version, optional } = self;
        GroupElement { id, version, api: None, homepage: None, optional }
    }
}

impl System {
    fn resolve(self) -> SystemToml {
        let elements = |group: SystemGroup| group.buildpacks.into_iter().map(Member::resolve).collect();
        let mut document = SystemToml::default();
        document.system.pre.buildpacks = elements(self.pre);
        document.system.post.buildpacks = elements(self.post);
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "[[order]]\n[[order.group]]\nid = \"a\"\n";

    fn resolve(text: &str) -> Result<Definition, BuilderError> {
        toml::from_str::<Document>(text).expect("a document").resolve()
    }

    fn refused(text: &str) -> String {
        resolve(text).expect_err("an error").to_string()
    }

    #[test]
    fn the_older_table_says_the_same() {
        let new =
            "[build]\nimage = \"build\"\n[[run.images]]\nimage = \"run\"\nmirrors = [\"r.example/run\"]\n";
        let old = "[stack]\nid = \"\"\nbuild-image = \"build\"\nrun-image = \"run\"\nrun-image-mirrors = [\"r.example/run\"]\n";
        assert_eq!(resolve(&format!("{REST}{new}")).unwrap(), resolve(&format!("{REST}{old}")).unwrap());
    }

    #[test]
    fn what_is_missing_is_named_with_where_to_say_it() {
        let images = "[build]\nimage = \"b\"\n[run]\nimages = [{ image = \"r\" }]\n";
        assert_eq!(refused(REST), "builder.toml does not name the build image, as `image` of [build]");
        assert!(refused(&format!("{REST}[build]\nimage = \"b\"")).contains("[[run.images]]"));
        assert!(refused(images).contains("[[order]]"));
        assert!(
            refused(&format!("{REST}[build]\nimage = \"B\"\n[run]\nimages = [{{ image = \"r\" }}]"))
                .contains("`B` is not an image name")
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_another_way() {
        let of = |text: &str| refused(&format!("{text}\n{REST}"));
        assert!(of("[[extensions]]\nid = \"x\"").starts_with("builder.toml asks for image extensions"));
        assert!(of("[[build.env]]\nname = \"x\"").contains("coracle build --env"));
        assert!(of("[[targets]]\nos = \"plan9\"").contains("another kind of machine"));
    }

    #[test]
    fn a_lifecycle_is_ours_or_lies_on_this_machine() {
        let images = "[build]\nimage = \"b\"\n[run]\nimages = [{ image = \"r\" }]\n";
        let of = |text: &str| resolve(&format!("{REST}{images}{text}"));
        assert_eq!(of("").unwrap().lifecycle, Lifecycle::Own);
        let version = of("[lifecycle]\nversion = \"0.20.0\"").unwrap().lifecycle;
        assert_eq!(version, Lifecycle::OwnInsteadOf("0.20.0".to_owned()));
        for uri in ["x/l.tgz", "file:x/l.tgz", "file://x/l.tgz"] {
            let found = of(&format!("[lifecycle]\nuri = \"{uri}\"")).unwrap().lifecycle;
            assert_eq!(found, Lifecycle::At("x/l.tgz".into()));
        }
        let error = of("[lifecycle]\nuri = \"https://x\"").expect_err("an error").to_string();
        assert!(
            error.starts_with("builder.toml asks for a lifecycle that is not on this machine"),
            "{error}"
        );
        assert!(error.ends_with("name the file as `uri` of [lifecycle]"), "{error}");
    }

    #[test]
    fn buildpacks_are_folders() {
        let images = "[build]\nimage = \"b\"\n[run]\nimages = [{ image = \"r\" }]\n";
        let of = |module: &str| resolve(&format!("{REST}{images}[[buildpacks]]\n{module}"));
        for uri in ["x/y", "file:x/y", "file://x/y"] {
            let found = of(&format!("uri = \"{uri}\"\nid = \"i\"")).unwrap().buildpacks;
            assert_eq!(found, [Wanted { folder: "x/y".into(), id: "i".into(), version: String::new() }]);
        }
        for module in [
            "uri = \"docker://x\"",
            "image = \"x\"",
            "uri = \"https://x\"",
            "uri = \"urn:cnb:registry:x\"",
            "id = \"x\"",
        ] {
            let error = of(module).expect_err(module).to_string();
            assert!(error.starts_with("buildpack `") && error.contains("`uri`"), "{error}");
        }
    }
}
