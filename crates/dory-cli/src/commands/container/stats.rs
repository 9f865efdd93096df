//! `stats`.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::future::join_all;
use serde::Deserialize;

use super::ContainerSummary;
use crate::client::{Client, Path};
use crate::command::{Arity, Command, Invocation};
use crate::failure::{ApiError, ExitStatus};
use crate::flags::{FlagsEnd, long_switch, long_value, switch};
use crate::listing::{Listing, Row};
use crate::{print, terminal, units};

/// `dory stats`.
pub(crate) const STATS: Command = Command {
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show the resources that containers use",
    flags: &[&[
        switch("all", 'a', "Show stopped containers, too"),
        long_value("format", "string", "table, json, or a Go template"),
        long_switch("no-stream", "Show the present once"),
        long_switch("no-trunc", "Do not shorten"),
    ]],
    arity: Arity::AtLeast(0),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(stats(invocation)),
};

const LISTING: Listing = Listing {
    table: "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    titles: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    quiet: "",
};

/// What `GET /containers/{id}/stats` tells and the table shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stats {
    id: String,
    name: String,
    cpu_stats: CpuStats,
    precpu_stats: CpuStats,
    memory_stats: MemoryStats,
    networks: Option<BTreeMap<String, NetworkStats>>,
    blkio_stats: BlockStats,
    pids_stats: PidsStats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CpuStats {
    cpu_usage: CpuUsage,
    /// Time of all processors in nanoseconds.
    system_cpu_usage: u64,
    online_cpus: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    /// The container's time in nanoseconds.
    total_usage: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MemoryStats {
    usage: u64,
    limit: u64,
    stats: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkStats {
    rx_bytes: u64,
    tx_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockStats {
    io_service_bytes_recursive: Option<Vec<BlockEntry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockEntry {
    op: String,
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PidsStats {
    current: u64,
}

async fn stats(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let once = arguments.on("no-stream");
    loop {
        let names = names(invocation).await?;
        let samples = join_all(names.iter().map(|name| sample(&invocation.client, name))).await;
        let mut rows = Vec::new();
        for (name, sample) in names.iter().zip(samples) {
            match sample {
                Ok(stats) => rows.push(stats.row(name, arguments.on("no-trunc"))),
                // Among all containers, one may go away between the list and the sample.
                Err(error) if arguments.positional().is_empty() && error.is::<ApiError>() => {}
                Err(error) => return Err(error),
            }
        }
        let text = LISTING.render(arguments.text("format"), false, &rows)?;
        let redraw = !once && terminal::stdout_is_terminal();
        print(&if redraw { format!("\x1b[2J\x1b[H{text}") } else { text })?;
        if once {
            return Ok(ExitStatus::Success);
        }
        // A sample takes the engine about a second where there are containers; without any, wait as long.
        if names.is_empty() {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

async fn names(invocation: &Invocation<'_>) -> Result<Vec<String>> {
    let arguments = &invocation.arguments;
    if !arguments.positional().is_empty() {
        return Ok(arguments.positional().to_vec());
    }
    let path = Path::new(&["containers", "json"]).flag("all", arguments.on("all"));
    let containers: Vec<ContainerSummary> = invocation.client.get(path.as_str()).await?;
    Ok(containers.into_iter().map(|container| container.id).collect())
}

async fn sample(client: &Client<'_>, name: &str) -> Result<Stats> {
    client.get(Path::new(&["containers", name, "stats"]).query("stream", 0).as_str()).await
}

impl Stats {
    fn row(&self, container: &str, full: bool) -> Row {
        let (memory, limit) = (self.memory() as f64, self.memory_stats.limit as f64);
        let networks = || self.networks.iter().flat_map(BTreeMap::values);
        let pair = |left: u64, right: u64| {
            format!("{} / {}", units::short_size(left as f64), units::short_size(right as f64))
        };
        let share = if limit > 0.0 { memory / limit * 100.0 } else { 0.0 };
        Row::new(vec![
            ("Container", container.to_owned()),
            ("ID", if full { self.id.clone() } else { self.id.chars().take(12).collect() }),
            ("Name", self.name.trim_start_matches('/').to_owned()),
            ("CPUPerc", format!("{:.2}%", self.cpu_percent())),
            ("MemUsage", format!("{} / {}", units::binary_size(memory), units::binary_size(limit))),
            ("MemPerc", format!("{share:.2}%")),
            (
                "NetIO",
                pair(networks().map(|net| net.rx_bytes).sum(), networks().map(|net| net.tx_bytes).sum()),
            ),
            ("BlockIO", pair(self.block_bytes("read"), self.block_bytes("write"))),
            ("PIDs", self.pids_stats.current.to_string()),
        ])
    }

    /// Memory without the part of the page cache that the kernel would give up first.
    fn memory(&self) -> u64 {
        let stats = self.memory_stats.stats.as_ref();
        // The names of cgroup v1 and v2.
        let cache = ["total_inactive_file", "inactive_file"].iter().find_map(|name| stats?.get(*name));
        let usage = self.memory_stats.usage;
        cache.filter(|cache| **cache < usage).map_or(usage, |cache| usage - cache)
    }

    /// Percent of one processor.
    fn cpu_percent(&self) -> f64 {
        let used =
            self.cpu_stats.cpu_usage.total_usage.saturating_sub(self.precpu_stats.cpu_usage.total_usage);
        let passed = self.cpu_stats.system_cpu_usage.saturating_sub(self.precpu_stats.system_cpu_usage);
        if passed == 0 {
            0.0
        } else {
            used as f64 / passed as f64 * self.cpu_stats.online_cpus as f64 * 100.0
        }
    }

    fn block_bytes(&self, operation: &str) -> u64 {
        let entries = self.blkio_stats.io_service_bytes_recursive.iter().flatten();
        entries.filter(|entry| entry.op.eq_ignore_ascii_case(operation)).map(|entry| entry.value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_shares() {
        let stats: Stats = serde_json::from_str(
            r#"{"cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},
                "precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
                "memory_stats":{"usage":1000,"limit":4000,"stats":{"inactive_file":200}}}"#,
        )
        .unwrap();
        assert_eq!((stats.cpu_percent(), stats.memory()), (40.0, 800));
        assert_eq!(Stats::default().cpu_percent(), 0.0, "a stopped container has no times at all");
    }
}
