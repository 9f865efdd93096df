//! `POST /containers/create`.

use axum::extract::State;
use dory_engine::config::json;
use dory_engine::{CreateContainer, CreatedContainer, Engine};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::older;
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
    let created = engine.create_container(request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// What the body asks for in the words of `version`.
///
/// # Errors
/// 400 for what is no configuration.
pub(crate) fn read(body: Value, version: ApiVersion) -> Result<CreateContainer, ApiError> {
    let mut request = parse(body)?;
    older::adapt(&mut request, version)?;
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
}
