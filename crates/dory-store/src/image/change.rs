//! What Dockerfile instructions do to an image's configuration: `--change` of `docker import` and `docker commit`,
//! and every instruction of a build that touches no file.

use std::collections::BTreeMap;

use dory_dockerfile::{CommandLine, ExpansionError, Instruction, KeyValue, Lexer, ParseError, Variables};
use dory_types::Signal;

use super::{HealthcheckConfig, RunConfig};

/// Docker runs a command in shell form with this.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The instructions that commit and import take (moby `validCommitCommands`).
const CHANGES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The instruction exists, but alters no configuration, or does not exist; dockerd's message.
    #[error("{0} is not a valid change command")]
    NotAChange(String),
    /// It is malformed.
    #[error("{}", .0.kind)]
    Syntax(#[from] ParseError),
    /// A variable or quote in it is.
    #[error(transparent)]
    Expansion(#[from] ExpansionError),
    /// Not a port; dockerd's message.
    #[error("invalid containerPort: {0}")]
    Port(String),
    /// Not a signal.
    #[error(transparent)]
    Signal(#[from] dory_types::SignalError),
    /// Not a protocol with ports; dockerd's message.
    #[error("invalid proto: {0}")]
    Protocol(String),
}

/// Applies Dockerfile instructions, one a line, to a configuration. Variables are those of its environment.
///
/// # Errors
/// [`ChangeError`]; the configuration may have been altered by the instructions before.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    let mut change = ConfigChange::new(config);
    for line in
        changes.iter().flat_map(|change| change.lines()).map(str::trim).filter(|line| !line.is_empty())
    {
        let keyword = line.split_whitespace().next().unwrap_or_default();
        if !CHANGES.iter().any(|known| keyword.eq_ignore_ascii_case(known)) {
            return Err(ChangeError::NotAChange(keyword.to_owned()));
        }
        let instruction = dory_dockerfile::parse_instruction(line)?;
        let variables = Environment(change.config.env.clone());
        change.apply(&instruction.value, Lexer::new('\\'), &variables)?;
    }
    Ok(())
}

/// An image's environment as variables.
#[derive(Debug, Clone, Default)]
struct Environment(Vec<String>);

impl Variables for Environment {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            _ => None,
        })
    }
}

/// A configuration that instructions alter, one after the other.
#[derive(Debug)]
pub struct ConfigChange<'a> {
    config: &'a mut RunConfig,
    command_is_set: bool,
}

impl<'a> ConfigChange<'a> {
    /// Begins a stage, or a list of changes.
    pub fn new(config: &'a mut RunConfig) -> Self {
        Self { config, command_is_set: false }
    }

    /// Goes on in a stage; `command_is_set` is what [`Self::command_is_set`] said before.
    pub fn resume(config: &'a mut RunConfig, command_is_set: bool) -> Self {
        Self { config, command_is_set }
    }

    /// Whether `CMD` was among the instructions: then a later `ENTRYPOINT` leaves it alone.
    pub fn command_is_set(&self) -> bool {
        self.command_is_set
    }

    /// Applies an instruction.
    ///
    /// # Errors
    /// [`ChangeError::NotAChange`] for one that alters files; what cannot be expanded; a port that is none.
    pub fn apply(
        &mut self,
        instruction: &Instruction,
        lexer: Lexer,
        variables: &dyn Variables,
    ) -> Result<(), ChangeError> {
        let expand = |text: &str| lexer.expand(text, variables).map(|expansion| expansion.text);
        let config = &mut *self.config;
        match instruction {
            Instruction::Cmd(command) => {
                config.cmd = Some(in_shell(command, &config.shell));
                self.command_is_set = true;
            }
            Instruction::Entrypoint(command) => {
                config.entrypoint = Some(in_shell(command, &config.shell));
                if !self.command_is_set {
                    // The arguments that the image had belong to its own entrypoint.
                    config.cmd = None;
                }
            }
            Instruction::Env(pairs) => {
                for (name, value) in expanded(pairs, expand)? {
                    set_variable(config, &name, &value);
                }
            }
            Instruction::Label(pairs) => config.labels.extend(expanded(pairs, expand)?),
            Instruction::Expose(ports) => {
                for port in ports {
                    expose(config, &expand(port)?)?;
                }
            }
            Instruction::User(user) => config.user = expand(user)?,
            Instruction::StopSignal(signal) => {
                let signal = expand(signal)?;
                signal.parse::<Signal>()?;
                config.stop_signal = Some(signal);
            }
            Instruction::Workdir(path) => config.working_dir = join(&config.working_dir, &expand(path)?),
            Instruction::Volume(paths) => {
                for path in paths {
                    config.volumes.insert(expand(path)?, BTreeMap::new());
                }
            }
            Instruction::Onbuild(trigger) => config.on_build.push(trigger.clone()),
            Instruction::Shell(shell) => config.shell = shell.clone(),
            Instruction::Healthcheck(check) => config.healthcheck = Some(healthcheck(check)),
            other => return Err(ChangeError::NotAChange(other.name().to_owned())),
        }
        Ok(())
    }
}

fn expanded(
    pairs: &[KeyValue],
    expand: impl Fn(&str) -> Result<String, ExpansionError>,
) -> Result<Vec<(String, String)>, ExpansionError> {
    pairs.iter().map(|pair| Ok((expand(&pair.key)?, expand(&pair.value)?))).collect()
}

/// A port or a range of ports, with or without a protocol.
fn expose(config: &mut RunConfig, written: &str) -> Result<(), ChangeError> {
    let invalid = || ChangeError::Port(written.to_owned());
    let (ports, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(ChangeError::Protocol(protocol));
    }
    if last < first {
        return Err(invalid());
    }
    let ports = (first..=last).map(|port| (format!("{port}/{protocol}"), BTreeMap::new()));
    config.exposed_ports.extend(ports);
    Ok(())
}

/// A command's words, those of the shell first where it runs the command.
fn in_shell(command: &CommandLine, shell: &[String]) -> Vec<String> {
    if !command.shell || command.words.is_empty() {
        return command.words.clone();
    }
    let default = || DEFAULT_SHELL.map(str::to_owned).to_vec();
    let shell = if shell.is_empty() { default() } else { shell.to_vec() };
    [shell, command.words.clone()].concat()
}

/// Sets a variable in place of an older value.
fn set_variable(config: &mut RunConfig, name: &str, value: &str) {
    let assignment = format!("{name}={value}");
    let same = |old: &&mut String| old.split_once('=').is_some_and(|(old, _)| old == name);
    match config.env.iter_mut().find(same) {
        Some(old) => *old = assignment,
        None => config.env.push(assignment),
    }
}

/// `path` seen from the directory `from`, always absolute.
fn join(from: &str, path: &str) -> String {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{from}/{path}") };
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            component => components.push(component),
        }
    }
    format!("/{}", components.join("/"))
}

fn healthcheck(check: &dory_dockerfile::Healthcheck) -> HealthcheckConfig {
    let nanoseconds = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    HealthcheckConfig {
        test: check.test.clone(),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: check.retries.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(changes: &[&str]) -> Result<RunConfig, String> {
        let mut config = RunConfig { cmd: Some(vec!["old".into()]), ..RunConfig::default() };
        let changes: Vec<_> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply_changes(&mut config, &changes).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn alters_every_field() {
        let config = apply(&[
            "ENTRYPOINT [\"/init\", \"-x\"]",
            "ENV A=1 B=\"two words\"",
            "ENV A=2 C=$A",
            "env D the rest  of it",
            "ENV A=3",
            "EXPOSE 80 53/udp 8000-8001",
            "LABEL k=v \"a b\"='c d'",
            "USER nobody",
            "VOLUME [\"/data\"]",
            "VOLUME /a /b",
            "WORKDIR /srv",
            "WORKDIR app/../web",
            "ONBUILD RUN true",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=5s --retries=3 CMD curl -f x",
        ])
        .unwrap();
        assert_eq!(config.entrypoint.unwrap(), ["/init", "-x"]);
        assert_eq!(config.cmd, None, "the old command belonged to the old entrypoint");
        assert_eq!(config.env, ["A=3", "B=two words", "C=1", "D=the rest  of it"]);
        let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.labels["a b"], "c d");
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("nobody", "/srv/web"));
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/data"]);
        assert_eq!(
            (config.on_build, config.stop_signal),
            (vec!["RUN true".to_owned()], Some("SIGQUIT".to_owned()))
        );
        let check = config.healthcheck.unwrap();
        assert_eq!(
            (check.test, check.interval, check.retries),
            (vec!["CMD-SHELL".into(), "curl -f x".into()], 5_000_000_000, 3)
        );
        assert_eq!(
            apply(&["CMD echo hi", "ENTRYPOINT x"]).unwrap().cmd.unwrap(),
            ["/bin/sh", "-c", "echo hi"]
        );
        assert_eq!(apply(&["HEALTHCHECK NONE"]).unwrap().healthcheck.unwrap().test, ["NONE"]);
    }

    #[test]
    fn refuses_with_dockers_texts() {
        let cases = [
            ("run x", "run is not a valid change command"),
            ("FOO x", "FOO is not a valid change command"),
            ("USER", "USER requires exactly one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
            ("LABEL =x", "LABEL names can not be blank"),
            (
                "ENV A=\"x",
                "failed to process \"\\\"x\": unexpected end of statement while looking for matching double-quote",
            ),
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("HEALTHCHECK --x=1 CMD y", "unknown flag: --x"),
            ("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ];
        for (change, message) in cases {
            assert_eq!(apply(&[change]).unwrap_err(), message);
        }
    }
}
