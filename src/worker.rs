//! What happens inside the stage as its id 0, which owns every id of the build: pulling, unpacking, looking into
//! images, deleting. One request, one answer; events go to standard output, a line of JSON each.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_images::{
    AuthFile, Digest, Image, Layer, OwnerError, OwnerMap, Platform, Reference, Registry, RegistryOptions,
    Store, ingest_layer,
};
use coracle_runtime::{GUEST_IDS, IdMap};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::stage::STORE;

/// How many layers are fetched and unpacked at once.
const PARALLEL_LAYERS: usize = 3;

/// Something to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Bring an image and its unpacked layers into the store.
    Pull { reference: Reference, ids: IdMap, insecure: Vec<String>, auth: String },
    /// Find the numbers of `user`, an image's `USER[:GROUP]`, in the files of its layers (the lowest first).
    User { layers: Vec<PathBuf>, user: String },
    /// Delete folders.
    Delete { folders: Vec<PathBuf> },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Pulled { digest: Digest, fetched: usize },
    User { uid: u32, gid: u32 },
    Done,
}

/// The shift by one, as `images` wants to hear it.
struct Owners(IdMap);

impl OwnerMap for Owners {
    fn owner(&self, uid: u64, gid: u64) -> Result<(u32, u32), OwnerError> {
        let refused = |_| OwnerError { uid, gid, why: format!("ids here end at {}", GUEST_IDS - 1) };
        Ok((self.0.outer(uid).map_err(refused)?, self.0.outer(gid).map_err(refused)?))
    }
}

/// Answer one request on `socket`; the exit status of the worker process.
pub(crate) fn serve(socket: UnixStream) -> i32 {
    let result = coracle_runtime::read_request(&socket)
        .map_err(|error| format!("the worker could not read its request: {error}"))
        .and_then(|request| answer(request).map_err(|error| chain(&*error)));
    i32::from(coracle_runtime::send_answer(&socket, &result).is_err())
}

/// An error and its causes in one line: the form in which it crosses the process boundary.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn answer(request: Request) -> Result<Answer, AnyError> {
    match request {
        Request::Pull { reference, ids, insecure, auth } => pull(&reference, ids, insecure, &auth),
        Request::User { layers, user } => {
            let file = |name: &str| read_topmost(&layers, name);
            let (uid, gid) = resolve_user(&user, &file("etc/passwd")?, &file("etc/group")?)?;
            Ok(Answer::User { uid, gid })
        }
        Request::Delete { folders } => {
            let failures: Vec<String> = folders
                .iter()
                .filter_map(|folder| Some(format!("{}: {}", folder.display(), delete(folder).err()?)))
                .collect();
            if !failures.is_empty() {
                return Err(format!("could not delete {}", failures.join(", ")).into());
            }
            Ok(Answer::Done)
        }
    }
}

/// Delete a folder that a guest has filled, however deep: what lies two levels down is moved up, so that neither the
/// stack nor open folders grow with the depth. Nothing is followed; every process that could interfere has ended.
fn delete(top: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let mut pending: std::collections::VecDeque<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    let mut number = 0u64;
    while let Some(path) = pending.pop_front() {
        if !fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_file(&path)?;
            continue;
        }
        for entry in fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()? {
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            let up = loop {
                number += 1;
                let up = top.join(format!(".deleted-{number}"));
                if fs::symlink_metadata(&up).is_err() {
                    break up;
                }
            };
            fs::rename(entry.path(), &up)?;
            pending.push_back(up);
        }
        fs::remove_dir(&path)?;
    }
    fs::remove_dir(top)
}

/// Tell the conductor. It may be gone, and then this process is about to be: nothing is lost.
fn tell(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let _ = io::stdout().lock().write_all(&line);
    }
}

fn pull(reference: &Reference, ids: IdMap, insecure: Vec<String>, auth: &str) -> Result<Answer, AnyError> {
    let store = Store::open(STORE)?;
    let auth = AuthFile::parse(auth.as_bytes())?;
    let registry = Registry::new(RegistryOptions { insecure, auth, ca_bundle: None })?;
    let image = registry.image(reference, &Platform::host())?;
    let key = ids.key();
    let is_missing = |layer: &Layer| store.layer_dir(&key, &layer.diff_id).is_none();
    let missing: Vec<Layer> = image.layers().into_iter().filter(is_missing).collect();
    let bytes = missing.iter().map(|layer| layer.descriptor.size).sum();
    tell(&Event::PullStarted { image: reference.to_string(), layers: missing.len(), bytes });
    fetch_layers(&store, &registry, reference, &missing, ids)?;
    publish(&store, reference, &image)?;
    Ok(Answer::Pulled { digest: image.digest, fetched: missing.len() })
}

/// The documents come last: an image that the store knows by name is complete.
fn publish(store: &Store, reference: &Reference, image: &Image) -> Result<(), AnyError> {
    store.put_image(image)?;
    Ok(store.tag(reference, &image.descriptor())?)
}

fn fetch_layers(
    store: &Store,
    registry: &Registry,
    reference: &Reference,
    layers: &[Layer],
    ids: IdMap,
) -> Result<(), AnyError> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<AnyError>> = Mutex::new(None);
    let fetch = |number: usize, layer: &Layer| -> Result<(), AnyError> {
        let source: Box<dyn Read + Send> = match store.blob(&layer.descriptor.digest) {
            Ok(file) => Box::new(file),
            Err(_) => registry.blob(reference, &layer.descriptor)?,
        };
        // A megabyte at a time: a line for each read would cost more than the bars are worth.
        let told = AtomicUsize::new(0);
        let progress = |bytes: u64| {
            let step = usize::try_from(bytes >> 20).unwrap_or(usize::MAX);
            if told.swap(step, Ordering::Relaxed) != step {
                tell(&Event::LayerProgress { layer: number, bytes });
            }
        };
        let (_, unpacked) = ingest_layer(store, source, layer, &ids.key(), &Owners(ids), &progress)?;
        let skipped = unpacked.map_or(0, |unpacked| unpacked.devices.len());
        tell(&Event::LayerReady { layer: number, skipped });
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_LAYERS.min(layers.len()) {
            scope.spawn(|| {
                while let Some((number, layer)) =
                    layers.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = fetch(number, layer) {
                        next.store(layers.len(), Ordering::Relaxed);
                        if let Ok(mut failure) = failure.lock() {
                            failure.get_or_insert(error);
                        }
                        return;
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => Err("a thread that fetched layers panicked".into()),
    }
}

/// The text of `name` in the topmost layer that has it as a plain file reached through plain folders; empty where
/// none has. Nothing is followed: the content is a stranger's.
fn read_topmost(layers: &[PathBuf], name: &str) -> Result<String, AnyError> {
    const LIMIT: u64 = 1 << 20;
    for layer in layers.iter().rev() {
        let plain = |path: &Path, folder: bool| {
            fs::symlink_metadata(path)
                .is_ok_and(|found| if folder { found.is_dir() } else { found.is_file() })
        };
        let mut path = layer.clone();
        let parts: Vec<_> =
            Path::new(name).components().filter(|c| matches!(c, Component::Normal(_))).collect();
        let reached = parts.iter().enumerate().all(|(index, part)| {
            path.push(part);
            plain(&path, index + 1 < parts.len())
        });
        if reached {
            let flags = nix_nofollow();
            let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
            let mut text = Vec::new();
            file.take(LIMIT).read_to_end(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(String::new())
}

/// `O_NOFOLLOW | O_NONBLOCK` of open(2) on Linux.
fn nix_nofollow() -> i32 {
    0o400_000 | 0o4_000
}

/// The numbers of an image's `USER[:GROUP]` (OCI image specification, config.md): names are looked up in the image's
/// own passwd(5) and group(5); without a group, the user's own, or 0 where the user is a number nobody has.
fn resolve_user(user: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let (user, wanted_group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let entry = |text: &str, name: &str, number_field: usize| -> Option<Vec<String>> {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let matches = |f: &Vec<String>| {
            f.first().is_some_and(|n| n == name) || f.get(number_field).is_some_and(|n| n == name)
        };
        text.lines().map(fields).find(matches)
    };
    let number =
        |fields: &[String], field: usize| fields.get(field).and_then(|text| text.parse::<u32>().ok());
    let account = entry(passwd, user, 2);
    let uid = match (user, user.parse()) {
        ("", _) => 0,
        (_, Ok(uid)) => uid,
        _ => account
            .as_deref()
            .and_then(|fields| number(fields, 2))
            .ok_or_else(|| format!("the image names the user {user}, but its /etc/passwd does not"))?,
    };
    let gid = match wanted_group {
        None | Some("") => account.as_deref().and_then(|fields| number(fields, 3)).unwrap_or(0),
        Some(name) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => entry(group, name, 2)
                .as_deref()
                .and_then(|fields| number(fields, 2))
                .ok_or_else(|| format!("the image names the group {name}, but its /etc/group does not"))?,
        },
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ncnb:x:1001:1002::/home/cnb:/bin/bash\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\n";

    #[test]
    fn users_are_names_or_numbers() {
        let of = |user| resolve_user(user, PASSWD, GROUP);
        assert_eq!(of(""), Ok((0, 0)));
        assert_eq!(of("cnb"), Ok((1001, 1002)));
        assert_eq!(of("1001"), Ok((1001, 1002)));
        assert_eq!(of("1001:5"), Ok((1001, 5)));
        assert_eq!(of("cnb:web"), Ok((1001, 33)));
        assert_eq!(of("4242"), Ok((4242, 0)));
        assert_eq!(
            of("ghost"),
            Err("the image names the user ghost, but its /etc/passwd does not".to_owned())
        );
        assert_eq!(
            of("cnb:ghosts"),
            Err("the image names the group ghosts, but its /etc/group does not".to_owned())
        );
    }

    #[test]
    fn a_tree_deeper_than_descriptors_last_is_deleted_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (top, kept) = (folder.path().join("top"), folder.path().join("kept"));
        fs::create_dir_all(&top).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let mut tower = folder.path().join("tower");
        fs::create_dir(&tower).unwrap();
        // Built from the top down, because no path may be as long as the whole tower.
        for _ in 0..3000 {
            let base = folder.path().join("base");
            fs::create_dir(&base).unwrap();
            std::os::unix::fs::symlink(&kept, base.join("link")).unwrap();
            fs::rename(&tower, base.join("d")).unwrap();
            fs::rename(&base, &tower).unwrap();
            tower = folder.path().join("tower");
        }
        fs::rename(&tower, top.join("tower")).unwrap();
        delete(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        delete(&top).unwrap();
    }

    #[test]
    fn a_layer_cannot_point_the_worker_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (low, high) = (folder.path().join("low"), folder.path().join("high"));
        fs::create_dir_all(low.join("etc")).unwrap();
        fs::write(low.join("etc/passwd"), "low").unwrap();
        fs::create_dir(&high).unwrap();
        std::os::unix::fs::symlink("/etc", high.join("etc")).unwrap();
        let layers = [low, high];
        assert_eq!(read_topmost(&layers, "etc/passwd").unwrap(), "low");
        assert_eq!(read_topmost(&layers, "etc/shadow").unwrap(), "");
    }
}
