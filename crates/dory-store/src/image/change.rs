//! `--change` of `docker import` and `docker commit`: Dockerfile instructions that alter a configuration.

use std::collections::BTreeMap;

use dory_types::GoDuration;

use super::{HealthcheckConfig, RunConfig};

mod words;

/// Docker runs a command in shell form with this.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The instructions that alter a configuration.
const KNOWN: [&str; 11] = [
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
    /// Nothing follows the instruction; dockerd's message.
    #[error("{0} requires at least one argument")]
    NoArgument(String),
    /// Names and values do not pair; dockerd's message.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NotAPair(String),
    /// A name is missing before `=`; dockerd's message.
    #[error("{0} names can not be blank")]
    BlankName(String),
    /// There is a name and nothing else; dockerd's message.
    #[error("{0} must have two arguments")]
    OneArgument(String),
    /// A quote is opened and not closed; dockerd's message.
    #[error(
        "failed to process {word:?}: unexpected end of statement while looking for matching {quote}-quote"
    )]
    Quote {
        /// What has it.
        word: String,
        /// `double` or `single`.
        quote: &'static str,
    },
    /// Not a port; dockerd's message.
    #[error("invalid containerPort: {0}")]
    Port(String),
    /// Not a protocol with ports; dockerd's message.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// An option of HEALTHCHECK is unknown; dockerd's message.
    #[error("Unknown flag: {0}")]
    UnknownFlag(String),
    /// An option's value is none.
    #[error("invalid value {value:?} for {flag}")]
    FlagValue {
        /// The option.
        flag: String,
        /// Its value.
        value: String,
    },
    /// The check is neither NONE nor CMD; dockerd's message.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType(String),
    /// An instruction that ONBUILD may not have; dockerd's message.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    Trigger(String),
}

/// Applies Dockerfile instructions, one an element, to a configuration.
///
/// # Errors
/// [`ChangeError`]; the configuration may have been altered by the instructions before.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    let mut command_is_set = false;
    for line in
        changes.iter().flat_map(|change| change.lines()).map(str::trim).filter(|line| !line.is_empty())
    {
        let (written, arguments) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let instruction = written.to_ascii_uppercase();
        if !KNOWN.contains(&instruction.as_str()) {
            return Err(ChangeError::NotAChange(written.to_owned()));
        }
        let change = Change { instruction: &instruction, arguments: arguments.trim() };
        if instruction == "ENTRYPOINT" && !command_is_set {
            // The arguments that the image had belong to its own entrypoint.
            config.cmd = None;
        }
        command_is_set |= instruction == "CMD";
        change.apply(config)?;
    }
    Ok(())
}

/// One instruction.
struct Change<'a> {
    instruction: &'a str,
    arguments: &'a str,
}

impl Change<'_> {
    fn apply(&self, config: &mut RunConfig) -> Result<(), ChangeError> {
        if self.arguments.is_empty() && !matches!(self.instruction, "CMD" | "ENTRYPOINT") {
            return Err(ChangeError::NoArgument(self.instruction.to_owned()));
        }
        match self.instruction {
            "CMD" => config.cmd = Some(command(self.arguments, &config.shell)),
            "ENTRYPOINT" => config.entrypoint = Some(command(self.arguments, &config.shell)),
            "ENV" => {
                self.pairs(config)?.into_iter().for_each(|(name, value)| set_variable(config, &name, &value))
            }
            "LABEL" => config.labels.extend(self.pairs(config)?),
            "EXPOSE" => self.expose(config)?,
            "USER" => config.user = self.word(config)?,
            "STOPSIGNAL" => config.stop_signal = Some(self.word(config)?),
            "WORKDIR" => config.working_dir = join(&config.working_dir, &self.word(config)?),
            "VOLUME" => {
                let volumes = self.list(config)?.into_iter().map(|path| (path, BTreeMap::new()));
                config.volumes.extend(volumes);
            }
            "ONBUILD" => config.on_build.push(self.trigger()?),
            _ => config.healthcheck = Some(healthcheck(self.arguments, &config.shell)?),
        }
        Ok(())
    }

    /// The arguments as one value, without quotes and with variables replaced.
    fn word(&self, config: &RunConfig) -> Result<String, ChangeError> {
        words::expand(self.arguments, &config.env)
    }

    /// The arguments as a JSON array or as words.
    fn list(&self, config: &RunConfig) -> Result<Vec<String>, ChangeError> {
        if let Some(list) = exec_form(self.arguments) {
            return Ok(list);
        }
        words::split(self.arguments).iter().map(|word| words::expand(word, &config.env)).collect()
    }

    /// `name=value …`, or the older form `name value`.
    fn pairs(&self, config: &RunConfig) -> Result<Vec<(String, String)>, ChangeError> {
        let words = words::split(self.arguments);
        let expand = |text: &str| words::expand(text, &config.env);
        if !words[0].contains('=') {
            let (name, value) = self
                .arguments
                .split_once(char::is_whitespace)
                .ok_or_else(|| ChangeError::OneArgument(self.instruction.to_owned()))?;
            return Ok(vec![(expand(name)?, expand(value.trim_start())?)]);
        }
        let pairs = words.iter().map(|word| {
            let (name, value) = word.split_once('=').ok_or_else(|| ChangeError::NotAPair(word.clone()))?;
            if name.is_empty() {
                return Err(ChangeError::BlankName(self.instruction.to_owned()));
            }
            Ok((expand(name)?, expand(value)?))
        });
        pairs.collect()
    }

    fn expose(&self, config: &mut RunConfig) -> Result<(), ChangeError> {
        for word in self.list(config)? {
            let invalid = || ChangeError::Port(word.clone());
            let (ports, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
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
        }
        Ok(())
    }

    fn trigger(&self) -> Result<String, ChangeError> {
        let instruction = self.arguments.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if matches!(instruction.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            return Err(ChangeError::Trigger(instruction));
        }
        Ok(self.arguments.to_owned())
    }
}

/// A JSON array of strings.
fn exec_form(arguments: &str) -> Option<Vec<String>> {
    serde_json::from_str(arguments).ok()
}

/// A command: a JSON array as it is, everything else for the shell.
fn command(arguments: &str, shell: &[String]) -> Vec<String> {
    if arguments.is_empty() {
        return Vec::new();
    }
    exec_form(arguments).unwrap_or_else(|| {
        let default = || DEFAULT_SHELL.map(str::to_owned).to_vec();
        let mut command = if shell.is_empty() { default() } else { shell.to_vec() };
        command.push(arguments.to_owned());
        command
    })
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

/// `NONE`, or `[--option=value …] CMD command`.
fn healthcheck(arguments: &str, shell: &[String]) -> Result<HealthcheckConfig, ChangeError> {
    let mut check = HealthcheckConfig::default();
    let mut rest = arguments;
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        set_flag(&mut check, flag)?;
        rest = after.trim_start();
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command_text = command_text.trim();
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" => vec!["NONE".to_owned()],
        "CMD" if command_text.is_empty() => {
            return Err(ChangeError::NoArgument("HEALTHCHECK CMD".to_owned()));
        }
        "CMD" => match exec_form(command_text) {
            Some(command) => [vec!["CMD".to_owned()], command].concat(),
            None if shell.is_empty() => vec!["CMD-SHELL".to_owned(), command_text.to_owned()],
            None => [vec!["CMD".to_owned()], command(command_text, shell)].concat(),
        },
        other => return Err(ChangeError::HealthcheckType(other.to_owned())),
    };
    Ok(check)
}

/// Sets one `--name=value` of a healthcheck.
fn set_flag(check: &mut HealthcheckConfig, flag: &str) -> Result<(), ChangeError> {
    let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
    let invalid = || ChangeError::FlagValue { flag: name.to_owned(), value: value.to_owned() };
    let duration = || match value.parse::<GoDuration>() {
        // Docker's least time between checks.
        Ok(GoDuration(nanoseconds)) if nanoseconds >= 1_000_000 || nanoseconds == 0 => Ok(nanoseconds),
        _ => Err(invalid()),
    };
    match name {
        "--interval" => check.interval = duration()?,
        "--timeout" => check.timeout = duration()?,
        "--start-period" => check.start_period = duration()?,
        "--start-interval" => check.start_interval = duration()?,
        "--retries" => {
            check.retries = value.parse().ok().filter(|retries| *retries >= 0).ok_or_else(invalid)?
        }
        _ => return Err(ChangeError::UnknownFlag(name.trim_start_matches('-').to_owned())),
    }
    Ok(())
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
            ("USER", "USER requires at least one argument"),
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
            ("HEALTHCHECK --x=1 CMD y", "Unknown flag: x"),
            ("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ];
        for (change, message) in cases {
            assert_eq!(apply(&[change]).unwrap_err(), message);
        }
    }
}
