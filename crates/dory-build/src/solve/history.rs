//! What an image's history says of each instruction: BuildKit's words, which `docker history` and scanners know.

use dory_dockerfile::{Add, CommandLine, Copy, Sources};
use dory_store::HealthcheckConfig;

/// After the text of a step that made a layer.
pub(crate) const MARK: &str = " # buildkit";
/// The comment of each step.
pub(crate) const COMMENT: &str = "buildkit.dockerfile.v0";

/// Words in Go's `%q`.
pub(crate) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// Words in Go's `%v`.
pub(crate) fn plain(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `COPY`, its variables expanded.
pub(crate) fn copy(copy: &Copy, sources: &Sources) -> String {
    let parents = if copy.parents { " --parents" } else { "" };
    format!("COPY{parents}{}", files(sources))
}

/// `ADD`, its variables expanded.
pub(crate) fn add(_add: &Add, sources: &Sources) -> String {
    format!("ADD{}", files(sources))
}

fn files(sources: &Sources) -> String {
    let mut text = String::new();
    for (flag, value) in [("chown", &sources.chown), ("chmod", &sources.chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    if sources.link {
        text.push_str(" --link");
    }
    for path in &sources.paths {
        text.push_str(&format!(" {path}"));
    }
    for inline in &sources.inlines {
        text.push_str(&format!(" <<{}", inline.name));
    }
    format!("{text} {}", sources.destination)
}

/// `RUN` with the arguments that it sees.
pub(crate) fn run<'a>(arguments: impl Iterator<Item = (&'a str, &'a str)>, words: &[String]) -> String {
    let arguments: Vec<String> = arguments.map(|(name, value)| format!("{name}={value}")).collect();
    let words = words.join(" ");
    match arguments.as_slice() {
        [] => format!("RUN {words}"),
        some => format!("RUN |{} {} {words}", some.len(), some.join(" ")),
    }
}

/// `HEALTHCHECK` in Go's `%q` of a pointer to its structure.
pub(crate) fn healthcheck(check: &HealthcheckConfig) -> String {
    let duration = |nanoseconds: i64| {
        let text = dory_types::GoDuration(nanoseconds);
        format!("\"{text}\"")
    };
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let retries =
        if check.retries < 0x20 { format!("'\\x{:02x}'", check.retries) } else { format!("'{retries}'") };
    format!(
        "HEALTHCHECK &{{{} {} {} {} {} {retries}}}",
        quoted(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
    )
}

/// A command as its configuration has it: the shell first where it runs it.
pub(crate) fn words(command: &CommandLine, shell: &[String]) -> Vec<String> {
    if !command.shell || command.words.is_empty() {
        return command.words.clone();
    }
    let shell: Vec<String> = match shell {
        [] => ["/bin/sh", "-c"].map(str::to_owned).into(),
        shell => shell.to_vec(),
    };
    [shell, command.words.clone()].concat()
}
