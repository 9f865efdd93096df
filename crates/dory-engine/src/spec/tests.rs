use dory_runtime::spec::{IdMapping, Mount, MountSource};

use super::*;
use crate::config::json;

fn spec(host: &str) -> ContainerSpec {
    let host: HostConfig = json::from_slice(host.as_bytes()).unwrap();
    let points: Vec<Point> = host.binds.iter().map(|bind| crate::mount::parse_bind(bind).unwrap()).collect();
    let id = "a".repeat(64).parse().unwrap();
    let modes = Modes::parse(&host).unwrap();
    let mapping = vec![IdMapping { container_id: 0, host_id: 0x7000_0000, size: 65536 }];
    let user = match host.privileged {
        true => UserNamespace::New { uid_mappings: mapping.clone(), gid_mappings: mapping },
        false => UserNamespace::Host,
    };
    let config = ContainerConfig::default();
    build(SpecInput {
        id: &id,
        config: &config,
        host_config: &host,
        facts: &HostFacts::read(),
        default_profile: &DefaultProfile::detect(),
        path: "sh",
        args: &[],
        hostname: "box",
        linked_env: &[],
        user_namespace: &user,
        modes: &modes,
        joined: Joined::default(),
        rootfs: Rootfs { lower: Vec::new(), upper: "/u".into(), work: "/w".into(), readonly: false },
        devices: Vec::new(),
        points: &points,
        files: vec![("/etc/hosts", PathBuf::from("/c/hosts"))],
        shared_memory: None,
        shm_size: 64 << 20,
        shared_store: None,
        guarded_socket: false,
        cgroup: Some(Group::none()),
        log: dory_log::LogConfig::default(),
        directory: "/c".into(),
        runtime_directory: "/r".into(),
    })
    .unwrap()
}

fn find<'a>(spec: &'a ContainerSpec, destination: &str) -> Option<&'a Mount> {
    spec.mounts.iter().find(|mount| mount.destination == destination)
}

#[test]
fn ordinary_containers_look_as_with_docker() {
    let spec = spec("{}");
    let order: Vec<&str> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(
        order,
        ["/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue", "/dev/shm", "/etc/hosts", "/sys/fs/cgroup"]
    );
    assert!(
        find(&spec, "/sys").unwrap().flags.readonly && find(&spec, "/sys/fs/cgroup").unwrap().flags.readonly
    );
    assert!(spec.process.seccomp.is_some());
    assert_eq!(spec.process.args, ["sh"]);
    assert_eq!(spec.sysctls.get("net.ipv4.ip_unprivileged_port_start").map(String::as_str), Some("0"));
    assert_eq!(spec.namespaces.network, Namespace::New);
}

#[test]
fn confined_privilege_stays_in_its_user_namespace() {
    let spec = spec(r#"{"Privileged":true,"Binds":["/h:/mnt/h"]}"#);
    assert!(spec.namespaces.user.is_new());
    assert_eq!(spec.process.capabilities.len(), HostFacts::read().all_capabilities.len());
    assert!(spec.process.seccomp.is_none() && spec.process.apparmor.is_none());
    assert!(
        !find(&spec, "/sys").unwrap().flags.readonly
            && !find(&spec, "/sys/fs/cgroup").unwrap().flags.readonly
    );
    assert!(matches!(find(&spec, "/mnt/h").unwrap().source, MountSource::Bind { id_mapped: true, .. }));
    assert!(spec.masked_paths.is_empty() && spec.readonly_paths.is_empty());
}

#[test]
fn modes_share_namespaces_and_mounts() {
    let spec = spec(r#"{"NetworkMode":"host","IpcMode":"none","PidMode":"host","UTSMode":"host"}"#);
    assert_eq!((spec.namespaces.network, spec.namespaces.pid), (Namespace::Host, Namespace::Host));
    assert!(find(&spec, "/dev/shm").is_none());
    assert!(spec.hostname.is_empty() && spec.sysctls.is_empty());
    let confined = self::spec(r#"{"NetworkMode":"host","Privileged":true}"#);
    assert!(matches!(find(&confined, "/sys").unwrap().source, MountSource::Bind { .. }));
}

#[test]
fn own_mounts_replace_default_ones() {
    let spec = spec(r#"{"Binds":["/h:/dev/shm:ro","/z:/a/b/c"],"Tmpfs":{"/tmp":"size=1m"}}"#);
    let shm: Vec<&Mount> = spec.mounts.iter().filter(|mount| mount.destination == "/dev/shm").collect();
    assert!(matches!(shm.as_slice(), [mount] if mount.flags.readonly));
    assert_eq!(spec.mounts.last().unwrap().destination, "/a/b/c");
    assert!(find(&spec, "/tmp").unwrap().flags.noexec);
    let dev = self::spec(r#"{"Binds":["/h:/dev"]}"#);
    assert!(find(&dev, "/dev/pts").is_none() && find(&dev, "/dev").is_some());
}
