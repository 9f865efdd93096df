//! The verbs of networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use dory_net::Subnet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::each::for_each;
use super::filters::Filters;
use super::system::prune::{Kind, confirm, prune_kind};
use super::volume::pairs;
use crate::client::Path;
use crate::command::{Arity, Command, Entry, Invocation, entry};
use crate::failure::{ApiError, ExitStatus};
use crate::flags::{Arguments, FlagsEnd, list, long_list, long_switch, long_value, parse_int, switch, value};
use crate::listing::{Listing, Row};
use crate::print;

/// `dory network ...`.
pub(super) const COMMANDS: &[Entry] = &[
    entry(&["connect"], &CONNECT),
    entry(&["create"], &CREATE),
    entry(&["disconnect"], &DISCONNECT),
    entry(&["inspect"], &super::inspect::INSPECT_NETWORK),
    entry(&["ls", "list"], &LIST),
    entry(&["prune"], &PRUNE),
    entry(&["rm", "remove"], &REMOVE),
];

const CREATE: Command = Command {
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    flags: &[&[
        long_switch("attachable", "For containers that are run by hand (of a swarm)"),
        long_list("aux-address", "Address that no container gets (NAME=ADDRESS)"),
        value("driver", 'd', "string", "Driver of the network"),
        long_list("gateway", "Gateway of a subnet"),
        long_switch("internal", "Give the network no way outside"),
        long_list("ip-range", "Addresses to take from, within a subnet"),
        long_value("ipam-driver", "string", "Driver of the address management"),
        long_list("ipam-opt", "Option of the address management (KEY=VALUE)"),
        long_value("ipv4", "bool", "Use IPv4 (default true)"),
        long_switch("ipv6", "Use IPv6, too"),
        long_list("label", "Set a label (KEY=VALUE)"),
        list("opt", 'o', "Option of the driver (KEY=VALUE)"),
        long_list("subnet", "Subnet (ADDRESS/BITS)"),
    ]],
    arity: Arity::Exactly(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(create(invocation)),
};

const CONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    flags: &[&[
        long_list("alias", "Name of the container within the network"),
        long_list("driver-opt", "Option of the driver (KEY=VALUE)"),
        long_value("gw-priority", "int", "The highest one gives the container its default route (default 0)"),
        long_value("ip", "string", "IPv4 address"),
        long_value("ip6", "string", "IPv6 address"),
        long_list("link", "Name for another container (NAME:ALIAS)"),
        long_list("link-local-ip", "Link-local address"),
    ]],
    arity: Arity::Exactly(2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(connect(invocation)),
};

const DISCONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    flags: &[&[switch("force", 'f', "Disconnect even if the container does not answer")]],
    arity: Arity::Exactly(2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(disconnect(invocation)),
};

const LIST: Command = Command {
    usage: "[OPTIONS]",
    about: "List networks",
    flags: &[&[
        list("filter", 'f', "Show only what fits (NAME=VALUE)"),
        long_value("format", "string", "table, json, or a Go template"),
        long_switch("no-trunc", "Do not shorten"),
        switch("quiet", 'q', "Show ids only"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(list_networks(invocation)),
};

const REMOVE: Command = Command {
    usage: "NETWORK [NETWORK...]",
    about: "Remove networks",
    flags: &[&[switch("force", 'f', "Do not fail for networks that do not exist")]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(remove(invocation)),
};

const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all unused networks",
    flags: &[&[
        long_list("filter", "Remove only what fits (NAME=VALUE)"),
        switch("force", 'f', "Do not ask"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(prune(invocation)),
};

const LISTING: Listing = Listing {
    table: "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    titles: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    quiet: "{{.ID}}",
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    id: String,
    name: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    created: String,
    #[serde(rename = "EnableIPv6", default)]
    ipv6: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

async fn list_networks(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let path = Path::new(&["networks"]).optional("filters", &Filters::read(arguments)?.to_parameter());
    let mut networks: Vec<Network> = invocation.client.get(path.as_str()).await?;
    networks.sort_by(|left, right| left.name.cmp(&right.name));
    let full = arguments.on("no-trunc");
    let rows: Vec<_> = networks.into_iter().map(|network| network.into_row(full)).collect();
    print(&LISTING.render(arguments.text("format"), arguments.on("quiet"), &rows)?)
}

impl Network {
    fn into_row(self, full: bool) -> Row {
        let labels = self.labels.unwrap_or_default();
        let label_list: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Row::new(vec![
            ("ID", if full { self.id } else { self.id.chars().take(12).collect() }),
            ("Name", self.name),
            ("Driver", self.driver),
            ("Scope", self.scope),
            ("IPv6", self.ipv6.to_string()),
            ("Internal", self.internal.to_string()),
            ("Labels", label_list.join(",")),
            ("CreatedAt", self.created),
        ])
        .with_labels(labels)
    }
}

async fn create(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
    }
    let arguments = &invocation.arguments;
    let pools = pools(arguments)?;
    let mut body = json!({
        "Name": arguments.positional()[0],
        "Driver": arguments.value("driver").unwrap_or("bridge"),
        "CheckDuplicate": true,
        "Internal": arguments.on("internal"),
        "Attachable": arguments.on("attachable"),
        "EnableIPv6": arguments.on("ipv6"),
        "IPAM": {
            "Driver": arguments.value("ipam-driver").unwrap_or("default"),
            "Options": pairs(arguments.list("ipam-opt")),
            "Config": pools,
        },
        "Options": pairs(arguments.list("opt")),
        "Labels": pairs(arguments.list("label")),
    });
    if arguments.value("ipv4").is_some() {
        body["EnableIPv4"] = arguments.on_or("ipv4", true).into();
    }
    let created: Created =
        invocation.client.post_json(Path::new(&["networks", "create"]).as_str(), &body).await?;
    print(&format!("{}\n", created.id))
}

/// `IPAM.Config`: gateways, ranges and auxiliary addresses belong to the subnet that contains them.
fn pools(arguments: &Arguments) -> Result<Vec<Value>> {
    let mut pools: Vec<(Subnet, Value)> = Vec::new();
    for text in arguments.list("subnet") {
        let subnet: Subnet = text.parse().with_context(|| format!("invalid subnet {text}"))?;
        if pools.iter().any(|(other, _)| other.overlaps(subnet)) {
            bail!("multiple overlapping subnet configuration is not supported");
        }
        pools.push((subnet, json!({ "Subnet": text })));
    }
    let mut set = |what: &str, text: &str, address: IpAddr, key: &str| -> Result<()> {
        let Some((_, pool)) = pools.iter_mut().find(|(subnet, _)| subnet.contains(address)) else {
            bail!("no matching subnet for {what} {text}");
        };
        if pool.get(key).is_some() {
            bail!("cannot configure multiple {what}s ({text}) on the same subnet");
        }
        pool[key] = text.into();
        Ok(())
    };
    for text in arguments.list("ip-range") {
        let range: Subnet = text.parse().with_context(|| format!("invalid range {text}"))?;
        set("range", text, range.base(), "IPRange")?;
    }
    for text in arguments.list("gateway") {
        let gateway = text.parse().with_context(|| format!("invalid gateway {text}"))?;
        set("gateway", text, gateway, "Gateway")?;
    }
    for text in arguments.list("aux-address") {
        let (name, address) =
            text.split_once('=').with_context(|| format!("invalid auxiliary address {text}"))?;
        let parsed: IpAddr = address.parse().with_context(|| format!("invalid auxiliary address {text}"))?;
        let Some((_, pool)) = pools.iter_mut().find(|(subnet, _)| subnet.contains(parsed)) else {
            bail!("no matching subnet for aux-address {address}");
        };
        pool["AuxiliaryAddresses"][name] = address.into();
    }
    Ok(pools.into_iter().map(|(_, pool)| pool).collect())
}

async fn connect(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let [network, container] = arguments.positional() else { unreachable!("exactly two arguments") };
    let body = json!({
        "Container": container,
        "EndpointConfig": {
            "IPAMConfig": {
                "IPv4Address": arguments.text("ip"),
                "IPv6Address": arguments.text("ip6"),
                "LinkLocalIPs": arguments.list("link-local-ip"),
            },
            "Links": arguments.list("link"),
            "Aliases": arguments.list("alias"),
            "DriverOpts": pairs(arguments.list("driver-opt")),
            "GwPriority": arguments.parsed("gw-priority", parse_int)?.unwrap_or(0),
        },
    });
    invocation.client.post_body(Path::new(&["networks", network, "connect"]).as_str(), &body).await?;
    Ok(ExitStatus::Success)
}

async fn disconnect(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let [network, container] = arguments.positional() else { unreachable!("exactly two arguments") };
    let body = json!({ "Container": container, "Force": arguments.on("force") });
    invocation.client.post_body(Path::new(&["networks", network, "disconnect"]).as_str(), &body).await?;
    Ok(ExitStatus::Success)
}

async fn remove(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let force = invocation.arguments.on("force");
    for_each(invocation.arguments.positional(), async |name| {
        match invocation.client.delete(Path::new(&["networks", &name]).as_str()).await {
            Err(error) if force && is_not_found(&error) => Ok(name),
            result => result.map(|_| name),
        }
    })
    .await
}

/// True where the engine said that there is no such thing.
fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ApiError>().is_some_and(ApiError::is_not_found)
}

async fn prune(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let warning = "This will remove all custom networks not used by at least one container.";
    if !invocation.arguments.on("force") && !confirm(warning)? {
        return Ok(ExitStatus::Success);
    }
    prune_kind(invocation, Kind::Networks).await
}
