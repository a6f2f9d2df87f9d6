//! Hand an image of the store to others: as an archive, or to another engine's `load`.

use std::ffi::OsStr;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use coracle_images::{ArchiveError, Reference, Store, host_program};
use coracle_runtime::{JobOutput, Terminator};

use crate::error::Error;
use crate::event::{Observer, Stream};
use crate::home::Home;
use crate::stage::{line_of, lines, with_output};

/// A program with a `load` that reads an archive from its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    name: String,
    program: PathBuf,
}

/// Why an image did not get to whom it was for.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It could not be written.
    #[error("could not save {image}")]
    Archive {
        /// The image.
        image: String,
        /// Cause.
        #[source]
        source: ArchiveError,
    },
    /// There is no program to load it.
    #[error(
        "{name}, for --load, is in no folder of PATH (relative folders and those of the application do not count); install it, or save the image to a file after the build: coracle save"
    )]
    NoLoader {
        /// The program's name.
        name: String,
    },
    /// The program could not be started.
    #[error("could not start {}; {image} is built, and kept in the local store", program.display())]
    Start {
        /// The image.
        image: String,
        /// The program.
        program: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The program failed.
    #[error(
        "{name} did not load {image} ({status}); what it said is above. The image is built, and kept in the local store: coracle save {image} | {name} load"
    )]
    NotLoaded {
        /// The image.
        image: String,
        /// The program's name.
        name: String,
        /// How it ended.
        status: ExitStatus,
    },
}

impl Loader {
    /// The first program of this name in `path` (as the variable `PATH` has it); never one that came with the application in
    /// `untrusted`.
    ///
    /// # Errors
    /// [`SaveError::NoLoader`].
    pub fn find(name: &str, path: &OsStr, untrusted: &Path) -> Result<Self, Error> {
        let untrusted = untrusted.canonicalize().unwrap_or_else(|_| untrusted.to_owned());
        let program = host_program(path, name, &[untrusted]);
        let program = program.ok_or_else(|| SaveError::NoLoader { name: name.to_owned() })?;
        Ok(Self { name: name.to_owned(), program })
    }
}

/// Write an image of the store as an archive that `docker load` and `podman load` read, and others as an OCI layout.
///
/// # Errors
/// [`Error::NoImage`]; [`Error::Save`] where the store has lost something, or `out` takes no more.
pub fn save(home: &Home, image: &Reference, out: &mut dyn Write) -> Result<(), Error> {
    save_as(home, std::slice::from_ref(image), out)
}

/// Hand an image of the store, under all its names, to a program on this machine, which runs as the user does. What it says becomes
/// [`Event::Line`](crate::Event::Line)s. `hold` gets the handle with which a signal handler ends the archive, and the program with it.
///
/// # Errors
/// [`Error::NoImage`]; [`Error::Save`] where the program fails, or the store has lost something.
pub fn load(
    home: &Home,
    names: &[Reference],
    loader: &Loader,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<(), Error> {
    let Some(image) = names.first() else { return Ok(()) };
    let start =
        |source| SaveError::Start { image: image.to_string(), program: loader.program.clone(), source };
    let (mut archive, theirs) = UnixStream::pair().map_err(start)?;
    hold(Terminator::of(&archive).map_err(start)?);
    let tell = |from, stream| {
        lines(from, |line| observer.event(line_of(stream, Some(&loader.name), line)));
    };
    let run = |output: JobOutput| {
        let mut child = Command::new(&loader.program)
            .arg("load")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output.stdout)
            .stderr(output.stderr)
            .spawn()
            .map_err(start)?;
        let written = save_as(home, names, &mut archive);
        // The end of the archive; whoever holds the terminator has the socket open still.
        archive.shutdown(Shutdown::Write).ok();
        Ok((written, child.wait().map_err(start)?))
    };
    let (written, status) = with_output(run, |out| tell(out, Stream::Out), |err| tell(err, Stream::Err))?;
    match written {
        // A program that fails stops reading; its own words say more than that.
        Err(Error::Save(SaveError::Archive { source: ArchiveError::Write(_), .. })) if !status.success() => {}
        written => written?,
    }
    if status.success() {
        return Ok(());
    }
    Err(SaveError::NotLoaded { image: image.to_string(), name: loader.name.clone(), status }.into())
}

fn save_as(home: &Home, names: &[Reference], out: &mut dyn Write) -> Result<(), Error> {
    let Some(name) = names.first() else { return Ok(()) };
    let store = Store::open(home.store())?;
    let image = store.image(name)?.ok_or_else(|| Error::NoImage(name.to_string()))?;
    let failed = |source| SaveError::Archive { image: name.to_string(), source };
    Ok(store.write_archive(&image, names, out).map_err(failed)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_loads_is_one_of_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let (source, tools) = (dir.path().join("source"), dir.path().join("tools"));
        for folder in [&source, &tools] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("docker"), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(folder.join("docker"), PermissionsExt::from_mode(0o755)).unwrap();
        }
        std::fs::write(tools.join("podman"), "no program").unwrap();
        std::fs::set_permissions(tools.join("podman"), PermissionsExt::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(source.join("docker"), tools.join("nerdctl")).unwrap();
        let path = std::env::join_paths([Path::new("tools"), &source, &tools]).unwrap();
        let found = Loader::find("docker", &path, &source).unwrap();
        assert_eq!(found.program, tools.join("docker"));
        for name in ["podman", "nerdctl"] {
            let error = Loader::find(name, &path, &source).unwrap_err().to_string();
            let expected = format!(
                "{name}, for --load, is in no folder of PATH (relative folders and those of the application do not count); install it, or save the image to a file after the build: coracle save"
            );
            assert_eq!(error, expected);
        }
    }
}
