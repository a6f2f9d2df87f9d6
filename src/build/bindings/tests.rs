use std::os::unix::fs::symlink;

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(folder: &Path) -> Result<Binding, String> {
    format!("db={}", folder.display())
        .parse::<Binding>()
        .map_err(|error| coracle_runtime::with_causes(&error).replace(&folder.display().to_string(), "DIR"))
}

#[test]
fn a_folder_is_read_as_kubernetes_leaves_it() {
    // Files are links to a folder that is replaced whole.
    let place = folder(&[]);
    fs::create_dir(place.path().join("..2026")).unwrap();
    for (name, text) in [("type", "postgresql"), ("password", "hidden-7")] {
        fs::write(place.path().join("..2026").join(name), text).unwrap();
        symlink(format!("..data/{name}"), place.path().join(name)).unwrap();
    }
    symlink("..2026", place.path().join("..data")).unwrap();
    let binding = read(place.path()).unwrap();
    assert!(!format!("{binding:?}").contains("hidden-7"));
    let bindings = [binding];
    let files: Vec<_> = files_of(&bindings).map(|file| (file.target, file.content.to_vec())).collect();
    let expected = [
        ("/platform/bindings/db/password".into(), b"hidden-7".to_vec()),
        ("/platform/bindings/db/type".into(), b"postgresql".to_vec()),
    ];
    assert_eq!(files, expected);
}

#[test]
fn what_is_no_binding_is_refused() {
    let outside = folder(&[("key", "hidden-7")]);
    let linked = folder(&[("type", "t")]);
    symlink(outside.path().join("key"), linked.path().join("key")).unwrap();
    let nested = folder(&[("type", "t")]);
    fs::create_dir(nested.path().join("more")).unwrap();
    let large = folder(&[("type", "t"), ("key", &"x".repeat(3 << 20))]);
    let many: Vec<String> = (0..129).map(|number| number.to_string()).collect();
    let many = folder(&many.iter().map(|name| (name.as_str(), "")).collect::<Vec<_>>());
    for (place, expected) in [
        (
            folder(&[("key", "v")]),
            "DIR is no service binding: it has no file `type`, which says what kind of service it is for",
        ),
        (
            linked,
            "DIR/key is no service binding: only files can be in it, and links to files of the same folder",
        ),
        (
            nested,
            "DIR/more is no service binding: only files can be in it, and links to files of the same folder",
        ),
        (
            folder(&[("type", "t"), ("a b", "v")]),
            "DIR/a b is no service binding: a name in it is not of letters, digits, `-`, `_` and `.`; rename the file",
        ),
        (many, "DIR is no service binding: it has more than 128 files"),
        (large, "bindings and secrets are larger than 2 MiB together; hand large files over with --volume"),
    ] {
        assert_eq!(read(place.path()).unwrap_err(), expected);
    }
    let said = read(Path::new("/nowhere")).unwrap_err();
    assert_eq!(said, "could not read DIR for --binding: No such file or directory (os error 2)");
    for text in ["db", "=x", "db=", "DB=/x", "a/b=/x", "..=/x", ".=/x", "db://me:hunter2@host"] {
        let said = text.parse::<Binding>().unwrap_err().to_string();
        let expected = "--binding cannot be read; write NAME=FOLDER, the name in lower-case letters, digits, `-` and `.`";
        assert_eq!(said, expected);
    }
}

#[test]
fn a_secret_is_for_those_it_names() {
    let place = folder(&[("token", "hidden-7")]);
    let path = place.path().join("token").display().to_string();
    let secret = |more: &str| format!("id=npm,src={path}{more}").parse::<BuildSecret>().unwrap();
    let (all, one) = (secret(""), secret(",buildpack=team/node,buildpack=team/yarn"));
    assert!(!format!("{all:?}").contains("hidden-7"));
    assert_eq!((all.is_for_all(), one.is_for_all()), (true, false));
    assert_eq!(
        (one.is_for("team/node"), one.is_for("team/yarn"), one.is_for("team/no")),
        (true, true, false)
    );
    let file = one.file();
    assert_eq!((file.target, file.content.to_vec()), ("/run/secrets/npm".into(), b"hidden-7".to_vec()));
    let together =
        |secrets: &[BuildSecret], layers| check(&[], secrets, layers).map_err(|error| error.to_string());
    assert_eq!(together(std::slice::from_ref(&all), BuildLayers::Snapshot), Ok(()));
    assert_eq!(together(std::slice::from_ref(&one), BuildLayers::Strict), Ok(()));
    let expected = "--secret npm is for the buildpack team/node alone, but in one container every buildpack could read it; add --build-layers strict";
    for layers in [BuildLayers::Snapshot, BuildLayers::Shared] {
        assert_eq!(together(std::slice::from_ref(&one), layers).unwrap_err(), expected);
    }
    let twice = together(&[all, one], BuildLayers::Strict).unwrap_err();
    assert_eq!(twice, "--secret names `npm` twice");
    for text in [
        "npm",
        "id=npm",
        "src=x",
        "id=a/b,src=x",
        "id=a,src=x,mode=1",
        "id=a,id=b,src=x",
        "id=,src=x",
        "token=hunter2",
    ] {
        let said = text.parse::<BuildSecret>().unwrap_err().to_string();
        let expected = "--secret cannot be read; write id=NAME,src=FILE[,buildpack=ID]..., the name in letters, digits, `-`, `_` and `.`";
        assert_eq!(said, expected);
    }
    let said = format!("id=a,src={}", place.path().display()).parse::<BuildSecret>().unwrap_err();
    assert!(coracle_runtime::with_causes(&said).ends_with("for --secret: is a directory"), "{said:?}");
}

#[test]
fn what_is_too_much_together_is_refused() {
    let place = folder(&[("type", &"x".repeat(1 << 20))]);
    let binding = |name: &str| format!("{name}={}", place.path().display()).parse::<Binding>().unwrap();
    assert!(check(&[binding("a"), binding("b")], &[], BuildLayers::Snapshot).is_ok());
    let three = [binding("a"), binding("b"), binding("c")];
    let said = check(&three, &[], BuildLayers::Snapshot).unwrap_err().to_string();
    assert_eq!(
        said,
        "bindings and secrets are larger than 2 MiB together; hand large files over with --volume"
    );
    let said = check(&[binding("a"), binding("a")], &[], BuildLayers::Snapshot).unwrap_err().to_string();
    assert_eq!(said, "--binding names `a` twice");
}

/// Overwritten when it is dropped: else this does not compile.
#[test]
fn what_was_read_is_wiped() {
    fn is_wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    let place = folder(&[("type", "t")]);
    let Binding { name: _, files, origin: _ } = read(place.path()).unwrap();
    files.iter().for_each(|(_, content)| is_wiped(content));
    let text = format!("id=a,src={}", place.path().join("type").display());
    let secret: BuildSecret = text.parse().unwrap();
    let EphemeralFile { target: _, content } = secret.file();
    is_wiped(&content);
    let BuildSecret { name: _, content, origin: _, buildpacks: _ } = secret;
    is_wiped(&content);
}
