//! Resource limits of processes.

/// setrlimit(2)'s resources without `RLIMIT_`, lower case as Docker spells them in `--ulimit` and `HostConfig.Ulimits`.
pub const ULIMIT_NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
