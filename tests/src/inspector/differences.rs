//! Where two answers differ, gathered over many answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What stands on one side at one place.
type Side = Option<Value>;

/// One difference: where, and what each engine has there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// For example `container HostConfig.Memory`.
    pub place: String,
    /// Dory's value, `-` where it has none.
    pub dory: String,
    /// dockerd's.
    pub dockerd: String,
}

/// All differences, each with the things and the API versions that show it.
#[derive(Debug)]
pub struct Differences {
    found: BTreeMap<Difference, (BTreeSet<String>, BTreeSet<String>)>,
    sides: [&'static str; 2],
}

impl Default for Differences {
    fn default() -> Self {
        Self::between("dory", "dockerd")
    }
}

impl Differences {
    /// None yet, between two sides of these names.
    pub fn between(dory: &'static str, dockerd: &'static str) -> Self {
        Self { found: BTreeMap::new(), sides: [dory, dockerd] }
    }

    /// Compares two answers about `thing`, that API `version` gave (empty where there is none); `subject` begins every
    /// place.
    pub fn compare(&mut self, subject: &str, thing: &str, version: &str, dory: &Value, dockerd: &Value) {
        let mut found = Vec::new();
        walk(subject.to_owned(), Some(dory), Some(dockerd), &mut found);
        for (place, dory, dockerd) in found {
            let difference = Difference { place, dory: shown(&dory), dockerd: shown(&dockerd) };
            let (things, versions) = self.found.entry(difference).or_default();
            things.insert(thing.to_owned());
            versions.extend(Some(version.to_owned()).filter(|version| !version.is_empty()));
        }
    }

    /// Adds one that was found in another way.
    pub fn add(&mut self, place: &str, thing: &str, dory: String, dockerd: String) {
        let difference = Difference { place: place.to_owned(), dory, dockerd };
        self.found.entry(difference).or_default().0.insert(thing.to_owned());
    }

    /// Prints those that `known` has no reason for (all with `everything`); true where there are none.
    pub fn report(&self, known: &Known, everything: bool) -> bool {
        let mut unknown = 0;
        for (difference, (things, versions)) in &self.found {
            let reason = known.reason_for(&difference.place, things);
            unknown += usize::from(reason.is_none());
            if reason.is_some() && !everything {
                continue;
            }
            println!("{}", difference.place);
            let [one, other] = self.sides;
            let width = one.len().max(other.len());
            println!("    {one:width$}  {}", difference.dory);
            println!("    {other:width$}  {}", difference.dockerd);
            println!(
                "    in {}{}{}",
                some(things),
                if versions.is_empty() { String::new() } else { format!(" ({})", join(versions)) },
                reason.map_or(String::new(), |why| format!("\n    known: {why}"))
            );
        }
        let places = self.found.iter().flat_map(|(difference, (things, _))| {
            let of_things = things.iter().map(|thing| format!("{thing}: {}", difference.place));
            of_things.chain([difference.place.clone()])
        });
        let stale = known.unused(&places.collect::<Vec<_>>());
        for place in &stale {
            println!("listed and not seen: {place}");
        }
        println!("\n{} differences, {unknown} of them not in the list", self.found.len());
        unknown == 0
    }
}

/// A few of many names.
fn some(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn shown(side: &Side) -> String {
    side.as_ref().map_or_else(|| "-".to_owned(), Value::to_string)
}

fn walk(place: String, dory: Option<&Value>, dockerd: Option<&Value>, found: &mut Vec<(String, Side, Side)>) {
    match (dory, dockerd) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                walk(format!("{place}{}{key}", separator(&place)), one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other)))
            if !one.is_empty() && !other.is_empty() && one.iter().chain(other).all(Value::is_object) =>
        {
            let named = |items: &[Value]| {
                // Those without a name are told apart by where they stand.
                let name = |(index, item)| {
                    Some(identity(item)).filter(|name| !name.is_empty()).unwrap_or(format!("{index}"))
                };
                items.iter().enumerate().map(name).collect::<Vec<_>>()
            };
            let (names, others) = (named(one), named(other));
            for (name, item) in names.iter().zip(one) {
                let twin = others.iter().position(|other| other == name).map(|index| &other[index]);
                walk(format!("{place}[]"), Some(item), twin, found);
            }
            for (name, item) in others.iter().zip(other) {
                if names.contains(name) {
                    continue;
                }
                walk(format!("{place}[]"), None, Some(item), found);
            }
        }
        (one, other) if one == other => {}
        (one, other) => found.push((place, one.cloned(), other.cloned())),
    }
}

/// What tells the objects of a list apart, for example mounts by where they are; empty for those without a name.
pub fn identity(item: &Value) -> String {
    const KEYS: [&str; 6] = ["Names", "Destination", "Name", "PrivatePort", "RepoTags", "CreatedBy"];
    let parts: Vec<String> = KEYS.iter().filter_map(|key| item.get(key)).map(Value::to_string).collect();
    let address = item.get("IP").filter(|_| !parts.is_empty()).map_or(String::new(), Value::to_string);
    format!("{}{address}", parts.join(" "))
}

/// Between subject and field a blank, between fields a dot.
fn separator(place: &str) -> &'static str {
    if place.contains(' ') { "." } else { " " }
}

/// The differences that have a reason, as the tables of `docs/compatibility.md` list them.
#[derive(Debug, Clone, Default)]
pub struct Known(Vec<(String, String)>);

impl Known {
    /// Reads the rows ``| `place` | reason |``, and several places in one row; `*` at the end of a place stands for
    /// whatever follows.
    pub fn parse(text: &str) -> Self {
        let mut known = Vec::new();
        for line in text.lines() {
            let Some((places, reason)) = line.strip_prefix("| `").and_then(|row| row.split_once(" | "))
            else {
                continue;
            };
            for place in places.split('`').step_by(2).filter(|place| !place.is_empty()) {
                known.push((place.to_owned(), reason.trim_end_matches([' ', '|']).to_owned()));
            }
        }
        Self(known)
    }

    /// Those whose place is such a one.
    pub fn only(mut self, is_wanted: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|(place, _)| is_wanted(place));
        self
    }

    /// Why `place` differs, in general or, written as `<thing>: <place>`, in each of `things`.
    fn reason_for(&self, place: &str, things: &BTreeSet<String>) -> Option<&str> {
        let of_things = || {
            let mut reasons = things.iter().map(|thing| self.reason(&format!("{thing}: {place}")));
            reasons.next().flatten().filter(|_| reasons.all(|reason| reason.is_some()))
        };
        self.reason(place).or_else(of_things)
    }

    fn reason(&self, place: &str) -> Option<&str> {
        self.0.iter().find(|(pattern, _)| matches(pattern, place)).map(|(_, reason)| reason.as_str())
    }

    fn unused(&self, places: &[String]) -> Vec<&str> {
        let seen = |pattern: &str| places.iter().any(|place| matches(pattern, place));
        self.0.iter().map(|(pattern, _)| pattern.as_str()).filter(|pattern| !seen(pattern)).collect()
    }
}

fn matches(pattern: &str, place: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => place.starts_with(start),
        None => pattern == place,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_what_differs() {
        let mut differences = Differences::default();
        let dory = json!({"A": 1, "B": {"C": null, "D": [{"E": 1}]}, "F": [1]});
        let dockerd = json!({"A": 1, "B": {"C": [], "D": [{"E": 2}]}, "G": 0, "F": [1]});
        differences.compare("container", "plain", "1.41", &dory, &dockerd);
        let places: Vec<&str> =
            differences.found.keys().map(|difference| difference.place.as_str()).collect();
        assert_eq!(places, ["container B.C", "container B.D[].E", "container G"]);
    }

    #[test]
    fn reads_the_list() {
        let known = Known::parse(
            "# T\n\n| place | reason |\n|---|---|\n| `a B.C`, `a D.*` | because. |\n| x | y |\n",
        );
        assert_eq!(known.reason("a B.C"), Some("because."));
        assert_eq!((known.reason("a D.E"), known.reason("a B")), (Some("because."), None));
        assert_eq!(known.unused(&["a B.C".to_owned()]), ["a D.*"]);
    }
}
