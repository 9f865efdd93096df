//! `info`.

use anyhow::Result;

use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::data::Data;
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, value};
use crate::template::Template;
use crate::{print, units};

/// `dory info`.
pub(crate) const INFO: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what the engine is, has and can do",
    flags: &[&[value("format", 'f', "string", "json, or a Go template")]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(info(invocation)),
};

async fn info(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let info: Data = invocation.client.get(Path::new(&["info"]).as_str()).await?;
    match invocation.arguments.text("format") {
        "" => {
            print(&format!("Client:\n Version:    {}\n\nServer:\n{}", invocation.version, describe(&info)))?;
            for warning in texts(&info, "Warnings") {
                eprintln!("{warning}");
            }
            Ok(ExitStatus::Success)
        }
        "json" => print(&format!("{}\n", info.to_json())),
        format => print(&format!("{}\n", Template::parse(format)?.render(&info)?)),
    }
}

/// Lines in the making: what the engine does not tell is left out.
struct Lines<'d> {
    info: &'d Data,
    text: String,
}

impl Lines<'_> {
    fn line(&mut self, depth: usize, title: &str, value: &str) {
        self.text.push_str(&format!("{}{title}: {value}\n", " ".repeat(depth)));
    }

    fn field(&mut self, depth: usize, title: &str, name: &str) {
        if let Some(value) = self.info.get(name).and_then(display).filter(|value| !value.is_empty()) {
            self.line(depth, title, &value);
        }
    }

    fn list(&mut self, depth: usize, title: &str, values: &[String]) {
        if !values.is_empty() {
            self.text.push_str(&format!("{}{title}:\n", " ".repeat(depth)));
            for value in values {
                self.text.push_str(&format!("{}{value}\n", " ".repeat(depth + 1)));
            }
        }
    }
}

fn describe(info: &Data) -> String {
    let mut lines = Lines { info, text: String::new() };
    lines.field(1, "Containers", "Containers");
    lines.field(2, "Running", "ContainersRunning");
    lines.field(2, "Paused", "ContainersPaused");
    lines.field(2, "Stopped", "ContainersStopped");
    for (title, name) in
        [("Images", "Images"), ("Server Version", "ServerVersion"), ("Storage Driver", "Driver")]
    {
        lines.field(1, title, name);
    }
    for status in pairs_of(info, "DriverStatus") {
        lines.line(2, &status.0, &status.1);
    }
    for (title, name) in [
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ] {
        lines.field(1, title, name);
    }
    plugins(&mut lines);
    runtimes(&mut lines);
    security(&mut lines);
    for (title, name) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        lines.field(1, title, name);
    }
    let memory = info.get("MemTotal").and_then(Data::as_int).unwrap_or_default();
    lines.line(1, "Total Memory", &units::binary_size(memory as f64));
    for (title, name) in [
        ("Name", "Name"),
        ("ID", "ID"),
        ("Docker Root Dir", "DockerRootDir"),
        ("Debug Mode", "Debug"),
        ("Experimental", "ExperimentalBuild"),
    ] {
        lines.field(1, title, name);
    }
    lines.list(1, "Labels", &texts(info, "Labels"));
    lines.field(1, "Live Restore Enabled", "LiveRestoreEnabled");
    lines.text
}

fn plugins(lines: &mut Lines<'_>) {
    let Some(plugins) = lines.info.get("Plugins") else { return };
    lines.text.push_str(" Plugins:\n");
    for kind in ["Volume", "Network", "Authorization", "Log"] {
        let names = texts(plugins, kind);
        if !names.is_empty() {
            lines.line(2, kind, &names.join(" "));
        }
    }
}

fn runtimes(lines: &mut Lines<'_>) {
    if let Some(Data::Map(runtimes)) = lines.info.get("Runtimes") {
        let names: Vec<_> = runtimes.iter().map(|(name, _)| name.as_str()).collect();
        lines.line(1, "Runtimes", &names.join(" "));
    }
    lines.field(1, "Default Runtime", "DefaultRuntime");
    lines.field(1, "Init Binary", "InitBinary");
}

/// `name=seccomp,profile=builtin` is a name with lines of its own.
fn security(lines: &mut Lines<'_>) {
    let mut described = Vec::new();
    for option in texts(lines.info, "SecurityOptions") {
        for pair in option.split(',') {
            match pair.split_once('=') {
                Some(("name", name)) => described.push(name.to_owned()),
                Some((key, value)) => {
                    let mut title = key.to_owned();
                    title[..1].make_ascii_uppercase();
                    described.push(format!(" {title}: {value}"));
                }
                None => described.push(pair.to_owned()),
            }
        }
    }
    lines.list(1, "Security Options", &described);
}

fn display(value: &Data) -> Option<String> {
    match value {
        Data::Text(text) => Some(text.clone()),
        Data::Number(number) => Some(number.to_string()),
        Data::Bool(value) => Some(value.to_string()),
        Data::Null | Data::List(_) | Data::Map(_) => None,
    }
}

fn texts(data: &Data, name: &str) -> Vec<String> {
    match data.get(name) {
        Some(Data::List(values)) => values.iter().filter_map(display).collect(),
        _ => Vec::new(),
    }
}

fn pairs_of(data: &Data, name: &str) -> Vec<(String, String)> {
    let Some(Data::List(pairs)) = data.get(name) else { return Vec::new() };
    pairs
        .iter()
        .filter_map(|pair| match pair {
            Data::List(pair) => Some((display(pair.first()?)?, display(pair.get(1)?)?)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_what_is_not_told() {
        let info = r#"{"Containers":1,"Driver":"overlay","DriverStatus":[["Tier","kernel"]],"MemTotal":1073741824,
                       "SecurityOptions":["name=seccomp,profile=builtin","name=userns"],"InitBinary":""}"#;
        assert_eq!(
            describe(&serde_json::from_str(info).unwrap()),
            " Containers: 1\n Storage Driver: overlay\n  Tier: kernel\n Security Options:\n  seccomp\n   Profile: builtin\n  \
             userns\n Total Memory: 1GiB\n"
        );
    }
}
