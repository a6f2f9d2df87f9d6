//! What the buildpack and its server both know: how the files of a site are listed.

use std::fs;
use std::io;
use std::path::Path;

/// One line for each file below `folder`, in order of the paths: a hash of the content, its length, the path.
pub fn listing(folder: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = fs::read(&path)?;
            let name = path.strip_prefix(folder).map_err(io::Error::other)?.display().to_string();
            lines.push((name, hash(&content), content.len()));
        }
    }
    lines.sort();
    Ok(lines.iter().map(|(name, hash, length)| format!("{hash:016x} {length} {name}\n")).collect())
}

/// FNV-1a: tells versions apart, and proves nothing.
pub fn hash(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
