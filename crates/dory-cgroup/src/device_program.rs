//! The BPF program that answers for devices on v2 (kernel `BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! The program gets `struct bpf_cgroup_dev_ctx` (access and type in one word, major, minor) in register 1 and answers
//! 1 to allow, 0 to deny. Rules are tried from the last to the first, since later ones win, and what none of them
//! matches is denied.

use dory_sys::bpf::Instruction;

use crate::device::{Access, DeviceKind, DeviceRule};

/// Registers: result, context and scratch, type, access, major, minor.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The instructions for `rules`.
pub(crate) fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::load_word(TYPE, CONTEXT, 0),
        Instruction::and(TYPE, 0xffff),
        Instruction::load_word(ACCESS, CONTEXT, 0),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load_word(MAJOR, CONTEXT, 4),
        Instruction::load_word(MINOR, CONTEXT, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        // The verifier refuses instructions that cannot be reached.
        if is_final(rule) {
            return program;
        }
    }
    program.extend([Instruction::set(RESULT, 0), Instruction::exit()]);
    program
}

/// True where `rule` matches every request.
fn is_final(rule: &DeviceRule) -> bool {
    rule.kind == DeviceKind::All && rule.major.is_none() && rule.minor.is_none() && rule.access == Access::ALL
}

/// Tests that skip to the end of the block where the rule does not match, then the rule's answer.
fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let answer = [Instruction::set(RESULT, i32::from(rule.allow)), Instruction::exit()];
    let mut tests: Vec<Test> = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push(Test::Equal(TYPE, 1)),
        DeviceKind::Char => tests.push(Test::Equal(TYPE, 2)),
    }
    if rule.access != Access::ALL {
        tests.push(if rule.allow { Test::Within(rule.access) } else { Test::Touches(rule.access) });
    }
    tests.extend(rule.major.map(|number| Test::Equal(MAJOR, number)));
    tests.extend(rule.minor.map(|number| Test::Equal(MINOR, number)));

    let mut reversed: Vec<Instruction> = answer.into_iter().rev().collect();
    for test in tests.into_iter().rev() {
        let skip = i16::try_from(reversed.len()).expect("a block has fewer than 16 instructions");
        reversed.extend(test.instructions(skip).into_iter().rev());
    }
    reversed.reverse();
    reversed
}

enum Test {
    /// A register holds this number.
    Equal(u8, u32),
    /// The request asks for nothing but this.
    Within(Access),
    /// The request asks for some of this.
    Touches(Access),
}

impl Test {
    /// Skips `skip` further instructions where the test fails.
    fn instructions(&self, skip: i16) -> Vec<Instruction> {
        let mask = |access: Access| {
            vec![
                Instruction::copy(CONTEXT, ACCESS),
                Instruction::and(CONTEXT, i32::from(access_bits(access))),
            ]
        };
        match *self {
            // Device numbers have 12 and 20 bits; a larger one never occurs, and the cast keeps it that way.
            Self::Equal(register, number) => {
                vec![Instruction::jump_if_not(register, number.cast_signed(), skip)]
            }
            Self::Within(access) => {
                let mut code = mask(access);
                code.push(Instruction::jump_if_not_register(CONTEXT, ACCESS, skip));
                code
            }
            Self::Touches(access) => {
                let mut code = mask(access);
                code.push(Instruction::jump_if(CONTEXT, 0, skip));
                code
            }
        }
    }
}

/// Kernel `BPF_DEVCG_ACC_*`.
fn access_bits(access: Access) -> u8 {
    u8::from(access.mknod) | u8::from(access.read) << 1 | u8::from(access.write) << 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a request.
    fn allows(program: &[Instruction], kind: u32, access: Access, major: u32, minor: u32) -> bool {
        let context = [kind | u32::from(access_bits(access)) << 16, major, minor];
        let mut registers = [0_i64; 6];
        let mut at = 0;
        loop {
            let instruction = program[at];
            let (to, from) =
                (usize::from(instruction.registers & 15), usize::from(instruction.registers >> 4));
            let number = i64::from(instruction.immediate);
            let mut jump = |condition: bool| {
                at += if condition { usize::try_from(instruction.offset).unwrap() } else { 0 }
            };
            match instruction.code {
                0x61 => registers[to] = i64::from(context[usize::try_from(instruction.offset).unwrap() / 4]),
                0x57 => registers[to] &= number,
                0x77 => registers[to] >>= number,
                0xb7 => registers[to] = number,
                0xbf => registers[to] = registers[from],
                0x55 => jump(registers[to] != number),
                0x15 => jump(registers[to] == number),
                0x5d => jump(registers[to] != registers[from]),
                0x95 => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
            at += 1;
        }
    }

    const READ: Access = Access { read: true, write: false, mknod: false };

    #[test]
    fn answers_as_the_rules_say() {
        let (block, char) = (1, 2);
        let program = assemble(&DeviceRule::docker_defaults());
        for (kind, access, major, minor, expected) in [
            (char, Access::ALL, 1, 3, true),
            (char, READ, 1, 3, true),
            (char, READ, 1, 1, false),
            (char, Access::MKNOD, 1, 1, true),
            (char, Access::ALL, 136, 17, true),
            (block, READ, 8, 0, false),
            (block, Access::MKNOD, 8, 0, true),
            (block, Access::ALL, 1, 3, false),
        ] {
            let allowed = allows(&program, kind, access, major, minor);
            assert_eq!(allowed, expected, "{kind} {access:?} {major}:{minor}");
        }
    }

    #[test]
    fn later_rules_win() {
        let deny = DeviceRule {
            allow: false,
            ..DeviceRule::allow(DeviceKind::Block, Some(8), None, Access { write: true, ..READ })
        };
        let mut rules = DeviceRule::everything();
        rules.push(deny);
        let program = assemble(&rules);
        assert!(allows(&program, 2, Access::ALL, 1, 1));
        assert!(!allows(&program, 1, READ, 8, 1));
        assert!(allows(&program, 1, Access::MKNOD, 8, 1));
        rules.push(DeviceRule::everything()[0]);
        assert!(allows(&assemble(&rules), 1, READ, 8, 1));
    }

    #[test]
    fn nothing_is_allowed_without_rules() {
        assert!(!allows(&assemble(&[]), 2, READ, 1, 3));
    }
}
