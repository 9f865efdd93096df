//! List, inspect and top.

use axum::extract::{Path, State};
use dory_engine::config::{EndpointSettings, PortMap};
use dory_engine::{ContainerDetails, ContainerSummary, Engine, ListOptions, NetworkSettings, TopTable};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::ApiVersion;
use crate::error::ApiError;
use crate::json::Json;
use crate::query::{Query, parse_integer};

/// `GET /containers/json`.
pub(super) async fn list(
    State(engine): State<Engine>,
    query: Query,
) -> Result<Json<Vec<ContainerSummary>>, ApiError> {
    let limit = query.text("limit").map(|text| parse_integer(text, "Atoi")).transpose()?;
    let options = ListOptions {
        all: query.boolean("all"),
        // Zero and negative numbers are no limit, as with dockerd.
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
        size: query.boolean("size"),
        filters: query.filters()?,
    };
    Ok(Json(engine.list_containers(options).await?))
}

/// `GET /containers/{id}/top`.
pub(super) async fn top(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<TopTable>, ApiError> {
    Ok(Json(engine.top_container(&id, query.get("ps_args").unwrap_or_default()).await?))
}

/// `GET /containers/{id}/json`.
pub(super) async fn inspect(
    State(engine): State<Engine>,
    version: ApiVersion,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<InspectResponse>, ApiError> {
    let mut details = engine.inspect_container(&id, query.boolean("size")).await?;
    if version.before(45) {
        add_short_id(&mut details);
    }
    Ok(Json(InspectResponse::new(details)))
}

/// Before API 1.45 the short id stood among the aliases of networks that people made; since then it is a DNS name.
fn add_short_id(details: &mut ContainerDetails) {
    let short = details.id.short().to_owned();
    for (name, endpoint) in &mut details.network_settings.networks {
        let ever = !endpoint.network_id.is_empty() || !endpoint.aliases.is_empty();
        if ever && !matches!(name.as_str(), "bridge" | "host" | "none") {
            endpoint.aliases.0.get_or_insert_default().push(short.clone());
        }
    }
}

/// API 1.51, `ContainerInspectResponse`: the engine's details, with network settings as every version shows them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectResponse {
    #[serde(flatten)]
    details: ContainerDetails,
    network_settings: InspectNetworkSettings,
}

impl InspectResponse {
    fn new(mut details: ContainerDetails) -> Self {
        let network_settings = InspectNetworkSettings::new(std::mem::take(&mut details.network_settings));
        Self { details, network_settings }
    }
}

/// API 1.51, `NetworkSettings`, with the fields of the default bridge's endpoint that stood here before networks had
/// names. Deprecated for ten years, and still what most scripts read (`{{.NetworkSettings.IPAddress}}`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectNetworkSettings {
    bridge: String,
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    sandbox_key: String,
    ports: PortMap,
    hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    link_local_ipv6_address: &'static str,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    link_local_ipv6_prefix_len: u8,
    #[serde(rename = "SecondaryIPAddresses")]
    secondary_ip_addresses: Option<()>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    secondary_ipv6_addresses: Option<()>,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    mac_address: String,
    networks: BTreeMap<String, EndpointSettings>,
}

impl InspectNetworkSettings {
    fn new(settings: NetworkSettings) -> Self {
        let endpoint = settings.networks.get("bridge").cloned().unwrap_or_default();
        Self {
            bridge: settings.bridge,
            sandbox_id: settings.sandbox_id,
            sandbox_key: settings.sandbox_key,
            ports: settings.ports,
            hairpin_mode: false,
            link_local_ipv6_address: "",
            link_local_ipv6_prefix_len: 0,
            secondary_ip_addresses: None,
            secondary_ipv6_addresses: None,
            endpoint_id: endpoint.endpoint_id,
            gateway: endpoint.gateway,
            global_ipv6_address: endpoint.global_ipv6_address,
            global_ipv6_prefix_len: endpoint.global_ipv6_prefix_len,
            ip_address: endpoint.ip_address,
            ip_prefix_len: endpoint.ip_prefix_len,
            ipv6_gateway: endpoint.ipv6_gateway,
            mac_address: endpoint.mac_address,
            networks: settings.networks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_the_bridge_endpoint_where_scripts_look_for_it() {
        let endpoint = EndpointSettings {
            ip_address: "172.17.0.2".to_owned(),
            ip_prefix_len: 16,
            gateway: "172.17.0.1".to_owned(),
            mac_address: "02:42:ac:11:00:02".to_owned(),
            ..EndpointSettings::default()
        };
        let settings = NetworkSettings {
            networks: BTreeMap::from([("bridge".to_owned(), endpoint)]),
            ..NetworkSettings::default()
        };
        let shown = serde_json::to_value(InspectNetworkSettings::new(settings)).unwrap();
        let expected = json!({
            "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": {}, "HairpinMode": false,
            "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null,
            "SecondaryIPv6Addresses": null, "EndpointID": "", "Gateway": "172.17.0.1", "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0, "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "IPv6Gateway": "",
            "MacAddress": "02:42:ac:11:00:02",
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{name}");
        }
        assert_eq!(shown["Networks"]["bridge"]["IPAddress"], "172.17.0.2");
        let none = InspectNetworkSettings::new(NetworkSettings::default());
        assert_eq!((none.ip_address.as_str(), none.ip_prefix_len), ("", 0));
    }
}
