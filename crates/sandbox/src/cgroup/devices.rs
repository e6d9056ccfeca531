//! Device rules as a program for cgroup v2.
//!
//! The kernel asks the program for each use of a device. The last rule that speaks of it decides, so the program
//! tries them from the last to the first.

use oci::runtime::{LinuxDeviceKind, LinuxDeviceRule};

const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

// Registers: the answer, the context (later a scratch), and what is asked for.
const ANSWER: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF_NOT_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

/// The program for a list of rules, or none if they allow everything.
pub(super) fn program(rules: &[LinuxDeviceRule]) -> Option<Vec<u64>> {
    if rules.iter().all(|rule| rule.allow) {
        return None;
    }
    let mut program = vec![
        instruction(LOAD_WORD, KIND, SCRATCH, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        instruction(LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let tests = tests(rule);
        let always = tests.is_empty();
        let length = tests.iter().map(Vec::len).sum::<usize>() + 2;
        let end = program.len() + length;
        for test in tests {
            for mut step in test {
                // Jumps were left open; they lead to the next rule.
                if step & 0x7 == 0x5 && step & 0xff != u64::from(EXIT) {
                    let offset = (end - program.len() - 1) as u16;
                    step |= u64::from(offset) << 16;
                }
                program.push(step);
            }
        }
        program.push(instruction(MOVE, ANSWER, 0, 0, rule.allow.into()));
        program.push(instruction(EXIT, 0, 0, 0, 0));
        if always {
            // The kernel refuses programs with parts that are never reached.
            return Some(program);
        }
    }
    program.push(instruction(MOVE, ANSWER, 0, 0, 1));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    Some(program)
}

/// What must hold for a rule to speak of a use.
fn tests(rule: &LinuxDeviceRule) -> Vec<Vec<u64>> {
    let mut tests = Vec::new();
    match rule.kind {
        LinuxDeviceKind::Block => tests.push(vec![instruction(JUMP_IF_NOT, KIND, 0, 0, BLOCK)]),
        LinuxDeviceKind::Char | LinuxDeviceKind::Fifo => {
            tests.push(vec![instruction(JUMP_IF_NOT, KIND, 0, 0, CHAR)]);
        }
        LinuxDeviceKind::All => {}
    }
    let mut access = 0;
    for letter in rule.access.bytes() {
        access |= match letter {
            b'r' => READ,
            b'w' => WRITE,
            b'm' => MKNOD,
            _ => 0,
        };
    }
    if access != 0 && access != READ | WRITE | MKNOD {
        let masked =
            [instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0), instruction(AND, SCRATCH, 0, 0, access)];
        // Allowed is what asks for nothing else; denied is what asks for any of it.
        let jump = if rule.allow {
            instruction(JUMP_IF_NOT_REGISTER, SCRATCH, ACCESS, 0, 0)
        } else {
            instruction(JUMP_IF_EQUAL, SCRATCH, 0, 0, 0)
        };
        tests.push(vec![masked[0], masked[1], jump]);
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            tests.push(vec![instruction(JUMP_IF_NOT, register, 0, 0, number as i32)]);
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i64; 6];
        let mut at = 0;
        loop {
            let step = program[at];
            let (to, from) = ((step >> 8 & 0xf) as usize, (step >> 12 & 0xf) as usize);
            let (offset, value) = ((step >> 16) as i16, (step >> 32) as i32);
            at += 1;
            let jump = match step as u8 {
                LOAD_WORD => {
                    registers[to] = context[offset as usize / 4].into();
                    false
                }
                MOVE => {
                    registers[to] = value.into();
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= i64::from(value);
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= value;
                    false
                }
                JUMP_IF_EQUAL => registers[to] == i64::from(value),
                JUMP_IF_NOT => registers[to] != i64::from(value),
                JUMP_IF_NOT_REGISTER => registers[to] != registers[from],
                EXIT => return registers[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            };
            if jump {
                at += offset as usize;
            }
        }
    }

    /// What the rules mean, in plain words.
    fn expected(rules: &[LinuxDeviceRule], kind: i32, access: i32, major: i64, minor: i64) -> bool {
        for rule in rules.iter().rev() {
            let mut bits = rule.access.bytes().fold(0, |bits, letter| {
                bits | match letter {
                    b'r' => READ,
                    b'w' => WRITE,
                    _ => MKNOD,
                }
            });
            if bits == 0 {
                bits = READ | WRITE | MKNOD;
            }
            let of_kind = match rule.kind {
                LinuxDeviceKind::All => true,
                LinuxDeviceKind::Block => kind == BLOCK,
                _ => kind == CHAR,
            };
            let of_access = if rule.allow { access & !bits == 0 } else { access & bits != 0 };
            let of_number =
                |wanted: Option<i64>, number| wanted.is_none_or(|wanted| wanted < 0 || wanted == number);
            if of_kind && of_access && of_number(rule.major, major) && of_number(rule.minor, minor) {
                return rule.allow;
            }
        }
        true
    }

    fn rule() -> impl Strategy<Value = LinuxDeviceRule> {
        let kind = prop_oneof![
            Just(LinuxDeviceKind::All),
            Just(LinuxDeviceKind::Block),
            Just(LinuxDeviceKind::Char)
        ];
        (any::<bool>(), kind, proptest::option::of(-1i64..4), proptest::option::of(-1i64..4), "[rwm]{0,3}")
            .prop_map(|(allow, kind, major, minor, access)| LinuxDeviceRule {
                allow,
                kind,
                major,
                minor,
                access,
            })
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_say(
            rules in proptest::collection::vec(rule(), 0..12),
            kind in 1i32..3, access in 1i32..8, major in 0i32..4, minor in 0i32..4,
        ) {
            let decided = program(&rules).is_none_or(|program| run(&program, kind, access, major, minor));
            prop_assert_eq!(decided, expected(&rules, kind, access, major.into(), minor.into()));
        }
    }
}
