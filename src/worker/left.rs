//! Looks at what buildpacks left, before an exporter of another lifecycle does. What is decided on it: `src/build/foreign/left.rs`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use coracle_cnb::Group;
use coracle_lifecycle::folder;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::AnyError;
use crate::build::foreign::left::{Found, Kind, Tree, Verdict, verdict};

/// How deep folders may lie in each other, and how many entries there may be: what ours exports too, and more than any build needs.
const DEPTH: usize = 256;
const ENTRIES: usize = 10_000_000;

/// What to look at.
struct Walk<'a> {
    tree: Tree,
    group: &'a Group,
    entries: usize,
    /// How many there may be.
    most: usize,
    removed: Vec<String>,
}

/// Look at a tree, and remove what is to go; the answer says what that was.
pub(super) fn check(tree: Tree, at: BorrowedFd<'_>, group: &Group) -> Result<Vec<String>, AnyError> {
    check_within(tree, at, group, ENTRIES)
}

fn check_within(tree: Tree, at: BorrowedFd<'_>, group: &Group, most: usize) -> Result<Vec<String>, AnyError> {
    let mut walk = Walk { tree, group, entries: 0, most, removed: Vec::new() };
    walk.folder(at, Path::new(""), 0)?;
    Ok(walk.removed)
}

impl Walk<'_> {
    fn folder(&mut self, at: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<(), AnyError> {
        let shown = |path: &Path| Path::new(self.tree.path()).join(path).display().to_string();
        if depth > DEPTH {
            return Err(format!(
                "`{}` lies in more than {DEPTH} folders, and another lifecycle's exporter is not given that; choose other buildpacks with --buildpack",
                shown(path)
            )
            .into());
        }
        let entries = folder::entries(at, Path::new("."))?;
        self.entries += entries.len();
        if self.entries > self.most {
            return Err(format!(
                "`{}` has more than {} entries, and another lifecycle's exporter is not given that; choose other buildpacks with --buildpack",
                self.tree.path(),
                self.most
            )
            .into());
        }
        for entry in entries {
            let Some(kind) = kind(at, &entry.name)? else { continue };
            let below = path.join(&entry.name);
            let is_layer = depth == 1 && kind != Kind::Folder && has_document(at, &entry.name)?;
            match verdict(self.tree, &Found { path: &below, kind, is_layer }, self.group) {
                Verdict::IsNobodys => {}
                Verdict::Refused(why) => return Err(why.into()),
                Verdict::Goes => {
                    unlinkat(at, entry.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
                    let path = Path::new(self.tree.path()).join(&below);
                    self.removed.push(format!("{} is left out: it is a socket", path.display()));
                }
                Verdict::Stays if kind == Kind::Folder => {
                    let name = Path::new(&entry.name);
                    if let Some(inner) = folder::folder(at, name)? {
                        self.folder(inner.as_fd(), &below, depth + 1)?;
                    }
                }
                Verdict::Stays => {}
            }
        }
        Ok(())
    }
}

fn stat(at: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn kind(at: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Option<Kind>> {
    let Some(stat) = stat(at, name)? else { return Ok(None) };
    Ok(Some(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Kind::Folder,
        SFlag::S_IFREG => Kind::File { size: u64::try_from(stat.st_size).unwrap_or(u64::MAX) },
        SFlag::S_IFLNK => Kind::Link,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        _ => Kind::Device,
    }))
}

fn has_document(at: BorrowedFd<'_>, name: &OsStr) -> nix::Result<bool> {
    let document = OsString::from_iter([name, OsStr::new(".toml")]);
    // A name that is too long for one has none.
    if document.as_bytes().len() > 255 {
        return Ok(false);
    }
    Ok(stat(at, &document)?.is_some())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn checked(tree: Tree, make: impl FnOnce(&Path)) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let group = "[[group]]\nid = \"a/b\"\nversion = \"1\"\n";
        let group: Group = coracle_cnb::read_toml("group.toml", group).unwrap();
        let at = File::open(folder.path()).unwrap();
        check(tree, at.as_fd(), &group).map_err(|error| error.to_string())
    }

    #[test]
    fn links_and_fifos_where_something_is_read_are_refused_by_name() {
        let start =
            |path: &str, what: &str| format!("`/layers/{path}`, left by buildpack a/b@1, is {what} where ");
        for (path, what, make) in [
            ("a_b/launch.toml", "a FIFO", (|path| mkfifo(path, Mode::S_IRWXU).unwrap()) as fn(&Path)),
            ("a_b/x.toml", "a symbolic link", |path| symlink("/run/coracle/config.json", path).unwrap()),
            ("a_b/x.sha", "a symbolic link", |path| symlink("/dev/zero", path).unwrap()),
            ("a_b/x.sbom.cdx.json", "a symbolic link", |path| symlink("/run/coracle", path).unwrap()),
            ("sbom/launch/a_b", "a symbolic link", |path| symlink("/run/coracle", path).unwrap()),
            ("a_b/large.toml", "a file of more than 16 MiB", |path| {
                File::create(path).unwrap().set_len((16 << 20) + 1).unwrap();
            }),
        ] {
            let said = checked(Tree::Layers, |folder| {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                make(&path);
            });
            let said = said.unwrap_err();
            assert!(said.starts_with(&start(path, what)), "{said}");
        }
        let said = checked(Tree::Layers, |folder| symlink("/", folder.join("a_b")).unwrap()).unwrap_err();
        assert!(said.starts_with(&start("a_b", "a symbolic link")), "{said}");
        let said = checked(Tree::Layers, |folder| {
            fs::create_dir(folder.join("a_b")).unwrap();
            fs::write(folder.join("a_b/x.toml"), "").unwrap();
            symlink("/run/coracle", folder.join("a_b/x")).unwrap();
        });
        assert!(said.unwrap_err().starts_with(&start("a_b/x", "a symbolic link")));
    }

    #[test]
    fn what_is_content_stays_and_sockets_go() {
        let said = checked(Tree::Layers, |folder| {
            fs::create_dir_all(folder.join("a_b/x/in")).unwrap();
            fs::write(folder.join("a_b/x.toml"), "").unwrap();
            symlink("/", folder.join("a_b/x/in/link")).unwrap();
            mkfifo(&folder.join("a_b/x/launch.toml"), Mode::S_IRWXU).unwrap();
            // Of nobody.
            symlink("/", folder.join("other")).unwrap();
            symlink("/", folder.join("a_b/without")).unwrap();
        });
        assert_eq!(said, Ok(Vec::new()));
        let folder = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let at = File::open(folder.path()).unwrap();
        let removed = check(Tree::Workspace, at.as_fd(), &Group::default()).unwrap();
        assert_eq!(removed, ["/workspace/socket is left out: it is a socket"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_without_end_are_refused_by_name() {
        let said = checked(Tree::Workspace, |folder| {
            fs::create_dir_all(folder.join("d/".repeat(258))).unwrap();
        });
        let said = said.unwrap_err();
        let end = "lies in more than 256 folders, and another lifecycle's exporter is not given that; choose other buildpacks with --buildpack";
        assert!(said.starts_with("`/workspace/d/d/") && said.ends_with(end), "{said}");
    }

    #[test]
    fn entries_without_end_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        for number in 0..3 {
            fs::write(folder.path().join(format!("in/{number}")), "").unwrap();
        }
        let at = File::open(folder.path()).unwrap();
        let checked = |most| check_within(Tree::Workspace, at.as_fd(), &Group::default(), most);
        assert_eq!(checked(4).unwrap(), Vec::<String>::new());
        let said = checked(3).unwrap_err().to_string();
        let expected = "`/workspace` has more than 3 entries, and another lifecycle's exporter is not given that; choose other buildpacks with --buildpack";
        assert_eq!(said, expected);
    }
}
