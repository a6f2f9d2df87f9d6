//! The registry client against a real registry.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use coracle_fixtures::{DockerRegistry, Entry, RegistryAccess, RunImage};
use coracle_images::{AuthFile, Digest, Platform, Reference, Registry, RegistryOptions};

fn client(registry: &DockerRegistry) -> Registry {
    let auth = AuthFile::parse(registry.docker_config().as_bytes()).expect("the fixture's configuration");
    Registry::new(RegistryOptions { auth, ca_bundle: registry.ca_bundle(), ..RegistryOptions::default() })
        .expect("a client")
}

fn platform() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

/// The name under which a client speaks TLS to a registry on loopback. By the usual names it would speak plain HTTP;
/// `127.1` is another way to write the address (inet_aton(3)).
fn over_tls(registry: &DockerRegistry, name: &str) -> Reference {
    registry.reference(name).replace("127.0.0.1", "127.1").parse().expect("a reference")
}

#[test]
fn pull_and_push_over_tls() {
    let registry = DockerRegistry::start(RegistryAccess::Tls);
    let made = RunImage::new().file(Entry::file("etc/new", "new\n")).image();
    registry.push(&made, "base", "1");
    let (client, name) = (client(&registry), over_tls(&registry, "base:1"));
    let image = client.image(&name, &platform()).unwrap();
    assert_eq!(image.digest.to_string(), made.digest());
    for layer in image.layers() {
        let mut content = Vec::new();
        client.blob(&name, &layer.descriptor).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(Digest::of(&content), layer.descriptor.digest);
        let copy = over_tls(&registry, "copy:1");
        client.push_bytes(&copy, &content).unwrap();
    }
    assert_eq!(client.push_image(&over_tls(&registry, "copy:1"), &image).unwrap(), image.digest);
    assert_eq!(registry.manifest("copy:1"), image.manifest_bytes);
    assert!(registry.access_log().contains("coracle/"));
}

#[test]
fn an_unknown_authority_is_not_trusted() {
    let registry = DockerRegistry::start(RegistryAccess::Tls);
    registry.push(&RunImage::new().image(), "base", "1");
    let other = DockerRegistry::start(RegistryAccess::Tls);
    let name = over_tls(&registry, "base:1");
    for ca_bundle in [None, other.ca_bundle()] {
        let options = RegistryOptions { ca_bundle, ..RegistryOptions::default() };
        let start = Instant::now();
        let error = Registry::new(options).unwrap().image(&name, &platform()).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(3), "an authority does not become known by waiting");
        let causes: Vec<String> =
            std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
                .map(ToString::to_string)
                .collect();
        assert!(causes.iter().any(|cause| cause.contains("certificate")), "{causes:?}");
        // Not one request got through, so no credential could have.
        assert!(!registry.access_log().contains("coracle/"), "{}", registry.access_log());
    }
}

#[test]
fn asking_whether_one_may_write_leaves_no_upload_open() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let name: Reference = registry.reference("new/app:1").parse().unwrap();
    let stranger = Registry::new(RegistryOptions::default()).unwrap();
    assert!(!stranger.can_write(&name).unwrap());
    assert!(!registry.storage().join("repositories/new").exists());
    for _ in 0..2 {
        assert!(client(&registry).can_write(&name).unwrap());
        let uploads = registry.storage().join("repositories/new/app/_uploads");
        assert_eq!(fs::read_dir(uploads).unwrap().count(), 0);
    }
    assert!(!stranger.can_write(&name).unwrap());
}

#[test]
fn an_image_by_digest_alone() {
    let registry = DockerRegistry::open();
    registry.push(&RunImage::new().image(), "base", "1");
    let (client, name) = (client(&registry), registry.reference("base:1").parse().unwrap());
    let image = client.image(&name, &platform()).unwrap();
    let untagged: Reference =
        registry.reference("base").parse::<Reference>().unwrap().with_digest(image.digest.clone());
    assert_eq!(
        client.push_manifest(&untagged, &image.manifest_bytes, image.media_type()).unwrap(),
        image.digest
    );
    assert_eq!(client.image(&untagged, &platform()).unwrap().digest, image.digest);
}
