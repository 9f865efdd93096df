//! From ranges to instructions.
//!
//! Code is emitted backwards: jumps go forward only, so that whatever an instruction jumps to exists already and equal
//! tails (return values, argument tests) are shared between calls and architectures. A conditional jump reaches 255
//! instructions; where that is not enough a copy of a return, or an unconditional jump, is placed within reach.

use std::collections::HashMap;

use crate::action::Return;
use crate::filter::Instruction;
use crate::outcome::{Alternative, Outcome, Range};
use crate::profile::{Condition, Operator};

/// Loads a word of `struct seccomp_data` into the accumulator.
pub(crate) const LOAD: u16 = 0x20;
/// Ands the accumulator with a constant.
pub(crate) const AND: u16 = 0x54;
/// Jumps always.
pub(crate) const JUMP: u16 = 0x05;
/// Jumps by equality.
pub(crate) const JUMP_EQUAL: u16 = 0x15;
/// Jumps by unsigned `>`.
pub(crate) const JUMP_GREATER: u16 = 0x25;
/// Jumps by unsigned `>=`.
pub(crate) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
/// Ends the program with a constant.
pub(crate) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data` (uapi `linux/seccomp.h`).
pub(crate) const OFFSET_NUMBER: u32 = 0;
/// Offset of the audit architecture token.
pub(crate) const OFFSET_ARCH: u32 = 4;
/// Offset of the first of six 64-bit arguments.
pub(crate) const OFFSET_ARGS: u32 = 16;

/// Where an emitted instruction stands: its distance from the end of the program, so that it stays valid while more
/// is put before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// The program that searches each architecture's ranges and kills on any other architecture.
pub(crate) fn program(searches: &[(u32, Vec<Range>)]) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let mut next = assembler.emit_return(Return::KILL_PROCESS);
    for (token, ranges) in searches.iter().rev() {
        // The tree is entered by falling through its load, whose label is the load's own.
        assembler.forget_distant_returns();
        let tree = assembler.emit_tree(ranges);
        let entry = assembler.emit_load(OFFSET_NUMBER, tree);
        next = assembler.emit_jump(JUMP_EQUAL, *token, entry, next);
    }
    assembler.emit_load(OFFSET_ARCH, next);
    assembler.reversed.reverse();
    assembler.reversed
}

#[derive(Default)]
struct Assembler {
    reversed: Vec<Instruction>,
    returns: HashMap<Return, Label>,
    outcomes: HashMap<Outcome, Label>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// Instructions that an instruction emitted now would skip to get to `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - 1 - target.0
    }

    fn emit_return(&mut self, value: Return) -> Label {
        let label = self.push(RETURN, 0, 0, value.0);
        self.returns.insert(value, label);
        label
    }

    /// Return values are cheap to repeat, so each architecture's tree gets its own within reach.
    fn forget_distant_returns(&mut self) {
        let emitted = self.reversed.len();
        let near = |label: &Label| emitted - label.0 < 128;
        self.returns.retain(|_, label| near(label));
        self.outcomes.retain(|_, label| near(label));
    }

    /// A label at most `margin` instructions further than a conditional jump reaches is made reachable.
    fn within_reach(&mut self, target: Label, margin: usize) -> Label {
        if self.distance(target) + margin <= usize::from(u8::MAX) {
            return target;
        }
        let instruction = self.reversed[target.0];
        if instruction.code == RETURN {
            return self.emit_return(Return(instruction.k));
        }
        let distance = u32::try_from(self.distance(target)).expect("a program is far shorter than 2^32");
        self.push(JUMP, 0, 0, distance)
    }

    /// A conditional jump, with trampolines where a target is too far.
    fn emit_jump(&mut self, code: u16, k: u32, if_true: Label, if_false: Label) -> Label {
        // The second trampoline may push the first target one further away.
        let if_true = self.within_reach(if_true, 1);
        let if_false = self.within_reach(if_false, 0);
        let reach = |distance| u8::try_from(distance).expect("within_reach bounds the distance");
        let (jt, jf) = (reach(self.distance(if_true)), reach(self.distance(if_false)));
        self.push(code, jt, jf, k)
    }

    /// A load that is followed by `then`.
    fn emit_load(&mut self, offset: u32, then: Label) -> Label {
        self.emit_straight(LOAD, offset, then)
    }

    /// An instruction without a jump of its own, followed by `then`.
    fn emit_straight(&mut self, code: u16, k: u32, then: Label) -> Label {
        let distance = u32::try_from(self.distance(then)).expect("a program is far shorter than 2^32");
        if distance > 0 {
            self.push(JUMP, 0, 0, distance);
        }
        self.push(code, 0, 0, k)
    }

    /// A search over `ranges`, which is never empty, for the number in the accumulator.
    fn emit_tree(&mut self, ranges: &[Range]) -> Label {
        if let [range] = ranges {
            return self.emit_outcome(&range.outcome);
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let upper_label = self.emit_tree(upper);
        let lower_label = self.emit_tree(lower);
        self.emit_jump(JUMP_GREATER_OR_EQUAL, upper[0].start, upper_label, lower_label)
    }

    fn emit_outcome(&mut self, outcome: &Outcome) -> Label {
        if let Some(&label) = self.outcomes.get(outcome) {
            return label;
        }
        let mut label = self.return_label(outcome.otherwise);
        for alternative in outcome.alternatives.iter().rev() {
            label = self.emit_alternative(alternative, label);
        }
        self.outcomes.insert(outcome.clone(), label);
        label
    }

    fn return_label(&mut self, value: Return) -> Label {
        match self.returns.get(&value) {
            Some(&label) => label,
            None => self.emit_return(value),
        }
    }

    /// Code that returns the alternative's result if all its tests hold, and goes to `otherwise` if not.
    fn emit_alternative(&mut self, alternative: &Alternative, otherwise: Label) -> Label {
        let mut label = self.return_label(alternative.result);
        for test in alternative.tests.iter().rev() {
            label = self.emit_test(test, label, otherwise);
        }
        label
    }

    /// Code that goes to `holds` or `fails` by one 64-bit test, made of tests of the two halves.
    fn emit_test(&mut self, test: &Condition, holds: Label, fails: Label) -> Label {
        let halves = Halves::of(test);
        match test.op {
            Operator::Equal => self.emit_equal(&halves, holds, fails),
            Operator::NotEqual => self.emit_equal(&halves, fails, holds),
            Operator::Greater => self.emit_order(JUMP_GREATER, &halves, holds, fails),
            Operator::GreaterOrEqual => self.emit_order(JUMP_GREATER_OR_EQUAL, &halves, holds, fails),
            Operator::Less => self.emit_order(JUMP_GREATER_OR_EQUAL, &halves, fails, holds),
            Operator::LessOrEqual => self.emit_order(JUMP_GREATER, &halves, fails, holds),
            Operator::MaskedEqual => self.emit_masked(test, &halves, holds, fails),
        }
    }

    fn emit_equal(&mut self, halves: &Halves, holds: Label, fails: Label) -> Label {
        let low = self.emit_jump(JUMP_EQUAL, halves.low, holds, fails);
        let low = self.emit_load(halves.low_offset, low);
        let high = self.emit_jump(JUMP_EQUAL, halves.high, low, fails);
        self.emit_load(halves.high_offset, high)
    }

    fn emit_order(&mut self, low_code: u16, halves: &Halves, holds: Label, fails: Label) -> Label {
        let low = self.emit_jump(low_code, halves.low, holds, fails);
        let low = self.emit_load(halves.low_offset, low);
        // No 32-bit value is greater than the largest, nor does one differ below the smallest.
        let equal = self.emit_jump(JUMP_EQUAL, halves.high, low, fails);
        let high = self.emit_jump(JUMP_GREATER, halves.high, holds, equal);
        self.emit_load(halves.high_offset, high)
    }

    fn emit_masked(&mut self, test: &Condition, wanted: &Halves, holds: Label, fails: Label) -> Label {
        let wanted = Halves { low: test.value_two as u32, high: (test.value_two >> 32) as u32, ..*wanted };
        let (low_mask, high_mask) = (test.value as u32, (test.value >> 32) as u32);
        let low = self.emit_jump(JUMP_EQUAL, wanted.low, holds, fails);
        let low = self.emit_straight(AND, low_mask, low);
        let low = self.emit_load(wanted.low_offset, low);
        if high_mask == 0 && wanted.high == 0 {
            return low;
        }
        let high = self.emit_jump(JUMP_EQUAL, wanted.high, low, fails);
        let high = self.emit_straight(AND, high_mask, high);
        self.emit_load(wanted.high_offset, high)
    }
}

/// A 64-bit operand in halves, and where the argument's halves are found.
#[derive(Debug, Clone, Copy)]
struct Halves {
    low: u32,
    high: u32,
    low_offset: u32,
    high_offset: u32,
}

impl Halves {
    fn of(test: &Condition) -> Self {
        let first = OFFSET_ARGS + 8 * test.index;
        let (low_offset, high_offset) =
            if cfg!(target_endian = "little") { (first, first + 4) } else { (first + 4, first) };
        Self { low: test.value as u32, high: (test.value >> 32) as u32, low_offset, high_offset }
    }
}
