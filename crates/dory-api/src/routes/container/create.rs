//! `POST /containers/create`.

use axum::extract::State;
use dory_engine::config::{HostConfig, json};
use dory_engine::{CreateContainer, CreatedContainer, Engine};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ApiVersion;
use crate::error::ApiError;
use crate::json::Json;
use crate::query::Query;

/// Makes a container.
pub(super) async fn create(
    State(engine): State<Engine>,
    version: ApiVersion,
    query: Query,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Json<CreatedContainer>), ApiError> {
    let mut request = read(body, version)?;
    request.name = query.text("name").map(str::to_owned);
    // Platforms exist since API 1.41.
    if version.at_least(41) {
        request.platform = query.get("platform").unwrap_or_default().to_owned();
    }
    refuse_several_networks(&request, version)?;
    let created = engine.create_container(request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// What the body asks for in the words of `version`.
///
/// # Errors
/// 400 for what is no configuration.
pub(crate) fn read(body: Value, version: ApiVersion) -> Result<CreateContainer, ApiError> {
    let mut request = parse(body)?;
    forget_newer_fields(&mut request.host_config, version);
    Ok(request)
}

/// Takes the body apart: the container's configuration on top level, with `HostConfig` and `NetworkingConfig` in it.
fn parse(body: Value) -> Result<CreateContainer, ApiError> {
    let Value::Object(mut fields) = body else {
        return Err(ApiError::bad_request("config cannot be empty in order to create a container"));
    };
    let host_config = take(&mut fields, "HostConfig")?;
    let networking_config = take(&mut fields, "NetworkingConfig")?;
    if fields.is_empty() {
        return Err(ApiError::bad_request("config cannot be empty in order to create a container"));
    }
    let config = from_value(Value::Object(fields))?;
    Ok(CreateContainer { host_config, networking_config, config, ..CreateContainer::default() })
}

/// Removes the field `name`, in whatever case, and reads it; the default where it is missing.
fn take<T: DeserializeOwned + Default>(fields: &mut Map<String, Value>, name: &str) -> Result<T, ApiError> {
    let Some(key) = fields.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned() else {
        return Ok(T::default());
    };
    from_value(fields.remove(&key).unwrap_or_default())
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    json::from_value(value).map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))
}

/// Before API 1.44 a container was made for one network, and connected to others afterwards.
fn refuse_several_networks(request: &CreateContainer, version: ApiVersion) -> Result<(), ApiError> {
    let networks: Vec<&str> = request.networking_config.endpoints_config.keys().map(String::as_str).collect();
    if version.before(44) && networks.len() > 1 {
        return Err(ApiError::bad_request(format!(
            "Container cannot be connected to network endpoints: {}",
            networks.join(", ")
        )));
    }
    Ok(())
}

/// A client of an older API never meant a field that came later; dockerd drops these.
fn forget_newer_fields(config: &mut HostConfig, version: ApiVersion) {
    if version.before(40) {
        for options in config.mounts.iter_mut().filter_map(|mount| mount.bind_options.as_mut()) {
            options.non_recursive = false;
        }
    }
    if version.before(41) {
        config.cgroupns_mode.clear();
    }
    if version.before(42) {
        config.console_size = [0, 0];
    }
    if version.before(43) {
        config.annotations.clear();
    }
    for options in config.mounts.iter_mut().filter_map(|mount| mount.bind_options.as_mut()) {
        if version.before(44) {
            options.read_only_non_recursive = false;
            options.read_only_force_recursive = false;
        }
    }
    // No limit is no limit, however it is written; inspect shows `null`.
    config.pids_limit = config.pids_limit.filter(|limit| *limit > 0);
    // What the docker CLI sends for "not given".
    config.memory_swappiness = config.memory_swappiness.filter(|swappiness| *swappiness != -1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn takes_the_body_apart() {
        let request = parse(json!({
            "Image": "busybox", "Cmd": "echo hi", "Env": null, "Unknown": 1,
            "hostconfig": {"Memory": 5, "Binds": ["/a:/b"]},
            "NetworkingConfig": {"EndpointsConfig": {"bridge": null}},
        }))
        .unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(request.config.cmd.0.as_deref(), Some(["echo hi".to_owned()].as_slice()));
        assert_eq!((request.host_config.memory, request.host_config.binds.len()), (5, 1));
        assert!(request.networking_config.endpoints_config.contains_key("bridge"));
    }

    #[test]
    fn refuses_nothing_and_wrong_types() {
        for empty in [json!({}), json!(null), json!({"HostConfig": {}})] {
            let error = parse(empty).unwrap_err();
            assert_eq!(error.message(), "config cannot be empty in order to create a container");
        }
        let error = parse(json!({"Image": 5})).unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert!(error.message().starts_with("invalid JSON: json: cannot unmarshal number"), "{error}");
    }

    #[test]
    fn drops_what_an_old_client_cannot_mean() {
        let config = HostConfig {
            cgroupns_mode: "private".to_owned(),
            console_size: [1, 2],
            pids_limit: Some(-1),
            memory_swappiness: Some(-1),
            ..HostConfig::default()
        };
        for (path, cgroupns, console) in
            [("/v1.40/x", "", [0, 0]), ("/v1.41/x", "private", [0, 0]), ("/x", "private", [1, 2])]
        {
            let mut config = config.clone();
            forget_newer_fields(&mut config, crate::version::negotiate(path).unwrap().0);
            assert_eq!((config.cgroupns_mode.as_str(), config.console_size), (cgroupns, console), "{path}");
            assert_eq!((config.pids_limit, config.memory_swappiness), (None, None));
        }
    }
}
