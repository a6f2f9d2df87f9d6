//! A builder that means harm, and its buildpacks: one for each attack, and `fixture/evil`, which tries everything that does
//! not end the build.

use std::fs;

use coracle_fixtures::{Builder, Buildpack, Entry, Image};

/// Tells of an attempt in the probe's form, on one line.
const SAY: &str = r#"say() { printf '{"id":"%s","tried":"%s","result":"%s"}\n' "$1" "$2" "$3"; }"#;

/// Where a helper for credentials tells that it was run: whoever runs it may have a place to write, or a log.
const HELPER: &str = "#!/bin/sh\necho HELPER-RAN >&2\ntouch /workspace/ran /layers/ran /out/ran /tmp/ran\necho '{\"Username\":\"HELPER-RAN\",\"Secret\":\"x\"}'\n";
/// What would have it run.
pub(super) const STORE: &str = "{\"credsStore\":\"evil\"}";

/// Everything that a program can try from inside, in detection and in the build; what it knows of the outside are
/// arguments of the probe.
pub(super) fn evil(given: &str) -> Buildpack {
    let probe = format!("/usr/bin/probe attacks {given}");
    let detect = [
        &probe,
        "(setsid sh -c 'trap \"\" HUP TERM INT; while :; do echo x >>survivor; sleep 0.05; done' >/dev/null 2>&1 &)",
        "mkdir -p ~/.docker; echo '{\"credsStore\":\"evil\"}' >~/.docker/config.json",
        "echo 'touch /workspace/ran' | tee ~/.bashrc ~/.profile /tmp/kept >/dev/null",
        // A socket that hands out descriptors works as long as this phase lasts.
        "(setsid /usr/bin/probe hand-out /workspace/left.sock >/dev/null 2>&1 &)",
        "mknod /open/node c 0 0 2>/dev/null && : >/open/made || :",
        "sleep 0.2; until [ -S left.sock ]; do sleep 0.1; done; [ \"$(/usr/bin/probe take left.sock)\" = taken ] || exit 1",
    ];
    let build = [
        SAY,
        &probe,
        "before=$(wc -c <survivor); sleep 0.3; after=$(wc -c <survivor)",
        "[ $before = $after ] && r='ended with its phase' || r='SUCCEEDED'; say A11 'a daemon of detection' \"$r\"",
        "[ -e ~/.bashrc ] || [ -e ~/.docker/config.json ] && r=SUCCEEDED || r='gone'; say A12 'files in the home folder' \"$r\"",
        "[ -e /tmp/kept ] && r=SUCCEEDED || r='gone'; say A12 'files in /tmp' \"$r\"",
        "[ -e /open/made ] && r=SUCCEEDED || r=refused; say A47 'a mark of an overlay in its own root folder' \"$r\"",
        "r=$(/opt/rooted -p -c 'echo $EUID'); [ \"$r\" = $(id -u) ] && r=\"runs as the build's user\" || r=SUCCEEDED",
        "say A51 \"root's program with the setuid bit\" \"$r\"",
        "[ \"$(readlink lead)\" = ../outside ] && ! cat lead 2>/dev/null && r='copied as it is, and leads nowhere' || r=SUCCEEDED",
        "say A39 'a link of the source that leads out of it' \"$r\"; rm lead; echo changed >project.toml; echo evil >hello",
        "r=$(/usr/bin/probe take left.sock); [ \"$r\" = taken ] && r=SUCCEEDED",
        "say A48 'descriptors through a socket that detection left' \"$r\"; rm -f left.sock",
        // What the application's project.toml and .dockerignore ask for.
        "[ -e hello ] && [ -e .dockerignore ] && [ ! -e outside ] && [ ! -e ../outside ] && r='neither is read: the source is copied' || r=SUCCEEDED",
        "say A40 'patterns of project.toml and .dockerignore that lead out of the source' \"$r\"",
        // For the exporter: another base, another group, a digest of its own, labels of the platform.
        "printf '[run-image]\\nreference = \"evil\"\\n[image]\\nreference = \"evil\"\\n' >\"$1/../analyzed.toml\"",
        "printf '[[group]]\\nid = \"../../etc\"\\nversion = \"1\"\\n' | tee \"$1/../group.toml\" >\"$1/../plan.toml\"",
        "printf '[image]\\ndigest = \"sha256:%064d\"\\n' 0 >\"$1/../report.toml\"; echo 'app@sha256:0000'",
        "printf '[[labels]]\\nkey = \"io.buildpacks.lifecycle.metadata\"\\nvalue = \"{}\"\\n' >\"$1/launch.toml\"",
        "printf '[[labels]]\\nkey = \"io.buildpacks.\\\\u001b[2J\"\\nvalue = \"x\"\\n' >>\"$1/launch.toml\"",
        "printf '[[processes]]\\ntype = \"web\"\\ncommand = [\"cat\", \"hello\"]\\ndefault = true\\n' >>\"$1/launch.toml\"",
        "mkdir \"$1/files\"; mkfifo \"$1/files/fifo\"; cp /bin/busybox \"$1/files/setuid\"; chmod 6755 \"$1/files/setuid\"",
        "ln -s / \"$1/files/link\"; printf '[types]\\nlaunch = true\\n' >\"$1/files.toml\"",
        // For who reads along.
        "printf '\\033]52;c;eA==\\007\\033[2J::add-mask::x\\n::add-path::/x\\n##[add-mask]x\\n##vso[task.setvariable]x\\n'",
        "printf 'section_start:1:a\\r\\033[0Kx\\nSuccessfully built\\rx\\n'; head -c 10000000 /dev/zero | tr '\\0' y; echo",
        "rm -f survivor",
    ];
    Buildpack::passing("fixture/evil").detect(&detect.join("\n")).build(&build.join("\n"))
}

/// Attacks that may end the build, each a buildpack of its own: number, what it tries, and its program.
pub(super) const ALONE: &[(&str, &str, &str)] = &[
    (
        "A21",
        "a layer's document that is a link to /proc/self/environ",
        "mkdir \"$1/x\"; ln -s /proc/self/environ \"$1/x.toml\"",
    ),
    (
        "A21",
        "a layer's document that is a link to /etc/passwd",
        "mkdir \"$1/x\"; ln -s /etc/passwd \"$1/x.toml\"",
    ),
    (
        "A22",
        "a layer's digest that is a link to /dev/zero",
        "mkdir \"$1/x\"; echo '[types]' >\"$1/x.toml\"; ln -s /dev/zero \"$1/x.sha\"",
    ),
    ("A23", "launch.toml that is a FIFO", "mkfifo \"$1/launch.toml\""),
    ("A23", "store.toml that is a FIFO", "mkfifo \"$1/store.toml\""),
    ("A23", "launch.toml without an end", "ln -s /dev/zero \"$1/launch.toml\""),
    (
        "A24",
        "a layer that is a link to /",
        "ln -s / \"$1/x\"; printf '[types]\\nlaunch = true\\n' >\"$1/x.toml\"",
    ),
    ("A25", "the folder of bills that is a link", "rm -rf \"$1/../sbom\"; ln -s /workspace \"$1/../sbom\""),
    (
        "A25",
        "the folder of metadata that is a link",
        "rm -rf \"$1/../config\"; ln -s /workspace \"$1/../config\"",
    ),
    ("A25", "its own folder that is a link", "rmdir \"$1\"; ln -s / \"$1\""),
    (
        "A28",
        "patterns of slices that lead out, or are work without end",
        "printf '[[slices]]\\npaths = [\"../../etc/*\", \"/**\", \"../..\", \"%s\"]\\n' $(printf '*a%.0s' $(seq 40)) >\"$1/launch.toml\"",
    ),
    (
        "A30",
        "a process type that leads elsewhere",
        "printf '[[processes]]\\ntype = \"../../etc/x\"\\ncommand = [\"x\"]\\n' >\"$1/launch.toml\"",
    ),
    ("A37", "an end as if memory had run out", "exit 137"),
    ("A37", "an end as if the platform had failed", "exit 255"),
    ("A37", "the end of the phase's own program", "kill -9 $PPID; sleep 5"),
    ("A37", "the end of everything it sees", "kill -9 -1; sleep 5"),
];

/// The same of detection.
pub(super) const DETECTING: &[(&str, &str, &str)] = &[
    ("A20", "a plan of 100 MB", "truncate -s 100M \"$2\""),
    ("A20", "a plan that is a FIFO", "rm \"$2\"; mkfifo \"$2\""),
    (
        "A20",
        "a plan nested 100,000 times",
        "{ printf 'a = '; head -c 100000 /dev/zero | tr '\\0' '['; } >\"$2\"",
    ),
    ("A20", "a plan that is no text", "printf 'a = \"\\377\"' >\"$2\""),
];

/// In place of a program of the lifecycle: it says so where everybody sees it.
const TROJAN: &str =
    "#!/bin/sh\necho TROJAN >&2\ntouch /workspace/trojan /layers/trojan /out/trojan\nexit 66\n";

/// Prints 40 MB as fast as it can.
const FLOOD: &str = "i=0; line=$(head -c 4000 /dev/zero | tr '\\0' y); while [ $i -lt 10000 ]; do echo $line; i=$((i + 1)); done";

/// The builder with all of them; it brings programs in place of the lifecycle's, and what dynamic linkers, name
/// resolution and credential helpers of a careless host would read.
pub(super) fn builder(run_image: &str, given: &str) -> Image {
    let mut buildpacks = vec![evil(given)];
    for (number, (_, _, shell)) in ALONE.iter().enumerate() {
        buildpacks.push(Buildpack::passing(&alone(number)).build(shell));
    }
    for (number, (_, _, shell)) in DETECTING.iter().enumerate() {
        buildpacks.push(Buildpack::passing(&detecting(number)).detect(shell));
    }
    buildpacks.push(Buildpack::passing("fixture/quiet").process(&["cat", "hello"]));
    buildpacks.push(Buildpack::passing("fixture/flood").build(FLOOD).process(&["cat", "hello"]));
    buildpacks.push(
        Buildpack::passing("fixture/proxy").build("echo \"proxy $HTTP_PROXY\"").process(&["cat", "hello"]),
    );
    let mut builder = Builder::new(run_image).group(&buildpacks).probe();
    for program in ["creator", "analyzer", "detector", "restorer", "builder", "exporter", "launcher"] {
        builder = builder.file(Entry::program(&format!("/cnb/lifecycle/{program}"), TROJAN));
    }
    builder
        .file(Entry::program("/usr/bin/docker-credential-evil", HELPER))
        .file(Entry::dir("/opt"))
        .file(Entry::program("/opt/rooted", fs::read("/bin/bash-static").expect("read bash")).mode(0o4755))
        .file(Entry::file("/etc/ld.so.preload", "/evil.so\n"))
        .file(Entry::file("/etc/nsswitch.conf", "hosts: evil\n"))
        .file(Entry::file("/etc/hosts", "192.0.2.1 localhost\n"))
        .file(Entry::file("/etc/resolv.conf", "nameserver 192.0.2.1\n"))
        .file(Entry::dir("/etc/ssl"))
        .file(Entry::file("/etc/ssl/cert.pem", "evil"))
        .file(Entry::dir("/open").mode(0o1777))
        .image()
}

/// The id of the buildpack of [`ALONE`] with this number.
pub(super) fn alone(number: usize) -> String {
    format!("fixture/alone{number}")
}

/// The id of the buildpack of [`DETECTING`] with this number.
pub(super) fn detecting(number: usize) -> String {
    format!("fixture/detecting{number}")
}

/// Variables with which a builder's image would have programs of others do its work.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("DOCKER_CONFIG", "/workspace"),
    ("REGISTRY_AUTH_FILE", "/workspace/auth.json"),
    ("CNB_REGISTRY_AUTH", "{\"evil\":\"Basic eA==\"}"),
    ("LD_PRELOAD", "/evil.so"),
    ("LD_LIBRARY_PATH", "/evil"),
    ("HTTP_PROXY", "http://127.0.0.1:1"),
    ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ("SSL_CERT_FILE", "/evil"),
    ("CNB_RUN_IMAGE", "evil"),
    ("CNB_ANALYZED_PATH", "/workspace/analyzed.toml"),
    ("CNB_GROUP_PATH", "/workspace/group.toml"),
];
