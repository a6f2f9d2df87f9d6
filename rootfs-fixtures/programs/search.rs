//! Looks for bytes that a build must not see: in every file that can be read, and in the memory of other processes.
//!
//! What is looked for comes as hexadecimal digits, so that neither a script nor an argument holds it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde_json::{Value, json};

/// How much of one file, and of one process's memory, is looked at.
const LIMIT: u64 = 1 << 30;
/// Files of /proc may have no end.
const PROC_LIMIT: u64 = 16 << 20;
/// How many places are named for each text.
const PLACES: usize = 20;
const CHUNK: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Search {
    wanted: Vec<(String, Vec<u8>)>,
    found: BTreeMap<String, Vec<String>>,
    files: u64,
    bytes: u64,
    refused: u64,
    memories: Vec<String>,
}

impl Search {
    /// A search for these texts in hexadecimal digits; `None` if one is not.
    pub(crate) fn new(wanted: &[&str]) -> Option<Self> {
        let decode = |text: &&str| {
            let digits: Option<Vec<u8>> =
                text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
            let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
            Some(((*text).to_owned(), digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
        };
        Some(Self { wanted: wanted.iter().map(decode).collect::<Option<_>>()?, ..Self::default() })
    }

    /// Looks into everything below a folder. Nothing is followed, nothing but regular files is opened.
    pub(crate) fn folder(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            self.refused += 1;
            return;
        };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let in_proc = path.starts_with("/proc");
            match entry.file_type() {
                // The threads of a process show what the process shows.
                Ok(kind) if kind.is_dir() && !(in_proc && name == "task") => self.folder(&path),
                Ok(kind) if kind.is_file() && in_proc && name == "mem" => self.memory(folder),
                // One bit or number for each page of memory, for as long as somebody reads.
                Ok(_) if in_proc && (name == "pagemap" || name == "kpageflags") => {}
                Ok(kind) if kind.is_file() => self.file(&path, if in_proc { PROC_LIMIT } else { LIMIT }),
                // A process's descriptors are links, also to files that have no other name.
                Ok(kind) if kind.is_symlink() && in_proc && folder.ends_with("fd") => self.descriptor(&path),
                _ => {}
            }
        }
    }

    pub(crate) fn report(&self) -> Value {
        json!({
            "found": self.found,
            "files": self.files,
            "bytes": self.bytes,
            "refused": self.refused,
            "memories": self.memories,
        })
    }

    fn file(&mut self, path: &Path, limit: u64) {
        // Files of /proc that report events would wait for one.
        let flags = (nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW).bits();
        match File::options().read(true).custom_flags(flags).open(path) {
            // A folder lists what is below a mount: a device that is bound over a file has no end.
            Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => {
                self.files += 1;
                self.stream(path, file.take(limit));
            }
            Ok(_) => {}
            Err(_) => self.refused += 1,
        }
    }

    fn descriptor(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {
                // Some are open for writing only.
                if let Ok(file) = File::open(path) {
                    self.files += 1;
                    self.stream(path, file.take(LIMIT));
                }
            }
            Ok(_) => {}
            Err(_) => self.refused += 1,
        }
    }

    /// The memory of a process, by its folder in /proc. Its own holds what it looks for.
    fn memory(&mut self, process: &Path) {
        let own = std::process::id().to_string();
        if process.ends_with(&own) || process.ends_with("self") {
            return;
        }
        let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
        let Ok(memory) = File::open(process.join("mem")) else {
            self.refused += 1;
            return;
        };
        self.memories.push(process.display().to_string());
        let mut left = LIMIT;
        for line in maps.lines().filter(|line| !line.ends_with("[vvar]")) {
            let Some((range, rest)) = line.split_once(' ') else { continue };
            let edges: Vec<u64> =
                range.split('-').filter_map(|edge| u64::from_str_radix(edge, 16).ok()).collect();
            let [start, end] = edges[..] else { continue };
            if rest.starts_with('r') && end - start <= left {
                left -= end - start;
                self.stream(&process.join("mem"), Region { memory: &memory, at: start, end });
            }
        }
    }

    fn stream(&mut self, path: &Path, mut source: impl Read) {
        let keep = self.wanted.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(1) - 1;
        let mut buffer = vec![0; keep + CHUNK];
        let mut kept = 0;
        // A file that cannot be read further is at its end.
        while let Ok(read @ 1..) = source.read(&mut buffer[kept..]) {
            self.bytes += read as u64;
            let seen = &buffer[..kept + read];
            for (text, bytes) in &self.wanted {
                let places = self.found.entry(text.clone()).or_default();
                let place = path.display().to_string();
                if places.len() < PLACES && !places.contains(&place) && holds(seen, bytes) {
                    places.push(place);
                }
            }
            // The end is looked at again: what is wanted may lie across two pieces.
            let end = seen.len();
            kept = keep.min(end);
            buffer.copy_within(end - kept..end, 0);
        }
    }
}

/// A part of a process's memory.
struct Region<'a> {
    memory: &'a File,
    at: u64,
    end: u64,
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.memory.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// By the standard library's search for one byte, which is fast where this program is not optimized.
fn holds(seen: &[u8], wanted: &[u8]) -> bool {
    let mut rest = seen;
    loop {
        let before = rest;
        match rest.skip_until(wanted[0]) {
            Ok(skipped @ 1..) if before[skipped - 1..].starts_with(wanted) => return true,
            Ok(1..) => {}
            _ => return false,
        }
    }
}
