//! From rules to ranges of system call numbers with one outcome each.

use std::collections::BTreeMap;

use crate::action::Return;
use crate::arch::{Arch, X32_SYSCALL_BIT, syscall_number};
use crate::profile::{Condition, Profile, Rule};

/// What happens to a call: the first alternative whose tests all hold, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) alternatives: Vec<Alternative>,
    pub(crate) otherwise: Return,
}

/// Tests that must all hold, and what then happens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Alternative {
    pub(crate) tests: Vec<Condition>,
    pub(crate) result: Return,
}

impl Outcome {
    fn always(otherwise: Return) -> Self {
        Self { alternatives: Vec::new(), otherwise }
    }
}

/// System call numbers from `start` up to the next range's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) outcome: Outcome,
}

/// The outcomes of all numbers on `arch`, ascending from 0, neighbours distinct.
pub(crate) fn ranges(profile: &Profile, rules: &[&Rule], arch: Arch) -> Vec<Range> {
    let default = profile.default_action.to_return(narrow(profile.default_errno_ret));
    let calls = outcomes(rules, arch, default);
    let last = rules.iter().flat_map(|rule| rule.names()).filter_map(|name| syscall_number(arch, name)).max();

    let mut ranges = Ranges(vec![Range { start: 0, outcome: Outcome::always(default) }]);
    for (number, outcome) in calls {
        ranges.push(number, outcome);
        ranges.push(number + 1, Outcome::always(default));
    }
    // A call newer than the profile must look absent, not forbidden: C libraries fall back on ENOSYS only. This is
    // runc's rule since 1.0.0-rc93, and like there a profile of denials keeps letting new calls through.
    if let Some(last) = last.filter(|_| !profile.default_action.lets_pass()) {
        ranges.push(last + 1, Outcome::always(Return::ENOSYS));
    }
    // COMPAT: Docker's archMap admits the x32 ABI. Hardly a kernel has it, no image uses it, and where a profile denies
    // calls by number it would be a way around them: it always looks absent.
    if arch == Arch::X86_64 {
        ranges.push(X32_SYSCALL_BIT, Outcome::always(Return::ENOSYS));
    }
    ranges.0
}

struct Ranges(Vec<Range>);

impl Ranges {
    /// Lets `outcome` hold from `start` on; starts never descend.
    fn push(&mut self, start: u32, outcome: Outcome) {
        self.0.pop_if(|last| last.start == start);
        if self.0.last().is_none_or(|last| last.outcome != outcome) {
            self.0.push(Range { start, outcome });
        }
    }
}

/// The outcome of every call that some rule names.
fn outcomes(rules: &[&Rule], arch: Arch, default: Return) -> BTreeMap<u32, Outcome> {
    let mut calls: BTreeMap<u32, Outcome> = BTreeMap::new();
    let mut settled = std::collections::BTreeSet::new();
    for rule in rules {
        let result = rule.action.to_return(narrow(rule.errno_ret));
        // runc drops rules that only repeat the default, before they could override anything.
        if result == default {
            continue;
        }
        let alternatives = alternatives(&rule.args, result);
        for number in rule.names().filter_map(|name| syscall_number(arch, name)) {
            // A rule without tests overrides those with tests, wherever it stands (libseccomp's trees do the same).
            if alternatives.is_empty() {
                if settled.insert(number) {
                    calls.insert(number, Outcome::always(result));
                }
            } else if !settled.contains(&number) {
                let outcome = calls.entry(number).or_insert_with(|| Outcome::always(default));
                outcome.alternatives.extend(alternatives.iter().cloned());
            }
        }
    }
    calls
}

/// All tests of one rule must hold, unless two of them look at the same argument: then each stands for itself, which
/// runc keeps from the days when libseccomp could not express the conjunction.
fn alternatives(args: &[Condition], result: Return) -> Vec<Alternative> {
    let repeated =
        args.iter().enumerate().any(|(at, test)| args[..at].iter().any(|other| other.index == test.index));
    if repeated {
        args.iter().map(|&test| Alternative { tests: vec![test], result }).collect()
    } else if args.is_empty() {
        Vec::new()
    } else {
        vec![Alternative { tests: args.to_vec(), result }]
    }
}

/// Parsing refused everything past 4095.
fn narrow(errno: Option<u32>) -> Option<u16> {
    errno.and_then(|number| u16::try_from(number).ok())
}
