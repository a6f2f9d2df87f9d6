//! What users hand to buildpacks: variables, service bindings, secrets, volumes
//! (docs/decisions/0020-secrets-and-volumes-of-builds.md).

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_fixtures::Buildpack;

use crate::canary;
use crate::harness::{Ran, ran};
use crate::lifecycles::Packed;
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

fn folder(path: PathBuf, mode: u32, files: &[(&str, &str)]) -> String {
    fs::create_dir_all(&path).expect("make a folder");
    for (name, text) in files {
        fs::write(path.join(name), text).expect("write a file");
    }
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set a mode");
    path.display().to_string()
}

/// Says what it sees, in both programs.
fn looking() -> Buildpack {
    let look = r#"
echo "binding $(cd "$SERVICE_BINDING_ROOT/db" && ls | tr '\n' ' ')$(cat "$SERVICE_BINDING_ROOT/db/password")"
(echo x >/platform/bindings/db/password) 2>/dev/null && echo "binding written"
(echo x >/platform/bindings/db/more) 2>/dev/null && echo "binding grown"
echo "variables $FROM_FILE $FROM_BOTH $COPIED"
stat -f -c "binding on %T" /platform/bindings/db/password"#;
    Buildpack::passing("fixture/looking").detect(look).build(look)
}

#[test]
fn a_service_binding_is_what_buildpacks_expect_and_read_only() {
    let site = Site::new(&[looking()]);
    let home = site.home.path();
    let binding = folder(home.join("db"), 0o700, &[("type", "postgresql"), ("password", "hidden-4711")]);
    fs::set_permissions(home.join("db/password"), Permissions::from_mode(0o600)).expect("close it");
    let variables = folder(
        home.join("env"),
        0o700,
        &[("vars", "# a note\n\nFROM_FILE=file\nFROM_BOTH=file\nHOME_OF_NOBODY\n")],
    );
    let (binding, variables) = (format!("db={binding}"), format!("{variables}/vars"));
    for runtime in RUNTIMES {
        let more = ["--runtime", runtime, "--binding", &binding, "--env-file", &variables];
        let more = [&more[..], &["-e", "FROM_BOTH=typed", "-e", "COPIED=copied", "--verbose"]].concat();
        let ran = site.built("bound", &more);
        let said = said(&ran);
        for line in [
            "[builder] binding password type hidden-4711\n",
            "[builder] variables file typed copied\n",
            "[builder] binding on tmpfs\n",
            "  binding password type hidden-4711\n",
        ] {
            assert!(said.contains(line), "{runtime}: {line} in {said}");
        }
        assert!(!said.contains("binding written") && !said.contains("binding grown"), "{runtime}: {said}");
    }
    // On disk it is where the user has it, and nowhere else.
    assert_eq!(site.home.files_with(b"hidden-4711"), Vec::<String>::new());
    let broken = folder(home.join("broken"), 0o700, &[("vars", "GOOD=1\n=hidden-7\n")]);
    let said = site.refused(2, "bound", &["--env-file", &format!("{broken}/vars")]);
    let expected = format!(
        "error: line 2 of {broken}/vars (--env-file) names no variable; write NAME=VALUE or NAME, the name without `/`\n"
    );
    assert_eq!(said, expected);
    let said = site.refused(2, "bound", &["--env-file", "/nowhere"]);
    assert!(
        said.starts_with("error: could not read the variables in /nowhere (--env-file)\n  cause: No such"),
        "{said}"
    );
    let said = site.refused(1, "bound", &["--binding", "db=/nowhere"]);
    assert_eq!(
        said,
        "error: could not read /nowhere for --binding\n  cause: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_secret_is_seen_by_the_buildpacks_that_are_named() {
    let look = "echo \"secrets: $(cat /run/secrets/* 2>/dev/null)\"";
    let buildpack = |id: &str| Buildpack::passing(id).detect(look).build(look);
    let site = Site::new(&[buildpack("fixture/first"), buildpack("fixture/second")]);
    let token = folder(
        site.home.path().join("secrets"),
        0o700,
        &[("token", "hidden-4712\n"), ("all", "open-to-all\n")],
    );
    let (one, all) =
        (format!("id=token,src={token}/token,buildpack=fixture/second"), format!("id=all,src={token}/all"));
    let ran =
        site.built("secret", &["--verbose", "--build-layers", "strict", "--secret", &one, "--secret", &all]);
    let seen: Vec<&str> =
        ran.stdout.lines().filter(|line| line.contains("secrets:") || line.contains("hidden")).collect();
    let expected = [
        "[detector]   secrets: ",
        "[detector]   secrets: ",
        "[builder] secrets: open-to-all",
        "[builder] secrets: open-to-all",
        "[builder] hidden-4712",
    ];
    assert_eq!(seen, expected, "{}", ran.stdout);
    assert_eq!(site.home.files_with(b"hidden-4712"), Vec::<String>::new());
    let said = site.refused(1, "secret", &["--secret", &one]);
    let expected = "error: --secret token is for the buildpack fixture/second alone, but in one container every buildpack could read it; add --build-layers strict\n";
    assert_eq!(said, expected);
}

/// Says what it can do with the volumes.
const AT_VOLUMES: &str = r#"
echo "file: $(cat /volumes/ro/file)"
(echo x >/volumes/ro/new) 2>/dev/null && echo "ro was written"
(echo x >/volumes/rw/new) && echo "rw was written by $(id -u)"
grep -E ' /volumes/(ro|rw) ' /proc/self/mountinfo | while read -r line; do set -- $line; echo "mount $5 $6"; done"#;

#[test]
fn a_volume_is_read_only_unless_it_says_otherwise_and_brings_no_setuid() {
    let site = Site::new(&[Buildpack::passing("fixture/at-volumes").build(AT_VOLUMES)]);
    let home = site.home.path();
    fs::set_permissions(&home, Permissions::from_mode(0o700)).expect("close the home");
    let ro = folder(home.join("ro"), 0o777, &[("file", "of the host\n")]);
    let rw = folder(home.join("rw"), 0o777, &[]);
    let volumes = [format!("{ro}:/volumes/ro"), format!("{rw}:/volumes/rw:rw")];
    for runtime in RUNTIMES {
        let more = ["--runtime", runtime, "--volume", &volumes[0], "--volume", &volumes[1]];
        let said = said(&site.built("voluminous", &more));
        for line in ["[builder] file: of the host\n", "[builder] rw was written by 1001\n"] {
            assert!(said.contains(line), "{runtime}: {line} in {said}");
        }
        assert!(!said.contains("ro was written"), "{runtime}: {said}");
        let mount = |place: &str| {
            said.lines().find(|line| line.contains(&format!("mount /volumes/{place} "))).unwrap_or_default()
        };
        assert!(mount("ro").contains(" ro,nosuid,nodev"), "{runtime}: {said}");
        assert!(mount("rw").contains(" rw,nosuid,nodev"), "{runtime}: {said}");
        // Whose it is was said before.
        let new = Path::new(&rw).join("new");
        let owner = fs::metadata(&new).expect("look at it").uid();
        assert!(owner != nix::unistd::getuid().as_raw(), "a guest wrote with the user's own id");
        let expected =
            format!("buildpacks write to {rw} with the user id {owner}, a subordinate one of yours;");
        assert!(said.contains(&expected), "{runtime}: {expected} in {said}");
        fs::remove_file(&new).expect("delete what is in the user's own folder");
    }
    assert!(!Path::new(&ro).join("new").exists());
}

#[test]
fn a_source_is_never_written_nor_is_what_is_sensitive_shown() {
    let site = Site::new(&[
        Buildpack::passing("fixture/any").build("echo gone >/workspace/hello; rm -rf /workspace/*")
    ]);
    let before = fs::read(site.app().join("hello")).expect("read the application");
    site.built("any", &[]);
    let app = site.app().display().to_string();
    let said = site.refused(1, "any", &["--volume", &format!("{app}:/v:rw")]);
    let expected = format!(
        "error: --volume {app} would let buildpacks write to {app}, the application's folder; mount it without rw\n"
    );
    assert_eq!(said, expected);
    let said = site.refused(1, "any", &["--volume-force", "--volume", &format!("{app}:/v:rw")]);
    assert_eq!(said, expected);
    assert_eq!(fs::read(site.app().join("hello")).expect("read it again"), before);
    let home = site.home.path().display().to_string();
    let ssh = folder(site.home.path().join(".ssh"), 0o755, &[("id", "hidden")]);
    for (source, shown) in [(&home, format!("{home}/.ssh")), (&ssh, ssh.clone())] {
        let said = site.refused(1, "any", &["--volume", &format!("{source}:/v")]);
        let expected = format!(
            "error: --volume {source} would show {shown} to programs of buildpacks; name a folder inside it, or insist with --volume-force\n"
        );
        assert_eq!(said, expected);
    }
    site.built("any", &["--volume-force", "--volume", &format!("{ssh}:/v")]);
    // Without the variable, the user has a home all the same.
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).expect("read passwd");
    let own = user.expect("the user is in passwd").dir.canonicalize().expect("the user has a home");
    let own = own.display();
    let args = site.args("any", &["--volume", &format!("{own}:/v")]);
    let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.env_remove("HOME").env("XDG_DATA_HOME", site.home.path().join(".local/share"));
    let expected = format!(
        "error: --volume {own} would show {own}/.ssh to programs of buildpacks; name a folder inside it, or insist with --volume-force\n"
    );
    assert_eq!(ran(command.output().expect("start coracle")).stderr, expected);
    let said = site.refused(1, "any", &["--volume", "/usr/share:/layers/x"]);
    let expected = "error: --volume cannot be mounted on /layers/x: /layers is the build's own; choose another folder, such as /volumes/NAME\n";
    assert_eq!(said, expected);
}

/// Whoever plays the phases: what the user brings is seen by programs of buildpacks, and by nobody else.
#[test]
fn what_is_brought_is_for_programs_under_one_container_and_under_another_lifecycle() {
    const MARK: &str = "mark-51d0-of-the-buildpack";
    let brought = ["canary-61e1-variable", "canary-72f2-binding", "canary-8303-secret", "canary-9414-volume"];
    let [variable, binding, secret, volume] = brought;
    // The builder has its programs' text, and is searched too.
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let [seen_variable, seen_binding, _, seen_volume] = brought.map(backwards);
    let uses = format!(
        "test \"$(echo $VARIABLE | rev)\" = {seen_variable}; test \"$(rev /platform/bindings/db/password)\" = {seen_binding}; test \"$(rev /volumes/ro/file)\" = {seen_volume}"
    );
    let buildpack = Buildpack::passing("fixture/user")
        .detect(&format!("{uses}; test ! -e /run/secrets/token"))
        .build(&format!("{uses}; echo \"secret: $(cat /run/secrets/token 2>/dev/null | rev)\""))
        .layer("app", &["launch", "cache"], MARK);
    let site = Site::with_password(&[buildpack]);
    // Not below the home, which is searched.
    let kept = tempfile::tempdir().expect("make a folder");
    fs::set_permissions(kept.path(), Permissions::from_mode(0o755)).expect("let guests pass");
    let at = |name: &str| kept.path().join(name);
    let db = folder(at("db"), 0o700, &[("type", "x"), ("password", binding)]);
    let token = format!("id=token,src={}/token", folder(at("secrets"), 0o700, &[("token", secret)]));
    let (db, ro) =
        (format!("db={db}"), format!("{}:/volumes/ro", folder(at("ro"), 0o755, &[("file", volume)])));
    let packed = Packed::new();
    let path = packed.path().display().to_string();
    let with_secret = ["--secret", token.as_str()];
    let (one, theirs) = (["--trust-builder", "--restore", "copy"], ["--lifecycle", path.as_str()]);
    let flows: [(&[&str], &[&str], &str); 3] = [
        (&one, &[], "its phases share one container\n"),
        (&one, &with_secret, "but each phase has a container of its own: --secret is for the build alone"),
        (&theirs, &with_secret, "plays the phases, at Platform API"),
    ];
    let published = site.registry.reference("app:1");
    for (flow, secrets, line) in flows {
        for (image, more) in [("app", &[][..]), (&published, &["--publish"])] {
            let variable = format!("VARIABLE={variable}");
            let given = ["--binding", &db, "--volume", &ro, "--env", &variable, "--verbose", "--clear-cache"];
            let ran = site.built(image, &[flow, secrets, &given, more].concat());
            assert!(ran.stderr.contains(line), "{line} in {}", ran.stderr);
            let seen = if secrets.is_empty() { String::new() } else { backwards(secret) };
            assert!(ran.stdout.contains(&format!("] secret: {seen}\n")), "{}", ran.stdout);
            let said = said(&ran);
            assert!(brought.iter().all(|it| !said.contains(it)), "{said}");
        }
        let (home, storage) = (site.home.path(), site.registry.storage());
        for place in [&home, &storage] {
            let found = |texts: &[&str]| {
                canary::files_with(place, &texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
            };
            // In the builder, and in the application's layer.
            assert!(found(&[MARK]).len() > 1, "the search is blind in {}", place.display());
            assert_eq!(found(&brought), Vec::<String>::new(), "{line}");
        }
    }
    // A secret for one buildpack needs a container for each, which is our builder's alone.
    let named = format!("{token},buildpack=fixture/user");
    let refused = |more: &[&str]| site.refused(1, "app", &[&theirs, &["--secret", &named], more].concat());
    assert_eq!(
        refused(&[]),
        "error: --secret token is for the buildpack fixture/user alone, but in one container every buildpack could read it; add --build-layers strict\n"
    );
    let said = refused(&["--build-layers", "strict"]);
    assert!(said.ends_with("error: --build-layers is what Coracle's own builder does; add --native-phase builder, or take --lifecycle native\n"), "{said}");
    let given = [
        "--secret",
        &named,
        "--build-layers",
        "strict",
        "--native-phase",
        "builder",
        "--binding",
        &db,
        "--volume",
        &ro,
    ];
    let ran = site.built("app", &[&theirs[..], &given, &["--env", &format!("VARIABLE={variable}")]].concat());
    assert!(ran.stdout.contains(&format!("secret: {}\n", backwards(secret))), "{}", ran.stdout);
}

/// What holds secrets is not part of the application, wherever a user keeps it.
#[test]
fn secrets_that_lie_in_the_source_reach_neither_buildpacks_nor_the_image() {
    let look =
        "cd /workspace; echo \"sees $(find . -type f | sort | tr '\\n' ' ')\"; ! grep -r hidden- . || exit 9";
    let looking = Buildpack::passing("fixture/looking").detect(look).build(look);
    let site = Site::new(&[looking.process(&["find", "/workspace", "-type", "f"])]);
    let app = site.app();
    let auths = r#"{"auths":{"r.example":{"auth":"bmFtZTpoaWRkZW4tMQ==","note":"hidden-1"}}}"#;
    folder(app.join("ci"), 0o700, &[("auth.json", auths), ("kept", "")]);
    folder(app.join("bindings/db"), 0o700, &[("type", "postgresql"), ("password", "hidden-2")]);
    folder(app.join("deep/below"), 0o700, &[("token", "hidden-3"), (".env", "NAME=hidden-4\n")]);
    folder(app.join(".ssh"), 0o700, &[("id_ed25519", "hidden-5")]);
    let path = |name: &str| app.join(name).display().to_string();
    let (auth, binding) = (path("ci/auth.json"), format!("db={}", path("bindings/db")));
    let (secret, variables) = (format!("id=token,src={}", path("deep/below/token")), path("deep/below/.env"));
    let more = ["--registry-auth-file", &auth, "--binding", &binding, "--secret", &secret];
    let more = [&more[..], &["--env-file", &variables]].concat();
    let args = site.args("app", &more);
    for (home, ssh) in [(site.home.path(), " ./.ssh/id_ed25519"), (app.clone(), "")] {
        if ssh.is_empty() {
            fs::write(app.join(".ssh/id_ed25519"), "hidden-5").expect("write a file");
        } else {
            fs::write(app.join(".ssh/id_ed25519"), "of the application").expect("write a file");
        }
        let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let store = site.home.path().join(".local/share/coracle");
        command.env("HOME", home).env("CORACLE_HOME", store);
        let ran = ran(command.output().expect("start coracle"));
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        let sees = format!("[builder] sees{ssh} ./ci/kept ./hello \n");
        assert!(ran.stdout.contains(&sees), "{}", ran.stdout);
        let mut told = vec![
            "bindings/db is left out of the application: it holds the service binding db\n",
            "ci/auth.json is left out of the application: it holds credentials for registries\n",
            "deep/below/.env is left out of the application: it holds variables of --env-file\n",
            "deep/below/token is left out of the application: it holds the secret token\n",
        ];
        if ssh.is_empty() {
            told.push(".ssh is left out of the application: it holds what is its user's alone\n");
        }
        told.iter().for_each(|line| assert!(ran.stderr.contains(line), "{line} {}", ran.stderr));
        let image = site.home.ok(&["run", "app"]).stdout;
        assert_eq!(image.lines().count(), sees.split("./").count() - 1, "{image}");
    }
}
