//! Layer archives to folders in overlayfs form, safe against whatever the archive says.
//!
//! Every path is resolved beneath an open handle of the root, without following any symbolic link
//! (`openat2(2)` with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`, `RESOLVE_NO_MAGICLINKS`, `RESOLVE_NO_XDEV`), and what is
//! already at a path is removed, never written through. Symbolic links are data here.
//!
//! Whiteouts are those of the [OCI image specification]; they become overlayfs's own (a device 0:0, and the attribute
//! `user.overlay.opaque`). They speak of the layers below only, whatever their place in the archive.
//!
//! [OCI image specification]: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts

mod archive;
mod error;
mod limits;
mod owner;
mod pax;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::BorrowedFd;

pub use error::UnpackError;
pub use limits::{Allowed, Limits};
pub use owner::{OwnerError, OwnerMap, SingleOwner};

use crate::unpack::archive::{Archive, Entry, Kind};
use crate::unpack::tree::{Metadata, Tree};

/// What was unpacked, and what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Device nodes, by path: nobody without privileges may make them.
    pub devices: Vec<String>,
    /// Extended attributes that were dropped, `path: name`.
    pub attributes: Vec<String>,
}

/// A path of the archive: checked components, relative to the root.
pub(crate) type Components = Vec<Vec<u8>>;

/// Unpacks an uncompressed archive beneath `root`, an empty folder, and reads `archive` to its end.
///
/// Owners, modes (with set-user-id, set-group-id and sticky bits), times, `user.*` attributes and file capabilities are
/// kept; device nodes are left out and listed. The folder must not be reachable by anybody else meanwhile.
///
/// # Errors
///
/// When the archive is damaged, hostile, or cannot be written; the folder then holds rubbish and should be removed.
pub fn unpack_layer(
    archive: impl Read,
    root: BorrowedFd<'_>,
    owner: &dyn OwnerMap,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    unpack(archive, root, owner, limits, None)
}

/// As [`unpack_layer`], but everything gets this time, in seconds since 1970: for files that tools go on working with, and that
/// must not look forty years old to them.
///
/// # Errors
///
/// As [`unpack_layer`].
pub fn unpack_layer_at(
    archive: impl Read,
    root: BorrowedFd<'_>,
    owner: &dyn OwnerMap,
    limits: &Limits,
    time: i64,
) -> Result<Unpacked, UnpackError> {
    unpack(archive, root, owner, limits, Some((time, 0)))
}

fn unpack(
    archive: impl Read,
    root: BorrowedFd<'_>,
    owner: &dyn OwnerMap,
    limits: &Limits,
    time: Option<(i64, i64)>,
) -> Result<Unpacked, UnpackError> {
    let mut archive = Archive::new(archive, limits);
    let mut layer = Layer {
        tree: Tree::new(root),
        owner,
        limits,
        time,
        folders: BTreeMap::new(),
        whiteouts: BTreeSet::new(),
        opaque: BTreeSet::new(),
        links: Vec::new(),
        unpacked: Unpacked::default(),
    };
    while let Some(entry) = archive.next()? {
        layer.entry(entry, &mut archive)?;
    }
    layer.unpacked.bytes = archive.drain()?;
    layer.unpacked.entries = archive.entries();
    layer.finish()
}

struct Layer<'a> {
    tree: Tree<'a>,
    owner: &'a dyn OwnerMap,
    limits: &'a Limits,
    /// For all files, whatever the archive says.
    time: Option<(i64, i64)>,
    /// Folders get their metadata last: a read-only one could not be filled, and filling changes times.
    folders: BTreeMap<Components, Metadata>,
    whiteouts: BTreeSet<Components>,
    opaque: BTreeSet<Components>,
    links: Vec<(Components, Components)>,
    unpacked: Unpacked,
}

/// What a file name says about the layers below.
enum Whiteout {
    None,
    Remove(Vec<u8>),
    Opaque,
    Bookkeeping,
}

impl Layer<'_> {
    fn entry<R: Read>(&mut self, entry: Entry, archive: &mut Archive<'_, R>) -> Result<(), UnpackError> {
        let mut path = components(&entry.path, self.limits)?;
        let refused = |why| UnpackError::Refused { path: shown(&entry.path), why };
        let Some(name) = path.last().cloned() else {
            if entry.kind != Kind::Folder {
                return Err(refused("the root of a layer is a folder"));
            }
            let metadata = self.metadata(&entry)?;
            self.folders.insert(path, metadata);
            return Ok(());
        };
        for part in &path[..path.len() - 1] {
            match whiteout(part).map_err(refused)? {
                Whiteout::None => {}
                Whiteout::Bookkeeping => return Ok(()),
                _ => return Err(refused("a whiteout has no content")),
            }
        }
        let kind = whiteout(&name).map_err(refused)?;
        if !matches!(kind, Whiteout::None) {
            if !matches!(entry.kind, Kind::File | Kind::Link) && !matches!(kind, Whiteout::Bookkeeping) {
                return Err(refused("a whiteout is an empty file"));
            }
            path.pop();
            match kind {
                Whiteout::Opaque => drop(self.opaque.insert(path)),
                Whiteout::Remove(name) => {
                    path.push(name);
                    self.whiteouts.insert(path);
                }
                _ => {}
            }
            return Ok(());
        }
        self.make(&path, &entry, archive)
    }

    fn make<R: Read>(
        &mut self,
        path: &Components,
        entry: &Entry,
        archive: &mut Archive<'_, R>,
    ) -> Result<(), UnpackError> {
        let metadata = self.metadata(entry)?;
        match entry.kind {
            Kind::Folder => {
                if self.tree.folder(path)? {
                    self.forget(path);
                }
                self.folders.insert(path.clone(), metadata);
            }
            Kind::File => {
                self.clear(path)?;
                let dropped = self.tree.file(path, &metadata, |file| archive.copy_data(file, path))?;
                self.note(path, dropped);
            }
            Kind::Symlink => {
                self.clear(path)?;
                let bad = entry.link.is_empty() || entry.link.len() > 4095 || entry.link.contains(&0);
                if bad {
                    let why = "a symbolic link's target has 1 to 4095 bytes";
                    return Err(UnpackError::Refused { path: shown(&entry.path), why });
                }
                self.tree.symlink(path, &entry.link, &metadata)?;
            }
            Kind::Fifo => {
                self.clear(path)?;
                self.tree.fifo(path, &metadata)?;
            }
            Kind::Device(0) => {
                let why = "a device 0:0 is overlayfs's whiteout, not content";
                return Err(UnpackError::Refused { path: shown(&entry.path), why });
            }
            Kind::Device(_) => {
                self.clear(path)?;
                self.unpacked.devices.push(shown(&entry.path));
            }
            Kind::Link => {
                let target = components(&entry.link, self.limits)?;
                if target != *path {
                    self.clear(path)?;
                    if !self.tree.link(path, &target)? {
                        self.links.push((path.clone(), target));
                    }
                } else if !self.tree.may_link(path, &target)? {
                    return Err(dangling(path, &target));
                }
            }
        }
        Ok(())
    }

    /// Removes what an earlier entry left at this path, or would have had there at the end.
    fn clear(&mut self, path: &Components) -> Result<(), UnpackError> {
        self.links.retain(|(link, _)| !link.starts_with(path));
        if self.tree.remove(path)? {
            self.forget(path);
        }
        Ok(())
    }

    /// Drops the pending metadata of folders that are no more.
    fn forget(&mut self, path: &Components) {
        let below = self.folders.range(path.clone()..).map(|(folder, _)| folder);
        for folder in below.take_while(|folder| folder.starts_with(path)).cloned().collect::<Vec<_>>() {
            self.folders.remove(&folder);
        }
    }

    fn metadata(&self, entry: &Entry) -> Result<Metadata, UnpackError> {
        let (uid, gid) = self
            .owner
            .owner(entry.uid, entry.gid)
            .map_err(|source| UnpackError::Owner { path: shown(&entry.path), source })?;
        let mtime = self.time.unwrap_or(entry.mtime);
        Ok(Metadata { uid, gid, mode: entry.mode, mtime, attributes: entry.attributes.clone() })
    }

    fn note(&mut self, path: &Components, dropped: Vec<String>) {
        let path = shown(&path.join(&b'/'));
        self.unpacked.attributes.extend(dropped.into_iter().map(|name| format!("{path}: {name}")));
    }

    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (path, target) in std::mem::take(&mut self.links) {
            // An entry after the link took its path.
            if self.tree.exists(&path)? {
                continue;
            }
            if !self.tree.link(&path, &target)? {
                return Err(dangling(&path, &target));
            }
        }
        // Folders that are opaque first: a whiteout of one above them then hides what is beside them, too.
        for path in std::mem::take(&mut self.opaque) {
            self.tree.opaque(&path)?;
        }
        for path in std::mem::take(&mut self.whiteouts) {
            if self.tree.whiteout(&path)? {
                self.tree.opaque(&path)?;
            }
        }
        let (uid, gid) = self.owner.owner(0, 0).map_err(|source| UnpackError::Owner {
            path: "a folder no entry describes".to_owned(),
            source,
        })?;
        for path in self.tree.implied() {
            let implied = Metadata {
                uid,
                gid,
                mode: 0o755,
                mtime: self.time.unwrap_or((0, 0)),
                attributes: Vec::new(),
            };
            self.folders.entry(path).or_insert(implied);
        }
        // Deepest first, so that a folder may close itself to us.
        for (path, metadata) in std::mem::take(&mut self.folders).into_iter().rev() {
            let dropped = self.tree.finish_folder(&path, &metadata)?;
            self.note(&path, dropped);
        }
        Ok(self.unpacked)
    }
}

fn whiteout(name: &[u8]) -> Result<Whiteout, &'static str> {
    let Some(hidden) = name.strip_prefix(b".wh.") else { return Ok(Whiteout::None) };
    match hidden {
        b"" | b"." | b".." => Err("a whiteout names a file"),
        b".wh..opq" => Ok(Whiteout::Opaque),
        hidden if hidden.starts_with(b".wh.") => Ok(Whiteout::Bookkeeping),
        hidden => Ok(Whiteout::Remove(hidden.to_owned())),
    }
}

/// Splits and checks a path of the archive. A leading `/` means the layer's root; `..` is refused, not resolved.
fn components(path: &[u8], limits: &Limits) -> Result<Components, UnpackError> {
    let fail = |why| UnpackError::Path { path: shown(path), why };
    if path.len() > limits.path {
        return Err(fail("it is too long"));
    }
    if path.contains(&0) {
        return Err(fail("it holds a NUL"));
    }
    let mut parts = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(fail("it may lead out of the layer")),
            part if part.len() > 255 => return Err(fail("a part of it is too long")),
            part => parts.push(part.to_owned()),
        }
    }
    if parts.len() > limits.depth {
        return Err(fail("it is too deep"));
    }
    Ok(parts)
}

fn dangling(path: &Components, target: &Components) -> UnpackError {
    UnpackError::Dangling { path: shown(&path.join(&b'/')), target: shown(&target.join(&b'/')) }
}

/// A path for people: characters that control a terminal, break lines or turn text around are escaped, and the length bounded.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(path).chars().take(300) {
        let steers = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || steers {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests;
