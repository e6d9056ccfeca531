//! The compiler from the runtime spec's `linux.seccomp` to classic BPF.
//!
//! The program's shape:
//! ```text
//! load the architecture
//! x86_64 → its section   x86 → its section   anything else → kill the thread
//! section: load the number; binary tree of JGE over ranges of numbers with the same verdict
//! leaf: return an action, or test arguments rule by rule and return
//! ```
//!
//! What a section decides for a number, in this order (libseccomp and runc decide the same):
//! 1. Rules whose action is the default action count for nothing.
//! 2. A rule without conditions decides; of several, the first.
//! 3. Else the first rule all of whose conditions hold; else the default action.
//! 4. A number beyond the greatest that any rule names gives `ENOSYS`, if the default action is no permission:
//!    the profile's author cannot have known that call, and programs fall back when they see `ENOSYS`.
//!
//! Names that an architecture does not have are ignored there.

use std::collections::BTreeMap;

use oci::runtime::{
    self, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use crate::Arch;
use crate::syscalls::{self, Abi, X32_BIT};

/// `BPF_MAXINSNS`: the kernel refuses longer programs.
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Why a section cannot be compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("system call {syscall} has no argument {index}: a seccomp condition may use 0 to 5")]
    Argument { syscall: String, index: u32 },
    #[error("seccomp errno {0} is beyond the kernel's largest, 4095")]
    Errno(u32),
    #[error("seccomp filter needs {0} instructions, more than the {INSTRUCTIONS_MAX} that the kernel takes")]
    TooLong(usize),
}

/// Makes the filter: `struct sock_filter`s (8 bytes each, host byte order) for `seccomp(2)`.
pub fn compile(section: &LinuxSeccomp, arch: Arch) -> Result<Vec<u8>, Error> {
    let program = program(section, arch)?;
    if program.len() > INSTRUCTIONS_MAX {
        return Err(Error::TooLong(program.len()));
    }
    Ok(program.iter().flat_map(|instruction| instruction.bytes()).collect())
}

/// The flags to load the filter with: `SECCOMP_FILTER_FLAG_*`.
pub fn flags(section: &LinuxSeccomp) -> u32 {
    section.flags.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFlag::Tsync => 1 << 0,
                LinuxSeccompFlag::Log => 1 << 1,
                LinuxSeccompFlag::SpecAllow => 1 << 2,
                LinuxSeccompFlag::WaitKillableRecv => 1 << 5,
            }
    })
}

// --- instructions

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    /// Instructions to skip if the comparison holds.
    jt: u8,
    /// And if it does not.
    jf: u8,
    k: u32,
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_ne_bytes();
        let [k0, k1, k2, k3] = self.k.to_ne_bytes();
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }
}

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Offsets of an argument's halves. Both architectures are little-endian.
fn halves(index: u32) -> (u32, u32) {
    let low = ARGUMENTS + 8 * index;
    (low + 4, low)
}

// --- actions

const KILL_THREAD: u32 = 0x0000_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const ERRNO_MAX: u32 = 4095;

/// The value that the filter returns for an action of the spec.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Error> {
    let data = errno.unwrap_or(EPERM);
    if data > ERRNO_MAX {
        return Err(Error::Errno(data));
    }
    Ok(match action {
        LinuxSeccompAction::Allow => ALLOW,
        LinuxSeccompAction::Errno => ERRNO | data,
        LinuxSeccompAction::KillThread => KILL_THREAD,
        LinuxSeccompAction::KillProcess => KILL_PROCESS,
        LinuxSeccompAction::Trap => TRAP,
        LinuxSeccompAction::Trace => TRACE | data,
        LinuxSeccompAction::Log => LOG,
        LinuxSeccompAction::Notify => NOTIFY,
    })
}

/// Whether a call with this verdict is carried out (perhaps after a tracer agreed).
fn permits(verdict: u32) -> bool {
    matches!(verdict & 0xffff_0000, ALLOW | LOG | TRACE | NOTIFY)
}

// --- rules

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    index: u32,
    test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessEqual(u64),
    Greater(u64),
    GreaterEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
}

impl Condition {
    fn new(syscall: &str, arg: &LinuxSeccompArg) -> Result<Condition, Error> {
        if arg.index > 5 {
            return Err(Error::Argument { syscall: syscall.into(), index: arg.index });
        }
        let test = match arg.op {
            LinuxSeccompOperator::Equal => Test::Equal(arg.value),
            LinuxSeccompOperator::NotEqual => Test::NotEqual(arg.value),
            LinuxSeccompOperator::LessThan => Test::Less(arg.value),
            LinuxSeccompOperator::LessOrEqual => Test::LessEqual(arg.value),
            LinuxSeccompOperator::GreaterThan => Test::Greater(arg.value),
            LinuxSeccompOperator::GreaterOrEqual => Test::GreaterEqual(arg.value),
            LinuxSeccompOperator::MaskedEqual => {
                Test::MaskedEqual { mask: arg.value, value: arg.value_two & arg.value }
            }
        };
        Ok(Condition { index: arg.index, test })
    }
}

/// What is decided about one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Always(u32),
    /// The first whose conditions all hold, else the default.
    Rules(Vec<(Vec<Condition>, u32)>),
}

/// Conditions of one rule as alternatives. They hold together, unless two look at the same argument: such
/// rules were written for a library that could not express that, and mean "or" (as in runc).
fn alternatives(name: &str, rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, Error> {
    let conditions: Vec<Condition> =
        rule.args.iter().map(|arg| Condition::new(name, arg)).collect::<Result<_, _>>()?;
    let repeated = conditions.iter().enumerate().any(|(position, condition)| {
        conditions[..position].iter().any(|earlier| earlier.index == condition.index)
    });
    Ok(if repeated {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    })
}

/// The verdicts of one ABI by system call number.
fn verdicts(section: &LinuxSeccomp, abi: Abi, default: u32) -> Result<BTreeMap<u32, Verdict>, Error> {
    let mut verdicts = BTreeMap::new();
    for rule in &section.syscalls {
        let value = action(rule.action, rule.errno_ret)?;
        if value == default {
            continue;
        }
        for name in &rule.names {
            let Some(number) = syscalls::number(abi, name) else { continue };
            if rule.args.is_empty() {
                let verdict = verdicts.entry(number).or_insert(Verdict::Always(value));
                if matches!(verdict, Verdict::Rules(_)) {
                    *verdict = Verdict::Always(value);
                }
            } else if let Verdict::Rules(rules) = verdicts.entry(number).or_insert(Verdict::Rules(Vec::new()))
            {
                rules.extend(alternatives(name, rule)?.into_iter().map(|conditions| (conditions, value)));
            }
        }
    }
    Ok(verdicts)
}

/// The greatest number that any rule names, the ones with the default action included.
fn last_known(section: &LinuxSeccomp, abi: Abi) -> Option<u32> {
    let names = section.syscalls.iter().flat_map(|rule| &rule.names);
    names.filter_map(|name| syscalls::number(abi, name)).max()
}

// --- sections

/// The ABIs that share one value of `seccomp_data.arch`.
struct Section {
    audit: u32,
    /// Argument registers are 32 bits wide.
    narrow: bool,
    abi: Abi,
    /// Served from the same section, above [`X32_BIT`].
    x32: bool,
}

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_X86: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARM: u32 = 0x4000_0028;

/// The native architecture, and those of the spec's that a kernel of it can run.
fn sections(section: &LinuxSeccomp, arch: Arch) -> Vec<Section> {
    let asked = |architecture| section.architectures.contains(&architecture);
    match arch {
        Arch::X86_64 => {
            let x32 = asked(runtime::Arch::X32);
            let native = Section { audit: AUDIT_X86_64, narrow: false, abi: Abi::X86_64, x32 };
            let compat = Section { audit: AUDIT_X86, narrow: true, abi: Abi::X86, x32: false };
            if asked(runtime::Arch::X86) { vec![native, compat] } else { vec![native] }
        }
        Arch::Aarch64 => {
            let native = Section { audit: AUDIT_AARCH64, narrow: false, abi: Abi::Aarch64, x32: false };
            let compat = Section { audit: AUDIT_ARM, narrow: true, abi: Abi::Arm, x32: false };
            if asked(runtime::Arch::Arm) { vec![native, compat] } else { vec![native] }
        }
    }
}

fn program(section: &LinuxSeccomp, arch: Arch) -> Result<Vec<Instruction>, Error> {
    let default = action(section.default_action, section.default_errno_ret)?;
    let mut program = vec![plain(LOAD_WORD, ARCHITECTURE)];
    for part in sections(section, arch) {
        let ranges = ranges(section, &part, default)?;
        let mut body = vec![plain(LOAD_WORD, NUMBER)];
        body.extend(tree(&ranges, default)?);
        // A section is longer than a conditional jump can reach.
        program.push(jump(JUMP_EQUAL, part.audit, 1, 0));
        program.push(plain(JUMP, body.len() as u32));
        program.extend(body);
    }
    program.push(plain(RETURN, KILL_THREAD));
    Ok(program)
}

/// From a number on, up to the next range.
struct Range {
    start: u32,
    verdict: Verdict,
    narrow: bool,
}

/// All numbers of a section, as ascending ranges from 0 without gaps; neighbours differ.
fn ranges(section: &LinuxSeccomp, part: &Section, default: u32) -> Result<Vec<Range>, Error> {
    let mut ranges = Vec::new();
    ranges_of_abi(&mut ranges, section, part.abi, 0, part.narrow, default)?;
    if part.x32 {
        // Registers are wide, but the values are 32-bit integers and pointers.
        ranges_of_abi(&mut ranges, section, Abi::X32, X32_BIT, true, default)?;
    } else if part.abi == Abi::X86_64 && permits(default) {
        // The x32 twin of a refused call must not get by under the default.
        ranges.push(Range { start: X32_BIT, verdict: Verdict::Always(KILL_THREAD), narrow: false });
        // A tracer that skips a call sets it to -1.
        ranges.push(Range { start: u32::MAX, verdict: Verdict::Always(default), narrow: false });
    }
    ranges.dedup_by(|later, earlier| {
        later.verdict == earlier.verdict && matches!(later.verdict, Verdict::Always(_))
    });
    Ok(ranges)
}

fn ranges_of_abi(
    ranges: &mut Vec<Range>,
    section: &LinuxSeccomp,
    abi: Abi,
    first: u32,
    narrow: bool,
    default: u32,
) -> Result<(), Error> {
    let mut next = first;
    for (number, verdict) in verdicts(section, abi, default)? {
        if number > next {
            ranges.push(Range { start: next, verdict: Verdict::Always(default), narrow });
        }
        ranges.push(Range { start: number, verdict, narrow });
        next = number + 1;
    }
    let unknown = last_known(section, abi).map_or(first, |last| last + 1);
    if permits(default) {
        ranges.push(Range { start: next, verdict: Verdict::Always(default), narrow });
    } else {
        if unknown > next {
            ranges.push(Range { start: next, verdict: Verdict::Always(default), narrow });
        }
        ranges.push(Range { start: unknown, verdict: Verdict::Always(ERRNO | ENOSYS), narrow });
    }
    Ok(())
}

// --- code

/// The balanced tree over ranges, with the number in the accumulator.
fn tree(ranges: &[Range], default: u32) -> Result<Vec<Instruction>, Error> {
    if let [range] = ranges {
        return Ok(leaf(range, default));
    }
    let (below, from) = ranges.split_at(ranges.len() / 2);
    let pivot = from[0].start;
    let (below, from) = (tree(below, default)?, tree(from, default)?);
    let mut code = Vec::with_capacity(below.len() + from.len() + 2);
    match u8::try_from(below.len()) {
        Ok(distance) => code.push(jump(JUMP_GREATER_EQUAL, pivot, distance, 0)),
        Err(_) => {
            code.push(jump(JUMP_GREATER_EQUAL, pivot, 0, 1));
            code.push(plain(JUMP, below.len() as u32));
        }
    }
    code.extend(below);
    code.extend(from);
    if code.len() > INSTRUCTIONS_MAX { Err(Error::TooLong(code.len())) } else { Ok(code) }
}

fn leaf(range: &Range, default: u32) -> Vec<Instruction> {
    match &range.verdict {
        Verdict::Always(value) => vec![plain(RETURN, *value)],
        Verdict::Rules(rules) => {
            let mut code: Vec<Instruction> =
                rules.iter().flat_map(|(conditions, value)| rule(conditions, *value, range.narrow)).collect();
            code.push(plain(RETURN, default));
            code
        }
    }
}

/// All conditions, then the return; a condition that fails jumps past the return.
fn rule(conditions: &[Condition], value: u32, narrow: bool) -> Vec<Instruction> {
    let mut code = vec![plain(RETURN, value)];
    // Back to front, so that the distance to the end is known. At most 6 conditions of 6 instructions each: it
    // fits a conditional jump.
    for condition in conditions.iter().rev() {
        let failure = code.len() as u8;
        let mut test = if narrow { test_low(condition, failure) } else { test_wide(condition, failure) };
        test.append(&mut code);
        code = test;
    }
    code
}

/// Tests the low half only. `failure` is the distance from the end of the test to the end of the rule.
fn test_low(condition: &Condition, failure: u8) -> Vec<Instruction> {
    let load = plain(LOAD_WORD, halves(condition.index).1);
    let low = |value: u64| value as u32;
    let (code, value, negated) = match condition.test {
        Test::Equal(value) => (JUMP_EQUAL, value, false),
        Test::NotEqual(value) => (JUMP_EQUAL, value, true),
        Test::Greater(value) => (JUMP_GREATER, value, false),
        Test::LessEqual(value) => (JUMP_GREATER, value, true),
        Test::GreaterEqual(value) => (JUMP_GREATER_EQUAL, value, false),
        Test::Less(value) => (JUMP_GREATER_EQUAL, value, true),
        Test::MaskedEqual { mask, value } => {
            return vec![load, plain(AND, low(mask)), jump(JUMP_EQUAL, low(value), 0, failure)];
        }
    };
    let (jt, jf) = if negated { (failure, 0) } else { (0, failure) };
    vec![load, jump(code, low(value), jt, jf)]
}

/// Tests both halves, the high one first.
fn test_wide(condition: &Condition, failure: u8) -> Vec<Instruction> {
    let (high_at, low_at) = halves(condition.index);
    let split = |value: u64| ((value >> 32) as u32, value as u32);
    let equality = |value, success: u8, mismatch: u8| {
        let (high, low) = split(value);
        // From the first comparison on, two more instructions follow within the test.
        vec![
            plain(LOAD_WORD, high_at),
            jump(JUMP_EQUAL, high, 0, mismatch + 2),
            plain(LOAD_WORD, low_at),
            jump(JUMP_EQUAL, low, success, mismatch),
        ]
    };
    let order = |code, value, success: u8, otherwise: u8| {
        let (high, low) = split(value);
        vec![
            plain(LOAD_WORD, high_at),
            jump(JUMP_GREATER, high, success + 3, 0),
            jump(JUMP_EQUAL, high, 0, otherwise + 2),
            plain(LOAD_WORD, low_at),
            jump(code, low, success, otherwise),
        ]
    };
    match condition.test {
        Test::Equal(value) => equality(value, 0, failure),
        Test::NotEqual(value) => equality(value, failure, 0),
        Test::Greater(value) => order(JUMP_GREATER, value, 0, failure),
        Test::GreaterEqual(value) => order(JUMP_GREATER_EQUAL, value, 0, failure),
        Test::LessEqual(value) => order(JUMP_GREATER, value, failure, 0),
        Test::Less(value) => order(JUMP_GREATER_EQUAL, value, failure, 0),
        Test::MaskedEqual { mask, value } => {
            let ((mask_high, mask_low), (high, low)) = (split(mask), split(value));
            vec![
                plain(LOAD_WORD, high_at),
                plain(AND, mask_high),
                jump(JUMP_EQUAL, high, 0, failure + 3),
                plain(LOAD_WORD, low_at),
                plain(AND, mask_low),
                jump(JUMP_EQUAL, low, 0, failure),
            ]
        }
    }
}
