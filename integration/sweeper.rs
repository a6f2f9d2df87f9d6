//! Deleting in the background: nobody waits for it, and nothing of it stays, however it ends.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use coracle_fixtures::Buildpack;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{TestHome, ran, within};
use crate::kill::{descendants, is_alive};
use crate::site::Site;

const FILES: usize = 6000;
/// As the build has it, and some for those of its folders that it makes without the application.
const AT_MOST: usize = 1000;

/// An application that each build copies, and deletes at its end.
const COPIED: [&str; 2] = ["--restore", "copy"];

fn site() -> Site {
    let site = Site::new(&[Buildpack::passing("fixture/worker").process(&["cat", "hello"])]);
    for number in 0..FILES {
        let folder = site.app().join(format!("src/{}", number % 20));
        fs::create_dir_all(&folder).expect("make a folder");
        fs::write(folder.join(number.to_string()), "").expect("write the application");
    }
    site
}

fn build(site: &Site) {
    let args = site.args("app", &COPIED);
    site.home.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The sweepers of a home, by the words that they were started with.
fn sweepers(home: &TestHome) -> Vec<Pid> {
    let root = home.data().canonicalize().expect("the home");
    let started = format!("coracle-sweeper\0{}\0", root.display());
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let of_home = entries.filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|words| words == started.as_bytes())
    });
    of_home.filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))).collect()
}

/// How many files and folders lie in the work folders.
fn entries(home: &TestHome) -> usize {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "find"])
        .arg(home.data().join("work"))
        .output()
        .expect("start unshare");
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
fn a_build_deletes_no_more_than_a_little_and_the_next_operation_sees_to_the_rest() {
    let site = site();
    site.home.ok(&["images"]);
    // As if a sweeper were at work.
    let lock = File::create(site.home.data().join("sweeper.lock")).expect("make a file");
    lock.lock().expect("lock it");
    build(&site);
    assert!(entries(&site.home) > FILES - AT_MOST, "{}", entries(&site.home));
    assert_eq!(sweepers(&site.home), []);
    drop(lock);
    site.home.ok(&["pull", &site.builder]);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
    within(Duration::from_secs(5), "the sweeper has ended", || sweepers(&site.home).is_empty());
}

#[test]
fn a_sweeper_that_is_killed_leaves_no_process_and_the_next_operation_starts_another() {
    let site = site();
    build(&site);
    let [sweeper] = sweepers(&site.home)[..] else { panic!("{:?}", sweepers(&site.home)) };
    let started = || descendants(sweeper.as_raw().unsigned_abs());
    within(Duration::from_secs(10), "it has started", || !started().is_empty());
    let processes = started();
    kill(sweeper, Signal::SIGKILL).expect("kill the sweeper");
    within(Duration::from_secs(5), "every process is gone", || {
        !processes.iter().any(is_alive) && sweepers(&site.home).is_empty()
    });
    assert_ne!(site.home.left(), Vec::<String>::new(), "it was too quick");
    site.home.ok(&["pull", &site.builder]);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
    within(Duration::from_secs(5), "the sweeper has ended", || sweepers(&site.home).is_empty());
}

#[test]
fn a_sweeper_has_nothing_of_the_operation_that_started_it() {
    let site = site();
    let args = site.args("app", &COPIED);
    let plain = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let inherited = site.home.path().join("inherited");
    let output = Command::new("sh")
        .args(["-c", "exec 9>\"$0\"; \"$@\""])
        .arg(&inherited)
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("SECRET_OF_CI", "x")
        .output();
    let ran = ran(output.expect("start sh"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let [sweeper] = sweepers(&site.home)[..] else { panic!("{:?}", sweepers(&site.home)) };
    let of = |name: &str| format!("/proc/{sweeper}/{name}");
    let field = |number: usize| {
        let stat = fs::read_to_string(of("stat")).expect("a process");
        let fields = stat.rsplit_once(") ").expect("a name").1.split_whitespace();
        fields.map(str::to_owned).nth(number - 3).expect("a field")
    };
    // proc_pid_stat(5): session and nice.
    within(Duration::from_secs(10), "its own session", || {
        field(6) == sweeper.to_string() && field(19) == "19"
    });
    kill(sweeper, Signal::SIGSTOP).expect("stop it");
    let environment = fs::read(of("environ")).expect("its environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let links = fs::read_dir(of("fd")).expect("its descriptors").flatten();
    let open: Vec<_> =
        links.filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?))).collect();
    kill(sweeper, Signal::SIGCONT).expect("let it go on");
    assert!(environment.starts_with("PATH=") && environment.matches('=').count() == 1, "{environment}");
    let lock = site.home.data().canonicalize().expect("the home").join("sweeper.lock");
    for (number, target) in [("0", lock.as_path()), ("1", "/dev/null".as_ref()), ("2", "/dev/null".as_ref())]
    {
        assert!(open.iter().any(|(name, to)| name == number && to == target), "{open:?}");
    }
    assert!(!open.iter().any(|(_, to)| *to == inherited), "{open:?}");
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}

#[test]
fn prune_waits_for_the_sweeper_and_deletes_all_itself() {
    let site = site();
    build(&site);
    let pruned = site.home.ok(&["prune"]);
    let waited = "waiting for what earlier operations left to be deleted in the background\n";
    assert!(["", waited].contains(&pruned.stderr.as_str()), "{}", pruned.stderr);
    assert_eq!(site.home.left(), Vec::<String>::new());
    assert_eq!(sweepers(&site.home), []);
}
