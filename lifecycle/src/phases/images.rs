//! Where a phase finds images: in registries, or in folders (Platform API, "OCI Image Layout").

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coracle_images::{
    AuthError, AuthFile, Digest, HelperError, Image, Layer, LayoutError, Platform, Reference, ReferenceError,
    Registry, RegistryError, RegistryOptions, read_layout,
};
use nix::fcntl::OFlag;

use super::arguments::ArgumentError;
use crate::file::FileError;

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The registry did not do as asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The layout folder is not usable.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The layout folder holds another image than the one named by digest.
    #[error("image `{reference}`: `{path}` holds {found}, not {expected}; analyze again")]
    OtherDigest { reference: String, path: PathBuf, expected: Digest, found: Digest },
    /// There is no such image.
    #[error("image `{0}` does not exist")]
    Missing(String),
    /// A text that names no image.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// A reference that is no path below the layout folder.
    #[error("`{text}` is no image in the layout folder `{dir}`: expected a path below it, `@` and a digest")]
    NoPath { text: String, dir: PathBuf },
    /// The credentials could not be read. What they say is not repeated.
    #[error("read credentials: `{path}`")]
    Auth {
        path: String,
        #[source]
        source: AuthError,
    },
    /// The program that Docker's configuration names for a registry does not say them. What it says is not repeated.
    #[error(
        "could not get the credentials for {registry}, for which `{place}` names a helper; install it where the phase runs, set CNB_REGISTRY_AUTH for this registry, or take it out of credHelpers"
    )]
    Helper {
        registry: String,
        place: PathBuf,
        #[source]
        source: Box<HelperError>,
    },
    /// The variable holds no credentials. What it says is not repeated.
    #[error(
        "CNB_REGISTRY_AUTH is not a JSON object of registries with `Basic …`, `Bearer …` or `X-Identity …`"
    )]
    Variable,
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Where images are looked for.
#[derive(Debug, Clone)]
pub(crate) enum Images {
    /// In their registries.
    Registry(Registry),
    /// In layout folders below this one: see [`layout_path`].
    Layout(PathBuf),
}

impl Images {
    /// As `-layout`, `-layout-dir` and `-insecure-registry` say, with the credentials of the call.
    pub(crate) fn new(call: &super::Call<'_>) -> Result<Self, super::PhaseError> {
        let arguments = &call.arguments;
        if arguments.on("layout") {
            let dir = arguments.path("layout-dir");
            if dir.as_os_str().is_empty() {
                return Err(ArgumentError::Missing("layout-dir").into());
            }
            return Ok(Self::Layout(dir));
        }
        Ok(Self::Registry(Self::registry(call)?))
    }

    /// All registries, as `-insecure-registry` says, with the credentials of the call.
    pub(crate) fn registry(call: &super::Call<'_>) -> Result<Registry, super::PhaseError> {
        registry(call, call.auth.clone()).map_err(|source| super::PhaseError::Credentials(source.into()))
    }

    /// As these, for images too that the phase could not know of when it started. To be called where nothing foreign runs.
    pub(crate) fn also_for(
        &self,
        call: &super::Call<'_>,
        references: &[Reference],
    ) -> Result<Self, ImagesError> {
        let Self::Registry(_) = self else { return Ok(self.clone()) };
        let found = call.keys.of(references)?;
        found.notices.iter().for_each(|text| call.warn(text));
        let mut auth = call.auth.clone();
        auth.extend(found.auth);
        Ok(Self::Registry(registry(call, auth)?))
    }

    /// The image of this name for this machine; nothing where there is none. Fails where it may not be read.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Option<Image>, ImagesError> {
        if let Self::Registry(registry) = self {
            return Ok(registry.find_image(reference, &Platform::host())?);
        }
        let Some(path) = self.folder(reference) else { return Ok(None) };
        let mut image = read_layout(&path, None)?;
        if let Some(expected) = reference.digest.clone().filter(|digest| *digest != image.digest) {
            let (reference, found) = (reference.to_string(), image.digest);
            return Err(ImagesError::OtherDigest { reference, path, expected, found });
        }
        image.reference = Some(reference.clone());
        Ok(Some(image))
    }

    /// In which folder a layout has the image: where it is named by tag and digest, the conductor may have put it under either.
    fn folder(&self, reference: &Reference) -> Option<PathBuf> {
        let Self::Layout(dir) = self else { return None };
        let by_tag = Reference { digest: None, ..reference.clone() };
        let by_tag = by_tag.tag.is_some().then(|| layout_path(dir, &by_tag));
        let mut places = std::iter::once(layout_path(dir, reference)).chain(by_tag);
        places.find(|path| path.join("index.json").exists())
    }

    /// Opens a layer of an image; nothing where a layout was made without it.
    pub(crate) fn layer(
        &self,
        reference: &Reference,
        layer: &Layer,
    ) -> Result<Option<Box<dyn Read + Send>>, ImagesError> {
        if let Self::Registry(registry) = self {
            return Ok(Some(registry.blob(reference, &layer.descriptor)?));
        }
        let Some(folder) = self.folder(reference) else { return Ok(None) };
        let path = folder.join("blobs/sha256").join(layer.descriptor.digest.hex());
        // Nonblocking: foreign programs may have put a FIFO there.
        let flags = OFlag::O_NONBLOCK.bits();
        match File::options().read(true).custom_flags(flags).open(&path) {
            Ok(file) if file.metadata().is_ok_and(|about| about.is_file()) => Ok(Some(Box::new(file))),
            Ok(_) => Err(FileError::Unfit { path }.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Read { path, source }.into()),
        }
    }

    /// As [`Images::find`], but the image must be there.
    pub(crate) fn image(&self, reference: &Reference) -> Result<Image, ImagesError> {
        self.find(reference)?.ok_or_else(|| ImagesError::Missing(reference.to_string()))
    }

    /// Fails unless images of this name may be written, with the registry's own words.
    pub(crate) fn check_write(&self, reference: &Reference) -> Result<(), ImagesError> {
        let Self::Registry(registry) = self else { return Ok(()) };
        Ok(registry.check_write(reference)?)
    }

    /// How analyzed.toml refers to the image: by name and digest, in a layout by folder and digest.
    pub(crate) fn pinned(&self, reference: &Reference, digest: &Digest) -> String {
        match self {
            Self::Registry(_) => reference.with_digest(digest.clone()).to_string(),
            Self::Layout(dir) => format!("{}@{digest}", layout_path(dir, reference).display()),
        }
    }

    /// The name that a reference of analyzed.toml stands for, the reverse of [`Images::pinned`].
    pub(crate) fn named(&self, pinned: &str) -> Result<Reference, ImagesError> {
        let Self::Layout(dir) = self else { return Ok(pinned.parse()?) };
        let no_path = || ImagesError::NoPath { text: pinned.to_owned(), dir: dir.clone() };
        let (path, digest) = pinned.split_once('@').ok_or_else(no_path)?;
        let path = Path::new(path).strip_prefix(dir).map_err(|_| no_path())?.to_str().ok_or_else(no_path)?;
        let (repository, tag) = path.rsplit_once('/').ok_or_else(no_path)?;
        // A tag has no digest's length, but `sha256` is a fine name of a repository: only both together are a digest's folder.
        let by_digest = repository.strip_suffix("/sha256").filter(|_| digest == format!("sha256:{tag}"));
        Ok(match by_digest {
            Some(repository) => format!("{repository}@{digest}").parse()?,
            None => format!("{repository}:{tag}@{digest}").parse()?,
        })
    }
}

fn registry(call: &super::Call<'_>, auth: AuthFile) -> Result<Registry, RegistryError> {
    let insecure = call.arguments.texts("insecure-registry");
    Registry::new(RegistryOptions { insecure, auth, ca_bundle: None })
}

/// The folder of an image in a layout folder: `<registry>/<repository>/<tag>`, or with `sha256/<digits>` for the tag where the
/// image is named by digest (Platform API, "OCI Image Layout").
pub fn layout_path(dir: &Path, reference: &Reference) -> PathBuf {
    let repository = dir.join(&reference.registry).join(&reference.repository);
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => repository.join("sha256").join(digest.hex()),
        (None, tag) => repository.join(tag.as_deref().unwrap_or("latest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn folders_of_images_lead_back_to_their_names() {
        let digest = Digest::of("x");
        let images = Images::Layout("/layout".into());
        for (text, folder) in [
            ("busybox", "/layout/index.docker.io/library/busybox/latest".to_owned()),
            ("localhost:5000/a/b:1", "/layout/localhost:5000/a/b/1".to_owned()),
            (&format!("example.org/a@{digest}"), format!("/layout/example.org/a/sha256/{}", digest.hex())),
        ] {
            let name = reference(text);
            assert_eq!(layout_path(Path::new("/layout"), &name), Path::new(&folder));
            let pinned = images.pinned(&name, &digest);
            assert_eq!(pinned, format!("{folder}@{digest}"));
            let named = images.named(&pinned).unwrap();
            assert_eq!((named.name(), named.digest), (name.name(), Some(digest.clone())));
        }
        for text in ["/elsewhere/a/b/1@sha256:0", "/layout/example.org/a/1", "/layout/../etc/x@sha256:0"] {
            assert!(images.named(text).is_err(), "{text}");
        }
    }
}
