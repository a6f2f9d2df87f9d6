use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use coracle_cnb::{BuildpackLayers, CACHE_METADATA_LABEL, CacheMetadata, LayerMetadata, Slice, write_json};
use coracle_images::pack::{PackOptions, Parent, pack_dir};
use coracle_lifecycle::cache::COMMITTED;

use super::*;

const ID: &str = "a/buildpack";
const GUEST: (u32, u32) = (1000, 1001);

fn owner() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// What a creator left: one layer, an application and a cache, which is whatever a test says.
struct Created {
    dir: tempfile::TempDir,
    since: Clocks,
}

impl Created {
    fn new() -> Self {
        let created = Self { dir: tempfile::tempdir().unwrap(), since: Clocks::now() };
        let tree = created.tree();
        tree.begin(false).unwrap();
        fs::create_dir(created.source()).unwrap();
        fs::write(created.source().join("file"), "application").unwrap();
        // What was written is of a time that is over.
        std::thread::sleep(std::time::Duration::from_millis(50));
        tree.copy_source(&created.source(), &[], Clocks::now()).unwrap();
        let layer = created.layer();
        fs::create_dir_all(layer.join("lib")).unwrap();
        fs::write(layer.join("lib/file"), "one").unwrap();
        for folder in [tree.layers(), tree.layers().join("a_buildpack"), layer.clone(), layer.join("lib")] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        created
    }

    fn tree(&self) -> Tree {
        Tree::new(&self.dir.path().join("tree"), owner()).unwrap()
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn layer(&self) -> PathBuf {
        self.tree().layers().join("a_buildpack/layer")
    }

    /// What the archive of the layer is, by another way.
    fn diff_id(&self) -> Digest {
        let parent = |path: &str| Parent { path: path.to_owned(), uid: GUEST.0, gid: GUEST.1, mode: 0o755 };
        let parents = vec![parent("/layers"), parent("/layers/a_buildpack")];
        let options = PackOptions { uid: GUEST.0, gid: GUEST.1, parents, ..PackOptions::default() };
        let mut archive = Vec::new();
        let dir = File::open(self.layer()).unwrap();
        pack_dir(dir.as_fd(), "/layers/a_buildpack/layer", &options, &mut archive).unwrap();
        Digest::of(archive)
    }

    /// The cache's list says so.
    fn listed(&self, layers: &[(&str, &str, &str)]) {
        let mut buildpacks = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (id, name, sha) in layers {
            let layer = LayerMetadata { sha: (*sha).to_owned(), cache: true, ..LayerMetadata::default() };
            buildpacks.entry(*id).or_default().insert((*name).to_owned(), layer);
        }
        let buildpack = |(key, layers): (&str, _)| BuildpackLayers {
            key: key.to_owned(),
            version: "1".to_owned(),
            layers: Some(layers),
            store: None,
        };
        let metadata = CacheMetadata {
            buildpacks: buildpacks.into_iter().map(buildpack).collect(),
            ..CacheMetadata::default()
        };
        let committed = self.dir.path().join("data").join(COMMITTED);
        fs::create_dir_all(&committed).unwrap();
        fs::write(committed.join(CACHE_METADATA_LABEL), write_json(&metadata).unwrap()).unwrap();
    }

    fn keep(&self) -> Vec<String> {
        self.tree().keep_created(&self.dir.path().join("data"), GUEST, self.since).unwrap()
    }

    /// What the next build has of the layer of this digest, and of the application.
    fn next(&self, diff_id: &Digest) -> (usize, Option<KnownApplication>) {
        let (tree, now) = (self.tree(), Clocks::now());
        let (buildpack, name) = ("a_buildpack".to_owned(), "layer".to_owned());
        tree.begin(false).unwrap();
        tree.copy_source(&self.source(), &[], now).unwrap();
        let layer = KnownLayer { buildpack, name, diff_id: diff_id.clone() };
        let (known, _) = tree.reuse(vec![layer], now).unwrap();
        let known = tree.unchanged(&known, now).unwrap().known;
        (known.layers.len(), known.application)
    }
}

#[test]
fn layers_and_application_stay_as_after_phases_of_their_own() {
    let created = Created::new();
    let diff_id = created.diff_id();
    created.listed(&[(ID, "layer", diff_id.as_str())]);
    assert_eq!(created.keep(), Vec::<String>::new());
    let (layers, application) = created.next(&diff_id);
    let application = application.expect("the application stayed");
    assert_eq!((layers, application.diff_ids.len(), application.owner), (1, 1, GUEST));
}

/// Whatever the programs of the container, or who has taken it over, write into the cache: that layer is not taken for this one.
#[test]
fn a_layer_is_what_was_read_here_and_not_what_the_cache_says_of_it() {
    let created = Created::new();
    let before = created.diff_id();
    fs::write(created.layer().join("lib/file"), "two").unwrap();
    assert_ne!(created.diff_id(), before);
    created.listed(&[(ID, "layer", before.as_str())]);
    assert_eq!(created.keep(), ["a_buildpack:layer does not stay unpacked: the cache has another"]);
    assert_eq!(created.next(&before).0, 0);
    assert!(!created.layer().exists());
}

/// A file without blocks costs who writes it nothing, and who reads it hours.
#[test]
fn what_would_take_hours_to_read_is_not_read() {
    let created = Created::new();
    let diff_id = created.diff_id();
    for file in ["sparse", "another"] {
        File::create(created.layer().join(file)).unwrap().set_len(40 << 30).unwrap();
    }
    created.listed(&[(ID, "layer", diff_id.as_str())]);
    assert_eq!(created.keep(), ["no layer stays unpacked: what the cache lists is too much to be read"]);
    assert_eq!(created.next(&diff_id).0, 0);
}

#[test]
fn a_layer_that_is_listed_twice_is_read_once() {
    let created = Created::new();
    let layer = format!("{{\"layer\":{{\"sha\":\"{}\",\"cache\":true}}}}", created.diff_id());
    let one = format!("{{\"key\":\"{ID}\",\"version\":\"1\",\"layers\":{layer}}}");
    let data = created.dir.path().join("data");
    fs::create_dir_all(data.join(COMMITTED)).unwrap();
    let list = format!("{{\"buildpacks\":[{}]}}", vec![one; 1000].join(","));
    fs::write(data.join(COMMITTED).join(CACHE_METADATA_LABEL), list).unwrap();
    assert_eq!(listed(&data).len(), 1);
}

#[test]
fn a_list_leads_to_no_other_folder() {
    let created = Created::new();
    let diff_id = created.diff_id();
    let sha = diff_id.as_str();
    created.listed(&[
        ("..", "tree", sha),
        (ID, "..", sha),
        (ID, "../a_buildpack/layer", sha),
        (ID, "layer/lib", sha),
        (ID, "gone", sha),
    ]);
    let notes = created.keep();
    assert_eq!(notes.len(), 1, "the one that is not there: {notes:?}");
    assert_eq!(created.next(&diff_id).0, 0);
}

#[test]
fn a_link_in_the_place_of_a_layer_is_none() {
    let created = Created::new();
    let diff_id = created.diff_id();
    fs::rename(created.layer(), created.dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(created.dir.path().join("elsewhere"), created.layer()).unwrap();
    created.listed(&[(ID, "layer", diff_id.as_str())]);
    assert_eq!(created.keep().len(), 1);
    assert_eq!(created.next(&diff_id).0, 0);
}

#[test]
fn a_folder_above_that_is_somebody_else_s_is_another_archive() {
    let created = Created::new();
    let diff_id = created.diff_id();
    created.listed(&[(ID, "layer", diff_id.as_str())]);
    let (uid, gid) = owner();
    let tree = Tree { user: (uid, gid + 1), ..created.tree() };
    let notes = tree.keep_created(&created.dir.path().join("data"), GUEST, created.since).unwrap();
    assert_eq!(
        notes,
        ["a_buildpack:layer does not stay unpacked: a folder above it belongs to somebody else"]
    );
}

#[test]
fn an_application_that_a_program_has_touched_is_read_by_the_next_build() {
    let created = Created::new();
    let diff_id = created.diff_id();
    created.listed(&[(ID, "layer", diff_id.as_str())]);
    fs::write(created.tree().workspace().join("more"), "").unwrap();
    created.keep();
    assert_eq!(created.next(&diff_id), (1, None));
}

#[test]
fn slices_that_a_program_has_put_into_a_document_are_those_of_the_record() {
    let created = Created::new();
    let diff_id = created.diff_id();
    created.listed(&[(ID, "layer", diff_id.as_str())]);
    let config = created.tree().layers().join("config");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("metadata.toml"), "[[slices]]\npaths = [\"file\"]\n").unwrap();
    created.keep();
    let application = created.next(&diff_id).1.expect("the application stayed");
    assert_eq!(application.slices, [Slice { paths: vec!["file".to_owned()] }]);
    assert_eq!(application.diff_ids.len(), 2);
}

#[test]
fn without_a_layer_the_copy_stays_and_nothing_is_read() {
    let created = Created::new();
    assert_eq!(created.keep(), Vec::<String>::new());
    let tree = created.tree();
    tree.begin(false).unwrap();
    let (copied, _) = tree.copy_source(&created.source(), &[], Clocks::now()).unwrap();
    assert_eq!((copied.copied, copied.stayed), (0, 1));
    assert_eq!(created.next(&Digest::of("none")), (0, None));
}
