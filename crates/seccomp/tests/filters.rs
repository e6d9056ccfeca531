//! Compiled filters against a direct reading of the section they were made from.
//!
//! Each program is run by a small interpreter over all system call numbers with sample arguments, and must
//! give what [`expected`] finds by going through the rules.

use oci::runtime::{
    self, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};
use proptest::prelude::*;
use seccomp::syscalls::{self, Abi};
use seccomp::{Arch, Error, Kernel, compile, default_profile, flags};

const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Call {
    audit: u32,
    number: u32,
    args: [u64; 6],
}

/// Runs a program as the kernel would; anything that its verifier refuses is a panic.
fn run(program: &[u8], call: Call) -> u32 {
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty() && !instructions.is_empty() && instructions.len() <= seccomp::INSTRUCTIONS_MAX);
    let (mut accumulator, mut at) = (0u32, 0);
    loop {
        let [c0, c1, jt, jf, k0, k1, k2, k3] = instructions[at];
        let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1 + match code {
            0x20 => {
                accumulator = load(call, k);
                0
            }
            0x54 => {
                accumulator &= k;
                0
            }
            0x05 => k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        };
    }
}

fn load(call: Call, offset: u32) -> u32 {
    match offset {
        0 => call.number,
        4 => call.audit,
        16..=63 if offset.is_multiple_of(4) => {
            let argument = call.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
        _ => panic!("load from {offset}"),
    }
}

fn value(action: Action, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1);
    match action {
        Action::Allow => ALLOW,
        Action::Errno => ERRNO | data,
        Action::KillThread => KILL_THREAD,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Trace => 0x7ff0_0000 | data,
        Action::Log => 0x7ffc_0000,
        Action::Notify => 0x7fc0_0000,
    }
}

fn holds(arg: &LinuxSeccompArg, args: [u64; 6], narrow: bool) -> bool {
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let (actual, value) = (cut(args[arg.index as usize]), cut(arg.value));
    match arg.op {
        Operator::Equal => actual == value,
        Operator::NotEqual => actual != value,
        Operator::LessThan => actual < value,
        Operator::LessOrEqual => actual <= value,
        Operator::GreaterThan => actual > value,
        Operator::GreaterOrEqual => actual >= value,
        Operator::MaskedEqual => actual & value == cut(arg.value_two) & value,
    }
}

fn rule_holds(rule: &LinuxSyscall, args: [u64; 6], narrow: bool) -> bool {
    let mut indexes: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.len() == rule.args.len() {
        rule.args.iter().all(|arg| holds(arg, args, narrow))
    } else {
        rule.args.iter().any(|arg| holds(arg, args, narrow))
    }
}

/// The verdict on a call, or none where the section leaves the ABI out.
fn expected(section: &LinuxSeccomp, abi: Abi, call: Call) -> u32 {
    let narrow = matches!(abi, Abi::X86 | Abi::Arm | Abi::X32);
    let default = value(section.default_action, section.default_errno_ret);
    let named =
        |rule: &LinuxSyscall| rule.names.iter().any(|name| syscalls::number(abi, name) == Some(call.number));
    let rules = || {
        section
            .syscalls
            .iter()
            .filter(|rule| named(rule))
            .map(|rule| (rule, value(rule.action, rule.errno_ret)))
    };
    let counting = || rules().filter(|&(_, value)| value != default);
    if let Some((_, value)) = counting().find(|(rule, _)| rule.args.is_empty()) {
        return value;
    }
    if let Some((_, value)) = counting().find(|(rule, _)| rule_holds(rule, call.args, narrow)) {
        return value;
    }
    let last = section
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .filter_map(|name| syscalls::number(abi, name))
        .max();
    let permissive = matches!(default & 0xffff_0000, 0x7fff_0000 | 0x7ffc_0000 | 0x7ff0_0000 | 0x7fc0_0000);
    if permissive || last.is_some_and(|last| call.number <= last) { default } else { ENOSYS }
}

/// Compares over every number that any ABI has and some that none has.
fn check(section: &LinuxSeccomp, arch: Arch, samples: &[[u64; 6]]) {
    let program = compile(section, arch).unwrap();
    let asked = |architecture| section.architectures.contains(&architecture);
    let parts: &[(u32, Abi, bool)] = match arch {
        Arch::X86_64 => &[
            (0xc000_003e, Abi::X86_64, true),
            (0x4000_0003, Abi::X86, asked(runtime::Arch::X86)),
            (0xc000_003e, Abi::X32, asked(runtime::Arch::X32)),
        ],
        Arch::Aarch64 => {
            &[(0xc000_00b7, Abi::Aarch64, true), (0x4000_0028, Abi::Arm, asked(runtime::Arch::Arm))]
        }
    };
    for &(audit, abi, present) in parts {
        let base = if abi == Abi::X32 { syscalls::X32_BIT } else { 0 };
        let numbers = (0..620).chain([983_041, 983_042, 983_045, 983_046, 0x3fff_ffff]).map(|n| base + n);
        for number in numbers {
            for &args in samples {
                let call = Call { audit, number, args };
                let got = run(&program, call);
                if present {
                    assert_eq!(got, expected(section, abi, call), "{abi:?} {call:x?}");
                } else if abi != Abi::X32 {
                    assert_eq!(got, KILL_THREAD, "{abi:?} {call:x?}");
                } else {
                    assert_ne!(got, ALLOW, "{abi:?} {call:x?}");
                }
            }
        }
    }
    assert_eq!(run(&program, Call { audit: 0x8000_0016, number: 1, args: [0; 6] }), KILL_THREAD);
}

const KERNEL: Kernel = Kernel { major: 6, minor: 18 };

fn default_section(capabilities: &[&str], arch: Arch) -> LinuxSeccomp {
    default_profile().resolve(capabilities, arch, KERNEL).unwrap().unwrap()
}

fn samples() -> Vec<[u64; 6]> {
    let values = [
        0,
        1,
        8,
        37,
        38,
        39,
        40,
        41,
        0x2_0000,
        0x2_0008,
        0xffff_ffff,
        0x7e02_0000,
        0x1000_0011,
        1 << 32,
        u64::MAX,
    ];
    values.into_iter().map(|value| [value, value, 0, 0, 0, value]).collect()
}

#[test]
fn the_default_policy_decides_as_its_rules_say() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for capabilities in
            [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_CHROOT", "CAP_SYSLOG"]]
        {
            check(&default_section(capabilities, arch), arch, &samples());
        }
    }
}

#[test]
fn what_matters_in_the_default_policy() {
    let program = compile(&default_section(&["CAP_SYS_CHROOT"], Arch::X86_64), Arch::X86_64).unwrap();
    let verdict = |name: &str, argument: u64| {
        let number = syscalls::number(Abi::X86_64, name).unwrap();
        run(&program, Call { audit: 0xc000_003e, number, args: [argument, 0, 0, 0, 0, 0] })
    };
    for name in ["read", "execve", "ptrace", "chroot", "mseal", "landlock_restrict_self", "arch_prctl"] {
        assert_eq!(verdict(name, 0), ALLOW, "{name}");
    }
    for name in ["mount", "bpf", "io_uring_setup", "keyctl", "userfaultfd", "init_module", "setns", "unshare"]
    {
        assert_eq!(verdict(name, 0), EPERM, "{name}");
    }
    assert_eq!([2, 16, 37, 38, 39, 40, 41, 45].map(|family| verdict("socket", family)), {
        [ALLOW, ALLOW, ALLOW, EPERM, ALLOW, EPERM, ALLOW, ALLOW]
    });
    assert_eq!(verdict("clone", 0x0120_0011), ALLOW);
    assert_eq!(verdict("clone", 0x1000_0011), EPERM);
    assert_eq!(verdict("clone3", 0), ENOSYS);
    assert_eq!([0xffff_ffff, 0x40_0000].map(|persona| verdict("personality", persona)), [ALLOW, EPERM]);
    // Newer than every rule: programs are to fall back, not to fail.
    assert_eq!(run(&program, Call { audit: 0xc000_003e, number: 480, args: [0; 6] }), ENOSYS);
    println!("{} instructions", program.len() / 8);
}

fn section(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_permissive_default_does_not_open_x32() {
    let section = section(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}"#,
    );
    let program = compile(&section, Arch::X86_64).unwrap();
    let of = |number| run(&program, Call { audit: 0xc000_003e, number, args: [0; 6] });
    assert_eq!([of(83), of(84), of(1000), of(u32::MAX)], [EPERM, ALLOW, ALLOW, ALLOW]);
    assert_eq!(of(syscalls::X32_BIT | 83), KILL_THREAD);
}

#[test]
fn what_cannot_be_expressed_is_refused() {
    let refused = |json: &str| compile(&section(json), Arch::X86_64).unwrap_err();
    assert_eq!(
        refused(r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}"#),
        Error::Errno(5000)
    );
    let with = |arg: &str| {
        refused(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{arg}]}}]}}"#
        ))
    };
    assert_eq!(
        with(r#"{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}"#),
        Error::Argument { syscall: "read".into(), index: 6 }
    );
    let args: Vec<String> =
        (0..2000).map(|n| format!(r#"{{"index": 0, "value": {n}, "op": "SCMP_CMP_EQ"}}"#)).collect();
    assert!(matches!(with(&args.join(",")), Error::TooLong(_)));
}

#[test]
fn flags_of_a_section() {
    let with = |names: &str| {
        flags(&section(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": [{names}]}}"#)))
    };
    assert_eq!(with(""), 0);
    assert_eq!(with(r#""SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW""#), 6);
}

// --- random sections

const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "socket",
    "clone",
    "mmap",
    "mmap2",
    "ioctl",
    "execve",
    "mseal",
    "cachestat",
    "rt_sigreturn",
    "set_tls",
    "fcntl64",
    "not_a_call",
];
const ACTIONS: &[Action] = &[
    Action::Allow,
    Action::Errno,
    Action::KillThread,
    Action::KillProcess,
    Action::Trap,
    Action::Trace,
    Action::Log,
    Action::Notify,
];
const OPERATORS: &[Operator] = &[
    Operator::Equal,
    Operator::NotEqual,
    Operator::LessThan,
    Operator::LessOrEqual,
    Operator::GreaterThan,
    Operator::GreaterOrEqual,
    Operator::MaskedEqual,
];

/// Values that lie close together in both halves, so that comparisons come out either way.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..3u64, 0..3u64).prop_map(|(high, low)| high << 32 | low),
        Just(0xffff_ffff),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn argument() -> impl Strategy<Value = LinuxSeccompArg> {
    (0..6u32, number(), number(), proptest::sample::select(OPERATORS))
        .prop_map(|(index, value, value_two, op)| LinuxSeccompArg { index, value, value_two, op })
}

fn rule() -> impl Strategy<Value = LinuxSyscall> {
    let names = proptest::collection::vec(proptest::sample::select(NAMES), 1..4);
    let args = prop_oneof![Just(Vec::new()), proptest::collection::vec(argument(), 1..5)];
    (names, proptest::sample::select(ACTIONS), proptest::option::of(0..100u32), args).prop_map(
        |(names, action, errno_ret, args)| LinuxSyscall {
            names: names.into_iter().map(String::from).collect(),
            action,
            errno_ret,
            args,
        },
    )
}

fn any_section() -> impl Strategy<Value = LinuxSeccomp> {
    let architectures = proptest::sample::subsequence(
        vec![
            runtime::Arch::X86_64,
            runtime::Arch::X86,
            runtime::Arch::X32,
            runtime::Arch::Arm,
            runtime::Arch::S390X,
        ],
        0..=5,
    );
    let default = (proptest::sample::select(ACTIONS), proptest::option::of(0..100u32));
    (default, architectures, proptest::collection::vec(rule(), 0..12)).prop_map(
        |((action, errno), architectures, syscalls)| LinuxSeccomp {
            default_action: action,
            default_errno_ret: errno,
            architectures,
            flags: Vec::new(),
            listener_path: None,
            listener_metadata: String::new(),
            syscalls,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_section_decides_as_its_rules_say(
        section in any_section(),
        aarch64 in any::<bool>(),
        samples in proptest::collection::vec(proptest::array::uniform6(number()), 4),
    ) {
        check(&section, if aarch64 { Arch::Aarch64 } else { Arch::X86_64 }, &samples);
    }
}
