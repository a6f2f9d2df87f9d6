//! The folders of one user: the store, and a work folder for each operation that runs containers.

mod work;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_images::unpack::Allowed;
use coracle_images::{Digest, Reference};
use nix::fcntl::OFlag;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::Error;
use crate::event::{Event, Observer};

pub(crate) use work::WorkFolder;

/// Everything that Coracle keeps for one user, below one folder of mode 0700: unpacked layers hold setuid programs
/// of strangers, and nobody else may reach them.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    certificates: Option<PathBuf>,
    proxies: Vec<(String, String)>,
    allowed: Allowed,
}

/// The folder of one application's cache, held by a lock.
#[derive(Debug)]
pub(crate) struct CacheFolder {
    /// Closed to everybody but the user.
    pub(crate) path: PathBuf,
    _lock: File,
}

impl CacheFolder {
    /// What a build sees of it. Guests pass through it with ids of their own; the folder above keeps others out.
    pub(crate) fn open(&self) -> PathBuf {
        self.path.join("open")
    }
}

impl Home {
    /// Use `root`, making it where it is missing.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let home =
            Self { root: root.into(), certificates: None, proxies: Vec::new(), allowed: Allowed::default() };
        for folder in [home.root.clone(), home.store(), home.work()] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&folder).map_err(Error::folder("create", &folder))?;
        }
        check_closed(&home.root).map_err(Error::folder("use", &home.root))?;
        // Runtimes pass through it as a guest's id, in the stage, where the closed root above is not on the way.
        let work = home.work();
        fs::set_permissions(&work, Permissions::from_mode(0o711)).map_err(Error::folder("open", &work))?;
        spread(&work);
        Ok(home)
    }

    /// Trust the certificate authorities of this file instead of the host's. Phases read it with an id that owns
    /// nothing of the user's.
    #[must_use]
    pub fn with_certificates(self, certificates: Option<PathBuf>) -> Self {
        Self { certificates, ..self }
    }

    /// Reach the world as these variables say: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and their lower-case forms.
    #[must_use]
    pub fn with_proxies(self, proxies: Vec<(String, String)>) -> Self {
        Self { proxies, ..self }
    }

    /// Let layers unpack to more than is usual, or with more memory.
    #[must_use]
    pub fn allowing(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    pub(crate) fn allowed(&self) -> Allowed {
        self.allowed
    }

    pub(crate) fn proxies(&self) -> &[(String, String)] {
        &self.proxies
    }

    /// The file instead of the host's certificate authorities, if there is one.
    pub(crate) fn certificates(&self) -> Option<&Path> {
        self.certificates.as_deref()
    }

    /// Where images are.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where it is remembered who wrote to a name last.
    pub(crate) fn makers(&self, name: &Reference) -> PathBuf {
        self.root.join("makers").join(&Digest::of(name.to_string()).hex()[..16])
    }

    /// What the process holds that deletes in the background.
    pub(crate) fn lock_of_sweeper(&self) -> PathBuf {
        self.root.join("sweeper.lock")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The cache of the application whose image is `image`, alone for as long as what is returned lives; below `folder`
    /// instead of this home, where whoever names it says what it is for. Another build of the same application is waited for.
    ///
    /// `makers` is who fills it. What others left is not found: a stranger's builder that was tried once must not reach
    /// into the builds of a trusted one.
    pub(crate) fn cache(
        &self,
        image: &Reference,
        makers: &str,
        folder: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<CacheFolder, Error> {
        let short = |text: &str| Digest::of(text).hex()[..16].to_owned();
        let path = match folder {
            Some(folder) => folder.join(short(makers)),
            None => self.caches().join(short(&format!("{image}\n{makers}"))),
        };
        let failed = |act| Error::folder(act, &path);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("create the cache"))?;
        if let Some(folder) = folder {
            check_owner(&fs::metadata(folder).map_err(failed("use the cache"))?, true)
                .map_err(Error::folder("use the cache", folder))?;
        }
        let lock = own_folder(&path, 0o700).map_err(failed("use the cache"))?;
        if lock.try_lock().is_err() {
            let text = format!("waiting for another build that uses the cache {}", path.display());
            observer.event(Event::Notice { text });
            lock.lock().map_err(failed("lock the cache"))?;
        }
        if !is_at(&lock, &path) {
            // Deleted between its opening and its lock.
            return self.cache(image, makers, folder, observer);
        }
        let path = path.canonicalize().map_err(failed("use the cache"))?;
        let cache = CacheFolder { path, _lock: lock };
        DirBuilder::new().recursive(true).create(cache.open()).map_err(failed("create the cache"))?;
        own_folder(&cache.open(), 0o755).map_err(failed("use the cache"))?;
        Ok(cache)
    }

    /// Where the caches of applications are that named no folder for theirs.
    pub(crate) fn caches(&self) -> PathBuf {
        self.root.join("caches")
    }

    /// The caches that no build uses, now ours; where a time is given, in seconds since 1970, those that none has used since. When one
    /// did last is when its folder's mode was set.
    pub(crate) fn unused_caches(&self, since: Option<u64>) -> Result<Vec<CacheFolder>, Error> {
        let caches = self.caches();
        let entries = match fs::read_dir(&caches) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::folder("list", &caches))?,
        };
        let unused = |path: PathBuf| {
            let lock = File::open(&path).ok()?;
            lock.try_lock().ok()?;
            let about = lock.metadata().ok()?;
            let is_old = since.is_none_or(|since| u64::try_from(about.ctime()).unwrap_or(0) < since);
            (about.is_dir() && is_old && is_at(&lock, &path)).then_some(CacheFolder { path, _lock: lock })
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter_map(unused).collect())
    }

    /// Where this home really is.
    pub(crate) fn canonical(&self) -> Result<PathBuf, Error> {
        self.root.canonicalize().map_err(Error::folder("use", &self.root))
    }
}

/// A real folder of the user's at `path`, given `mode`. A link there could lead into the store.
fn own_folder(path: &Path, mode: u32) -> io::Result<File> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let folder = File::options().read(true).custom_flags(flags).open(path)?;
    check_owner(&folder.metadata()?, false)?;
    folder.set_permissions(Permissions::from_mode(mode))?;
    Ok(folder)
}

/// Whether this path is still that of the open folder.
fn is_at(folder: &File, path: &Path) -> bool {
    let id = |about: fs::Metadata| (about.dev(), about.ino());
    folder.metadata().is_ok_and(|open| fs::symlink_metadata(path).is_ok_and(|named| id(open) == id(named)))
}

/// A folder of somebody else's is that one's to change at any time.
fn check_owner(about: &fs::Metadata, or_root: bool) -> io::Result<()> {
    let owner = about.uid();
    if owner == nix::unistd::geteuid().as_raw() || or_root && owner == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("it belongs to the user with id {owner}; name one of your own")))
}

/// Unpacked layers hold setuid programs, whose owners have the ids that later builds trust.
fn check_closed(path: &Path) -> io::Result<()> {
    let about = fs::metadata(path)?;
    check_owner(&about, false)?;
    match about.mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(io::Error::other(format!(
            "others may enter it (mode {mode:o}), and it holds programs of strangers; close it with: chmod 700 {}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Have ext4 put each folder in this one into another part of the disk, as it does those of its root (chattr(1), `T`). Without a
/// journal it does not use the inodes of deleted files again for minutes, and looks at each of them first: a build that
/// makes as many files where the last one has deleted its own spends seconds on that. File systems that know no such
/// flag refuse it, which changes nothing.
fn spread(folder: &Path) {
    if let Ok(folder) = File::open(folder)
        && let Ok(flags) = ioctl_getflags(&folder)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = ioctl_setflags(&folder, flags | IFlags::TOPDIR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_reach_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        for path in [home.root.clone(), home.store()] {
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o700,
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn a_home_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("home");
        for mode in [0o755, 0o710, 0o701] {
            fs::create_dir_all(&root).unwrap();
            fs::set_permissions(&root, Permissions::from_mode(mode)).unwrap();
            let Err(Error::Folder { source, .. }) = Home::open(&root) else { panic!("mode {mode:o}") };
            assert!(source.to_string().contains("close it with: chmod 700"), "{source}");
        }
    }

    struct Silent;

    impl Observer for Silent {
        fn event(&self, _: Event) {}
    }

    fn cache(home: &Home, image: &str, makers: &str, folder: Option<&Path>) -> Result<PathBuf, Error> {
        Ok(home.cache(&image.parse().unwrap(), makers, folder, &Silent)?.path)
    }

    #[test]
    fn what_one_builder_cached_no_other_finds() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        let named = folder.path().join("named");
        for given in [None, Some(named.as_path())] {
            let own = cache(&home, "app", "trusted", given).unwrap();
            assert_eq!(cache(&home, "app", "trusted", given).unwrap(), own);
            assert_ne!(cache(&home, "app", "stranger", given).unwrap(), own);
            assert_eq!(cache(&home, "other", "trusted", given).unwrap() == own, given.is_some());
        }
    }

    #[test]
    fn caches_that_no_build_holds_are_unused_and_one_that_was_deleted_meanwhile_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        let unused = |since: Option<u64>| {
            let found = home.unused_caches(since).unwrap();
            found.into_iter().map(|cache| cache.path).collect::<Vec<_>>()
        };
        assert_eq!(unused(None), Vec::<PathBuf>::new());
        let image: Reference = "app".parse().unwrap();
        let held = home.cache(&image, "m", None, &Silent).unwrap();
        let path = held.path.clone();
        assert_eq!(unused(None), Vec::<PathBuf>::new());
        // A second build waits; the first ends, and what the cache was goes.
        std::thread::scope(|scope| {
            let second = scope.spawn(|| home.cache(&image, "m", None, &Silent).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(100));
            fs::rename(&path, folder.path().join("gone")).unwrap();
            drop(held);
            assert!(second.join().unwrap().open().is_dir());
        });
        assert_eq!(unused(None).len(), 1);
        let used = u64::try_from(fs::metadata(&path).unwrap().ctime()).unwrap();
        assert_eq!((unused(Some(used)).len(), unused(Some(used + 1)).len()), (0, 1));
    }

    #[test]
    fn a_cache_is_a_closed_folder_of_the_user_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        let named = folder.path().join("named");
        fs::create_dir(&named).unwrap();
        fs::set_permissions(&named, Permissions::from_mode(0o755)).unwrap();
        let path = cache(&home, "app", "m", Some(&named)).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&named), mode(&path), mode(&path.join("open"))), (0o755, 0o700, 0o755));
        // A repository that brings a cache folder may bring links: to where only our own processes may write.
        for linked in [path.join("open"), path.clone()] {
            fs::remove_dir_all(&linked).unwrap();
            std::os::unix::fs::symlink(home.store(), &linked).unwrap();
            assert!(cache(&home, "app", "m", Some(&named)).is_err(), "{}", linked.display());
            assert_eq!(mode(&home.store()), 0o700);
            fs::remove_file(&linked).unwrap();
        }
    }
}
