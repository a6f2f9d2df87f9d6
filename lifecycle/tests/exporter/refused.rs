//! What there is no image of, and what of foreign code's is not followed.

use super::*;

#[test]
fn what_foreign_code_left_is_not_followed() {
    let build = Build::new("example.org/run:latest");
    let (_, flags) = layout(&build);
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(["example.org/app"]).collect();
    build.analyze(&args);
    build.write("secret/file", "[types]\nlaunch = true\n");
    for (link, to) in [
        ("layers/a_one/evil.toml", "secret/file"),
        ("layers/a_one/kept", "secret"),
        ("layers/a_one/store.toml", "secret/file"),
        ("layers/sbom/launch", "secret"),
        ("layers/a_one", "secret"),
    ] {
        let link_path = build.at(link);
        let aside = build.at("aside");
        let was = fs::rename(&link_path, &aside).is_ok();
        symlink(build.at(to), &link_path).unwrap();
        let error = build.export(&args).unwrap_err();
        assert_eq!(error.exit_code(), 62, "{link}");
        assert!(
            with_causes(&error).contains("open without following links"),
            "{link}: {}",
            with_causes(&error)
        );
        fs::remove_file(&link_path).unwrap();
        if was {
            fs::rename(&aside, &link_path).unwrap();
        }
    }
    // Links in the application and in layers are content.
    symlink("/etc/passwd", build.at("app/link")).unwrap();
    symlink("/etc", build.at("layers/a_one/kept/link")).unwrap();
    build.export(&args).unwrap();
}

#[test]
fn refusals() {
    let build = Build::new("example.org/run:latest");
    let (_, flags) = layout(&build);
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(["example.org/app"]).collect();
    let error = build.export(&args).unwrap_err();
    assert_eq!((error.exit_code(), with_causes(&error).contains("no run image")), (3, true));
    build.analyze(&args);
    let refused = |change: &[&str], code: u8, text: &str| {
        let error = build.export(&[change, &args[..]].concat()).unwrap_err();
        assert_eq!(error.exit_code(), code, "{}", with_causes(&error));
        assert!(with_causes(&error).contains(text), "{}", with_causes(&error));
    };
    refused(&["-process-type", "worker"], 62, "process type `worker` is not defined; defined are: `web`");
    refused(&["-launcher-sbom", "/nowhere"], 62, "where -launcher-sbom says that they are: `/nowhere`");
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"odd\xff.toml");
    let odd = build.at("layers/a_one").join::<&OsStr>(odd);
    fs::write(&odd, "").unwrap();
    refused(&[], 62, "its name is not UTF-8");
    fs::remove_file(odd).unwrap();
    build.write("layers/a_one/kept.toml", "launch = true");
    refused(
        &[],
        62,
        "layer `kept` of buildpack `a/one@1`: launch, build and cache belong into the table [types]",
    );
    build.write("layers/a_one/kept.toml", "[types");
    refused(&[], 62, "read document: `a_one/kept.toml`");
    build.write("layers/a_one/kept.toml", &"#".repeat(17 << 20));
    refused(&[], 62, "is not a regular file of at most");
    build.write("layers/a_one/kept.toml", "");
    build.write("layers/a_one/gone.toml", "[types]\nlaunch = true");
    refused(
        &[],
        62,
        "layer `gone` of buildpack `a/one@1` has no folder, and the previous image has no such layer",
    );
    build.write("layers/group.toml", "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.99\"\n");
    refused(&[], 12, "Buildpack API 0.99");
}

/// A socket has no form in an archive and is left out; a FIFO has one, and nobody waits for it. A sparse file is what is read of it.
#[test]
fn what_is_no_file_in_a_layer_is_packed_or_left_out_and_never_waited_for() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    let name = "example.org/app:1";
    let args: Vec<&str> = flags.iter().map(String::as_str).chain([name]).collect();
    build.analyze(&args);
    let kept = build.at("layers/a_one/kept");
    let socket = std::os::unix::net::UnixListener::bind(kept.join("socket")).unwrap();
    let diff_id = || {
        build.export(&[&args[..args.len() - 1], &["-compression", "none", name]].concat()).unwrap();
        let folder = layout_path(&dir, &name.parse().unwrap());
        let image = read_layout(&folder, Some(name.rsplit_once(':').unwrap().1)).unwrap();
        let blob = folder.join("blobs/sha256").join(image.manifest.layers[1].digest.hex());
        (image.config.rootfs.diff_ids[1].clone(), fs::read(blob).unwrap())
    };
    let with = diff_id();
    drop(socket);
    fs::remove_file(kept.join("socket")).unwrap();
    assert_eq!(diff_id(), with);

    nix::unistd::mkfifo(&kept.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let (_, archive) = diff_id();
    // POSIX.1, "ustar Interchange Format": the type is at 156.
    let is_fifo =
        |header: &[u8]| header[..100].windows(10).any(|text| text == b"/kept/fifo") && header[156] == b'6';
    assert!(archive.chunks(512).any(|header| header.len() == 512 && is_fifo(header)));
    fs::remove_file(kept.join("fifo")).unwrap();

    let sparse = kept.join("sparse");
    fs::File::create(&sparse).unwrap().set_len(3 << 20).unwrap();
    let (holes, _) = diff_id();
    fs::write(&sparse, vec![0; 3 << 20]).unwrap();
    assert_eq!(diff_id().0, holes);
    fs::write(&sparse, vec![1; 3 << 20]).unwrap();
    assert_ne!(diff_id().0, holes);
}
