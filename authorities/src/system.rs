//! Where a system keeps the authorities that it trusts.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// All authorities in one file, as distributions have it.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A file for each, where there is no bundle.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Files of which one is enough, and folders to look through if there is none of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    bundles: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// Whether the user named them: then all of them count.
    named: bool,
}

/// The places that the user named (`SSL_CERT_FILE`, `SSL_CERT_DIR`, as OpenSSL has them), or else the usual ones.
pub(super) fn places() -> Places {
    Places::of(env::var_os("SSL_CERT_FILE"), env::var_os("SSL_CERT_DIR"))
}

impl Places {
    fn of(file: Option<OsString>, folders: Option<OsString>) -> Self {
        let bundles: Vec<PathBuf> =
            file.filter(|file| !file.is_empty()).map(PathBuf::from).into_iter().collect();
        let folders: Vec<PathBuf> = folders.iter().flat_map(env::split_paths).collect();
        let folders: Vec<PathBuf> =
            folders.into_iter().filter(|folder| !folder.as_os_str().is_empty()).collect();
        if bundles.is_empty() && folders.is_empty() {
            let (bundles, folders) = (BUNDLES.map(PathBuf::from).into(), FOLDERS.map(PathBuf::from).into());
            return Self { bundles, folders, named: false };
        }
        Self { bundles, folders, named: true }
    }

    /// What can be read there; what is no certificate is passed over.
    pub(super) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let mut found = Vec::new();
        for bundle in &self.bundles {
            found.extend(read(bundle));
            if !found.is_empty() && !self.named {
                return found;
            }
        }
        for folder in &self.folders {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.for_each(|entry| found.extend(read(&entry.path())));
        }
        found
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.bundles.iter().chain(&self.folders);
        let places: Vec<String> = places.map(|place| place.display().to_string()).collect();
        let by = if self.named { " (as SSL_CERT_FILE and SSL_CERT_DIR say)" } else { "" };
        write!(f, "{}{by}", places.join(", "))
    }
}

fn read(path: &Path) -> Vec<CertificateDer<'static>> {
    let certificates = fs::read(path).unwrap_or_default();
    CertificateDer::pem_slice_iter(&certificates).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn what_the_user_names_counts_alone() {
        let usual = Places::of(None, Some(OsString::new()));
        assert_eq!(usual, Places::of(Some(OsString::new()), None));
        assert!(usual.to_string().starts_with("/etc/ssl/certs/ca-certificates.crt, "), "{usual}");
        let named = Places::of(Some("/a.pem".into()), Some("/b:/c".into()));
        assert_eq!(named.to_string(), "/a.pem, /b, /c (as SSL_CERT_FILE and SSL_CERT_DIR say)");
        assert_eq!(Places::of(None, Some("/b".into())).bundles, Vec::<PathBuf>::new());
    }

    #[test]
    fn one_bundle_is_enough_and_folders_are_for_want_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("two.pem"), format!("words\n{ONE}{ONE}more words")).unwrap();
        fs::write(path("one.pem"), ONE).unwrap();
        fs::create_dir(path("folder")).unwrap();
        fs::write(path("folder/none"), "no certificate").unwrap();
        fs::write(path("folder/one"), ONE).unwrap();
        let count = |bundles: &[&str], named| {
            let bundles = bundles.iter().map(|name| path(name)).collect();
            Places { bundles, folders: vec![path("folder")], named }.certificates().len()
        };
        assert_eq!(count(&["missing", "two.pem", "one.pem"], false), 2);
        assert_eq!(count(&["missing"], false), 1);
        assert_eq!(count(&["two.pem"], true), 3);
    }
}
