//! What a user without subordinate ids is told. `scripts/test` runs this as such a user.

use std::process::Command;

use crate::harness::coracle;

#[test]
#[ignore = "needs a user without a range of subordinate ids: scripts/test has one when root runs it"]
fn a_user_without_subordinate_ids_is_told_what_to_add() {
    let user = std::env::var("USER").expect("the name of the user");
    let ranges = std::fs::read_to_string("/etc/subuid").expect("read /etc/subuid");
    let has_range = ranges.lines().any(|line| line.starts_with(&format!("{user}:")));
    assert!(!has_range && !nix::unistd::geteuid().is_root(), "run as a user without a range");
    let home = tempfile::tempdir().expect("make a home");
    let app = home.path().join("app");
    std::fs::create_dir(&app).expect("make the application's folder");
    let path = app.display().to_string();
    let program = coracle();
    for args in
        [&["pull", "127.0.0.1:1/x"][..], &["build", "app", "--path", &path, "--builder", "127.0.0.1:1/x"]]
    {
        let mut command = Command::new(&program);
        command.args(args).env_clear().env("HOME", home.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = command.output().expect("start coracle");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let said = "has no range of 65536 ids in /etc/subuid; an administrator adds one with: usermod --add-subuids ";
        assert!(text.contains(said) && text.trim_end().ends_with(&format!(" {user}")), "{text}");
        let start = text.split("--add-subuids ").nth(1).and_then(|rest| rest.split('-').next());
        let start: u64 = start.and_then(|start| start.parse().ok()).expect("a range");
        let taken = ranges.lines().filter_map(|line| {
            let mut numbers = line.split(':').skip(1).filter_map(|field| field.parse::<u64>().ok());
            Some(numbers.next()? + numbers.next()?)
        });
        assert!(taken.max().unwrap_or(0) <= start, "somebody has it already: {text}");
    }
}
