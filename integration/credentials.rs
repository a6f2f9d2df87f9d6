//! Where credentials may be, and in which order they are looked for.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RegistryAccess, RunImage};

use crate::harness::{Ran, TestHome, ran};
use crate::site::Site;

/// base64 of `tester:not-a-secret`, which the registry takes, and of `tester:wrong`.
const RIGHT: &str = "dGVzdGVyOm5vdC1hLXNlY3JldA==";
const WRONG: &str = "dGVzdGVyOndyb25n";

struct Scene {
    registry: DockerRegistry,
    home: TestHome,
}

impl Scene {
    /// A registry with a password and an image.
    fn new() -> Self {
        let registry = DockerRegistry::start(RegistryAccess::Password);
        registry.push(&RunImage::new().image(), "app", "latest");
        Self { registry, home: TestHome::new() }
    }

    fn config(&self, auth: &str) -> String {
        format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", self.registry.address())
    }

    /// A file below the home, for its user alone.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("make a folder");
        fs::write(&path, text).expect("write a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("close it");
        path.display().to_string()
    }

    /// `coracle pull -v` with more arguments and variables.
    fn pull(&self, more: &[&str], env: &[(&str, &str)]) -> Ran {
        let name = self.registry.reference("app:latest");
        let args: Vec<&str> = ["pull", "-v", &name].iter().chain(more).copied().collect();
        ran(self.home.command(&args).envs(env.iter().copied()).output().expect("start coracle"))
    }

    /// Pull; succeed, and say that the credentials are from `place`.
    fn pulled(&self, place: &str, more: &[&str], env: &[(&str, &str)]) {
        let ran = self.pull(more, env);
        assert_eq!(ran.code, Some(0), "{place}: {}", ran.stderr);
        let expected = format!("credentials for {}: from {place}\n", self.registry.address());
        assert!(ran.stderr.starts_with(&expected), "{expected} in {}", ran.stderr);
        assert!(!ran.stderr.contains(RIGHT) && !ran.stderr.contains("not-a-secret"), "{}", ran.stderr);
    }
}

#[test]
fn each_place_goes_before_those_after_it() {
    let scene = Scene::new();
    assert!(scene.pull(&[], &[]).stderr.contains("refuses access; log in to it"));
    let flat = format!("{{\"{}\":{{\"auth\":\"{RIGHT}\"}}}}", scene.registry.address());
    let files = [
        (".dockercfg", flat.clone()),
        (".config/containers/auth.json", scene.config(RIGHT)),
        ("run/containers/auth.json", scene.config(RIGHT)),
        (".docker/config.json", scene.config(RIGHT)),
    ];
    let run = scene.home.path().join("run").display().to_string();
    let env = [("XDG_RUNTIME_DIR", run.as_str())];
    for (name, text) in &files {
        let path = scene.file(name, text);
        scene.pulled(&path, &[], &env);
        // From now on it is of no use: what counts next must go before it.
        scene.file(name, &text.replace(RIGHT, WRONG));
    }
    let header = format!("{{\"{}\":\"Basic {RIGHT}\"}}", scene.registry.address());
    let env = [env[0], ("CORACLE_REGISTRY_AUTH", header.as_str())];
    scene.pulled("CORACLE_REGISTRY_AUTH", &[], &env);
    let wrong = header.replace(RIGHT, WRONG);
    let file = scene.file("mine.json", &scene.config(RIGHT));
    let env = [env[0], ("CORACLE_REGISTRY_AUTH", wrong.as_str()), ("REGISTRY_AUTH_FILE", file.as_str())];
    scene.pulled(&file, &[], &env);
    let other = scene.file("other.json", &scene.config(RIGHT));
    scene.file("mine.json", &scene.config(WRONG));
    scene.pulled(&other, &["--registry-auth-file", &other], &env);
    // Where a file is named, the others are not asked: this one has nothing.
    scene.file(".docker/config.json", &scene.config(RIGHT));
    let nothing = scene.file("nothing.json", "{}");
    let ran = scene.pull(&["--registry-auth-file", &nothing], &[]);
    assert!(ran.code == Some(1) && ran.stderr.contains("refuses access"), "{}", ran.stderr);
    let ran = scene.pull(&["--registry-auth-file", "/nowhere"], &[]);
    let expected =
        "error: there is no file of credentials at /nowhere (--registry-auth-file, REGISTRY_AUTH_FILE)\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), expected));
}

#[test]
fn a_helper_on_the_host_is_asked_for_what_must_be_reached() {
    let scene = Scene::new();
    let log = scene.home.path().join("log").display().to_string();
    let answer = r#"{"ServerURL":"x","Username":"tester","Secret":"not-a-secret"}"#;
    let script =
        format!("#!/bin/sh\ncat >> {log}\nenv >> {log}\necho hidden-7491 >&2\nprintf '%s' '{answer}'\n");
    let helper = scene.file("bin/docker-credential-mine", &script);
    fs::set_permissions(&helper, Permissions::from_mode(0o755)).expect("make it a program");
    let address = scene.registry.address();
    scene.file(
        ".docker/config.json",
        &format!("{{\"credHelpers\":{{\"{address}\":\"mine\",\"other.example\":\"none\"}}}}"),
    );
    let bin = scene.home.path().join("bin").display().to_string();
    let path = format!("{bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    scene.pulled("helper mine", &[], &[("PATH", &path), ("OF_NOBODY", "else"), ("AWS_PROFILE", "mine")]);
    let said = fs::read_to_string(&log).expect("read the log");
    assert!(said.starts_with(&address), "{said}");
    assert!(
        said.contains("AWS_PROFILE=mine") && said.contains("HOME=") && !said.contains("OF_NOBODY"),
        "{said}"
    );
    // Not in PATH: the failure is the helper's, and names who asked for it.
    let ran = scene.pull(&[], &[]);
    let config = scene.home.path().join(".docker/config.json").display().to_string();
    let expected = format!(
        "error: could not get the credentials for {address}, for which {config} names a helper\n  cause: docker-credential-mine is in no folder of PATH; relative folders and those of the application do not count\n"
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected.as_str()));
    assert_eq!(scene.home.leftovers(), Vec::<String>::new());
}

#[test]
fn what_the_variable_said_is_in_no_process_s_environment() {
    let home = TestHome::new();
    let registry = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = registry.local_addr().expect("have an address");
    let header = format!("{{\"{address}\":\"Basic {RIGHT}\"}}");
    let mut command = home.command(&["pull", &format!("{address}/app")]);
    let mut pull = command.env("CORACLE_REGISTRY_AUTH", &header).env("ELSE", "kept").spawn().expect("start");
    // It asks, and waits for an answer that never comes.
    let asked = registry.accept();
    let shown = all_of(pull.id());
    pull.kill().and_then(|()| pull.wait()).expect("end the pull");
    asked.expect("be asked");
    assert!(shown.iter().any(|text| text.contains("ELSE=kept")), "the search is blind");
    assert!(shown.len() >= 3, "the search finds no children: {}", shown.len());
    for text in shown {
        assert!(!text.contains(RIGHT) && !text.contains("Basic"), "{text}");
    }
    let mut command = home.command(&["pull", &format!("{address}/app")]);
    let wrong = ran(command.env("CORACLE_REGISTRY_AUTH", "hidden-7").output().expect("start"));
    let expected = "error: could not use the credentials in CORACLE_REGISTRY_AUTH\n  cause: it is not a JSON object of registries with `Basic …`, `Bearer …` or `X-Identity …`\n";
    assert_eq!((wrong.code, wrong.stderr.as_str()), (Some(1), expected));
}

/// Environments and command lines of a process and all below it.
fn all_of(process: u32) -> Vec<String> {
    let read = |name: &str| fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    let texts = [read("environ"), read("cmdline")].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let children = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = children.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect();
    texts.into_iter().chain(children.into_iter().flat_map(all_of)).collect()
}

/// A run image in another namespace than the builder: read by the user's word, or that of a builder that the user trusts.
#[test]
fn a_run_image_of_others_is_read_with_credentials_by_the_user_s_word_or_a_trusted_builder_s() {
    let quiet = Buildpack::passing("fixture/quiet").process(&["cat", "hello"]);
    let mut site = Site::with_password(&[]);
    site.registry.push(&RunImage::new().image(), "bases/run", "latest");
    let run = site.registry.reference("bases/run:latest");
    site.registry.push(&Builder::new(&run).group(&[quiet]).image(), "team/builder", "latest");
    site.builder = site.registry.reference("team/builder:latest");
    for (image, publish) in
        [("app".to_owned(), &[][..]), (site.registry.reference("bases/app"), &["--publish"])]
    {
        let told = site.refused(1, &image, publish);
        assert!(told.contains(&format!("name it yourself: --run-image {run}\n")), "{told}");
        for word in [&["--run-image", &run][..], &["--trust-builder"]] {
            site.built(&image, &[word, publish, &["--pull-policy", "always"]].concat());
        }
    }
}
