use rustix::fs::{XattrFlags, setxattr};

use super::*;

/// Each way to change the copy, with the old times wherever somebody can have them, and how many files and links are copied then.
#[test]
fn what_programs_of_a_build_have_touched_is_gone_with_it_and_nothing_else_is_copied_again() {
    type Change = fn(&Path);
    let changes: &[(&str, usize, Change)] = &[
        ("content", 1, |dir| {
            fs::write(dir.join("a"), "b").unwrap();
            let time = TimeSpec::new(315_532_801, 0);
            utimensat(AT_FDCWD, &dir.join("a"), &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
        }),
        ("a file more", 0, |dir| fs::write(dir.join("empty/new"), "").unwrap()),
        ("one more at the top", 0, |dir| fs::write(dir.join("new"), "").unwrap()),
        ("a file less", 1, |dir| fs::remove_file(dir.join("lib/b")).unwrap()),
        ("a link less", 1, |dir| fs::remove_file(dir.join("link")).unwrap()),
        ("all less", 6, |dir| {
            for path in ["lib", "other", "empty"] {
                fs::remove_dir_all(dir.join(path)).unwrap();
            }
            for path in ["a", "link"] {
                fs::remove_file(dir.join(path)).unwrap();
            }
        }),
        ("a file's mode", 1, |dir| {
            fs::set_permissions(dir.join("a"), Permissions::from_mode(0o777)).unwrap()
        }),
        ("a folder's mode", 0, |dir| {
            fs::set_permissions(dir.join("lib"), Permissions::from_mode(0o700)).unwrap();
        }),
        ("the top's mode", 0, |dir| fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap()),
        ("a folder's mode and a file in it", 1, |dir| {
            fs::write(dir.join("lib/deep/c"), "C").unwrap();
            fs::set_permissions(dir.join("lib/deep"), Permissions::from_mode(0o711)).unwrap();
        }),
        ("a link for a file", 1, |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            symlink("lib/b", dir.join("a")).unwrap();
        }),
        ("a link for a folder", 2, |dir| {
            fs::rename(dir.join("lib"), dir.join("was")).unwrap();
            symlink("was", dir.join("lib")).unwrap();
        }),
        ("a file for a folder", 2, |dir| {
            fs::remove_dir_all(dir.join("lib")).unwrap();
            fs::write(dir.join("lib"), "").unwrap();
        }),
        ("a folder for a file", 1, |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            fs::create_dir_all(dir.join("a/in")).unwrap();
        }),
        ("folders exchanged", 4, |dir| {
            fs::rename(dir.join("lib"), dir.join("x")).unwrap();
            fs::rename(dir.join("other"), dir.join("lib")).unwrap();
            fs::rename(dir.join("x"), dir.join("other")).unwrap();
        }),
        ("there and back", 1, |dir| {
            fs::rename(dir.join("a"), dir.join("x")).unwrap();
            fs::rename(dir.join("x"), dir.join("a")).unwrap();
        }),
        ("a second name", 1, |dir| fs::hard_link(dir.join("a"), dir.join("lib/second")).unwrap()),
        ("a pipe", 0, |dir| nix::unistd::mkfifo(&dir.join("lib/pipe"), Mode::S_IRWXU).unwrap()),
        ("an attribute", 1, |dir| setxattr(dir.join("a"), "user.x", b"y", XattrFlags::empty()).unwrap()),
        // Which would stay with the folder.
        ("a folder's", 6, |dir| setxattr(dir.join("lib"), "user.x", b"y", XattrFlags::empty()).unwrap()),
        ("the top's", 6, |dir| setxattr(dir, "user.x", b"y", XattrFlags::empty()).unwrap()),
        ("too deep for anybody", 6, |dir| {
            fs::create_dir_all(dir.join("d/".repeat(200))).unwrap();
        }),
    ];
    for (what, expected, change) in changes {
        for ended in [true, false] {
            let site = Site::new();
            site.copy();
            let workspace = site.tree().workspace();
            let known = seen(&workspace);
            change(&workspace);
            for path in ["", "lib", "empty"] {
                let time = TimeSpec::new(315_532_801, 0);
                let _ =
                    utimensat(AT_FDCWD, &workspace.join(path), &time, &time, UtimensatFlags::NoFollowSymlink);
            }
            // Where the build was killed, the next one finds it.
            if ended {
                let checked = site.tree().unchanged(&KnownLayers::default(), Clocks::now()).unwrap();
                assert_eq!((checked.workspace, checked.known.application), (None, None), "{what}");
                site.tree().leave().unwrap();
                // Nothing is left that a program has written.
                for (path, (_, _, content)) in
                    workspace.exists().then(|| seen(&workspace)).into_iter().flatten()
                {
                    assert_eq!(known.get(&path).map(|known| &known.2), Some(&content), "{what}: {path:?}");
                }
            }
            let (copied, note) = site.copy();
            assert_eq!((copied.copied, copied.stayed), (*expected, 6 - expected), "{what}: {ended}: {note}");
            assert!(!site.tree().copy().unwrap().is_renewed(), "{what}");
            let (copied, note) = site.copy();
            assert_eq!((copied.copied, copied.stayed, copied.changed), (0, 6, false), "{what}: {note}");
            let has_attribute =
                |path: &str| rustix::fs::llistxattr(workspace.join(path), &mut [0; 64]).unwrap() > 0;
            assert!(!["", "a", "lib"].into_iter().any(has_attribute), "{what}");
            site.open_up();
        }
    }
}

/// Two builds in a row that write, and then another source.
#[test]
fn what_is_gone_is_copied_of_the_source_as_it_is_then() {
    let site = Site::new();
    site.copy();
    let workspace = site.tree().workspace();
    fs::write(workspace.join("lib/b"), "written").unwrap();
    site.tree().leave().unwrap();
    assert!(!workspace.join("lib/b").exists());
    // Nobody has copied since.
    fs::write(workspace.join("other/b"), "written").unwrap();
    site.tree().leave().unwrap();
    site.change("lib/b", "new");
    site.change("lib/deep/c", "new");
    fs::remove_file(site.source().join("other/b")).unwrap();
    site.settle();
    let (copied, note) = site.copy();
    assert_eq!((copied.copied, copied.stayed), (2, 3), "{note}");
    assert!(site.tree().copy().unwrap().is_renewed());
}
