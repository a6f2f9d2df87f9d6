//! The system call filter of every container: a list of what is allowed, compiled once by the launcher, loaded by
//! the container's process 1. Pure; see seccomp(2).
//!
//! Three programs are stacked, and the kernel takes the strictest answer, of two errors that of the program loaded
//! last: `clone3` (ENOSYS, so that C libraries fall back to `clone`, whose flags can be read), terminal injection, and
//! the list itself. What the list refuses gets EPERM; what is newer than everything on the list gets ENOSYS, because
//! C libraries take that alone for "this kernel is older" and fall back.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
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
    let newest = rules.keys().next_back().copied().unwrap_or_default();
    let mut list = newer_is_unknown(u32::try_from(newest).unwrap_or_default());
    list.extend(filter(rules, errno(libc::EPERM), SeccompAction::Allow)?);
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

/// The beginning of a program: the end of the process for numbers of x32 (bit 30 is set), under which no program of
/// ours calls and a filter is easily forgotten; ENOSYS for every other x86-64 number above `newest`; all else goes on
/// behind it.
fn newer_is_unknown(newest: u32) -> BpfProgram {
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const X32: u32 = 0x4000_0000;
    // Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let load = |k| sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k };
    let jump =
        |test: u32, k, jt, jf| sock_filter { code: (libc::BPF_JMP | libc::BPF_K | test) as u16, jt, jf, k };
    let answer = |k| sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    vec![
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, AUDIT_ARCH_X86_64, 0, 5),
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 2, 0),
        jump(libc::BPF_JGT, newest, 0, 2),
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
    ]
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
    let instruction = |n: &u64| sock_filter {
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

    /// The kernel's answer to a call, by the rules of seccomp(2): the programs run the last first, and the lowest of
    /// their actions counts, the first of equals.
    fn answer(architecture: u32, number: i64, arguments: &[u64]) -> u32 {
        let mut data = [u32::try_from(number).unwrap(), architecture, 0, 0].to_vec();
        for index in 0..6 {
            let argument = arguments.get(index).copied().unwrap_or_default();
            data.extend([argument as u32, (argument >> 32) as u32]);
        }
        let answers = programs().unwrap();
        let answers = answers.iter().rev().map(|program| run(program, &data));
        // Signed: the end of a process has the highest bit.
        let action = |answer: u32| (answer & 0xffff_0000).cast_signed();
        answers.reduce(|first, next| if action(next) < action(first) { next } else { first }).unwrap()
    }

    /// Classic BPF, as far as these programs go.
    fn run(program: &BpfProgram, data: &[u32]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let holds = match u32::from(code) {
                0x20 => {
                    accumulator = data[k as usize / 4];
                    at += 1;
                    continue;
                }
                0x54 => {
                    accumulator &= k;
                    at += 1;
                    continue;
                }
                0x05 => {
                    at += 1 + k as usize;
                    continue;
                }
                0x06 => return k,
                0x15 => accumulator == k,
                0x25 => accumulator > k,
                0x35 => accumulator >= k,
                other => panic!("instruction {other:#x}"),
            };
            at += 1 + usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn the_kernel_answers() {
        const X86_64: u32 = 0xc000_003e;
        const I386: u32 = 0x4000_0003;
        let error = |code: i32| libc::SECCOMP_RET_ERRNO | code as u32;
        let (allowed, refused, unknown) = (libc::SECCOMP_RET_ALLOW, error(libc::EPERM), error(libc::ENOSYS));
        let native = |number, arguments: &[u64]| answer(X86_64, number, arguments);
        assert_eq!(native(libc::SYS_read, &[]), allowed);
        assert_eq!(native(libc::SYS_mount, &[]), refused);
        assert_eq!(native(libc::SYS_clone3, &[]), unknown);
        assert_eq!(native(libc::SYS_clone, &[0x11]), allowed);
        assert_eq!(native(libc::SYS_clone, &[libc::CLONE_NEWUSER as u64]), refused);
        assert_eq!(native(libc::SYS_ioctl, &[0, libc::TIOCSTI]), refused);
        assert_eq!(native(libc::SYS_socket, &[libc::AF_INET as u64]), allowed);
        assert_eq!(native(libc::SYS_socket, &[libc::AF_VSOCK as u64]), refused);
        // Holes among the numbers on the list, and calls that it leaves out, are refused; what is newer is unknown.
        assert_eq!((native(400, &[]), native(457, &[]), native(462, &[])), (refused, refused, allowed));
        assert_eq!((native(463, &[]), native(0x3fff_ffff, &[])), (unknown, unknown));
        // x32 is another name for calls on the list; programs of either kind are none of ours.
        let ended = libc::SECCOMP_RET_KILL_PROCESS;
        assert_eq!((native(0x4000_0000, &[]), native(0x4000_0200, &[])), (ended, ended));
        assert_eq!(answer(I386, 463, &[]), ended);
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
