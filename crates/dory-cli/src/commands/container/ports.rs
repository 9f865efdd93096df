//! `port`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::list::host;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::{Exit, ExitStatus, code};
use crate::flags::FlagsEnd;
use crate::print;

/// `dory port`.
pub(crate) const PORT: Command = Command {
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List the published ports of a container",
    flags: &[],
    arity: Arity::Between(1, 2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(port(invocation)),
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Details {
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    host_port: String,
}

async fn port(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = invocation.arguments.positional();
    let details: Details =
        invocation.client.get(Path::new(&["containers", &arguments[0], "json"]).as_str()).await?;
    let ports = details.network_settings.ports.unwrap_or_default();
    let bindings = |key: &str| ports.get(key).and_then(Option::as_deref).unwrap_or_default();
    let address = |binding: &Binding| format!("{}:{}", host(&binding.host_ip), binding.host_port);
    let mut text = String::new();
    match arguments.get(1) {
        Some(wanted) => {
            let key = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
            for binding in bindings(&key) {
                text.push_str(&format!("{}\n", address(binding)));
            }
            if text.is_empty() {
                let text = format!("Error: No public port '{key}' published for {}", arguments[0]);
                return Err(Exit { text, code: code::FAILED }.into());
            }
        }
        None => {
            let mut keys: Vec<_> = ports.keys().collect();
            keys.sort_by_key(|key| key.split('/').next().and_then(|number| number.parse::<u16>().ok()));
            for key in keys {
                for binding in bindings(key) {
                    text.push_str(&format!("{key} -> {}\n", address(binding)));
                }
            }
        }
    }
    print(&text)
}
