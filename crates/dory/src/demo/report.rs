//! What each level says of itself, and the tree that the outermost prints.

use std::fs;
use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// One level's word.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// 1 is the machine itself.
    pub level: u32,
    /// What runs there.
    pub kind: Kind,
    /// Pid of the level's own process, as the level sees it.
    pub pid_inside: u32,
    /// `/proc/self/uid_map`, its columns separated by one space.
    pub uid_map: String,
    /// Milliseconds from `dory run` on the level outside to this level's first word; filled in by that level.
    pub container_start_ms: Option<f64>,
}

/// What a level runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An engine.
    Engine {
        /// Its isolation tier.
        tier: String,
        /// Its pid, as the level sees it.
        pid: u32,
        /// Milliseconds from its start to its first answer.
        start_ms: f64,
    },
    /// Nothing but a process.
    Process,
}

impl Report {
    /// The report of a level that runs `kind`.
    ///
    /// # Errors
    /// An unreadable `/proc`.
    pub fn new(level: u32, kind: Kind) -> Result<Self> {
        let map = fs::read_to_string("/proc/self/uid_map").context("cannot read the user namespace's map")?;
        let uid_map = map.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { level, kind, pid_inside: std::process::id(), uid_map, container_start_ms: None })
    }

    /// The report of the innermost level.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn innermost(level: u32) -> Result<Self> {
        Self::new(level, Kind::Process)
    }

    /// Sends it to the level outside.
    pub fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("a report has string keys only"));
    }
}

/// Prints reports as they arrive.
pub struct Tree {
    json: bool,
    colours: bool,
    shown: u32,
}

impl Tree {
    /// A tree, or lines of JSON.
    pub fn new(json: bool) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if !json {
            println!(
                "Engines inside containers: no image, no registry, no network, no privilege on the host\n"
            );
        }
        Self { json, colours, shown: 0 }
    }

    /// Shows one more level.
    pub fn show(&mut self, report: &Report) {
        self.shown += 1;
        let host_pid = host_pid(report.level);
        if self.json {
            let mut value = serde_json::to_value(report).expect("a report has string keys only");
            value["pid_from_host"] = host_pid.into();
            println!("{value}");
            return;
        }
        let indent = "   ".repeat(report.level.saturating_sub(1) as usize);
        let branch = if report.level == 1 { "" } else { "└─ " };
        let (title, details) = self.describe(report);
        let host_pid = host_pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        println!("{indent}{branch}{title}");
        println!("{indent}   pid {host_pid} from the host, {} from inside; {details}", report.pid_inside);
        println!("{indent}   user namespace: {}", describe_map(&report.uid_map));
    }

    fn describe(&self, report: &Report) -> (String, String) {
        let (bold, plain) = if self.colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let start = report.container_start_ms.map(|ms| format!("container up in {ms:.1} ms"));
        let place = if report.level == 1 { "this machine" } else { "container" };
        match &report.kind {
            Kind::Engine { tier, pid, start_ms } => (
                format!("{bold}level {}{plain} {place}: engine, tier {tier}", report.level),
                [start, Some(format!("engine (pid {pid}) answered in {start_ms:.1} ms"))]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            Kind::Process => {
                (format!("{bold}level {}{plain} {place}: a process", report.level), start.unwrap_or_default())
            }
        }
    }

    /// The last line.
    ///
    /// # Errors
    /// Where a level is missing: the demo has failed, whatever the exit codes were.
    pub fn close(&self, depth: u32) -> Result<()> {
        if self.shown != depth {
            bail!("only {} of {depth} levels reported", self.shown);
        }
        if !self.json {
            println!("\n{depth} levels deep, and everything is cleaned up again");
        }
        Ok(())
    }
}

fn describe_map(map: &str) -> String {
    match map.split(' ').collect::<Vec<_>>()[..] {
        ["0", "0", "4294967295"] => "the machine's own".to_owned(),
        [inside, outside, count] if inside == outside => format!("own, {count} ids, the same as outside"),
        [inside, outside, count] => format!("own, {count} ids from {inside} are {outside} and up outside"),
        _ => map.to_owned(),
    }
}

/// The pid of a level's first process as this machine numbers it: the process that is pid 1 of its own namespace and has
/// one pid for each level (`NSpid` in proc_pid_status(5)). The demo has one such process on each level.
fn host_pid(level: u32) -> Option<u32> {
    if level == 1 {
        return Some(std::process::id());
    }
    let ours = parents_of_self();
    let entries = fs::read_dir("/proc").ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let pids: Vec<&str> = field("NSpid:").split_whitespace().collect();
        pids.len() == ours + level as usize - 1 && pids.last() == Some(&"1") && is_demo(*pid)
    })
}

/// How many pid namespaces this process is in already.
fn parents_of_self() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map_or(1, |pids| pids.split_whitespace().count())
}

fn is_demo(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"demo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_told_in_words() {
        assert_eq!(describe_map("0 0 4294967295"), "the machine's own");
        assert_eq!(describe_map("0 1000000 65536"), "own, 65536 ids from 0 are 1000000 and up outside");
        assert_eq!(describe_map("0 0 65536"), "own, 65536 ids, the same as outside");
    }
}
