//! The flags of `run` and `create`, and the request that they make.

mod environment;
mod flags;
mod health;
mod mounts;
mod network;
mod ports;
mod resources;
mod security;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) use environment::environment;
pub(crate) use flags::CONTAINER_FLAGS;

use crate::flags::{Arguments, FlagError, parse_int};
use crate::units::{parse_bytes, parse_bytes_or_unlimited};

/// The request that creates a container, and what the caller needs to know of it.
#[derive(Debug, Clone)]
pub(crate) struct CreateRequest {
    /// The body of `POST /containers/create`: `ContainerConfig` with `HostConfig` and `NetworkingConfig`.
    pub(crate) body: Value,
    /// The image, as the user named it.
    pub(crate) image: String,
    /// The container has a terminal.
    pub(crate) tty: bool,
    /// Which streams are attached.
    pub(crate) attach: Attach,
}

/// The streams of a container that its starter is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attach {
    /// Standard input.
    pub(crate) stdin: bool,
    /// Standard output.
    pub(crate) stdout: bool,
    /// Standard error.
    pub(crate) stderr: bool,
}

impl Attach {
    /// Whether there is any.
    pub(crate) fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// A JSON object in the making: only what was given gets in, so that the engine's own defaults hold for the rest.
#[derive(Debug, Default)]
struct Object(Map<String, Value>);

impl Object {
    fn set(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).expect("texts, numbers and lists of them always encode");
        self.0.insert(name.to_owned(), value);
    }

    fn set_some(&mut self, name: &str, value: Option<impl Serialize>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn set_list<T: Serialize>(&mut self, name: &str, values: &[T]) {
        if !values.is_empty() {
            self.set(name, values);
        }
    }

    fn set_if(&mut self, name: &str, on: bool) {
        if on {
            self.set(name, true);
        }
    }

    fn set_map(&mut self, name: &str, map: Map<String, Value>) {
        if !map.is_empty() {
            self.set(name, map);
        }
    }
}

/// Makes the request of `arguments`: the image, its command, and every flag. `detached` attaches nothing.
///
/// # Errors
/// [`FlagError`] and texts for values that do not fit; files that cannot be read.
pub(crate) fn request(arguments: &Arguments, detached: bool) -> Result<CreateRequest> {
    let (image, command) =
        arguments.positional().split_first().ok_or_else(|| anyhow::anyhow!("an image is needed"))?;
    let attach = attach(arguments, detached)?;
    let mut config = Object::default();
    let mut host = Object::default();
    config.set("Image", image);
    set_process(arguments, attach, command, &mut config)?;
    let volumes = mounts::volumes(arguments.list("volume"))?;
    config.set_map("Volumes", volumes.anonymous);
    host.set_list("Binds", &volumes.binds);
    host.set_list("Mounts", &mounts::mounts(arguments)?);
    host.set_map("Tmpfs", mounts::tmpfs(arguments.list("tmpfs")));
    let ports = ports::ports(arguments)?;
    config.set_map("ExposedPorts", ports.exposed);
    host.set("PortBindings", ports.bindings);
    config.set_some("Healthcheck", health::health(arguments)?);
    let networks = network::networks(arguments)?;
    host.set("NetworkMode", networks.mode);
    set_host(arguments, &mut host)?;
    resources::set(arguments, &mut host)?;
    resources::set_devices(arguments, &mut host)?;
    security::set(arguments, &mut host)?;
    config.set("HostConfig", host.0);
    config.set("NetworkingConfig", json!({ "EndpointsConfig": networks.endpoints }));
    let tty = arguments.on("tty");
    Ok(CreateRequest { body: Value::Object(config.0), image: image.clone(), tty, attach })
}

/// The request of `update`: the limits and the restart policy that were given.
///
/// # Errors
/// As [`request`].
pub(crate) fn update_request(arguments: &Arguments) -> Result<Value> {
    let mut changes = Object::default();
    resources::set(arguments, &mut changes)?;
    changes.set_some("RestartPolicy", restart_policy(arguments)?);
    Ok(Value::Object(changes.0))
}

fn attach(arguments: &Arguments, detached: bool) -> Result<Attach> {
    let chosen = arguments.parsed_list("attach", |name| match name.to_ascii_lowercase().as_str() {
        stream @ ("stdin" | "stdout" | "stderr") => Ok(stream.to_owned()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR"),
    })?;
    if detached {
        if !chosen.is_empty() {
            bail!("Conflicting options: -a and -d");
        }
        return Ok(Attach { stdin: false, stdout: false, stderr: false });
    }
    if chosen.is_empty() {
        return Ok(Attach { stdin: arguments.on("interactive"), stdout: true, stderr: true });
    }
    let has = |name: &str| chosen.iter().any(|stream| stream == name);
    Ok(Attach { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") })
}

fn set_process(arguments: &Arguments, attach: Attach, command: &[String], config: &mut Object) -> Result<()> {
    let interactive = arguments.on("interactive");
    config.set("AttachStdin", attach.stdin);
    config.set("AttachStdout", attach.stdout);
    config.set("AttachStderr", attach.stderr);
    config.set("Tty", arguments.on("tty"));
    config.set("OpenStdin", interactive);
    // Input ends with the client that started the container, and later clients find it closed.
    config.set("StdinOnce", interactive && attach.stdin);
    config.set_list("Cmd", command);
    // An empty entry point takes the image's away, which an absent one does not.
    config.set_some("Entrypoint", arguments.value("entrypoint").map(|program| [program]));
    config.set_list("Env", &environment(arguments)?);
    config.set("Labels", environment::labels(arguments)?);
    for (field, flag) in [
        ("Hostname", "hostname"),
        ("Domainname", "domainname"),
        ("User", "user"),
        ("WorkingDir", "workdir"),
        ("StopSignal", "stop-signal"),
        ("MacAddress", "mac-address"),
    ] {
        config.set_some(field, arguments.value(flag));
    }
    config.set_some("StopTimeout", arguments.parsed("stop-timeout", parse_int)?);
    Ok(())
}

fn set_host(arguments: &Arguments, host: &mut Object) -> Result<()> {
    network::check_hosts(arguments)?;
    check_modes(arguments)?;
    for (field, flag) in [
        ("CgroupParent", "cgroup-parent"),
        ("CgroupnsMode", "cgroupns"),
        ("IpcMode", "ipc"),
        ("PidMode", "pid"),
        ("UTSMode", "uts"),
        ("UsernsMode", "userns"),
        ("VolumeDriver", "volume-driver"),
        ("Runtime", "runtime"),
        ("Isolation", "isolation"),
        ("ContainerIDFile", "cidfile"),
    ] {
        host.set_some(field, arguments.value(flag));
    }
    for (field, flag) in [
        ("CapAdd", "cap-add"),
        ("CapDrop", "cap-drop"),
        ("ExtraHosts", "add-host"),
        ("GroupAdd", "group-add"),
        ("Links", "link"),
        ("VolumesFrom", "volumes-from"),
    ] {
        host.set_list(field, arguments.list(flag));
    }
    // Docker sends these even when they are empty, and `inspect` then shows lists where it would show `null`.
    host.set("Dns", arguments.parsed_list("dns", network::address)?);
    // `--dns-opt` is the older name of the same flag.
    host.set("DnsOptions", [arguments.list("dns-option"), arguments.list("dns-opt")].concat());
    host.set("DnsSearch", arguments.list("dns-search"));
    host.set_if("AutoRemove", arguments.on("rm"));
    host.set_if("Privileged", arguments.on("privileged"));
    host.set_if("PublishAllPorts", arguments.on("publish-all"));
    host.set_if("ReadonlyRootfs", arguments.on("read-only"));
    host.set_some("Init", arguments.value("init").map(|value| value == "true"));
    host.set_some("OomScoreAdj", arguments.parsed("oom-score-adj", parse_int)?);
    host.set_map("StorageOpt", environment::pairs(arguments, "storage-opt"));
    host.set_map("Sysctls", environment::pairs(arguments, "sysctl"));
    host.set_map("Annotations", environment::pairs(arguments, "annotation"));
    host.set_some("RestartPolicy", restart_policy(arguments)?);
    host.set("LogConfig", log_config(arguments)?);
    Ok(())
}

/// Refuses namespace modes that no engine knows.
fn check_modes(arguments: &Arguments) -> Result<()> {
    for (flag, name, modes, joins) in [
        ("pid", "PID", &["host"][..], true),
        ("uts", "UTS", &["host"], false),
        ("userns", "USER", &["host"], false),
        ("cgroupns", "CGROUP", &["host", "private"], false),
    ] {
        let mode = arguments.text(flag);
        let joined = joins && mode.strip_prefix("container:").is_some_and(|container| !container.is_empty());
        if !mode.is_empty() && !modes.contains(&mode) && !joined {
            bail!("--{flag}: invalid {name} mode");
        }
    }
    Ok(())
}

fn restart_policy(arguments: &Arguments) -> Result<Option<Value>> {
    let Some(policy) = arguments.value("restart").filter(|policy| !policy.is_empty()) else {
        return Ok(None);
    };
    let (name, count) = match policy.split_once(':') {
        Some((name, count)) => {
            (name, parse_int(count).map_err(|_| invalid_restart("maximum retry count must be an integer"))?)
        }
        None => (policy, 0),
    };
    if arguments.on("rm") && name != "no" {
        bail!("Conflicting options: --restart and --rm");
    }
    Ok(Some(json!({ "Name": name, "MaximumRetryCount": count })))
}

fn invalid_restart(reason: &str) -> anyhow::Error {
    anyhow::anyhow!("invalid restart policy format: {reason}")
}

fn log_config(arguments: &Arguments) -> Result<Value> {
    let driver = arguments.text("log-driver");
    let options = environment::pairs(arguments, "log-opt");
    if driver == "none" && !options.is_empty() {
        bail!("invalid logging opts for driver {driver}");
    }
    Ok(json!({ "Type": driver, "Config": options }))
}

/// The flag's value in bytes.
fn bytes(arguments: &Arguments, flag: &str) -> Result<Option<i64>, FlagError> {
    arguments.parsed(flag, parse_bytes)
}

/// The flag's value in bytes, or -1.
fn bytes_or_unlimited(arguments: &Arguments, flag: &str) -> Result<Option<i64>, FlagError> {
    arguments.parsed(flag, parse_bytes_or_unlimited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::FlagsEnd;

    /// The request of a command line, or the text that refuses it.
    pub(super) fn parse(line: &[&str]) -> Result<Value, String> {
        let words = line.iter().map(|word| (*word).to_owned()).collect();
        let arguments = Arguments::parse(&[CONTAINER_FLAGS], FlagsEnd::FirstArgument, words)
            .map_err(|e| e.to_string())?;
        request(&arguments, false).map(|request| request.body).map_err(|error| error.to_string())
    }

    #[test]
    fn sends_only_what_was_asked_for() {
        assert_eq!(
            parse(&["busybox"]).unwrap(),
            json!({
                "Image": "busybox", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "Tty": false,
                "OpenStdin": false, "StdinOnce": false, "Labels": {}, "NetworkingConfig": {"EndpointsConfig": {}},
                "HostConfig": {
                    "NetworkMode": "default", "LogConfig": {"Type": "", "Config": {}}, "PortBindings": {},
                    "Dns": [], "DnsOptions": [], "DnsSearch": [], "Devices": [], "BlkioWeightDevice": []
                }
            })
        );
    }

    #[test]
    fn translates_flags() {
        let body = parse(&[
            "-it",
            "--rm",
            "--init",
            "-h",
            "box",
            "-u",
            "1:2",
            "-w",
            "/x",
            "-e",
            "A=b=c",
            "-l",
            "k=v",
            "-l",
            "bare",
            "--entrypoint",
            "",
            "--read-only",
            "--cap-add",
            "NET_ADMIN",
            "--log-opt",
            "max-size=1m",
            "--sysctl",
            "net.x=1",
            "--stop-timeout=3",
            "--dns",
            "1.1.1.1",
            "--pid=host",
            "image",
            "sh",
            "-c",
            "x",
        ])
        .unwrap();
        for (pointer, expected) in [
            ("/Cmd", json!(["sh", "-c", "x"])),
            ("/Entrypoint", json!([""])),
            ("/Env", json!(["A=b=c"])),
            ("/Labels", json!({"k": "v", "bare": ""})),
            ("/StdinOnce", json!(true)),
            ("/Hostname", json!("box")),
            ("/StopTimeout", json!(3)),
            ("/HostConfig/AutoRemove", json!(true)),
            ("/HostConfig/Init", json!(true)),
            ("/HostConfig/ReadonlyRootfs", json!(true)),
            ("/HostConfig/CapAdd", json!(["NET_ADMIN"])),
            ("/HostConfig/LogConfig/Config", json!({"max-size": "1m"})),
            ("/HostConfig/Sysctls", json!({"net.x": "1"})),
            ("/HostConfig/PidMode", json!("host")),
        ] {
            assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (line, message) in [
            (&["--rm", "--restart", "always", "x"][..], "Conflicting options: --restart and --rm"),
            (&["--log-driver", "none", "--log-opt", "a=b", "x"], "invalid logging opts for driver none"),
            (
                &["--restart", "on-failure:x", "x"],
                "invalid restart policy format: maximum retry count must be an integer",
            ),
            (
                &["-a", "nope", "x"],
                "invalid argument \"nope\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), message);
        }
    }
}
