//! The log driver and its options, from Docker's `HostConfig.LogConfig`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attributes::{self, LogSubject};
use crate::options;

/// How a container's output is kept; the shim gets it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Where records go.
    pub driver: LogDriver,
    /// The `attrs` of every record: the labels, variables and tag that the options ask for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// `mode=non-blocking`: output for which the disk is too slow waits in so many bytes of memory, and what finds no
    /// room there is lost. `None`: the container waits for the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<u64>,
}

/// A log driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// dockerd's default: a chain of files with one JSON record per line.
    JsonFile(FileOptions),
    /// A chain of files with records in a compact form of our own, rotated and compressed unless told otherwise.
    Local(FileOptions),
    /// Nothing is kept; attached clients still see the output.
    None,
}

impl LogDriver {
    /// The form of its records and the options of its files; `None` where nothing is kept.
    pub fn files(&self) -> Option<(LogFormat, FileOptions)> {
        match self {
            Self::JsonFile(options) => Some((LogFormat::Json, *options)),
            Self::Local(options) => Some((LogFormat::Local, *options)),
            Self::None => None,
        }
    }
}

/// How records lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// dockerd's: a line of JSON each.
    Json,
    /// Our own: see the crate's `local` module.
    Local,
}

/// Options of a chain of files; the default is that of `json-file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOptions {
    /// Bytes after which a file is rotated; `None` lets it grow.
    pub max_size: Option<u64>,
    /// Files that are kept, the one being written included; at least 1.
    pub max_file: u32,
    /// Rotated files are compressed (gzip).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
}

impl FileOptions {
    /// dockerd's defaults of the `local` driver: five files of 20 MiB, the rotated ones compressed.
    pub const LOCAL: Self = Self { max_size: Some(20 << 20), max_file: 5, compress: true };
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { max_size: None, max_file: 1, compress: false }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            driver: LogDriver::JsonFile(FileOptions::default()),
            attributes: BTreeMap::new(),
            buffer: None,
        }
    }
}

/// A log configuration that cannot be used; the texts are dockerd's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogConfigError {
    /// No such driver.
    #[error("error looking up logging plugin {0}: plugin \"{0}\" not found")]
    UnknownDriver(String),
    /// A driver that dockerd has and we do not.
    #[error("logger: log driver '{0}' is not supported: use 'json-file', 'local' or 'none'")]
    UnsupportedDriver(String),
    /// No such option.
    #[error("unknown log opt '{0}' for json-file log driver")]
    UnknownJsonFileOption(String),
    /// No such option, in the words of that driver.
    #[error("unknown log opt '{0}' for log driver local")]
    UnknownLocalOption(String),
    /// `mode` is neither `blocking` nor `non-blocking`.
    #[error("logger: logging mode not supported: {0}")]
    Mode(String),
    /// `max-buffer-size` without `mode=non-blocking`.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferSize,
    /// `max-buffer-size` is not a size.
    #[error("error parsing option max-buffer-size: invalid size: '{0}'")]
    BufferSizeText(String),
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
    /// `json-file` is to compress files that it does not rotate.
    #[error(
        "failed to initialize logging driver: compress cannot be true when max-file is less than 2 or max-size is not set"
    )]
    NothingToCompress,
    /// As [`Self::Size`], in the words of `local`.
    #[error("failed to initialize logging driver: invalid value for max-size: {0}: invalid size: '{0}'")]
    LocalSize(String),
    /// As [`Self::FileCount`], in the words of `local`.
    #[error(
        "failed to initialize logging driver: invalid value for max-file: {0}: strconv.Atoi: parsing \"{0}\": invalid syntax"
    )]
    LocalFileCount(String),
    /// As [`Self::Compress`], in the words of `local`.
    #[error(
        "failed to initialize logging driver: error reading compress log option: strconv.ParseBool: parsing \"{0}\": \
         invalid syntax"
    )]
    LocalCompress(String),
    /// `local` is to compress its only file.
    #[error("failed to initialize logging driver: compression cannot be enabled when max file count is 1")]
    OnlyFileCompressed,
    /// `labels-regex` or `env-regex` is no regular expression.
    #[error("failed to initialize logging driver: error parsing regexp: {reason}: `{pattern}`")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `tag` uses a field that does not exist.
    #[error("failed to initialize logging driver: cannot evaluate the tag template `{0}`")]
    Tag(String),
}

/// Drivers that dockerd registers and we refuse by name.
const FOREIGN_DRIVERS: [&str; 8] =
    ["syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs"];

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
                buffer: options::buffer(options)?,
                driver: LogDriver::JsonFile(options::json_file(options)?),
                attributes: attributes::collect(options, subject)?,
            }),
            "local" => Ok(Self {
                buffer: options::buffer(options)?,
                driver: LogDriver::Local(options::local(options)?),
                attributes: BTreeMap::new(),
            }),
            "none" => Ok(Self { driver: LogDriver::None, attributes: BTreeMap::new(), buffer: None }),
            other if FOREIGN_DRIVERS.contains(&other) => {
                Err(LogConfigError::UnsupportedDriver(other.to_owned()))
            }
            other => Err(LogConfigError::UnknownDriver(other.to_owned())),
        }
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
                LogDriver::JsonFile(FileOptions { max_size: Some(size), max_file: 3, compress: false }),
                "{text}"
            );
        }
        assert_eq!(parse("", &[]).unwrap(), LogConfig::default());
        assert_eq!(parse("none", &[("x", "y")]).unwrap().driver, LogDriver::None);
        assert_eq!(parse("local", &[]).unwrap().driver, LogDriver::Local(FileOptions::LOCAL));
        let plain = [("max-file", "1"), ("compress", "false"), ("max-size", "5k")];
        let options = FileOptions { max_size: Some(5000), ..FileOptions::default() };
        assert_eq!(parse("local", &plain).unwrap().driver, LogDriver::Local(options));
        let compressed = [("max-file", "2"), ("compress", "1"), ("max-size", "5k")];
        let options = FileOptions { max_size: Some(5000), max_file: 2, compress: true };
        assert_eq!(parse("json-file", &compressed).unwrap().driver, LogDriver::JsonFile(options));
    }

    /// The texts of dockerd 20.10 and 28.
    #[test]
    fn refuses_with_dockerds_texts() {
        for (kind, option, message) in [
            ("foo", None, "error looking up logging plugin foo: plugin \"foo\" not found"),
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
            (
                "syslog",
                None,
                "logger: log driver 'syslog' is not supported: use 'json-file', 'local' or 'none'",
            ),
            (
                "",
                Some(("compress", "true")),
                "failed to initialize logging driver: compress cannot be true when max-file is less than 2 or \
                 max-size is not set",
            ),
            (
                "local",
                Some(("max-file", "1")),
                "failed to initialize logging driver: compression cannot be enabled when max file count is 1",
            ),
            ("local", Some(("labels", "a")), "unknown log opt 'labels' for log driver local"),
            (
                "local",
                Some(("max-size", "x")),
                "failed to initialize logging driver: invalid value for max-size: x: invalid size: 'x'",
            ),
        ] {
            assert_eq!(parse(kind, option.as_slice()).unwrap_err(), message);
        }
    }

    #[test]
    fn reads_modes() {
        for (options, buffer) in [
            (&[][..], None),
            (&[("mode", "blocking")][..], None),
            (&[("mode", "non-blocking")], Some(1_000_000)),
            (&[("mode", "non-blocking"), ("max-buffer-size", "4m")], Some(4_000_000)),
            (&[("mode", "non-blocking"), ("max-buffer-size", "0")], Some(0)),
        ] {
            for driver in ["json-file", "local"] {
                assert_eq!(parse(driver, options).unwrap().buffer, buffer, "{options:?}");
            }
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
