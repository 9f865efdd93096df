//! Answers, narrowed to what the session may see.

use dory_policy::{Change, Group, IMAGE_LABEL, OWNER_LABEL, Objects, Permitted};
use serde_json::{Map, Value, json};

use crate::resolve::{names, shared_name};
use crate::session::Session;

/// What `docker info` says of the engine; the rest (proxies with their passwords, registries, swarm, labels) is the
/// operator's business.
const INFO: &[&str] = &[
    "Architecture",
    "CPUSet",
    "CPUShares",
    "CgroupDriver",
    "CgroupVersion",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "DefaultRuntime",
    "Driver",
    "DriverStatus",
    "ExperimentalBuild",
    "ID",
    "IPv4Forwarding",
    "IndexServerAddress",
    "Isolation",
    "KernelVersion",
    "LoggingDriver",
    "MemTotal",
    "MemoryLimit",
    "NCPU",
    "Name",
    "OSType",
    "OSVersion",
    "OomKillDisable",
    "OperatingSystem",
    "PidsLimit",
    "SecurityOptions",
    "ServerVersion",
    "SwapLimit",
    "SystemTime",
];

/// The answer as the session may see it.
pub(crate) fn narrowed(session: &Session, permitted: &Permitted, answer: Value) -> Value {
    let route = permitted.route();
    let all = session.policy.objects == Objects::All;
    match (answer, route.name().as_str()) {
        (Value::Object(answer), "GET /info") if !all => info(session, answer),
        (Value::Array(items), _) if route.group == Group::ContainersRead => objects(items)
            .filter(|item| session.lists(item) || is_caller(session, item))
            .take(permitted.limit().unwrap_or(usize::MAX))
            .map(named_image)
            .collect(),
        (Value::Array(items), _) if route.group == Group::ImagesRead => {
            objects(items).filter_map(|item| image(session, item)).collect()
        }
        (Value::Array(items), _) if route.group == Group::NetworksRead => objects(items)
            .filter(|item| network_is_visible(session, item))
            .map(|item| network(session, item))
            .collect(),
        (Value::Object(item), "GET /networks/{network}") => network(session, item),
        (Value::Object(mut answer), "GET /volumes") => {
            if let Some(Value::Array(items)) = answer.remove("Volumes") {
                let own: Vec<Value> =
                    objects(items).filter(|item| session.lists(item)).map(Value::Object).collect();
                answer.insert("Volumes".to_owned(), own.into());
            }
            Value::Object(answer)
        }
        (Value::Object(item), "GET /containers/{container}/json") => inspected(item),
        (Value::Object(answer), _) => Value::Object(warned(answer, permitted.changes())),
        (other, _) => other,
    }
}

fn objects(items: Vec<Value>) -> impl Iterator<Item = Map<String, Value>> {
    items.into_iter().filter_map(|item| if let Value::Object(item) = item { Some(item) } else { None })
}

fn is_caller(session: &Session, item: &Map<String, Value>) -> bool {
    item.get("Id").and_then(Value::as_str).is_some_and(|id| session.is_caller(id))
}

/// Requests are sent on with the image's id; people know its name.
fn named_image(mut item: Map<String, Value>) -> Value {
    let name = item.get("Labels").and_then(|labels| labels.get(IMAGE_LABEL)).cloned();
    if let Some(name) = name {
        item.insert("Image".to_owned(), name);
    }
    Value::Object(item)
}

fn inspected(mut item: Map<String, Value>) -> Value {
    if let Some(Value::Object(config)) = item.get_mut("Config")
        && let Some(name) = config.get("Labels").and_then(|labels| labels.get(IMAGE_LABEL)).cloned()
    {
        config.insert("Image".to_owned(), name);
    }
    Value::Object(item)
}

fn image(session: &Session, mut item: Map<String, Value>) -> Option<Value> {
    if session.lists(&item) {
        return Some(Value::Object(item));
    }
    let value = Value::Object(item.clone());
    let tags = names(&value, "RepoTags");
    shared_name(session, item.get("Labels"), &tags)?;
    let listed = |tag: &String| session.policy.images.run.iter().any(|pattern| pattern.matches(tag));
    item.insert("RepoTags".to_owned(), tags.into_iter().filter(listed).collect());
    Some(Value::Object(item))
}

fn network_is_visible(session: &Session, item: &Map<String, Value>) -> bool {
    let name = item.get("Name").and_then(Value::as_str).unwrap_or_default();
    let unowned = item.get("Labels").and_then(|labels| labels.get(OWNER_LABEL)).is_none();
    session.lists(item)
        || (unowned && session.policy.networks.join.iter().any(|pattern| pattern.matches(name)))
}

/// A shared network without those who share it.
fn network(session: &Session, mut item: Map<String, Value>) -> Value {
    if !session.lists(&item) && item.contains_key("Containers") {
        item.insert("Containers".to_owned(), json!({}));
    }
    Value::Object(item)
}

fn info(session: &Session, mut answer: Map<String, Value>) -> Value {
    answer.retain(|name, _| INFO.contains(&name.as_str()));
    let warning =
        format!("this is a session of policy `{}`: it shows its own objects only", session.policy.name);
    let zero = [
        "Containers",
        "ContainersRunning",
        "ContainersPaused",
        "ContainersStopped",
        "Images",
        "NFd",
        "NGoroutines",
    ];
    answer.extend(zero.map(|name| (name.to_owned(), 0.into())));
    answer.insert("Warnings".to_owned(), json!([warning]));
    answer.insert("Swarm".to_owned(), json!({"LocalNodeState": "inactive"}));
    answer.insert(
        "Plugins".to_owned(),
        json!({"Volume": ["local"], "Network": ["bridge", "null"], "Log": ["json-file"]}),
    );
    answer.insert(
        "RegistryConfig".to_owned(),
        json!({"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []}),
    );
    Value::Object(answer)
}

/// Says what rules changed, where the answer has a place for it.
fn warned(mut answer: Map<String, Value>, changes: &[Change]) -> Map<String, Value> {
    let messages = changes.iter().map(|change| Value::from(change.message.as_str()));
    match answer.get_mut("Warnings") {
        Some(Value::Array(warnings)) => warnings.extend(messages),
        Some(place @ Value::Null) => *place = messages.collect(),
        _ => {}
    }
    answer
}

/// Whether the session hears of this event.
pub(crate) fn hears(session: &Session, event: &Value) -> bool {
    if session.policy.objects == Objects::All {
        return true;
    }
    let attribute = |name: &str| event.pointer("/Actor/Attributes").and_then(|all| all.get(name)?.as_str());
    let id = event.pointer("/Actor/ID").and_then(Value::as_str).unwrap_or_default();
    if attribute(OWNER_LABEL) == Some(session.identity.owner.as_str()) {
        return true;
    }
    match event.get("Type").and_then(Value::as_str) {
        Some("container") => session.is_caller(id),
        Some("network") => session.seen().networks.contains(id),
        Some("volume") => session.seen().volumes.contains(id),
        _ => false,
    }
}
