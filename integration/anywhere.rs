//! The same input gives the same image, whoever builds it, when and where.
//!
//! Between the two builds of each test vary: the folder and the file system (disk and tmpfs) of home, store and source; the order in
//! which the source was written, and its times, years apart; umask, time zone, locale and working folder; what is in the store and the
//! cache before (nothing, each time). The clock goes on between them, and `SOURCE_DATE_EPOCH` is unset. Of one kind are the kernel,
//! and the modes of the source, which are part of the input. The user and its range of subordinate ids vary too where two users
//! build, one after the other: `scripts/test` starts these.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use coracle_fixtures::Buildpack;
use coracle_fixtures::builder::base_layer;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::harness::{TestHome, coracle, ran};
use crate::phases::{Platform, order};
use crate::site::Site;

/// Where and how one build runs.
struct Place {
    /// Below which home and source are.
    folder: &'static str,
    umask: &'static str,
    env: &'static [(&'static str, &'static str)],
    /// The source's times, in seconds since 1970; each path's is a day later than the last.
    times: u64,
    backwards: bool,
}

const DISK: Place =
    Place { folder: "/var/tmp", umask: "022", env: &[], times: 951_782_400, backwards: false };

const MEMORY: Place = Place {
    folder: "/dev/shm",
    umask: "077",
    env: &[("TZ", "Pacific/Kiritimati"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "sv_SE.UTF-8")],
    times: 1_700_000_000,
    backwards: true,
};

/// Paths of the source, with the mode and what is in it; folders end with a slash, links have no mode.
const SOURCE: [(&str, u32, &str); 9] = [
    ("b/", 0o755, ""),
    ("B", 0o644, "upper"),
    ("a", 0o600, "lower"),
    ("b/run", 0o755, "#!/bin/sh\n"),
    ("b/ä", 0o644, "accent"),
    ("b/z", 0o664, "last"),
    (".hidden", 0o640, "hidden"),
    ("link", 0, "b/z"),
    ("closed/", 0o700, ""),
];

/// Writes into a layer and into the application what it can see of its surroundings. The sizes of folders are the file system's.
fn witness() -> Buildpack {
    Buildpack::passing("fixture/witness").build(
        r#"
mkdir -p "$1/seen/made" "$1/kept"
(umask; env | sort; id; hostname; date +%Z) >"$1/seen/around"
(find . ! -name . | sort | xargs stat -c '%n %a %u %g %Y %F') >"$1/seen/source"
cat "$1/seen/around" "$1/seen/source"
touch "$1/seen/made/file" "$1/kept/file" made-by-buildpack
ln -s target "$1/seen/link"
printf '[types]\nlaunch = true\n' >"$1/seen.toml"
printf '[types]\nlaunch = true\ncache = true\nbuild = true\n[metadata]\nz = 1\na = 2\nm = "x"\n' >"$1/kept.toml""#,
    )
}

impl Place {
    fn write_source(&self, app: &Path) {
        fs::create_dir(app).expect("make the source's folder");
        let mut paths = SOURCE.to_vec();
        if self.backwards {
            paths.reverse();
        }
        for (path, mode, content) in &paths {
            let path = app.join(path);
            fs::create_dir_all(path.parent().expect("is below")).expect("make a folder");
            match (path.to_string_lossy().ends_with('/'), *mode) {
                (true, _) => fs::create_dir_all(&path).expect("make a folder"),
                (false, 0) => symlink(content, &path).expect("make a link"),
                (false, _) => fs::write(&path, content).expect("write a file"),
            }
        }
        for (day, (path, mode, _)) in (0..).zip(paths.iter().filter(|(_, mode, _)| *mode != 0)) {
            let path = app.join(path);
            fs::set_permissions(&path, Permissions::from_mode(*mode)).expect("set a mode");
            let time = UNIX_EPOCH + Duration::from_secs(self.times + day * 86_400);
            File::open(&path).and_then(|file| file.set_modified(time)).expect("set a time");
        }
        fs::set_permissions(app, Permissions::from_mode(0o755)).expect("set a mode");
    }

    /// Makes a home with the source in it.
    fn home(&self) -> TestHome {
        let home = TestHome::below(Path::new(self.folder));
        self.write_source(&home.path().join("source"));
        home
    }

    /// Runs `coracle` in the source's folder, succeeds, and gives what was said.
    fn run(&self, home: &TestHome, args: &[&str]) -> String {
        let mut run = Command::new("bash");
        run.args(["-c", "umask $1; shift; exec \"$@\"", "bash", self.umask]).arg(coracle()).args(args);
        run.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        run.env("HOME", home.path()).envs(self.env.iter().copied());
        let source = home.path().join("source");
        let done = ran(run.current_dir(source).stdin(Stdio::null()).output().expect("start coracle"));
        assert_eq!(done.code, Some(0), "{args:?}\nstdout: {}\nstderr: {}", done.stdout, done.stderr);
        assert_eq!(home.leftovers(), Vec::<String>::new());
        done.stdout
    }

    /// Builds, and gives the image's digest and what was said.
    fn build(&self, home: &TestHome, image: &str, builder: &str, more: &[&str]) -> (String, String) {
        let fixed = ["build", image, "--path", ".", "--builder", builder];
        let said = self.run(home, &[&fixed, more].concat());
        let line = said.lines().last().unwrap_or_default();
        let (_, digest) = line.rsplit_once('@').unwrap_or_else(|| panic!("no digest: {said}"));
        (digest.to_owned(), said)
    }

    /// The same of images that were made here, and so have the same names wherever that is.
    fn build_of_own(&self) -> (String, String) {
        let home = self.home();
        let file = |name: &str| home.path().join(name);
        fs::write(file("root.tar"), base_layer().tar()).expect("write an archive");
        let import = ["import", "../root.tar", "base", "--user", "1001:1002", "--env", "CNB_USER_ID=1001"];
        self.run(
            &home,
            &[&import[..], &["--env", "CNB_GROUP_ID=1002", "--env", "PATH=/usr/bin:/bin"]].concat(),
        );
        let witness = witness();
        witness.write(&file("witness"));
        let images = "[build]\nimage = \"base\"\n[[run.images]]\nimage = \"base\"\n";
        let order =
            "[[buildpacks]]\nuri = \"witness\"\n[[order]]\n[[order.group]]\nid = \"fixture/witness\"\n";
        fs::write(file("builder.toml"), format!("{order}{images}")).expect("write builder.toml");
        self.run(&home, &["builder", "create", "made", "--config", "../builder.toml"]);
        self.build(&home, "app", "made", &["--offline"])
    }
}

#[test]
fn an_image_is_what_its_input_is() {
    let is_tmpfs = |path: &str| statfs(path).expect("ask for a file system").filesystem_type() == TMPFS_MAGIC;
    assert!(is_tmpfs(MEMORY.folder) && !is_tmpfs(DISK.folder), "two kinds of file system are needed");
    let site = Site::new(&[witness()]);
    let published = site.registry.reference("team/app");
    for (image, more) in [("app", &[][..]), (&published, &["--publish"][..])] {
        // A name for each, or the second would find the first where it is published.
        let named = |place: &Place, word: &str, more| {
            place.build(&place.home(), &format!("{image}-{word}"), &site.builder, more)
        };
        let (one, other) = (named(&DISK, "one", more), named(&MEMORY, "other", more));
        assert_eq!(one.0, other.0, "{}\n{}", one.1, other.1);
        // The input does count.
        let changed = named(&DISK, "changed", &[more, &["--env", "SEEN=1"]].concat());
        assert_ne!(one.0, changed.0, "{}", changed.1);
    }
}

/// The file in which the first of two users leaves what it was and what it built.
fn left() -> PathBuf {
    std::env::var_os("CORACLE_LEFT").expect("CORACLE_LEFT, the file for it, which scripts/test names").into()
}

/// The user's id, and where its range of subordinate ids begins.
fn user_and_range() -> (String, String) {
    let name = std::env::var("USER").expect("the name of the user");
    let ranges = fs::read_to_string("/etc/subuid").expect("read /etc/subuid");
    let range = ranges.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    let first = range.and_then(|range| range.split(':').next()).expect("a range of subordinate ids");
    (nix::unistd::geteuid().to_string(), first.to_owned())
}

#[test]
#[ignore = "the first of two users: scripts/test runs both when root runs it"]
fn one_user_leaves_a_digest() {
    let (user, range) = user_and_range();
    let (digest, said) = DISK.build_of_own();
    fs::write(left(), [user, range, digest, said].join("\n")).expect("leave the digest");
}

#[test]
#[ignore = "the second of two users: scripts/test runs both when root runs it"]
fn another_user_builds_the_same_image() {
    let (user, range) = user_and_range();
    let text = fs::read_to_string(left()).expect("read what the first user left");
    let [first_user, first_range, first_digest, first_said] =
        text.splitn(4, '\n').collect::<Vec<_>>().try_into().expect("a digest of the first user");
    assert!(user != first_user && range != first_range, "{user} {range}: one and the same user");
    let (digest, said) = MEMORY.build_of_own();
    assert_eq!(digest, first_digest, "{said}\n{first_said}");
}

/// A platform that is not ours, and starts phases as it happens to run itself.
#[test]
fn a_platform_s_umask_time_zone_and_language_are_not_in_the_image() {
    let registry = coracle_fixtures::DockerRegistry::open();
    registry.push(&coracle_fixtures::Image::new(Vec::new()), "run", "1");
    let [run, app] = ["run:1", "app:1"].map(|name| registry.reference(name));
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "exit 0");
    platform.buildpack(
        "one",
        "build",
        r#"(umask; locale 2>/dev/null | wc -c; touch made && stat -c '%a' made) >said
mkdir -p "$1/kept/folder" && touch "$1/kept/folder/file" && printf '[types]\nlaunch = true\n' >"$1/kept.toml""#,
    );
    let words = |phase: &[&str]| {
        let mut digests = Vec::new();
        for place in [&DISK, &MEMORY] {
            for folder in ["layers", "app"] {
                fs::remove_dir_all(platform.at(folder)).expect("remove a folder");
                fs::create_dir(platform.at(folder)).expect("make a folder");
                fs::set_permissions(platform.at(folder), Permissions::from_mode(0o755)).expect("set a mode");
            }
            for words in phase.iter().map(|line| line.split(' ').collect::<Vec<_>>()) {
                let command = platform.phase("lifecycle", &words);
                let mut run = Command::new("bash");
                run.args(["-c", "umask $1; shift; exec \"$@\"", "bash", place.umask]);
                run.arg(command.get_program()).args(command.get_args()).env_clear();
                run.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                run.envs(place.env.iter().copied());
                let done = ran(run.stdin(Stdio::null()).output().expect("start a phase"));
                assert_eq!(done.code, Some(0), "{words:?}: {}{}", done.stdout, done.stderr);
            }
            assert!(platform.read("app/said").starts_with("0022\n"), "{}", platform.read("app/said"));
            digests.push(coracle_images::Digest::of(registry.manifest("app:1")));
        }
        assert_eq!(digests[0], digests[1], "{phase:?}");
        digests.remove(0)
    };
    let by_creator = words(&[&format!("create -run-image {run} {app}")]);
    let [analyze, export] = [format!("analyze -run-image {run} {app}"), format!("export {app}")];
    assert_eq!(words(&[&analyze, "detect", "restore", "build", &export]), by_creator);
}
