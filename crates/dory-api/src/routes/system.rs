//! `/_ping`, `/version`, `/info` and `/system/df`.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use dory_engine::{
    ContainerSummary, DEFAULT_RUNTIME, DiskUsage, Engine, SystemInfo, VersionInfo, VolumeDetails,
};
use dory_types::Timestamp;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use serde::Serialize;
use serde_json::{Value, json};

use super::image;
use crate::ApiVersion;
use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;

/// The routes.
pub(super) fn routes() -> Router<Engine> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/system/df", get(disk_usage))
}

/// Says what clients negotiate with. `Builder-Version: 2` lets them build by BuildKit's protocol unless they prefer the classic one, as
/// dockerd does since version 23.
async fn ping() -> impl IntoResponse {
    let headers = [
        ("builder-version", "2"),
        ("swarm", "inactive"),
        (CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (PRAGMA.as_str(), "no-cache"),
        (CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
    ];
    (headers, "OK")
}

/// API 1.51, `SystemVersion`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VersionResponse {
    platform: Value,
    components: Value,
    version: String,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    minimum_api_version: String,
    git_commit: String,
    go_version: &'static str,
    os: String,
    arch: String,
    kernel_version: String,
    build_time: &'static str,
}

async fn version(State(engine): State<Engine>) -> Json<VersionResponse> {
    Json(version_response(engine.version()))
}

fn version_response(info: VersionInfo) -> VersionResponse {
    let (newest, oldest) = (ApiVersion::MAXIMUM.to_string(), ApiVersion::MINIMUM.to_string());
    let engine = json!({
        "Name": "Engine",
        "Version": info.version,
        "Details": {
            "ApiVersion": newest,
            "Arch": info.arch,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": info.git_commit,
            "GoVersion": "",
            "KernelVersion": info.kernel_version,
            "MinAPIVersion": oldest,
            "Os": info.os,
        },
    });
    VersionResponse {
        platform: json!({"Name": "Dory"}),
        components: json!([engine]),
        version: info.version,
        api_version: newest,
        minimum_api_version: oldest,
        git_commit: info.git_commit,
        // There is no Go here; the fields are in every answer, and clients print them.
        go_version: "",
        os: info.os,
        arch: info.arch,
        kernel_version: info.kernel_version,
        build_time: "",
    }
}

/// API 1.51, `SystemInfo`: the engine's facts, and what is the same for every engine of this kind.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InfoResponse {
    #[serde(flatten)]
    info: SystemInfo,
    plugins: Value,
    debug: bool,
    n_fd: usize,
    n_goroutines: usize,
    system_time: Timestamp,
    index_server_address: &'static str,
    registry_config: Value,
    generic_resources: Option<()>,
    http_proxy: &'static str,
    https_proxy: &'static str,
    no_proxy: &'static str,
    experimental_build: bool,
    runtimes: Value,
    default_runtime: &'static str,
    swarm: Value,
    live_restore_enabled: bool,
    isolation: &'static str,
    init_binary: &'static str,
    containerd_commit: Value,
    runc_commit: Value,
    init_commit: Value,
    #[serde(rename = "CDISpecDirs")]
    cdi_spec_dirs: [&'static str; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_backend: Option<Value>,
    #[serde(rename = "BridgeNfIptables", skip_serializing_if = "Option::is_none")]
    bridge_nf_iptables: Option<bool>,
    #[serde(rename = "BridgeNfIp6tables", skip_serializing_if = "Option::is_none")]
    bridge_nf_ip6tables: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_memory: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_driver: Option<&'static str>,
}

async fn info(State(engine): State<Engine>, version: ApiVersion) -> Result<Json<InfoResponse>, ApiError> {
    Ok(Json(info_response(engine.info().await?, version)))
}

fn info_response(mut info: SystemInfo, version: ApiVersion) -> InfoResponse {
    if version.before(25) {
        for option in &mut info.security_options {
            *option = short_security_option(option).to_owned();
        }
    }
    let server_version = info.server_version.clone();
    // One binary is daemon, runtime and init, so that its version stands for each. `Expected` ended with 1.49.
    let commit = |id: &str| match version.before(49) {
        true => json!({"ID": id, "Expected": id}),
        false => json!({"ID": id}),
    };
    InfoResponse {
        plugins: json!({
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": null,
            "Log": ["json-file", "local", "none"],
        }),
        debug: false,
        n_fd: open_descriptors(),
        // The nearest thing to goroutines.
        n_goroutines: tokio::runtime::Handle::try_current()
            .map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
        system_time: Timestamp::now(),
        index_server_address: "https://index.docker.io/v1/",
        registry_config: registry_config(version),
        generic_resources: None,
        http_proxy: "",
        https_proxy: "",
        no_proxy: "",
        experimental_build: false,
        runtimes: json!({"dory": {"path": "dory"}, DEFAULT_RUNTIME: {"path": "dory"}}),
        default_runtime: DEFAULT_RUNTIME,
        swarm: json!({
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        }),
        // Containers outlive the engine, always.
        live_restore_enabled: true,
        isolation: "",
        init_binary: "dory",
        containerd_commit: commit(""),
        runc_commit: commit(&server_version),
        init_commit: commit(&server_version),
        cdi_spec_dirs: [],
        firewall_backend: version.at_least(49).then(|| json!({"Driver": "nftables"})),
        // COMPAT: nothing here goes through iptables, but clients warn about false.
        bridge_nf_iptables: version.before(50).then_some(true),
        bridge_nf_ip6tables: version.before(50).then_some(true),
        kernel_memory: version.before(42).then_some(false),
        execution_driver: version.before(25).then_some("<not supported>"),
        info,
    }
}

/// Registries as dockerd treats them without configuration.
fn registry_config(version: ApiVersion) -> Value {
    let mut config = json!({
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true}},
        "Mirrors": [],
    });
    if version.before(49) {
        config["AllowNondistributableArtifactsCIDRs"] = json!([]);
        config["AllowNondistributableArtifactsHostnames"] = json!([]);
    }
    config
}

/// How many descriptors the engine holds; 0 where `/proc` does not say.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// `seccomp` of `name=seccomp,profile=builtin`: what clients before API 1.25 read.
fn short_security_option(option: &str) -> &str {
    let name = option.strip_prefix("name=").unwrap_or(option);
    name.split(',').next().unwrap_or(name)
}

/// API 1.51, `SystemDataUsageResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DiskUsageResponse {
    layers_size: i64,
    images: Option<Vec<image::Summary>>,
    containers: Option<Vec<ContainerSummary>>,
    volumes: Option<Vec<VolumeDetails>>,
    /// There is no build cache.
    build_cache: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    builder_size: Option<i64>,
}

async fn disk_usage(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
) -> Result<Json<DiskUsageResponse>, ApiError> {
    let mut types = Vec::new();
    // Types exist since API 1.42.
    for kind in query.all("type").filter(|_| version.at_least(42)) {
        if !matches!(kind, "container" | "image" | "volume" | "build-cache") {
            return Err(ApiError::bad_request(format!("unknown object type: {kind}")));
        }
        types.push(kind.to_owned());
    }
    let usage = engine.disk_usage(&types).await?;
    Ok(Json(disk_usage_response(usage, version)))
}

fn disk_usage_response(usage: DiskUsage, version: ApiVersion) -> DiskUsageResponse {
    DiskUsageResponse {
        layers_size: usage.layers_size,
        images: usage.images.map(|images| image::summaries(images, version)),
        containers: usage.containers,
        volumes: usage.volumes,
        build_cache: [],
        builder_size: version.before(42).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_versions() {
        let info = VersionInfo {
            version: "0.1.0".to_owned(),
            git_commit: "abc".to_owned(),
            kernel_version: "6.18".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        };
        let shown = serde_json::to_value(version_response(info)).unwrap();
        assert_eq!((&shown["ApiVersion"], &shown["MinAPIVersion"]), (&json!("1.51"), &json!("1.24")));
        assert_eq!(shown["Components"][0]["Details"]["MinAPIVersion"], "1.24");
        for name in
            ["Platform", "Version", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion", "BuildTime"]
        {
            assert!(shown.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn shortens_security_options() {
        assert_eq!(short_security_option("name=seccomp,profile=builtin"), "seccomp");
        assert_eq!(short_security_option("apparmor"), "apparmor");
    }

    #[tokio::test]
    async fn ping_says_what_clients_negotiate_with() {
        let response = ping().await.into_response();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((header("builder-version"), header("swarm")), ("2".to_owned(), "inactive".to_owned()));
        assert_eq!(header("cache-control"), "no-cache, no-store, must-revalidate");
        assert_eq!(header("content-type"), "text/plain; charset=utf-8");
    }
}
