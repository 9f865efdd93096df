//! Requests through presets: numbers are those of the catalogue of attacks in docs/gateway.md.

use serde_json::json;

use super::*;
use crate::facts::{Kind, Mounted, PathMeaning, Resolution};
use crate::policy::BindRoot;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn identity() -> Identity {
    Identity {
        owner: "secret".into(),
        socket: Some("/run/session.sock".into()),
        in_container: false,
        binds: Vec::new(),
    }
}

fn facts() -> Facts {
    let mut facts = Facts::default();
    let mut name = |kind, name: &str, meaning| facts.names.insert((kind, name.to_owned()), meaning);
    name(Kind::Container, "mine", Resolution::Own(ID.into()));
    name(Kind::Container, "theirs", Resolution::Foreign);
    name(Kind::Container, "gone", Resolution::Absent);
    name(Kind::Network, "mynet", Resolution::Own("netid".into()));
    name(Kind::Network, "theirnet", Resolution::Foreign);
    name(Kind::Network, "corp", Resolution::Shared { id: "corpid".into(), name: "corp".into() });
    name(Kind::Volume, "myvol", Resolution::Own("myvol".into()));
    name(Kind::Volume, "theirvol", Resolution::Foreign);
    name(Kind::Volume, "newvol", Resolution::Absent);
    let shared = || Resolution::Shared { id: "sha256:1".into(), name: "busybox:latest".into() };
    name(Kind::Image, "busybox", shared());
    name(Kind::Image, "busybox:latest", shared());
    name(Kind::Image, "own:1", Resolution::Own("sha256:2".into()));
    name(Kind::Image, "theirs:1", Resolution::Foreign);
    name(Kind::Image, "new:1", Resolution::Absent);
    name(Kind::Image, "alpine:latest", Resolution::Absent);
    name(Kind::Exec, "e1", Resolution::Own("e1".into()));
    name(Kind::Exec, "e2", Resolution::Foreign);
    for kind in [Kind::Container, Kind::Network, Kind::Volume] {
        facts.counts.insert(kind, 1);
    }
    for (path, meaning) in [
        ("/", PathMeaning::Host("/".into())),
        ("/work/app", PathMeaning::Host("/work/app".into())),
        ("/work/link", PathMeaning::Host("/etc".into())),
        ("/workplace", PathMeaning::Host("/workplace".into())),
        ("/ro/x", PathMeaning::Host("/ro/x".into())),
        (
            "/inside",
            PathMeaning::Mine {
                mounted: Mounted::Bind("/host/inside".into()),
                subpath: "part".into(),
                read_only: true,
            },
        ),
        (
            "/data",
            PathMeaning::Mine {
                mounted: Mounted::Volume("data".into()),
                subpath: "".into(),
                read_only: false,
            },
        ),
        ("/var/run/docker.sock", PathMeaning::Socket),
        ("/missing", PathMeaning::Missing),
    ] {
        facts.paths.insert(path.to_owned(), meaning);
    }
    facts
}

fn policy(name: &str) -> Policy {
    let mut policy = Policy::preset(name).unwrap();
    policy.binds.allow = vec![
        BindRoot { source: "/work".into(), read_only: false },
        BindRoot { source: "/ro".into(), read_only: true },
    ];
    policy
}

fn ask(policy: &Policy, method: &str, target: &str, body: &[u8]) -> Result<Verdict, RequestError> {
    let request = Request::read(Raw { method, target, body, registry_auth: None })?;
    Ok(policy.judge(&request, &identity(), &facts()))
}

fn create(policy: &Policy, body: &Value) -> Verdict {
    let mut body = body.clone();
    body.as_object_mut().unwrap().entry("Image").or_insert("busybox".into());
    ask(policy, "POST", "/v1.41/containers/create?name=x", body.to_string().as_bytes()).unwrap()
}

/// The body that is sent on.
fn sent(verdict: Verdict) -> (Value, Vec<&'static str>) {
    match verdict {
        Verdict::Permit(permitted) => {
            let rules = permitted.changes.iter().map(|change| change.rule).collect();
            (serde_json::from_slice(permitted.body().unwrap()).unwrap(), rules)
        }
        other => panic!("not permitted: {other:?}"),
    }
}

fn refused(verdict: Verdict) -> (u16, &'static str) {
    match verdict {
        Verdict::Refuse(refusal) => (refusal.status, refusal.rule),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_plain_container_is_marked_and_limited() {
    let (body, changes) =
        sent(create(&policy("ci"), &json!({"Cmd": "true", "Unknown": 1, "Labels": {"a": "b"}})));
    assert_eq!(body["Image"], "sha256:1");
    assert_eq!(body["Cmd"], json!(["true"]));
    assert_eq!(body["Labels"], json!({"a": "b", OWNER_LABEL: "secret", crate::IMAGE_LABEL: "busybox"}));
    assert_eq!(body["HostConfig"]["Memory"], 4_i64 << 30);
    assert_eq!(body["HostConfig"]["PidsLimit"], 4096);
    assert!(body.get("Unknown").is_none() && changes.is_empty());
}

#[test]
fn nothing_of_the_host_is_given() {
    let ci = policy("ci");
    for (number, host, rule) in [
        (33, json!({"Privileged": true}), "containers.privileged"),
        (34, json!({"CapAdd": ["SYS_ADMIN"]}), "containers.capabilities"),
        (34, json!({"CapAdd": ["cap_sys_admin"]}), "containers.capabilities"),
        (34, json!({"CapAdd": ["ALL"]}), "containers.capabilities"),
        (35, json!({"SecurityOpt": ["seccomp=unconfined"]}), "containers.security-options"),
        (35, json!({"SecurityOpt": ["apparmor:unconfined"]}), "containers.security-options"),
        (35, json!({"SecurityOpt": ["disable"]}), "containers.security-options"),
        (35, json!({"SecurityOpt": ["writable-cgroups"]}), "containers.security-options"),
        (35, json!({"MaskedPaths": []}), "containers.security-options"),
        (35, json!({"ReadonlyPaths": []}), "containers.security-options"),
        (36, json!({"PidMode": "host"}), "containers.host-namespaces"),
        (36, json!({"IpcMode": "host"}), "containers.host-namespaces"),
        (36, json!({"UTSMode": "host"}), "containers.host-namespaces"),
        (36, json!({"UsernsMode": "host"}), "containers.host-namespaces"),
        (36, json!({"CgroupnsMode": "host"}), "containers.host-namespaces"),
        (36, json!({"NetworkMode": "host"}), "containers.host-namespaces"),
        (37, json!({"PidMode": "container:theirs"}), "objects"),
        (37, json!({"IpcMode": "container:theirs"}), "objects"),
        (37, json!({"NetworkMode": "container:theirs"}), "objects"),
        (37, json!({"Cgroup": "container:theirs"}), "model"),
        (38, json!({"NetworkMode": "ns:/proc/1/ns/net"}), "model"),
        (38, json!({"NetworkMode": "theirnet"}), "objects"),
        (38, json!({"NetworkMode": "corp"}), "networks.join"),
        (39, json!({"Devices": [{"PathOnHost": "/dev/sda"}]}), "containers.devices"),
        (39, json!({"DeviceCgroupRules": ["b *:* rwm"]}), "containers.devices"),
        (
            39,
            json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["a"]}]}),
            "containers.device-requests",
        ),
        (39, json!({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 1}]}), "containers.devices"),
        (40, json!({"Runtime": "io.containerd.other"}), "containers.runtimes"),
        (40, json!({"Annotations": {"run.oci.handler": "x"}}), "containers.annotations"),
        (41, json!({"CgroupParent": "/system.slice"}), "containers.cgroup-parents"),
        (42, json!({"Sysctls": {"kernel.core_pattern": "|x"}}), "containers.sysctls"),
        (42, json!({"OomScoreAdj": -1000}), "containers.privileged"),
        (42, json!({"CpuRealtimeRuntime": 1}), "model"),
        (42, json!({"StorageOpt": {"size": "1T"}}), "model"),
        (44, json!({"LogConfig": {"Type": "syslog", "Config": {}}}), "containers.log-drivers"),
        (
            44,
            json!({"LogConfig": {"Type": "", "Config": {"splunk-capath": "/etc/shadow"}}}),
            "containers.log-options",
        ),
        (
            45,
            json!({"PortBindings": {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "22"}]}}),
            "networks.publish-ports",
        ),
        (45, json!({"PortBindings": {"1/tcp": [{"HostPort": "1-9000"}]}}), "networks.publish-ports"),
        (45, json!({"PublishAllPorts": true}), "networks.publish-addresses"),
        (46, json!({"Links": ["theirs:db"]}), "objects"),
        (49, json!({"Binds": ["/:/host"]}), "binds.allow"),
        (49, json!({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}), "binds.allow"),
        (49, json!({"VolumesFrom": ["theirs"]}), "objects"),
        (50, json!({"Mounts": [{"Type": "Bind", "Source": "/", "Target": "/host"}]}), "model"),
        (50, json!({"Mounts": [{"Type": "npipe", "Source": "/", "Target": "/host"}]}), "model"),
        (50, json!({"Mounts": [{"Source": "/", "Target": "/host"}]}), "model"),
        (51, json!({"Binds": ["/work/link:/x"]}), "binds.allow"),
        (51, json!({"Binds": ["/workplace:/x"]}), "binds.allow"),
        (53, json!({"Binds": ["/work/app:/x:rshared"]}), "binds.propagation"),
        (53, json!({"Binds": ["/missing:/x"]}), "binds.allow"),
        (
            53,
            json!({"Mounts": [{"Type": "bind", "Source": "/work/app", "Target": "/x", "BindOptions": {"Propagation": "shared"}}]}),
            "binds.propagation",
        ),
        (
            54,
            json!({"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}}}]}),
            "volumes.options",
        ),
        (54, json!({"VolumeDriver": "strange"}), "volumes.drivers"),
        (55, json!({"Binds": ["theirvol:/x"]}), "objects"),
        (55, json!({"Mounts": [{"Type": "volume", "Source": "theirvol", "Target": "/x"}]}), "objects"),
        (
            55,
            json!({"Mounts": [{"Type": "volume", "Source": "myvol", "Target": "/x", "VolumeOptions": {"Subpath": "../.."}}]}),
            "model",
        ),
        (56, json!({"Mounts": [{"Type": "image", "Source": "theirs:1", "Target": "/x"}]}), "objects"),
    ] {
        let (_, found) = refused(create(&ci, &json!({ "HostConfig": host.clone() })));
        assert_eq!(found, rule, "{number}: {host}");
    }
}

#[test]
fn joining_by_the_keys_of_endpoints_is_the_same() {
    for (name, rule) in
        [("host", "containers.host-namespaces"), ("theirnet", "objects"), ("corp", "networks.join")]
    {
        let body = json!({"NetworkingConfig": {"EndpointsConfig": {name: {}}}});
        assert_eq!(refused(create(&policy("ci"), &body)).1, rule);
    }
    let body = json!({
        "HostConfig": {"NetworkMode": "mynet"},
        "NetworkingConfig": {"EndpointsConfig": {"mynet": {"Aliases": ["db"], "IPAddress": "1.2.3.4"}}},
    });
    let (body, _) = sent(create(&policy("ci"), &body));
    assert_eq!(body["HostConfig"]["NetworkMode"], "netid");
    assert_eq!(body["NetworkingConfig"]["EndpointsConfig"], json!({"netid": {"Aliases": ["db"]}}));
}

#[test]
fn rules_change_what_they_say_they_change() {
    let host = json!({
        "Privileged": true, "Memory": 1_i64 << 40, "PidsLimit": -1, "NanoCpus": 64_000_000_000_i64, "MemorySwap": -1,
        "RestartPolicy": {"Name": "always"}, "OomKillDisable": true,
        "Binds": ["/var/run/docker.sock:/var/run/docker.sock:rw", "/ro/x:/x", "/inside:/y"],
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81/tcp": null},
    });
    let (body, changes) = sent(create(&policy("testcontainers"), &json!({ "HostConfig": host })));
    let host = &body["HostConfig"];
    assert!(host.get("Privileged").is_none() && host.get("RestartPolicy").is_none());
    assert_eq!((&host["Memory"], &host["PidsLimit"]), (&json!(4_i64 << 30), &json!(4096)));
    assert_eq!(host["NanoCpus"], 2_000_000_000_i64);
    assert_eq!(host["Binds"], json!(["/run/session.sock:/var/run/docker.sock:rw", "/ro/x:/x:ro"]));
    assert_eq!(host["PortBindings"]["80/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "8080"}]));
    for rule in [
        "containers.privileged",
        "limits.memory",
        "limits.pids",
        "limits.cpus",
        "containers.restart",
        "containers.socket",
        "binds.allow",
    ] {
        assert!(changes.contains(&rule), "{rule}: {changes:?}");
    }
}

#[test]
fn labels_of_ours_cannot_be_set() {
    for label in [OWNER_LABEL, "IO.Dory.Owner", "io.dory.anything"] {
        let body = json!({"Labels": {label: "x"}});
        assert_eq!(refused(create(&policy("ci"), &body)).1, "objects", "75: {label}");
        let labels = json!({label: "x"}).to_string();
        let target = format!("/build?labels={}", query::encode(&labels));
        assert_eq!(refused(ask(&policy("ci"), "POST", &target, b"").unwrap()).1, "objects");
    }
    let target = "/commit?container=mine&changes=LABEL%20IO.dory.owner%3Dx";
    assert_eq!(refused(ask(&policy("ci"), "POST", target, b"").unwrap()).1, "objects");
}

#[test]
fn json_that_readers_take_differently() {
    for (number, body) in [
        (24, "{\"Image\":\"busybox\",\"hostconfig\":{\"Privileged\":true}}"),
        (24, "{\"Image\":\"busybox\",\"HostConfig\":{\"privileged\":true}}"),
        (25, "{\"Image\":\"busybox\",\"Ho\u{17f}tConfig\":{\"Privileged\":true}}"),
        (25, "{\"Image\":\"busybox\",\"HostConfig\":{\"Networ\u{212a}Mode\":\"host\"}}"),
        (26, "{\"Image\":\"busybox\",\"HostConfig\":{\"Privileged\":true},\"HostConfig\":{}}"),
        (27, "{\"HostConfig\":{\"Mounts\":[],\"Mounts\":[]}}"),
        (29, "{\"Image\":\"busybox\"}}garbage"),
        (31, "{\"HostConfig\":{\"PidsLimit\":1e3}}"),
        (31, "{\"HostConfig\":{\"Memory\":\"1\"}}"),
        (31, "{\"HostConfig\":{\"Memory\":99999999999999999999}}"),
        (31, "{\"HostConfig\":{\"Binds\":[null]}}"),
    ] {
        assert!(
            ask(&policy("ci"), "POST", "/containers/create", body.as_bytes()).is_err(),
            "{number}: {body}"
        );
    }
    // 24: an escape is only another spelling, and is judged as what it means.
    let body = b"{\"Image\":\"busybox\",\"\\u0048ostConfig\":{\"Privileged\":true}}";
    let verdict = ask(&policy("ci"), "POST", "/containers/create", body).unwrap();
    assert_eq!(refused(verdict).1, "containers.privileged");
}

#[test]
fn paths_that_are_not_plain() {
    for (number, target) in [
        (10, "http://x/containers/create"),
        (10, "*"),
        (18, "/v0/containers/json"),
        (18, "/v1.24/containers/json"),
        (18, "/v1.45.99/containers/json"),
        (18, "/v.../containers/json"),
        (18, "/v1.041/containers/json"),
        (19, "//containers/json"),
        (19, "/./containers/json"),
        (19, "/containers/../info"),
        (19, "/containers/json/"),
        (20, "/containers%2Fjson"),
        (20, "/containers/%2e%2e/json"),
        (20, "/containers/mine%00/json"),
        (20, "/containers/mine%0a/json"),
        (20, "/containers/mine%252e/json"),
        (20, "/containers/mine;x/json"),
        (20, "/containers/%zz/json"),
        (21, "/containers/a/b/json"),
        (23, "/debug/pprof"),
        (23, "/system/df"),
        (65, "/images/get"),
        (66, "/images/search?term=x"),
        (66, "/distribution/x/json"),
        (69, "/grpc"),
        (71, "/plugins"),
        (72, "/swarm"),
        (73, "/libpod/containers/json"),
        (9, "/containers/mine/attach/ws"),
    ] {
        assert!(ask(&policy("unrestricted"), "GET", target, b"").is_err(), "{number}: {target}");
    }
    for method in ["get", "OPTIONS", "CONNECT", "PATCH"] {
        assert!(ask(&policy("unrestricted"), method, "/containers/json", b"").is_err(), "10: {method}");
    }
    for (method, target) in [
        ("POST", "/session"),
        ("POST", "/grpc"),
        ("POST", "/plugins/pull"),
        ("POST", "/swarm/init"),
        ("POST", "/auth"),
        ("POST", "/services/create"),
        ("POST", "/images/load"),
        ("POST", "/build/prune"),
        ("POST", "/containers/mine/checkpoints"),
    ] {
        assert!(ask(&policy("unrestricted"), method, target, b"").is_err(), "{target}");
    }
}

#[test]
fn queries_are_written_anew() {
    let target = |verdict| match verdict {
        Verdict::Permit(permitted) => permitted.target,
        other => panic!("{other:?}"),
    };
    let ci = policy("ci");
    let ask = |method, path| ask(&ci, method, path, b"");
    assert_eq!(
        target(ask("POST", "/v1.41/containers/mine/stop?t=3&evil=1").unwrap()),
        format!("/containers/{ID}/stop?t=3")
    );
    assert_eq!(
        target(ask("GET", "/containers/mine/archive?path=%2Fetc%2F..%2Fx%20y").unwrap()),
        format!("/containers/{ID}/archive?path=%2Fetc%2F..%2Fx%20y")
    );
    for (number, path) in [
        (16, "/images/create?fromImage=alpine&fromImage=evil"),
        (16, "/containers/mine/kill?signal=%zz"),
        (16, "/containers/mine/kill?signal=a;b=c"),
    ] {
        assert!(ask("POST", path).is_err(), "{number}: {path}");
    }
    assert_eq!(
        target(ask("POST", "/images/create?fromImage=alpine").unwrap()),
        "/images/create?fromImage=alpine&tag=latest",
        "without a tag every tag would be pulled"
    );
    for (number, path, rule) in [
        (48, "/containers/mine/start?checkpoint-dir=/etc", "model"),
        (66, "/images/create?fromSrc=http://169.254.169.254/", "model"),
        (64, "/images/own:1/tag?repo=busybox&tag=latest", "images.tag"),
        (64, "/images/own:1/tag?repo=theirs&tag=1", "images.tag"),
        (64, "/build?t=busybox", "images.tag"),
        (64, "/images/create?fromImage=theirs&tag=1", "images.pull"),
        (67, "/build?networkmode=host", "networks.join"),
        (67, "/build?networkmode=container:theirs", "networks.join"),
        (67, "/build?cgroupparent=/x", "model"),
        (67, "/build?remote=http://169.254.169.254/", "model"),
        (67, "/build?extrahosts=x", "model"),
        (67, "/build?dockerfile=../../etc/shadow", "model"),
        (68, "/build?version=2", "allow"),
        (62, "/containers/theirs/kill", "objects"),
        (62, "/containers/theirs/attach?stdin=1", "objects"),
        (62, "/containers/theirs/rename?name=x", "objects"),
        (60, "/exec/e2/start", "objects"),
        (63, "/commit?container=theirs", "objects"),
        (38, "/networks/theirnet/connect", "objects"),
    ] {
        assert_eq!(refused(ask("POST", path).unwrap()).1, rule, "{number}: {path}");
    }
}

#[test]
fn filters_are_narrowed_whatever_they_say() {
    for given in
        ["", "filters=%7B%22label%22%3A%5B%22a%22%5D%7D", "filters=%7B%22label%22%3A%7B%22a%22%3Atrue%7D%7D"]
    {
        for (method, path) in
            [("GET", "/containers/json"), ("POST", "/containers/prune"), ("POST", "/volumes/prune")]
        {
            let Ok(Verdict::Permit(permitted)) = ask(&policy("ci"), method, &format!("{path}?{given}"), b"")
            else {
                panic!("{path}")
            };
            let text = query::decode(permitted.target.split_once("filters=").unwrap().1, true).unwrap();
            assert!(text.contains("\"io.dory.owner=secret\":true"), "78: {text}");
            assert_eq!(text.contains("\"a\":true"), !given.is_empty(), "{text}");
        }
    }
    for wrong in ["x", "[]", "%7B%22a%22%3A1%7D", "%7B%22label%22%3A%5B%5D%2C%22label%22%3A%5B%5D%7D"] {
        let verdict = ask(&policy("ci"), "GET", &format!("/containers/json?filters={wrong}"), b"").unwrap();
        assert_eq!(refused(verdict).0, 400, "{wrong}");
    }
    assert!(ask(&policy("ci"), "GET", "/containers/json?filters=%7B%7D&filters=%7B%7D", b"").is_err());
}

#[test]
fn presets_differ_in_what_they_are_for() {
    let get = ("GET", "/containers/json", "");
    let create = ("POST", "/containers/create", "{\"Image\":\"busybox\"}");
    let build = ("POST", "/build?t=new:1", "");
    let privileged =
        ("POST", "/containers/create", "{\"Image\":\"busybox\",\"HostConfig\":{\"Privileged\":true}}");
    for (preset, expected) in [
        ("read-only", [true, false, false, false]),
        ("build-only", [false, false, true, false]),
        ("ci", [true, true, true, false]),
        ("testcontainers", [true, true, true, true]),
        ("dev", [true, true, true, false]),
        ("unrestricted", [true, true, true, true]),
    ] {
        for ((method, path, body), expected) in [get, create, build, privileged].into_iter().zip(expected) {
            let verdict = ask(&policy(preset), method, path, body.as_bytes()).unwrap();
            assert_eq!(matches!(verdict, Verdict::Permit(_)), expected, "{preset} {path} {verdict:?}");
        }
    }
}

#[test]
fn missing_facts_are_asked_for_together() {
    let request = Request::read(Raw {
        method: "POST",
        target: "/containers/create",
        body: br#"{"Image":"i","HostConfig":{"Binds":["/p:/x","v:/y"],"NetworkMode":"n"}}"#,
        registry_auth: None,
    })
    .unwrap();
    let Verdict::Needs(needs) = policy("ci").judge(&request, &identity(), &Facts::default()) else {
        panic!()
    };
    let name = |kind, name: &str| Need::Name(kind, name.to_owned());
    for need in [
        name(Kind::Image, "i"),
        name(Kind::Volume, "v"),
        name(Kind::Network, "n"),
        Need::Path("/p".into()),
        Need::Count(Kind::Container),
    ] {
        assert!(needs.contains(&need), "{need:?}");
    }
}

#[test]
fn quotas_count_what_is_there() {
    let mut policy = policy("ci");
    policy.limits.containers = Some(1);
    policy.limits.networks = Some(1);
    assert_eq!(refused(create(&policy, &json!({}))).1, "limits.containers");
    let verdict = ask(&policy, "POST", "/networks/create", b"{\"Name\":\"n\"}").unwrap();
    assert_eq!(refused(verdict).1, "limits.networks");
}

#[test]
fn networks_and_volumes_of_ones_own() {
    let ci = policy("ci");
    for (path, body, rule) in [
        ("/networks/create", json!({"Name": "n", "Driver": "macvlan"}), "networks.drivers"),
        ("/networks/create", json!({"Name": "n", "Scope": "swarm"}), "networks.drivers"),
        (
            "/networks/create",
            json!({"Name": "n", "IPAM": {"Config": [{"Subnet": "169.254.0.0/16"}]}}),
            "networks.subnets",
        ),
        (
            "/networks/create",
            json!({"Name": "n", "Options": {"com.docker.network.bridge.name": "eth0"}}),
            "networks.options",
        ),
        ("/networks/create", json!({"Name": "n", "ConfigOnly": true}), "model"),
        ("/networks/mynet/connect", json!({"Container": "theirs"}), "objects"),
        (
            "/volumes/create",
            json!({"Name": "v1", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}}),
            "volumes.options",
        ),
        ("/volumes/create", json!({"Name": "theirvol"}), "objects"),
        ("/containers/mine/exec", json!({"Cmd": ["sh"], "Privileged": true}), "containers.privileged"),
        ("/containers/mine/exec", json!({"Cmd": ["sh"], "WorkingDir": "/proc/self/fd/8"}), "model"),
        ("/containers/theirs/exec", json!({"Cmd": ["sh"]}), "objects"),
    ] {
        let request = Request::read(Raw {
            method: "POST",
            target: path,
            body: body.to_string().as_bytes(),
            registry_auth: None,
        })
        .unwrap();
        let mut facts = facts();
        facts.names.insert((Kind::Volume, "v1".into()), Resolution::Absent);
        assert_eq!(refused(ci.judge(&request, &identity(), &facts)).1, rule, "{path} {body}");
    }
    let (body, _) = sent(ask(&ci, "POST", "/volumes/create", b"{\"Name\":\"newvol\"}").unwrap());
    assert_eq!(body["Labels"][OWNER_LABEL], "secret");
}

#[test]
fn credentials_are_written_anew() {
    let read = |text: &str| {
        let raw = Raw {
            method: "POST",
            target: "/images/create?fromImage=a",
            body: b"",
            registry_auth: Some(text),
        };
        Request::read(raw).map(|request| request.registry_auth)
    };
    let good = URL_SAFE.encode(r#"{"username":"u","password":"p","x":1}"#);
    let bytes = URL_SAFE.decode(read(&good).unwrap().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), json!({"username": "u", "password": "p"}));
    for wrong in ["!", "bm90IGpzb24=", &URL_SAFE.encode(r#"{"username":"a","username":"b"}"#)] {
        assert!(read(wrong).is_err(), "17: {wrong}");
    }
}

#[test]
fn what_the_caller_has_mounted_goes_on_as_a_part_of_it() {
    let host = json!({
        "Binds": ["/inside:/y:rslave", "/data:/z"],
        "Mounts": [{"Type": "bind", "Source": "/inside", "Target": "/m", "BindOptions": {"Subpath": "../.."}}],
    });
    let (body, changes) = sent(create(&policy("ci"), &json!({ "HostConfig": host })));
    assert_eq!(body["HostConfig"]["Binds"], json!([]));
    let part = json!({"Subpath": "part"});
    assert_eq!(
        body["HostConfig"]["Mounts"],
        json!([
            {"Type": "bind", "Source": "/host/inside", "Target": "/m", "ReadOnly": true, "BindOptions": part},
            {"Type": "bind", "Source": "/host/inside", "Target": "/y", "ReadOnly": true, "BindOptions": part},
            {"Type": "volume", "Source": "data", "Target": "/z", "ReadOnly": false, "VolumeOptions": {"NoCopy": true}},
        ])
    );
    assert!(changes.contains(&"binds.allow"), "{changes:?}");
}

#[test]
fn a_container_is_listed_with_what_it_made() {
    let read = |identity: &Identity| {
        let raw = Raw { method: "GET", target: "/containers/json?limit=2", ..Raw::default() };
        match policy("dev").judge(&Request::read(raw).unwrap(), identity, &facts()) {
            Verdict::Permit(permitted) => (permitted.target().to_owned(), permitted.limit()),
            other => panic!("not permitted: {other:?}"),
        }
    };
    let (target, limit) = read(&identity());
    assert!(target.contains("secret") && target.contains("limit=2") && limit.is_none(), "{target}");
    let (target, limit) = read(&Identity { in_container: true, ..identity() });
    assert_eq!((target.as_str(), limit), ("/containers/json?all=1", Some(2)));
}
