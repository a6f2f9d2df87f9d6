//! Registries that answer, refuse, and lie.

use std::collections::BTreeMap;

mod content;
mod endless;
mod identity;
mod known;
mod near;
mod passwords;
mod server;
mod uploads;

use self::server::{Server, State};
use super::*;
use crate::auth::Credentials;
use crate::config::Config;
use crate::document::{Descriptor, media};

fn registry(auth: AuthFile) -> Registry {
    Registry::new(RegistryOptions { auth, ..RegistryOptions::default() }).unwrap()
}

fn with_basic(host: &str) -> AuthFile {
    let mut auth = AuthFile::default();
    auth.insert(host, Credentials::Basic { user: "u".into(), password: "p".to_owned().into() });
    auth
}

const BASIC: &str = "Basic dTpw";

fn image() -> Image {
    let config = Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
    Image::assemble(config, Vec::new()).unwrap()
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Pushes an image and reads it back.
fn round(server: &Server, registry: &Registry) -> Result<(), RegistryError> {
    let name = server.name("team/app:1");
    registry.push_image(&name, &image())?;
    let read = registry.image(&name, &platform())?;
    assert_eq!((&read.digest, read.reference), (&image().digest, Some(name.clone())));
    let pinned = name.with_digest(image().digest);
    server
        .state
        .lock()
        .unwrap()
        .manifests
        .insert(image().digest.to_string(), (media::OCI_MANIFEST.to_owned(), image().manifest_bytes));
    assert_eq!(registry.image(&pinned, &platform())?.digest, image().digest);
    Ok(())
}

#[test]
fn push_and_pull() {
    let server = Server::start(State::default());
    let registry = registry(AuthFile::default());
    round(&server, &registry).unwrap();
    let name = server.name("team/app:1");
    assert_eq!(registry.push_bytes(&name, &image().config_bytes).unwrap(), Pushed::Present);
    assert!(registry.blob_exists(&name, &image().manifest.config.digest).unwrap());
    assert!(!registry.blob_exists(&name, &Digest::of("none")).unwrap());
    assert!(!registry.mount_blob(&name, &server.name("other"), &Digest::of("x")).unwrap());
    assert_eq!(registry.find_image(&server.name("team/app:none"), &platform()).unwrap(), None);
    assert!(registry.can_read(&name).unwrap() && !registry.can_read(&server.name("app:none")).unwrap());
    assert!(registry.can_write(&name).unwrap());
}

#[test]
fn credentials() {
    for bearer in [false, true] {
        let state = State { basic: Some(BASIC.into()), bearer, ..State::default() };
        let server = Server::start(state);
        round(&server, &registry(with_basic(&server.host))).unwrap();
        let stranger = registry(with_basic("other.example.org"));
        let error = stranger.image(&server.name("team/app:1"), &platform()).unwrap_err();
        assert!(error.is_denied(), "{error:?}");
        assert!(!stranger.can_write(&server.name("team/app:1")).unwrap());
    }
}

#[test]
fn an_access_token_that_no_header_can_hold_is_none() {
    let server = Server::start(State::default());
    let mut auth = AuthFile::default();
    auth.insert(&server.host, Credentials::Bearer("one\ntwo".to_owned().into()));
    let error = registry(auth).image(&server.name("app:1"), &platform()).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(text.ends_with("the access token is none") && !text.contains("two"), "{text}");
    assert_eq!(server.log(), Vec::<String>::new());
}

#[test]
fn a_manifest_by_tag_and_by_digest() {
    for nowhere in [false, true] {
        let server = Server::start(State { nowhere, ..State::default() });
        let registry = registry(AuthFile::default());
        let digest = image().digest;
        for (name, path) in [
            (server.name("app:1"), "app/manifests/1".to_owned()),
            (server.name("app").with_digest(Digest::of("other")), format!("app/manifests/{digest}")),
        ] {
            let pushed = registry.push_manifest(&name, &image().manifest_bytes, media::OCI_MANIFEST);
            assert_eq!(pushed.unwrap(), digest);
            assert_eq!(server.log().last(), Some(&format!("PUT /v2/{path}")));
        }
    }
}

#[test]
fn read_only() {
    let server = Server::start(State { read_only: true, ..State::default() });
    let registry = registry(AuthFile::default());
    assert!(!registry.can_write(&server.name("app")).unwrap());
    // Seeing that the content is there already is no leave to write.
    let (digest, content) = (Digest::of(EMPTY_VALUE).to_string(), EMPTY_VALUE.to_vec());
    server.state.lock().unwrap().blobs.insert(digest, content);
    assert!(!registry.can_write(&server.name("app")).unwrap());
    assert!(registry.push_bytes(&server.name("app"), b"x").unwrap_err().is_denied());
}

#[test]
fn other_manifest_is_an_error() {
    let server = Server::start(State::default());
    let wanted = Digest::of("something else");
    let entry = (media::OCI_MANIFEST.to_owned(), image().manifest_bytes);
    server.state.lock().unwrap().manifests.insert(wanted.to_string(), entry);
    let name = server.name("app").with_digest(wanted);
    assert!(registry(AuthFile::default()).image(&name, &platform()).is_err());
}

#[test]
fn index_by_platform() {
    let server = Server::start(State::default());
    let registry = registry(AuthFile::default());
    let name = server.name("app:1");
    registry.push_image(&name, &image()).unwrap();
    let mut entry = image().descriptor();
    entry.platform = Some(platform());
    let mut other = Descriptor::new(media::OCI_MANIFEST, Digest::of("arm"), 1);
    other.platform = Some("linux/arm64/v8".parse().unwrap());
    let index = Index { manifests: vec![other, entry], ..Index::default() };
    let bytes = serde_json::to_vec(&index).unwrap();
    registry.push_manifest(&name, &bytes, media::OCI_INDEX).unwrap();
    let manifest = (media::OCI_MANIFEST.to_owned(), image().manifest_bytes);
    server.state.lock().unwrap().manifests.insert(image().digest.to_string(), manifest);
    assert_eq!(registry.image(&name, &platform()).unwrap().digest, image().digest);
    let error = registry.image(&name, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("linux/arm64/v8, linux/amd64"), "{error}");
}

#[test]
fn certificates_one_by_one() {
    let one = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----";
    let text = format!("comment\n{one}\nmore\n{one}\nrest");
    assert_eq!(split_certificates(&text).len(), 2);
    assert!(split_certificates("nothing").is_empty());
}
