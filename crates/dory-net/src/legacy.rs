//! The filter table of the older iptables: rules appended to its chain FORWARD, and taken back.
//!
//! nf_tables does not show these tables; they are read and replaced as a whole (`linux/netfilter_ipv4/ip_tables.h`,
//! `linux/netfilter_ipv6/ip6_tables.h`). A table is a row of entries; each chain of a hook ends with the entry that is its
//! policy, before which ours are put:
//!
//! ```text
//! entry   112 bytes   (168 of IPv6) addresses, interfaces and their masks, protocol, where target and next entry are, counters
//! match   288 bytes   "comment": our mark, which `iptables-legacy -S` shows
//! target   40 bytes   standard: a verdict, or how far from the table's beginning to jump
//! ```
//!
//! Two writers at once would undo each other's work, which the lock of iptables prevents.

use std::fs::File;
use std::io;

use dory_sys::xtables::{Counters, Layout, Protocol, XtTable};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::nftables::Family;

/// The table.
const TABLE: &str = "filter";
/// `NF_INET_FORWARD`.
const FORWARD: usize = 2;
/// The lock that iptables takes (`iptables/xshared.h`).
const LOCK: &str = "/run/xtables.lock";

/// Size of the comment match with its head.
const COMMENT: usize = 288;
/// Size of a standard target.
const TARGET: usize = 40;
/// Size of the head of a match or a target.
const HEAD: usize = 32;

/// How far the name of the other interface, and a name's mask, are from an entry's first interface.
const OUTPUT: usize = 16;
const MASKS: usize = 32;

/// Where things are in the entries of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    /// The size of an entry without matches and target.
    entry: usize,
    /// Where the interfaces are.
    interfaces: usize,
    /// Where the offset of its target is; that of the next entry follows it.
    target_offset: usize,
}

impl Form {
    /// `struct ipt_entry` and `struct ip6t_entry`.
    fn of(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self { entry: 112, interfaces: 16, target_offset: 88 },
            Family::Ipv6 => Self { entry: 168, interfaces: 64, target_offset: 140 },
        }
    }

    /// The size of one of our rules.
    fn rule(self) -> usize {
        self.entry + COMMENT + TARGET
    }

    /// Where an entry's target is.
    fn target(self, entry: &[u8]) -> Option<usize> {
        half(entry, self.target_offset).map(usize::from)
    }
}
/// Where in a standard target the verdict is.
const VERDICT: usize = HEAD;

/// Verdicts as they stand in a target: `-NF_DROP - 1`, `-NF_ACCEPT - 1`, `XT_RETURN`.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// One of our rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    /// The interface by which a packet came; one that ends with `+` means all that begin so, an empty one any.
    pub(crate) input: &'a str,
    /// The interface by which it leaves.
    pub(crate) output: &'a str,
    /// Whether it passes, or the rest of the chain and the policy have their say without us.
    pub(crate) accept: bool,
}

/// True where iptables of the older kind has a filter table in this network namespace.
pub(crate) fn exists(family: Family) -> bool {
    let names = match family {
        Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
        Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == TABLE))
}

/// Appends `rules`, marked with `comment`, to FORWARD where its policy drops; true where it does. Rules with the mark that are
/// there already stay.
pub(crate) fn open(family: Family, comment: &str, rules: &[Rule<'_>]) -> io::Result<bool> {
    change(family, |table| match table.drops() {
        false => None,
        true if table.marked(comment).next().is_some() => None,
        true => Some(table.with(comment, rules)),
    })
    .map(|table| table.drops())
}

/// Takes the rules marked with `comment` back.
pub(crate) fn close(family: Family, comment: &str) -> io::Result<()> {
    change(family, |table| table.marked(comment).next().is_some().then(|| table.without(comment))).map(drop)
}

/// True where the table has a chain that some dockerd made.
pub(crate) fn has_chain(family: Family, name: &str) -> io::Result<bool> {
    let (layout, bytes) = table(family)?.read()?;
    Ok(Entries { form: Form::of(family), layout, bytes }.chains().any(|chain| chain == name.as_bytes()))
}

/// Replaces the table by what `make` makes of it; returns what was there. A table that changes meanwhile is tried again.
fn change(
    family: Family,
    make: impl Fn(&Entries) -> Option<(Entries, Vec<Option<usize>>)>,
) -> io::Result<Entries> {
    let table = table(family)?;
    let lock = File::options().create(true).append(true).open(LOCK);
    if let Ok(lock) = &lock {
        // Without the lock the worst is a change of somebody else's at the same instant, which EAGAIN mostly tells of.
        let _ = rustix::fs::flock(lock, FlockOperation::LockExclusive);
    }
    for _ in 0..8 {
        let (layout, bytes) = table.read()?;
        let old = Entries { form: Form::of(family), layout, bytes };
        let Some((new, origins)) = make(&old) else { return Ok(old) };
        match table.replace(&new.layout, &new.bytes, old.layout.entries) {
            Ok(counted) => {
                let of = |origin: &Option<usize>| {
                    origin.and_then(|index| counted.get(index)).copied().unwrap_or_default()
                };
                let counters: Vec<Counters> = origins.iter().map(of).collect();
                // The rules hold in any case; what people read in their counters is all that could be lost.
                let _ = table.add_counters(&counters);
                return Ok(old);
            }
            Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::AGAIN.into())
}

fn table(family: Family) -> io::Result<XtTable> {
    let protocol = match family {
        Family::Ipv4 => Protocol::Ipv4,
        Family::Ipv6 => Protocol::Ipv6,
    };
    XtTable::open(protocol, TABLE)
}

/// A table's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entries {
    form: Form,
    layout: Layout,
    bytes: Vec<u8>,
}

impl Entries {
    /// Where each entry begins, and its bytes.
    fn each(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let length = usize::from(half(&self.bytes, at + self.form.target_offset + 2)?);
            let entry =
                self.bytes.get(at..at.checked_add(length)?).filter(|it| it.len() >= self.form.entry)?;
            at += length;
            Some((at - length, entry))
        })
    }

    /// The names of the chains that belong to no hook: each begins with an entry whose target is `ERROR`.
    fn chains(&self) -> impl Iterator<Item = &[u8]> {
        self.each().filter_map(|(_, entry)| {
            let target = entry.get(self.form.target(entry)?..)?;
            (name(target.get(2..HEAD)?) == b"ERROR").then(|| name(&target[HEAD..]))
        })
    }

    /// True where the policy of FORWARD is to drop.
    fn drops(&self) -> bool {
        let policy = self.layout.underflow[FORWARD] as usize;
        self.each()
            .find(|(at, _)| *at == policy)
            .and_then(|(_, entry)| word(entry, self.form.target(entry)? + VERDICT))
            == Some(DROP)
    }

    /// Where our rules are.
    fn marked<'a>(&'a self, comment: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.each().filter(|(_, entry)| is_marked(self.form, entry, comment)).map(|(at, _)| at)
    }

    /// The table with `rules` before the policy of FORWARD; and for each entry the one that it was.
    fn with(&self, comment: &str, rules: &[Rule<'_>]) -> (Self, Vec<Option<usize>>) {
        let place = self.layout.underflow[FORWARD] as usize;
        let added = rules.len() * self.form.rule();
        let bytes = Vec::with_capacity(self.bytes.len() + added);
        let mut new = Self { form: self.form, layout: self.layout, bytes };
        let mut origins = Vec::new();
        for (index, (at, entry)) in self.each().enumerate() {
            if at == place {
                for rule in rules {
                    new.bytes.extend(write(self.form, rule, comment));
                    origins.push(None);
                }
            }
            new.bytes.extend(entry);
            origins.push(Some(index));
        }
        // A chain that begins where ours are put is FORWARD itself, without rules until now.
        new.shift(|at| if at >= place { at + added } else { at }, |hook, at| hook == FORWARD && at == place);
        (new.counted(&origins), origins)
    }

    /// The table without our rules; and for each entry the one that it was.
    fn without(&self, comment: &str) -> (Self, Vec<Option<usize>>) {
        let gone: Vec<(usize, usize)> = self
            .each()
            .filter(|(_, entry)| is_marked(self.form, entry, comment))
            .map(|(at, entry)| (at, entry.len()))
            .collect();
        let mut new =
            Self { form: self.form, layout: self.layout, bytes: Vec::with_capacity(self.bytes.len()) };
        let mut origins = Vec::new();
        for (index, (_, entry)) in
            self.each().enumerate().filter(|(_, (_, entry))| !is_marked(self.form, entry, comment))
        {
            new.bytes.extend(entry);
            origins.push(Some(index));
        }
        let before =
            |at: usize| gone.iter().filter(|(start, _)| *start < at).map(|(_, length)| length).sum::<usize>();
        new.shift(|at| at - before(at), |_, _| false);
        (new.counted(&origins), origins)
    }

    fn counted(mut self, origins: &[Option<usize>]) -> Self {
        self.layout.entries = u32::try_from(origins.len()).unwrap_or(u32::MAX);
        self
    }

    /// Moves every place that something refers to; beginnings of hooks' chains for which `stays` holds do not move.
    fn shift(&mut self, moved: impl Fn(usize) -> usize, stays: impl Fn(usize, usize) -> bool) {
        let place = |at: u32| u32::try_from(moved(at as usize)).unwrap_or(u32::MAX);
        for hook in 0..self.layout.hook_entry.len() {
            let begins = &mut self.layout.hook_entry[hook];
            if !stays(hook, *begins as usize) {
                *begins = place(*begins);
            }
            let policy = &mut self.layout.underflow[hook];
            *policy = place(*policy);
        }
        let verdicts: Vec<usize> = self
            .each()
            .filter_map(|(at, entry)| {
                let target = self.form.target(entry)?;
                // Only a standard target has no name, and only a verdict that is not negative is a place.
                name(entry.get(target + 2..target + HEAD)?).is_empty().then_some(at + target + VERDICT)
            })
            .collect();
        for at in verdicts {
            if let Some(verdict) = word(&self.bytes, at)
                && let Ok(old) = usize::try_from(verdict)
            {
                let new = i32::try_from(moved(old)).unwrap_or(i32::MAX);
                self.bytes[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            }
        }
    }
}

/// True for a rule with our mark.
fn is_marked(form: Form, entry: &[u8], comment: &str) -> bool {
    let Some(found) = entry.get(form.entry..form.entry + COMMENT) else { return false };
    form.target(entry) == Some(form.entry + COMMENT)
        && name(&found[2..HEAD - 1]) == b"comment"
        && name(&found[HEAD..]) == comment.as_bytes()
}

/// The bytes of a rule.
fn write(form: Form, rule: &Rule<'_>, comment: &str) -> Vec<u8> {
    let mut bytes = vec![0; form.rule()];
    for (at, pattern) in [(form.interfaces, rule.input), (form.interfaces + OUTPUT, rule.output)] {
        let text = pattern.strip_suffix('+').unwrap_or(pattern);
        let text = &text.as_bytes()[..text.len().min(15)];
        bytes[at..at + text.len()].copy_from_slice(text);
        // A whole name is compared with the NUL after it, a beginning without.
        let compared = match pattern.ends_with('+') || pattern.is_empty() {
            true => text.len(),
            false => text.len() + 1,
        };
        bytes[at + MASKS..at + MASKS + compared].fill(0xff);
    }
    let put = |bytes: &mut Vec<u8>, at: usize, value: usize| {
        bytes[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap_or(u16::MAX).to_ne_bytes());
    };
    let (matched, target) = (form.entry, form.entry + COMMENT);
    put(&mut bytes, form.target_offset, target);
    put(&mut bytes, form.target_offset + 2, form.rule());
    put(&mut bytes, matched, COMMENT);
    bytes[matched + 2..matched + 9].copy_from_slice(b"comment");
    let comment = &comment.as_bytes()[..comment.len().min(COMMENT - HEAD - 1)];
    bytes[matched + HEAD..matched + HEAD + comment.len()].copy_from_slice(comment);
    put(&mut bytes, target, TARGET);
    let verdict = if rule.accept { ACCEPT } else { RETURN };
    bytes[target + VERDICT..target + VERDICT + 4].copy_from_slice(&verdict.to_ne_bytes());
    bytes
}

/// What stands before the first NUL.
fn name(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry with a standard target.
    fn entry(form: Form, verdict: i32) -> Vec<u8> {
        let mut bytes = vec![0; form.entry + TARGET];
        let mut put = |at: usize, value: usize| {
            bytes[at..at + 2].copy_from_slice(&u16::try_from(value).unwrap().to_ne_bytes());
        };
        put(form.target_offset, form.entry);
        put(form.target_offset + 2, form.entry + TARGET);
        put(form.entry, TARGET);
        bytes[form.entry + VERDICT..form.entry + VERDICT + 4].copy_from_slice(&verdict.to_ne_bytes());
        bytes
    }

    /// INPUT with a jump to the last entry, FORWARD and OUTPUT without rules, one rule elsewhere.
    fn table(family: Family) -> Entries {
        let form = Form::of(family);
        let size = u32::try_from(form.entry + TARGET).unwrap();
        let verdicts = [i32::try_from(4 * size).unwrap(), ACCEPT, DROP, ACCEPT, RETURN];
        let layout = Layout {
            valid_hooks: 0b1110,
            hook_entry: [0, 0, 2 * size, 3 * size, 0],
            underflow: [0, size, 2 * size, 3 * size, 0],
            entries: 5,
        };
        Entries { form, layout, bytes: verdicts.map(|verdict| entry(form, verdict)).concat() }
    }

    #[test]
    fn rules_come_before_the_policy_and_go_again() {
        for family in [Family::Ipv4, Family::Ipv6] {
            before_the_policy_and_gone_again(&table(family));
        }
    }

    fn before_the_policy_and_gone_again(table: &Entries) {
        let form = table.form;
        assert!(table.drops());
        let rules = [
            Rule { input: "", output: "dory0", accept: true },
            Rule { input: "dory0", output: "br-+", accept: false },
        ];
        let (with, origins) = table.with("dory dory0", &rules);
        assert_eq!(origins, [Some(0), Some(1), None, None, Some(2), Some(3), Some(4)]);
        let (size, moved) = (form.entry + TARGET, 2 * form.rule());
        let places = |all: [usize; 4]| all.map(|at| u32::try_from(at).unwrap());
        assert_eq!(with.layout.hook_entry[..4], places([0, 0, 2 * size, 3 * size + moved]));
        assert_eq!(with.layout.underflow[..4], places([0, size, 2 * size + moved, 3 * size + moved]));
        assert_eq!(word(&with.bytes, form.entry + VERDICT), i32::try_from(4 * size + moved).ok());
        assert!(with.drops());
        assert_eq!(with.marked("dory dory0").count(), 2);
        assert_eq!(with.marked("dory dory").count(), 0);
        let (without, origins) = with.without("dory dory0");
        assert_eq!(origins, [Some(0), Some(1), Some(4), Some(5), Some(6)]);
        assert_eq!(without, *table);
    }

    #[test]
    fn interfaces_are_compared_whole_or_by_their_beginning() {
        let form = Form::of(Family::Ipv4);
        let rule = write(form, &Rule { input: "dory0", output: "br-+", accept: true }, "x");
        let interfaces = &rule[form.interfaces..];
        assert_eq!(&interfaces[..6], b"dory0\0");
        assert_eq!(interfaces[MASKS..MASKS + 7], [255, 255, 255, 255, 255, 255, 0]);
        assert_eq!(interfaces[OUTPUT + MASKS..OUTPUT + MASKS + 4], [255, 255, 255, 0]);
    }

    #[test]
    fn a_table_that_makes_no_sense_has_no_entries() {
        for bytes in [vec![], vec![0; 50], vec![0; 400], vec![0xff; 400]] {
            let form = Form::of(Family::Ipv4);
            assert_eq!(Entries { form, layout: Layout::default(), bytes }.each().count(), 0);
        }
    }
}
