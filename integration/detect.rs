//! The detector as other platforms call it: what it runs, what it decides, and what it says of that.

use crate::phases::{Platform, order, ran};

#[test]
fn programs_of_groups_that_are_not_reached_are_not_run() {
    let platform =
        Platform::new(&[order(&["fails", "first"]), order(&["second"]), order(&["third"])].concat());
    platform.buildpack("fails", "detect", "exit 100");
    for id in ["first", "second", "third"] {
        platform.buildpack(id, "detect", &format!("touch ran-{id}"));
    }
    let (code, _, stderr) = ran(&mut platform.phase("detector", &[]));
    assert_eq!(code, Some(0), "{stderr}");
    let did_run =
        ["first", "second", "third"].map(|id| platform.at("app").join(format!("ran-{id}")).exists());
    assert_eq!(did_run, [true, true, false]);
}

/// What people read when nothing was detected, at the oldest API with every part and at the newest.
#[test]
fn why_nothing_is_detected_is_said_with_the_exit_code_for_it() {
    const VERSION: &str =
        "printf '[[provides]]\\nname = \"x\"\\n[[requires]]\\nname = \"x\"\\nversion = \"1\"\\n' >$2";
    const TARGET: &str = "[[targets]]\nos = \"linux\"\n[[targets.distros]]\nname = \"plan9\"\n";
    for (api, script, toml, code, told, reason) in [
        ("0.10", "exit 100", "", 20, "\nfail: one@1\n", "no buildpack group passed detection"),
        ("0.15", "exit 100", "", 20, "\nfail: one@1\n", "no buildpack group passed detection"),
        ("0.10", "exit 7", "", 21, "\nerr:  one@1 (exit code 7)\n", "a buildpack failed with an error"),
        ("0.15", "exit 7", "", 21, "\nerr:  one@1 (exit code 7)\n", "a buildpack failed with an error"),
        ("0.15", "kill -9 $$", "", 21, "\nerr:  one@1 (exit code 137)\n", "a buildpack failed with an error"),
        (
            "0.15",
            VERSION,
            "",
            21,
            "`version`, which belongs into `metadata.version`)\n",
            "failed with an error",
        ),
        ("0.15", "echo 'x = ' >$2", "", 21, "\nerr:  one@1 (parse build plan: ", "failed with an error"),
        ("0.15", "", TARGET, 21, "\nerr:  one@1 (does not support the run image's target)\n", "failed"),
        ("0.15", "", "exec-env = [\"test\"]\n", 20, "\nthe group is empty\n", "no buildpack group passed"),
        (
            "0.10",
            "",
            "[[order]]\n[[order.group]]\nid = \"one\"\nversion = \"1\"\n",
            22,
            "",
            "resolve order: buildpack `one@1` contains itself",
        ),
        (
            "0.15",
            "",
            "[[order]]\n[[order.group]]\nid = \"gone\"\nversion = \"2\"\n",
            22,
            "",
            "resolve order: look up buildpack `gone@2`: there is no `",
        ),
    ] {
        let platform = Platform::new(&order(&["one"]));
        platform.buildpack("one", "detect", script);
        let text = format!("api = \"0.12\"\n[buildpack]\nid = \"one\"\nversion = \"1\"\n{toml}");
        platform.write("buildpacks/one/1/buildpack.toml", &text);
        let (ended, stdout, stderr) = ran(platform.phase("detector", &[]).env("CNB_PLATFORM_API", api));
        assert_eq!(ended, Some(code), "{api} {script} {toml}: {stdout}{stderr}");
        assert!(stdout.contains(told), "{told:?} in {stdout}");
        assert!(stderr.contains(reason), "{reason:?} in {stderr}");
    }
}

/// A process that a program leaves behind keeps what it inherited open.
#[test]
fn nobody_waits_for_what_a_program_leaves_running() {
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "echo SAID; sleep 1000 & echo $! >pid; exit 3");
    let (code, stdout, _) = ran(&mut platform.phase("detector", &[]));
    let pid: i32 = platform.read("app/pid").trim().parse().expect("is a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("the process is still there");
    assert!(code == Some(21) && stdout.contains("SAID"), "{stdout}");
}

#[test]
fn endless_output_is_not_kept() {
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "head -c 3000000 /dev/zero | tr '\\0' x; exit 3");
    let (code, stdout, _) = ran(&mut platform.phase("detector", &[]));
    assert!(code == Some(21) && stdout.len() < 100_000, "{} bytes", stdout.len());
}

/// Where a program may write, it may leave anything for the detector to find.
#[test]
fn a_plan_that_is_no_plain_file_is_an_error() {
    for (script, why) in [
        ("rm $2; mkfifo $2", "is not a regular file"),
        ("rm $2; ln -s /etc/passwd $2", "is a link, and none is followed there"),
        ("rm $2; ln -s /dev/zero $2", "is a link, and none is followed there"),
        ("truncate -s 1G $2", "is larger than"),
        ("printf '\\377' >$2", "invalid utf-8"),
    ] {
        let platform = Platform::new(&order(&["one"]));
        platform.buildpack("one", "detect", script);
        let (code, stdout, _) = ran(&mut platform.phase("detector", &[]));
        assert!(code == Some(21) && stdout.contains("plan.toml") && stdout.contains(why), "{why}: {stdout}");
    }
}
