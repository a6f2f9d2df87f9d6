//! `coracle save` and `--load`: where an archive goes.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use coracle::{Home, Loader};
use tempfile::NamedTempFile;

use crate::args;
use crate::failure::Failure;

/// The pieces that are written at once.
const PIECE: usize = 1 << 18;

/// Write the archive, to standard output where no file was named. A file appears when it is whole; `gone` says whether somebody
/// wants an end.
pub(crate) fn save(home: &Home, typed: &args::Save, gone: &dyn Fn() -> bool) -> Result<(), Failure> {
    let write = |out: &mut dyn Write| -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(PIECE, Until { out, gone });
        Ok(coracle::save(home, &typed.image, &mut out)?)
    };
    let Some(path) = &typed.output else {
        let mut out = io::stdout().lock();
        return if out.is_terminal() { Err(Failure::ArchiveOnTerminal) } else { write(&mut out) };
    };
    let failed = |source| Failure::Archive { path: path.clone(), source };
    // A pipe or a device is written to; it cannot be replaced.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return write(&mut std::fs::File::options().write(true).open(path).map_err(failed)?);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
    write(&mut file)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The program of `--load`: looked for before the build, so that nobody waits for one to hear that there is none.
pub(crate) fn loader(build: &args::Build) -> Result<Option<Loader>, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: args::LoaderName| Loader::find(name.program(), OsStr::new(&path), &build.path);
    Ok(build.load.map(find).transpose()?)
}

/// Takes bytes until somebody wants an end.
struct Until<'a> {
    out: &'a mut dyn Write,
    gone: &'a dyn Fn() -> bool,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.gone)() { Err(io::Error::other("a signal came")) } else { self.out.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn nothing_more_is_written_when_a_signal_came() {
        let (gone, mut out) = (Cell::new(false), Vec::new());
        let is_gone = || gone.get();
        let mut until = Until { out: &mut out, gone: &is_gone };
        until.write_all(b"before").unwrap();
        gone.set(true);
        assert_eq!(until.write_all(b"after").unwrap_err().to_string(), "a signal came");
        assert_eq!(out, b"before");
    }
}
