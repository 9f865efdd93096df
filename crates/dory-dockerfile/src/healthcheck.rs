//! `HEALTHCHECK`.

use std::time::Duration;

use dory_types::GoDuration;

use crate::error::SyntaxError;
use crate::flags::{Flags, Known};
use crate::statement::{Statement, json_strings};

/// How a container's health is checked; zero is "the default" or "inherited" everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `NONE`; or `CMD` and words; or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// Of one check.
    pub timeout: Duration,
    /// In which failures do not count.
    pub start_period: Duration,
    /// Between two checks in the start period.
    pub start_interval: Duration,
    /// Failures in a row until it is unhealthy.
    pub retries: u32,
}

const FLAGS: Known = Known {
    booleans: &[],
    strings: &["interval", "timeout", "start-period", "start-interval", "retries"],
    lists: &[],
};

impl Healthcheck {
    pub(crate) fn parse(statement: &Statement<'_>) -> Result<Self, SyntaxError> {
        let (written, rest) = statement.rest.split_once(char::is_whitespace).unwrap_or((statement.rest, ""));
        let kind = written.to_uppercase();
        let rest = rest.trim_start();
        match kind.as_str() {
            "" => return Err(SyntaxError::NoArgument("HEALTHCHECK")),
            "NONE" if rest.is_empty() => return Ok(Self { test: vec![kind], ..Self::default() }),
            "NONE" => return Err(SyntaxError::HealthcheckNone),
            _ => {}
        }
        let mut flags = Flags::parse(&statement.flags, &FLAGS)?;
        if kind != "CMD" {
            return Err(SyntaxError::HealthcheckType(kind));
        }
        let (kind, command) = match json_strings(rest)? {
            Some(words) => ("CMD", words),
            None if rest.is_empty() => ("CMD", Vec::new()),
            None => ("CMD-SHELL", vec![rest.to_owned()]),
        };
        if command.is_empty() {
            return Err(SyntaxError::HealthcheckCommand);
        }
        Ok(Self {
            test: std::iter::once(kind.to_owned()).chain(command).collect(),
            interval: interval(&mut flags, "interval")?,
            timeout: interval(&mut flags, "timeout")?,
            start_period: interval(&mut flags, "start-period")?,
            start_interval: interval(&mut flags, "start-interval")?,
            retries: retries(&mut flags)?,
        })
    }
}

fn interval(flags: &mut Flags, name: &'static str) -> Result<Duration, SyntaxError> {
    let Some(text) = flags.string(name) else { return Ok(Duration::ZERO) };
    let duration: GoDuration = text.parse().map_err(|_| SyntaxError::Duration(text.clone()))?;
    match u64::try_from(duration.0) {
        Ok(0) => Ok(Duration::ZERO),
        Ok(nanoseconds) if nanoseconds >= 1_000_000 => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err(SyntaxError::HealthcheckInterval(name)),
    }
}

fn retries(flags: &mut Flags) -> Result<u32, SyntaxError> {
    let Some(text) = flags.string("retries") else { return Ok(0) };
    let count: i64 =
        text.parse().map_err(|_| SyntaxError::Number { name: "retries", value: text.clone() })?;
    if count < 0 {
        return Err(SyntaxError::Retries(count));
    }
    u32::try_from(count).map_err(|_| SyntaxError::Number { name: "retries", value: text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Healthcheck, String> {
        Healthcheck::parse(&Statement::cut(text, '\\')).map_err(|error| error.to_string())
    }

    #[test]
    fn reads() {
        let check = parse("HEALTHCHECK --interval=5m --timeout=3s --retries=2 CMD curl -f / || exit 1")
            .expect("well formed");
        assert_eq!(check.test, ["CMD-SHELL", "curl -f / || exit 1"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (Duration::from_secs(300), Duration::from_secs(3), 2)
        );
        assert_eq!(parse("HEALTHCHECK cmd [\"a\", \"b\"]").expect("well formed").test, ["CMD", "a", "b"]);
        assert_eq!(parse("HEALTHCHECK none").expect("well formed").test, ["NONE"]);
    }

    #[test]
    fn refuses() {
        for (text, message) in [
            ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
            ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
            ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
            ("HEALTHCHECK --retries=x CMD x", "invalid value \"x\" for --retries"),
            ("HEALTHCHECK --interval=x CMD x", "time: invalid duration \"x\""),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
    }
}
