//! `-launch-cache`: what an export keeps of the image, and what a later one need not fetch.

use coracle_images::{Digest, Hashing};

use super::*;

/// A build into one registry, which left its launch cache; then its buildpack left the layer alone, and the image goes elsewhere.
struct Moved {
    build: Build,
    near: DockerRegistry,
    far: DockerRegistry,
    name: String,
}

impl Moved {
    fn new() -> Self {
        Self::compressed("gzip")
    }

    fn compressed(compression: &str) -> Self {
        let (near, far) = (DockerRegistry::open(), DockerRegistry::open());
        near.push(&run_fixture(), "run", "latest");
        let build = Build::new(&near.reference("run:latest"));
        let moved = Self { name: near.reference("app:1"), build, near, far };
        moved.build.analyze(&[&moved.name]);
        moved.export(&["-compression", compression, "-launch-cache", &moved.cache(), &moved.name]);
        fs::remove_dir_all(moved.build.at("layers/a_one/kept")).unwrap();
        moved
    }

    fn cache(&self) -> String {
        self.build.at("launch-cache").to_str().unwrap().to_owned()
    }

    fn export(&self, args: &[&str]) {
        self.build.export(args).unwrap();
    }

    /// Exports under a name in the other registry, and says how many layers of the image itself were fetched for that.
    fn export_far(&self, name: &str, args: &[&str]) -> usize {
        let name = self.far.reference(name);
        self.build.analyze(&["-previous-image", &self.name, &name]);
        let own = self.layers(&self.near, "app:1").split_off(1);
        let log = self.near.access_log();
        let before = own.iter().map(|layer| gets(&log, layer)).sum::<usize>();
        self.export(&[args, &[&name]].concat());
        let log = self.near.access_log();
        own.iter().map(|layer| gets(&log, layer)).sum::<usize>() - before
    }

    fn layers(&self, registry: &DockerRegistry, name: &str) -> Vec<String> {
        let manifest: Value = serde_json::from_slice(&registry.manifest(name)).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// The diff ids of the image itself.
    fn diff_ids(&self) -> Vec<String> {
        let config: Value = serde_json::from_slice(&self.near.config("app:1")).unwrap();
        let all = config["rootfs"]["diff_ids"].as_array().unwrap().iter().skip(1);
        all.map(|diff_id| diff_id.as_str().unwrap().to_owned()).collect()
    }

    fn archive(&self, diff_id: &str) -> PathBuf {
        Path::new(&self.cache()).join("committed").join(format!("{diff_id}.tar"))
    }

    /// The archives in the cache, each of which is what it is called by.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(Path::new(&self.cache()).join("committed")).unwrap();
        let mut kept: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        kept.sort();
        for name in &kept {
            let digest = digest_of(&self.archive(name.strip_suffix(".tar").unwrap()));
            assert_eq!(format!("{digest}.tar"), *name);
        }
        kept
    }
}

fn digest_of(path: &Path) -> Digest {
    let mut file = Hashing::new(fs::File::open(path).unwrap());
    std::io::copy(&mut file, &mut std::io::sink()).unwrap();
    file.digest()
}

/// How often a registry was asked for the content of a blob.
fn gets(log: &str, digest: &str) -> usize {
    log.lines().filter(|line| line.contains("\"GET ") && line.contains(&format!("/blobs/{digest}"))).count()
}

fn archives(diff_ids: &[String]) -> Vec<String> {
    let mut names: Vec<_> = diff_ids.iter().map(|diff_id| format!("{diff_id}.tar")).collect();
    names.sort();
    names
}

#[test]
fn layers_of_the_last_image_are_sent_elsewhere_without_being_fetched() {
    let moved = Moved::new();
    assert_eq!(moved.kept(), archives(&moved.diff_ids()));
    let all = moved.diff_ids().len();
    assert_eq!(moved.export_far("without:1", &[]), all);
    assert_eq!(moved.export_far("with:1", &["-launch-cache", &moved.cache()]), 0);
    assert_eq!(moved.far.manifest("with:1"), moved.far.manifest("without:1"));
    assert_eq!(moved.layers(&moved.far, "with:1"), moved.layers(&moved.near, "app:1"));
    assert!(!moved.build.at("launch-cache/staging").exists());

    // What is not in this image is not kept any longer; the layer without a folder still is.
    moved.build.write("app/main", "changed");
    moved.build.analyze(&[&moved.name]);
    moved.export(&["-launch-cache", &moved.cache(), &moved.name]);
    assert_eq!(moved.kept(), archives(&moved.diff_ids()));

    // A cache folder of the build has the same archives of what is for both; they are there once.
    let cache = moved.build.at("cache");
    moved.build.write("layers/a_one/kept.toml", "[types]\nlaunch = true\ncache = true\n");
    moved.build.write("layers/a_one/kept/file", "for both");
    moved.build.analyze(&[&moved.name]);
    let both = ["-cache-dir", cache.to_str().unwrap(), "-launch-cache", &moved.cache(), &moved.name];
    moved.export(&both);
    assert_eq!(moved.kept(), archives(&moved.diff_ids()));
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let kept = &moved.diff_ids()[0];
    assert_eq!(inode(moved.archive(kept)), inode(cache.join("committed").join(format!("{kept}.tar"))));
}

#[test]
fn what_was_compressed_otherwise_is_fetched_as_it_is() {
    for compression in ["gzip:9", "zstd"] {
        let moved = Moved::compressed(compression);
        let fetched = moved.export_far("other:1", &["-launch-cache", &moved.cache()]);
        assert_eq!(moved.layers(&moved.far, "other:1"), moved.layers(&moved.near, "app:1"));
        assert_eq!(fetched, moved.diff_ids().len());
    }
}

#[test]
fn what_the_cache_holds_is_not_believed() {
    let moved = Moved::new();
    let (kept, whole) = (&moved.diff_ids()[0], moved.diff_ids().len());
    let archive = moved.archive(kept);
    let bytes = fs::read(&archive).unwrap();
    let secret = moved.build.at("secret");
    fs::write(&secret, &bytes).unwrap();
    let hostile: [(&str, &dyn Fn()); 5] = [
        ("other", &|| fs::write(&archive, [&bytes[..], b"more"].concat()).unwrap()),
        ("fifo", &|| nix::unistd::mkfifo(&archive, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("folder", &|| fs::create_dir(&archive).unwrap()),
        ("link", &|| symlink(&secret, &archive).unwrap()),
        ("endless", &|| fs::File::create(&archive).unwrap().set_len(1 << 42).unwrap()),
    ];
    for (name, put) in hostile {
        fs::remove_file(&archive).unwrap();
        put();
        let name = format!("{name}:1");
        // It is fetched, and not kept.
        assert_eq!(moved.export_far(&name, &["-launch-cache", &moved.cache()]), 1, "{name}");
        assert_eq!(moved.layers(&moved.far, &name), moved.layers(&moved.near, "app:1"), "{name}");
        assert_eq!(moved.kept().len(), whole - 1, "{name}");
        fs::write(&archive, &bytes).unwrap();
    }
    // The folder itself may be anything.
    let cache = moved.build.at("launch-cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "").unwrap();
    assert_eq!(moved.export_far("no-folder:1", &["-launch-cache", &moved.cache()]), whole);
}

/// A registry may have lost what its manifest names.
#[test]
fn a_layer_that_the_registry_lost_comes_from_the_cache() {
    let moved = Moved::new();
    let layer = moved.layers(&moved.near, "app:1")[1].clone();
    let hex = layer.strip_prefix("sha256:").unwrap();
    let blobs = moved.near.storage().join("blobs/sha256");
    fs::remove_file(blobs.join(&hex[..2]).join(hex).join("data")).unwrap();
    let name = moved.far.reference("saved:1");
    moved.build.analyze(&["-previous-image", &moved.name, &name]);
    moved.build.export(&[&name]).unwrap_err();
    moved.export(&["-launch-cache", &moved.cache(), &name]);
    assert_eq!(moved.layers(&moved.far, "saved:1")[1], layer);
}

#[test]
fn a_layout_holds_what_the_cache_has_and_bills_come_back_of_it() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    let cache = build.at("launch-cache");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let cached = ["-launch-cache", cache.to_str().unwrap()];
    let (name, next) = ("example.org/app:1", "example.org/app:2");
    build.write("layers/sbom/launch/a_one/kept/sbom.cdx.json", "{}");
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &cached, &[name]].concat()).unwrap();
    let folder = layout_path(&dir, &name.parse().unwrap());
    let image = read_layout(&folder, Some(name.rsplit_once(':').unwrap().1)).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    write_sparse_layout(&image, None, &folder).unwrap();

    // The layout has no layer with the bills; the cache has, unless it is another.
    let bills = build.at("layers/sbom/launch");
    let analyze = |more: &[&str]| {
        let _ = fs::remove_dir_all(build.at("layers/sbom"));
        build.analyze(&[&flags[..], &["-previous-image", name], more, &[next]].concat());
        bills.join("a_one/kept/sbom.cdx.json").exists()
    };
    let archive = cache.join("committed").join(format!("{}.tar", image.config.rootfs.diff_ids[2]));
    let bytes = fs::read(&archive).unwrap();
    assert!(!analyze(&[]));
    fs::write(&archive, [&bytes[..], &[0; 512]].concat()).unwrap();
    assert!(!analyze(&cached));
    fs::write(&archive, &bytes).unwrap();
    assert!(analyze(&cached));

    fs::remove_dir_all(build.at("layers/a_one/kept")).unwrap();
    let own = |name: &str| {
        let folder = layout_path(&dir, &name.parse().unwrap());
        let layers = read_layout(&folder, None).unwrap().manifest.layers;
        let has = |digest: &Digest| folder.join("blobs/sha256").join(digest.hex()).exists();
        layers.iter().filter(|layer| has(&layer.digest)).count()
    };
    build.export(&[&flags[..], &[next]].concat()).unwrap();
    assert_eq!(own(next), 0);
    build.export(&[&flags[..], &cached, &[next, "example.org/app:also"]].concat()).unwrap();
    assert_eq!((own(next), own("example.org/app:also")), (6, 6));
    assert_eq!(read_layout(&layout_path(&dir, &next.parse().unwrap()), None).unwrap().digest, image.digest);
}
