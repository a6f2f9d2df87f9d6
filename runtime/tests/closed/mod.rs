//! What else is closed to a guest: the host's sockets, devices, keys.

use std::fs::{self, File};
use std::io::Write;

use coracle_runtime::{Access, Bind, EphemeralFile, Input, Mount, Outcome, PROGRAM, Runtime, id_map_of_user};

use crate::{TestResult, run, same, spec};

pub(crate) fn read_only_mount(runtime: Runtime) -> TestResult {
    let folder = tempfile::tempdir()?;
    File::create(folder.path().join("file"))?.write_all(b"host")?;
    let bind = |target: &str, access| Bind { source: folder.path().into(), target: target.into(), access };
    let mut reading = spec(runtime, &["cat:/in/file", "write:/in/new", "write:/in/file", "list:/"]);
    reading.mounts.push(Mount { source: "/source".into(), target: "/in".into(), access: Access::ReadOnly });
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let run = run(reading, vec![bind("/source", Access::ReadWrite)])?;
    same(run.facts()["cat:/in/file"], "host", &run);
    assert_ne!(run.facts()["write:/in/new"], "written");
    assert_ne!(run.facts()["write:/in/file"], "written");
    same(run.facts()["list:/"], ".coracle,dev,in,probe,proc,sys", &run);
    Ok(())
}

pub(crate) fn ephemeral_file(runtime: Runtime) -> TestResult {
    let mut with_file = spec(runtime, &["cat:/auth", "write:/auth"]);
    with_file.files.push(EphemeralFile { target: "/auth".into(), content: b"s3cret".to_vec().into() });
    let run = run(with_file, Vec::new())?;
    same(run.facts()["cat:/auth"], "s3cret", &run);
    assert_ne!(run.facts()["write:/auth"], "written");
    let left = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!left.contains("/run/phase"), "{left}");
    Ok(())
}

pub(crate) fn input(runtime: Runtime) -> TestResult {
    let empty = run(spec(runtime, &["read"]), Vec::new())?;
    same(empty.facts()["read"], "", &empty);
    // Once read there is nothing more, and no other process of the container can open it.
    let mut told = spec(runtime, &["read", "read:again", "list:/proc/self/fd", "cat:/proc/1/fd/0"]);
    told.input = Some(Input { name: c"told".into(), content: b"s3cret".to_vec().into() });
    let run = run(told, Vec::new())?;
    same(run.facts()["read"], "s3cret", &run);
    same(run.facts()["read:again"], "", &run);
    same(run.facts()["list:/proc/self/fd"], "0,1,2,3", &run);
    same(run.facts()["cat:/proc/1/fd/0"], "PermissionDenied", &run);
    Ok(())
}

/// Landlock's scopes came with Linux 6.12.
fn has_landlock_scopes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

pub(crate) fn abstract_socket(runtime: Runtime) -> TestResult {
    use std::os::linux::net::SocketAddrExt as _;
    if !has_landlock_scopes() {
        return Ok(());
    }
    let name = format!("coracle-{}-{runtime:?}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    std::os::unix::net::UnixStream::connect_addr(&address)?;
    let act = format!("abstract:{name}");
    let run = run(spec(runtime, &[&act]), Vec::new())?;
    same(run.facts()[act.as_str()], "PermissionDenied", &run);
    Ok(())
}

pub(crate) fn bind_flags(runtime: Runtime) -> TestResult {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let bind = Bind { source: folder.path().into(), target: "/source".into(), access: Access::ReadWrite };
    let mut bound = spec(runtime, &["cat:/proc/self/mountinfo"]);
    for (target, access) in [("/ro", Access::ReadOnly), ("/rw", Access::ReadWrite)] {
        bound.mounts.push(Mount { source: "/source".into(), target: target.into(), access });
    }
    let run = run(bound, vec![bind])?;
    let mounts = run.facts()["cat:/proc/self/mountinfo"];
    for target in ["/ro", "/rw", "/probe"] {
        // mountinfo: id, parent, device, root, mount point, options.
        let mut lines = mounts.split('|').map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = lines.find(|fields| fields.get(4) == Some(&target)).ok_or("no such mount")?;
        let options: Vec<&str> = mount[5].split(',').collect();
        assert!(options.contains(&"nosuid") && options.contains(&"nodev"), "{target}: {options:?}");
    }
    Ok(())
}

pub(crate) fn nested_mount(runtime: Runtime) -> TestResult {
    let mut nested = spec(runtime, &["ids"]);
    nested.mounts.push(Mount {
        source: PROGRAM.into(),
        target: "/probe/below".into(),
        access: Access::ReadOnly,
    });
    let run = run(nested, Vec::new())?;
    let message = run.outcome.clone().expect_err("a refusal");
    assert!(message.contains("/probe/below cannot be a mount point of a container"), "{message}");
    Ok(())
}

pub(crate) fn linked_source(runtime: Runtime) -> TestResult {
    let folder = tempfile::tempdir()?;
    fs::create_dir_all(folder.path().join("real/inner"))?;
    std::os::unix::fs::symlink("real", folder.path().join("link"))?;
    for name in ["link", "link/inner"] {
        let source = folder.path().join(name);
        let bind = Bind { source: source.clone(), target: "/source".into(), access: Access::ReadOnly };
        let Err(error) = run(spec(runtime, &["ids"]), vec![bind]) else {
            return Err(format!("{name} was followed").into());
        };
        let expected = format!(
            "could not open {}: it is or lies below a symbolic link, which it did not when it was checked; see who else writes there, and try again",
            source.display()
        );
        let said = error.message().unwrap_or_default();
        assert!(said.contains(&expected), "{said}");
    }
    Ok(())
}

pub(crate) fn no_dumps(runtime: Runtime) -> TestResult {
    let run = run(spec(runtime, &["limit:core"]), Vec::new())?;
    same(run.facts()["limit:core"], "1 1", &run);
    Ok(())
}

/// The guest may ask for none of this; the host counts the keys of each id (/proc/key-users, keyrings(7)).
pub(crate) fn own_keyring(runtime: Runtime) -> TestResult {
    // An id for this test and runtime alone.
    let uid = 54_321 + runtime as u32;
    let uids = id_map_of_user()?.uids;
    let line = format!("{}:", uids.start + uid);
    let has_keys = || -> std::io::Result<bool> {
        Ok(fs::read_to_string("/proc/key-users")?.lines().any(|text| text.trim_start().starts_with(&line)))
    };
    if fs::read_to_string("/proc/key-users").is_err() {
        return Ok(());
    }
    let mut napping = spec(runtime, &["nap:2000"]);
    napping.uid = uid;
    let guest = std::thread::spawn(move || run(napping, Vec::new()).map(|run| run.outcome));
    let mut found = false;
    while !found && !guest.is_finished() {
        found = has_keys()?;
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let outcome = guest.join().map_err(|_| "the guest's thread failed")??;
    assert_eq!(outcome, Ok(Outcome::Exited(0)));
    assert!(found, "the guest's id {line} never had a key");
    Ok(())
}
