//! Writes the outer namespace's id maps with newuidmap(1) and newgidmap(1), and says why when they refuse.

use std::io;
use std::process::Command;

use crate::ids::{IdMap, SubordinateRange, find_range, free_range};

/// Why the outer user namespace could not be given its ids.
#[derive(Debug, thiserror::Error)]
pub enum UsernsError {
    /// A file of subordinate ids could not be read.
    #[error("could not read {file}; subordinate ids come from it (package uidmap)")]
    Read {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The user has no range that is large enough.
    #[error(
        "user {user} (uid {uid}) has no range of 65536 ids in {file}; an administrator adds one with: usermod --add-subuids {free} --add-subgids {free} {user}"
    )]
    NoRange {
        /// The user's name, or number where it has none.
        user: String,
        /// The user's id.
        uid: u32,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// A range that nobody has, as usermod(8) takes it.
        free: String,
    },
    /// A helper could not be started.
    #[error("could not start {program}, which writes the id map; it comes with the package uidmap")]
    Start {
        /// newuidmap or newgidmap.
        program: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A helper refused.
    #[error("{program} refused the id map: {message}{hint}")]
    Refused {
        /// newuidmap or newgidmap.
        program: &'static str,
        /// What it said on standard error.
        message: String,
        /// What to do next, when the cause is known.
        hint: &'static str,
    },
}

/// The id map of the calling user, from `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
/// [`UsernsError::Read`] and [`UsernsError::NoRange`].
pub fn id_map_of_user() -> Result<IdMap, UsernsError> {
    let uid = nix::unistd::getuid();
    let user =
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let read = |file: &'static str| {
        std::fs::read_to_string(file).map_err(|source| UsernsError::Read { file, source })
    };
    let (subuid, subgid) = (read("/etc/subuid")?, read("/etc/subgid")?);
    let range = |file: &'static str, text: &str| {
        let none = || {
            let free = free_range(&format!("{subuid}\n{subgid}"));
            UsernsError::NoRange { user: user.clone(), uid: uid.as_raw(), file, free }
        };
        find_range(text, &user, uid.as_raw()).ok_or_else(none)
    };
    Ok(IdMap { uids: range("/etc/subuid", &subuid)?, gids: range("/etc/subgid", &subgid)? })
}

/// Give the new user namespace of process `pid` its ids: 0 is the caller, 1..=65536 the subordinate range.
///
/// # Errors
/// [`UsernsError::Start`] and [`UsernsError::Refused`], with what the helper said.
pub(crate) fn write_maps(pid: u32, map: &IdMap) -> Result<(), UsernsError> {
    run_helper("newuidmap", pid, nix::unistd::getuid().as_raw(), map.uids)?;
    run_helper("newgidmap", pid, nix::unistd::getgid().as_raw(), map.gids)
}

fn run_helper(program: &'static str, pid: u32, own: u32, range: SubordinateRange) -> Result<(), UsernsError> {
    let numbers = [pid, 0, own, 1, 1, range.start, range.count].map(|number| number.to_string());
    let output = Command::new(program)
        .args(numbers)
        .output()
        .map_err(|source| UsernsError::Start { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let hint = hint_for(nix::sys::prctl::get_no_new_privs().unwrap_or(false), &message);
    Err(UsernsError::Refused { program, message, hint })
}

/// What to do about a helper's refusal, as far as its circumstances tell.
fn hint_for(no_new_privs: bool, message: &str) -> &'static str {
    if no_new_privs {
        "; this process has no_new_privs set, so setuid programs are powerless: run without it (in Kubernetes: allowPrivilegeEscalation: true)"
    } else if message.contains("Operation not permitted") {
        "; the program needs the setuid bit or the file capability cap_setuid, on a file system that is not mounted nosuid"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_range_names_user_file_and_command() {
        let free = "165536-231071".to_owned();
        let error = UsernsError::NoRange { user: "mara".to_owned(), uid: 1000, file: "/etc/subuid", free };
        assert_eq!(
            error.to_string(),
            "user mara (uid 1000) has no range of 65536 ids in /etc/subuid; an administrator adds one with: usermod --add-subuids 165536-231071 --add-subgids 165536-231071 mara"
        );
    }

    #[test]
    fn the_hint_follows_the_circumstances() {
        assert!(hint_for(true, "").contains("no_new_privs"));
        assert!(hint_for(false, "write to uid_map failed: Operation not permitted").contains("setuid bit"));
        assert_eq!(hint_for(false, "something else"), "");
    }
}
