//! Applications as they lie about on disks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use coracle_fixtures::Buildpack;

use crate::harness::ran;
use crate::site::Site;

/// Lists every file in the build, and again when the image runs; `^` is a line feed.
fn lister() -> Buildpack {
    let list = "find . -not -path './.git/*' -print0 | sort -z | tr '\\000\\n' '|^' | cat -v";
    let launch = format!(
        "[[processes]]\ntype = \"web\"\ndefault = true\ncommand = [\"sh\", \"-c\", \'\'\'{list}\'\'\']"
    );
    Buildpack::passing("fixture/lister")
        .build(&format!("{list}; echo"))
        .build(&format!("cat >\"$1/launch.toml\" <<'END'\n{launch}\nEND"))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
}

#[test]
fn a_checkout_with_links_read_only_files_and_odd_names_is_built_as_it_is() {
    let site = Site::new(&[lister()]);
    let app = site.app();
    let git = |args: &[&str]| {
        let status = Command::new("git").args(args).current_dir(&app).env("HOME", site.home.path()).status();
        assert!(status.expect("start git").success(), "{args:?}");
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", "all"]);
    for name in [&b"with space"[..], b"line\nfeed", b"not-\xff-utf8", b"-dash", b"\"quoted\"", b".hidden"] {
        fs::write(app.join(OsStr::from_bytes(name)), name).expect("write");
    }
    fs::create_dir(app.join("closed")).expect("make a folder");
    fs::write(app.join("closed/read-only"), "x").expect("write");
    mode(&app.join("closed/read-only"), 0o444);
    mode(&app.join("closed"), 0o555);
    for (target, link) in [("hello", "link"), ("/nowhere", "dangling"), ("..", "up"), ("link", "chain")] {
        symlink(target, app.join(link)).expect("link");
    }
    fs::hard_link(app.join("hello"), app.join("second-name")).expect("link");
    let socket = UnixListener::bind(app.join("socket")).expect("make a socket");
    let ran = site.built("app", &[]);
    drop(socket);
    assert!(
        ran.stderr.contains("1 sockets, FIFOs or devices of the source were left out\n"),
        "{}",
        ran.stderr
    );
    let built = site.home.ok(&["run", "app"]).stdout;
    let expected = "./\"quoted\"|./-dash|./.git|./.hidden|./chain|./closed|./closed/read-only|./dangling|./hello|./line^feed|./link|./not-M-^?-utf8|./second-name|./up|./with space|";
    assert!(built.ends_with(expected), "{built}");
    assert!(ran.stdout.contains(&format!("[builder] {built}\n")), "{}", ran.stdout);
    let script =
        "cat link; readlink dangling; readlink up; stat -c %a closed closed/read-only; ls -d .git/HEAD";
    let seen =
        site.home.ok(&["run", "--entrypoint", "/cnb/lifecycle/launcher", "app", "--", "sh", "-c", script]);
    assert_eq!(seen.stdout, "hello from the application\n/nowhere\n..\n555\n444\n.git/HEAD\n");
    mode(&app.join("closed"), 0o755);
}

#[test]
fn an_empty_application_and_one_at_an_odd_path_are_built() {
    let site = Site::new(&[lister()]);
    fs::remove_file(site.app().join("hello")).expect("delete the application's file");
    site.built("app", &[]);
    assert_eq!(site.home.ok(&["run", "app"]).stdout, ".|");
    // The current folder is the default; a link to the folder is as good.
    let odd = site.home.path().join(OsStr::from_bytes(b"odd \"name\" \xc3\xa9\n"));
    fs::create_dir(&odd).expect("make a folder");
    fs::write(odd.join("file"), "").expect("write");
    let link = site.home.path().join("link");
    symlink(&odd, &link).expect("link");
    for (folder, path) in [(odd.as_path(), OsString::from(".")), (Path::new("/"), link.clone().into())] {
        let mut command = site.home.command(&["build", "app", "--builder", &site.builder, "--path"]);
        let ran = ran(command.arg(path).current_dir(folder).output().expect("start coracle"));
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(site.home.ok(&["run", "app"]).stdout, ".|./file|");
    }
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    let site = Site::new(&[lister()]);
    let odd = site.home.path().join(OsStr::from_bytes(b"not-\xff-utf8"));
    fs::create_dir(&odd).expect("make a folder");
    let mut command = site.home.command(&["build", "app", "--builder", &site.builder, "--path"]);
    let ran = ran(command.arg(&odd).output().expect("start coracle"));
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let expected = "not-\u{fffd}-utf8 is not UTF-8, which runtimes need of what they mount; use a folder with another name\n";
    assert!(ran.stderr.ends_with(expected), "{}", ran.stderr);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}
