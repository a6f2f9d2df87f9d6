//! What isolation costs: processes, mounts and system calls of a build whose phases have a container each, beside one whose
//! phases share one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use coracle_fixtures::Buildpack;
use nix::sys::stat::Mode;

use crate::harness::ran;
use crate::site::Site;

/// The kernel runs no setuid program as root for a process that is traced, so while a build is traced programs that hand on
/// what they were asked stand for newuidmap and newgidmap, and this does it.
pub(crate) struct Traced<'a> {
    site: &'a Site,
    path: OsString,
}

impl<'a> Traced<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        let folder = site.home.path().join("traced");
        fs::create_dir(&folder).expect("make a folder");
        let [ask, answer] = ["ask", "answer"].map(|name| folder.join(name));
        for fifo in [&ask, &answer] {
            nix::unistd::mkfifo(fifo, Mode::S_IRWXU).expect("make a FIFO");
        }
        let folder = folder.display();
        for program in ["newuidmap", "newgidmap"] {
            let path = format!("{folder}/{program}");
            let text = format!(
                "#!/bin/sh\necho {program} \"$@\" >{folder}/ask\nread -r code <{folder}/answer\nexit \"$code\"\n"
            );
            fs::write(&path, text).expect("write a program");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("make it one");
        }
        let path = format!("{folder}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").into();
        std::thread::spawn(move || {
            // For both, so that reading does not end where one of them has written.
            let ask = OpenOptions::new().read(true).write(true).open(ask).expect("open a FIFO");
            for line in BufReader::new(ask).lines() {
                let line = line.expect("a line");
                let mut words = line.split(' ');
                let program = words.next().expect("a program");
                let status = Command::new(program).args(words).status().expect("start it");
                let mut answer = OpenOptions::new().write(true).open(&answer).expect("open a FIFO");
                writeln!(answer, "{}", status.code().unwrap_or(1)).expect("answer");
            }
        });
        Self { site, path }
    }

    /// How often each system call was made by all processes of a build; `process` and `thread` are what calls of clone(2) made.
    pub(crate) fn build(&self, more: &[&str]) -> (BTreeMap<String, usize>, String) {
        let args = self.site.args(&self.site.registry.reference("app"), more);
        let plain = self.site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let trace = self.site.home.path().join("trace");
        let output = Command::new("strace")
            .args(["--follow-forks", "--quiet=all", "--signal=none", "--string-limit=0", "--output"])
            .arg(&trace)
            .arg(plain.get_program())
            .args(plain.get_args())
            .env_clear()
            .env("HOME", self.site.home.path())
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .output();
        let ran = ran(output.expect("start strace (package strace)"));
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        let started = ran.stderr.lines().find_map(|line| line.strip_prefix("started: ")).expect("a summary");
        (counted(&fs::read_to_string(trace).expect("a trace")), started.to_owned())
    }
}

fn counted(trace: &str) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for line in trace.lines() {
        // `1234  openat(AT_FDCWD, ...`; the second line of a call that was interrupted has no parenthesis there.
        let Some((name, _)) = line.split_whitespace().nth(1).and_then(|word| word.split_once('(')) else {
            continue;
        };
        let name = match name {
            "clone" | "clone3" | "fork" | "vfork" if line.contains("CLONE_THREAD") => "thread",
            "clone" | "clone3" | "fork" | "vfork" => "process",
            _ => name,
        };
        *times.entry(name.to_owned()).or_default() += 1;
    }
    times
}

/// The numbers of `containers C, with mounts M; workers W`.
fn numbers(started: &str) -> [usize; 3] {
    let words = started.split([' ', ',', ';']).filter_map(|word| word.parse().ok());
    words.collect::<Vec<_>>().try_into().expect("three numbers")
}

#[test]
fn isolated_phases_cost_their_containers_and_nothing_else() {
    let site = Site::new(&[Buildpack::passing("fixture/worker").layer("kept", &["launch"], "kept")]);
    let traced = Traced::new(&site);
    let [one, five] = ["--trust-builder", "--trust-builder=false"].map(|trust| {
        let more = ["--publish", "--verbose", "--restore", "copy", trust];
        // The first fetches what others find.
        traced.build(&more);
        traced.build(&more)
    });
    let (of_one, of_five) = (numbers(&one.1), numbers(&five.1));
    assert_eq!((of_one[0], of_five[0]), (1, 6), "{} / {}", one.1, five.1);
    let [containers, mounts, workers] = [0, 1, 2].map(|index| of_five[index] - of_one[index]);
    let more = |names: &[&str]| -> usize {
        let sum = |calls: &BTreeMap<String, usize>| -> usize {
            names.iter().map(|name| calls.get(*name).copied().unwrap_or_default()).sum()
        };
        sum(&five.0) - sum(&one.0)
    };
    // A launcher, the runtime's process, the container's process 1, and the phase; the runtime's does not execute a program.
    assert_eq!(more(&["process"]), 4 * containers + workers);
    assert_eq!(more(&["execve"]), 3 * containers + workers);
    for (name, times) in
        [("seccomp", 1), ("landlock_restrict_self", 1), ("keyctl", 1), ("pivot_root", 1), ("sethostname", 1)]
    {
        assert_eq!(more(&[name]), times * containers, "{name}");
    }
    // The root folder, /proc, /dev and what is in it, masked files: 29 as measured; and a mount of ours is bound, closed to
    // devices and made read-only.
    let mounted = more(&["mount", "move_mount"]);
    assert!(mounted <= 29 * containers + 3 * mounts, "{mounted}");
    let names: Vec<&str> =
        five.0.keys().chain(one.0.keys()).map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
    // 2590 as measured.
    assert!(more(&names) <= 2750 * containers, "{}", more(&names));
}
