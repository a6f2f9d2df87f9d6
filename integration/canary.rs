//! Values that nobody else has, in every place where a secret can be; after builds, whatever can be searched is searched for
//! them: files, layers without their compression, what was said, command lines and environments of processes while they ran, the
//! memory of those that survive, keys of the kernel.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_fixtures::Buildpack;
use coracle_fixtures::registry::PASSWORD;

use crate::harness::{processes_with, ran};
use crate::kill::{descendants, is_alive};
use crate::site::Site;

/// In the auth file, for another registry; in the environment; in the home's files; in a process beside; as a variable
/// for buildpacks; in a binding; in a secret; in what a helper says, and in what it says besides; as identity token; in the variable
/// of CI; in Docker's old file; in that of containers; in the address of a proxy.
const NAMES: [&str; 14] = [
    "canary-1f6a-auth-file",
    "canary-2b7c-environment",
    "canary-4d9e-docker-config",
    "canary-5e0f-beside",
    "canary-6f1a-variable",
    "canary-7a2b-binding",
    "canary-8b3c-secret",
    "canary-9c4d-helper",
    "canary-0d5e-helper-says",
    "canary-1a6f-identity",
    "canary-2b8a-variable-of-ci",
    "canary-3c9b-old-file",
    "canary-4d0c-containers",
    "canary-5e1d-proxy",
];

/// These of this run: another one beside it has others.
static CANARIES: LazyLock<[String; 14]> =
    LazyLock::new(|| NAMES.map(|name| format!("{name}-{}", std::process::id())));

/// What a buildpack puts into a layer and says: the search must find it.
const MARK: &str = "mark-3c8d-of-the-buildpack";

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32, at: u32| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
    let part = |bytes: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(bytes.get(at).copied().unwrap_or(0)));
        let length = u32::try_from(bytes.len()).expect("three at most") + 1;
        (0..length).map(|at| digit(bits, at)).collect::<String>()
    };
    text.as_bytes().chunks(3).map(part).collect()
}

/// As it is, in hexadecimal digits, backwards, and in base64 wherever in a longer text it stands.
fn forms(text: &str) -> [String; 6] {
    let inside = |before: usize| {
        let encoded = base64(&format!("{}{text}", "x".repeat(before)));
        let whole = encoded.len() - usize::from(!(before + text.len()).is_multiple_of(3));
        encoded[(before * 8).div_ceil(6)..whole].to_owned()
    };
    let hexadecimal = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    [text.to_owned(), hexadecimal, text.chars().rev().collect(), inside(0), inside(1), inside(2)]
}

/// All that must not be found, and the password that was used.
fn forbidden() -> Vec<String> {
    let pair = format!("tester:{PASSWORD}");
    CANARIES.iter().map(String::as_str).chain([PASSWORD, &pair]).flat_map(forms).collect()
}

/// Files below a folder that hold any of `wanted`, as they are or once they are inflated; as root of a namespace that has the
/// ids of guests.
pub(crate) fn files_with(folder: &Path, wanted: &[String]) -> Vec<String> {
    let patterns = tempfile::NamedTempFile::new().expect("make a file");
    fs::write(patterns.path(), wanted.join("\n")).expect("write what is looked for");
    let script = "find \"$1\" -type f | while IFS= read -r file; do if zcat -f -- \"$file\" 2>/dev/null | grep -qaF -f \"$2\"; then echo \"$file\"; fi; done";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "sh", "-c", script, "sh"])
        .args([folder, patterns.path()])
        .stdin(Stdio::null())
        .output()
        .expect("start unshare");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Command lines and environments of a process and all below it, but for the environment of whoever has the command line
/// `own`: the process itself, and what it starts until that is another program.
fn shown_by(process: u32, own: &[u8], all: &mut BTreeSet<String>) {
    let read = |name: &str| fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    let mut texts = vec![read("cmdline")];
    if texts[0] != own {
        texts.push(read("environ"));
    }
    all.extend(texts.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).for_each(|id| shown_by(id, own, all));
    }
}

/// Processes of this user whose memory, as far as it is written to, holds any of these texts: the user's, but neither this
/// one, which has them all, nor those that it looks with.
fn memory_with(wanted: &[String]) -> Vec<u32> {
    let patterns = tempfile::NamedTempFile::new().expect("make a file");
    fs::write(patterns.path(), wanted.join("\n")).expect("write what is looked for");
    let (own, user) = (std::process::id(), nix::unistd::getuid().as_raw());
    let processes = fs::read_dir("/proc").expect("read /proc").flatten();
    let processes = processes.filter(|entry| entry.metadata().is_ok_and(|about| about.uid() == user));
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id != own && holds(*id, patterns.path())).collect()
}

/// Whether the memory of a process holds any of the texts in a file. One that ends meanwhile holds nothing.
fn holds(process: u32, patterns: &Path) -> bool {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let Ok(memory) = File::open(format!("/proc/{process}/mem")) else { return false };
    let mut search = Command::new("grep");
    search.args(["-qaF", "-f"]).arg(patterns).stdin(Stdio::piped());
    let mut search = search.spawn().expect("start grep");
    let mut found = search.stdin.take().expect("a pipe");
    let address = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let mut page = vec![0; 1 << 16];
    'maps: for line in maps.lines() {
        let mut words = line.split(' ');
        let (range, access) = (words.next().expect("a range"), words.next().expect("an access"));
        let (mut at, end) =
            range.split_once('-').map(|(at, end)| (address(at), address(end))).expect("a range");
        while access.starts_with("rw") && at < end {
            let length = usize::try_from(end - at).expect("a length").min(page.len());
            // What was never touched, or belongs to a device, is not read.
            let Ok(length @ 1..) = memory.read_at(&mut page[..length], at) else { break };
            if found.write_all(&page[..length]).is_err() {
                // It has been found: who looks for it is gone.
                break 'maps;
            }
            at += length as u64;
        }
        let _ = found.write_all(b"\n");
    }
    drop(found);
    search.wait().expect("wait for grep").success()
}

/// Keys of the kernel (proc_keys(5)) that this user can see, but no keyrings: kinds and descriptions.
fn keys() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/keys").expect("read /proc/keys");
    let fields = text.lines().map(|line| line.split_whitespace().skip(7).collect::<Vec<_>>().join(" "));
    fields.filter(|kind| !kind.starts_with("keyring ")).collect()
}

/// What is there is found: in longer texts, and in a process with a variable and a key.
fn the_searches_are_not_blind() {
    const PLANTED: &str = "canary-ab12-planted";
    for (before, after) in [("", ""), ("u:", "!"), ("user:", "\n"), ("abcd", "ef")] {
        let encoded = base64(&format!("{before}{PLANTED}{after}"));
        assert!(forms(PLANTED).iter().any(|form| encoded.contains(form)), "{encoded}");
    }
    let number = if cfg!(target_arch = "aarch64") { 217 } else { 248 };
    // add_key(2), for the process's own keyring.
    let script = format!(
        "my ($kind, $name, $value) = ('user', '{PLANTED}-key', 'x'); syscall({number}, $kind, $name, $value, 1, -2) > 0 or die $!; $| = 1; print qq(ready\\n); <STDIN>"
    );
    let mut command = Command::new("perl");
    command.args(["-e", &script]).env("PLANTED", PLANTED).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut planted = command.spawn().expect("start perl");
    let mut ready = [0; 6];
    planted.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("perl adds a key");
    let found = (memory_with(&[PLANTED.to_owned()]), keys());
    planted.kill().and_then(|()| planted.wait()).expect("end it");
    assert_eq!(found.0, [planted.id()], "who has it in memory");
    assert!(found.1.iter().any(|key| key.contains(PLANTED)), "{:?}", found.1);
}

/// What the processes of a run showed while it ran, and which there were.
fn watched(child: Child) -> (std::process::Output, BTreeSet<String>, BTreeSet<(u32, String)>) {
    let (process, over) = (child.id(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut all, mut processes) = (BTreeSet::new(), BTreeSet::new());
            // Whoever starts a program goes on before the kernel has written its command line down.
            let own =
                std::iter::repeat_with(|| fs::read(format!("/proc/{process}/cmdline")).expect("read it"))
                    .find(|own| !own.is_empty())
                    .expect("there is one");
            while !over.load(Ordering::SeqCst) {
                shown_by(process, &own, &mut all);
                processes.extend(descendants(process));
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            (all, processes)
        });
        let output = child.wait_with_output().expect("wait for coracle");
        over.store(true, Ordering::SeqCst);
        let (shown, processes) = watch.join().expect("watch");
        (output, shown, processes)
    })
}

fn file(path: &Path, text: &str, mode: u32) -> String {
    fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
    fs::write(path, text).expect("write a file");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
    path.display().to_string()
}

#[test]
fn no_secret_is_anywhere_after_builds_that_used_them_all() {
    // What a program finds that was not meant for it: in folders for temporary files, of others and of the phases, and of processes.
    let look = "{ grep -rho 'canar[y]-[0-9a-z-]*' /tmp /var/tmp /layers /workspace /control /cnb 2>/dev/null; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -o 'canar[y]-[0-9a-z-]*' | grep -v 6f1a; } | head -n 5; echo LOOKED";
    let uses = "test -n \"$CANARY_FOR_BUILDPACKS\"; test -s /platform/bindings/db/password";
    let buildpack = Buildpack::passing("fixture/user")
        .detect(uses)
        .build(&format!("{uses}; test -s /run/secrets/token; {look}; echo {MARK}"))
        .layer("app", &["launch", "cache"], MARK);
    let site = Site::with_password(&[buildpack]);
    // Not below the home, which is searched.
    let kept = tempfile::tempdir().expect("make a folder");
    let [
        auth,
        environment,
        docker,
        beside,
        variable,
        binding,
        secret,
        helper,
        says,
        identity,
        of_ci,
        old,
        containers,
        proxy,
    ] = CANARIES.each_ref().map(String::as_str);
    let (registry, at) = (site.registry.address(), |name: &str| kept.path().join(name));
    let entry =
        |secret: &str| format!("\"other.example\":{{\"auth\":\"{}\"}}", base64(&format!("u:{secret}!")));
    let own = format!("\"{registry}\":{{\"auth\":\"{}==\"}}", base64(&format!("tester:{PASSWORD}")));
    let mine = file(&at("auth.json"), &format!("{{\"auths\":{{{own},{}}}}}", entry(auth)), 0o600);
    let token = format!("\"id.example\":{{\"auth\":\"\",\"identitytoken\":\"{identity}\"}}");
    let config =
        format!("{{\"credHelpers\":{{\"{registry}\":\"mine\"}},\"auths\":{{{},{token}}}}}", entry(docker));
    let in_ci = format!("{{\"ci.example\":\"Basic {}\"}}", base64(&format!("u:{of_ci}!")));
    file(&at("docker/config.json"), &config, 0o600);
    let old_file = site.home.path().join(".dockercfg");
    file(&old_file, &format!("{{{}}}", entry(old)), 0o600);
    file(&at("run/containers/auth.json"), &format!("{{\"auths\":{{{}}}}}", entry(containers)), 0o600);
    let proxy_at = format!("http://user:{proxy}@127.0.0.1:9");
    fs::remove_dir_all(site.home.path().join(".docker")).expect("the fixture's own is not used");
    let script = format!(
        "#!/bin/sh\necho {says} >&2\necho '{{\"Username\":\"tester\",\"Secret\":\"{PASSWORD}\",\"Note\":\"{helper}\"}}'\n"
    );
    file(&at("bin/docker-credential-mine"), &script, 0o755);
    file(&at("db/type"), "postgresql", 0o600);
    file(&at("db/password"), binding, 0o600);
    let secret = format!("id=token,src={}", file(&at("token"), secret, 0o600));
    let binding = format!("db={}", at("db").display());
    let path =
        format!("{}:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", at("bin").display());
    the_searches_are_not_blind();
    let (keys_before, by_proxy) = (keys(), forms(proxy));
    let mut sibling =
        Command::new("sleep").arg("1000").env("CANARY", beside).spawn().expect("start a process");

    let image = site.registry.reference("app:latest");
    let by_helper = ["--publish", "--verbose"].map(str::to_owned).to_vec();
    let by_file =
        ["--verbose", "--pull-policy", "always", "--registry-auth-file", &mine].map(str::to_owned).to_vec();
    for more in [by_helper, by_file] {
        let brought = ["--env", "CANARY_FOR_BUILDPACKS", "--binding", &binding, "--secret", &secret];
        let more: Vec<&str> = more.iter().map(String::as_str).chain(brought).collect();
        let args = site.args(&image, &more);
        let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("PATH", &path).env("CANARY", environment).env("DOCKER_CONFIG", at("docker"));
        command.env("CANARY_FOR_BUILDPACKS", variable).env("CORACLE_REGISTRY_AUTH", &in_ci);
        command.env("XDG_RUNTIME_DIR", at("run")).env("HTTP_PROXY", &proxy_at).env("https_proxy", &proxy_at);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start coracle");
        let (output, shown, processes) = watched(child);
        let ran = ran(output);
        assert_eq!(ran.code, Some(0), "{more:?}\n{}\n{}", ran.stdout, ran.stderr);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            said.contains("LOOKED") && said.contains(MARK) && said.contains("credentials for "),
            "the search is blind: {said}"
        );
        assert!(shown.iter().any(|text| text.contains("coracle-worker")), "no process was seen: {shown:?}");
        for wanted in forbidden() {
            assert!(!said.contains(&wanted), "{wanted} was said: {said}");
            // Processes of ours that speak to registries know the proxy as every program does, by a variable.
            let is_proxy = |text: &str| by_proxy.contains(&wanted) && text.contains("HTTP_PROXY=");
            let seen: Vec<&String> =
                shown.iter().filter(|text| text.contains(&wanted) && !is_proxy(text)).collect();
            assert!(seen.is_empty(), "{wanted} was shown by a process: {seen:?}");
        }
        assert!(processes.len() > 10 && !processes.iter().any(is_alive), "they survive: {processes:?}");
        assert_eq!(processes_with(&site.home.path().display().to_string()), Vec::<String>::new());
    }
    sibling.kill().and_then(|()| sibling.wait()).expect("end it");
    fs::remove_file(old_file).expect("it is the user's own");

    // Not the password: the registry that it is for, and others like it, were shown it.
    let canaries: Vec<String> = CANARIES.iter().flat_map(|canary| forms(canary)).collect();
    assert_eq!(memory_with(&canaries), Vec::<u32>::new(), "somebody has it in memory");
    let new: Vec<String> = keys().difference(&keys_before).cloned().collect();
    assert_eq!(new, Vec::<String>::new(), "keys were left");

    let (home, storage) = (site.home.path(), site.registry.storage());
    for (place, copies) in [(&home, 2), (&storage, 1)] {
        let marked = files_with(place, &forms(MARK));
        assert!(marked.len() >= copies, "the search is blind in {}: {marked:?}", place.display());
        assert_eq!(files_with(place, &forbidden()), Vec::<String>::new());
    }
}
