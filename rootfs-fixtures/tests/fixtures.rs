//! The fixtures judged by other people's programs: `skopeo`, `umoci`, `docker-registry`, bash.

use std::path::Path;
use std::process::Command;

use coracle_fixtures::registry::{PASSWORD, USER};
use coracle_fixtures::{
    Builder, Buildpack, Compression, DockerRegistry, Entry, Image, Layer, RegistryAccess,
};
use coracle_fixtures::{RunImage, demo, demo_buildpack, probe};
use serde_json::Value;

fn small() -> Image {
    Image::new(vec![Layer::new(&[Entry::dir("etc"), Entry::file("etc/greeting", "hello")])])
        .env("GREETING", "hello")
        .label("who", "fixtures")
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn an_open_registry_gives_back_what_was_pushed() {
    let registry = DockerRegistry::open();
    for (image, name) in [(small(), "oci"), (small().docker(), "docker")] {
        let reference = registry.push(&image, name, "1");
        assert!(reference.ends_with(&image.digest()), "{reference}");
        assert_eq!(registry.manifest(&format!("{name}:1")), image.manifest_bytes());
        assert_eq!(registry.config(&format!("{name}:1")).trim_ascii_end(), image.config_bytes());
    }
    let log = registry.access_log();
    assert!(log.contains("PUT /v2/oci/manifests/1 "), "{log}");
}

#[test]
fn a_registry_with_a_password_refuses_others() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    registry.push(&small(), "private", "1");
    let url = format!("http://{}/v2/private/tags/list", registry.address());
    let (_, anonymous) =
        run(Command::new("curl").args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url]));
    assert_eq!(anonymous, "401");
    let login = format!("{USER}:{PASSWORD}");
    let (_, known) = run(Command::new("curl").args(["-sS", "-u", &login, &url]));
    assert!(known.contains("\"tags\":[\"1\"]"), "{known}");
    // The configuration's text is what the same login encodes to.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), registry.docker_config()).unwrap();
    let (ok, said) = run(Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--authfile"])
        .arg(folder.path().join("config.json"))
        .arg(format!("docker://{}", registry.reference("private:1"))));
    assert!(ok, "{said}");
}

#[test]
fn a_registry_with_tls_is_trusted_by_its_authority_only() {
    let registry = DockerRegistry::start(RegistryAccess::Tls);
    registry.push(&small(), "safe", "1");
    let url = format!("https://{}/v2/safe/tags/list", registry.address());
    let bundle = registry.ca_bundle().unwrap();
    let (ok, said) = run(Command::new("curl").args(["-sS", "--cacert"]).arg(bundle).arg(&url));
    assert!(ok && said.contains("\"1\""), "{said}");
    let (ok, _) = run(Command::new("curl").args(["-sS", &url]));
    assert!(!ok);
}

#[test]
fn a_registry_ends_with_its_handle() {
    let registry = DockerRegistry::open();
    let address = registry.address();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    drop(registry);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn umoci_unpacks_the_layout() {
    for compression in [Compression::None, Compression::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let (layout, bundle) = (folder.path().join("layout"), folder.path().join("bundle"));
        let upper =
            Layer::new(&[Entry::dir("etc"), Entry::whiteout("etc/greeting"), Entry::file("etc/new", "2")]);
        let mut image = small();
        image.layers.push(upper);
        image.compression = compression;
        image.write_layout(&layout, "it");
        let (ok, said) = run(Command::new("umoci")
            .args(["unpack", "--rootless", "--image"])
            .arg(format!("{}:it", layout.display()))
            .arg(&bundle));
        assert!(ok, "{said}");
        assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/new")).unwrap(), "2");
        assert!(!bundle.join("rootfs/etc/greeting").exists());
    }
}

#[test]
fn a_builder_is_the_same_bytes_each_time() {
    let make =
        || Builder::new("run:latest").group(&[Buildpack::passing("test/one"), Buildpack::failing("two")]);
    assert_eq!(make().image().digest(), make().image().digest());
    assert_ne!(make().image().digest(), RunImage::new().image().digest());
    let config: Value = serde_json::from_slice(&make().image().config_bytes()).unwrap();
    let order = config["config"]["Labels"]["io.buildpacks.buildpack.order"].as_str().unwrap();
    assert_eq!(order, r#"[{"group":[{"id":"test/one","version":"1.0.0"},{"id":"two","version":"1.0.0"}]}]"#);
    let layers = config["config"]["Labels"]["io.buildpacks.buildpack.layers"].as_str().unwrap();
    let layers: Value = serde_json::from_str(layers).unwrap();
    assert_eq!(layers["two"]["1.0.0"]["layerDiffID"], config["rootfs"]["diff_ids"][3]);
}

fn program(buildpack: &Buildpack, name: &str, folder: &Path) -> (i32, String) {
    buildpack.write(folder);
    std::fs::create_dir_all(folder.join("layers")).expect("make the layers folder");
    let output = Command::new(folder.join("bin").join(name))
        .args(if name == "detect" {
            vec![folder.join("platform"), folder.join("plan.toml")]
        } else {
            vec![folder.join("layers"), folder.join("platform"), folder.join("plan.toml")]
        })
        .output()
        .expect("start a buildpack's program");
    (output.status.code().expect("an exit status"), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn buildpacks_end_as_their_names_say() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(program(&Buildpack::passing("a"), "detect", &at("a")).0, 0);
    assert_eq!(program(&Buildpack::failing("b"), "detect", &at("b")).0, 100);
    assert_eq!(program(&Buildpack::broken("c"), "detect", &at("c")), (7, "broken on purpose\n".to_owned()));
    let full = Buildpack::passing("d")
        .plan("thing")
        .layer("dep", &["launch", "cache"], "42")
        .process(&["run", "it"]);
    assert_eq!(program(&full, "detect", &at("d")).0, 0);
    assert_eq!(program(&full, "build", &at("d")).0, 0);
    let read = |name: &str| std::fs::read_to_string(at("d").join(name)).unwrap();
    assert_eq!(read("plan.toml"), "[[provides]]\nname = \"thing\"\n[[requires]]\nname = \"thing\"\n");
    assert_eq!(read("layers/dep/content"), "42");
    assert_eq!(read("layers/dep.toml"), "[types]\nlaunch = true\ncache = true\n");
    let launch = "[[processes]]\ntype = \"web\"\ncommand = [\"run\", \"it\"]\ndefault = true\n";
    assert_eq!(read("layers/launch.toml"), launch);
}

#[test]
fn the_probe_reports_on_this_process() {
    let output = Command::new(probe()).env_clear().env("SEEN", "yes").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["env"], serde_json::json!({ "SEEN": "yes" }));
    assert_eq!(report["uid"][1], nix::unistd::geteuid().as_raw());
    assert!(report["status"]["CapEff"].as_str().unwrap().len() == 16);
    assert!(report["mounts"].as_array().unwrap().iter().any(|mount| mount["target"] == "/proc"));
    // What the test runner leaves open is seen as well: a process is not given less than its parent has.
    let files = report["files"].as_object().unwrap();
    assert!(["0", "1", "2"].iter().all(|file| files.contains_key(*file)), "{files:?}");
    let attempts = report["attempts"].as_object().unwrap();
    if nix::unistd::geteuid().is_root() {
        assert!(attempts.values().all(|result| result == "not in a sandbox"), "{attempts:?}");
    } else {
        assert_eq!(attempts["write-tmp"], "ok");
        assert_eq!(attempts["write-root"], "EACCES");
        assert_eq!(attempts["mount-tmpfs"], "EPERM");
        assert_eq!(attempts["setuid-0"], "EPERM");
    }
}

#[test]
fn the_probe_finds_what_is_there_and_not_what_it_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b");
    std::fs::create_dir_all(&deep).unwrap();
    // Across two of the pieces that are read.
    std::fs::write(deep.join("long"), [vec![b'n'; (1 << 20) - 3], b"needle".to_vec()].concat()).unwrap();
    std::fs::write(deep.join("near"), "needl e").unwrap();
    std::os::unix::fs::symlink("/proc/self", deep.join("link")).unwrap();
    let mut other = Command::new("sleep").arg("60").env("HELD", "in-memory").spawn().unwrap();
    let (needle, absent, held) = ("6e6565646c65", "616273656e74", "696e2d6d656d6f7279");
    let output = Command::new(probe())
        .args([&format!("in={}", folder.path().display()), &format!("in=/proc/{}", other.id())])
        .args([needle, absent, held].map(|text| format!("find={text}")))
        .output()
        .unwrap();
    other.kill().and_then(|()| other.wait()).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let search = &report["search"];
    assert_eq!(search["found"][needle], serde_json::json!([deep.join("long")]));
    assert_eq!(search["found"][absent], serde_json::json!([]));
    let places = search["found"][held].to_string();
    assert!(places.contains("/environ"), "{search}");
    // Where the Yama module lets a process look at its own children only, their memory stays closed.
    let opened = !search["memories"].as_array().unwrap().is_empty();
    assert_eq!(places.contains("/mem"), opened, "{search}");
    assert!(!Command::new(probe()).arg("find=6").status().unwrap().success());
}

#[test]
fn the_demos_shell_programs_parse() {
    for (buildpack, name) in
        [("python", "detect"), ("python", "build"), ("node", "detect"), ("node", "build")]
    {
        let program = demo(&format!("buildpacks/{buildpack}/bin/{name}"));
        let (ok, said) = run(Command::new("bash").arg("-n").arg(&program));
        assert!(ok, "{said}");
        let made = demo_buildpack(buildpack).join("bin").join(name);
        let same = std::fs::read(&made).unwrap() == std::fs::read(&program).unwrap();
        assert!(same, "{} is not of these sources: run scripts/demo-builder", made.display());
    }
}
