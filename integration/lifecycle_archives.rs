//! Phases with credentials of an untrusted builder of whose lifecycle there is no image: from its release archive.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_fixtures::Buildpack;

use crate::harness::{processes_with, ran, within};
use crate::lifecycles::{Packed, builder_with};
use crate::site::Site;

const VERSION: &str = "0.5.0";

fn file() -> String {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86-64" };
    format!("lifecycle-v{VERSION}+linux.{machine}.tgz")
}

/// A release archive in a folder, without its digest.
fn released(site: &Site, packed: &Packed) -> PathBuf {
    let toml = packed.path().join("lifecycle.toml");
    let text = fs::read_to_string(&toml).expect("read lifecycle.toml");
    let own = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&own), "{text}");
    fs::write(&toml, text.replace(&own, &format!("version = \"{VERSION}\""))).expect("write lifecycle.toml");
    let folder = site.home.path().join("archives");
    fs::create_dir(&folder).expect("make a folder");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(packed.path()).arg("-czf").arg(folder.join(file()));
    assert_eq!(ran(tar.args(["lifecycle.toml", "lifecycle"]).output().expect("start tar")).code, Some(0));
    folder
}

fn write_digest(folder: &Path) {
    let sum = Command::new("sha256sum").arg(file()).current_dir(folder).output().expect("start sha256sum");
    fs::write(folder.join(format!("{}.sha256", file())), sum.stdout).expect("write the digest");
}

/// Serves a folder's files whatever folder is asked for; counts requests.
fn serve(folder: PathBuf) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            counted.fetch_add(1, Ordering::SeqCst);
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            reader.read_line(&mut line).expect("a request");
            let name = line.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            let head = |status: &str, length: usize| {
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            };
            let _ = match fs::read(folder.join(name)) {
                Ok(bytes) => stream
                    .write_all(head("200 OK", bytes.len()).as_bytes())
                    .and_then(|()| stream.write_all(&bytes)),
                Err(_) => stream.write_all(head("404 Not Found", 0).as_bytes()),
            };
        }
    });
    (url, count)
}

/// Stalls, fails or builds, as the application says.
fn buildpack() -> Buildpack {
    Buildpack::passing("fixture/worker")
        .build("case \"$(cat todo)\" in stall) echo stalled; sleep 60;; fail) exit 9;; esac")
        .process(&["cat", "hello"])
}

#[test]
fn an_archive_is_verified_used_for_one_build_and_gone_after_it() {
    let site = Site::new(&[]);
    let packed = Packed::new();
    let run = site.registry.reference("run:latest");
    site.registry.push(&builder_with(&packed, VERSION, &run, buildpack()), "builder", "latest");
    let todo = |what: &str| fs::write(site.app().join("todo"), what).expect("write the application");
    todo("build");
    let own = ["--lifecycle", "builder"];
    let refused = |why: &str| {
        let said = site.refused(1, "app", &own);
        assert!(!said.contains("===>") && said.contains(why), "{said}\n{why}");
        assert!(
            said.contains(
                "trust the builder with --trust-builder, take --lifecycle native, or name an image"
            ),
            "{said}"
        );
    };
    let folder = released(&site, &packed);
    let path = folder.join(file()).display().to_string();
    let archives = |place: &str| site.home.ok(&["config", "lifecycle-archives", place]).stdout;
    assert_eq!(archives(&folder.display().to_string()), format!("{}\n", folder.display()));

    refused(&format!(
        "the archive {path} has no digest beside it (.sha256), and is not used without: No such file"
    ));
    let digest = folder.join(format!("{}.sha256", file()));
    fs::write(&digest, "none").expect("write a file");
    refused(&format!(
        "what lies beside the archive {path} (.sha256) is no digest, and it is not used without"
    ));
    fs::write(&digest, format!("{}  x\n", "0".repeat(64))).expect("write a file");
    refused(&format!("and the file beside it says sha256:{}; nothing of it is used", "0".repeat(64)));
    write_digest(&folder);
    let note = format!("the archive {path} (version {VERSION}) plays those with credentials\n");
    let built = site.built("app", &own);
    assert!(built.stderr.contains(&note), "{}", built.stderr);

    // After a failure nothing is left (`refused` looks), and after a kill nothing that the next build does not remove.
    todo("fail");
    site.refused(51, "app", &own);
    todo("stall");
    let args = site.args("app", &own);
    let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start coracle");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line == "[builder] stalled")));
    assert_eq!(site.home.leftovers().iter().filter(|name| !name.ends_with(".lock")).count(), 1);
    child.kill().and_then(|()| child.wait()).expect("kill coracle");
    within(Duration::from_secs(10), "everything ends", || {
        processes_with(&site.home.path().display().to_string()).is_empty()
    });
    let find = ["--user", "--map-root-user", "--map-auto", "find"];
    let mut unshare = Command::new("unshare");
    unshare.args(find).arg(site.home.data().join("work")).args([
        "-name",
        "*.tgz",
        "-o",
        "-name",
        "lifecycle.toml",
    ]);
    assert_eq!(ran(unshare.output().expect("start find")).stdout, "", "nothing of the lifecycle is on disk");
    todo("build");
    site.built("app", &own);

    let (url, requests) = serve(folder.clone());
    assert_eq!(archives(&url), format!("{url}\n"));
    let built = site.built("app", &own);
    let from = format!("{url}/v{VERSION}/{}", file());
    let note = format!("the archive {from} (version {VERSION}) plays those with credentials\n");
    assert!(built.stderr.contains(&note), "{}", built.stderr);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    let said = site.refused(1, "app", &["--lifecycle", "builder", "--offline"]);
    let expected = format!("{from} is not fetched: nothing is, with --offline or --pull-policy never");
    assert!(said.contains(&expected), "{said}");
    assert_eq!(requests.load(Ordering::SeqCst), 2, "nothing was asked for");
    fs::remove_file(folder.join(file())).expect("remove the archive");
    refused(&format!("cannot fetch {from}: the server answers 404 Not Found"));
    assert!(site.home.ok(&["config", "lifecycle-archives", "--unset"]).stdout.starts_with("https://"));
}

#[test]
fn where_no_digest_is_published_the_user_s_own_is_what_counts() {
    let site = Site::new(&[]);
    let packed = Packed::new();
    let run = site.registry.reference("run:latest");
    site.registry.push(&builder_with(&packed, VERSION, &run, buildpack()), "builder", "latest");
    fs::write(site.app().join("todo"), "build").expect("write the application");
    let own = ["--lifecycle", "builder"];
    let folder = released(&site, &packed);
    let archive = folder.join(file());
    let (url, requests) = serve(folder);
    let config = |words: &[&str]| site.home.ok(&[&["config", "lifecycle-archives"], words].concat()).stdout;
    config(&[&url]);
    let from = format!("{url}/v{VERSION}/{}", file());
    let said = site.refused(1, "app", &own);
    let expected = format!(
        "{from} has no digest beside it (.sha256), and is not used without: cannot fetch {from}.sha256: the server answers 404 Not Found; where you know it, say so with: coracle config lifecycle-archives --digest VERSION=sha256:HEX"
    );
    assert!(said.contains(&expected), "{said}");

    let bytes = fs::read(&archive).expect("read the archive");
    write_digest(archive.parent().expect("a folder"));
    let beside = archive.with_file_name(format!("{}.sha256", file()));
    let sum = fs::read_to_string(&beside).expect("read the digest");
    let digest = format!("sha256:{}", sum.split(' ').next().expect("a digest"));
    fs::remove_file(&beside).expect("remove the digest");
    let line = format!("{VERSION} {digest}");
    assert_eq!(config(&["--digest", &format!("{VERSION}={digest}")]), format!("{url}\n{line}\n"));
    let before = requests.load(Ordering::SeqCst);
    let built = site.built("app", &own);
    let note = format!("the archive {from} (version {VERSION}) plays those with credentials\n");
    assert!(built.stderr.contains(&note), "{}", built.stderr);
    assert_eq!(requests.load(Ordering::SeqCst), before + 1, "only the archive");

    // One other byte, of the time in the header, which no decompressor looks at; a digest that somebody published beside it does not help.
    let mut bytes = bytes;
    bytes[4] ^= 1;
    fs::write(&archive, bytes).expect("change the archive");
    write_digest(archive.parent().expect("a folder"));
    let said = site.refused(1, "app", &own);
    let expected =
        format!("and lifecycle-digests of your configuration says {digest}; nothing of it is used");
    assert!(said.contains(&expected) && !said.contains("===>"), "{said}");
    assert!(!config(&["--unset"]).contains(&digest));
    let typed = site.home.run(&["config", "lifecycle-archives", "--digest", VERSION]);
    assert_eq!(typed.code, Some(2));
    assert!(typed.stderr.contains("write VERSION=sha256:HEX"), "{}", typed.stderr);
    let typed = site.home.run(&["config", "lifecycle-archives", "http://mirror.example/lifecycles"]);
    assert_eq!(typed.code, Some(2));
    assert!(typed.stderr.contains("`http://mirror.example/lifecycles` is neither a URL"), "{}", typed.stderr);
}

#[test]
fn without_a_network_only_what_is_here_is_used() {
    let site = Site::new(&[buildpack()]);
    fs::write(site.app().join("todo"), "build").expect("write the application");
    let said = site.refused(1, "app", &["--offline"]);
    assert!(said.contains("builder:latest is not in the local store"), "{said}");
    site.built("app", &[]);
    site.built("app", &["--offline"]);
    let args = site.args("app", &["--offline", "--publish"]);
    let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}
