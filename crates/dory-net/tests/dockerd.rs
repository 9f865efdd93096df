//! A bridge network beside a real dockerd in the same network namespace (Debian's package docker.io).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{ENGINE, Lab, OUTSIDE, ask, config, container, inside, namespace, ping, run, serve, subnet};
use dory_net::{BridgeNetwork, PortAllocator, PortRequest, Protocol};

/// A dockerd with a root of its own, which ends with the value.
struct Dockerd(Child);

impl Dockerd {
    /// Starts one in the thread's network namespace and waits until it serves.
    fn start(root: &Path) -> Self {
        let path = |name: &str| root.join(name).display().to_string();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--host", &format!("unix://{}", path("socket")), "--storage-driver", "vfs"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(root.join("log")).unwrap())
            .spawn()
            .unwrap();
        let dockerd = Self(child);
        for _ in 0..200 {
            let mut ping = Command::new("docker");
            ping.args(["--host", &format!("unix://{}", path("socket")), "version"]);
            if ping.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success() {
                return dockerd;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", std::fs::read_to_string(root.join("log")).unwrap());
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // dockerd stops its containerd on SIGTERM only.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn privileged_a_network_beside_a_dockerd_works_and_leaves_its_containers_alone() {
    let lab = Lab::new();
    let root = tempfile::tempdir().unwrap();
    let docker = |command: &str| run(&format!("docker -H unix://{}/socket {command}", root.path().display()));
    inside(&lab.engine, || {
        let _dockerd = Dockerd::start(root.path());
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        assert_eq!(subnet(&network), "172.18.0.0/16", "dockerd has the first");
        let ours = container(&network);
        inside(&ours.netns, || assert!(ping(OUTSIDE), "in spite of dockerd's FORWARD policy"));

        // As a container of dockerd's.
        let theirs = namespace();
        run(&format!(
            "ip link add theirs type veth peer name eth0 netns /proc/{}/fd/{} && ip link set theirs up master docker0",
            std::process::id(),
            theirs.as_raw_fd()
        ));
        inside(&theirs, || {
            run(
                "ip addr add 172.17.0.9/16 dev eth0 && ip link set eth0 up && ip route add default via 172.17.0.1",
            )
        });
        let address = Ipv4Addr::new(172, 17, 0, 9);
        let _serving = serve(&theirs, address, 80, 9);
        assert!(ask(&lab.engine, address, 80).is_ok());
        assert!(ask(&ours.netns, address, 80).is_err(), "its ports are not ours");
        let _serving = serve(&ours.netns, ours.address(), 80, 9);
        assert!(ask(&theirs, ours.address(), 80).is_err(), "nor ours its");
        let request = PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            also_ipv6: false,
            host_ports: Some(8080..=8080),
        };
        let ports = PortAllocator::new();
        let _published = network.publish(&ports, common::target(ours.address()), &[request]).unwrap();
        assert!(ask(&lab.outside, ENGINE, 8080).is_ok());
        assert!(ask(&theirs, ENGINE, 8080).is_ok(), "what is published is for all");

        // dockerd goes on reading and writing its tables with our rules among them.
        docker("network create another");
        docker("network rm another");
        inside(&ours.netns, || assert!(ping(OUTSIDE)));
        network.remove().unwrap();
        assert!(!run("iptables -S").contains("dory"));
    });
}
