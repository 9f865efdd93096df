//! Networks: throughput beside dockerd and a bare veth pair, what a network costs a start, and how starts go as a network
//! fills.
//!
//! iperf3 runs in the containers' network namespaces and not in their images, so that both engines are measured with the
//! same program and nothing of an image's counts.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;

use super::{Table, docker_command, median, milliseconds};
use crate::engine::Engine;

/// The network of all measurements.
const NETWORK: &str = "bench";
/// Where iperf3 listens.
const PORT: &str = "5201";
/// Where it is published.
const PUBLISHED: &str = "15201";
/// How long each stream flows, in seconds.
const SECONDS: &str = "2";
/// How many containers fill the network.
const CROWD: usize = 200;
/// How many of them the first and the last are.
const SAMPLE: usize = 20;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// iperf3, beside a bare veth pair.
    Throughput,
    /// What a network adds to `docker run --rm`.
    Starts,
    /// From `start` to a page of a sibling.
    Siblings,
    /// Two hundred containers on one network.
    Crowd,
}

/// Measures `parts`, or everything, on both engines in turn.
pub(super) fn run(
    parts: &[Part],
    docker: &Path,
    engines: &[Engine; 2],
    rounds: usize,
    table: &mut Table,
) -> Result<()> {
    for engine in engines {
        docker_command(docker, engine, &["network", "create", NETWORK])?;
    }
    for part in Part::value_variants().iter().filter(|part| parts.is_empty() || parts.contains(part)) {
        match part {
            Part::Throughput => throughput(docker, engines, rounds.min(10), table)?,
            Part::Starts => starts(docker, engines, rounds, table)?,
            Part::Siblings => siblings(docker, engines, rounds, table)?,
            Part::Crowd => crowd(docker, engines, table)?,
        }
    }
    Ok(())
}

/// A stream of TCP each way that packets may take.
fn throughput(docker: &Path, engines: &[Engine; 2], rounds: usize, table: &mut Table) -> Result<()> {
    let pairs = engines.iter().map(|engine| Pair::start(docker, engine)).collect::<Result<Vec<_>>>()?;
    let bare = Server::start(&format!("--net={}", engines[0].host.path()))?;
    let ways: [(&str, Way); 4] = [
        ("container to container, Gbit/s", |pair| pair.between()),
        ("container to host, Gbit/s", |pair| pair.to_host()),
        ("outside to a published port, Gbit/s", |pair| pair.outside_to_port()),
        ("host to a published port of 127.0.0.1, Gbit/s", |pair| pair.host_to_port()),
    ];
    for (what, way) in ways {
        let (mut rates, mut floor) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..rounds {
            // Who comes right after the bare pair is not always the same.
            for number in [round % 2, (round + 1) % 2] {
                rates[number].push(way(&pairs[number])?);
            }
            floor.push(stream(&format!("--net={}", engines[0].outside.path()), "192.0.2.2", PORT)?);
        }
        let [dory, dockerd] = rates;
        table.row(what, dory, dockerd, floor);
    }
    drop(bare);
    for (pair, engine) in pairs.into_iter().zip(engines) {
        drop(pair);
        docker_command(docker, engine, &["rm", "--force", "server", "client"])?;
    }
    Ok(())
}

/// Measures one stream.
type Way = fn(&Pair<'_>) -> Result<f64>;

/// Two containers of one engine, one of which has a listening iperf3.
struct Pair<'a> {
    engine: &'a Engine,
    address: String,
    client: String,
    _servers: [Server; 2],
}

impl<'a> Pair<'a> {
    fn start(docker: &Path, engine: &'a Engine) -> Result<Self> {
        let published = format!("{PUBLISHED}:{PORT}");
        let idle = ["busybox", "sleep", "100000"];
        let run = |more: &[&str]| {
            let arguments = [&["run", "--detach", "--network", NETWORK], more, &idle].concat();
            docker_command(docker, engine, &arguments)
        };
        run(&["--name", "server", "--publish", &published])?;
        run(&["--name", "client"])?;
        let format = format!("{{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}");
        let address = inspect(docker, engine, "server", &format)?;
        let server = Server::start(&namespace(docker, engine, "server")?)?;
        let client = namespace(docker, engine, "client")?;
        // The host of the first engine has a server anyway, for the bare pair; they are different hosts all the same.
        let host = Server::start_on(&format!("--net={}", engine.host.path()), "5202")?;
        Ok(Self { engine, address, client, _servers: [server, host] })
    }

    fn between(&self) -> Result<f64> {
        stream(&self.client, &self.address, PORT)
    }

    fn to_host(&self) -> Result<f64> {
        stream(&self.client, "192.0.2.2", "5202")
    }

    fn outside_to_port(&self) -> Result<f64> {
        stream(&format!("--net={}", self.engine.outside.path()), "192.0.2.2", PUBLISHED)
    }

    fn host_to_port(&self) -> Result<f64> {
        stream(&format!("--net={}", self.engine.host.path()), "127.0.0.1", PUBLISHED)
    }
}

/// A listening iperf3 that ends with this value.
struct Server(Child);

impl Server {
    fn start(namespace: &str) -> Result<Self> {
        Self::start_on(namespace, PORT)
    }

    fn start_on(namespace: &str, port: &str) -> Result<Self> {
        let child = Command::new("nsenter")
            .args([namespace, "--", "iperf3", "--server", "--port", port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start `iperf3`")?;
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One stream from `namespace` to `address`, in Gbit/s as its receiver saw it.
fn stream(namespace: &str, address: &str, port: &str) -> Result<f64> {
    let began = Instant::now();
    loop {
        let output = Command::new("nsenter")
            .args([namespace, "--", "iperf3", "--json", "--time", SECONDS, "--client", address])
            .args(["--port", port])
            .stdin(Stdio::null())
            .output()?;
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("no JSON of iperf3")?;
        if let Some(rate) = answer["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(rate / 1e9);
        }
        // Its server may still be starting, or be done with the stream before in a moment.
        ensure!(began.elapsed() < Duration::from_secs(10), "iperf3 to {address}: {}", answer["error"]);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `run --rm` with and without a network in turn: what lies between them is the network's.
fn starts(docker: &Path, engines: &[Engine; 2], rounds: usize, table: &mut Table) -> Result<()> {
    let networks = ["none", "bridge", NETWORK];
    let mut times: [[Vec<f64>; 3]; 2] = Default::default();
    for round in 0..=rounds {
        for (engine, times) in engines.iter().zip(&mut times) {
            for (network, times) in networks.iter().zip(times) {
                let took = docker_command(
                    docker,
                    engine,
                    &["run", "--rm", "--network", network, "busybox", "true"],
                )?;
                // The first of each is not counted: it pulls programs into memory.
                if round > 0 {
                    times.push(milliseconds(took));
                }
            }
        }
    }
    let [dory, dockerd] = &times;
    for (number, network) in networks.iter().enumerate() {
        let what = format!("docker run --rm --network {network} busybox true, ms");
        table.row(&what, dory[number].clone(), dockerd[number].clone(), vec![]);
    }
    for (number, what) in [(1, "the default bridge"), (2, "a network with names")] {
        let part = |times: &[Vec<f64>; 3]| vec![median(&times[number]) - median(&times[0])];
        table.row(&format!("  the part of {what} (less none), ms"), part(dory), part(dockerd), vec![]);
    }
    Ok(())
}

/// From `start` to the container having found its sibling by name and fetched a page of it.
fn siblings(docker: &Path, engines: &[Engine; 2], rounds: usize, table: &mut Table) -> Result<()> {
    let fetch = "until wget -q -O /dev/null http://sibling/x; do :; done";
    let serve = "mkdir /www; echo served >/www/x; exec httpd -f -p 80 -h /www";
    let mut times = [Vec::new(), Vec::new()];
    for engine in engines {
        let named = ["--network", NETWORK, "--name"];
        let command = |verb: &[&str], name: &str, script: &str| {
            let words = [verb, &named, &[name, "busybox", "sh", "-c", script]].concat();
            docker_command(docker, engine, &words)
        };
        command(&["run", "--detach"], "sibling", serve)?;
        command(&["create"], "seeker", fetch)?;
        docker_command(docker, engine, &["start", "--attach", "seeker"])?;
    }
    for _ in 0..rounds {
        for (engine, times) in engines.iter().zip(&mut times) {
            times.push(milliseconds(docker_command(docker, engine, &["start", "--attach", "seeker"])?));
        }
    }
    let [dory, dockerd] = times;
    table.row("start to a page of a sibling, by name, ms", dory, dockerd, vec![]);
    engines.iter().try_for_each(|engine| {
        docker_command(docker, engine, &["rm", "--force", "sibling", "seeker"]).map(drop)
    })
}

/// Fills a network, and empties it.
fn crowd(docker: &Path, engines: &[Engine; 2], table: &mut Table) -> Result<()> {
    let mut first = Vec::new();
    let mut last = Vec::new();
    let mut removed = Vec::new();
    for engine in engines {
        let names: Vec<String> = (0..CROWD).map(|number| format!("crowd-{number}")).collect();
        let mut times = Vec::new();
        for name in &names {
            let words =
                ["run", "--detach", "--network", NETWORK, "--name", name, "busybox", "sleep", "100000"];
            times.push(milliseconds(docker_command(docker, engine, &words)?));
        }
        first.push(times[..SAMPLE].to_vec());
        last.push(times[CROWD - SAMPLE..].to_vec());
        let remove: Vec<&str> =
            ["rm", "--force"].into_iter().chain(names.iter().map(String::as_str)).collect();
        removed.push(vec![docker_command(docker, engine, &remove)?.as_secs_f64()]);
    }
    let mut row = |what: &str, values: Vec<Vec<f64>>| {
        let [dory, dockerd] = <[Vec<f64>; 2]>::try_from(values).unwrap_or_default();
        table.row(what, dory, dockerd, vec![]);
    };
    row(&format!("run -d, the first {SAMPLE} of {CROWD} on a network, ms"), first);
    row(&format!("run -d, the last {SAMPLE} of them, ms"), last);
    row("rm --force of them all at once, s", removed);
    Ok(())
}

fn inspect(docker: &Path, engine: &Engine, container: &str, format: &str) -> Result<String> {
    let output = Command::new(docker)
        .env("DOCKER_HOST", format!("unix://{}", engine.socket.display()))
        .args(["inspect", "--format", format, container])
        .output()?;
    ensure!(output.status.success(), "cannot inspect `{container}` on {}", engine.kind.name());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The flag of nsenter for a container's network namespace.
fn namespace(docker: &Path, engine: &Engine, container: &str) -> Result<String> {
    Ok(format!("--net=/proc/{}/ns/net", inspect(docker, engine, container, "{{.State.Pid}}")?))
}
