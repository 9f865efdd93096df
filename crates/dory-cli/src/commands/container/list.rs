//! `ps`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::filters::Filters;
use super::super::moment;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::data::Data;
use crate::failure::ExitStatus;
use crate::flags::{Flag, FlagsEnd, list, long_switch, long_value, parse_int, switch, value};
use crate::listing::{Listing, Row};
use crate::{print, units};

const FLAGS: &[Flag] = &[
    switch("all", 'a', "Show stopped containers, too"),
    list("filter", 'f', "Show only what fits (NAME=VALUE)"),
    long_value("format", "string", "table, json, or a Go template"),
    value("last", 'n', "int", "Show the last created containers, in any state"),
    switch("latest", 'l', "Show the last created container, in any state"),
    long_switch("no-trunc", "Do not shorten"),
    switch("quiet", 'q', "Show ids only"),
    switch("size", 's', "Show sizes"),
];

/// `dory ps`.
pub(crate) const LIST: Command = Command {
    usage: "[OPTIONS]",
    about: "List containers",
    flags: &[FLAGS],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(list_containers(invocation)),
};

const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

const TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const TABLE_WITH_SIZE: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

/// A row of `GET /containers/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerSummary {
    /// Full id.
    pub(crate) id: String,
    #[serde(default)]
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID", default)]
    image_id: String,
    #[serde(default)]
    command: String,
    created: i64,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    /// Bytes that the container wrote.
    #[serde(default)]
    pub(crate) size_rw: i64,
    #[serde(default)]
    size_root_fs: i64,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    /// `running`, `exited` and so on.
    #[serde(default)]
    pub(crate) state: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    // The order of the fields is the order of the list.
    private_port: u16,
    #[serde(rename = "IP", default)]
    ip: String,
    #[serde(default)]
    public_port: u16,
    #[serde(rename = "Type", default)]
    protocol: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    driver: String,
}

async fn list_containers(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let limit = if arguments.on("latest") { Some(1) } else { arguments.parsed("last", parse_int)? };
    let format = arguments.text("format");
    let with_size = arguments.on("size") || format.contains(".Size");
    let mut path = Path::new(&["containers", "json"])
        .flag("all", arguments.on("all"))
        .flag("size", with_size)
        .optional("filters", &Filters::read(arguments)?.to_parameter());
    if let Some(limit) = limit.filter(|limit| *limit > 0) {
        path = path.query("limit", limit);
    }
    let containers: Vec<ContainerSummary> = invocation.client.get(path.as_str()).await?;
    let full = arguments.on("no-trunc");
    let rows: Vec<_> = containers.iter().map(|container| container.row(full)).collect();
    let table = if arguments.on("size") { TABLE_WITH_SIZE } else { TABLE };
    let listing = Listing { table, titles: TITLES, quiet: "{{.ID}}" };
    print(&listing.render(format, arguments.on("quiet"), &rows)?)
}

impl ContainerSummary {
    /// The same, as if nobody had counted what the image takes.
    pub(crate) fn without_image_size(&self) -> Self {
        Self { size_root_fs: 0, ..self.clone() }
    }

    /// The row of this container, `full` without shortening.
    pub(crate) fn row(&self, full: bool) -> Row {
        let shorten = |text: &str, length| if full { text.to_owned() } else { ellipsis(text, length) };
        let labels = self.labels.clone().unwrap_or_default();
        let mounts = self.mounts.as_deref().unwrap_or_default();
        let mount_names: Vec<_> = mounts
            .iter()
            .map(|mount| shorten(if mount.name.is_empty() { &mount.source } else { &mount.name }, 15))
            .collect();
        let volumes = mounts.iter().filter(|mount| mount.driver == "local").count();
        let networks = self.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let networks: Vec<_> = networks.into_iter().flat_map(BTreeMap::keys).cloned().collect();
        let label_list: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Row::new(vec![
            ("ID", if full { self.id.clone() } else { self.id.chars().take(12).collect() }),
            ("Names", self.names(full).join(",")),
            ("Image", self.image(full)),
            ("Command", Data::from(shorten(&self.command, 20)).to_json()),
            ("CreatedAt", moment::date(self.created)),
            ("RunningFor", moment::ago(self.created)),
            ("Ports", displayed_ports(self.ports.clone().unwrap_or_default())),
            ("State", self.state.clone()),
            ("Status", self.status.clone()),
            ("Size", self.size()),
            ("Labels", label_list.join(",")),
            ("Mounts", mount_names.join(",")),
            ("LocalVolumes", volumes.to_string()),
            ("Networks", networks.join(",")),
        ])
        .with_labels(labels)
    }

    /// Names without their slash; shortened, without the names that other containers' links gave it.
    fn names(&self, full: bool) -> Vec<String> {
        let names = self.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
        names.filter(|name| full || !name.contains('/')).map(str::to_owned).collect()
    }

    fn image(&self, full: bool) -> String {
        if self.image.is_empty() {
            return "<no image>".to_owned();
        }
        if !full && self.image == self.image_id {
            return self.image.trim_start_matches("sha256:").chars().take(12).collect();
        }
        self.image.clone()
    }

    fn size(&self) -> String {
        let written = units::short_size(self.size_rw as f64);
        if self.size_root_fs == 0 {
            return written;
        }
        format!("{written} (virtual {})", units::short_size(self.size_root_fs as f64))
    }
}

/// The rows as `system df -v` shows them.
pub(crate) fn render_usage(rows: &[Row]) -> Result<String> {
    let table = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    Listing { table, titles: TITLES, quiet: "" }.render("", false, rows)
}

/// `text` in `length` characters at most, the last one `…` if it is cut.
pub(crate) fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

/// Ports as Docker lists them: ranges that are published on the same numbers together, then the others one by one.
fn displayed_ports(mut ports: Vec<Port>) -> String {
    ports.sort();
    let mut finished = Vec::new();
    let mut mapped = Vec::new();
    let mut groups: Vec<(String, String, u16, u16)> = Vec::new();
    for Port { private_port, ip, public_port, protocol } in ports {
        if !ip.is_empty() && public_port != private_port {
            mapped.push(format!("{}:{public_port}->{private_port}/{protocol}", host(&ip)));
            continue;
        }
        match groups.iter_mut().find(|(address, kind, ..)| *address == ip && *kind == protocol) {
            None => groups.push((ip, protocol, private_port, private_port)),
            Some((.., last)) if private_port == last.saturating_add(1) => *last = private_port,
            Some(group) => {
                finished.push(port_group(group));
                (group.2, group.3) = (private_port, private_port);
            }
        }
    }
    finished.extend(groups.iter().map(port_group));
    finished.extend(mapped);
    finished.join(", ")
}

fn port_group((ip, protocol, first, last): &(String, String, u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if ip.is_empty() {
        format!("{range}/{protocol}")
    } else {
        format!("{}:{range}->{range}/{protocol}", host(ip))
    }
}

/// An address as it stands before a port.
pub(super) fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_ports() {
        let port = |ip: &str, public_port, private_port, protocol: &str| Port {
            private_port,
            ip: ip.to_owned(),
            public_port,
            protocol: protocol.to_owned(),
        };
        let ports = vec![
            port("127.0.0.1", 8080, 80, "tcp"),
            port("", 0, 77, "tcp"),
            port("0.0.0.0", 9001, 9001, "udp"),
            port("0.0.0.0", 9000, 9000, "udp"),
            port("::", 9000, 9000, "udp"),
            port("0.0.0.0", 9005, 9005, "udp"),
        ];
        assert_eq!(
            displayed_ports(ports),
            "0.0.0.0:9000-9001->9000-9001/udp, 77/tcp, 0.0.0.0:9005->9005/udp, [::]:9000->9000/udp, \
             127.0.0.1:8080->80/tcp"
        );
    }

    #[test]
    fn shortens() {
        assert_eq!(ellipsis("short", 5), "short");
        assert_eq!(ellipsis("longer", 5), "long…");
    }
}
