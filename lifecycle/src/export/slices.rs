//! Which paths of the application go into which layer (Buildpack API, "launch.toml", `[[slices]]`).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use coracle_cnb::Slice;

use super::ExportError;
use super::pattern::Pattern;

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
            let pattern = Pattern::read(clean(text).as_bytes());
            if pattern.is_none() && !app.is_empty() {
                return Err(ExportError::Pattern(text.clone()));
            }
            let mut roots: BTreeSet<&Path> = BTreeSet::new();
            for entry in app {
                if pattern.as_ref().is_some_and(|pattern| pattern.fits(entry.as_os_str().as_bytes())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned_and_broken_ones_are_refused() {
        assert_eq!(clean("./a/../b?"), "b?");
        let slices = [Slice { paths: vec!["[a".to_owned()] }];
        let refused = slice(&[PathBuf::from("a")], &slices).unwrap_err();
        assert!(matches!(refused, ExportError::Pattern(text) if text == "[a"));
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
