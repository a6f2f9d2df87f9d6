use std::ffi::OsStr;
use std::fs::{self, Permissions};

use coracle_runtime::with_causes;
use tempfile::TempDir;

use super::*;

/// What was told.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn event(&self, event: Event) {
        if let Event::Notice { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

/// A folder with helpers, which are scripts, and files of credentials.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A helper that notes how it was called, and then does as the script says.
    fn helper(self, name: &str, script: &str) -> Self {
        let (path, log) = (self.path(&format!("docker-credential-{name}")), self.path("log"));
        let text =
            format!("#!/bin/sh\nread -r server\necho \"{name} $1 $server\" >> {}\n{script}\n", log.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn keychain(&self, files: &[&str]) -> Keychain {
        let helpers = Helpers::new(self.0.path().as_os_str(), vec![("PATH".into(), "/usr/bin:/bin".into())]);
        let mut keychain = Keychain::new(helpers, true);
        for (number, text) in files.iter().enumerate() {
            let path = self.file(&format!("file{number}"), text);
            assert!(keychain.add_file(&path, AuthFormat::Config).unwrap());
        }
        keychain
    }

    /// How helpers were called, sorted.
    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let mut calls: Vec<String> = log.lines().map(str::to_owned).collect();
        calls.sort();
        calls
    }
}

fn answering(user: &str, secret: &str) -> String {
    format!(r#"echo '{{"ServerURL":"x","Username":"{user}","Secret":"{secret}"}}'"#)
}

/// What these images get, as `NAME USER PASSWORD` or `NAME TOKEN`; and what was told, with the folder cut out.
fn get(place: &Place, keychain: &Keychain, images: &[&str]) -> (Result<Vec<String>, String>, Vec<String>) {
    let heard = Heard::default();
    let keys = keychain.keys(&heard, None);
    let images: Vec<Reference> = images.iter().map(|name| name.parse().unwrap()).collect();
    let found = keys.of(&images.iter().collect::<Vec<_>>());
    let shown = |auth: AuthFile| {
        let names: Vec<String> = auth.names().map(str::to_owned).collect();
        let show = |name: &String| match auth.lookup(name) {
            Credentials::Basic { user, password } => format!("{name} {user} {}", password.as_str()),
            Credentials::Identity(token) | Credentials::Bearer(token) => format!("{name} {}", token.as_str()),
            Credentials::Anonymous => format!("{name} nobody"),
        };
        names.iter().map(show).collect()
    };
    let cut = |text: String| text.replace(&place.0.path().display().to_string(), "DIR");
    let told = std::mem::take(&mut *heard.0.lock().unwrap()).into_iter().map(cut).collect();
    (found.map(shown).map_err(|error| cut(with_causes(&error))), told)
}

const ONE: &str = r#"{"auths":{"r.example":{"auth":"b25lOjE="},"n.example/team":{"auth":"dGVhbTox"}}}"#;
const TWO: &str = r#"{"auths":{"r.example":{"auth":"dHdvOjI="},"s.example":{"auth":"dHdvOjI="}}}"#;

#[test]
fn the_first_source_that_has_any_counts_for_each_image() {
    let place = Place::new();
    let keychain = place.keychain(&[ONE, TWO]);
    let images = ["r.example/a", "s.example/b", "n.example/team/c", "n.example/other", "t.example/d"];
    let (found, told) = get(&place, &keychain, &images);
    assert_eq!(found.unwrap(), ["n.example/team/c team 1", "r.example one 1", "s.example two 2"]);
    let expected = [
        "credentials for r.example: from DIR/file0",
        "credentials for s.example: from DIR/file1",
        "credentials for n.example: from DIR/file0",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_file_that_others_may_read_is_told_where_it_is_used() {
    let place = Place::new();
    let mut keychain = Keychain::default();
    for (name, text) in [("open", ONE), ("unused", TWO)] {
        let path = place.file(name, text);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        keychain.add_file(&path, AuthFormat::Config).unwrap();
    }
    let (_, told) = get(&place, &keychain, &["r.example/a", "r.example/b"]);
    assert_eq!(told, ["others may read the credentials in DIR/open; close it: chmod 600 DIR/open"]);
}

#[test]
fn what_is_for_a_registry_can_be_narrowed_to_its_repositories() {
    let place = Place::new();
    let keychain =
        place.keychain(&[r#"{"auths":{"r.example":{"auth":"YTpi"},"docker.io":{"auth":"YTpi"}}}"#]);
    let images: [Reference; 3] =
        ["r.example/team/app:1", "app", "none.example/x"].map(|name| name.parse().unwrap());
    let heard = Heard::default();
    let narrow = keychain.keys(&heard, None).of_repositories(&images.each_ref()).unwrap();
    assert_eq!(narrow.names().collect::<Vec<_>>(), ["index.docker.io/library/app", "r.example/team/app"]);
    let read_again = AuthFile::parse(narrow.to_config().as_bytes()).unwrap();
    assert!(read_again == narrow && read_again.entry("r.example/team/private").is_none());
}

#[test]
fn a_helper_for_a_registry_goes_before_the_file_and_the_file_before_the_helper_for_all() {
    let place = Place::new()
        .helper("own", &answering("helped", "h"))
        .helper("token", &answering("<token>", "t"))
        .helper("none", "echo credentials not found in native keychain; exit 1")
        .helper("empty", &answering("", ""))
        .helper("all", &answering("all", "a"));
    let keychain = place.keychain(&[
        r#"{"auths":{"a.example":{"auth":"b25lOjE="},"b.example":{"auth":"b25lOjE="},"d.example":{}},
            "credHelpers":{"a.example":"own","c.example":"token","e.example":"none"},"credsStore":"none"}"#,
        r#"{"credsStore":"empty"}"#,
        r#"{"credsStore":"all"}"#,
    ]);
    let images =
        ["a.example/x", "b.example/x", "c.example/x", "d.example/x", "e.example/x", "docker.io/library/x"];
    let (found, told) = get(&place, &keychain, &images);
    let expected = [
        "a.example helped h",
        "b.example one 1",
        "c.example t",
        "d.example all a",
        "e.example all a",
        "index.docker.io all a",
    ];
    assert_eq!(found.unwrap(), expected);
    assert!(told.contains(&"credentials for c.example: from helper token".to_owned()), "{told:?}");
    // Each once, the registry called as Docker calls it, and for no registry that need not be reached.
    let mut expected = vec!["own get a.example", "token get c.example"];
    let of_all = ["d.example", "e.example", "https://index.docker.io/v1/"];
    let all: Vec<String> = ["all", "empty", "none"]
        .iter()
        .flat_map(|helper| of_all.map(|registry| format!("{helper} get {registry}")))
        .collect();
    expected.extend(all.iter().map(String::as_str));
    expected.sort_unstable();
    assert_eq!(place.calls(), expected);
}

#[test]
fn no_helper_is_asked_twice_nor_without_need() {
    let place = Place::new().helper("all", &answering("all", "a"));
    let keychain = place.keychain(&[r#"{"auths":{"r.example":{"auth":"b25lOjE="}},"credsStore":"all"}"#]);
    let heard = Heard::default();
    let keys = keychain.keys(&heard, None);
    for name in ["r.example/a", "s.example/a", "s.example/b", "s.example/a:2"] {
        keys.of(&[&name.parse().unwrap()]).unwrap();
    }
    assert_eq!(place.calls(), ["all get s.example"]);
}

#[test]
fn helpers_are_asked_at_once() {
    // Each waits for the other: one after the other, neither would answer.
    let place = Place::new();
    let meet = |own: &str, other: &str| {
        let (own, other) = (place.path(own), place.path(other));
        let wait = format!("touch {}; until [ -e {} ]; do sleep 0.05; done", own.display(), other.display());
        format!("{wait}\n{}", answering("u", "p"))
    };
    let (first, second) = (meet("1", "2"), meet("2", "1"));
    let place = place.helper("first", &first).helper("second", &second);
    let keychain = place.keychain(&[r#"{"credHelpers":{"a.example":"first","b.example":"second"}}"#]);
    let (found, _) = get(&place, &keychain, &["a.example/x", "b.example/x"]);
    assert_eq!(found.unwrap(), ["a.example u p", "b.example u p"]);
}

#[test]
fn what_a_failing_helper_said_is_not_repeated() {
    for (script, cause) in [
        (
            "echo hidden-7; echo hidden-8 >&2; exit 3",
            "docker-credential-x failed (exit status: 3); to see why: echo r.example | docker-credential-x get",
        ),
        ("echo hidden-7", "docker-credential-x answered without a Username and a Secret in JSON"),
        (
            r#"echo '{"Username":"u","Secret":7,"hidden-7":1}'"#,
            "docker-credential-x answered without a Username and a Secret in JSON",
        ),
    ] {
        let place = Place::new().helper("x", script);
        let named = place.keychain(&[r#"{"credHelpers":{"r.example":"x"}}"#]);
        let (found, told) = get(&place, &named, &["r.example/a"]);
        let expected = format!(
            "could not get the credentials for r.example, for which DIR/file0 names a helper: {cause}"
        );
        assert_eq!((found, told), (Err(expected), vec![]));
        // Without the one for all others, a public image can be had.
        let (found, told) =
            get(&place, &place.keychain(&[r#"{"credsStore":"x"}"#]), &["r.example/a", "r.example/b"]);
        assert_eq!(found, Ok(vec![]));
        assert_eq!(told, [format!("no credentials for r.example from the credsStore of DIR/file0: {cause}")]);
    }
}

#[test]
fn a_helper_that_does_not_answer_is_ended() {
    // One says nothing; one says it all and stays.
    for script in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
        let place = Place::new().helper("x", script);
        let mut keychain = place.keychain(&[r#"{"credHelpers":{"r.example":"x"}}"#]);
        keychain.helpers = keychain.helpers.with_limit(std::time::Duration::from_millis(300));
        let (found, _) = get(&place, &keychain, &["r.example/a"]);
        let said = found.unwrap_err();
        assert!(said.ends_with("docker-credential-x did not answer within 0 s and was ended; unlock what it keeps credentials in, and try again"), "{said}");
    }
}

/// Whether a process runs; one that has ended may have nobody who waits for it.
fn runs(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

#[test]
fn what_a_helper_has_started_ends_with_it() {
    let place = Place::new();
    let started = place.path("started");
    let script =
        format!("sh -c 'sleep 1000 & echo $! >> {0}; wait' & echo $! >> {0}; wait", started.display());
    let place = place.helper("x", &script);
    let helpers = place.keychain(&[]).helpers.with_limit(std::time::Duration::from_secs(1));
    let error = helpers.get("x", "r.example", &[]).unwrap_err();
    assert!(matches!(error, HelperError::Late { .. }), "{error}");
    let started = fs::read_to_string(started).unwrap();
    assert_eq!(started.lines().count(), 2, "{started}");
    // What is killed ends soon, and what is not in a quarter of an hour.
    let left = (0..1000).find(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        !started.lines().any(runs)
    });
    assert!(left.is_some(), "{started} still run");
}

#[test]
fn only_programs_of_trusted_folders_are_helpers() {
    let place = Place::new().helper("x", &answering("u", "p"));
    let application = Place::new().helper("evil", &answering("u", "p"));
    std::os::unix::fs::symlink(
        application.path("docker-credential-evil"),
        place.path("docker-credential-linked"),
    )
    .unwrap();
    fs::write(place.path("docker-credential-plain"), "").unwrap();
    let path =
        std::env::join_paths([application.0.path(), place.0.path(), Path::new("relative"), Path::new("")]);
    let helpers = Helpers::new(&path.unwrap(), vec![("PATH".into(), "/usr/bin:/bin".into())]);
    let get = |name: &str| {
        helpers.get(name, "r.example", &[application.0.path().to_owned()]).map_err(|e| e.to_string())
    };
    assert!(get("x").unwrap().is_some());
    for name in ["evil", "linked", "plain", "nowhere"] {
        let expected = format!(
            "docker-credential-{name} is in no folder of PATH; relative folders and those of the application do not count"
        );
        assert_eq!(get(name), Err(expected));
    }
    for name in ["", "../x", "a b", "x/../x"] {
        let expected =
            format!("the helper's name `{name}` is none: expected letters, digits, `.`, `_` and `-`");
        assert_eq!(get(name), Err(expected));
    }
    assert_eq!(application.calls(), Vec::<String>::new());
}

#[test]
fn a_helper_gets_what_it_is_told_and_no_more() {
    let place = Place::new().helper("x", "printf '{\"Username\":\"%s\",\"Secret\":\"%s\"}' \"$(pwd)\" \"$(env | cut -d= -f1 | sort | tr '\\n' ,)\"");
    let env = vec![("PATH".into(), "/usr/bin:/bin".into()), ("GNUPGHOME".into(), "/g".into())];
    let helpers = Helpers::new(place.0.path().as_os_str(), env);
    let found = helpers.get("x", "r.example", &[]).unwrap();
    // The shell adds the folder.
    let expected = Credentials::Basic { user: "/".into(), password: "GNUPGHOME,PATH,PWD,".to_owned().into() };
    let Some(Credentials::Basic { password, .. }) = &found else { panic!("nothing") };
    assert!(found == Some(expected), "{}", password.as_str());
    assert!(!format!("{helpers:?}").contains("/g"));
    assert!(Helpers::new(OsStr::new(""), Vec::new()).get("x", "r", &[]).is_err());
}

#[test]
fn what_is_no_file_of_credentials_is_named() {
    let place = Place::new();
    let mut keychain = Keychain::default();
    assert!(!keychain.add_file(&place.path("nothing"), AuthFormat::Config).unwrap());
    let said = with_causes(&keychain.add_file(place.0.path(), AuthFormat::Config).unwrap_err());
    let unfit = |path: &Path| {
        format!(
            "could not use the credentials in {}: it is no regular file, or has more than 4 MiB; name another with --registry-auth-file",
            path.display()
        )
    };
    assert_eq!(said, unfit(place.0.path()));
    // Neither waited for nor read without end.
    nix::unistd::mkfifo(&place.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let large = fs::File::create(place.path("large")).unwrap();
    large.set_len((4 << 20) + 1).unwrap();
    for path in [place.path("fifo"), "/dev/zero".into(), place.path("large")] {
        let said = with_causes(&keychain.add_file(&path, AuthFormat::Config).unwrap_err());
        assert_eq!(said, unfit(&path));
    }
    let said = with_causes(&keychain.add_text("VARIABLE", b"hidden-7", AuthFormat::Headers).unwrap_err());
    let expected = "could not use the credentials in VARIABLE: it is not a JSON object of registries with `Basic …`, `Bearer …` or `X-Identity …`";
    assert_eq!(said, expected);
}
