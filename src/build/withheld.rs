//! What of the application's folder buildpacks do not get: what is ours, and what holds secrets that the user keeps or
//! gives. Nobody means those to be in an image.

use std::path::{Path, PathBuf};

use super::BuildRequest;

/// What a home holds that is its user's alone, and no part of an application even where that is the home.
const OF_A_HOME: [&str; 15] = [
    ".ssh",
    ".gnupg",
    ".docker",
    ".dockercfg",
    ".aws",
    ".azure",
    ".kube",
    ".netrc",
    ".git-credentials",
    ".password-store",
    ".bash_history",
    ".config/containers",
    ".config/gcloud",
    ".config/gh",
    ".local/share/keyrings",
];

/// A file or folder below the application's, and what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Withheld {
    /// Relative to the application's folder.
    pub(super) path: PathBuf,
    pub(super) holds: String,
}

/// What below `source` holds secrets of this build's user.
pub(super) fn withheld(source: &Path, request: &BuildRequest) -> Vec<Withheld> {
    let home = request.brought.user_home.iter().flat_map(|home| {
        OF_A_HOME.iter().map(|name| (home.join(name), "what is its user's alone".to_owned()))
    });
    below(source, secrets(request).chain(home))
}

/// What secrets of this build were read from, and what it holds.
pub(super) fn secrets(request: &BuildRequest) -> impl Iterator<Item = (PathBuf, String)> {
    let keychain =
        request.auth.files().map(|path| (path.to_owned(), "credentials for registries".to_owned()));
    keychain.chain(request.brought.origins().map(|(path, what)| (path.to_owned(), what)))
}

/// Links are followed to what they lead to; what is not there is not below.
fn below(source: &Path, places: impl Iterator<Item = (PathBuf, String)>) -> Vec<Withheld> {
    let mut found: Vec<Withheld> = Vec::new();
    for (place, holds) in places {
        let Ok(place) = place.canonicalize() else { continue };
        let Ok(path) = place.strip_prefix(source) else { continue };
        if !path.as_os_str().is_empty() && !found.iter().any(|known| path.starts_with(&known.path)) {
            found.push(Withheld { path: path.to_owned(), holds });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_lies_below_is_found_once_and_under_its_real_name() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().canonicalize().unwrap().join("app");
        fs::create_dir_all(source.join("ci/.docker")).unwrap();
        fs::write(source.join("ci/.docker/config.json"), "{}").unwrap();
        fs::write(source.join("token"), "").unwrap();
        std::os::unix::fs::symlink(source.join("token"), folder.path().join("link")).unwrap();
        let place = |path: PathBuf| (path, "secrets".to_owned());
        let places = [
            place(source.join("ci/.docker")),
            place(source.join("ci/.docker/config.json")),
            place(folder.path().join("link")),
            place(source.join("nowhere")),
            place(folder.path().to_owned()),
            place(source.clone()),
        ];
        let found = below(&source, places.into_iter());
        let paths: Vec<&Path> = found.iter().map(|withheld| withheld.path.as_path()).collect();
        assert_eq!(paths, [Path::new("ci/.docker"), Path::new("token")]);
    }
}
