//! Options of drivers (`docker network create --opt`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use dory_net::{Driver, ParentMode};

use crate::config::EndpointSettings;
use crate::{EngineError, Result};

/// What the options of a network ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DriverOptions {
    /// `com.docker.network.bridge.name`.
    pub(crate) bridge: Option<String>,
    /// `com.docker.network.bridge.enable_icc`.
    pub(crate) intercontainer: bool,
    /// `com.docker.network.bridge.enable_ip_masquerade`.
    pub(crate) masquerade: bool,
    /// `com.docker.network.bridge.host_binding_ipv4`: where ports are published that name no address.
    pub(crate) host_binding: Option<IpAddr>,
    /// `com.docker.network.driver.mtu`, in bytes.
    pub(crate) mtu: Option<u32>,
    /// `com.docker.network.container_iface_prefix`.
    pub(crate) interface_prefix: String,
    /// `com.docker.network.enable_ipv6`.
    pub(crate) ipv6: Option<bool>,
    /// `parent`: the interface that links are made on.
    pub(crate) parent: String,
    /// `macvlan_mode` or `ipvlan_mode`.
    pub(crate) mode: Option<ParentMode>,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            bridge: None,
            intercontainer: true,
            masquerade: true,
            host_binding: None,
            mtu: None,
            interface_prefix: "eth".to_owned(),
            ipv6: None,
            parent: String::new(),
            mode: None,
        }
    }
}

/// The longest name of an interface, in bytes (`IFNAMSIZ` less the closing NUL).
const INTERFACE_NAME_MAX: usize = 15;

impl DriverOptions {
    /// Reads the options of a network of `driver`. One that is not known is refused by name: it might be what keeps
    /// somebody's network safe.
    pub(crate) fn parse(driver: Driver, options: &BTreeMap<String, String>) -> Result<Self> {
        let mut parsed = Self { mode: ParentMode::parse(driver, ""), ..Self::default() };
        for (name, value) in options {
            let boolean = || boolean(name, value);
            match (name.as_str(), driver) {
                ("com.docker.network.bridge.name", Driver::Bridge) => {
                    parsed.bridge = Some(interface_name(value)?).filter(|name| !name.is_empty());
                }
                ("com.docker.network.bridge.enable_icc", Driver::Bridge) => {
                    parsed.intercontainer = boolean()?
                }
                ("com.docker.network.bridge.enable_ip_masquerade", Driver::Bridge) => {
                    parsed.masquerade = boolean()?;
                }
                ("com.docker.network.bridge.host_binding_ipv4", Driver::Bridge) => {
                    let address = value.parse().map_err(|_| invalid(name, value))?;
                    parsed.host_binding = Some(address).filter(|address: &IpAddr| !address.is_unspecified());
                }
                ("com.docker.network.bridge.default_bridge", Driver::Bridge) if !boolean()? => {}
                (
                    "com.docker.network.bridge.gateway_mode_ipv4"
                    | "com.docker.network.bridge.gateway_mode_ipv6",
                    Driver::Bridge,
                ) if value == "nat" => {}
                ("parent", Driver::Macvlan | Driver::Ipvlan) => parsed.parent = interface_name(value)?,
                ("macvlan_mode", Driver::Macvlan) | ("ipvlan_mode", Driver::Ipvlan) => {
                    let mode = ParentMode::parse(driver, value).ok_or_else(|| invalid(name, value))?;
                    parsed.mode = Some(mode);
                }
                ("com.docker.network.driver.mtu", _) => {
                    parsed.mtu = match value.parse().map_err(|_| invalid(name, value))? {
                        0 => None,
                        mtu => Some(mtu),
                    };
                }
                ("com.docker.network.container_iface_prefix", _) => {
                    parsed.interface_prefix = interface_name(value)?;
                }
                ("com.docker.network.enable_ipv6", _) => parsed.ipv6 = Some(boolean()?),
                ("com.docker.network.enable_ipv4", _) if boolean()? => {}
                _ => {
                    return Err(EngineError::invalid(format!(
                        "the option {name}={value} is not supported by the network driver {driver}"
                    )));
                }
            }
        }
        Ok(parsed)
    }
}

/// Where a client puts settings of its interface (since API 1.48).
const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// The settings that the options of an endpoint ask for; `IFNAME` in them stands for the interface. Every other option of
/// Docker's is refused by name; what has a name of somebody else's is kept for inspect and means nothing here.
pub(super) fn endpoint_sysctls(wish: &EndpointSettings, interface: &str) -> Result<Vec<(String, String)>> {
    let mut sysctls = Vec::new();
    for (name, value) in wish.driver_opts.iter().flatten() {
        if name != ENDPOINT_SYSCTLS && !name.starts_with("com.docker.network.") {
            continue;
        }
        if name != ENDPOINT_SYSCTLS {
            return Err(EngineError::invalid(format!("the endpoint option {name}={value} is not supported")));
        }
        for setting in value.split(',').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').ok_or_else(|| invalid(name, setting))?;
            sysctls.push((key.replace("IFNAME", interface), value.to_owned()));
        }
    }
    Ok(sysctls)
}

fn boolean(name: &str, value: &str) -> Result<bool> {
    dory_types::parse_bool(value).ok_or_else(|| invalid(name, value))
}

fn invalid(name: &str, value: &str) -> EngineError {
    EngineError::invalid(format!("invalid value \"{value}\" of the network option {name}"))
}

/// A name that an interface can have (`dev_valid_name` of the kernel), or none.
fn interface_name(value: &str) -> Result<String> {
    let plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '/' | ':' | '%');
    if value.len() > INTERFACE_NAME_MAX || matches!(value, "." | "..") || !value.chars().all(plain) {
        return Err(EngineError::invalid(format!("invalid interface name \"{value}\"")));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<DriverOptions> {
        DriverOptions::parse(Driver::Bridge, &[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn reads_options_of_bridges() {
        assert_eq!(parse("com.docker.network.bridge.name", "br0").unwrap().bridge.as_deref(), Some("br0"));
        assert!(!parse("com.docker.network.bridge.enable_icc", "false").unwrap().intercontainer);
        assert!(!parse("com.docker.network.bridge.enable_ip_masquerade", "0").unwrap().masquerade);
        assert_eq!(parse("com.docker.network.driver.mtu", "1400").unwrap().mtu, Some(1400));
    }

    #[test]
    fn refuses_by_name_what_it_does_not_know() {
        for (name, value) in [
            ("com.docker.network.bridge.nosuch", "1"),
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "sideways"),
            ("com.docker.network.driver.mtu", "-1"),
        ] {
            assert!(parse(name, value).unwrap_err().message().contains(name), "{name}");
        }
        assert!(parse("com.docker.network.bridge.name", "a-name-far-too-long").is_err());
    }
}
