//! The events stream: Docker's types, actions and attributes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use dory_types::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::filters::Filters;

/// How many events `since` can look back to; dockerd keeps as many.
const LOOK_BACK: usize = 256;
/// How far a subscriber may lag before it loses events.
const RING_SIZE: usize = 1024;
/// What all kept events may take, in bytes: each has its container's labels, which may be megabytes.
const RING_BYTES: usize = 8 << 20;
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
    ring: Arc<Mutex<Ring>>,
    /// Says that the ring has something new.
    news: watch::Sender<()>,
}

/// The latest events, numbered from the engine's beginning. Subscribers read here, each at its own place, so a slow one
/// holds no memory of its own.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the oldest one.
    first: u64,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > RING_SIZE || (self.bytes > RING_BYTES && self.events.len() > 1) {
            let oldest = self.events.pop_front();
            self.bytes -= oldest.map_or(0, |event| event.size());
            self.first += 1;
        }
    }

    /// The event with this number or, where it is not kept any more, the oldest one; with its number.
    fn get(&self, number: u64) -> Option<(u64, Arc<Event>)> {
        let number = number.max(self.first);
        let place = usize::try_from(number - self.first).ok()?;
        Some((number, Arc::clone(self.events.get(place)?)))
    }

    /// The number of the first kept event since then, among those that may be looked back to.
    fn number_since(&self, nanoseconds: i64) -> u64 {
        let from = self.events.len().saturating_sub(LOOK_BACK);
        let later = self.events.range(from..).position(|event| event.time_nano >= nanoseconds);
        self.first + later.map_or(self.events.len(), |place| from + place) as u64
    }
}

impl Event {
    /// Roughly what it takes, in bytes.
    fn size(&self) -> usize {
        let attributes = self.actor.attributes.iter().map(|(name, value)| name.len() + value.len());
        size_of::<Self>() + self.action.len() + attributes.sum::<usize>()
    }
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { ring: Arc::default(), news: watch::channel(()).0 }
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
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.news.send_replace(());
    }

    /// How many listen.
    pub(crate) fn subscribers(&self) -> usize {
        self.news.receiver_count()
    }

    /// Subscribes.
    pub(crate) fn subscribe(&self, options: EventOptions) -> crate::Result<EventStream> {
        options.filters.validate(FILTERS)?;
        // Before the place is chosen: what comes from here on is news.
        let news = self.news.subscribe();
        let since = options.since.map_or(i64::MAX, |since| since.unix_nanoseconds());
        let next = self.ring.lock().unwrap_or_else(PoisonError::into_inner).number_since(since);
        let until = options
            .until
            .map(|until| (until.unix_nanoseconds(), Instant::now() + until.since(Timestamp::now())));
        Ok(EventStream { ring: Arc::clone(&self.ring), next, news, filters: options.filters, until })
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    ring: Arc<Mutex<Ring>>,
    /// The number of the next one.
    next: u64,
    news: watch::Receiver<()>,
    filters: Filters,
    /// The end in nanoseconds since 1970, and when that is.
    until: Option<(i64, Instant)>,
}

impl EventStream {
    /// The next event that the filters accept; `None` at `until`, and where the engine goes away. Cancel safe.
    ///
    /// A subscriber that is too slow loses the oldest ones, as with dockerd.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let found = self.ring.lock().unwrap_or_else(PoisonError::into_inner).get(self.next);
            let Some((number, event)) = found else {
                self.wait().await?;
                continue;
            };
            if self.until.is_some_and(|(end, _)| event.time_nano > end) {
                return None;
            }
            self.next = number + 1;
            if accepts(&self.filters, &event) {
                return Some(event);
            }
        }
    }

    /// Waits for news; `None` where none will come.
    async fn wait(&mut self) -> Option<()> {
        let changed = self.news.changed();
        match self.until {
            Some((_, end)) => tokio::time::timeout_at(end, changed).await.ok()?.ok(),
            None => changed.await.ok(),
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

    #[tokio::test]
    async fn a_slow_subscriber_loses_the_oldest_and_costs_nothing() {
        let events = Events::new();
        let mut stream = events.subscribe(EventOptions::default()).unwrap();
        for number in 0..RING_SIZE + 3 {
            events.publish("volume", &number.to_string(), "data", BTreeMap::new());
        }
        assert_eq!(stream.next().await.unwrap().action, "3");
        // Large ones push the others out.
        let large = attributes(&[("label", &"x".repeat(RING_BYTES / 2))]);
        for action in ["a", "b", "c"] {
            events.publish("container", action, "abc", large.clone());
        }
        assert_eq!(stream.next().await.unwrap().action, "c");
        assert!(events.ring.lock().unwrap().bytes <= RING_BYTES);
        drop(events);
        assert_eq!(stream.next().await, None);
    }

    #[test]
    fn prints_as_dockerd_does() {
        let events = Events::new();
        events.publish("volume", "create", "data", attributes(&[("driver", "local")]));
        let ring = events.ring.lock().unwrap();
        let text = serde_json::to_value(&*ring.events[0]).unwrap();
        assert_eq!(text["Type"], "volume");
        assert_eq!(text["Actor"]["Attributes"]["driver"], "local");
        assert!(text.get("status").is_none());
    }
}
