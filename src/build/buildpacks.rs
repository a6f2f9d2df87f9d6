//! Buildpacks that the user asks for: `--buildpack`.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_cnb::{BuilderMetadata, BuildpackId, BuildpackToml, GroupElement, Order, OrderGroup};

use crate::error::Error;

/// One `--buildpack`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Buildpack {
    /// `ID` or `ID@VERSION`, of the builder.
    OfBuilder(BuildpackId, Option<String>),
    /// A folder with a `buildpack.toml`.
    Folder(PathBuf),
}

/// What a text given as `--buildpack` cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither the id of a buildpack in the builder (ID or ID@VERSION) nor a folder with a buildpack.toml; archives, images and registries of buildpacks cannot be named yet"
)]
pub struct BuildpackError(String);

impl std::str::FromStr for Buildpack {
    type Err = BuildpackError;

    /// A path is what begins with `.` or `/`, or exists; everything else is an id.
    fn from_str(text: &str) -> Result<Self, BuildpackError> {
        let refused = || BuildpackError(text.to_owned());
        let path = Path::new(text);
        if text.starts_with(['.', '/']) || path.exists() {
            return if path.join("buildpack.toml").is_file() {
                Ok(Self::Folder(path.into()))
            } else {
                Err(refused())
            };
        }
        if text.contains(':') {
            return Err(refused());
        }
        let (id, version) = text.split_once('@').map_or((text, None), |(id, version)| (id, Some(version)));
        Ok(Self::OfBuilder(id.parse().map_err(|_| refused())?, version.map(str::to_owned)))
    }
}

/// The order that the user's buildpacks make: one group, in the order given.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) order: Order,
    /// Folders to bring along, with the element each is.
    pub(crate) folders: Vec<(PathBuf, GroupElement)>,
}

/// Look the buildpacks up. Nothing asked for is nothing chosen.
///
/// # Errors
/// [`Error::Buildpack`].
pub(crate) fn choose(wanted: &[Buildpack], builder: &BuilderMetadata) -> Result<Option<Chosen>, Error> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut chosen = Chosen::default();
    let mut group = OrderGroup::default();
    for buildpack in wanted {
        let element = match buildpack {
            Buildpack::OfBuilder(id, version) => of_builder(id, version.as_deref(), builder)?,
            Buildpack::Folder(path) => {
                let element = of_folder(path)?;
                chosen.folders.push((path.clone(), element.clone()));
                element
            }
        };
        group.group.push(element);
    }
    chosen.order.order.push(group);
    Ok(Some(chosen))
}

fn element(id: &BuildpackId, version: &str) -> GroupElement {
    GroupElement { id: id.clone(), version: version.to_owned(), api: None, homepage: None, optional: false }
}

/// Without a version, the builder must have exactly one.
fn of_builder(
    id: &BuildpackId,
    version: Option<&str>,
    builder: &BuilderMetadata,
) -> Result<GroupElement, Error> {
    let known: Vec<String> = builder
        .rest
        .get("buildpacks")
        .and_then(|list| list.as_array())
        .into_iter()
        .flatten()
        .filter(|entry| entry["id"].as_str() == Some(id.as_str()))
        .filter_map(|entry| Some(entry["version"].as_str()?.to_owned()))
        .collect();
    let refused = |why: String| Error::Buildpack { name: id.to_string(), why };
    match (version, known.as_slice()) {
        (_, []) => Err(refused("the builder does not have it".to_owned())),
        (Some(version), _) if known.iter().any(|known| known == version) => Ok(element(id, version)),
        (Some(version), _) => {
            Err(refused(format!("the builder has no version {version} of it, but {}", known.join(", "))))
        }
        (None, [only]) => Ok(element(id, only)),
        (None, _) => Err(refused(format!("the builder has several versions; name one as {id}@{}", known[0]))),
    }
}

fn of_folder(path: &Path) -> Result<GroupElement, Error> {
    let refused = |why: String| Error::Buildpack { name: path.display().to_string(), why };
    let file = path.join("buildpack.toml");
    let text = fs::read_to_string(&file).map_err(Error::folder("read", &file))?;
    let toml: BuildpackToml = coracle_cnb::read_toml("buildpack.toml", &text).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        refused(format!("its buildpack.toml cannot be read: {}", cause.trim()))
    })?;
    Ok(element(&toml.buildpack.id, &toml.buildpack.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> BuilderMetadata {
        let text = r#"{"buildpacks":[{"id":"a/one","version":"1"},{"id":"a/two","version":"1"},{"id":"a/two","version":"2"}]}"#;
        coracle_cnb::read_json("x", text).unwrap()
    }

    fn chosen(texts: &[&str]) -> Result<Vec<String>, String> {
        let wanted: Vec<Buildpack> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let chosen = choose(&wanted, &builder()).map_err(|error| error.to_string())?;
        Ok(chosen.unwrap().order.order[0].group.iter().map(GroupElement::name).collect())
    }

    #[test]
    fn buildpacks_of_the_builder_are_named_by_id_and_version() {
        assert_eq!(chosen(&["a/one", "a/two@2"]), Ok(vec!["a/one@1".to_owned(), "a/two@2".to_owned()]));
        let refused = |text| chosen(&[text]).unwrap_err();
        assert_eq!(refused("a/none"), "buildpack a/none cannot be used: the builder does not have it");
        assert_eq!(
            refused("a/two"),
            "buildpack a/two cannot be used: the builder has several versions; name one as a/two@1"
        );
        assert_eq!(
            refused("a/two@3"),
            "buildpack a/two cannot be used: the builder has no version 3 of it, but 1, 2"
        );
        assert!(choose(&[], &builder()).unwrap().is_none());
    }

    #[test]
    fn folders_bring_their_own_buildpack_toml() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        assert_eq!(path.parse::<Buildpack>(), Err(BuildpackError(path.clone())));
        let toml = "api = \"0.10\"\n[buildpack]\nid = \"my/own\"\nversion = \"0.1\"\n";
        fs::write(folder.path().join("buildpack.toml"), toml).unwrap();
        assert_eq!(chosen(&[&path]), Ok(vec!["my/own@0.1".to_owned()]));
        // The version names the folder into which the buildpack is copied.
        fs::write(folder.path().join("buildpack.toml"), toml.replace("\"0.1\"", "\"../../../../store\""))
            .unwrap();
        assert!(chosen(&[&path]).unwrap_err().contains("version `../../../../store` of a buildpack"));
        fs::write(folder.path().join("buildpack.toml"), "broken").unwrap();
        assert!(chosen(&[&path]).unwrap_err().contains("its buildpack.toml cannot be read"));
        assert_eq!(
            "docker://x/y".parse::<Buildpack>().unwrap_err().to_string(),
            "`docker://x/y` is neither the id of a buildpack in the builder (ID or ID@VERSION) nor a folder with a buildpack.toml; archives, images and registries of buildpacks cannot be named yet"
        );
    }
}
