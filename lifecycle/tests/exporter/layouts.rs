//! Images in layout folders: what is in them.

use super::*;

#[test]
fn a_layout_holds_what_is_new() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let name = "example.org/app:1";
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &[name, "example.org/app:also"]].concat()).unwrap();
    let folder = layout_path(&dir, &name.parse().unwrap());
    let image = read_layout(&folder, Some(name.rsplit_once(':').unwrap().1)).unwrap();
    // Run image, buildpack's layer, bill of materials, application, launcher, its configuration, process types.
    assert_eq!(image.manifest.layers.len(), 7);
    let has = |image: &Image, at: usize| {
        let digest = &image.manifest.layers[at].digest;
        folder.join("blobs/sha256").join(digest.hex()).exists()
    };
    assert!(!has(&image, 0) && (1..7).all(|at| has(&image, at)));
    let also = layout_path(&dir, &"example.org/app:also".parse().unwrap());
    assert_eq!(read_layout(&also, None).unwrap().digest, image.digest);
    assert_eq!(blobs(&also).len(), blobs(&folder).len());
    // As the reference, the folder and the digest, but where the name is asked for.
    let reference = |image: &Image| {
        let metadata: Value = serde_json::from_str(image.config.label(LABEL).unwrap()).unwrap();
        metadata["runImage"]["reference"].as_str().unwrap().to_owned()
    };
    let path = dir.join("example.org/run/latest").display().to_string();
    assert!(reference(&image).starts_with(&format!("{path}@sha256:")), "{}", reference(&image));
    // So is the report.
    let tags = build.report()["image"]["tags"].clone();
    let folder_and_name =
        [dir.join("example.org/app/1").display().to_string(), "example.org/app:also".into()];
    assert_eq!(tags, toml::Value::from(folder_and_name.to_vec()));
    assert!(build.report()["image"].get("digest").is_none());

    build.export(&[&["-by-name"], &flags[..], &["example.org/app:named"]].concat()).unwrap();
    let named = layout_path(&dir, &"example.org/app:named".parse().unwrap());
    let named = read_layout(&named, None).unwrap();
    assert!(reference(&named).starts_with("example.org/run@sha256:"), "{}", reference(&named));
    assert_eq!(build.report()["image"]["digest"].as_str().unwrap(), named.digest.as_str());
    assert_eq!(build.report()["image"]["tags"][0].as_str().unwrap(), "example.org/app:named");

    // The previous image without its layers is enough to leave out all that did not change.
    fs::remove_dir_all(&folder).unwrap();
    write_sparse_layout(&image, None, &folder).unwrap();
    build.write("app/main", "changed");
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &[name]].concat()).unwrap();
    let second = read_layout(&folder, Some(name.rsplit_once(':').unwrap().1)).unwrap();
    let new: Vec<usize> = (0..7).filter(|at| has(&second, *at)).collect();
    assert_eq!(new, [3]);
    assert_eq!(second.manifest.layers[1], image.manifest.layers[1]);
}

/// Where the run image's folder has its layers, so has the image's; what is no layer there is none here.
#[test]
fn a_layout_has_the_layers_that_the_run_image_s_has() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let whole = build.at("whole");
    let layer = read_layout(&whole, None).unwrap().manifest.layers[0].digest.clone();
    let run = layout_path(&dir, &"example.org/run:latest".parse().unwrap());
    let blob = |folder: &Path| folder.join("blobs/sha256").join(layer.hex());
    build.analyze(&[&flags[..], &["example.org/app:1"]].concat());
    let export = |tag: &str| {
        let (name, also) = (format!("example.org/app:{tag}"), format!("example.org/app:{tag}-also"));
        let ended = build.export(&[&flags[..], &[&name, &also]].concat());
        let has = [name, also].map(|name| blob(&layout_path(&dir, &name.parse().unwrap())).exists());
        ended.map(|()| has)
    };
    fs::copy(blob(&whole), blob(&run)).unwrap();
    assert_eq!(export("whole").unwrap(), [true, true]);
    fs::write(blob(&run), "another").unwrap();
    assert_eq!(export("spoilt").unwrap(), [false, false]);
    fs::remove_file(blob(&run)).unwrap();
    nix::unistd::mkfifo(&blob(&run), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let error = with_causes(&export("fifo").unwrap_err());
    assert!(error.contains(layer.hex()) && error.contains("is not a regular file"), "{error}");
}

/// The folders of an archive: path, mode, owner and group (POSIX.1, "ustar Interchange Format").
fn folders(archive: &Path) -> Vec<(PathBuf, u32, u32, u32)> {
    let bytes = fs::read(archive).unwrap();
    let (mut at, mut folders) = (0, Vec::new());
    while bytes.len() > at + 512 && bytes[at] != 0 {
        let text = |from: usize, length: usize| {
            let field = &bytes[at + from..at + from + length];
            std::str::from_utf8(field).unwrap().trim_end_matches('\0').to_owned()
        };
        let number = |from, length| u32::from_str_radix(text(from, length).trim(), 8).unwrap();
        if bytes[at + 156] == b'5' {
            let path = PathBuf::from(text(345, 155)).join(text(0, 100));
            folders.push((path, number(100, 8), number(108, 8), number(116, 8)));
        }
        at += 512 + (number(124, 12) as usize).next_multiple_of(512);
    }
    folders
}

/// Platforms mount what they have, such as folders of another group: whoever unpacks a layer finds those above it as they were. Only
/// the layer is the build's user's.
#[test]
fn folders_above_layers_stay_as_they_are() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    build.write("workspace/source/main", "m");
    build.write("layers/a_one/kept.toml", "[types]\nlaunch = true\ncache = true\n");
    for (path, mode) in
        [("layers", 0o2775), ("layers/a_one", 0o2750), ("layers/sbom", 0o711), ("workspace", 0o1777)]
    {
        fs::set_permissions(build.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (app, cache) = (build.at("workspace/source"), build.at("cache"));
    let own = ["-app", app.to_str().unwrap(), "-cache-dir", cache.to_str().unwrap()];
    let name = "example.org/app:1";
    let more = ["-uid", "54321", "-gid", "54322", "-compression", "none", name];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &own, &more].concat()).unwrap();

    let folder = layout_path(&dir, &name.parse().unwrap());
    let image = read_layout(&folder, Some(name.rsplit_once(':').unwrap().1)).unwrap();
    let layers = &image.manifest.layers;
    let blob = |at: usize| folder.join("blobs/sha256").join(layers[at].digest.hex());
    let kept = image.config.rootfs.diff_ids[1].to_string();
    let cached = cache.join("committed").join(format!("{kept}.tar"));
    for (archive, layer) in [
        (blob(1), build.at("layers/a_one/kept")),
        (cached, build.at("layers/a_one/kept")),
        (blob(2), build.at("layers/sbom/launch")),
        (blob(3), app),
        (blob(5), build.at("layers/config")),
    ] {
        let wanted = |path: &Path| {
            let about = fs::metadata(path).unwrap();
            let own = if path == layer { (54321, 54322) } else { (about.uid(), about.gid()) };
            (path.to_owned(), about.mode() & 0o7777, own.0, own.1)
        };
        let mut above: Vec<&Path> = layer.ancestors().filter(|path| path.parent().is_some()).collect();
        above.reverse();
        let wanted: Vec<_> = above.into_iter().map(wanted).collect();
        assert_eq!(folders(&archive)[..wanted.len()], wanted, "{}", layer.display());
    }
}

/// Names, modes, owners, sizes and times of an archive.
fn headers(archive: &Path) -> Vec<(String, u32, u64, u64, u64, u64)> {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let header = |entry: std::io::Result<tar::Entry<'_, fs::File>>| {
        let entry = entry.unwrap();
        let header = entry.header();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        (name, header.mode().unwrap(), owner.0, owner.1, entry.size(), header.mtime().unwrap())
    };
    archive.entries().unwrap().map(header).collect()
}

/// As the reference: root's, not those of whoever builds, so that the image is the same for all.
#[test]
fn files_are_root_s_where_nobody_names_the_build_s_user_and_the_launcher_always() {
    const TIME: u64 = 315_532_801;
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    let name = "example.org/app:1";
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    build.analyze(&[&flags[..], &[name]].concat());
    let [layers, run, app] = ["layers", "run.toml", "app"].map(|path| build.at(path).display().to_string());
    let own = ["-layers", &layers, "-run", &run, "-app", &app, "-compression", "none"];
    let folder = layout_path(&dir, &name.parse().unwrap());
    for (ids, owner) in
        [(&[][..], (0, 0)), (&["-uid", "7"], (7, 0)), (&["-uid", "1001", "-gid", "1002"], (1001, 1002))]
    {
        build.phase("exporter", &[&flags[..], &own, ids, &[name]].concat()).unwrap();
        let image = read_layout(&folder, Some(name.rsplit_once(':').unwrap().1)).unwrap();
        let blob = |at: usize| folder.join("blobs/sha256").join(image.manifest.layers[at].digest.hex());
        let kept = headers(&blob(1)).into_iter().find(|(path, ..)| path.ends_with("/kept/file")).unwrap();
        assert_eq!((kept.2, kept.3), owner, "{ids:?}");
        let program = b"launcher".len() as u64;
        assert_eq!(
            headers(&blob(4)),
            [
                ("/cnb".to_owned(), 0o755, 0, 0, 0, TIME),
                ("/cnb/lifecycle".to_owned(), 0o755, 0, 0, 0, TIME),
                ("/cnb/lifecycle/launcher".to_owned(), 0o755, 0, 0, program, TIME),
            ],
            "{ids:?}"
        );
    }
}
