//! Bills of materials of the lifecycle's own programs: the layer that the reference makes of the same files, and nothing followed that
//! programs of buildpacks left in their place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use coracle_images::{Config, Descriptor, Digest, Image, Layer};
use coracle_lifecycle::export::{Bills, ExportInput, Launcher, Outbox, export};
use coracle_lifecycle::known::KnownLayers;
use coracle_lifecycle::with_causes;
use nix::sys::stat::{Mode, umask};
use tempfile::TempDir;

const OF_LAUNCHER: &str = "sbom/launch/buildpacksio_lifecycle/launcher";

/// What a build left, with bills beside the programs and in a folder of the platform's.
struct Build(TempDir);

impl Build {
    fn new() -> Self {
        let build = Self(tempfile::tempdir().unwrap());
        build.write("layers/sbom/launch/sbom.legacy.json", "null\n");
        build.write("layers/sbom/launch/a_one/sbom.cdx.json", "{\"of\":\"a\"}");
        build.write("app/main", "m");
        for program in ["launcher", "lifecycle"] {
            for form in ["cdx", "spdx", "syft"] {
                let text = format!("{{\"{program}\":\"{form}\"}}\n");
                build.write(&format!("cnb/{program}.sbom.{form}.json"), &text);
            }
        }
        build.write("own/mine.sbom.cdx.json", "{\"own\":1}");
        build.write("own/sbom.syft.json", "{\"own\":2}");
        build.write("own/notes.txt", "x");
        fs::create_dir_all(build.at("own/dir.sbom.cdx.json")).unwrap();
        fs::create_dir(build.at("empty")).unwrap();
        build
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for path in path.ancestors().take_while(|path| *path != self.0.path()) {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    fn place(&self, bills: &Bills) -> Result<(), String> {
        let layers = File::open(self.at("layers")).unwrap();
        bills.place(layers.as_fd()).map_err(|error| with_causes(&error))
    }

    /// The diff id of the layer with the image's bills, if there is one.
    fn layer(&self, bills: &Bills) -> Result<Option<String>, String> {
        let config: Config = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let layer = Layer {
            descriptor: Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of("b"), 1),
            diff_id: Digest::of("b"),
        };
        let base = Image::assemble(config, vec![layer]).unwrap();
        let (layers, app) = (File::open(self.at("layers")).unwrap(), File::open(self.at("app")).unwrap());
        let input = ExportInput {
            group: &toml::from_str("[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.10\"").unwrap(),
            metadata: &toml::from_str("").unwrap(),
            analyzed: &toml::from_str("").unwrap(),
            run: &toml::from_str("[[images]]\nimage = \"run\"").unwrap(),
            project: &toml::from_str("").unwrap(),
            base: &base,
            extended: None,
            previous: None,
            layers_dir: layers.as_fd(),
            layers_path: "/layers",
            above_layers: &[],
            app_dir: app.as_fd(),
            app_path: "/workspace",
            above_app: &[],
            config_as_it_is: false,
            launcher: &Launcher { program: b"launcher", metadata: "L".into() },
            bills: Some(bills),
            unchanged: &KnownLayers::default(),
            owner: (1001, 1002),
            owner_above: Some((1001, 1002)),
            process_type: None,
            exec_env: None,
            platform_api: "0.13".parse().unwrap(),
            created: "1980-01-01T00:00:01Z",
        };
        let outbox = Outbox::new(&self.at("out")).unwrap();
        let exported = export(&input, &outbox, None, &mut |_| {}).map_err(|error| with_causes(&error))?;
        Ok(exported.metadata.sbom.map(|sbom| sbom.sha))
    }
}

fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            format!("{mode:o} {}", entry.file_name().into_string().unwrap())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn the_layer_is_the_reference_s() {
    type Choose = fn(&Build) -> Bills;
    let beside = |build: &Build| Bills::beside_programs(&build.at("cnb")).unwrap();
    let own: Choose =
        |build| Bills::beside_programs(&build.at("cnb")).unwrap().with_launchers(&build.at("own")).unwrap();
    let empty: Choose =
        |build| Bills::beside_programs(&build.at("cnb")).unwrap().with_launchers(&build.at("empty")).unwrap();
    let partial: Choose = |build| {
        for program in ["launcher", "lifecycle"] {
            fs::remove_file(build.at(&format!("cnb/{program}.sbom.spdx.json"))).unwrap();
        }
        Bills::beside_programs(&build.at("cnb")).unwrap()
    };
    let known = ["644 sbom.cdx.json", "644 sbom.spdx.json", "644 sbom.syft.json"];
    // As the reference's exporter left them, and called the layer.
    let cases: [(Choose, &[&str], &str); 4] = [
        (beside, &known, "8781d1c9af7105307c788f4263fa5b0e9e633d328e75b941e96feec52beb5c50"),
        (
            own,
            &["644 mine.sbom.cdx.json", "644 sbom.syft.json"],
            "fbee03349a36b351233404e3f51242527f3d2de87f6a29fee31ce1517d562f43",
        ),
        (empty, &[], "859239faf831576863685ad3baf69343d3e77d1348b4c28e019e893d42fe932c"),
        (
            partial,
            &["644 sbom.cdx.json", "644 sbom.syft.json"],
            "b5a6fc41eaed991608e2415568af10d4fadbefb190b0ee6edc40536c3c78aa8f",
        ),
    ];
    for (choose, files, digest) in cases {
        let build = Build::new();
        let bills = choose(&build);
        umask(Mode::from_bits_truncate(0o077));
        let wanted = Ok(Some(format!("sha256:{digest}")));
        // Where the layers' folder is read-only.
        assert_eq!(build.layer(&bills), wanted, "{files:?}");
        build.place(&bills).unwrap();
        assert_eq!(list(&build.at("layers").join(OF_LAUNCHER)), files);
        assert_eq!(list(&build.at("layers/sbom/launch/buildpacksio_lifecycle")), ["755 launcher"]);
        let there = |name: &&&str| bills.missing.is_empty() || !name.contains("spdx");
        let of_lifecycle: Vec<&str> = known.iter().filter(there).copied().collect();
        assert_eq!(list(&build.at("layers/sbom/build/buildpacksio_lifecycle")), of_lifecycle);
        assert_eq!(build.layer(&bills), wanted, "{files:?}");
        umask(Mode::from_bits_truncate(0o022));
    }
}

#[test]
fn without_bills_there_is_what_buildpacks_left() {
    let build = Build::new();
    let bills = Bills::beside_programs(&build.at("empty")).unwrap();
    let names = ["lifecycle", "launcher"]
        .map(|program| ["cdx", "spdx", "syft"].map(|form| format!("{program}.sbom.{form}.json")));
    assert_eq!(bills.missing, names.concat());
    build.place(&bills).unwrap();
    assert_eq!(list(&build.at("layers/sbom")), ["755 launch"]);
    assert!(build.layer(&bills).unwrap().is_some());
    fs::remove_dir_all(build.at("layers/sbom")).unwrap();
    assert_eq!(build.layer(&bills), Ok(None));
    // And without anything of buildpacks the launcher's.
    let bills = Bills::beside_programs(&build.at("cnb")).unwrap();
    let read_only = build.layer(&bills);
    build.place(&bills).unwrap();
    assert_eq!(read_only, build.layer(&bills));
}

#[test]
fn what_programs_left_in_their_place_is_not_followed() {
    let build = Build::new();
    let bills = Bills::beside_programs(&build.at("cnb")).unwrap();
    let wanted = build.layer(&bills);
    fs::create_dir(build.at("elsewhere")).unwrap();
    for link in ["layers/sbom", "layers/sbom/launch", "layers/sbom/launch/buildpacksio_lifecycle"] {
        let aside = build.at("aside");
        let was = fs::rename(build.at(link), &aside).is_ok();
        symlink(build.at("elsewhere"), build.at(link)).unwrap();
        for refused in [build.place(&bills).unwrap_err(), build.layer(&bills).unwrap_err()] {
            let named = ["sbom", "buildpacksio_lifecycle"]
                .map(|path| refused.contains(&format!("open without following links: `{path}")));
            assert!(named.contains(&true), "{link}: {refused}");
        }
        assert_eq!(list(&build.at("elsewhere")), Vec::<String>::new(), "{link}");
        fs::remove_file(build.at(link)).unwrap();
        if was {
            fs::rename(&aside, build.at(link)).unwrap();
        }
        let _ = fs::remove_dir_all(build.at("layers/sbom/build"));
    }
    // A link, a FIFO or a folder with the name of a bill: the image has the bill.
    build.write("secret", "secret");
    let bill = build.at("layers").join(OF_LAUNCHER).join("sbom.cdx.json");
    build.place(&bills).unwrap();
    fs::remove_file(&bill).unwrap();
    symlink(build.at("secret"), &bill).unwrap();
    assert_eq!(build.layer(&bills), wanted);
    build.place(&bills).unwrap();
    assert_eq!(fs::read_to_string(build.at("secret")).unwrap(), "secret");
    assert_eq!(fs::read_to_string(&bill).unwrap(), "{\"launcher\":\"cdx\"}\n");
    fs::remove_file(&bill).unwrap();
    nix::unistd::mkfifo(&bill, Mode::S_IRWXU).unwrap();
    assert_eq!(build.layer(&bills), wanted);
    build.place(&bills).unwrap();
    fs::remove_file(&bill).unwrap();
    fs::create_dir(&bill).unwrap();
    fs::write(bill.join("inner"), "").unwrap();
    assert_eq!(build.layer(&bills), wanted);
    let refused = build.place(&bills).unwrap_err();
    assert!(refused.starts_with("write without following links: `sbom.cdx.json`"), "{refused}");
}
