use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;

/// A tree after a first build that left one layer of one buildpack.
struct Built {
    dir: tempfile::TempDir,
    layer: KnownLayer,
}

fn owner() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

impl Built {
    fn new() -> Self {
        let layer = KnownLayer {
            buildpack: "a_buildpack".to_owned(),
            name: "layer".to_owned(),
            diff_id: Digest::of("archive"),
        };
        let built = Self { dir: tempfile::tempdir().unwrap(), layer };
        built.tree().begin(false).unwrap();
        built.fill("one");
        assert_eq!(built.keep(&KnownLayers::default()), Vec::<String>::new());
        built
    }

    fn tree(&self) -> Tree {
        Tree::new(&self.dir.path().join("tree"), owner()).unwrap()
    }

    fn all(&self) -> KnownLayers {
        KnownLayers { layers: vec![self.layer.clone()], ..KnownLayers::default() }
    }

    /// Where the layer is during a build.
    fn place(&self) -> PathBuf {
        self.tree().layers().join("a_buildpack/layer")
    }

    /// What a buildpack makes, or a restorer.
    fn fill(&self, content: &str) {
        fs::create_dir_all(self.place().join("lib")).unwrap();
        fs::write(self.place().join("lib/file"), content).unwrap();
    }

    fn keep(&self, unchanged: &KnownLayers) -> Vec<String> {
        self.tree().keep(&self.all(), unchanged, None).unwrap()
    }

    /// The beginning of the next build: why the layer is not reused, or nothing.
    fn reused(&self) -> Option<String> {
        self.reused_by(&self.tree(), Clocks::now())
    }

    fn reused_by(&self, tree: &Tree, now: Clocks) -> Option<String> {
        tree.begin(false).unwrap();
        let (known, mut notes) = tree.reuse(vec![self.layer.clone()], now).unwrap();
        assert_eq!(self.place().exists(), known == self.all());
        assert_eq!(notes.is_empty(), known == self.all());
        let note = notes.pop()?;
        let why = note.strip_prefix("a_buildpack:layer is unpacked from the cache: ");
        Some(why.unwrap_or_else(|| panic!("{note}")).to_owned())
    }

    fn is_unchanged(&self, since: Clocks) -> bool {
        self.tree().unchanged(&self.all(), since).unwrap().known == self.all()
    }

    /// As who has been here between builds.
    fn records(&self, change: impl Fn(&mut Record)) {
        let mut records = self.tree().records();
        records.layers.iter_mut().for_each(change);
        self.tree().write(&records).unwrap();
    }
}

const CHANGED: Option<&str> = Some("it was changed");

#[test]
fn a_layer_that_nobody_changed_stays_for_build_after_build() {
    let built = Built::new();
    for _ in 0..3 {
        let now = Clocks::now();
        assert_eq!(built.reused(), None);
        assert_eq!(fs::read_to_string(built.place().join("lib/file")).unwrap(), "one");
        assert!(built.is_unchanged(now));
        assert_eq!(built.keep(&built.all()), Vec::<String>::new());
        assert!(!built.tree().layers().exists(), "nothing else stays");
        assert_eq!(fs::read_dir(built.dir.path().join("tree")).unwrap().count(), 2, "kept and records.json");
    }
}

#[test]
fn what_a_build_changes_is_packed_and_then_stays_as_it_is_then() {
    let built = Built::new();
    assert_eq!(built.reused(), None);
    built.fill("eno");
    assert!(!built.is_unchanged(Clocks::now()));
    assert_eq!(built.keep(&KnownLayers::default()), Vec::<String>::new());
    assert_eq!(built.reused(), None);
    assert_eq!(fs::read_to_string(built.place().join("lib/file")).unwrap(), "eno");
}

#[test]
fn a_folder_above_with_other_permissions_is_another_archive() {
    for above in ["a_buildpack", ""] {
        let built = Built::new();
        assert_eq!(built.reused(), None);
        let above = built.tree().layers().join(above);
        fs::set_permissions(above, Permissions::from_mode(0o700)).unwrap();
        assert!(!built.is_unchanged(Clocks::now()));
    }
}

#[test]
fn a_folder_above_of_another_owner_is_another_archive() {
    for at in [0, 1] {
        let built = Built::new();
        assert_eq!(built.reused(), None);
        assert!(built.is_unchanged(Clocks::now()));
        built.records(|record| record.above[at].gid += 1);
        assert!(!built.is_unchanged(Clocks::now()));
    }
}

#[test]
fn another_digest_another_user_and_another_start_of_the_machine_are_other_layers() {
    let built = Built::new();
    let other = KnownLayer { diff_id: Digest::of("other"), ..built.layer.clone() };
    let (known, notes) = built.tree().reuse(vec![other], Clocks::now()).unwrap();
    assert_eq!(known, KnownLayers::default());
    assert!(notes[0].ends_with("no layer with its digest is here"), "{notes:?}");

    let (uid, gid) = owner();
    let other = Tree { user: (uid, gid + 1), ..built.tree() };
    let why = other.refused(&other.records().layers[0], &other.kept(), Clocks::now()).unwrap();
    assert_eq!(why, Some("the build's user is another"));
    let other = Tree { boot: "another".to_owned(), ..built.tree() };
    assert_eq!(built.reused_by(&other, Clocks::now()).as_deref(), Some("the machine was started since"));
    assert_eq!(built.reused(), None, "it is there for whom it fits");
}

#[test]
fn a_restored_backup_is_not_what_it_was() {
    let built = Built::new();
    let tree = built.dir.path().join("tree");
    let backup = built.dir.path().join("backup");
    assert!(Command::new("cp").arg("-a").args([&tree, &backup]).status().unwrap().success());
    fs::remove_dir_all(&tree).unwrap();
    fs::rename(&backup, &tree).unwrap();
    assert_eq!(built.reused().as_deref(), CHANGED);
}

#[test]
fn a_clock_that_went_back_makes_layers_unknown() {
    let built = Built::new();
    let now = Clocks::now();
    let signed = built.tree().records().layers[0].signed;
    let before = Clocks { real: signed, ..now };
    assert_eq!(built.reused_by(&built.tree(), before).as_deref(), Some("the clock was set back"));
    // While the build ran.
    let hour = 3_600_000_000_000;
    assert!(!now.went_back(Clocks { real: now.real + hour, boot: now.boot + hour }));
    assert!(!now.went_back(Clocks { real: now.real + 2 * hour, boot: now.boot + hour }), "it went on");
    assert!(now.went_back(Clocks { real: now.real + hour - hour / 100, boot: now.boot + hour }));
    assert_eq!(built.reused(), None);
    assert!(built.is_unchanged(now));
    assert!(!built.is_unchanged(Clocks { real: now.real + hour, ..now }));
}

#[test]
fn what_ended_early_at_any_point_leaves_a_layer_or_none_but_never_another() {
    // A build that was killed or failed: the layer lies where the build had it.
    let built = Built::new();
    assert_eq!(built.reused(), None);
    assert_eq!(built.reused(), None, "found there");
    built.fill("eno");
    assert_eq!(built.reused().as_deref(), CHANGED, "and it was changed there");
    // Killed after the records were written, before the layer was moved; the old one is there still.
    let built = Built::new();
    let kept = built.tree().kept();
    assert!(
        Command::new("cp").arg("-a").args([&kept, &kept.with_extension("2")]).status().unwrap().success()
    );
    assert_eq!(built.reused(), None);
    fs::rename(kept.with_extension("2"), kept.join("2")).unwrap();
    fs::rename(kept.join("2/a_buildpack/layer"), kept.join("a_buildpack/layer")).unwrap();
    assert_eq!(built.reused().as_deref(), CHANGED);
    // Killed while the records were written.
    let built = Built::new();
    fs::write(built.dir.path().join("tree/records.json"), "{\"layers\":[{").unwrap();
    assert_eq!(built.reused().as_deref(), Some("no layer with its digest is here"));
    // A program of the build had put something else in the layer's place, or in that of the folder above it.
    for place in ["a_buildpack/layer", "a_buildpack"] {
        for link in [true, false] {
            let built = Built::new();
            assert_eq!(built.reused(), None);
            let path = built.tree().layers().join(place);
            fs::remove_dir_all(&path).unwrap();
            if link {
                symlink("/", &path).unwrap()
            } else {
                fs::write(&path, "").unwrap()
            }
            assert_eq!(built.reused().as_deref(), CHANGED, "{place}");
            assert!(fs::symlink_metadata(path).is_err() || place == "a_buildpack", "deleted");
        }
    }
    // Half deleted.
    let built = Built::new();
    fs::remove_dir_all(built.tree().kept().join("a_buildpack/layer/lib")).unwrap();
    assert_eq!(built.reused().as_deref(), CHANGED);
    fs::remove_dir_all(built.tree().kept()).unwrap();
    assert_eq!(built.reused().as_deref(), Some("it cannot be looked at"));
}

#[test]
fn what_an_archive_would_not_bring_back_does_not_stay() {
    let built = Built::new();
    assert_eq!(built.reused(), None);
    fs::hard_link(built.place().join("lib/file"), built.place().join("lib/hard")).unwrap();
    assert!(!built.is_unchanged(Clocks::now()));
    let notes = built.keep(&KnownLayers::default());
    assert_eq!(
        notes,
        [
            "a_buildpack:layer does not stay unpacked: `lib/file` has more names than one, which its archive would not bring back"
        ]
    );
    assert_eq!(built.reused().as_deref(), Some("no layer with its digest is here"));
    assert!(!built.tree().kept().exists(), "nor is it kept");
}

#[test]
fn a_cleared_cache_has_no_layers() {
    let built = Built::new();
    built.tree().begin(true).unwrap();
    let (known, _) = built.tree().reuse(vec![built.layer.clone()], Clocks::now()).unwrap();
    assert_eq!(known, KnownLayers::default());
    assert!(!built.tree().kept().exists());
}

#[test]
fn a_link_in_the_tree_leads_nowhere() {
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("kept"), "").unwrap();
    for name in ["", "layers", "kept", "old", "kept/a_buildpack"] {
        let built = Built::new();
        if name == "layers" || name.is_empty() {
            assert_eq!(built.reused(), None);
        }
        let path: PathBuf = built.dir.path().join("tree").join(name).components().collect();
        if path.exists() {
            fs::rename(&path, built.dir.path().join("away")).unwrap();
        }
        symlink(other.path(), path).unwrap();
        let tree = built.tree();
        let begun = tree.begin(false).and_then(|()| tree.begin(true));
        if name == "kept/a_buildpack" {
            begun.unwrap();
        } else {
            assert!(
                begun.unwrap_err().to_string().starts_with("what lies in the cache is no folder"),
                "{name}"
            );
        }
        assert!(other.path().join("kept").exists(), "{name}");
    }
}

#[test]
fn a_record_that_somebody_wrote_is_none_unless_it_is_right() {
    let built = Built::new();
    built.records(|record| record.signature = Digest::of("guessed"));
    assert_eq!(built.reused().as_deref(), CHANGED);
    built.records(|record| record.layer.buildpack = "../..".to_owned());
    assert_eq!(built.reused().as_deref(), Some("no layer with its digest is here"));
}
