//! An archive that somebody else wrote, written again so that it says nothing of when and by whom: one time for all entries, no names of
//! users and groups.
//!
//! The rest stays as it is, in the form that Go's `archive/tar` gives to what it has read: digests of such layers are compared.

mod form;
mod source;

use std::io::{Read, Write};

use self::form::encode;
use self::source::Source;
use super::PackError;
use crate::unpack::shown;

/// Writes an archive again. It may be compressed with gzip or zstd; what follows its end is not read.
///
/// # Errors
///
/// When it is no archive, holds something that cannot be written again, or cannot be read or written.
pub fn pack_again<R: Read>(archive: R, mtime: i64, out: &mut dyn Write) -> Result<(), PackError> {
    let inflated = crate::compression::inflate(archive, crate::compression::WINDOW_OF_OTHERS)
        .map_err(|source| PackError::Archive { at: 0, why: "it cannot be inflated", source: Some(source) })?;
    let mut source = Source::new(inflated);
    while let Some(header) = source.next()? {
        let bytes =
            encode(&header, mtime).map_err(|why| PackError::Unfit { path: shown(&header.name), why })?;
        out.write_all(&bytes).map_err(PackError::Write)?;
        let copied = source.copy_data(out)?;
        let padding = usize::try_from(copied.next_multiple_of(512) - copied).unwrap_or_default();
        out.write_all(&[0; 512][..padding]).map_err(PackError::Write)?;
    }
    out.write_all(&[0; 1024]).and_then(|()| out.flush()).map_err(PackError::Write)
}
