//! `version`.

use anyhow::Result;

use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::data::Data;
use crate::failure::{ApiError, ExitStatus};
use crate::flags::{FlagsEnd, value};
use crate::print;
use crate::template::Template;

/// The API version whose fields this client reads; it asks for no version in particular.
const API_VERSION: &str = "1.51";

/// `dory version`.
pub(crate) const VERSION: Command = Command {
    usage: "[OPTIONS]",
    about: "Show the versions of client and engine",
    flags: &[&[value("format", 'f', "string", "json, or a Go template")]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(version(invocation)),
};

async fn version(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let client = client_version(invocation.version);
    let answer = invocation.client.get::<Data>(Path::new(&["version"]).as_str()).await;
    let (server, failure) = match answer {
        Ok(server) => (server, None),
        Err(error) if error.is::<ApiError>() => return Err(error),
        Err(error) => (Data::Null, Some(error)),
    };
    match invocation.arguments.text("format") {
        "" => {
            let mut text = format!("Client:\n{}", block(&client, 1, CLIENT_LINES));
            if failure.is_none() {
                text.push_str(&format!("\nServer:\n{}", describe_server(&server)));
            }
            print(&text)?;
        }
        format => {
            let both = Data::Map(vec![("Client".to_owned(), client), ("Server".to_owned(), server)]);
            let template = Template::parse(if format == "json" { "{{json .}}" } else { format })?;
            print(&format!("{}\n", template.render(&both)?))?;
        }
    }
    // The client's half is known even where the engine cannot be reached; that it cannot is still a failure.
    failure.map_or(Ok(ExitStatus::Success), Err)
}

const CLIENT_LINES: &[(&str, &str)] =
    &[("Version", "Version"), ("API version", "ApiVersion"), ("OS/Arch", "Platform")];
const ENGINE_LINES: &[(&str, &str)] = &[
    ("Version", "Version"),
    ("API version", "ApiRange"),
    ("Go version", "GoVersion"),
    ("Git commit", "GitCommit"),
    ("Built", "BuildTime"),
    ("OS/Arch", "Platform"),
    ("Experimental", "Experimental"),
];

fn client_version(version: &str) -> Data {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fields = [
        ("Version", version),
        ("ApiVersion", API_VERSION),
        ("Os", std::env::consts::OS),
        ("Arch", architecture),
        ("Platform", &format!("{}/{architecture}", std::env::consts::OS)),
    ];
    Data::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// The engine's components, each with what it tells; an engine that names none is described as a whole.
fn describe_server(server: &Data) -> String {
    let mut text = String::new();
    if let Some(name) =
        server.get("Platform").and_then(|platform| platform.get("Name")).and_then(Data::as_text)
        && !name.is_empty()
    {
        text.push_str(&format!(" {name}\n"));
    }
    let Some(Data::List(components)) = server.get("Components") else {
        return text + &block(&engine(server, server), 1, ENGINE_LINES);
    };
    for component in components {
        let name = component.get("Name").and_then(Data::as_text).unwrap_or_default();
        text.push_str(&format!(" {name}:\n"));
        let details = component.get("Details").unwrap_or(&Data::Null);
        if name == "Engine" {
            text.push_str(&block(&engine(component, details), 2, ENGINE_LINES));
        } else {
            let lines = [("Version", "Version"), ("GitCommit", "GitCommit")];
            text.push_str(&block(&merged(component, details), 2, &lines));
        }
    }
    text
}

fn merged(component: &Data, details: &Data) -> Data {
    let mut fields = match details {
        Data::Map(fields) => fields.clone(),
        _ => Vec::new(),
    };
    if let Some(version) = component.get("Version") {
        fields.push(("Version".to_owned(), version.clone()));
    }
    Data::Map(fields)
}

/// A component's fields with those that Docker shows joined.
fn engine(component: &Data, details: &Data) -> Data {
    let text = |name: &str| details.get(name).and_then(Data::as_text).unwrap_or_default();
    let range = format!("{} (minimum version {})", text("ApiVersion"), text("MinAPIVersion"));
    let platform = format!("{}/{}", text("Os"), text("Arch"));
    let mut merged = merged(component, details);
    if let Data::Map(fields) = &mut merged {
        fields.retain(|(name, _)| name != "Platform");
        fields.push(("ApiRange".to_owned(), range.into()));
        fields.push(("Platform".to_owned(), platform.into()));
    }
    merged
}

fn block(data: &Data, depth: usize, lines: &[(&str, &str)]) -> String {
    let indent = " ".repeat(depth);
    lines
        .iter()
        .filter_map(|(title, name)| {
            let value = match data.get(name)? {
                Data::Text(text) if text.is_empty() && *name != "GitCommit" => return None,
                Data::Text(text) => text.clone(),
                Data::Bool(value) => value.to_string(),
                _ => return None,
            };
            Some(format!("{indent}{:<width$}{value}\n", format!("{title}:"), width = 20 - depth))
        })
        .collect()
}
