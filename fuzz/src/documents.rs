//! Documents of the specifications. What is written of one must read as the same.

use coracle_cnb as cnb;
use coracle_images::{Digest, Image, Index};
use serde::Serialize;
use serde::de::DeserializeOwned;

type Read = fn(&str);

/// Read, written, and read again.
fn round<T: DeserializeOwned + Serialize>(text: &str) {
    let Ok(document) = cnb::read_toml::<T>("document", text) else { return };
    let written = cnb::write_toml(&document).expect("what was read can be written");
    let again: T = cnb::read_toml("document", &written).expect("what was written can be read");
    assert_eq!(cnb::write_toml(&again).expect("as before"), written);
}

fn read<T: DeserializeOwned>(text: &str) {
    let _ = cnb::read_toml::<T>("document", text);
}

fn label<T: DeserializeOwned + Serialize>(text: &str) {
    let Ok(document) = cnb::read_json::<T>("label", text) else { return };
    let written = cnb::write_json(&document).expect("what was read can be written");
    let again: T = cnb::read_json("label", &written).expect("what was written can be read");
    assert_eq!(cnb::write_json(&again).expect("as before"), written);
}

/// Every TOML document, whatever it was meant to be.
pub fn toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let documents: &[Read] = &[
        round::<cnb::Group>,
        round::<cnb::Plan>,
        round::<cnb::Analyzed>,
        round::<cnb::Metadata>,
        round::<cnb::Report>,
        round::<cnb::Order>,
        read::<cnb::BuildPlan>,
        read::<cnb::LaunchToml>,
        read::<cnb::BuildToml>,
        read::<cnb::StoreToml>,
        read::<cnb::LayerToml>,
        read::<cnb::BuildpackToml>,
        read::<cnb::ExtensionToml>,
        read::<cnb::RunToml>,
        read::<cnb::StackToml>,
        read::<cnb::SystemToml>,
        read::<cnb::ProjectMetadata>,
    ];
    for document in documents {
        document(text);
    }
    if let Ok(value) = cnb::read_toml::<::toml::Value>("value", text) {
        let json = cnb::json_of_toml(&value);
        let _ = cnb::toml_of_json(&json);
    }
}

/// Every label.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let labels: &[Read] = &[
        label::<cnb::LifecycleMetadata>,
        label::<cnb::BuildMetadata>,
        label::<cnb::BuilderMetadata>,
        label::<cnb::CacheMetadata>,
        label::<cnb::ProjectMetadata>,
    ];
    for label in labels {
        label(text);
    }
}

/// A manifest, a zero byte, and the configuration. The manifest's word for the configuration's digest is `CONFIG`.
pub fn image(bytes: &[u8]) {
    let (manifest, config) = match bytes.iter().position(|b| *b == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b"{}"[..]),
    };
    let manifest =
        String::from_utf8_lossy(manifest).replace("CONFIG", Digest::of(config).as_str()).into_bytes();
    let _ = serde_json::from_slice::<Index>(&manifest);
    let Ok(image) = Image::from_bytes(None, manifest.clone(), config.to_vec()) else { return };
    assert_eq!(image.layers().len(), image.manifest.layers.len());
    assert!(image.manifest_bytes == manifest && image.digest == Digest::of(&manifest));
    let again = Image::assemble(image.config.clone(), image.layers()).expect("what was read can be written");
    Image::from_bytes(None, again.manifest_bytes, again.config_bytes).expect("what was written can be read");
}

/// Dockerfiles of extensions.
pub fn dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for result in coracle_lifecycle::generate::dockerfiles(text) {
        if let Err(error) = result {
            assert!(!error.to_string().is_empty());
        }
    }
}
