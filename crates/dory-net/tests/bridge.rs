//! Bridge networks in real network namespaces.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{
    ENGINE, Lab, OUTSIDE, ask, config, container, container_in, endpoint_config, inside, json, namespace,
    ping, run, serve, subnet,
};
use dory_net::{
    BridgeConfig, BridgeNetwork, NetworkFact, SubnetWish, configure_loopback, disconnect, set_default_routes,
    sweep_bridges,
};

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
    assert_eq!(subnet(&network), "172.17.0.0/16");
    inside(&container.netns, || {
        for address in
            [Ipv4Addr::LOCALHOST, Ipv4Addr::new(172, 17, 0, 2), network.gateway().unwrap(), OUTSIDE]
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
        // What `nft` shows it can also read.
        run("rules=$(nft list ruleset); nft flush ruleset; echo \"$rules\" | nft -f -");
        assert!(run("nft list set ip dory0 bridges").contains("\"dory0\""));
    });
    inside(&container.netns, || assert!(ping(OUTSIDE)));
}

#[test]
fn privileged_engines_in_one_namespace_share_nothing() {
    let lab = Lab::new();
    let (one, other) = inside(&lab.engine, || {
        (BridgeNetwork::ensure(&config("one")).unwrap(), BridgeNetwork::ensure(&config("other")).unwrap())
    });
    assert_eq!((one.network().bridge.as_str(), other.network().bridge.as_str()), ("dory0", "dory1"));
    assert_eq!(subnet(&other), "172.18.0.0/16");
    let (here, there) = inside(&lab.engine, || (container(&one), container(&other)));
    let _server = serve(&there.netns, there.address(), 80, 1);
    assert!(ask(&here.netns, there.address(), 80).is_err(), "networks are apart");
    inside(&lab.engine, || other.remove().unwrap());
    inside(&here.netns, || assert!(ping(OUTSIDE), "the other engine's end changes nothing here"));
}

#[test]
fn privileged_engines_that_start_together_do_not_collide() {
    let lab = Lab::new();
    let mut places: Vec<_> = std::thread::scope(|scope| {
        let start = |owner: String| {
            let engine = &lab.engine;
            scope.spawn(move || inside(engine, || BridgeNetwork::ensure(&config(&owner)).unwrap()))
        };
        let engines: Vec<_> = (0..6).map(|number| start(format!("engine{number}"))).collect();
        let networks = engines.into_iter().map(|engine| engine.join().unwrap());
        networks.map(|it| (it.network().bridge.clone(), subnet(&it))).collect()
    });
    places.sort();
    let expected: Vec<_> = (0..6)
        .map(|number| (format!("dory{number}"), format!("172.{}.0.0/16", 17 + number).parse().unwrap()))
        .collect();
    assert_eq!(places, expected);
}

#[test]
fn privileged_a_nested_engine_takes_the_next_subnet() {
    let lab = Lab::new();
    let outer = inside(&lab.engine, || BridgeNetwork::ensure(&config("outer")).unwrap());
    let level_two = inside(&lab.engine, || container(&outer));
    let inner = inside(&level_two.netns, || BridgeNetwork::ensure(&config("inner")).unwrap());
    assert_eq!(subnet(&inner), "172.18.0.0/16");
    assert_eq!((inner.network().bridge.as_str(), inner.network().mtu), ("dory0", 1400));
    let level_three = inside(&level_two.netns, || container(&inner));
    let server = serve(&lab.outside, OUTSIDE, 80, 1);
    assert_eq!(ask(&level_three.netns, OUTSIDE, 80).unwrap(), ENGINE.to_string());
    server.join().unwrap();
}

#[test]
fn privileged_the_next_engine_adopts_the_network() {
    let lab = Lab::new();
    let (container, again) = inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let container = container(&network);
        (container, BridgeNetwork::ensure(&config("one")).unwrap())
    });
    assert_eq!(again.network().bridge, "dory0");
    assert_eq!(subnet(&again), "172.17.0.0/16");
    assert!(again.restore([container.address().into()]).is_empty());
    assert_eq!(again.allocate(&[]).unwrap(), [std::net::IpAddr::from([172, 17, 0, 3])]);
    inside(&container.netns, || assert!(ping(OUTSIDE)));
}

#[test]
fn privileged_sweep_deletes_what_no_record_claims() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let other = BridgeNetwork::ensure(&config("other")).unwrap();
        let containers: Vec<_> = (0..6).map(|_| container(&network)).collect();
        let _elsewhere = container(&other);
        let live: Vec<_> = containers[..2].iter().map(|it| it.endpoint.host_interface.clone()).collect();
        let mut swept = network.sweep(&live).unwrap();
        let mut expected: Vec<_> =
            containers[2..].iter().map(|it| it.endpoint.host_interface.clone()).collect();
        swept.sort();
        expected.sort();
        assert_eq!(swept, expected);
        assert_eq!(
            json("ip -j link show type veth").as_array().unwrap().len(),
            2 + 1 + 1,
            "live, other's, uplink"
        );
        assert!(network.sweep(&live).unwrap().is_empty());
        network.remove().unwrap();
        other.remove().unwrap();
        assert_eq!(
            json("ip -j link show type bridge")
                .as_array()
                .unwrap()
                .iter()
                .filter(|it| it["ifname"].is_string())
                .count(),
            0
        );
        assert_eq!(run("nft list tables"), "");
    });
}

#[test]
fn privileged_a_failed_connection_leaves_nothing() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let mut wrong = endpoint_config(&network);
        wrong.sysctls = vec![("net.ipv4.conf.eth0.no_such_setting".into(), "1".into())];
        let netns = namespace();
        network.connect(netns.as_fd(), &wrong).unwrap_err();
        assert_eq!(json("ip -j link show type veth").as_array().unwrap().len(), 1, "the uplink alone");
        container_in(&network, netns);
    });
}

/// Runs the test `name` of this program again, after `preparation` in namespaces of its own.
fn again(name: &str, preparation: &str) {
    let program = std::env::current_exe().unwrap();
    let script = format!("{preparation} exec \"$0\" --exact \"$1\" --nocapture");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-ec", &script])
        .arg(program)
        .arg(name)
        .env(AGAIN, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Set in the environment of a test that [`again`] runs.
const AGAIN: &str = "DORY_NET_TEST_AGAIN";

#[test]
fn privileged_an_engine_in_a_user_namespace_needs_no_more() {
    again("privileged_a_container_reaches_the_outside_masqueraded", "");
    again("privileged_engines_in_one_namespace_share_nothing", "");
    again("privileged_a_dropping_forward_policy_is_overcome_and_restored", "mount -t tmpfs none /run;");
}

#[test]
fn privileged_a_read_only_proc_sys_is_no_obstacle() {
    if std::env::var_os(AGAIN).is_none() {
        let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys;";
        return again("privileged_a_read_only_proc_sys_is_no_obstacle", read_only);
    }
    let lab = Lab::new();
    inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        match (forwards.trim(), network.facts()) {
            // The machine forwards, so that its copy here does, too, and nothing had to be turned on.
            ("1", []) | ("0", [NetworkFact::ForwardingByInterface(_)]) => {}
            (_, facts) => panic!("{facts:?}"),
        }
        let container = container(&network);
        inside(&container.netns, || assert!(ping(OUTSIDE)));
    });
}

#[test]
fn privileged_none_has_a_loopback() {
    let netns = namespace();
    configure_loopback(netns.as_fd()).unwrap();
    inside(&netns, || assert!(ping(Ipv4Addr::LOCALHOST)));
}

#[test]
fn privileged_a_namespace_of_a_child_user_namespace_is_joined() {
    let lab = Lab::new();
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "echo ready; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let netns: OwnedFd = std::fs::File::open(format!("/proc/{}/ns/net", child.id())).unwrap().into();
    let container = inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        container_in(&network, netns)
    });
    inside(&container.netns, || assert!(ping(OUTSIDE)));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn privileged_a_dropping_forward_policy_is_overcome_and_restored() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        run("iptables -P FORWARD DROP && iptables -N DOCKER && iptables -A FORWARD -o docker0 -j DOCKER");
        let before = run("iptables -S");
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        assert!(network.facts().contains(&NetworkFact::ForwardPolicyDrop("dory0".into())));
        let container = container(&network);
        inside(&container.netns, || assert!(ping(OUTSIDE)));
        let rules = run("iptables -S FORWARD");
        for rule in [
            "-o dory0 -j ACCEPT",
            "-i dory0 -o docker0 -j RETURN",
            "-i dory0 -o br-+ -j RETURN",
            "-i dory0 -j ACCEPT",
        ] {
            assert!(
                rules
                    .replace(" -m comment --comment \"dory dory0\"", "")
                    .contains(&format!("-A FORWARD {rule}")),
                "iptables can read {rule}: {rules}"
            );
        }
        BridgeNetwork::ensure(&config("one")).unwrap();
        assert_eq!(run("iptables -S FORWARD"), rules, "they are there once");
        network.remove().unwrap();
        assert_eq!(run("iptables -S"), before);
    });
}

#[test]
fn privileged_a_forward_policy_that_comes_later_is_overcome_at_the_next_start() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        run("iptables -P FORWARD DROP");
        let container = container(&network);
        inside(&container.netns, || assert!(ping(OUTSIDE)));
    });
}

#[test]
fn privileged_connect_is_quick() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let mut times: Vec<_> = (0..40)
            .map(|_| {
                let (netns, config) = (namespace(), endpoint_config(&network));
                let start = Instant::now();
                network.connect(netns.as_fd(), &config).unwrap();
                let elapsed = start.elapsed();
                std::mem::drop(netns);
                elapsed
            })
            .collect();
        times.sort();
        println!("connect: median {:?}, best {:?}, worst {:?}", times[20], times[0], times[39]);
    });
}

#[test]
fn privileged_bridges_of_no_network_are_swept() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        let kept = BridgeNetwork::ensure(&config("one")).unwrap();
        let other = BridgeConfig::new("cd".repeat(32).parse().unwrap(), "other", "br-other", "one");
        let other = BridgeNetwork::ensure(&other).unwrap();
        let container = container(&other);
        let foreign = BridgeNetwork::ensure(&config("two")).unwrap();
        let swept = sweep_bridges("one", std::slice::from_ref(&kept.network().id)).unwrap();
        assert_eq!(swept, ["br-other"]);
        let names: Vec<_> =
            json("ip -j link").as_array().unwrap().iter().map(|it| it["ifname"].clone()).collect();
        assert!(names.contains(&kept.network().bridge.clone().into()), "{names:?}");
        assert!(names.contains(&foreign.network().bridge.clone().into()), "{names:?}");
        assert!(!names.contains(&container.endpoint.host_interface.clone().into()), "{names:?}");
        assert!(!run("nft list tables").contains("br-other"));
    });
}

#[test]
fn privileged_ipv6_has_neighbours_ports_and_a_way_out() {
    let lab = Lab::new();
    let (network, one, other) = inside(&lab.engine, || {
        let config = BridgeConfig { subnets: vec![SubnetWish::ipv4(), SubnetWish::ipv6()], ..config("one") };
        let network = BridgeNetwork::ensure(&config).unwrap();
        let (one, other) = (container(&network), container(&network));
        (network, one, other)
    });
    let place = network.network().ipv6().unwrap();
    assert_eq!((place.subnet.prefix(), place.subnet.base().to_string().starts_with("fd")), (64, true));
    let address = one.endpoint.ipv6.unwrap().address;
    let _server = serve(&one.netns, address, 80, 2);
    assert_eq!(ask(&other.netns, address, 80).unwrap(), other.endpoint.ipv6.unwrap().address.to_string());
    assert!(ask(&lab.engine, address, 80).is_ok());
    let route = inside(&one.netns, || run("ip -6 route show default"));
    assert!(route.contains(&place.gateway.to_string()), "{route}");
}

#[test]
fn privileged_a_running_container_changes_its_networks() {
    let lab = Lab::new();
    inside(&lab.engine, || {
        let one = BridgeNetwork::ensure(&config("one")).unwrap();
        let two = BridgeConfig::new("cd".repeat(32).parse().unwrap(), "two", "br-two", "one");
        let two = BridgeNetwork::ensure(&two).unwrap();
        let member = container(&one);
        let wish = dory_net::EndpointConfig {
            interface: "eth1".into(),
            default_route: false,
            ..endpoint_config(&two)
        };
        let second = two.connect(member.netns.as_fd(), &wish).unwrap();
        let way = || inside(&member.netns, || run("ip route show default"));
        assert!(way().contains("eth0"), "{}", way());
        set_default_routes(member.netns.as_fd(), &[&second, &member.endpoint]).unwrap();
        assert!(way().contains("eth1"), "{}", way());
        disconnect(&second).unwrap();
        disconnect(&second).unwrap();
        assert_eq!(way(), "");
        set_default_routes(member.netns.as_fd(), &[&member.endpoint]).unwrap();
        assert!(way().contains("eth0"), "{}", way());
        set_default_routes(member.netns.as_fd(), &[]).unwrap();
        assert_eq!(way(), "");
    });
}
