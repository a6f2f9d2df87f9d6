//! Bills of materials of the lifecycle's own programs, which lie beside them (Platform API 0.11, "exporter").
//!
//! The image's are packed as they were read, whatever is in the layers' folder by then: programs of buildpacks write there. What
//! this program writes there is for platforms that look into it after the build.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_images::pack::{PackError, TarWriter};

use super::found::walk;
use super::pack::{Layers, parent, unread};
use crate::file::{self, FileError};
use crate::folder::{self, FolderError};

/// Where the programs are, and their bills.
pub const FOLDER: &str = "/cnb/lifecycle";

/// The forms of bills, by the ends of their files' names.
const FORMS: [&str; 3] = ["sbom.cdx.json", "sbom.spdx.json", "sbom.syft.json"];

/// The image's bills in the layers' folder.
const IN_IMAGE: &str = "sbom/launch";

/// The launcher's below those.
const OF_LAUNCHER: &str = "buildpacksio_lifecycle/launcher";

/// What the phases are made of, in the layers' folder. It does not go into the image.
const OF_LIFECYCLE: &str = "sbom/build/buildpacksio_lifecycle";

/// One bill: its file's name, and what is in it.
type Bill = (String, Vec<u8>);

/// The bills that there are.
#[derive(Debug, Default)]
pub struct Bills {
    /// Of a folder that the platform names there may be none, and still a folder for them.
    launcher: Option<Vec<Bill>>,
    lifecycle: Vec<Bill>,
    /// Names of files that should be there.
    pub missing: Vec<String>,
}

impl Bills {
    /// The bills in the folder of the lifecycle, each of a known name; there need not be any.
    pub fn beside_programs(dir: &Path) -> Result<Self, FileError> {
        let mut missing = Vec::new();
        let mut of = |program: &str| -> Result<Vec<Bill>, FileError> {
            let mut bills = Vec::new();
            for form in FORMS {
                let name = format!("{program}.{form}");
                match file::read_bytes(&dir.join(&name))? {
                    Some(bytes) => bills.push((form.to_owned(), bytes)),
                    None => missing.push(name),
                }
            }
            Ok(bills)
        };
        let (lifecycle, launcher) = (of("lifecycle")?, of("launcher")?);
        Ok(Self { launcher: (!launcher.is_empty()).then_some(launcher), lifecycle, missing })
    }

    /// Those beside the programs, and for the launcher all bills of another folder, which keep their names.
    pub fn with_launchers(self, dir: &Path) -> Result<Self, FileError> {
        let mut launcher = Vec::new();
        for entry in file::entries(dir)?.into_iter().filter(|entry| !entry.is_dir) {
            let name = entry.name().to_str().filter(|name| FORMS.iter().any(|form| name.ends_with(form)));
            let bytes = name.map(|_| file::read_bytes(&entry.path)).transpose()?.flatten();
            if let (Some(name), Some(bytes)) = (name, bytes) {
                launcher.push((name.to_owned(), bytes));
            }
        }
        let of_lifecycle = |name: &String| name.starts_with("lifecycle.");
        let missing = self.missing.into_iter().filter(of_lifecycle).collect();
        Ok(Self { launcher: Some(launcher), lifecycle: self.lifecycle, missing })
    }

    /// Whether the image gets any.
    pub(super) fn are_in_image(&self) -> bool {
        self.launcher.is_some()
    }

    /// Writes them where platforms look.
    pub fn place(&self, layers_dir: BorrowedFd<'_>) -> Result<(), FolderError> {
        let in_image = Path::new(IN_IMAGE).join(OF_LAUNCHER);
        let of_lifecycle = Some(&self.lifecycle).filter(|bills| !bills.is_empty());
        for (dir, bills) in [(Path::new(OF_LIFECYCLE), of_lifecycle), (&in_image, self.launcher.as_ref())] {
            let Some(bills) = bills else { continue };
            let dir = folder::make_all(layers_dir, dir)?;
            bills.iter().try_for_each(|(name, bytes)| folder::replace(dir.as_fd(), name, bytes))?;
        }
        Ok(())
    }

    /// Writes the layer of all the image's bills: those of the layers' folder as they are, and the launcher's.
    pub(super) fn pack(&self, layers: Layers<'_>, mut tar: TarWriter<'_>) -> Result<(), PackError> {
        let unreadable = |error: FolderError| unread(IN_IMAGE, std::io::Error::other(error));
        let in_image = format!("{}/{IN_IMAGE}", layers.path);
        layers.parents(&mut tar)?;
        let (uid, gid) = layers.owner;
        let mut within: Option<OwnedFd> = None;
        for dir in ["sbom", IN_IMAGE] {
            let path = format!("{}/{dir}", layers.path);
            within = folder::folder(layers.dir, Path::new(dir)).map_err(unreadable)?;
            match &within {
                Some(folder) if dir == IN_IMAGE => {
                    tar.folder(&path, parent(path.clone(), folder.as_fd())?.mode, uid, gid)?;
                }
                Some(folder) => tar.parents(&[layers.parent(path, folder.as_fd())?])?,
                None => tar.folder(&path, 0o755, uid, gid)?,
            }
        }
        for (path, bill) in self.merged(within.as_ref()).map_err(unreadable)? {
            let full = format!("{in_image}/{}", path.display());
            match (bill, &within) {
                (Content::Bill(bytes), _) => {
                    tar.file(&full, 0o644, uid, gid, bytes.len() as u64, &mut &*bytes)?;
                }
                (Content::AsItIs, Some(dir)) => tar.path(dir.as_fd(), &in_image, &path, uid, gid)?,
                (Content::Folder | Content::AsItIs, _) => tar.folder(&full, 0o755, uid, gid)?,
            }
        }
        tar.finish()
    }

    /// All below the image's bills, in the order of archives.
    fn merged(&self, dir: Option<&OwnedFd>) -> Result<BTreeMap<PathBuf, Content<'_>>, FolderError> {
        let mut paths = Vec::new();
        let of_launcher = Path::new(OF_LAUNCHER);
        if let Some(dir) = dir {
            walk(dir.as_fd(), Path::new(""), &mut paths)?;
            // What is not a folder has no bill below it.
            folder::folder(dir.as_fd(), of_launcher)?;
        }
        let mut all: BTreeMap<PathBuf, Content<'_>> =
            paths.into_iter().map(|path| (path, Content::AsItIs)).collect();
        for dir in of_launcher.ancestors().filter(|dir| *dir != Path::new("")) {
            all.entry(dir.to_owned()).or_insert(Content::Folder);
        }
        for (name, bytes) in self.launcher.iter().flatten() {
            let path = of_launcher.join(name);
            all.retain(|other, _| !other.starts_with(&path));
            all.insert(path, Content::Bill(bytes));
        }
        Ok(all)
    }
}

/// Where an entry of the layer comes from.
enum Content<'a> {
    /// The layers' folder.
    AsItIs,
    /// Nowhere: it is above a bill.
    Folder,
    Bill(&'a [u8]),
}
