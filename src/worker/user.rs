//! The numbers of an image's user.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

use serde::{Deserialize, Serialize};

use super::{AnyError, Job};

/// Find the numbers of an image's `USER[:GROUP]`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FindUser {
    /// The image's unpacked layers, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) user: String,
}

/// A user's numbers, as the guest sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The home folder; `/` where the image says nothing of it.
    pub(crate) home: String,
}

impl Job for FindUser {
    type Answer = User;

    fn carry_out(self) -> Result<User, AnyError> {
        let file = |name: &str| read_topmost(&self.layers, name);
        let passwd = file("etc/passwd")?;
        let (uid, gid) = resolve_user(&self.user, &passwd, &file("etc/group")?)?;
        Ok(User { uid, gid, home: home_of(uid, &passwd) })
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
            let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
            let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
            let mut text = Vec::new();
            file.take(LIMIT).read_to_end(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(String::new())
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

/// The home folder in passwd(5): an absolute path, or `/`.
fn home_of(uid: u32, passwd: &str) -> String {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let mut accounts = passwd.lines().map(fields);
    let account = accounts.find(|fields| fields.get(2).is_some_and(|number| *number == uid.to_string()));
    let home = account.and_then(|fields| fields.get(5).cloned()).filter(|home| home.starts_with('/'));
    home.unwrap_or_else(|| "/".to_owned())
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
        assert_eq!((home_of(1001, PASSWD), home_of(7, PASSWD)), ("/home/cnb".into(), "/".into()));
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
