//! Trusted builders: who is in the list, and who says so.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::harness::{TestHome, coracle, ran};
use crate::site::Site;

fn list(home: &TestHome) -> String {
    home.ok(&["config", "trusted-builders", "list"]).stdout
}

#[test]
fn suggested_builders_are_listed_marked_removed_and_added_again() {
    let home = TestHome::new();
    let suggested = home.ok(&["builder", "suggest"]).stdout;
    let names: Vec<&str> = suggested.lines().filter_map(|line| line.split("  ").next()).collect();
    assert!(names.len() > 5 && suggested.contains("Heroku"), "{suggested}");
    let before = list(&home);
    assert_eq!(home.ok(&["config", "trusted-builders"]).stdout, before);
    assert_eq!(before.lines().count(), names.len());
    assert!(before.lines().all(|line| line.ends_with("  suggested")), "{before}");
    // The short name, as people type it.
    let removed = home.ok(&["config", "trusted-builders", "remove", "heroku/builder:24"]);
    assert_eq!(removed.stdout, "index.docker.io/heroku/builder:24 is not trusted\n");
    assert!(!list(&home).contains("heroku/builder:24"));
    let suggested = home.ok(&["builder", "suggest"]).stdout;
    let line =
        suggested.lines().find(|line| line.contains("heroku/builder:24")).expect("it is still suggested");
    assert!(line.ends_with("(not trusted)"), "{line}");
    home.ok(&["trust-builder", "docker.io/heroku/builder:24"]);
    assert_eq!(list(&home), before);
    assert!(!home.path().join(".local").exists(), "nothing of this takes a store");
}

#[test]
fn builders_are_added_and_removed_by_whole_names() {
    let home = TestHome::new();
    home.ok(&["config", "trusted-builders", "add", "r.example/team/builder"]);
    home.ok(&["trust-builder", "r.example/other:1"]);
    let own = |listed: String| -> Vec<String> {
        listed
            .lines()
            .filter(|line| line.ends_with("  added"))
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(own(list(&home)), ["r.example/team/builder", "r.example/other:1"]);
    let refused = |args: &[&str]| {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(1), "{args:?}");
        ran.stderr
    };
    assert_eq!(
        refused(&["untrust-builder", "r.example/other:2"]),
        "error: r.example/other:2 is not one of the trusted builders; see them with: coracle config trusted-builders list\n"
    );
    assert_eq!(
        refused(&["untrust-builder", "r.example/team/builder:1"]),
        "error: r.example/team/builder:1 cannot be removed by itself: r.example/team/builder is trusted, whatever its tag; remove that, and add the others by name\n"
    );
    home.ok(&["untrust-builder", "r.example/other"]);
    assert_eq!(own(list(&home)), ["r.example/team/builder"]);
    let file = home.path().join(".config/coracle/config.toml");
    let mode = fs::metadata(&file).expect("look at the file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    fs::write(&file, "[trusted-builders]\nadd = []\n").expect("write the file");
    let error = refused(&["config", "trusted-builders", "list"]);
    assert!(
        error.contains("config.toml, line 2: unknown field `add`, expected `added` or `removed`"),
        "{error}"
    );
}

#[test]
fn the_file_is_where_the_environment_says() {
    let home = TestHome::new();
    let add = |variable: &str, path: &str| {
        let mut command = home.command(&["trust-builder", "r.example/b"]);
        ran(command.env(variable, home.path().join(path)).output().expect("start coracle")).code
    };
    for (variable, path, file) in
        [("CORACLE_CONFIG", "own.toml", "own.toml"), ("XDG_CONFIG_HOME", "xdg", "xdg/coracle/config.toml")]
    {
        assert_eq!(add(variable, path), Some(0));
        assert!(home.path().join(file).is_file(), "{variable}");
    }
    let nowhere =
        ran(home.command(&["trust-builder", "b"]).env_remove("HOME").output().expect("start coracle"));
    assert_eq!(
        nowhere.stderr,
        "error: there is no file to keep this in: neither CORACLE_CONFIG, XDG_CONFIG_HOME nor HOME is set\n"
    );
}

#[test]
fn a_policy_marks_what_it_does_not_allow() {
    let home = TestHome::new();
    home.ok(&["trust-builder", "r.example/b"]);
    let policy = home.path().join("policy.toml");
    fs::write(&policy, "may-trust = ['r.example/b', 'heroku/builder']\n").expect("write the policy");
    fs::set_permissions(&policy, Permissions::from_mode(0o644)).expect("close the policy");
    let listed = |path: &std::path::Path| {
        let mut command = home.command(&["config", "trusted-builders", "list"]);
        ran(command.env("CORACLE_POLICY", path).output().expect("start coracle"))
    };
    let shown = listed(&policy).stdout;
    for line in shown.lines() {
        let allowed = line.starts_with("r.example/b ") || line.contains("/heroku/builder:");
        assert_eq!(line.contains("but not allowed by"), !allowed, "{line}");
    }
    let missing = listed(&home.path().join("none.toml"));
    assert_eq!(missing.code, Some(1), "{}", missing.stdout);
    assert!(missing.stderr.contains("could not open the policy"), "{}", missing.stderr);
}

/// What whoever runs the machine wrote into /etc, in a mount namespace in which that can be written.
#[test]
fn the_machine_s_policy_is_heard() {
    let site = Site::new(&[]);
    let heard = |policy: &str, words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg("mount -t tmpfs tmpfs /etc && mkdir /etc/coracle && printf '%s' \"$1\" >/etc/coracle/policy.toml && shift && exec \"$@\"");
        command.arg("sh").arg(policy).arg(coracle()).args(words);
        command.env_clear().env("HOME", site.home.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        ran(command.stdin(Stdio::null()).output().expect("start unshare"))
    };
    let list = ["config", "trusted-builders", "list"];
    let open = heard("may-trust = ['heroku/builder']\n", &list);
    assert_eq!(open.code, Some(0), "{}", open.stderr);
    let by = "but not allowed by /etc/coracle/policy.toml";
    let rows = |of: &str| {
        open.stdout.lines().filter(|line| line.contains(of)).map(|line| line.contains(by)).collect::<Vec<_>>()
    };
    assert!(!rows("heroku/builder").is_empty() && !rows("heroku/builder").contains(&true), "{}", open.stdout);
    assert!(
        !rows("paketobuildpacks").is_empty() && !rows("paketobuildpacks").contains(&false),
        "{}",
        open.stdout
    );
    let args = site.args("app", &["--trust-builder"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let closed = heard("may-trust = []\n", &args);
    assert_eq!(closed.code, Some(1), "{}", closed.stdout);
    let start = format!(
        "error: --trust-builder: the policy /etc/coracle/policy.toml does not let {} be trusted",
        site.builder
    );
    assert!(closed.stderr.starts_with(&start), "{}", closed.stderr);
    let broken = heard("may-trust = [", &list);
    assert!(
        broken.code == Some(1) && broken.stderr.contains("/etc/coracle/policy.toml, line 1: "),
        "{}",
        broken.stderr
    );
}
