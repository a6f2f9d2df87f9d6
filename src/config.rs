//! What the user has chosen for every command to come: one TOML document. Where it lies, the caller says.
//!
//! A key that is not known is refused by name and line: of a document that says whom to trust, no line is skipped. Comments
//! stay where they are when a command changes something else.

mod document;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use coracle_images::{Digest, Reference};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table};

pub use self::document::ConfigError;
pub(crate) use self::document::read;
use crate::build::{LifecycleArchives, LifecycleImage};
use crate::trust::{TrustError, TrustedBuilders};

/// The document. What is not in it is as its default says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The builder of builds that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_builder: Option<Reference>,
    /// Where lifecycles are published, where it is not where other platforms look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_image: Option<LifecycleImage>,
    /// Where their release archives are, where it is not where they are released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_archives: Option<LifecycleArchives>,
    /// Their digests by version, where the user knows better than a file beside the archive, or there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lifecycle_digests: BTreeMap<String, Digest>,
    /// Which builders are trusted beside the suggested ones, and which of those are not.
    #[serde(skip_serializing_if = "TrustedBuilders::is_default")]
    pub trusted_builders: TrustedBuilders,
}

impl Config {
    /// Read it. No file is nothing chosen.
    ///
    /// # Errors
    /// [`ConfigError`]: it cannot be read, others may write to it, or a line of it cannot be understood.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(read(path)?.unwrap_or_default())
    }

    /// Refuse `image` as the name of something built, cached, imported or rebased: what is believed by its name must not be made by
    /// whoever is built. That is a trusted builder, and a lifecycle that plays the phases with credentials of builders that are not.
    ///
    /// # Errors
    /// [`TrustError::NameOfBuilder`], [`TrustError::NameOfLifecycle`].
    pub fn refuse_as_output(&self, image: &Reference) -> Result<(), TrustError> {
        self.trusted_builders.refuse_as_output(image)?;
        let believed = self.lifecycle_image.iter().cloned().chain([LifecycleImage::default()]);
        match believed.into_iter().find(|lifecycle| lifecycle.means(image)) {
            Some(by) => Err(TrustError::NameOfLifecycle { image: image.to_string(), by: by.to_string() }),
            None => Ok(()),
        }
    }

    /// Read it, change it and write it, alone: whoever else changes it waits. Where `change` fails, nothing is written. The file
    /// appears whole or not at all, and belongs to the user alone (mode 0600, a folder that is made 0700).
    ///
    /// # Errors
    /// [`ConfigError`], or what `change` returned.
    pub fn change<T, E: From<ConfigError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        // Whoever keeps such files in a folder of their own has a link here, which stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let _lock = lock(&path)?;
        let before = Self::read(&path)?;
        let mut after = before.clone();
        let changed = change(&mut after)?;
        if after != before {
            write(&path, &rewritten(&path, &before, &after)?)?;
        }
        Ok(changed)
    }
}

/// Held for as long as what is returned lives. It is a file of its own, because the document is replaced.
pub(crate) fn lock(path: &Path) -> Result<File, ConfigError> {
    let folder = folder(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(ConfigError::io("create", folder))?;
    let lock = path.with_extension("lock");
    let failed = |act| ConfigError::io(act, &lock);
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&lock);
    let file = file.map_err(failed("create"))?;
    file.lock().map_err(failed("lock"))?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Put a text in the place of what is there, at once, for the user alone (mode 0600).
pub(crate) fn write(path: &Path, text: &str) -> Result<(), ConfigError> {
    let failed = |act| ConfigError::io(act, path);
    // Of mode 0600, as tempfile(3) makes it.
    let mut file = tempfile::NamedTempFile::new_in(folder(path)).map_err(failed("write"))?;
    file.write_all(text.as_bytes()).map_err(failed("write"))?;
    file.as_file().sync_all().map_err(failed("write"))?;
    file.persist(path).map_err(|error| failed("replace")(error.error))?;
    Ok(())
}

/// The document's text with what differs between `before` and `after`, and everything else as it was.
fn rewritten(path: &Path, before: &Config, after: &Config) -> Result<String, ConfigError> {
    let text = document::text(path)?.unwrap_or_default();
    let parsed = |text: &str| text.parse::<DocumentMut>().map_err(|error| ConfigError::unfit(path, error));
    let canonical = |config: &Config| {
        parsed(&toml::to_string_pretty(config).map_err(|error| ConfigError::unfit(path, error))?)
    };
    let mut document = parsed(&text)?;
    merge(document.as_table_mut(), canonical(before)?.as_table(), canonical(after)?.as_table());
    Ok(document.to_string())
}

fn merge(document: &mut Table, before: &Table, after: &Table) {
    let shown = |item: Option<&Item>| item.map(ToString::to_string);
    for (key, _) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        document.remove(key);
    }
    for (key, item) in after {
        match (document.get_mut(key), before.get(key), item) {
            (Some(Item::Table(document)), Some(Item::Table(before)), Item::Table(after)) => {
                merge(document, before, after);
            }
            (_, before, after) if shown(before) == shown(Some(after)) => {}
            _ => drop(document.insert(key, item.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    fn add(path: &Path, name: &str) -> Result<(), ConfigError> {
        Config::change(path, |config| {
            config.trusted_builders.add(&name.parse().unwrap());
            Ok(())
        })
    }

    fn folder_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read_and_belongs_to_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/coracle/config.toml");
        assert_eq!(Config::read(&path).unwrap(), Config::default(), "no file is nothing chosen");
        add(&path, "r.example/one").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[trusted-builders]\nadded = [\"r.example/one\"]\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn what_a_change_does_not_mean_stays_as_it_was_typed() {
        let (_folder, path) =
            folder_with("# mine\n[trusted-builders]\n# why\nremoved = ['heroku/builder:22'] # end\n");
        add(&path, "r.example/one").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# mine\n[trusted-builders]\n# why\nremoved = ['heroku/builder:22'] # end\n"),
            "{text}"
        );
        assert!(text.contains("added = [\"r.example/one\"]"), "{text}");
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    (0..5).for_each(|number| add(path, &format!("r.example/b{writer}-{number}")).unwrap());
                });
            }
        });
        let names = Config::read(&path).unwrap().trusted_builders.names();
        assert_eq!(names.iter().filter(|name| name.to_string().starts_with("r.example/")).count(), 40);
    }

    #[test]
    fn a_failed_change_writes_nothing_and_a_link_stays_one() {
        let (folder, path) = folder_with("");
        let failed: Result<(), ConfigError> = Config::change(&path, |config| {
            config.trusted_builders.add(&"r.example/x".parse().unwrap());
            Err(ConfigError::TooLarge(PathBuf::new()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        let link = folder.path().join("link.toml");
        symlink(&path, &link).unwrap();
        add(&link, "r.example/one").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().contains("r.example/one"));
    }

    #[test]
    fn nothing_is_built_where_lifecycles_are_looked_for() {
        let config = |lifecycle: Option<&str>| Config {
            lifecycle_image: lifecycle.map(|text| text.parse().unwrap()),
            ..Config::default()
        };
        let refused = |config: &Config, image: &str| {
            config.refuse_as_output(&image.parse().unwrap()).map_err(|error| error.to_string())
        };
        let [none, all, one] =
            [None, Some("r.example/lifecycle"), Some("r.example/lifecycle:own")].map(config);
        let expected = "index.docker.io/buildpacksio/lifecycle:0.19.3 is where lifecycles are looked for (docker.io/buildpacksio/lifecycle): what lies there would be run with credentials; choose another name";
        for config in [&none, &all, &one] {
            for image in ["buildpacksio/lifecycle:0.19.3", "docker.io/buildpacksio/lifecycle:0.19.3"] {
                assert_eq!(refused(config, image).unwrap_err(), expected);
            }
            assert_eq!(refused(config, "r.example/buildpacksio/lifecycle:0.19.3"), Ok(()));
            assert!(refused(config, "heroku/builder:24").unwrap_err().contains("trusted builder"));
        }
        assert_eq!(refused(&none, "r.example/lifecycle:own"), Ok(()));
        assert!(refused(&all, "r.example/lifecycle:0.19.3").is_err());
        assert!(refused(&one, "r.example/lifecycle:own").is_err());
        assert_eq!(refused(&one, "r.example/lifecycle:0.19.3"), Ok(()));
    }

    #[test]
    fn what_cannot_be_understood_names_file_and_line() {
        for (text, line, why) in [
            ("\n[trusted-builder]\n", 2, "unknown field `trusted-builder`, expected"),
            ("[trusted-builders]\nadded = [\n  'a',\n  'A B',\n]", 2, "`A B` is not an image name"),
            ("[trusted-builders]\nadded = 'a'", 2, "invalid type: string"),
            ("x", 1, "key with no value"),
        ] {
            let (_folder, path) = folder_with(text);
            let error = Config::read(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}, line {line}: {why}", path.display())), "{error}");
            assert_eq!(add(&path, "a").unwrap_err().to_string(), error, "and nothing is written");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
