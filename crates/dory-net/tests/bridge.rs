//! Bridge networks in real network namespaces.

mod common;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{
    ENGINE, Lab, OUTSIDE, ask, config, container, container_in, endpoint_config, inside, json, namespace,
    ping, run, serve,
};
use dory_net::{BridgeNetwork, NetworkFact, configure_loopback};

#[test]
fn privileged_a_container_reaches_the_outside_masqueraded() {
    let lab = Lab::new();
    let (network, container) = inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let container = container(&network);
        (network, container)
    });
    assert_eq!(network.facts(), [NetworkFact::ForwardingEnabled]);
    assert_eq!(network.network().mtu, 1400, "the uplink's");
    assert_eq!(network.subnet().subnet.to_string(), "172.17.0.0/16");
    inside(&container.netns, || {
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(172, 17, 0, 2), network.subnet().gateway, OUTSIDE]
        {
            assert!(ping(address), "{address}");
        }
        let link = &json("ip -j addr show eth0")[0];
        assert_eq!((link["address"].as_str(), link["mtu"].as_i64()), (Some("02:42:ac:11:00:02"), Some(1400)));
        let addresses: Vec<_> =
            link["addr_info"].as_array().unwrap().iter().map(|it| it["local"].to_string()).collect();
        assert_eq!(addresses, ["\"172.17.0.2\""], "no IPv6 address of its own making");
        assert_eq!(json("ip -j route show default")[0]["gateway"], "172.17.0.1");
    });
    let server = serve(&lab.outside, OUTSIDE, 80, 1);
    assert_eq!(
        ask(&container.netns, OUTSIDE, 80).unwrap(),
        ENGINE.to_string(),
        "seen under the engine's address"
    );
    server.join().unwrap();
    inside(&lab.engine, || {
        let port = &json(&format!("ip -j -d link show {}", container.endpoint.host_interface))[0];
        assert_eq!(
            (port["master"].as_str(), port["ifalias"].as_str()),
            (Some("dory0"), Some("dory:one:abababababab:test"))
        );
        assert_eq!(port["linkinfo"]["info_slave_data"]["hairpin"], true);
        run("nft -j list table ip dory0");
    });
}
