use super::*;

fn around<'a>(
    own: &'a [PathBuf],
    secrets: &'a [PathBuf],
    mounted: &'a [PathBuf],
    forced: bool,
) -> Surroundings<'a> {
    Surroundings {
        home: Some(Path::new("/home/me")),
        source: Path::new("/home/me/app"),
        own,
        secrets,
        mounted,
        forced,
    }
}

/// What becomes of volumes, a line each, those that are forced too.
#[test]
fn what_may_be_shown_and_where() {
    let own = [PathBuf::from("/home/me/data/coracle"), PathBuf::from("/var/cache/app")];
    // A file of credentials, and a service binding.
    let secrets = [PathBuf::from("/srv/ci/auth.json"), PathBuf::from("/srv/bindings/db")];
    let mounted = [PathBuf::from("/"), PathBuf::from("/srv/mounted"), PathBuf::from("/srv/data/inner")];
    let mut text = String::new();
    for volume in [
        "/srv/files:/volumes/files",
        "/srv/files:/volumes/files:rw",
        "/srv/mounted:/opt/tools:ro",
        "/srv/data:/data",
        "/srv/data:relative",
        "/srv/data:/a/../cnb",
        "/srv/f:/",
        "/srv/f:/cnb",
        "/srv/f:/cnb/buildpacks/x",
        "/srv/f:/layers",
        "/srv/f:/workspace/x",
        "/srv/f:/platform/env",
        "/srv/f:/platform/bindings/db",
        "/srv/f:/proc/1",
        "/srv/f:/dev/shm",
        "/srv/f:/sys",
        "/srv/f:/etc/ssl",
        "/srv/f:/run/secrets",
        "/srv/f:/tmp",
        "/srv/f:/control",
        "/home/me/.m2:/m2",
        "/home/me/.m2/repository:/m2",
        "/home/me/.m2/repository:/m2:rw",
        "/home/me/.cargo:/cargo",
        "/home/me/.cargo/registry:/cargo",
        "/home/me/.npmrc:/v",
        "/home/me/.zsh_history:/v",
        "/:/host",
        "/home:/v",
        "/home/me:/v",
        "/home/me/.ssh:/v",
        "/home/me/.ssh/id_ed25519:/v",
        "/home/me/.docker:/v",
        "/home/me/.config:/v",
        "/home/me/.config/containers/auth.json:/v",
        "/home/me/data:/v",
        "/home/me/data/coracle/store:/v",
        "/etc/passwd:/v",
        "/proc/self:/v",
        "/run/user/1000:/v",
        "/srv/ci:/ci",
        "/srv/ci/auth.json:/ci",
        "/srv/ci/scripts:/ci",
        "/srv/bindings/db/password:/v",
        "/srv:/v:rw",
        "/tmp:/v",
        "/tmp/mine:/v",
        "/home/me/app:/v",
        "/home/me/app:/v:rw",
        "/home/me/app/inner:/v:rw",
        "/home/me:/v:rw",
        "/home/me/data/coracle:/v:rw",
        "/:/v:rw",
    ] {
        text.push_str(&format!("{volume}\n"));
        let volume: Volume = volume.parse().unwrap();
        let said = |forced| match check(&volume, &around(&own, &secrets, &mounted, forced)) {
            Ok(()) => format!("yes: {volume}"),
            Err(error) => error.to_string(),
        };
        let (plain, forced) = (said(false), said(true));
        text.push_str(&format!("  {plain}\n"));
        if forced != plain {
            text.push_str(&format!("  with --volume-force {forced}\n"));
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_cannot_be_read_says_how_to_write_it() {
    for text in ["", "/a", ":/b", "/a:", "/a:/b:ro:rw"] {
        let expected = format!(
            "--volume {text:?} cannot be read; write HOST:CONTAINER, HOST:CONTAINER:ro or HOST:CONTAINER:rw"
        );
        assert_eq!(text.parse::<Volume>().unwrap_err().to_string(), expected);
    }
    let expected = "--volume \"/a:/b:z\" asks for `z`, which is not to be had; there are ro and rw";
    assert_eq!("/a:/b:z".parse::<Volume>().unwrap_err().to_string(), expected);
}

#[test]
fn sources_are_folders_and_files_that_are_there() {
    let place = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path().join("socket")).unwrap();
    std::os::unix::fs::symlink("/etc", place.path().join("link")).unwrap();
    let surroundings = Surroundings {
        home: None,
        source: Path::new("/app"),
        own: &[],
        secrets: &[],
        mounted: &[],
        forced: false,
    };
    let said = |names: &[&str]| {
        let volume = |name: &&str| format!("{}/{name}", place.path().display()).parse::<Volume>().unwrap();
        let volumes: Vec<Volume> = names.iter().map(volume).collect();
        let error = checked(&volumes, &surroundings).unwrap_err().to_string();
        error.replace(&place.path().display().to_string(), "DIR")
    };
    assert_eq!(
        said(&["nothing:/v"]),
        "--volume DIR/nothing cannot be used: No such file or directory (os error 2)"
    );
    assert_eq!(
        said(&["socket:/v"]),
        "--volume DIR/socket cannot be used: only folders and files can be volumes"
    );
    let expected = "--volume /etc would show /etc to programs of buildpacks; name a folder inside it, or insist with --volume-force";
    assert_eq!(said(&["link:/v"]), expected);
    let expected = "two volumes cannot be mounted on /v and /v/x: one is in the other";
    assert_eq!(said(&[".:/v", ".:/v/x"]), expected);
}

#[test]
fn mount_points_are_read_with_their_escapes() {
    let text = "36 35 98:0 / / rw - ext3 /dev/root rw\n37 36 0:1 /x /a\\040b\\134c rw,noatime shared:1 - tmpfs t rw\n";
    assert_eq!(mount_points(text), [PathBuf::from("/"), PathBuf::from("/a b\\c")]);
}

#[test]
fn what_is_written_belongs_to_a_subordinate_id() {
    let volume = |text: &str| text.parse::<Volume>().unwrap();
    assert_eq!(notice(&volume("/srv/a:/a"), 101_001), None);
    let expected = "buildpacks write to /srv/a with the user id 101001, a subordinate one of yours; they can where others may, or with: setfacl -m u:101001:rwx /srv/a";
    assert_eq!(notice(&volume("/srv/a:/a:rw"), 101_001).as_deref(), Some(expected));
}
