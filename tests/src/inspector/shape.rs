//! Values without what differs between any two engines: ids, times, addresses, folders.

use serde_json::Value;

use super::differences::identity;

/// Fields whose numbers are never the same twice.
const VOLATILE: [&str; 15] = [
    "Pid",
    "Created",
    "CreatedAt",
    "NCPU",
    "MemTotal",
    "NFd",
    "NGoroutines",
    "Size",
    "SizeRw",
    "SizeRootFs",
    "VirtualSize",
    "SharedSize",
    "LayersSize",
    "NEventsListener",
    "Images",
];

/// Addresses of containers on the default bridge begin with this; which one gets which is a matter of order.
const CONTAINERS: &str = "172.17.0.";

/// `value` as it is compared and shown; `folder` is the engine's own, `name` the field that it stands in.
pub fn shape(value: &Value, folder: &str, name: &str) -> Value {
    match value {
        Value::String(text) => Value::String(shape_text(text, folder)),
        Value::Number(number) if VOLATILE.contains(&name) && number.as_f64() != Some(0.0) => {
            Value::String("<number>".to_owned())
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| shape(item, folder, name)).collect();
            // The order of objects (mounts, ports, networks) means nothing to clients, that of words does; the docker
            // command itself sends binds and the environment in no order.
            if matches!(name, "Binds" | "Env") || items.iter().all(Value::is_object) {
                items.sort_by_cached_key(|item| (identity(item), item.to_string()));
            }
            Value::Array(items)
        }
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| (shape_key(key, value, folder), shape(value, folder, key)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// The key of a map: an id says nothing, the name of what it stands for does.
fn shape_key(key: &str, value: &Value, folder: &str) -> String {
    let named = value.get("Name").and_then(Value::as_str).filter(|_| key.len() == 64);
    named.map_or_else(|| shape_text(key, folder), str::to_owned)
}

fn shape_text(text: &str, folder: &str) -> String {
    if is_time(text) {
        return if text.starts_with("0001") { text.to_owned() } else { "<time>".to_owned() };
    }
    if let Some(status) = without_age(text) {
        return status;
    }
    if let Some(last) = text.strip_prefix(CONTAINERS).map(|rest| rest.trim_end_matches("/16"))
        && last.parse::<u8>().is_ok_and(|last| last > 1)
    {
        return "<address>".to_owned();
    }
    let text = text.replace(folder, "<folder>");
    let mut shaped = String::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|next: char| !next.is_ascii_hexdigit() && next != ':').unwrap_or(rest.len());
        let (word, after) = rest.split_at(run);
        if is_mac(word) {
            shaped.push_str("<mac>");
            rest = after;
            continue;
        }
        let run = rest.find(|next: char| !next.is_ascii_hexdigit()).unwrap_or(rest.len());
        match run {
            12.. => {
                shaped.push_str("<id>");
                rest = &rest[run..];
            }
            1.. => {
                shaped.push_str(&rest[..run]);
                rest = &rest[run..];
            }
            _ => {
                shaped.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    shaped
}

/// RFC 3339, as every time in the API.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T' && bytes[13] == b':'
}

/// `Up <age>` for `Up 5 minutes`, which `docker ps` shows.
fn without_age(text: &str) -> Option<String> {
    let (start, rest) = match text.strip_prefix("Exited (") {
        Some(rest) => text.split_at(text.len() - rest.split_once(") ")?.1.len()),
        None => ("Up ", text.strip_prefix("Up ")?),
    };
    let end = rest.find(" (").map_or("", |index| &rest[index..]);
    Some(format!("{start}<age>{end}"))
}

fn is_mac(text: &str) -> bool {
    text.len() == 17 && text.split(':').count() == 6 && text.split(':').all(|part| part.len() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_always_differs() {
        let id = "ab".repeat(32);
        let cases = [
            (id.clone(), "<id>"),
            (format!("sha256:{id}"), "sha256:<id>"),
            (format!("/x/data/containers/{id}/hosts"), "<folder>/containers/<id>/hosts"),
            ("2026-01-02T03:04:05.123456789Z".to_owned(), "<time>"),
            ("0001-01-01T00:00:00Z".to_owned(), "0001-01-01T00:00:00Z"),
            ("02:42:ac:11:00:02".to_owned(), "<mac>"),
            ("Exited (0) 2 days ago".to_owned(), "Exited (0) <age>"),
            ("Up 5 seconds (healthy)".to_owned(), "Up <age> (healthy)"),
        ];
        for (text, shaped) in cases {
            assert_eq!(shape_text(&text, "/x/data"), shaped, "{text}");
        }
    }
}
