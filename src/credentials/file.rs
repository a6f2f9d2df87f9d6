//! A file of credentials that is read; and one that is changed: one at a time, whole or not at all, and closed to others (mode 0600).

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coracle_images::{AuthError, Secret};
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::CredentialsError;
use crate::config::{self, ConfigError};

/// Bytes; no file of credentials has more.
const LIMIT: u64 = 4 << 20;

/// Read the file, an empty document where there is none, and put what `edit` makes of it in its place. Whoever else changes it
/// with this function waits. A link stays one, if it is the user's or root's. The answer is the mode that it had, where others
/// could read it.
pub(super) fn change(
    path: &Path,
    edit: impl FnOnce(&str) -> Result<Secret, AuthError>,
) -> Result<Option<u32>, CredentialsError> {
    let path = behind_link(path)?;
    let _lock = config::lock(&path)?;
    let (text, open) = match text(&path)? {
        Some((text, mode)) => (text, Some(mode).filter(|mode| mode & 0o077 != 0)),
        None => (Zeroizing::new("{}".to_owned()), None),
    };
    let place = || path.display().to_string();
    let edited = edit(&text).map_err(|source| CredentialsError::Parse { place: place(), source })?;
    config::write(&path, &edited)?;
    Ok(open)
}

/// The file that a link of the user's or root's leads to.
fn behind_link(path: &Path) -> Result<PathBuf, CredentialsError> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_symlink() => {
            check_owner(path, about.uid())?;
            let failed = |source| CredentialsError::Read { place: path.display().to_string(), source };
            path.canonicalize().map_err(failed)
        }
        _ => Ok(path.to_owned()),
    }
}

fn check_owner(path: &Path, owner: u32) -> Result<(), ConfigError> {
    if owner == 0 || owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(ConfigError::Owner { path: path.to_owned(), owner })
}

/// The file's text and mode, if there is one.
fn text(path: &Path) -> Result<Option<(Secret, u32)>, CredentialsError> {
    let Some((mut bytes, about)) = bytes(path, OFlag::O_NOFOLLOW)? else { return Ok(None) };
    check_owner(path, about.uid())?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Some((Zeroizing::new(text), about.mode() & 0o777))),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            let source = io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
            Err(CredentialsError::Read { place: path.display().to_string(), source })
        }
    }
}

/// What a file holds, and what is known of it.
type Held = (Zeroizing<Vec<u8>>, Metadata);

/// What a file of credentials holds, if there is one; it is opened with these flags besides.
pub(super) fn bytes(path: &Path, flags: OFlag) -> Result<Option<Held>, CredentialsError> {
    let place = || path.display().to_string();
    let failed = |source| CredentialsError::Read { place: place(), source };
    // A pipe without a writer is not waited for.
    let opened = File::options().read(true).custom_flags((OFlag::O_NONBLOCK | flags).bits()).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > LIMIT {
        return Err(CredentialsError::NotAFile { place: place() });
    }
    // Reserved whole: a text that outgrows its place leaves copies behind.
    let size = usize::try_from(about.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some((bytes, about)))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use coracle_images::{AuthDocument, Credentials, with_entry};
    use coracle_runtime::with_causes;

    use super::*;

    fn basic() -> Credentials {
        Credentials::Basic { user: "u".into(), password: "p".to_owned().into() }
    }

    fn add(path: &Path, registry: &str) -> Result<Option<u32>, CredentialsError> {
        change(path, |text| with_entry(text, registry, Some(&basic())))
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(path: &Path) -> Vec<String> {
        AuthDocument::parse(&fs::read(path).unwrap()).unwrap().names.into_iter().collect()
    }

    #[test]
    fn a_new_file_belongs_to_the_user_alone_and_an_open_one_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("containers/auth.json");
        assert_eq!(add(&path, "a.example").unwrap(), None);
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(add(&path, "b.example").unwrap(), Some(0o644));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(&path), ["a.example", "b.example"]);
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert!(left.len() == 2 && left.iter().any(|name| name == "auth.lock"), "{left:?}");
    }

    #[test]
    fn logins_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    (0..5).for_each(|number| {
                        assert_eq!(add(path, &format!("r{writer}-{number}.example")).unwrap(), None)
                    });
                });
            }
        });
        assert_eq!(names(&path).len(), 40);
    }

    #[test]
    fn a_link_of_the_user_stays_and_what_it_leads_to_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("kept.json"), folder.path().join("auth.json"));
        fs::write(&path, r#"{"auths":{"a.example":{}}}"#).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        symlink("kept.json", &link).unwrap();
        assert_eq!(add(&link, "b.example").unwrap(), Some(0o644));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            (mode(&path), names(&path)),
            (0o600, vec!["a.example".to_owned(), "b.example".to_owned()])
        );
        let error = check_owner(&link, 7).unwrap_err().to_string();
        let expected = "auth.json belongs to the user with id 7, who could change it at any time; it must be yours or root's";
        assert!(error.ends_with(expected), "{error}");
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        let error = with_causes(&add(&folder.path().join("dangling"), "x.example").unwrap_err());
        assert!(error.ends_with("dangling: No such file or directory (os error 2)"), "{error}");
    }

    #[test]
    fn what_is_no_file_of_credentials_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let refused = |path: &Path| {
            let error = add(path, "a.example").unwrap_err();
            with_causes(&error).replace(&folder.path().display().to_string(), "DIR")
        };
        fs::write(&path, "hidden-7").unwrap();
        let expected = "could not use the credentials in DIR/auth.json: the credentials are not a JSON object as Docker writes it (line 1, column 1)";
        assert_eq!(refused(&path), expected);
        assert_eq!(fs::read_to_string(&path).unwrap(), "hidden-7");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let expected = "could not use the credentials in DIR/fifo: it is no regular file, or has more than 4 MiB; name another with --registry-auth-file";
        assert_eq!(refused(&fifo), expected);
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert_eq!(refused(&folder.path().join("folder")), expected.replace("fifo", "folder"));
    }

    /// A lock is made, and never where somebody's link leads to.
    #[test]
    fn nothing_is_made_through_a_link_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        symlink("planted", folder.path().join("auth.lock")).unwrap();
        let error = with_causes(&add(&path, "a.example").unwrap_err());
        assert!(error.ends_with("auth.lock: Too many levels of symbolic links (os error 40)"), "{error}");
        assert!(!folder.path().join("planted").exists() && !path.exists());
    }
}
