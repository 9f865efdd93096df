//! The side-by-side inspector: the same things made on Dory and on dockerd, and every difference in what they answer.
//!
//! Both engines get the same flags through the same docker command, pinned to the API version of Debian's dockerd; then
//! both are asked about everything, at several versions. Differences with a reason are listed in the tables of
//! `docs/compatibility.md`; every other one fails the run.

pub mod differences;
mod http;
mod sets;
mod shape;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::{self, Engine};
use crate::transcript::EngineKind;
use differences::{Differences, Known};
use sets::{Entry, Phase};

/// The versions that both engines speak and whose answers differ: the oldest, one between, and Debian 12's newest.
const VERSIONS: [&str; 3] = ["1.24", "1.40", "1.41"];
/// What the docker command speaks, so that both engines get the same request.
const CREATE_VERSION: &str = "1.41";
/// What every engine can be asked about itself.
const GENERAL: [(&str, &str); 13] = [
    ("info", "/info"),
    ("version", "/version"),
    ("networks", "/networks"),
    ("network", "/networks/bridge"),
    ("network", "/networks/host"),
    ("network", "/networks/none"),
    ("volumes", "/volumes"),
    ("images", "/images/json"),
    ("images", "/images/json?digests=1&all=1"),
    ("image", "/images/busybox/json"),
    ("history", "/images/busybox/history"),
    ("containers", "/containers/json?all=1"),
    ("containers", "/containers/json?all=1&size=1"),
];

/// What is compared.
#[derive(Debug, Args)]
pub struct InspectorArguments {
    /// The dory binary.
    #[arg(long)]
    dory: PathBuf,
    /// The dockerd binary.
    #[arg(long)]
    dockerd: PathBuf,
    /// Folder with the docker commands, see docs/testing.md.
    #[arg(long)]
    tools: PathBuf,
    /// Folder with the image archives.
    #[arg(long)]
    images: PathBuf,
    /// The file of what is made and asked.
    #[arg(long)]
    sets: PathBuf,
    /// The document that lists the known differences.
    #[arg(long)]
    known: PathBuf,
    /// Scratch space; removed at the end.
    #[arg(long, default_value = "/var/tmp/dory-inspector")]
    work: PathBuf,
    /// Print the known differences too.
    #[arg(long)]
    all: bool,
    /// Keep the answers in this folder.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// Make only the containers whose names contain one of these.
    filter: Vec<String>,
}

/// Compares, and prints what differs; true where everything that differs has a reason.
///
/// # Errors
/// An engine does not start or does not answer.
pub fn run(arguments: &InspectorArguments) -> Result<bool> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let mut entries = sets::parse(&read(&arguments.sets)?)?;
    let known = Known::parse(&read(&arguments.known)?).only(|place| !place.contains("build "));
    if !arguments.filter.is_empty() {
        entries.retain(|entry| match entry {
            Entry::Container { name, .. } => arguments.filter.iter().any(|part| name.contains(part)),
            Entry::Request { path, .. } => arguments.filter.iter().any(|part| path.contains(part)),
        });
    }
    let work = crate::scratch(&arguments.work)?;
    let ready = |kind: EngineKind, binary: &Path| -> Result<Subject> {
        let mut engine = Engine::prepare(kind, binary, &work.join(kind.name()))?;
        engine.start()?;
        engine.load_images(&arguments.tools, &["busybox.tar"].map(|name| arguments.images.join(name)))?;
        Ok(Subject { engine, tools: arguments.tools.clone(), answers: arguments.answers.clone() })
    };
    let dory = ready(EngineKind::Dory, &arguments.dory)?;
    let dockerd = ready(EngineKind::Dockerd, &arguments.dockerd)?;
    let mut differences = Differences::default();
    let outcome = compare_all(&entries, &dory, &dockerd, &mut differences);
    for mut subject in [dory, dockerd] {
        engine::remove_containers(&subject.engine, &arguments.tools);
        subject.engine.stop(Signal::TERM)?;
    }
    let _ = std::fs::remove_dir_all(&work);
    outcome?;
    Ok(differences.report(&known, arguments.all))
}

fn compare_all(
    entries: &[Entry],
    dory: &Subject,
    dockerd: &Subject,
    differences: &mut Differences,
) -> Result<()> {
    let mut made = Vec::new();
    for entry in entries {
        if let Entry::Container { name, phase, flags, command } = entry {
            let outcomes = [dory, dockerd].map(|subject| subject.make(name, *phase, flags, command));
            let [one, other] = outcomes;
            let (one, other) = (one?, other?);
            if one["Status"] == 0 && other["Status"] == 0 {
                made.push(name.as_str());
            }
            differences.compare("create", name, CREATE_VERSION, &one, &other);
        }
    }
    for version in VERSIONS {
        for (subject, path) in GENERAL {
            ask((subject, path, version), ("GET", path, ""), dory, dockerd, differences)?;
        }
        for name in &made {
            let path = format!("/containers/{name}/json");
            ask(("container", name, version), ("GET", &path, ""), dory, dockerd, differences)?;
        }
    }
    // Last, because what should be refused might be done.
    for entry in entries {
        if let Entry::Request { method, path, body } = entry {
            let request = format!("request {method} {path} {body}");
            let subject =
                if path.starts_with("/containers/json?") { "containers" } else { request.trim_end() };
            ask((subject, &request, CREATE_VERSION), (method, path, body), dory, dockerd, differences)?;
        }
    }
    Ok(())
}

/// Sends one request to both engines and compares the answers.
fn ask(
    (subject, thing, version): (&str, &str, &str),
    (method, path, body): (&str, &str, &str),
    dory: &Subject,
    dockerd: &Subject,
    differences: &mut Differences,
) -> Result<()> {
    let [one, other] = [dory, dockerd].map(|side| side.ask(version, method, path, body));
    differences.compare(subject, thing, version, &one?, &other?);
    Ok(())
}

/// One of the two engines.
struct Subject {
    engine: Engine,
    tools: PathBuf,
    answers: Option<PathBuf>,
}

impl Subject {
    /// Makes a container; the answer is what the docker command said where it failed.
    fn make(&self, name: &str, phase: Phase, flags: &str, command: &str) -> Result<Value> {
        let command = match (phase, command) {
            (Phase::Running, "") => "sleep 1000",
            (Phase::Ended, "") => "true",
            (_, command) => command,
        };
        let mut script = format!("docker create --name '{name}' {flags} busybox {command} >/dev/null");
        match phase {
            Phase::Created => {}
            Phase::Running => script.push_str(&format!(" && docker start '{name}' >/dev/null")),
            Phase::Ended => {
                script.push_str(&format!(" && {{ docker start -a '{name}' </dev/null >/dev/null || true; }}"))
            }
        }
        let tools = self.tools.display();
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("PATH", format!("{tools}/new:/usr/sbin:/usr/bin:/sbin:/bin"))
            .env("DOCKER_HOST", format!("unix://{}", self.engine.socket.display()))
            .env("DOCKER_API_VERSION", CREATE_VERSION)
            .env("DOCKER_CONFIG", format!("{tools}/new/config"))
            .stdin(Stdio::null())
            .output()
            .context("cannot start `sh`")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(self.shaped(&json!({"Status": output.status.code(), "Errors": errors.trim()})))
    }

    fn ask(&self, version: &str, method: &str, path: &str, body: &str) -> Result<Value> {
        let answer = http::request(&self.engine.socket, method, &format!("/v{version}{path}"), body)?;
        if let Some(folder) = &self.answers {
            std::fs::create_dir_all(folder)?;
            let name =
                format!("{}-{version}-{method}{}.json", self.engine.kind.name(), path.replace('/', "_"));
            std::fs::write(folder.join(name), serde_json::to_string_pretty(&answer.body)?)?;
        }
        if answer.status == 201
            && let Some(id) = answer.body["Id"].as_str()
        {
            http::request(&self.engine.socket, "DELETE", &format!("/v{version}/containers/{id}"), "")?;
        }
        let body = self.shaped(&answer.body);
        Ok(if method == "GET" && answer.status == 200 {
            body
        } else {
            json!({"Status": answer.status, "Body": body})
        })
    }

    fn shaped(&self, value: &Value) -> Value {
        shape::shape(value, &self.engine.folder.display().to_string(), "")
    }
}
