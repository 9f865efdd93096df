//! What a client of an older API meant by the body of `POST /containers/create`.
//!
//! A field that came later was never meant: dockerd forgets it, or refuses it where forgetting would do something else
//! than was asked. A default that changed is the old one (moby `api/server/router/container`, `postContainersCreate`).

use dory_engine::CreateContainer;
use dory_engine::config::{HostConfig, MountSpec, NetworkingConfig};

use crate::ApiVersion;
use crate::error::ApiError;

/// Turns the request of a client that speaks `version` into one of the newest version.
///
/// # Errors
/// 400 for a field that is newer than `version` and cannot be forgotten.
pub(super) fn adapt(request: &mut CreateContainer, version: ApiVersion) -> Result<(), ApiError> {
    host(&mut request.host_config, version);
    if version.before(44)
        && let Some(health) = &mut request.config.healthcheck
    {
        health.start_interval = 0;
    }
    for spec in &mut request.host_config.mounts {
        mount(spec, version)?;
    }
    endpoints(&request.networking_config, version)
}

fn host(config: &mut HostConfig, version: ApiVersion) {
    if version.before(40) {
        config.kernel_memory_tcp = 0;
        if config.ipc_mode.is_empty() {
            "shareable".clone_into(&mut config.ipc_mode);
        }
    }
    if version.before(41) {
        config.cgroupns_mode.clear();
    }
    if version.before(42) {
        config.console_size = [0, 0];
    } else {
        config.kernel_memory = 0;
    }
    if version.before(43) {
        config.annotations.clear();
    }
    // No limit is no limit, however it is written; inspect shows `null`.
    config.pids_limit = config.pids_limit.filter(|limit| *limit > 0);
    // What the docker CLI sends for "not given".
    config.memory_swappiness = config.memory_swappiness.filter(|swappiness| *swappiness != -1);
}

fn mount(mount: &mut MountSpec, version: ApiVersion) -> Result<(), ApiError> {
    let needs =
        |what: &str, minor: u32| Err(ApiError::bad_request(format!("{what} needs API v1.{minor} or newer")));
    if version.before(48) && mount.kind == "image" {
        return needs("mount type \"Image\"", 48);
    }
    if let Some(options) = &mut mount.volume_options
        && version.before(45)
        && !options.subpath.is_empty()
    {
        return needs("VolumeOptions.Subpath", 45);
    }
    if version.before(44) && mount.kind == "bind" && mount.read_only {
        // Read-only covered the top mount alone before.
        mount.bind_options.get_or_insert_default().read_only_non_recursive = true;
    }
    if let Some(options) = &mut mount.bind_options {
        if version.before(40) {
            options.non_recursive = false;
        }
        if version.before(42) {
            options.create_mountpoint = false;
        }
        if version.before(44) && options.read_only_force_recursive {
            return needs("BindOptions.ReadOnlyForceRecursive", 44);
        }
    }
    if version.before(42) {
        // What belongs to another type was not looked at before.
        let kind = mount.kind.as_str();
        mount.bind_options.take_if(|_| kind != "bind");
        mount.volume_options.take_if(|_| kind != "volume");
        mount.tmpfs_options.take_if(|_| kind != "tmpfs");
    }
    if version.before(46)
        && let Some(options) = &mut mount.tmpfs_options
    {
        options.options.clear();
    }
    Ok(())
}

fn endpoints(networking: &NetworkingConfig, version: ApiVersion) -> Result<(), ApiError> {
    if version.at_least(44) || networking.endpoints_config.len() < 2 {
        return Ok(());
    }
    let names: Vec<&str> = networking.endpoints_config.keys().map(String::as_str).collect();
    Err(ApiError::bad_request(format!(
        "Container cannot be connected to network endpoints: {}",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use dory_engine::config::json;

    use super::*;

    fn version(minor: u32) -> ApiVersion {
        crate::version::negotiate(&format!("/v1.{minor}/x")).unwrap().0
    }

    fn host_config(text: &str) -> HostConfig {
        json::from_slice(text.as_bytes()).unwrap()
    }

    fn adapted(text: &str, minor: u32) -> Result<HostConfig, ApiError> {
        let mut request = CreateContainer { host_config: host_config(text), ..CreateContainer::default() };
        adapt(&mut request, version(minor)).map(|()| request.host_config)
    }

    #[test]
    fn forgets_what_an_old_client_cannot_mean() {
        let cases = [
            (r#"{"CgroupnsMode":"host"}"#, 40, r#"{}"#),
            (r#"{"CgroupnsMode":"host"}"#, 41, r#"{"CgroupnsMode":"host"}"#),
            (r#"{"ConsoleSize":[1,2]}"#, 41, r#"{}"#),
            (r#"{"ConsoleSize":[1,2]}"#, 42, r#"{"ConsoleSize":[1,2]}"#),
            (r#"{"KernelMemory":1}"#, 41, r#"{"KernelMemory":1}"#),
            (r#"{"KernelMemory":1}"#, 42, r#"{}"#),
            (r#"{"KernelMemoryTCP":1}"#, 39, r#"{"IpcMode":"shareable"}"#),
            (r#"{"Annotations":{"a":"b"}}"#, 42, r#"{}"#),
            (r#"{"PidsLimit":-1,"MemorySwappiness":-1}"#, 51, r#"{}"#),
            (
                r#"{"Mounts":[{"Type":"volume","BindOptions":{},"TmpfsOptions":{}}]}"#,
                41,
                r#"{"Mounts":[{"Type":"volume"}]}"#,
            ),
            (
                r#"{"Mounts":[{"Type":"bind","ReadOnly":true,"BindOptions":{"CreateMountpoint":true}}]}"#,
                41,
                r#"{"Mounts":[{"Type":"bind","ReadOnly":true,"BindOptions":{"ReadOnlyNonRecursive":true}}]}"#,
            ),
            (
                r#"{"Mounts":[{"Type":"tmpfs","TmpfsOptions":{"Options":[["noexec"]]}}]}"#,
                45,
                r#"{"Mounts":[{"Type":"tmpfs","TmpfsOptions":{}}]}"#,
            ),
        ];
        for (given, minor, meant) in cases {
            assert_eq!(adapted(given, minor).unwrap(), host_config(meant), "{given} at 1.{minor}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_forgotten() {
        let cases = [
            (r#"{"Mounts":[{"Type":"image"}]}"#, 47, "mount type \"Image\" needs API v1.48 or newer"),
            (
                r#"{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"a"}}]}"#,
                44,
                "VolumeOptions.Subpath needs API v1.45 or newer",
            ),
            (
                r#"{"Mounts":[{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}]}"#,
                43,
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
            ),
        ];
        for (given, minor, message) in cases {
            assert_eq!(adapted(given, minor).unwrap_err().message(), message);
            assert!(adapted(given, 51).is_ok());
        }
        let networking: NetworkingConfig =
            json::from_slice(br#"{"EndpointsConfig":{"a":null,"b":null}}"#).unwrap();
        assert!(endpoints(&networking, version(43)).is_err() && endpoints(&networking, version(44)).is_ok());
    }
}
