use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use coracle_lifecycle::known::{KnownApplication, KnownLayers};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::*;

/// A source and a tree.
struct Site {
    dir: tempfile::TempDir,
}

fn owner() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        let source = site.source();
        fs::create_dir_all(source.join("lib/deep")).unwrap();
        fs::create_dir_all(source.join("other/deep")).unwrap();
        fs::create_dir(source.join("empty")).unwrap();
        for path in ["a", "lib/b", "lib/deep/c", "other/b", "other/deep/c"] {
            fs::write(source.join(path), path).unwrap();
        }
        symlink("a", source.join("link")).unwrap();
        site.tree().begin(false).unwrap();
        site.settle();
        site
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn tree(&self) -> Tree {
        Tree::new(&self.dir.path().join("tree"), owner()).unwrap()
    }

    /// What was written is of a time that is over.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(50));
    }

    fn copy(&self) -> (Copied, String) {
        self.copy_by(&self.tree(), &[], Clocks::now())
    }

    /// Copies, and makes sure that nothing differs from a new copy.
    fn copy_by(&self, tree: &Tree, excluded: &[PathBuf], now: Clocks) -> (Copied, String) {
        let (copied, notes) = tree.copy_source(&self.source(), excluded, now).unwrap();
        let [note] = &notes[..] else { panic!("{notes:?}") };
        let folder = tempfile::tempdir_in(self.dir.path()).unwrap();
        let plain = folder.path().join("copy");
        copy_tree(&self.source(), &plain, owner(), excluded).unwrap();
        assert_eq!(seen(&tree.workspace()), seen(&plain));
        (copied, note.clone())
    }

    /// Why nothing stayed, and everything was copied.
    fn why_copied(&self, by: impl FnOnce(&Self) -> (Copied, String)) -> String {
        let (copied, note) = by(self);
        assert_eq!((copied.stayed, copied.copied), (0, 6), "{note}");
        note.split("; of an earlier copy: ").nth(1).unwrap().to_owned()
    }

    /// So that it can be deleted.
    fn open_up(&self) {
        for top in [self.source(), self.tree().workspace()] {
            let _ = fs::set_permissions(top.join("lib/deep"), Permissions::from_mode(0o755));
        }
    }

    fn change(&self, path: &str, content: &str) {
        fs::write(self.source().join(path), content).unwrap();
    }
}

/// Kind and mode, time of the content, content.
type Seen = (u32, (i64, i64), Vec<u8>);

/// All that somebody can see of a folder.
fn seen(top: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut seen, mut pending) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(path) = pending.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let content = if about.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if about.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let time = (about.mtime(), about.mtime_nsec());
        seen.insert(path.strip_prefix(top).unwrap().to_owned(), (about.mode(), time, content));
    }
    seen
}

fn keep_time(path: &Path) {
    let time = TimeSpec::new(1_700_000_000, 0);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

#[test]
fn of_a_source_that_nobody_changed_nothing_is_copied() {
    let site = Site::new();
    let (copied, note) = site.copy();
    assert_eq!((copied.copied, copied.stayed, copied.bytes), (6, 0, 35));
    assert_eq!(
        note,
        "of the source 6 files and links were copied (35 bytes), 0 had stayed; of an earlier copy: none stayed"
    );
    let before = fs::metadata(site.tree().evidence()).unwrap().ino();
    for _ in 0..3 {
        site.tree().begin(false).unwrap();
        let (copied, note) = site.copy();
        assert_eq!((copied.copied, copied.stayed, copied.bytes, copied.changed), (0, 6, 0, false));
        assert_eq!(note, "of the source 0 files and links were copied (0 bytes), 6 had stayed");
    }
    let now = fs::metadata(site.tree().evidence()).unwrap().ino();
    assert_eq!(now, before, "nor is anything written");
}

/// Each way to change a source, with the old size and the old times wherever somebody can have them, and how many are copied then.
#[test]
fn what_is_changed_in_the_source_is_copied_and_nothing_else() {
    type Change = fn(&Path);
    let changes: &[(&str, usize, Change)] = &[
        ("content", 1, |dir| fs::write(dir.join("a"), "b").unwrap()),
        ("another file", 1, |dir| {
            fs::write(dir.join("lib/new"), "other").unwrap();
            fs::rename(dir.join("lib/new"), dir.join("lib/b")).unwrap();
        }),
        ("a second name", 1, |dir| {
            let other = dir.with_extension("other");
            fs::hard_link(dir.join("a"), &other).unwrap();
            fs::write(&other, "b").unwrap();
            fs::remove_file(other).unwrap();
        }),
        ("exchanged", 2, |dir| {
            fs::rename(dir.join("lib/b"), dir.join("x")).unwrap();
            fs::rename(dir.join("other/b"), dir.join("lib/b")).unwrap();
            fs::rename(dir.join("x"), dir.join("other/b")).unwrap();
        }),
        ("exchanged folders", 4, |dir| {
            fs::rename(dir.join("lib"), dir.join("x")).unwrap();
            fs::rename(dir.join("other"), dir.join("lib")).unwrap();
            fs::rename(dir.join("x"), dir.join("other")).unwrap();
        }),
        ("moved down", 1, |dir| fs::rename(dir.join("a"), dir.join("empty/a")).unwrap()),
        ("a file more", 1, |dir| fs::write(dir.join("empty/new"), "new").unwrap()),
        ("a file less", 0, |dir| fs::remove_file(dir.join("lib/deep/c")).unwrap()),
        ("one more", 0, |dir| fs::create_dir(dir.join("empty/new")).unwrap()),
        ("a folder less", 0, |dir| fs::remove_dir_all(dir.join("lib")).unwrap()),
        ("mode", 1, |dir| fs::set_permissions(dir.join("a"), Permissions::from_mode(0o700)).unwrap()),
        ("a folder's mode", 0, |dir| {
            fs::set_permissions(dir.join("lib/deep"), Permissions::from_mode(0o555)).unwrap();
        }),
        ("the top's mode", 0, |dir| fs::set_permissions(dir, Permissions::from_mode(0o711)).unwrap()),
        ("in a closed folder", 1, |dir| {
            fs::write(dir.join("lib/deep/c"), "C").unwrap();
            fs::set_permissions(dir.join("lib/deep"), Permissions::from_mode(0o555)).unwrap();
        }),
        ("link", 1, |dir| {
            fs::remove_file(dir.join("link")).unwrap();
            symlink("b", dir.join("link")).unwrap();
        }),
        ("a folder for a file", 1, |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            fs::create_dir(dir.join("a")).unwrap();
            fs::write(dir.join("a/in"), "in").unwrap();
        }),
        ("a file for a folder", 1, |dir| {
            fs::remove_dir_all(dir.join("lib")).unwrap();
            fs::write(dir.join("lib"), "lib").unwrap();
        }),
        ("a link for a folder", 1, |dir| {
            fs::remove_dir_all(dir.join("lib")).unwrap();
            symlink("other", dir.join("lib")).unwrap();
        }),
        ("a pipe for a file", 0, |dir| {
            fs::remove_file(dir.join("a")).unwrap();
            nix::unistd::mkfifo(&dir.join("a"), Mode::S_IRWXU).unwrap();
        }),
    ];
    const FILES: [&str; 5] = ["a", "lib/b", "lib/deep/c", "other/b", "link"];
    for ((what, expected, change), touch) in
        changes.iter().flat_map(|change| [(change, false), (change, true)])
    {
        let site = Site::new();
        site.copy();
        change(&site.source());
        let mut most = *expected;
        for path in FILES.into_iter().chain(["", "lib", "lib/deep", "other", "empty"]).filter(|_| touch) {
            let path = site.source().join(path);
            if let Ok(about) = path.symlink_metadata() {
                // A file that was touched cannot be told from one that was changed.
                most += usize::from(!about.is_dir());
                keep_time(&path);
            }
        }
        site.settle();
        let (copied, note) = site.copy();
        assert!(copied.changed && (*expected..=most).contains(&copied.copied), "{what}: {note}");
        let (copied, note) = site.copy();
        assert_eq!((copied.copied, copied.changed), (0, false), "{what}: {note}");
        site.open_up();
    }
}

#[test]
fn a_folder_in_which_something_came_and_went_changes_nothing() {
    let site = Site::new();
    site.copy();
    site.change("lib/swap", "");
    fs::remove_file(site.source().join("lib/swap")).unwrap();
    site.settle();
    let (copied, _) = site.copy();
    assert_eq!((copied.copied, copied.stayed, copied.changed), (0, 6, false));
}

#[test]
fn a_file_that_somebody_may_write_to_unseen_is_copied_again() {
    let site = Site::new();
    // Who has it mapped has it open.
    let writer = fs::OpenOptions::new().write(true).open(site.source().join("a")).unwrap();
    site.copy();
    for _ in 0..2 {
        let (copied, _) = site.copy();
        assert_eq!((copied.copied, copied.stayed), (1, 5));
    }
    drop(writer);
    let _reader = File::open(site.source().join("a")).unwrap();
    assert_eq!(site.copy().0.copied, 1);
    assert_eq!(site.copy().0.copied, 0, "who reads does no harm");
}

mod touched;

#[test]
fn another_user_start_clock_or_choice_is_another_copy() {
    let site = Site::new();
    site.copy();
    let copy = site.tree().copy().unwrap();
    let other = |change: &dyn Fn(&mut About)| {
        let mut other = copy.clone();
        change(&mut other.about);
        site.tree().refused_copy(&other, &[], Clocks::now()).unwrap()
    };
    assert_eq!(other(&|_| ()), None);
    let (uid, gid) = owner();
    assert_eq!(other(&|copy| copy.user = (uid, gid + 1)), Some("the build's user is another"));
    assert_eq!(other(&|copy| copy.boot.push('x')), Some("the machine was started since"));
    assert_eq!(other(&|copy| copy.signed += 1 << 60), Some("the clock was set back"));
    assert_eq!(other(&|copy| copy.signature = Digest::of("guessed")), Some("it was changed"));
    let why = site.why_copied(|site| {
        site.copy_by(&Tree { boot: "another".to_owned(), ..site.tree() }, &[], Clocks::now())
    });
    assert_eq!(why, "the machine was started since");
    // What is left out now is not there.
    let (copied, note) = site.copy_by(&site.tree(), &["lib/b".into()], Clocks::now());
    assert_eq!(copied.copied, 5, "{note}");
    assert_eq!(site.why_copied(Site::copy), "something else is left out of it");
    // Half written.
    fs::write(site.tree().evidence(), "{\"signature\":").unwrap();
    assert_eq!(site.why_copied(Site::copy), "none stayed");
    let whole = fs::read(site.tree().evidence()).unwrap();
    fs::write(site.tree().evidence(), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(site.why_copied(Site::copy), "none stayed");
    // Of an earlier form.
    let text = String::from_utf8_lossy(&whole).replacen("\"form\":2", "\"form\":1", 1);
    fs::write(site.tree().evidence(), text).unwrap();
    assert_eq!(site.why_copied(Site::copy), "none stayed");
    // Half copied.
    fs::remove_file(site.tree().workspace().join("lib/b")).unwrap();
    let (copied, note) = site.copy();
    assert_eq!((copied.copied, copied.stayed), (1, 5), "{note}");
    site.tree().begin(true).unwrap();
    assert_eq!(site.why_copied(Site::copy), "none stayed", "a cleared cache has none");
}

#[test]
fn another_source_is_copied_over_what_stayed() {
    let site = Site::new();
    site.copy();
    let source = site.source();
    let status = Command::new("cp").arg("-a").args([&source, &source.with_extension("2")]).status();
    assert!(status.unwrap().success());
    fs::rename(&source, source.with_extension("1")).unwrap();
    fs::rename(source.with_extension("2"), &source).unwrap();
    site.settle();
    let (copied, _) = site.copy();
    assert_eq!((copied.copied, copied.stayed), (6, 0));
    // And back: what was known of the first is forgotten.
    fs::rename(&source, source.with_extension("2")).unwrap();
    fs::rename(source.with_extension("1"), &source).unwrap();
    let (copied, _) = site.copy();
    assert_eq!((copied.copied, copied.stayed), (6, 0));
}

#[test]
fn the_application_is_what_it_was_while_its_copy_is() {
    let site = Site::new();
    site.copy();
    let application = KnownApplication {
        path: "/workspace".to_owned(),
        owner: (1, 2),
        diff_ids: vec![Digest::of("archive")],
        slices: Vec::new(),
    };
    let packed = KnownLayers { application: Some(application), ..KnownLayers::default() };
    let check = || site.tree().unchanged(&KnownLayers::default(), Clocks::now()).unwrap();
    let checked = check();
    assert_eq!(checked.known, KnownLayers::default(), "no image was made of it yet");
    assert!(checked.workspace.is_some());
    site.tree().keep(&packed, &KnownLayers::default(), checked.workspace).unwrap();
    for _ in 0..2 {
        site.tree().begin(false).unwrap();
        site.copy();
        let checked = check();
        assert_eq!(checked.known, packed);
        site.tree().keep(&packed, &checked.known, checked.workspace).unwrap();
    }
    // One file of the source is another.
    site.change("a", "other");
    site.tree().begin(false).unwrap();
    site.copy();
    let checked = check();
    assert!(checked.known.application.is_none() && checked.known.application_changed);
    site.tree().keep(&packed, &checked.known, checked.workspace).unwrap();
    assert_eq!(check().known, packed);
    // The clock was set back, or another version made it.
    let now = Clocks::now();
    let later = Clocks { real: now.real + 3_600_000_000_000, ..now };
    let checked = site.tree().unchanged(&KnownLayers::default(), later).unwrap();
    assert_eq!((checked.known.application, checked.workspace), (None, None));
    let mut records = site.tree().records();
    records.application.as_mut().unwrap().program.push('x');
    site.tree().write(&records).unwrap();
    assert_eq!(check().known.application, None);
    // Touched by a program of the build.
    fs::write(site.tree().workspace().join("lib/more"), "").unwrap();
    let checked = check();
    assert_eq!((&checked.known, &checked.workspace), (&KnownLayers::default(), &None));
    site.tree().keep(&packed, &checked.known, checked.workspace).unwrap();
    assert!(
        site.tree().records().application.is_none() && !site.tree().workspace().join("lib/more").exists()
    );
}

#[test]
fn a_link_in_place_of_the_workspace_leads_nowhere() {
    let site = Site::new();
    site.copy();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("kept"), "").unwrap();
    let workspace = site.tree().workspace();
    fs::rename(&workspace, workspace.with_extension("away")).unwrap();
    symlink(other.path(), &workspace).unwrap();
    let error = site.tree().copy_source(&site.source(), &[], Clocks::now()).unwrap_err().to_string();
    assert!(error.starts_with("what lies in the cache is no folder"), "{error}");
    assert!(site.tree().leave().is_err() && site.tree().begin(true).is_err());
    assert!(other.path().join("kept").exists());
}
