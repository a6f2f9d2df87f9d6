//! `coracle auth`: credentials come, go, and are listed. None is shown.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use coracle_fixtures::registry::{PASSWORD, USER};
use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RegistryAccess, RunImage};

use crate::harness::{Ran, TestHome, ran};
use crate::site::Site;

/// base64 of name and password.
const ENCODED: &str = "dGVzdGVyOm5vdC1hLXNlY3JldA==";

/// What was said, which never has the password.
fn said(output: std::process::Output) -> Ran {
    let ran = ran(output);
    for secret in [PASSWORD, ENCODED] {
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{}{}", ran.stdout, ran.stderr);
    }
    ran
}

fn typed(mut child: Child, password: &str) -> Ran {
    // Who refuses before it reads has closed the pipe.
    let _ = child.stdin.take().expect("a pipe").write_all(password.as_bytes());
    said(child.wait_with_output().expect("wait"))
}

/// `coracle auth` with these words and variables, and something on standard input.
fn auth(home: &TestHome, words: &[&str], env: &[(&str, &str)], input: &str) -> Ran {
    let mut command = home.command(&[&["auth"], words].concat());
    command.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    typed(command.spawn().expect("start coracle"), input)
}

fn login(home: &TestHome, registry: &str, env: &[(&str, &str)]) -> Ran {
    let words = ["login", registry, "--username", USER, "--password-stdin"];
    auth(home, &words, env, &format!("{PASSWORD}\n"))
}

/// Succeed; the answer is what was said on standard output.
fn done(ran: Ran) -> String {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    ran.stdout
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("look at a file").permissions().mode() & 0o777
}

fn file(path: PathBuf, text: &str, mode: u32) -> String {
    fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
    fs::write(&path, text).expect("write a file");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set a mode");
    path.display().to_string()
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).expect("read a file")
}

#[test]
fn who_has_logged_in_publishes_until_logged_out() {
    let buildpack = Buildpack::passing("fixture/any").process(&["cat", "hello"]);
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let builder = Builder::new(&registry.reference("run:latest")).group(&[buildpack]).image();
    let site = Site::of(registry, &RunImage::new().image(), &builder);
    let (home, address) = (&site.home, site.registry.address());
    let image = site.registry.reference("team/app:1");
    let denied = || site.refused(1, &image, &["--publish", "--pull-policy", "always"]);
    assert!(denied().contains("the registry refuses access; log in to it and try again"));

    let path = home.path().join(".config/containers/auth.json");
    let place = path.display().to_string();
    let expected = format!("logged in to {address} as tester; kept in {place}\n");
    assert_eq!(done(login(home, &address, &[])), expected);
    assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
    assert_eq!(
        text(&path),
        format!("{{\n\t\"auths\": {{\n\t\t\"{address}\": {{\"auth\":\"{ENCODED}\"}}\n\t}}\n}}\n")
    );
    assert_eq!(done(auth(home, &["list"], &[], "")), format!("{address}  tester  {place}\n"));
    let built = site.built(&image, &["--publish", "--pull-policy", "always", "--verbose"]);
    assert!(!format!("{}{}", built.stdout, built.stderr).contains(PASSWORD), "{}", built.stderr);
    assert!(built.stderr.contains(&format!("credentials for {address}: from {place}\n")), "{}", built.stderr);
    assert_eq!(home.files_with(PASSWORD.as_bytes()), Vec::<String>::new());

    let out = || done(auth(home, &["logout", &address], &[], ""));
    assert_eq!(out(), format!("logged out of {address}: taken out of {place}\n"));
    assert_eq!(out(), format!("there were no credentials for {address}\n"));
    assert_eq!(done(auth(home, &["list"], &[], "")), "");
    assert_eq!(done(auth(home, &["logout", "--all"], &[], "")), "there were no credentials\n");
    assert!(denied().contains("the registry refuses access; log in to it and try again"));
}

#[test]
fn the_file_is_named_or_that_which_knows_the_registry_or_podman_s() {
    let (home, registry) = (TestHome::new(), DockerRegistry::start(RegistryAccess::Password));
    let address = registry.address();
    let at = |name: &str| home.path().join(name);
    let run = at("run").display().to_string();
    let session = [("XDG_RUNTIME_DIR", run.as_str())];
    let place = at("run/containers/auth.json").display().to_string();
    assert!(done(login(&home, &address, &session)).ends_with(&format!("kept in {place}\n")));
    let mine = at("mine.json").display().to_string();
    let named = [session[0], ("REGISTRY_AUTH_FILE", mine.as_str())];
    assert!(done(login(&home, &address, &named)).ends_with(&format!("kept in {mine}\n")));
    assert_eq!(done(auth(&home, &["list"], &named, "")), format!("{address}  tester  {mine}\n"));
    let other = at("other.json").display().to_string();
    let words = ["login", &address, "-u", USER, "--password-stdin", "--registry-auth-file", &other];
    assert!(done(auth(&home, &words, &named, PASSWORD)).ends_with(&format!("kept in {other}\n")));

    // What is asked first decides, or the login would be of no use.
    let before = format!(
        "{{\"psFormat\": \"x\" ,\"auths\":{{\"{address}\":{{\"auth\":\"dGVzdGVyOndyb25n\"}},\"s.example\":{{\"auth\":\"eDp5\" }}}}}}"
    );
    let docker = file(at(".docker/config.json"), &before, 0o644);
    let ran = login(&home, &address, &session);
    assert_eq!(ran.stdout, format!("logged in to {address} as tester; kept in {docker}\n"));
    let closed =
        format!("others could read the credentials in {docker} (mode 644); it is closed now (mode 600)\n");
    assert_eq!((ran.code, ran.stderr), (Some(0), closed));
    let after = format!(
        "{{\n\t\"auths\": {{\n\t\t\"s.example\": {{\"auth\":\"eDp5\" }},\n\t\t\"{address}\": {{\"auth\":\"{ENCODED}\"}}\n\t}},\n\t\"psFormat\": \"x\"\n}}\n"
    );
    assert_eq!((text(&docker), mode(Path::new(&docker))), (after, 0o600));
    let listed = done(auth(&home, &["list"], &session, ""));
    let width = address.len();
    let expected = format!(
        "{address}  tester  {docker}\n{:width$}  x       {docker}\n{address}  tester  {place}\n",
        "s.example"
    );
    assert_eq!(listed, expected);

    // The variable goes before every file, and is nobody's to change.
    let header = format!("{{\"{address}\":\"Basic {ENCODED}\",\"t.example\":\"Bearer hidden-4711\"}}");
    let variable = [session[0], ("CORACLE_REGISTRY_AUTH", header.as_str())];
    let ran = login(&home, &address, &variable);
    let told = format!("credentials for {address} in CORACLE_REGISTRY_AUTH go before those to be kept\n");
    assert_eq!((ran.code, ran.stderr), (Some(0), told));
    let listed = done(auth(&home, &["list"], &variable, ""));
    assert!(listed.contains("(a token)  CORACLE_REGISTRY_AUTH\n") && !listed.contains("hidden"), "{listed}");
    let ran = auth(&home, &["logout", "--all"], &variable, "");
    let told = ["127.0.0.1", "t.example"].map(|start| {
        ran.stderr.contains(&format!("CORACLE_REGISTRY_AUTH still has credentials for {start}"))
    });
    assert_eq!((ran.code, told), (Some(0), [true; 2]), "{}", ran.stderr);
    let expected = format!(
        "logged out of {address}: taken out of {docker}\nlogged out of s.example: taken out of {docker}\nlogged out of {address}: taken out of {place}\n"
    );
    assert_eq!(ran.stdout, expected);
    assert_eq!(done(auth(&home, &["list"], &session, "")), "");
    assert_eq!(text(&docker), "{\n\t\"auths\": {},\n\t\"psFormat\": \"x\"\n}\n");
}

/// Keeps what it is given in a file, and notes its environment.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
env >>environment
case $1 in
store) [ ! -e locked ] || { echo hidden-1; echo hidden-2 >&2; exit 4; }; cat >kept ;;
get) cat >/dev/null; [ -e kept ] && cat kept || { echo credentials not found in native keychain; exit 1; } ;;
erase) cat >erased; rm -f kept ;;
list) [ -e kept ] && echo '{"'"$(cat registry)"'":"tester"}' || echo '{}' ;;
esac
"#;

#[test]
fn a_helper_that_the_file_names_keeps_them() {
    let (home, registry) = (TestHome::new(), DockerRegistry::start(RegistryAccess::Password));
    let address = registry.address();
    let at = |name: &str| home.path().join(name);
    file(at("bin/docker-credential-mine"), HELPER, 0o755);
    file(at("bin/registry"), &address, 0o600);
    let path = format!("{}:/usr/bin:/bin", at("bin").display());
    let env = [("PATH", path.as_str()), ("OF_NOBODY", "else")];
    registry.push(&RunImage::new().image(), "app", "latest");
    let pull = || {
        let name = registry.reference("app:latest");
        said(home.command(&["pull", &name, "-v"]).envs(env).output().expect("start coracle")).stderr
    };
    for names in [format!("\"credHelpers\":{{\"{address}\":\"mine\"}}"), "\"credsStore\":\"mine\"".to_owned()]
    {
        let plain = format!("\"auths\":{{\"{address}\":{{\"auth\":\"dGVzdGVyOndyb25n\"}}}}");
        let docker = file(at(".docker/config.json"), &format!("{{{names},{plain}}}"), 0o600);
        file(at("bin/locked"), "", 0o600);
        let before = text(&docker);
        let ran = login(&home, &address, &env);
        let expected = format!(
            "error: could not have the credentials for {address} kept by the helper that {docker} names\n  cause: docker-credential-mine did not store the password (exit status: 4); unlock what it keeps credentials in, or name another helper, or none, for the registry\n"
        );
        assert_eq!((ran.code, ran.stderr, text(&docker)), (Some(1), expected, before));
        fs::remove_file(at("bin/locked")).expect("unlock");

        let kept = format!("helper mine of {docker}");
        assert_eq!(
            done(login(&home, &address, &env)),
            format!("logged in to {address} as tester; kept in {kept}\n")
        );
        let stored =
            format!("{{\"ServerURL\":\"{address}\",\"Username\":\"tester\",\"Secret\":\"{PASSWORD}\"}}");
        assert_eq!(text(at("bin/kept")), stored);
        // Nothing secret is left where it was; what is left is a mark, as Docker leaves it.
        assert!(text(&docker).contains(&format!("\"{address}\": {{}}")), "{}", text(&docker));
        assert!(text(&docker).contains("mine"));
        let said = pull();
        assert!(said.starts_with(&format!("credentials for {address}: from helper mine\n")), "{said}");
        assert_eq!(done(auth(&home, &["list"], &env, "")), format!("{address}  tester  {kept}\n"));
        let out = done(auth(&home, &["logout", &address], &env, ""));
        assert_eq!(out, format!("logged out of {address}: forgotten by the {kept}\n"));
        assert_eq!((text(at("bin/erased")), at("bin/kept").exists()), (address.clone(), false));
        assert_eq!(done(auth(&home, &["list"], &env, "")), "");
        let environment = text(at("bin/environment"));
        assert!(environment.contains("HOME=") && !environment.contains("OF_NOBODY"), "{environment}");
    }
    // A helper that is gone is told, and hides nothing else.
    let ran = auth(&home, &["list"], &[], "");
    let docker = at(".docker/config.json").display().to_string();
    let expected = format!(
        "helper mine of {docker} says nothing: docker-credential-mine is in no folder of PATH; relative folders and those of the application do not count\n"
    );
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (Some(0), "", expected));
}

#[test]
fn what_is_wrong_is_told_and_nothing_is_written() {
    let (home, registry) = (TestHome::new(), DockerRegistry::start(RegistryAccess::Password));
    let address = registry.address();
    let words = |registry: &str, user: &str| {
        ["login", registry, "--username", user, "--password-stdin"].map(str::to_owned)
    };
    let failed = |registry: &str, user: &str, password: &str| {
        let words = words(registry, user);
        let ran = auth(&home, &words.each_ref().map(String::as_str), &[], password);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
        ran.stderr
    };
    let wrong = format!(
        "error: cannot log in to `{address}`: {address} refuses the name or the password (401 Unauthorized)\n"
    );
    assert_eq!(failed(&address, USER, "hidden-7"), wrong);
    assert_eq!(failed(&address, "nobody", PASSWORD), wrong);
    assert_eq!(failed(&address, USER, "\n"), "error: the password is empty; nothing was done\n");
    let long = "x".repeat(9000);
    assert_eq!(
        failed(&address, USER, &long),
        "error: the password has more than 8192 bytes, which none has; nothing was done\n"
    );
    assert_eq!(
        failed(&address, "a:b", PASSWORD),
        "error: the user name \"a:b\" cannot be shown to a registry: it is empty, or has a `:` or a control character\n"
    );
    let nobody = failed("127.0.0.1:1", USER, PASSWORD);
    assert!(
        nobody.starts_with(
            "error: cannot log in to `127.0.0.1:1`: 127.0.0.1:1 does not answer when asked for access"
        ),
        "{nobody}"
    );
    let binary = home.path().join("binary");
    fs::write(&binary, b"\xff\n").expect("write a file");
    let mut command = home.command(&["auth", "login", &address, "-u", USER, "--password-stdin"]);
    let ran = said(command.stdin(fs::File::open(&binary).expect("open it")).output().expect("start coracle"));
    let expected = "error: could not read the password from standard input\n  cause: stream did not contain valid UTF-8\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected));
    let ran = auth(&home, &["login", &address], &[], PASSWORD);
    let expected = "error: there is no terminal to ask for the password; pipe it in, with --username NAME --password-stdin\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected));
    let mut command = home.command(&["auth", "list"]);
    let ran = said(command.env_remove("HOME").output().expect("start coracle"));
    let expected = "error: there is no file to keep credentials in: neither XDG_RUNTIME_DIR, XDG_CONFIG_HOME nor HOME is set; name one with --registry-auth-file\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected));
    for name in ["registry", "r.example/team", "https://r.example", ""] {
        let ran = auth(&home, &["login", name, "-u", USER, "--password-stdin"], &[], PASSWORD);
        let expected =
            format!("`{name}` is no registry; write its host, such as r.example.org or localhost:5000");
        assert!(ran.code == Some(2) && ran.stderr.contains(&expected), "{}", ran.stderr);
    }
    assert!(!home.path().join(".config").exists(), "nothing was made");

    let open = DockerRegistry::open();
    let ran = login(&home, &open.address(), &[]);
    let told =
        format!("{} lets everybody in: whether name and password are right is not known\n", open.address());
    assert_eq!((ran.code, ran.stderr), (Some(0), told));
    let kept = home.path().join(".config/containers/auth.json");
    fs::write(&kept, "{\"auths\":{\"x\":{\"auth\":\"hidden-7\"}}}").expect("write a file");
    let ran = login(&home, &address, &[]);
    let expected = format!(
        "error: could not use the credentials in {}\n  cause: the credentials for `x` cannot be read: expected `auth` as base64 of `user:password`\n",
        kept.display()
    );
    assert_eq!((ran.code, ran.stderr), (Some(1), expected));
    assert_eq!(home.leftovers(), Vec::<String>::new());
}

#[test]
fn two_who_log_in_at_once_are_both_logged_in() {
    let (home, registry) = (TestHome::new(), DockerRegistry::start(RegistryAccess::Password));
    let address = registry.address();
    let names = [address.clone(), address.replace("127.0.0.1", "localhost")];
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| done(login(&home, name, &[])));
        }
    });
    let listed = done(auth(&home, &["list"], &[], ""));
    assert!(names.iter().all(|name| listed.contains(name)), "{listed}");
}

/// `coracle auth login` at a terminal of its own, which shows what is typed unless it is told not to.
#[test]
fn who_is_asked_types_a_password_that_is_not_shown() {
    let (home, registry) = (TestHome::new(), DockerRegistry::start(RegistryAccess::Password));
    let address = registry.address();
    let at_terminal = |answers: &[(&str, &str)]| -> (Option<i32>, String) {
        let program = crate::harness::coracle().display().to_string();
        let line = format!("{program} auth login {address}; echo code $?; stty -a | grep -o ' -*echo '");
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home.path()).env("SHELL", "/bin/sh");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start script (bsdutils)");
        let (mut keys, mut screen) =
            (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut shown = Vec::new();
        for (question, answer) in answers {
            while !String::from_utf8_lossy(&shown).contains(question) {
                let mut part = [0; 256];
                let length = screen.read(&mut part).expect("read the screen");
                assert!(length > 0, "no {question} in {}", String::from_utf8_lossy(&shown));
                shown.extend_from_slice(&part[..length]);
            }
            keys.write_all(answer.as_bytes()).expect("type");
        }
        screen.read_to_end(&mut shown).expect("read the screen");
        drop(keys);
        (child.wait().expect("wait").code(), String::from_utf8_lossy(&shown).into_owned())
    };
    let right = [("Username for", "nobody\u{15}testex\u{7f}r\r"), ("Password for", "not-a-x\u{8}secret\r")];
    let (_, shown) = at_terminal(&right);
    assert!(shown.contains(&format!("logged in to {address} as tester; kept in ")), "{shown}");
    assert!(shown.contains("testex") && !shown.contains("not-a"), "{shown}");
    assert!(shown.contains("code 0") && shown.contains(" echo "), "as it was before: {shown}");
    done(auth(&home, &["logout", &address], &[], ""));
    // Whoever interrupts is not logged in, and has a terminal that shows what is typed.
    let (_, shown) = at_terminal(&[("Username for", "tester\r"), ("Password for", "not-a-secret\u{3}")]);
    assert!(shown.contains("error: nobody was logged in: no line was typed to its end"), "{shown}");
    assert!(shown.contains("code 1") && shown.contains(" echo ") && !shown.contains("not-a"), "{shown}");
    assert_eq!(done(auth(&home, &["list"], &[], "")), "");
}
