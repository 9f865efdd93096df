//! `top`: the container's processes, read from /proc; other columns by the `ps` program where there is one.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use dory_types::Timestamp;

use super::details::TopTable;
use super::record::Record;
use crate::engine::{Engine, blocking};
use crate::{EngineError, Result};

/// Clock ticks a second in /proc (`USER_HZ`): 100 on every architecture that matters.
const TICKS: u64 = 100;

impl Engine {
    /// The processes of a container, as `ps` with `arguments` shows them; empty means `-ef`.
    ///
    /// # Errors
    /// `Conflict` where it does not run, `Invalid` for arguments that the `ps` program refuses.
    pub async fn top_container(&self, reference: &str, arguments: &str) -> Result<TopTable> {
        let container = self.inner.registry.find(reference)?;
        let record = container.record();
        if record.state.restarting {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        if !record.state.running {
            return Err(EngineError::conflict(format!("container {} is not running", container.id)));
        }
        let arguments = arguments.to_owned();
        let table = blocking(move || {
            let pids = pids(&record)?;
            match arguments.trim() {
                "" | "-ef" => Ok(full_table(&pids)),
                "aux" | "-aux" => Ok(user_table(&pids)),
                other => by_ps(other, &pids),
            }
        })
        .await?;
        self.publish(&container, "top");
        Ok(table)
    }
}

/// The container's processes: those of its control group, or of its pid namespace where it has no group.
pub(super) fn pids(record: &Record) -> Result<Vec<i32>> {
    let failed = |error| EngineError::failed("cannot list the container's processes", error);
    if let Some(run) = record.present_run()
        && !run.group.is_none()
    {
        let mut pids: Vec<i32> =
            run.group.processes().map_err(failed)?.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        pids.sort_unstable();
        return Ok(pids);
    }
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(record.state.pid);
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .map_err(|error| EngineError::failed("cannot read /proc", error))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| own.is_some() && namespace(*pid) == own)
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// What /proc/<pid>/stat and its neighbours say.
struct Process {
    pid: i32,
    parent: i32,
    user: String,
    /// The letter of its state, and the marks of ps(1) for sessions, threads and niceness.
    state: String,
    terminal: String,
    /// In ticks: used, and the start since boot.
    used: u64,
    start: u64,
    /// Bytes.
    virtual_size: u64,
    resident: u64,
    command: String,
}

impl Process {
    /// `None` where it is gone.
    fn read(pid: i32, users: &BTreeMap<u32, String>) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything, parentheses too.
        let (head, rest) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.trim().parse::<u64>().ok());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let uid: u32 = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            user: users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            state: state(pid, &fields)?,
            terminal: terminal(number(4)?),
            used: number(11)? + number(12)?,
            start: number(19)?,
            virtual_size: number(20)?,
            resident: kibibytes(&status, "VmRSS:") << 10,
            command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
        })
    }

    /// Hours, minutes and seconds of processor time.
    fn time(&self, with_hours: bool) -> String {
        let seconds = self.used / TICKS;
        match with_hours {
            true => format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            false => format!("{}:{:02}", seconds / 60, seconds % 60),
        }
    }

    /// When it began, as ps(1) shows it, in UTC: the clock time, on another day the date, in another year the year.
    fn began(&self, boot: u64) -> String {
        let seconds = i64::try_from(boot + self.start / TICKS).unwrap_or(0);
        Timestamp::from_unix(seconds, 0)
            .map_or_else(String::new, |time| started(&time.to_string(), &Timestamp::now().to_string()))
    }

    /// Percent of a processor over its life.
    fn share(&self, boot: u64) -> u64 {
        let began = Duration::from_secs(boot + self.start / TICKS);
        let now = Duration::from_secs(u64::try_from(Timestamp::now().unix_seconds()).unwrap_or(0));
        let lived = now.saturating_sub(began).as_secs().max(1);
        self.used / TICKS * 100 / lived
    }
}

/// The short form of `began`, seen from `now`, both in RFC 3339.
fn started(began: &str, now: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |range: std::ops::Range<usize>| began.get(range).unwrap_or_default();
    if began.get(..10) == now.get(..10) {
        return part(11..16).to_owned();
    }
    if began.get(..4) != now.get(..4) {
        return part(0..4).to_owned();
    }
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    format!("{}{}", month.copied().unwrap_or_default(), part(8..10))
}

/// What ps(1) shows as `STAT`; `fields` are those of proc_pid_stat(5) from the third one on.
fn state(pid: i32, fields: &[&str]) -> Option<String> {
    let number = |index: usize| fields.get(index).and_then(|field| field.trim().parse::<i64>().ok());
    let mut state = (*fields.first()?).to_owned();
    match number(16)? {
        nice if nice < 0 => state.push('<'),
        nice if nice > 0 => state.push('N'),
        _ => {}
    }
    let (group, session, foreground, threads) = (number(2)?, number(3)?, number(5)?, number(17)?);
    if session == i64::from(pid) {
        state.push('s');
    }
    if threads > 1 {
        state.push('l');
    }
    if foreground == group {
        state.push('+');
    }
    Some(state)
}

/// A value of a status file in units of 1,024 bytes; a kernel thread has none.
fn kibibytes(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

/// ps's name of a controlling terminal (`tty_nr`, proc(5)).
fn terminal(number: u64) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

fn processes(pids: &[i32]) -> Vec<Process> {
    let users = users();
    pids.iter().filter_map(|pid| Process::read(*pid, &users)).collect()
}

/// The host's names of users.
fn users() -> BTreeMap<u32, String> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(entry).collect()
}

/// Seconds since 1970 at boot.
fn boot_time() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

fn titles(words: &str) -> Vec<String> {
    words.split(' ').map(str::to_owned).collect()
}

/// `ps -ef`.
fn full_table(pids: &[i32]) -> TopTable {
    let boot = boot_time();
    let row = |process: &Process| {
        vec![
            process.user.clone(),
            process.pid.to_string(),
            process.parent.to_string(),
            process.share(boot).to_string(),
            process.began(boot),
            process.terminal.clone(),
            process.time(true),
            process.command.clone(),
        ]
    };
    TopTable {
        titles: titles("UID PID PPID C STIME TTY TIME CMD"),
        processes: processes(pids).iter().map(row).collect(),
    }
}

/// `ps aux`.
fn user_table(pids: &[i32]) -> TopTable {
    let boot = boot_time();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(1);
    let row = |process: &Process| {
        vec![
            process.user.clone(),
            process.pid.to_string(),
            format!("{}.0", process.share(boot)),
            format!("{:.1}", (process.resident >> 10) as f64 * 100.0 / total as f64),
            (process.virtual_size >> 10).to_string(),
            (process.resident >> 10).to_string(),
            process.terminal.clone(),
            process.state.clone(),
            process.began(boot),
            process.time(false),
            process.command.clone(),
        ]
    };
    TopTable {
        titles: titles("USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        processes: processes(pids).iter().map(row).collect(),
    }
}

/// Everything else is for the host's `ps`, whose rows are matched by their PID column, as dockerd does.
fn by_ps(arguments: &str, pids: &[i32]) -> Result<TopTable> {
    // `-e pid=x` could rename the column by which rows are matched.
    if arguments.split_ascii_whitespace().any(|word| word.to_ascii_lowercase().contains("pid=")) {
        return Err(EngineError::invalid("specifying \"PID=\" column names is not supported"));
    }
    let output = Command::new("ps")
        .args(arguments.split_ascii_whitespace())
        .output()
        .map_err(|error| EngineError::failed("error running ps", error))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(EngineError::invalid(format!("ps: {reason}")));
    }
    parse_ps(&String::from_utf8_lossy(&output.stdout), pids)
}

fn parse_ps(output: &str, pids: &[i32]) -> Result<TopTable> {
    let mut lines = output.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| EngineError::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let pid = words.get(column).and_then(|word| word.parse::<i32>().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column may have blanks.
        let last = titles.len() - 1;
        let mut row: Vec<String> = words.iter().take(last).map(|word| (*word).to_owned()).collect();
        row.push(words.get(last..).unwrap_or_default().join(" "));
        processes.push(row);
    }
    Ok(TopTable { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_this_very_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        for table in [full_table(&[pid]), user_table(&[pid])] {
            assert_eq!(table.processes.len(), 1);
            assert_eq!(table.processes[0].len(), table.titles.len());
            assert_eq!(table.processes[0][1], pid.to_string());
        }
        assert!(full_table(&[]).processes.is_empty());
    }

    #[test]
    fn speaks_as_ps() {
        for (began, expected) in [
            ("2026-11-23T17:31:02Z", "17:31"),
            ("2026-11-05T17:31:02Z", "Nov05"),
            ("2025-11-23T17:31:02Z", "2025"),
        ] {
            assert_eq!(started(began, "2026-11-23T18:00:00Z"), expected);
        }
        let fields = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        for (stat, expected) in [
            ("S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0", "Ss"),
            ("R 1 9 7 34816 9 0 0 0 0 0 0 0 0 0 20 5 3 0", "RNsl+"),
            ("D 1 9 8 0 -1 0 0 0 0 0 0 0 0 0 20 -5 1 0", "D<"),
        ] {
            assert_eq!(state(7, &fields(stat)).unwrap(), expected, "{stat}");
        }
    }

    #[test]
    fn keeps_rows_of_the_container() {
        let output = "  PID COMMAND\n    1 init\n   42 sh -c x y\n";
        let table = parse_ps(output, &[42]).unwrap();
        assert_eq!(table.titles, ["PID", "COMMAND"]);
        assert_eq!(table.processes, [["42", "sh -c x y"]]);
        assert!(parse_ps("COMMAND\nsh\n", &[42]).is_err());
    }
}
