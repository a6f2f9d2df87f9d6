//! What a guest may use and change: its network, its time, the size of its files, where it writes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use coracle_runtime::{Access, Bind, Bounds, Ender, Mount, Network, Outcome, Rootfs, Runtime};

use crate::{Run, TestResult, run, run_and_hold, same, spec};

pub(crate) fn other_abi(runtime: Runtime) -> TestResult {
    // getpid(2) under its number of x32.
    let run = run(spec(runtime, &["call:1073741863", "exit:0"]), Vec::new())?;
    same(run.outcome.clone(), Ok(Outcome::Killed(nix::libc::SIGSYS)), &run);
    Ok(())
}

pub(crate) fn no_network(runtime: Runtime) -> TestResult {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let of_the_host = format!("connect:{}", listener.local_addr()?);
    let acts =
        [of_the_host.as_str(), "connect:192.0.2.1:80", "listen", "cat:/proc/net/route", "cat:/proc/net/dev"];
    let mut alone = spec(runtime, &acts);
    alone.bounds.network = Network::None;
    let inside = run(alone, Vec::new())?;
    let facts = inside.facts();
    same(facts[of_the_host.as_str()], "ConnectionRefused", &inside);
    same(facts["connect:192.0.2.1:80"], "NetworkUnreachable", &inside);
    same(facts["listen"], "heard", &inside);
    same(facts["cat:/proc/net/route"].lines().count(), 1, &inside);
    // Two lines of headings, and loopback.
    let interfaces: Vec<&str> =
        facts["cat:/proc/net/dev"].split('|').filter(|line| line.contains(':')).collect();
    assert!(matches!(interfaces.as_slice(), [one] if one.trim_start().starts_with("lo:")), "{interfaces:?}");
    let shared = run(spec(runtime, &[&of_the_host]), Vec::new())?;
    same(shared.facts()[of_the_host.as_str()], "connected", &shared);
    Ok(())
}

fn bounded(
    runtime: Runtime,
    acts: &[&str],
    bounds: Bounds,
) -> Result<(Run, Duration), libtest_mimic::Failed> {
    let mut bounded = spec(runtime, acts);
    bounded.bounds = bounds;
    let start = Instant::now();
    Ok((run(bounded, Vec::new())?, start.elapsed()))
}

pub(crate) fn time_is_over(runtime: Runtime) -> TestResult {
    let bounds = || Bounds { seconds: Some(1), ..Bounds::default() };
    // The child holds the outputs as well, and would for a minute.
    let (run, took) = bounded(runtime, &["spawn", "sleep"], bounds())?;
    same(run.outcome.clone(), Ok(Outcome::TimedOut(1)), &run);
    assert!(took < Duration::from_secs(40), "{took:?}");
    let (run, _) = bounded(runtime, &["exit:3"], Bounds { seconds: Some(60), ..Bounds::default() })?;
    same(run.outcome.clone(), Ok(Outcome::Exited(3)), &run);
    Ok(())
}

pub(crate) fn deaf(runtime: Runtime) -> TestResult {
    for acts in [&["deaf", "sleep"], &["spawn", "stop"]] {
        let (run, took) = bounded(runtime, acts, Bounds { seconds: Some(1), ..Bounds::default() })?;
        same(run.outcome.clone(), Ok(Outcome::TimedOut(1)), &run);
        assert!(took < Duration::from_secs(40), "{took:?}");
    }
    Ok(())
}

pub(crate) fn ended_from_outside(runtime: Runtime) -> TestResult {
    let hold = |ender: Ender| ender.end(Outcome::Silent(7));
    for acts in [&["spawn", "sleep"], &["deaf", "sleep"]] {
        let mut spec = spec(runtime, acts);
        spec.bounds.seconds = Some(3000);
        // The grace of who does not heed it is shorter than its sleep.
        let start = Instant::now();
        let run = run_and_hold(spec, Vec::new(), hold)?;
        same(run.outcome.clone(), Ok(Outcome::Silent(7)), &run);
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    }
    let run = run_and_hold(spec(runtime, &["exit:3"]), Vec::new(), |_| ())?;
    same(run.outcome.clone(), Ok(Outcome::Exited(3)), &run);
    Ok(())
}

/// Landlock can grant links and renames since Linux 5.19; without that there is no domain.
fn has_landlock() -> bool {
    use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::Refer).is_ok()
}

pub(crate) fn writes(runtime: Runtime) -> TestResult {
    let folder = tempfile::tempdir()?;
    for name in ["lower/open", "lower/home", "scratch", "out"] {
        fs::create_dir_all(folder.path().join(name))?;
    }
    for name in [".", "lower", "lower/open", "lower/home", "out"] {
        let mode = if name == "." || name == "lower" { 0o755 } else { 0o777 };
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode))?;
    }
    let acts = [
        "write:/out/a",
        "rename:/out/b",
        "write:/home/new",
        "write:/open/new",
        "write:/dev/null",
        "write:/dev/shm/new",
        "write:/proc/self/comm",
        "cat:/proc/self/status",
    ];
    let mut bounds = spec(runtime, &acts);
    bounds.rootfs = Rootfs::Overlay { lower: vec!["/store/lower".into()], scratch: "/store/scratch".into() };
    bounds.mounts.push(Mount {
        source: "/store/out".into(),
        target: "/out".into(),
        access: Access::ReadWrite,
    });
    bounds.bounds.writes_below = Some(vec!["/home".into(), "/absent".into()]);
    let bind = Bind { source: folder.path().into(), target: "/store".into(), access: Access::ReadWrite };
    let run = run(bounds, vec![bind]);
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"])
        .args([folder.path().join("scratch"), folder.path().join("out")])
        .status()?;
    assert!(status.success());
    let run = run?;
    let facts = run.facts();
    for act in
        ["write:/out/a", "write:/home/new", "write:/dev/null", "write:/dev/shm/new", "write:/proc/self/comm"]
    {
        same(facts[act], "written", &run);
    }
    same(facts["rename:/out/b"], "renamed", &run);
    let expected = if has_landlock() { "PermissionDenied" } else { "written" };
    same(facts["write:/open/new"], expected, &run);
    Ok(())
}

pub(crate) fn large_file(runtime: Runtime) -> TestResult {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let mut sized = spec(runtime, &["limit:file-size", "size:1000", "size:1001"]);
    sized.mounts.push(Mount { source: "/out".into(), target: "/out".into(), access: Access::ReadWrite });
    sized.bounds.file_size = Some(1000);
    let bind = Bind { source: folder.path().into(), target: "/out".into(), access: Access::ReadWrite };
    let run = run(sized, vec![bind])?;
    same(run.facts()["limit:file-size"], "1000 1000", &run);
    same(run.facts()["size:1000"], "done", &run);
    same(run.outcome.clone(), Ok(Outcome::Killed(nix::libc::SIGXFSZ)), &run);
    let left = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"])
        .arg(folder.path().join("sized"))
        .status()?;
    assert!(left.success());
    Ok(())
}

pub(crate) fn working_folder(runtime: Runtime) -> TestResult {
    let mut inside = spec(runtime, &["ids"]);
    inside.cwd = "/proc/self/fd/7".into();
    let run = run(inside, Vec::new())?;
    let message = run.outcome.clone().expect_err("a refusal");
    let expected = "/proc/self/fd/7 cannot be the working folder of a container: it must be absolute, without `..`, and outside /proc, /dev, /sys";
    assert!(message.ends_with(expected), "{message}");
    Ok(())
}
