use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::*;

const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

const fn error(code: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | code as u32
}

const ALLOWED_ANSWER: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSED: u32 = error(libc::EPERM);
const UNKNOWN: u32 = error(libc::ENOSYS);
const ENDED: u32 = libc::SECCOMP_RET_KILL_PROCESS;

fn data(architecture: u32, number: u32, arguments: &[u64]) -> Vec<u32> {
    let mut data = [number, architecture, 0, 0].to_vec();
    for index in 0..6 {
        let argument = arguments.get(index).copied().unwrap_or_default();
        data.extend([argument as u32, (argument >> 32) as u32]);
    }
    data
}

/// Classic BPF, as far as these programs go: the answer, and after how many instructions it was there.
fn run(program: BpfProgramRef<'_>, data: &[u32]) -> (u32, usize) {
    let (mut at, mut accumulator) = (0, 0);
    for count in 1.. {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match u32::from(code) {
            0x20 => {
                accumulator = data[k as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return (k, count),
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
    unreachable!("every jump is forward")
}

fn answer(architecture: u32, number: i64, arguments: &[u64]) -> u32 {
    run(program(), &data(architecture, u32::try_from(number).unwrap(), arguments)).0
}

#[test]
fn the_kernel_answers() {
    let native = |number, arguments: &[u64]| answer(AUDIT_ARCH_X86_64, number, arguments);
    assert_eq!(native(libc::SYS_read, &[]), ALLOWED_ANSWER);
    assert_eq!(native(libc::SYS_mount, &[]), REFUSED);
    assert_eq!(native(libc::SYS_clone3, &[]), UNKNOWN);
    assert_eq!(native(libc::SYS_clone, &[0x11]), ALLOWED_ANSWER);
    assert_eq!(native(libc::SYS_clone, &[libc::CLONE_NEWUSER as u64]), REFUSED);
    assert_eq!(native(libc::SYS_ioctl, &[0, libc::TIOCSTI]), REFUSED);
    assert_eq!(native(libc::SYS_socket, &[libc::AF_INET as u64]), ALLOWED_ANSWER);
    assert_eq!(native(libc::SYS_socket, &[libc::AF_VSOCK as u64]), REFUSED);
    // Holes among the numbers on the list, and calls that it leaves out, are refused; what is newer is unknown.
    assert_eq!((native(400, &[]), native(457, &[]), native(462, &[])), (REFUSED, REFUSED, ALLOWED_ANSWER));
    assert_eq!((native(463, &[]), native(0x3fff_ffff, &[])), (UNKNOWN, UNKNOWN));
    // x32 is another name for calls on the list; programs of either kind are none of ours.
    assert_eq!((native(0x4000_0000, &[]), native(0x4000_0200, &[])), (ENDED, ENDED));
    assert_eq!(answer(I386, 463, &[]), ENDED);
}

/// The same lists as a library compiles them, and the answer that the kernel takes of its three programs: the strictest.
struct Reference(Vec<BpfProgram>);

impl Reference {
    fn new() -> Result<Self, BackendError> {
        let equal = |index, value: u64| SeccompCondition::new(index, Len::Dword, Op::Eq, value);
        let one_of = |index, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
            values.iter().map(|value| SeccompRule::new(vec![equal(index, *value)?])).collect()
        };
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|family| family as u64);
        let mut sockets = one_of(0, &families)?;
        let (netlink, route) = (libc::AF_NETLINK as u64, libc::NETLINK_ROUTE as u64);
        sockets.push(SeccompRule::new(vec![equal(0, netlink)?, equal(2, route)?])?);
        rules.insert(libc::SYS_socket, sockets);
        rules.insert(libc::SYS_socketpair, one_of(0, &[libc::AF_UNIX as u64])?);
        rules.insert(libc::SYS_personality, one_of(0, &[0, 0xffff_ffff])?);
        let no_namespace = SeccompCondition::new(0, Len::Qword, Op::MaskedEq(NEW_NAMESPACES.into()), 0)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]);
        rules.insert(libc::SYS_clone3, Vec::new());
        let filter = |rules, otherwise, matched| -> Result<BpfProgram, BackendError> {
            SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)?.try_into()
        };
        let refused = SeccompAction::Errno(libc::EPERM as u32);
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let injection = BTreeMap::from([(libc::SYS_ioctl, one_of(1, &[libc::TIOCSTI, libc::TIOCLINUX])?)]);
        Ok(Self(vec![
            filter(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?,
            filter(injection, SeccompAction::Allow, refused.clone())?,
            filter(rules, refused, SeccompAction::Allow)?,
        ]))
    }

    fn answer(&self, data: &[u32]) -> u32 {
        // Of what is newer the library knows nothing.
        if data[1] == AUDIT_ARCH_X86_64 && data[0] > NEWEST as u32 {
            return if data[0] < X32 { UNKNOWN } else { ENDED };
        }
        // Of two errors the kernel takes that of the program that was loaded last.
        let answers = self.0.iter().rev().map(|program| run(program, data).0);
        let action = |answer: u32| (answer & 0xffff_0000).cast_signed();
        answers.reduce(|first, next| if action(next) < action(first) { next } else { first }).unwrap()
    }
}

#[test]
fn a_library_makes_the_same_of_the_lists() {
    let reference = Reference::new().unwrap();
    let check = |architecture, number, arguments: &[u64]| {
        let data = data(architecture, number, arguments);
        let (ours, theirs) = (run(program(), &data).0, reference.answer(&data));
        assert_eq!(ours, theirs, "{architecture:#x} {number:#x} {arguments:x?}");
    };
    let odd = [NEWEST as u32 + 1, X32 - 1, X32, X32 + 59, X32 + 512, i32::MAX as u32, 1 << 31, u32::MAX];
    for number in (0..1024).chain(odd) {
        for architecture in [AUDIT_ARCH_X86_64, I386, AARCH64, 0] {
            check(architecture, number, &[]);
        }
        check(AUDIT_ARCH_X86_64, number, &[u64::MAX; 6]);
    }
    let mut values: Vec<u64> = (0..64).map(|bit| 1 << bit).chain(0..48).collect();
    values.extend([libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSTI | 1 << 32, u32::MAX.into(), u64::MAX, 0x11]);
    for (call, _) in LOOKED_AT {
        let number = u32::try_from(*call).unwrap();
        for value in &values {
            for other in [0, 1, 16, 1 << 40, u64::MAX] {
                check(AUDIT_ARCH_X86_64, number, &[*value, other, other]);
                check(AUDIT_ARCH_X86_64, number, &[other, *value, other]);
                check(AUDIT_ARCH_X86_64, number, &[other, other, *value]);
            }
        }
    }
    for family in 0..64 {
        for protocol in 0..64 {
            check(AUDIT_ARCH_X86_64, libc::SYS_socket as u32, &[family, 3, protocol]);
        }
    }
}

#[test]
fn what_becomes_of_each_number() {
    let intervals = Intervals::all();
    let found = &intervals.found[..intervals.length];
    let lines = found.iter().enumerate().map(|(at, (first, verdict))| {
        let last = found.get(at + 1).map_or(u32::MAX, |(next, _)| next - 1);
        format!("{first}..={last} {verdict:?}")
    });
    let longest = (0..=NEWEST as u32).map(|number| run(program(), &data(AUDIT_ARCH_X86_64, number, &[])).1);
    let length = format!("{} instructions, of which {} run at most", program().len(), longest.max().unwrap());
    insta::assert_snapshot!(lines.chain([length]).collect::<Vec<_>>().join("\n"));
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
        // Nothing is loaded behind the filter.
        libc::SYS_seccomp,
    ];
    for call in denied {
        assert!(!ALLOWED.contains(&call), "system call {call} must not be allowed");
    }
}
