//! `dockerd`: its flags and configuration file, said in the words of `dory serve`.
//!
//! Most flags have the same name and go on as they are; the few that only choose among ways in which Docker's engine can
//! work, and have one meaning here, are left out. What is left is known to `dory serve`, or refused by it by name.

use std::collections::HashSet;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::DOCKER_SOCKET;
use crate::serve;

/// Where Docker's engine looks for its configuration; it may be missing.
const CONFIG_FILE: &str = "/etc/docker/daemon.json";
/// Where Docker's engine keeps everything: a volume in `docker:dind`.
const DATA_ROOT: &str = "/var/lib/docker";

/// Settings that change nothing here, each for its reason.
const MEANINGLESS: &[&str] = &[
    "experimental",              // nothing here is
    "features",                  // likewise
    "exec-opt",                  // about cgroup drivers: groups are made directly
    "ip-forward",                // turned on where it is needed
    "iptables",                  // no iptables is used
    "ip6tables",                 // likewise
    "live-restore",              // containers always survive the engine
    "max-concurrent-downloads",  // chosen by what the line gives
    "max-concurrent-uploads",    // likewise
    "max-download-attempts",     // likewise
    "metrics-addr",              // there are none
    "raw-logs",                  // logs have no colours where nobody sees them
    "shutdown-timeout",          // containers survive the engine
    "storage-opt",               // options of drivers that are not here
    "userland-proxy",            // there is none
    "userland-proxy-path",       // likewise
    "containerd",                // there is none
    "containerd-namespace",      // likewise
    "init-path",                 // the binary itself
    "network-control-plane-mtu", // swarm's
];
/// Those of them that are switches on the command line.
const SWITCHES: &[&str] =
    &["experimental", "ip-forward", "iptables", "ip6tables", "live-restore", "raw-logs", "userland-proxy"];
/// Storage drivers that mean what we do, or what works wherever we do.
const STORAGE_DRIVERS: &[&str] = &["overlay2", "overlayfs", "vfs", "fuse-overlayfs", "native", ""];

/// Is `dockerd` with these flags.
pub fn serve(words: Vec<OsString>) -> Result<ExitCode> {
    let words = words
        .into_iter()
        .map(|word| word.into_string().map_err(|word| anyhow::anyhow!("`{}` is not UTF-8", word.display())))
        .collect::<Result<Vec<_>>>()?;
    let (mut flags, file) = take_config_file(words)?;
    let path = file.as_deref().unwrap_or(CONFIG_FILE);
    let config = match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("unable to configure the Docker daemon with file {path}"))?,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{path}`")),
    };
    flags = meaningful(flags)?;
    let given = names(&flags);
    flags.extend(from_config(config, &given)?);
    let given = names(&flags);
    for (name, default) in [("host", DOCKER_SOCKET), ("data-root", DATA_ROOT)] {
        if !given.contains(name) {
            flags.push(format!("--{name}={default}"));
        }
    }
    let words: Vec<OsString> =
        std::iter::once("serve".into()).chain(flags.into_iter().map(Into::into)).collect();
    Ok(serve::main(&words))
}

/// Takes `--config-file` out of the flags.
fn take_config_file(words: Vec<String>) -> Result<(Vec<String>, Option<String>)> {
    let (mut flags, mut file) = (Vec::with_capacity(words.len()), None);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.strip_prefix("--config-file") {
            Some("") => file = Some(words.next().context("flag needs an argument: --config-file")?),
            Some(value) if value.starts_with('=') => file = Some(value[1..].to_owned()),
            _ => flags.push(word),
        }
    }
    Ok((flags, file))
}

/// The flags without those that have no meaning here.
fn meaningful(words: Vec<String>) -> Result<Vec<String>> {
    let mut kept = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let name = match name {
            "-s" => "storage-driver",
            name => name.strip_prefix("--").unwrap_or_default(),
        };
        if name == "storage-driver" {
            check_storage_driver(&value.or_else(|| words.next()).unwrap_or_default())?;
        } else if MEANINGLESS.contains(&name) {
            if value.is_none() && !SWITCHES.contains(&name) {
                words.next();
            }
        } else {
            kept.push(word);
        }
    }
    Ok(kept)
}

fn check_storage_driver(driver: &str) -> Result<()> {
    if !STORAGE_DRIVERS.contains(&driver) {
        bail!("the storage driver `{driver}` is not supported: leave it out");
    }
    Ok(())
}

/// The long names of the flags that are given.
fn names(flags: &[String]) -> HashSet<String> {
    let long = |flag: &String| match flag.as_str() {
        "-H" => Some("host".to_owned()),
        "-D" => Some("debug".to_owned()),
        "-l" => Some("log-level".to_owned()),
        flag if flag.starts_with("-H") => Some("host".to_owned()),
        flag => flag.strip_prefix("--").map(|flag| flag.split('=').next().unwrap_or(flag).to_owned()),
    };
    flags.iter().filter_map(long).collect()
}

/// The configuration file as flags; what is `given` on the command line goes before.
fn from_config(config: Map<String, Value>, given: &HashSet<String>) -> Result<Vec<String>> {
    let mut flags = Vec::new();
    for (key, value) in config {
        let name = match key.as_str() {
            "hosts" => "host",
            "labels" => "label",
            "registry-mirrors" => "registry-mirror",
            "insecure-registries" => "insecure-registry",
            "default-address-pools" => "default-address-pool",
            "exec-opts" => "exec-opt",
            "storage-opts" => "storage-opt",
            "dns-opts" => "dns-opt",
            "log-opts" => "log-opt",
            name => name,
        };
        if MEANINGLESS.contains(&name) || given.contains(name) {
            continue;
        }
        if name == "storage-driver" {
            check_storage_driver(value.as_str().unwrap_or_default())?;
            continue;
        }
        let mut add = |value: &Value| -> Result<()> {
            match value {
                Value::Bool(true) => flags.push(format!("--{name}")),
                Value::Bool(false) | Value::Null => {}
                Value::String(text) => flags.push(format!("--{name}={text}")),
                Value::Number(number) => flags.push(format!("--{name}={number}")),
                Value::Object(fields) => {
                    let text =
                        |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let fields: Vec<_> =
                        fields.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
                    flags.push(format!("--{name}={}", fields.join(",")));
                }
                Value::Array(_) => bail!("the setting `{key}` has a value that is not understood"),
            }
            Ok(())
        };
        match &value {
            Value::Array(values) => values.iter().try_for_each(&mut add)?,
            value => add(value)?,
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_without_meaning_are_left_out() {
        for (given, kept) in [
            ("--mtu=1400 --iptables=false --experimental --debug", "--mtu=1400 --debug"),
            ("--storage-driver overlay2 -H tcp://0.0.0.0:1", "-H tcp://0.0.0.0:1"),
            ("-s vfs --exec-opt native.cgroupdriver=cgroupfs --bip 10.0.0.1/24", "--bip 10.0.0.1/24"),
        ] {
            assert_eq!(meaningful(words(given)).unwrap(), words(kept), "{given}");
        }
        assert!(meaningful(words("--storage-driver=zfs")).is_err());
    }

    #[test]
    fn the_configuration_file_becomes_flags() {
        let config = serde_json::json!({
            "registry-mirrors": ["http://a:5000", "http://b"],
            "mtu": 1400,
            "debug": true,
            "tls": false,
            "storage-driver": "overlay2",
            "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
            "data-root": "/x",
        });
        let Value::Object(config) = config else { unreachable!("an object was written") };
        let given = names(&words("-H unix:///s --data-root=/y"));
        let mut flags = from_config(config, &given).unwrap();
        flags.sort();
        assert_eq!(
            flags,
            [
                "--debug",
                "--default-address-pool=base=10.10.0.0/16,size=24",
                "--mtu=1400",
                "--registry-mirror=http://a:5000",
                "--registry-mirror=http://b",
            ]
        );
    }

    #[test]
    fn the_configuration_file_may_be_elsewhere() {
        let (flags, file) = take_config_file(words("--debug --config-file /a --mtu 1")).unwrap();
        assert_eq!((flags, file.as_deref()), (words("--debug --mtu 1"), Some("/a")));
        assert_eq!(take_config_file(words("--config-file=/b")).unwrap().1.as_deref(), Some("/b"));
    }
}
