//! Who a phase runs as, and who may look into it (docs/decisions/0011).
//!
//! Programs of buildpacks never run as root. Whoever starts a phase as root and names the build's user gets a phase that becomes this user
//! before it does anything, with the folders that it must write to made this user's, as the reference does.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::arguments::Arguments;
use super::owner::{OwnerError, give};
use super::table::{Holds, Phase};
use crate::env::Env;

/// Why a phase does not run as whom it was started.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// Programs of buildpacks would do as root what they like.
    #[error("refusing to run as root: start `{0}` as the build's user (CNB_USER_ID of the builder image)")]
    Root(&'static str),
    /// Nobody said whom to become.
    #[error(
        "refusing to run as root: name the build's user for `{0}` with -uid and -gid (CNB_USER_ID and CNB_GROUP_ID of the builder image); neither can be 0"
    )]
    NoUser(&'static str),
    /// Only root can become another user.
    #[error(
        "`{phase}` runs as {now} and cannot become {asked}, as -uid and -gid say: start it as that user, or as root"
    )]
    Other { phase: &'static str, now: User, asked: User },
    /// A folder could not be made the user's.
    #[error("make folder the build's user's")]
    Owner(#[from] OwnerError),
    /// The process could not become the user.
    #[error("become {user}: {call}")]
    Become {
        user: User,
        call: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel did as asked, and yet there is a way back.
    #[error("became {user}, but kept {kept}: start the phase as that user")]
    Kept { user: User, kept: String },
    /// Others of the same user could look into the process.
    #[error("close this process to others: {call}")]
    Close {
        call: &'static str,
        #[source]
        source: io::Error,
    },
}

impl PrivilegesError {
    /// The exit code of the phase.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoUser(_) => 3,
            _ => 1,
        }
    }
}

/// A user with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user {}, group {}", self.uid, self.gid)
    }
}

impl User {
    /// Whom this process counts as: root where any of its ids is root's.
    pub(super) fn of_process() -> Self {
        let (uid, real) = (nix::unistd::geteuid(), nix::unistd::getuid());
        let uid = if real.is_root() { real } else { uid };
        Self { uid: uid.as_raw(), gid: nix::unistd::getegid().as_raw() }
    }
}

/// Whom a phase that was started by `now` must become before it does anything, if anybody else; `asked` is what `-uid` and `-gid` say.
pub(super) fn decide(
    phase: &Phase,
    now: User,
    asked: (Option<u32>, Option<u32>),
) -> Result<Option<User>, PrivilegesError> {
    let asked_user = match asked {
        (Some(uid @ 1..), Some(gid @ 1..)) => Some(User { uid, gid }),
        _ => None,
    };
    match (phase.holds, now.uid) {
        (Holds::Programs, 0) => Err(PrivilegesError::Root(phase.name)),
        (Holds::Both, 0) => asked_user.map(Some).ok_or(PrivilegesError::NoUser(phase.name)),
        // Nothing foreign runs: as with the reference, root stays root where nobody is named.
        (Holds::Credentials, 0) => Ok(asked_user),
        // Who started it as another user than the image's would get layers that the image's user does not own.
        (Holds::Both, _) => {
            let asked = User { uid: asked.0.unwrap_or(now.uid), gid: asked.1.unwrap_or(now.gid) };
            if asked == now {
                Ok(None)
            } else {
                Err(PrivilegesError::Other { phase: phase.name, now, asked })
            }
        }
        _ => Ok(None),
    }
}

/// The folders that the user must be able to write to, as the reference has them.
fn folders(phase: &Phase, arguments: &Arguments) -> Vec<PathBuf> {
    let flags: &[&str] = match phase.name {
        "analyzer" => &["layers", "launch-cache"],
        "restorer" => &["layers", "cache-dir"],
        "exporter" => &["cache-dir", "launch-cache"],
        "creator" => &["layers", "cache-dir", "launch-cache"],
        _ => &[],
    };
    flags.iter().map(|flag| arguments.path(flag)).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// Makes this process what the phase needs; to be called while it has one thread.
pub(super) fn settle(
    phase: &Phase,
    arguments: &Arguments,
    user: Option<User>,
) -> Result<(), PrivilegesError> {
    if let Some(user) = user {
        become_user(user, &folders(phase, arguments))?;
    }
    if !["exporter", "rebaser"].contains(&phase.name) {
        // What these phases and programs of buildpacks make becomes layers: no image is another for the platform's umask.
        let _ = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    }
    if matches!(phase.holds, Holds::Credentials | Holds::Both) {
        // Again: the kernel may open a process that has changed its user.
        close_process()?;
    }
    if phase.holds == Holds::Both { gain_nothing() } else { Ok(()) }
}

/// Leaves this process as it is, which does not do for everybody.
pub(super) fn as_it_is(phase: &Phase, _: &Arguments, user: Option<User>) -> Result<(), PrivilegesError> {
    match (phase.holds, user) {
        (Holds::Both, Some(_)) => Err(PrivilegesError::Root(phase.name)),
        _ => Ok(()),
    }
}

/// Becomes the user, for good.
fn become_user(user: User, folders: &[PathBuf]) -> Result<(), PrivilegesError> {
    folders.iter().try_for_each(|folder| give(folder, user))?;
    let failed = |call| move |errno: Errno| PrivilegesError::Become { user, call, source: errno.into() };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match nix::unistd::setgroups(&[]) {
        // Some user namespaces may not drop groups; that is no loss where there are none.
        Err(Errno::EPERM) if nix::unistd::getgroups().is_ok_and(|groups| groups.is_empty()) => {}
        done => done.map_err(failed("setgroups"))?,
    }
    nix::unistd::setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    let status = std::fs::read_to_string("/proc/self/status");
    let status =
        status.map_err(|source| PrivilegesError::Become { user, call: "read /proc/self/status", source })?;
    match kept(&status, user) {
        Some(kept) => Err(PrivilegesError::Kept { user, kept }),
        None if nix::unistd::setuid(Uid::from_raw(0)).is_ok() => {
            Err(PrivilegesError::Kept { user, kept: "a way back to root".to_owned() })
        }
        None => Ok(()),
    }
}

/// What a process that should be this user and nothing else still has, by its `/proc/PID/status`.
fn kept(status: &str, user: User) -> Option<String> {
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    let none = "0000000000000000".to_owned();
    let wanted = [
        ("Uid", four(user.uid)),
        ("Gid", four(user.gid)),
        ("Groups", String::new()),
        ("CapPrm", none.clone()),
        ("CapEff", none.clone()),
        ("CapAmb", none),
    ];
    let (key, found) = wanted.into_iter().find_map(|(key, wanted)| {
        let found = value(key);
        (found.as_ref() != Some(&wanted)).then_some((key, found))
    })?;
    Some(format!("{key} {}", found.as_deref().unwrap_or("(not told)")))
}

/// Sets `HOME` to the user's own, as /etc/passwd says it. Where it says nothing, the home of whoever the process was before is none for
/// the user that it has `changed` to.
pub(super) fn add_home(env: &mut Env, passwd: &str, user: User, changed: bool) {
    let uid = user.uid.to_string();
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home =
        lines.find_map(|fields| (fields.get(2) == Some(&uid.as_str())).then(|| fields.get(5).copied()));
    match home.flatten().filter(|home| !home.is_empty()) {
        Some(home) => drop(env.insert("HOME".into(), home.into())),
        None if changed => drop(env.insert("HOME".into(), "/".into())),
        None => {}
    }
}

/// Closes the process's environment, memory and descriptors to all but root (`PR_SET_DUMPABLE`, prctl(2)). The kernel may open them
/// again when a process changes its user, and does when it starts a program.
pub fn close_process() -> Result<(), PrivilegesError> {
    let call = "prctl(PR_SET_DUMPABLE)";
    nix::sys::prctl::set_dumpable(false)
        .map_err(|errno| PrivilegesError::Close { call, source: errno.into() })
}

/// Nothing that this process starts becomes root by a program of the builder's (`PR_SET_NO_NEW_PRIVS`, prctl(2)): root could look into
/// the process that holds credentials.
fn gain_nothing() -> Result<(), PrivilegesError> {
    let call = "prctl(PR_SET_NO_NEW_PRIVS)";
    nix::sys::prctl::set_no_new_privs().map_err(|errno| PrivilegesError::Close { call, source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phases::PHASES;

    const ROOT: User = User { uid: 0, gid: 0 };
    const BUILD: User = User { uid: 1001, gid: 1002 };

    fn decided(phase: &str, now: User, asked: (Option<u32>, Option<u32>)) -> Result<Option<User>, String> {
        let phase = PHASES.iter().find(|known| known.name == phase).unwrap();
        decide(phase, now, asked).map_err(|error| error.to_string())
    }

    #[test]
    fn as_whom_phases_run() {
        let build = (Some(1001), Some(1002));
        for phase in ["analyzer", "restorer", "exporter", "rebaser"] {
            assert_eq!(decided(phase, ROOT, build), Ok(Some(BUILD)), "{phase}");
            for asked in [(None, None), (Some(0), Some(0)), (Some(1001), None)] {
                assert_eq!(decided(phase, ROOT, asked), Ok(None), "{phase}");
            }
            // The numbers are then only those of the files in the image.
            assert_eq!(decided(phase, BUILD, (Some(5), Some(6))), Ok(None), "{phase}");
        }
        for phase in ["detector", "builder"] {
            assert_eq!(decided(phase, BUILD, (None, None)), Ok(None));
            let error = decided(phase, ROOT, build).unwrap_err();
            assert!(error.contains("refusing to run as root") && error.contains(phase), "{error}");
        }
        for phase in ["describe-builder", "detect-programs"] {
            assert_eq!(decided(phase, ROOT, (None, None)), Ok(None), "{phase}");
        }
    }

    #[test]
    fn a_creator_never_runs_programs_as_root_or_for_somebody_else() {
        let build = (Some(1001), Some(1002));
        assert_eq!(decided("creator", ROOT, build), Ok(Some(BUILD)));
        for asked in
            [(None, None), (Some(0), Some(0)), (Some(1001), None), (Some(1001), Some(0)), (None, Some(7))]
        {
            let error = decided("creator", ROOT, asked).unwrap_err();
            assert!(error.contains("refusing to run as root") && error.contains("-uid and -gid"), "{error}");
        }
        assert_eq!(decided("creator", BUILD, build), Ok(None));
        assert_eq!(decided("creator", BUILD, (None, None)), Ok(None));
        for (asked, shown) in
            [((Some(5), None), "user 5, group 1002"), ((Some(0), Some(0)), "user 0, group 0")]
        {
            let error = decided("creator", BUILD, asked).unwrap_err();
            let said = format!("runs as user 1001, group 1002 and cannot become {shown}");
            assert!(error.contains(&said), "{error}");
        }
    }

    #[test]
    fn the_home_is_the_user_s() {
        let home = |uid: u32, changed: bool| {
            let mut env: Env = [("HOME".into(), "/root".into())].into();
            let passwd =
                "root:x:0:0::/root:/bin/sh\ncnb:x:1001:1002::/home/cnb:/bin/sh\nbad:x:7\nempty:x:8:8:::\n";
            add_home(&mut env, passwd, User { uid, gid: 5 }, changed);
            env.into_values().next().unwrap()
        };
        assert_eq!(home(1001, true), "/home/cnb");
        assert_eq!(home(1001, false), "/home/cnb");
        for unknown in [7, 8, 9] {
            assert_eq!(home(unknown, true), "/", "{unknown}");
            assert_eq!(home(unknown, false), "/root", "{unknown}");
        }
    }

    #[test]
    fn whatever_is_left_of_root_is_seen() {
        let status = "Name:\tcreator\nUid:\t1001\t1001\t1001\t1001\nGid:\t1002\t1002\t1002\t1002\nGroups:\t \nCapInh:\t0000000000000001\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n";
        assert_eq!(kept(status, BUILD), None);
        for (good, bad, said) in [
            ("Uid:\t1001\t1001\t1001", "Uid:\t1001\t1001\t0", "Uid 1001 1001 0 1001"),
            ("Gid:\t1002", "Gid:\t0", "Gid 0 1002 1002 1002"),
            ("Groups:\t ", "Groups:\t0 10 ", "Groups 0 10"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000080", "CapPrm 0000000000000080"),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000000080", "CapEff 0000000000000080"),
            ("CapAmb:", "Cap:", "CapAmb (not told)"),
        ] {
            assert_eq!(kept(&status.replace(good, bad), BUILD).as_deref(), Some(said));
        }
    }
}
