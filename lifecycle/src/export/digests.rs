//! What archives would be: folders are read once, and nothing is written. For whoever must know by itself, because nobody else's word
//! counts (docs/decisions/0041-who-packs-again-what-a-creator-packed.md).

use std::io::Write;
use std::path::{Path, PathBuf};

use coracle_cnb::Slice;
use coracle_images::Digest;
use coracle_images::pack::{EPOCH, PackError, TarWriter};

use super::found::walk;
use super::{App, ExportError, Layers, slice};
use crate::packing::{self, Job, Pack};

impl Layers<'_> {
    /// The diff ids of folders below the layers' folder, several read at once, in the order of `paths`. One that cannot be packed has none.
    pub fn diff_ids(&self, paths: &[PathBuf]) -> Vec<Result<Digest, PackError>> {
        let pack = |path| -> Pack<'_> {
            Box::new(move |out: &mut dyn Write| self.pack(path, TarWriter::new(out, EPOCH)))
        };
        diff_ids(paths.iter().map(PathBuf::as_path).map(pack))
    }
}

impl App<'_> {
    /// The diff ids of the application's layers: one for each slice, and one for the remainder.
    pub fn diff_ids(&self, slices: &[Slice]) -> Result<Vec<Digest>, ExportError> {
        let mut paths = Vec::new();
        walk(self.dir, Path::new(""), &mut paths)?;
        let layers = slice(&paths, slices)?;
        let pack = |paths| -> Pack<'_> {
            Box::new(move |out: &mut dyn Write| self.pack(paths, TarWriter::new(out, EPOCH)))
        };
        let failed = |source| ExportError::Pack { layer: "Application Layer".to_owned(), source };
        diff_ids(layers.iter().map(Vec::as_slice).map(pack))
            .into_iter()
            .map(|id| id.map_err(failed))
            .collect()
    }
}

fn diff_ids<'a>(packs: impl Iterator<Item = Pack<'a>>) -> Vec<Result<Digest, PackError>> {
    let jobs: Vec<Job<'a>> = packs.map(|pack| Job { pack, image: None, cache: None }).collect();
    let mut all = Vec::new();
    let never: Result<(), std::convert::Infallible> = packing::run(&jobs, |_, done| {
        all.push(done.map(|done| done.diff_id));
        Ok(())
    });
    let Ok(()) = never;
    all
}
