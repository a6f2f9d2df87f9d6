//! The system call filter of every container: what is allowed, as one program that is made when this is compiled and
//! loaded by the container's process 1 just before it executes the phase. Pure; see seccomp(2).
//!
//! The program looks at the architecture, halves the numbers until one interval of them is left, and for a few calls
//! looks at arguments. Its length counts: to load it the kernel runs it once for each number it knows, and later for
//! each call whose arguments matter.
//!
//! What is not on the list gets EPERM; `clone3`, and what is newer than everything on the list, gets ENOSYS, because C
//! libraries take that alone for "this kernel is older" and fall back: to `clone`, whose flags can be read.

use nix::libc;
use seccompiler::{BpfProgramRef, sock_filter};

/// All `CLONE_NEW*` flags of clone(2).
const NEW_NAMESPACES: u32 = 0x7e02_0080;

/// System calls that need no look at their arguments.
const ALLOWED: &[libc::c_long] = &include!("seccomp_allowed.in");

/// Those that are no matter of yes or no.
const LOOKED_AT: &[(libc::c_long, Verdict)] = &[
    (libc::SYS_clone, Verdict::Clone),
    (libc::SYS_clone3, Verdict::Unknown),
    (libc::SYS_ioctl, Verdict::Ioctl),
    (libc::SYS_personality, Verdict::Personality),
    (libc::SYS_socket, Verdict::Socket),
    (libc::SYS_socketpair, Verdict::SocketPair),
];

/// What becomes of a call: a block of the program. Blocks lie in this order, because a program jumps only forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clone,
    Ioctl,
    Personality,
    Socket,
    SocketPair,
    Allow,
    Refuse,
    Unknown,
    Kill,
}

/// The last of [`Verdict`] and those before it.
const VERDICTS: [Verdict; 9] = [
    Verdict::Clone,
    Verdict::Ioctl,
    Verdict::Personality,
    Verdict::Socket,
    Verdict::SocketPair,
    Verdict::Allow,
    Verdict::Refuse,
    Verdict::Unknown,
    Verdict::Kill,
];

/// An instruction.
#[derive(Clone, Copy)]
enum Step {
    /// 32 bits of `struct seccomp_data`, by their offset there.
    Load(u32),
    /// Where to go if what was loaded is this value, and if not.
    Equal(u32, To, To),
    /// Where to go if what was loaded has one of these bits, and if not.
    Any(u32, To, To),
    Answer(u32),
}

#[derive(Clone, Copy)]
enum To {
    Next,
    Block(Verdict),
}

const ALLOW: To = To::Block(Verdict::Allow);
const REFUSE: To = To::Block(Verdict::Refuse);

/// Offsets in `struct seccomp_data`; of an argument the lower half, which is all that the kernel takes of these.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: [u32; 3] = [16, 24, 32];

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Numbers from here on are x32's, another name for calls on the list, under which no program of ours calls and a
/// filter is easily forgotten.
const X32: u32 = 0x4000_0000;

/// What every call goes through first.
const HEAD: &[Step] = &[
    Step::Load(ARCHITECTURE),
    Step::Equal(AUDIT_ARCH_X86_64, To::Next, To::Block(Verdict::Kill)),
    Step::Load(NUMBER),
];

impl Verdict {
    const fn steps(self) -> &'static [Step] {
        match self {
            Self::Clone => &[Step::Load(ARGUMENTS[0]), Step::Any(NEW_NAMESPACES, REFUSE, ALLOW)],
            // Terminal injection.
            Self::Ioctl => &[
                Step::Load(ARGUMENTS[1]),
                Step::Equal(libc::TIOCSTI as u32, REFUSE, To::Next),
                Step::Equal(libc::TIOCLINUX as u32, REFUSE, ALLOW),
            ],
            // The usual one, and the question which one it is.
            Self::Personality => &[
                Step::Load(ARGUMENTS[0]),
                Step::Equal(0, ALLOW, To::Next),
                Step::Equal(0xffff_ffff, ALLOW, REFUSE),
            ],
            // Of netlink only the protocol that tells of interfaces and routes: others reach into the host's network.
            Self::Socket => &[
                Step::Load(ARGUMENTS[0]),
                Step::Equal(libc::AF_UNIX as u32, ALLOW, To::Next),
                Step::Equal(libc::AF_INET as u32, ALLOW, To::Next),
                Step::Equal(libc::AF_INET6 as u32, ALLOW, To::Next),
                Step::Equal(libc::AF_NETLINK as u32, To::Next, REFUSE),
                Step::Load(ARGUMENTS[2]),
                Step::Equal(libc::NETLINK_ROUTE as u32, ALLOW, REFUSE),
            ],
            Self::SocketPair => &[Step::Load(ARGUMENTS[0]), Step::Equal(libc::AF_UNIX as u32, ALLOW, REFUSE)],
            Self::Allow => &[Step::Answer(libc::SECCOMP_RET_ALLOW)],
            Self::Refuse => &[Step::Answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32)],
            Self::Unknown => &[Step::Answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)],
            Self::Kill => &[Step::Answer(libc::SECCOMP_RET_KILL_PROCESS)],
        }
    }
}

/// The first numbers of intervals that share a verdict, in order, and their verdicts.
struct Intervals {
    found: [(u32, Verdict); Intervals::MOST],
    length: usize,
}

impl Intervals {
    const MOST: usize = 200;

    const fn all() -> Self {
        let by_number = by_number();
        let mut all = Self { found: [(0, by_number[0]); Self::MOST], length: 1 };
        let mut number = 1;
        while number < by_number.len() {
            all.add(number as u32, by_number[number]);
            number += 1;
        }
        all.add(number as u32, Verdict::Unknown);
        all.add(X32, Verdict::Kill);
        all
    }

    const fn add(&mut self, number: u32, verdict: Verdict) {
        if self.found[self.length - 1].1 as u8 != verdict as u8 {
            self.found[self.length] = (number, verdict);
            self.length += 1;
        }
    }
}

/// The highest number on a list.
const NEWEST: usize = {
    let (mut newest, mut at) = (0, 0);
    while at < ALLOWED.len() {
        newest = if ALLOWED[at] > newest { ALLOWED[at] } else { newest };
        at += 1;
    }
    newest as usize
};

const fn by_number() -> [Verdict; NEWEST + 1] {
    let mut verdicts = [Verdict::Refuse; NEWEST + 1];
    let mut at = 0;
    while at < ALLOWED.len() {
        verdicts[ALLOWED[at] as usize] = Verdict::Allow;
        at += 1;
    }
    at = 0;
    while at < LOOKED_AT.len() {
        verdicts[LOOKED_AT[at].0 as usize] = LOOKED_AT[at].1;
        at += 1;
    }
    verdicts
}

/// A program while it is made. What does not fit, or is too far for a jump, does not compile.
struct Program {
    code: [sock_filter; Program::MOST],
    length: usize,
    /// Where each block begins.
    blocks: [usize; VERDICTS.len()],
}

impl Program {
    const MOST: usize = 255;

    const fn make() -> Self {
        let intervals = Intervals::all();
        let mut blocks = [0; VERDICTS.len()];
        // Of intervals there is one more than of places between them.
        let (mut begin, mut at) = (HEAD.len() + intervals.length - 1, 0);
        while at < VERDICTS.len() {
            assert!(VERDICTS[at] as usize == at);
            blocks[at] = begin;
            begin += VERDICTS[at].steps().len();
            at += 1;
        }
        let nothing = [const { sock_filter { code: 0, jt: 0, jf: 0, k: 0 } }; Self::MOST];
        let mut program = Self { code: nothing, length: 0, blocks };
        program.steps(HEAD);
        program.search(&intervals, 0, intervals.length);
        at = 0;
        while at < VERDICTS.len() {
            assert!(program.length == blocks[at]);
            program.steps(VERDICTS[at].steps());
            at += 1;
        }
        program
    }

    const fn push(&mut self, code: u32, k: u32, then: usize, otherwise: usize) {
        const fn distance(from: usize, to: usize) -> u8 {
            assert!(from < to && to - from - 1 <= u8::MAX as usize);
            (to - from - 1) as u8
        }
        let (jt, jf) = (distance(self.length, then), distance(self.length, otherwise));
        self.code[self.length] = sock_filter { code: code as u16, jt, jf, k };
        self.length += 1;
    }

    const fn steps(&mut self, steps: &[Step]) {
        let mut at = 0;
        while at < steps.len() {
            let next = self.length + 1;
            match steps[at] {
                Step::Load(k) => self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, k, next, next),
                Step::Answer(k) => self.push(libc::BPF_RET | libc::BPF_K, k, next, next),
                Step::Equal(k, then, otherwise) => self.jump(libc::BPF_JEQ, k, then, otherwise),
                Step::Any(k, then, otherwise) => self.jump(libc::BPF_JSET, k, then, otherwise),
            }
            at += 1;
        }
    }

    const fn jump(&mut self, test: u32, k: u32, then: To, otherwise: To) {
        let (then, otherwise) = (self.place(then), self.place(otherwise));
        self.push(libc::BPF_JMP | libc::BPF_K | test, k, then, otherwise);
    }

    const fn place(&self, to: To) -> usize {
        match to {
            To::Next => self.length + 1,
            To::Block(verdict) => self.blocks[verdict as usize],
        }
    }

    /// One instruction less than there are intervals from `first` to before `end`: the middle one, those below it, those
    /// from it on.
    const fn search(&mut self, intervals: &Intervals, first: usize, end: usize) {
        if end - first < 2 {
            return;
        }
        let middle = first.midpoint(end);
        let below = self.target(intervals, first, middle, self.length + 1);
        let from = self.target(intervals, middle, end, self.length + middle - first);
        self.push(libc::BPF_JMP | libc::BPF_K | libc::BPF_JGE, intervals.found[middle].0, from, below);
        self.search(intervals, first, middle);
        self.search(intervals, middle, end);
    }

    /// Where the search goes on at `begin`, or, where one interval is left, that one's block.
    const fn target(&self, intervals: &Intervals, first: usize, end: usize, begin: usize) -> usize {
        if end - first == 1 { self.blocks[intervals.found[first].1 as usize] } else { begin }
    }
}

static PROGRAM: Program = Program::make();

/// The program to load.
pub(crate) fn program() -> BpfProgramRef<'static> {
    &PROGRAM.code[..PROGRAM.length]
}

#[cfg(test)]
mod tests;
