//! The system call filter of every container: a list of what is allowed, compiled once by the launcher, loaded by
//! the container's process 1. Pure; see seccomp(2).
//!
//! Three programs are stacked, and the kernel takes the strictest answer: the list itself (everything else: EPERM),
//! `clone3` (ENOSYS, so that C libraries fall back to `clone`, whose flags can be read), and terminal injection.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// The filter could not be compiled: a fault of ours.
#[derive(Debug, thiserror::Error)]
#[error("the system call filter could not be compiled")]
pub(crate) struct FilterError(#[from] seccompiler::BackendError);

/// All `CLONE_NEW*` flags of clone(2).
const NEW_NAMESPACES: u64 = 0x7e02_0080;

/// System calls that need no look at their arguments.
const ALLOWED: &[libc::c_long] = &include!("seccomp_allowed.in");

/// The programs to load, in order.
///
/// # Errors
/// [`FilterError`], never with the lists of this file (a test compiles them).
pub(crate) fn programs() -> Result<Vec<BpfProgram>, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let equal = |value: u64| SeccompCondition::new(0, Len::Dword, Op::Eq, value).map(|c| vec![c]);
    let one_of = |values: &[u64]| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        values.iter().map(|value| SeccompRule::new(equal(*value)?)).collect()
    };
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|family| family as u64);
    let mut sockets = one_of(&families)?;
    // Of netlink only the protocol that tells of interfaces and routes: others reach into the host's network.
    let argument = |index, value| SeccompCondition::new(index, Len::Dword, Op::Eq, value);
    let (netlink, route) = (libc::AF_NETLINK as u64, libc::NETLINK_ROUTE as u64);
    sockets.push(SeccompRule::new(vec![argument(0, netlink)?, argument(2, route)?])?);
    rules.insert(libc::SYS_socket, sockets);
    rules.insert(libc::SYS_socketpair, one_of(&[libc::AF_UNIX as u64])?);
    rules.insert(libc::SYS_personality, one_of(&[0, 0xffff_ffff])?);
    let no_namespace = SeccompCondition::new(0, Len::Qword, Op::MaskedEq(NEW_NAMESPACES), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]);
    rules.insert(libc::SYS_clone3, Vec::new());

    let errno = |code: i32| SeccompAction::Errno(code as u32);
    let list = filter(rules, errno(libc::EPERM), SeccompAction::Allow)?;
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = filter(clone3, SeccompAction::Allow, errno(libc::ENOSYS))?;
    let request = |value: u64| -> Result<SeccompRule, seccompiler::BackendError> {
        SeccompRule::new(vec![SeccompCondition::new(1, Len::Dword, Op::Eq, value)?])
    };
    let injection =
        BTreeMap::from([(libc::SYS_ioctl, vec![request(libc::TIOCSTI)?, request(libc::TIOCLINUX)?])]);
    let injection = filter(injection, SeccompAction::Allow, errno(libc::EPERM))?;
    // The list comes last: it does not allow seccomp(2) itself, so nothing can be loaded behind it.
    Ok(vec![clone3, injection, list])
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)?.try_into()
}

/// A program as numbers, for the file that process 1 reads.
pub(crate) fn encode(program: &BpfProgram) -> Vec<u64> {
    program
        .iter()
        .map(|i| u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k))
        .collect()
}

/// The inverse of [`encode`].
pub(crate) fn decode(numbers: &[u64]) -> BpfProgram {
    let instruction = |n: &u64| seccompiler::sock_filter {
        code: (n >> 48) as u16,
        jt: (n >> 40) as u8,
        jf: (n >> 32) as u8,
        k: *n as u32,
    };
    numbers.iter().map(instruction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_compile_and_survive_the_file() {
        let programs = programs().unwrap();
        assert_eq!(programs.len(), 3);
        for program in &programs {
            assert_eq!(&decode(&encode(program)), program);
        }
    }

    #[test]
    fn what_reaches_the_kernel_or_other_processes_is_not_on_the_list() {
        let denied = [
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_fsopen,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_mount_setattr,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kcmp,
            libc::SYS_pidfd_getfd,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_fanotify_init,
            libc::SYS_open_by_handle_at,
            libc::SYS_vmsplice,
            libc::SYS_quotactl,
            libc::SYS_syslog,
            libc::SYS_acct,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
        ];
        for call in denied {
            assert!(!ALLOWED.contains(&call), "system call {call} must not be allowed");
        }
    }
}
