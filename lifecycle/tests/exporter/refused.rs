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
