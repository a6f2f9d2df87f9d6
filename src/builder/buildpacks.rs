//! The buildpacks of a builder: folders on this machine, checked before anything is made of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle_cnb::{BuildpackToml, GroupElement, Order, OrderGroup, System, SystemBuildpacks, SystemToml};

use super::BuilderError;
use super::definition::Wanted;

/// A folder that holds a buildpack.
#[derive(Debug)]
pub(super) struct Buildpack {
    /// Absolute, without links.
    pub(super) folder: PathBuf,
    pub(super) toml: BuildpackToml,
}

impl Buildpack {
    /// Read what `wanted` names, relative to `base`.
    pub(super) fn read(base: &Path, wanted: &Wanted) -> Result<Self, BuilderError> {
        let path = base.join(&wanted.folder);
        let unfit = |why: String| BuilderError::Unfit { path: path.clone(), why };
        let folder =
            path.canonicalize().map_err(|source| BuilderError::Read { path: path.clone(), source })?;
        if !folder.is_dir() {
            return Err(unfit("it is not a folder; extract it and name the folder".to_owned()));
        }
        let file = folder.join("buildpack.toml");
        let text =
            fs::read_to_string(&file).map_err(|source| BuilderError::Read { path: file.clone(), source })?;
        let toml: BuildpackToml = coracle_cnb::read_toml("buildpack.toml", &text)
            .map_err(|source| BuilderError::Parse { path: file.clone(), source: Box::new(source) })?;
        for (key, wanted, found) in [
            ("id", &wanted.id, toml.buildpack.id.as_str()),
            ("version", &wanted.version, &toml.buildpack.version),
        ] {
            if !wanted.is_empty() && wanted != found {
                return Err(unfit(format!("its {key} is `{found}`, but builder.toml says `{wanted}`")));
            }
        }
        // The version is a folder's name in the builder; that it stays one has been checked.
        if toml.buildpack.version.is_empty() {
            return Err(unfit("it has no version; write one like 1.0.0".to_owned()));
        }
        let buildpack = Self { folder, toml };
        if buildpack.toml.order.is_empty() {
            buildpack.check_programs()?;
        }
        Ok(buildpack)
    }

    fn check_programs(&self) -> Result<(), BuilderError> {
        for program in ["bin/detect", "bin/build"] {
            let path = self.folder.join(program);
            let executable = fs::metadata(&path)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
            if !executable {
                let why = "it is not there, or may not be executed; every buildpack without an order has it";
                return Err(BuilderError::Unfit { path, why: why.to_owned() });
            }
        }
        Ok(())
    }

    pub(super) fn version(&self) -> &str {
        &self.toml.buildpack.version
    }

    /// Where it is in the builder (Platform specification, "Buildpacks directory layout").
    pub(super) fn image_path(&self) -> String {
        format!("{}/{}", self.image_folder(), self.version())
    }

    /// The folder of all its versions.
    pub(super) fn image_folder(&self) -> String {
        format!("/cnb/buildpacks/{}", self.toml.buildpack.id.dir())
    }
}

/// Two folders may not fill one place.
pub(super) fn check_unique(buildpacks: &[Buildpack]) -> Result<(), BuilderError> {
    for (number, one) in buildpacks.iter().enumerate() {
        if let Some(other) = buildpacks[..number].iter().find(|other| other.image_path() == one.image_path())
        {
            let why =
                format!("{} is {}@{} as well", other.folder.display(), one.toml.buildpack.id, one.version());
            return Err(BuilderError::Unfit { path: one.folder.clone(), why });
        }
    }
    Ok(())
}

/// The order with every version filled in; what it names, and what composite buildpacks name, is in the builder.
pub(super) fn resolve_order(groups: &[OrderGroup], buildpacks: &[Buildpack]) -> Result<Order, BuilderError> {
    for buildpack in buildpacks {
        for element in buildpack.toml.order.iter().flat_map(|group| &group.group) {
            find(element, buildpacks)?;
        }
    }
    let group = |group: &OrderGroup| Ok(OrderGroup { group: resolve(&group.group, buildpacks)? });
    let order = groups.iter().map(group).collect::<Result<_, BuilderError>>()?;
    Ok(Order { order, order_extensions: Vec::new() })
}

/// The same of what goes around each group.
///
/// # Errors
/// [`BuilderError::Order`].
pub(super) fn resolve_system(
    system: &SystemToml,
    buildpacks: &[Buildpack],
) -> Result<SystemToml, BuilderError> {
    let around = |elements: &SystemBuildpacks| {
        Ok::<_, BuilderError>(SystemBuildpacks { buildpacks: resolve(&elements.buildpacks, buildpacks)? })
    };
    let System { pre, post } = &system.system;
    Ok(SystemToml { system: System { pre: around(pre)?, post: around(post)? } })
}

fn resolve(elements: &[GroupElement], buildpacks: &[Buildpack]) -> Result<Vec<GroupElement>, BuilderError> {
    let resolve = |element: &GroupElement| {
        let version = find(element, buildpacks)?.version().to_owned();
        Ok(GroupElement { version, ..element.clone() })
    };
    elements.iter().map(resolve).collect()
}

fn find<'a>(element: &GroupElement, buildpacks: &'a [Buildpack]) -> Result<&'a Buildpack, BuilderError> {
    let fits = |buildpack: &&Buildpack| {
        buildpack.toml.buildpack.id == element.id
            && (element.version.is_empty() || buildpack.version() == element.version)
    };
    let found: Vec<&Buildpack> = buildpacks.iter().filter(fits).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(BuilderError::Order {
            name: if element.version.is_empty() { element.id.to_string() } else { element.name() },
            why: "no folder of [[buildpacks]] holds it; add one, with `uri`",
        }),
        _ => Err(BuilderError::Order {
            name: element.id.to_string(),
            why: "[[buildpacks]] has several versions of it; say which",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(toml: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("buildpack.toml"), toml).unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        for program in ["bin/detect", "bin/build"] {
            fs::write(folder.path().join(program), "#!/bin/sh\n").unwrap();
            fs::set_permissions(folder.path().join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn toml(id: &str, version: &str) -> String {
        format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\n")
    }

    fn read(folder: &tempfile::TempDir, id: &str, version: &str) -> Result<Buildpack, BuilderError> {
        let wanted = Wanted { folder: ".".into(), id: id.to_owned(), version: version.to_owned() };
        Buildpack::read(folder.path(), &wanted)
    }

    fn element(id: &str, version: &str) -> GroupElement {
        GroupElement {
            id: id.parse().unwrap(),
            version: version.to_owned(),
            api: None,
            homepage: None,
            optional: true,
        }
    }

    #[test]
    fn a_folder_is_checked_against_what_the_file_says() {
        let folder = folder(&toml("team/one", "1.2"));
        let found = read(&folder, "team/one", "").unwrap();
        assert_eq!(found.image_path(), "/cnb/buildpacks/team_one/1.2");
        let error = read(&folder, "", "2").unwrap_err().to_string();
        assert!(error.ends_with("its version is `1.2`, but builder.toml says `2`"), "{error}");
        fs::set_permissions(folder.path().join("bin/build"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&folder, "", "").unwrap_err().to_string().contains("bin/build"));
    }

    #[test]
    fn a_version_cannot_lead_out_of_its_folder() {
        for version in ["..", "../../etc"] {
            assert!(matches!(read(&folder(&toml("a", version)), "", ""), Err(BuilderError::Parse { .. })));
        }
        let error = read(&folder(&toml("a", "")), "", "").unwrap_err().to_string();
        assert!(error.contains("it has no version"), "{error}");
    }

    #[test]
    fn an_order_gets_the_versions_it_leaves_out() {
        let folders = [folder(&toml("a", "1")), folder(&toml("b", "1")), folder(&toml("b", "2"))];
        let all: Vec<Buildpack> = folders.iter().map(|folder| read(folder, "", "").unwrap()).collect();
        check_unique(&all).unwrap();
        let resolve = |elements: &[GroupElement]| {
            resolve_order(&[OrderGroup { group: elements.to_vec() }], &all)
                .map(|order| order.order[0].group.clone())
        };
        assert_eq!(
            resolve(&[element("a", ""), element("b", "2")]).unwrap(),
            [element("a", "1"), element("b", "2")]
        );
        assert!(resolve(&[element("b", "")]).unwrap_err().to_string().contains("several versions"));
        assert!(resolve(&[element("c", "3")]).unwrap_err().to_string().contains("`c@3`"));
        let twice = [read(&folders[0], "", "").unwrap(), read(&folders[0], "", "").unwrap()];
        assert!(check_unique(&twice).unwrap_err().to_string().contains("a@1 as well"));
    }
}
