//! `events`.

use anyhow::{Context, Result};
use dory_log::Timestamp;
use http_body_util::BodyExt;

use super::super::filters::Filters;
use super::super::moment::moment;
use crate::client::{ConnectionLost, Path};
use crate::command::{Arity, Command, Invocation};
use crate::data::Data;
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, list, long_value};
use crate::print;
use crate::template::Template;

/// `dory events`.
pub(crate) const EVENTS: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what happens, while it happens",
    flags: &[&[
        list("filter", 'f', "Show only what fits (NAME=VALUE)"),
        long_value("format", "string", "json, or a Go template"),
        long_value("since", "string", "Begin at a time, or a span before now"),
        long_value("until", "string", "End at a time, or a span before now"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(events(invocation)),
};

async fn events(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let format = arguments.text("format");
    // Printed as JSON an event has no other names than its own.
    let whole = format.contains("json .");
    let template = match format {
        "" => None,
        "json" => Some(Template::parse("{{json .}}")?),
        format => Some(Template::parse(format)?),
    };
    let mut path = Path::new(&["events"]).optional("filters", &Filters::read(arguments)?.to_parameter());
    for bound in ["since", "until"] {
        if let Some(text) = arguments.value(bound) {
            path = path.query(bound, moment(text, Timestamp::now())?);
        }
    }
    let mut body = invocation.client.get_stream(path.as_str()).await?.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.context(ConnectionLost)?.into_data() else { continue };
        text.extend_from_slice(&bytes);
        let mut events = serde_json::Deserializer::from_slice(&text).into_iter::<Data>();
        let mut consumed = 0;
        while let Some(Ok(event)) = events.next() {
            consumed = events.byte_offset();
            let line = match &template {
                Some(template) if whole => template.render(&event)?,
                Some(template) => template.render(&with_go_names(event))?,
                None => line(&event),
            };
            print(&format!("{line}\n"))?;
        }
        text.drain(..consumed);
    }
    Ok(ExitStatus::Success)
}

/// Adds the fields by the names that templates of the docker command know, where JSON has others. Old clients' fields are
/// empty where an event has none.
fn with_go_names(event: Data) -> Data {
    const NAMES: [(&str, &str); 6] = [
        ("Status", "status"),
        ("ID", "id"),
        ("From", "from"),
        ("Scope", "scope"),
        ("Time", "time"),
        ("TimeNano", "timeNano"),
    ];
    let known: Vec<_> = NAMES
        .iter()
        .map(|(go, json)| {
            let value = event.get(json).cloned().unwrap_or_else(|| Data::Text(String::new()));
            ((*go).to_owned(), value)
        })
        .collect();
    match event {
        Data::Map(mut fields) => {
            fields.extend(known);
            Data::Map(fields)
        }
        other => other,
    }
}

/// `2006-01-02T15:04:05.000000000Z container start ID (image=busybox, name=web)`.
fn line(event: &Data) -> String {
    let field = |name: &str| event.get(name).and_then(Data::as_text).unwrap_or_default();
    let nanoseconds = event.get("timeNano").and_then(Data::as_int).unwrap_or_default();
    let time = Timestamp::from_unix(
        nanoseconds.div_euclid(1_000_000_000),
        nanoseconds.rem_euclid(1_000_000_000) as u32,
    );
    let mut stamp = Vec::new();
    time.unwrap_or_default().append_rfc3339_fixed(&mut stamp);
    let actor = event.get("Actor");
    let id = actor.and_then(|actor| actor.get("ID")).and_then(Data::as_text).unwrap_or_default();
    let mut line = format!("{} {} {} {id}", String::from_utf8_lossy(&stamp), field("Type"), field("Action"));
    if let Some(Data::Map(attributes)) = actor.and_then(|actor| actor.get("Attributes"))
        && !attributes.is_empty()
    {
        let mut pairs: Vec<_> = attributes
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_text().unwrap_or_default()))
            .collect();
        pairs.sort();
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_know_the_names_of_go() {
        let event = serde_json::from_str(r#"{"Type":"volume","Action":"create","time":7}"#).unwrap();
        let template = Template::parse("{{.Type}} [{{.Status}}] {{.Time}}").unwrap();
        assert_eq!(template.render(&with_go_names(event)).unwrap(), "volume [] 7");
    }

    #[test]
    fn writes_events_as_docker_does() {
        let event = r#"{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"web","image":"b"}},
                        "time":1700000000,"timeNano":1700000000000000007}"#;
        assert_eq!(
            line(&serde_json::from_str(event).unwrap()),
            "2023-11-14T22:13:20.000000007Z container start abc (image=b, name=web)"
        );
    }
}
