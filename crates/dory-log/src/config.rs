//! The log driver and its options, from Docker's `HostConfig.LogConfig`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attributes::{self, LogSubject};

/// How a container's output is kept; the shim gets it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Where records go.
    pub driver: LogDriver,
    /// The `attrs` of every record: the labels, variables and tag that the options ask for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A log driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// dockerd's default: a chain of files with one JSON record per line.
    JsonFile(JsonFile),
    /// Nothing is kept; attached clients still see the output.
    None,
}

/// Options of the `json-file` driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFile {
    /// Bytes after which a file is rotated; `None` lets it grow.
    pub max_size: Option<u64>,
    /// Files that are kept, the one being written included; at least 1.
    pub max_file: u32,
}

impl Default for JsonFile {
    fn default() -> Self {
        Self { max_size: None, max_file: 1 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { driver: LogDriver::JsonFile(JsonFile::default()), attributes: BTreeMap::new() }
    }
}

/// A log configuration that cannot be used; the texts are dockerd's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogConfigError {
    /// No such driver.
    #[error("logger: no log driver named '{0}' is registered")]
    UnknownDriver(String),
    /// A driver that dockerd has and we do not.
    #[error("logger: log driver '{0}' is not supported: use 'json-file' or 'none'")]
    UnsupportedDriver(String),
    /// No such option.
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption {
        /// The option's name.
        option: String,
        /// The driver's name.
        driver: &'static str,
    },
    /// An option that dockerd has and we do not.
    #[error("log opt '{0}' is not supported")]
    UnsupportedOption(String),
    /// `mode` is neither `blocking` nor `non-blocking`.
    #[error("logger: logging mode not supported: {0}")]
    Mode(String),
    /// `max-buffer-size` without `mode=non-blocking`.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferSize,
    /// `max-size` is not a size.
    #[error("failed to initialize logging driver: invalid size: '{0}'")]
    Size(String),
    /// `max-size` is zero.
    #[error("failed to initialize logging driver: max-size must be a positive number")]
    ZeroSize,
    /// `max-file` is not a number.
    #[error("failed to initialize logging driver: strconv.Atoi: parsing \"{0}\": invalid syntax")]
    FileCount(String),
    /// `max-file` is zero or negative.
    #[error("failed to initialize logging driver: max-file cannot be less than 1")]
    NoFile,
    /// `compress` is not a boolean.
    #[error("failed to initialize logging driver: strconv.ParseBool: parsing \"{0}\": invalid syntax")]
    Compress(String),
    /// `tag` uses a field that does not exist.
    #[error("failed to initialize logging driver: cannot evaluate the tag template `{0}`")]
    Tag(String),
}

/// Drivers that dockerd registers and we refuse by name.
const FOREIGN_DRIVERS: [&str; 9] =
    ["local", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs"];

impl LogConfig {
    /// The configuration that the API's `LogConfig {Type, Config}` asks for; an empty `kind` is the default driver.
    ///
    /// `subject` gives the container's side of the options `labels`, `env` and `tag`.
    ///
    /// # Errors
    /// [`LogConfigError`], with dockerd's texts: it answers 400 for unknown drivers and options when the container is
    /// created. COMPAT: values are checked then too, where dockerd checks most of them when the container starts.
    pub fn from_docker(
        kind: &str,
        options: &BTreeMap<String, String>,
        subject: &LogSubject<'_>,
    ) -> Result<Self, LogConfigError> {
        match kind {
            "" | "json-file" => Ok(Self {
                driver: LogDriver::JsonFile(parse_json_file(options)?),
                attributes: attributes::collect(options, subject)?,
            }),
            "none" => Ok(Self { driver: LogDriver::None, attributes: BTreeMap::new() }),
            other if FOREIGN_DRIVERS.contains(&other) => {
                Err(LogConfigError::UnsupportedDriver(other.to_owned()))
            }
            other => Err(LogConfigError::UnknownDriver(other.to_owned())),
        }
    }
}

fn parse_json_file(options: &BTreeMap<String, String>) -> Result<JsonFile, LogConfigError> {
    check_mode(options)?;
    let mut parsed = JsonFile::default();
    for (option, value) in options {
        match option.as_str() {
            // The shim never blocks a container on its log, and holds no queue that could overflow: both modes are one.
            "mode" | "max-buffer-size" | "labels" | "env" | "tag" => {}
            "max-size" => parsed.max_size = Some(parse_size(value)?),
            "max-file" => parsed.max_file = parse_file_count(value)?,
            "compress" if parse_bool(value)? => {
                return Err(LogConfigError::UnsupportedOption(option.clone()));
            }
            "compress" => {}
            "labels-regex" | "env-regex" => return Err(LogConfigError::UnsupportedOption(option.clone())),
            _ => return Err(LogConfigError::UnknownOption { option: option.clone(), driver: "json-file" }),
        }
    }
    Ok(parsed)
}

fn check_mode(options: &BTreeMap<String, String>) -> Result<(), LogConfigError> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(LogConfigError::Mode(mode.to_owned()));
    }
    if options.contains_key("max-buffer-size") && mode != "non-blocking" {
        return Err(LogConfigError::BufferSize);
    }
    Ok(())
}

/// Go-units `FromHumanSize`: `10`, `10k`, `1.5 MB`, `10MiB`; every unit is a power of 1000.
fn parse_size(text: &str) -> Result<u64, LogConfigError> {
    let invalid = || LogConfigError::Size(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let trimmed = lower.strip_suffix('b').unwrap_or(&lower);
    let trimmed = trimmed.strip_suffix('i').unwrap_or(trimmed);
    let (digits, unit) = match trimmed.char_indices().next_back() {
        Some((index, letter)) if letter.is_ascii_alphabetic() => (&trimmed[..index], letter),
        _ => (trimmed, '1'),
    };
    let power = "1kmgtp".find(unit).ok_or_else(invalid)?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    if !digits.starts_with(|first: char| first.is_ascii_digit())
        || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(invalid());
    }
    let size = digits.parse::<f64>().map_err(|_| invalid())? * 1000_f64.powi(power as i32);
    if size < 1.0 { Err(LogConfigError::ZeroSize) } else { Ok(size as u64) }
}

fn parse_file_count(text: &str) -> Result<u32, LogConfigError> {
    let count: i64 = text.parse().map_err(|_| LogConfigError::FileCount(text.to_owned()))?;
    u32::try_from(count).ok().filter(|&count| count > 0).ok_or(LogConfigError::NoFile)
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Result<bool, LogConfigError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(LogConfigError::Compress(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, options: &[(&str, &str)]) -> Result<LogConfig, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig::from_docker(kind, &options, &LogSubject::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_sizes_and_counts() {
        for (text, size) in [("10", 10), ("1k", 1000), ("1.5 MB", 1_500_000), ("2GiB", 2_000_000_000)] {
            let config = parse("json-file", &[("max-size", text), ("max-file", "3")]).unwrap();
            assert_eq!(
                config.driver,
                LogDriver::JsonFile(JsonFile { max_size: Some(size), max_file: 3 }),
                "{text}"
            );
        }
        assert_eq!(parse("", &[]).unwrap(), LogConfig::default());
        assert_eq!(parse("none", &[("x", "y")]).unwrap().driver, LogDriver::None);
    }

    /// The texts of dockerd 20.10 and 28.
    #[test]
    fn refuses_with_dockerds_texts() {
        for (kind, option, message) in [
            ("foo", None, "logger: no log driver named 'foo' is registered"),
            ("json-file", Some(("foo", "bar")), "unknown log opt 'foo' for json-file log driver"),
            (
                "json-file",
                Some(("max-size", "abc")),
                "failed to initialize logging driver: invalid size: 'abc'",
            ),
            (
                "json-file",
                Some(("max-size", "-1")),
                "failed to initialize logging driver: invalid size: '-1'",
            ),
            (
                "json-file",
                Some(("max-file", "0")),
                "failed to initialize logging driver: max-file cannot be less than 1",
            ),
            ("json-file", Some(("mode", "tru")), "logger: logging mode not supported: tru"),
            (
                "json-file",
                Some(("max-buffer-size", "3")),
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            ("local", None, "logger: log driver 'local' is not supported: use 'json-file' or 'none'"),
            ("", Some(("compress", "true")), "log opt 'compress' is not supported"),
        ] {
            assert_eq!(parse(kind, option.as_slice()).unwrap_err(), message);
        }
    }

    #[test]
    fn travels_as_json() {
        let config = parse("json-file", &[("max-size", "1k")]).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(json, r#"{"driver":{"json-file":{"max_size":1000,"max_file":1}}}"#);
        assert_eq!(serde_json::from_str::<LogConfig>(&json).unwrap(), config);
    }
}
