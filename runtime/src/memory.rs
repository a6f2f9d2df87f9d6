//! Memory that a program is handed as a file: it has no name in any folder, nobody changes it any more, and it is gone when
//! the last descriptor of it is.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Sealed memory with this content, read from its beginning. `/proc/PID/fd` shows it as `/memfd:NAME (deleted)`
/// (memfd_create(2)).
///
/// # Errors
/// The errno of a call.
pub fn sealed_memory(name: &CStr, content: &[u8]) -> io::Result<File> {
    let mut memory = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    memory.write_all(content)?;
    memory.rewind()?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn sealed_memory_is_read_and_not_changed() {
        let mut memory = sealed_memory(c"test", b"content").unwrap();
        let mut text = String::new();
        memory.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        assert!(memory.write_all(b"x").is_err() && memory.set_len(0).is_err());
    }
}
