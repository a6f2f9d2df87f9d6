//! Which paths of the application go into which layer (Buildpack API, "launch.toml", `[[slices]]`).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use coracle_cnb::Slice;

use super::ExportError;

/// The paths (relative to the application's folder) of every slice, and last of the remainder, each with the folders above it, in the order of their bytes. The empty
/// path is the application's own folder. A path goes into the first slice that matches it or a folder above it; a folder
/// above paths that were all taken is not in the remainder. Pure.
pub fn slice(app: &[PathBuf], slices: &[Slice]) -> Result<Vec<Vec<PathBuf>>, ExportError> {
    let mut taken: BTreeSet<&Path> = BTreeSet::new();
    let children = children(app);
    let mut layers = Vec::new();
    for slice in slices {
        let mut layer = BTreeSet::new();
        for text in &slice.paths {
            let pattern = clean(text);
            let mut roots: BTreeSet<&Path> = BTreeSet::new();
            for entry in app {
                if matches(pattern.as_bytes(), entry.as_os_str().as_bytes())
                    .ok_or_else(|| ExportError::Pattern(text.clone()))?
                {
                    roots.insert(entry);
                }
            }
            let below = |path: &Path| path.ancestors().any(|above| roots.contains(above));
            let new: Vec<&Path> = app
                .iter()
                .map(PathBuf::as_path)
                .filter(|path| below(path) && !taken.contains(path) && !layer.contains(path))
                .collect();
            layer.extend(new);
        }
        taken.extend(&layer);
        let all: BTreeSet<&Path> = layer.iter().flat_map(|path| path.ancestors()).collect();
        // Paths sort before what is below them: backwards, a folder comes after all that is in it.
        for above in all.iter().rev().filter(|path| !layer.contains(*path)) {
            if children.get(above).is_some_and(|below| below.iter().all(|path| taken.contains(path))) {
                taken.insert(above);
            }
        }
        layers.push(in_order(all));
    }
    let all = app.iter().map(PathBuf::as_path).chain([Path::new("")]);
    layers.push(in_order(all.filter(|path| !taken.contains(path)).collect()));
    Ok(layers)
}

fn children(app: &[PathBuf]) -> BTreeMap<&Path, Vec<&Path>> {
    let mut children: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for entry in app {
        if let Some(parent) = entry.parent() {
            children.entry(parent).or_default().push(entry);
        }
    }
    children
}

/// As the reference sorts: `a`, `a-b`, `a/b`; by components, `a/b` would come before `a-b`.
fn in_order(paths: BTreeSet<&Path>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = paths.into_iter().map(Path::to_owned).collect();
    paths.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    paths
}

/// Without `.`, empty parts and `..` after another part.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    if pattern.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}

/// `*`, `?`, `[a-z]`, `[^a]` and `\x` against a whole path; none but a literal matches `/`. Nothing if the pattern is broken.
fn matches(pattern: &[u8], text: &[u8]) -> Option<bool> {
    let Some((&first, rest)) = pattern.split_first() else { return Some(text.is_empty()) };
    match first {
        b'*' => {
            let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            for start in 0..=end {
                if matches(rest, &text[start..])? {
                    return Some(true);
                }
            }
            Some(false)
        }
        b'?' => match letter(text).filter(|letter| *letter != b"/") {
            Some(letter) => matches(rest, &text[letter.len()..]),
            None => Some(false),
        },
        b'[' => {
            let (fits, rest) = class(rest, text.first().copied())?;
            if fits && text.first() != Some(&b'/') { matches(rest, &text[1..]) } else { Some(false) }
        }
        b'\\' => {
            let (&literal, rest) = rest.split_first()?;
            if text.first() == Some(&literal) { matches(rest, &text[1..]) } else { Some(false) }
        }
        literal if text.first() == Some(&literal) => matches(rest, &text[1..]),
        _ => Some(false),
    }
}

/// The bytes of the first letter.
fn letter(text: &[u8]) -> Option<&[u8]> {
    text.first()?;
    let more = text[1..].iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
    Some(&text[..=more])
}

/// Whether a byte is in the class whose text follows `[`, and what follows `]`.
fn class(pattern: &[u8], byte: Option<u8>) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut found = false;
    let mut count = 0;
    loop {
        if rest.first()? == &b']' && count > 0 {
            return Some((byte.is_some() && found != negated, &rest[1..]));
        }
        let (low, after) = bound(rest)?;
        let (high, after) = match after.strip_prefix(b"-") {
            Some(after) => bound(after)?,
            None => (low, after),
        };
        rest = after;
        count += 1;
        found |= byte.is_some_and(|byte| low <= byte && byte <= high);
    }
}

fn bound(pattern: &[u8]) -> Option<(u8, &[u8])> {
    match pattern.split_first()? {
        (b'-' | b']', _) => None,
        (b'\\', rest) => rest.split_first().map(|(byte, rest)| (*byte, rest)),
        (byte, rest) => Some((*byte, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = |pattern: &str, text: &str| matches(clean(pattern).as_bytes(), text.as_bytes());
        assert_eq!(yes("a*", "abc"), Some(true));
        assert_eq!(yes("a*", "a/c"), Some(false));
        assert_eq!(yes("public/**", "public/d/b"), Some(false));
        assert_eq!(yes("./a/../b?", "b\u{e4}"), Some(true));
        assert_eq!(yes("[a-c]x", "bx"), Some(true));
        assert_eq!(yes("[^a-c]x", "bx"), Some(false));
        assert_eq!(yes("\\*", "*"), Some(true));
        assert_eq!(yes("[a", "a"), None);
    }

    fn sliced(app: &[&str], slices: &[&[&str]]) -> Vec<Vec<String>> {
        let app: Vec<PathBuf> = app.iter().map(PathBuf::from).collect();
        let slices: Vec<Slice> = slices
            .iter()
            .map(|paths| Slice { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
            .collect();
        let shown = |path: &PathBuf| path.to_str().unwrap().to_owned();
        slice(&app, &slices).unwrap().iter().map(|layer| layer.iter().map(shown).collect()).collect()
    }

    #[test]
    fn first_slice_wins_and_folders_bring_what_is_below() {
        let app = ["a", "d", "d/e", "d/e/f", "empty"];
        assert_eq!(
            sliced(&app, &[&["d/e"], &["*/e/f", "a"]]),
            [vec!["", "d", "d/e", "d/e/f"], vec!["", "a"], vec!["", "empty"]]
        );
    }

    #[test]
    fn folders_stay_while_something_in_them_does() {
        assert_eq!(sliced(&["d", "d/x", "d/y"], &[&["d/x"]]), [vec!["", "d", "d/x"], vec!["", "d", "d/y"]]);
        let all: [&[&str]; 2] = [&["", "d", "d/x"], &[]];
        assert_eq!(sliced(&["d", "d/x"], &[&["d/x"]]), all);
        let later: [&[&str]; 3] = [&["", "d", "d/x"], &["", "d", "d/y"], &[]];
        assert_eq!(sliced(&["d", "d/x", "d/y"], &[&["d/x"], &["d/y"]]), later);
    }

    #[test]
    fn sorted_by_bytes() {
        assert_eq!(sliced(&["a", "a/b", "a-b"], &[]), [["", "a", "a-b", "a/b"]]);
    }
}
