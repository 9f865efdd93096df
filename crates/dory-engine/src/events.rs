//! The events stream: Docker's types, actions and attributes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use dory_types::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::filters::Filters;

/// How many events `since` can look back to; dockerd keeps as many.
const RING_SIZE: usize = 256;
/// How far a subscriber may lag before it loses events.
const CHANNEL_SIZE: usize = 1024;
/// What `docker events --filter` knows.
const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Id, or name for volumes.
    #[serde(rename = "ID")]
    pub id: String,
    /// Names, labels and facts of the action.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// API 1.51, `EventMessage`, with the fields that clients before 1.22 read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// As `action`, for containers and images.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The container's or image's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The container's image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume`, `network`, `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`...
    #[serde(rename = "Action")]
    pub action: String,
    /// Whom it is about.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What a subscriber wants.
#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    /// Begin with the kept events from here on; `None` begins now.
    pub since: Option<Timestamp>,
    /// End there; `None` goes on.
    pub until: Option<Timestamp>,
    /// Filters.
    pub filters: Filters,
}

/// The publisher.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            ring: Mutex::new(VecDeque::with_capacity(RING_SIZE)),
            sender: broadcast::channel(CHANNEL_SIZE).0,
        }
    }

    /// Publishes `action` on the object `id` of type `kind`.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let nanoseconds = Timestamp::now().unix_nanoseconds();
        let legacy = matches!(kind, "container" | "image");
        let event = Arc::new(Event {
            status: if legacy { action.to_owned() } else { String::new() },
            id: if legacy { id.to_owned() } else { String::new() },
            from: if kind == "container" {
                attributes.get("image").cloned().unwrap_or_default()
            } else {
                String::new()
            },
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: nanoseconds.div_euclid(1_000_000_000),
            time_nano: nanoseconds,
        });
        // The lock spans both, so that a subscriber finds each event in the ring or in its channel, once.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RING_SIZE {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        // Nobody listening is no failure.
        let _ = self.sender.send(event);
    }

    /// How many listen.
    pub(crate) fn subscribers(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Subscribes.
    pub(crate) fn subscribe(&self, options: EventOptions) -> crate::Result<EventStream> {
        options.filters.validate(FILTERS)?;
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let since = options.since.map(|since| since.unix_nanoseconds());
        let until = options.until.map(|until| until.unix_nanoseconds());
        let buffered = match since {
            Some(since) => ring
                .iter()
                .filter(|event| {
                    event.time_nano >= since && until.is_none_or(|until| event.time_nano <= until)
                })
                .cloned()
                .collect(),
            None => VecDeque::new(),
        };
        let receiver = self.sender.subscribe();
        let deadline = options.until.map(|until| Instant::now() + until.since(Timestamp::now()));
        Ok(EventStream { buffered, receiver, filters: options.filters, deadline })
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    buffered: VecDeque<Arc<Event>>,
    receiver: broadcast::Receiver<Arc<Event>>,
    filters: Filters,
    deadline: Option<Instant>,
}

impl EventStream {
    /// The next event that the filters accept; `None` at `until`, and where the engine goes away. Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let event = match self.buffered.pop_front() {
                Some(event) => event,
                None => self.receive().await?,
            };
            if accepts(&self.filters, &event) {
                return Some(event);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<Event>> {
        loop {
            let received = match self.deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, self.receiver.recv()).await.ok()?,
                None => self.receiver.recv().await,
            };
            match received {
                Ok(event) => return Some(event),
                // The subscriber was too slow: it loses the oldest ones, as with dockerd.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// dockerd's event filter: names match by id, by name, and for images by repository too.
fn accepts(filters: &Filters, event: &Event) -> bool {
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("event", |wanted| *wanted == event.action || wanted == action)
        && filters.exact("type", &event.kind)
        && filters.exact("scope", &event.scope)
        && filters.labels("label", &event.actor.attributes)
        && ["container", "volume", "network", "daemon", "plugin", "service", "node", "secret", "config"]
            .iter()
            .all(|kind| accepts_actor(filters, event, kind))
        && accepts_image(filters, event)
}

fn accepts_actor(filters: &Filters, event: &Event, kind: &str) -> bool {
    if !filters.contains(kind) {
        return true;
    }
    event.kind == kind
        && filters.any(kind, |wanted| {
            event.actor.id.starts_with(wanted.as_str())
                || event
                    .actor
                    .attributes
                    .get("name")
                    .is_some_and(|name| name == wanted.trim_start_matches('/'))
        })
}

fn accepts_image(filters: &Filters, event: &Event) -> bool {
    let name = if event.kind == "image" { "name" } else { "image" };
    filters.any("image", |wanted| {
        let named = event.actor.attributes.get(name);
        event.actor.id == *wanted
            || named.is_some_and(|image| image == wanted || repository(image) == wanted.as_str())
    })
}

/// `image` without its tag.
fn repository(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[tokio::test]
    async fn looks_back_and_filters() {
        let events = Events::new();
        events.publish("container", "create", "abc", attributes(&[("name", "web"), ("image", "busybox:1")]));
        events.publish("volume", "create", "data", attributes(&[("driver", "local")]));
        events.publish(
            "container",
            "exec_start: ls",
            "abc",
            attributes(&[("name", "web"), ("image", "busybox:1")]),
        );
        let cases = [
            ("{}", vec!["create", "create", "exec_start: ls"]),
            (r#"{"container":["web"]}"#, vec!["create", "exec_start: ls"]),
            (r#"{"container":["ab"],"event":["exec_start"]}"#, vec!["exec_start: ls"]),
            (r#"{"type":["volume"]}"#, vec!["create"]),
            (r#"{"image":["busybox"]}"#, vec!["create", "exec_start: ls"]),
            (r#"{"image":["busy"]}"#, vec![]),
        ];
        for (filters, expected) in cases {
            let options = EventOptions {
                since: Timestamp::from_unix(0, 0),
                until: Some(Timestamp::now()),
                filters: Filters::parse(filters).unwrap(),
            };
            let mut stream = events.subscribe(options).unwrap();
            let mut actions = Vec::new();
            while let Some(event) = stream.next().await {
                actions.push(event.action.clone());
            }
            assert_eq!(actions, expected, "{filters}");
        }
        let unknown =
            EventOptions { filters: Filters::parse(r#"{"x":["y"]}"#).unwrap(), ..EventOptions::default() };
        assert!(events.subscribe(unknown).is_err());
    }

    #[test]
    fn prints_as_dockerd_does() {
        let events = Events::new();
        events.publish("volume", "create", "data", attributes(&[("driver", "local")]));
        let ring = events.ring.lock().unwrap();
        let text = serde_json::to_value(&*ring[0]).unwrap();
        assert_eq!(text["Type"], "volume");
        assert_eq!(text["Actor"]["Attributes"]["driver"], "local");
        assert!(text.get("status").is_none());
    }
}
