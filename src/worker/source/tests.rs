use super::*;

#[test]
fn copies_have_modes_links_and_one_time_and_leave_out_what_is_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("s"), folder.path().join("t"));
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::create_dir(source.join("kept-out")).unwrap();
    fs::write(source.join("kept-out/file"), "no").unwrap();
    fs::write(source.join("a/run"), "x").unwrap();
    fs::set_permissions(source.join("a/run"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(source.join("a"), Permissions::from_mode(0o555)).unwrap();
    symlink("/etc/passwd", source.join("link")).unwrap();
    nix::unistd::mkfifo(&source.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let me = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let copied = copy_tree(&source, &target, me, &["kept-out".into()]).unwrap();
    assert_eq!((copied.skipped, copied.copied, copied.bytes), (1, 2, 1), "a FIFO has no content");
    let mode = |path: &str| fs::symlink_metadata(target.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/run")), (0o555, 0o755));
    assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("/etc/passwd"));
    for path in ["", "a", "a/b", "a/run", "link"] {
        let about = fs::symlink_metadata(target.join(path)).unwrap();
        assert_eq!((about.mtime(), about.mtime_nsec()), (315_532_801, 0), "{path}");
    }
    assert!(!target.join("kept-out").exists() && !target.join("fifo").exists());
    for path in [&source, &target] {
        fs::set_permissions(path.join("a"), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_may_change_unseen_is_not_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("s");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    symlink("file", source.join("link")).unwrap();
    let me = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let device = fs::metadata(&source).unwrap().dev();
    let nothing = Evidence::default();
    let nothing = Stayed { known: &nothing, has_gaps: false };
    let known_of = |name: &str, device: u64, now: SystemTime| {
        let target = folder.path().join(name);
        let mut copying = Copying::new(&source, &target, me, &[], Some(nothing)).unwrap();
        copying.known = Some((nothing, device, now));
        copying.run().unwrap().known.len()
    };
    let later = SystemTime::now() + std::time::Duration::from_secs(10);
    assert_eq!(known_of("settled", device, later), 3);
    assert_eq!(known_of("mounted there", device + 1, later), 0, "another file system");
    let changed = fs::metadata(&source).unwrap();
    let changed = std::time::UNIX_EPOCH
        + std::time::Duration::new(changed.ctime().unsigned_abs(), changed.ctime_nsec() as u32);
    assert_eq!(known_of("at once", device, changed), 0, "a change of this moment may get the same time");
    let plain = copy_tree(&source, &folder.path().join("plain"), me, &[]).unwrap();
    assert_eq!(plain.known.len(), 0);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let failed = copy_tree(&folder.path().join("missing"), &folder.path().join("t"), (0, 0), &[]);
    assert_eq!(failed.unwrap_err().to_string(), "could not copy `` of the source");
}

#[test]
fn a_folder_that_becomes_a_link_while_it_is_copied_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (source, other) = (folder.path().join("s"), folder.path().join("other"));
    for path in [&source, &other] {
        fs::create_dir_all(path.join("in")).unwrap();
        fs::write(path.join("in/file"), path.as_os_str().as_encoded_bytes()).unwrap();
    }
    let root = File::open(&source).unwrap();
    assert!(open(&root, Path::new("in/file"), OFlag::O_RDONLY).is_ok());
    assert!(open(&root, Path::new("../other/in/file"), OFlag::O_RDONLY).is_err());
    fs::rename(source.join("in"), source.join("was")).unwrap();
    symlink(other.join("in"), source.join("in")).unwrap();
    let target = folder.path().join("t");
    fs::create_dir(&target).unwrap();
    let me = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let copying = Copying::new(&source, &target, me, &[], None).unwrap();
    assert!(copying.file(Path::new("in/file")).is_err());
    fs::remove_file(source.join("in")).unwrap();
    nix::unistd::mkfifo(&source.join("in"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(copying.file(Path::new("in")).is_err());
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}
