//! Groups on the machine's real hierarchies, beneath parents of the tests' own. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dory_cgroup::{Controller, Delegation, DeviceRule, Group, Hierarchies, Manager, Mode, Resources};
use dory_types::ContainerId;
use rustix::process::Pid;

const MEGABYTE: i64 = 1 << 20;

/// A manager with a parent of its own, removed at the end.
struct Fixture {
    manager: Manager,
    parent: String,
    groups: Vec<Group>,
    children: Vec<Child>,
}

#[expect(clippy::unwrap_used, reason = "a test that cannot set up its fixture must fail")]
impl Fixture {
    fn new(name: &str) -> Self {
        let parent = format!("dory-test-{name}-{}", std::process::id());
        let hierarchies = Hierarchies::detect().unwrap();
        assert_ne!(hierarchies.mode(), Mode::None, "these tests need a writable hierarchy");
        Self {
            manager: Manager::new(hierarchies, &parent).unwrap(),
            parent,
            groups: Vec::new(),
            children: Vec::new(),
        }
    }

    fn create(&mut self, resources: &Resources, delegation: Delegation) -> Group {
        let id = ContainerId::from_bytes([u8::try_from(self.groups.len()).unwrap(); 32]);
        let (group, refusals) = self.manager.create(&id, None, resources, delegation).unwrap();
        assert!(refusals.is_empty(), "{refusals:#?}");
        assert!(!group.is_none());
        self.groups.push(group.clone());
        group
    }

    /// Runs a shell script that starts once its standard input closes, after it has joined.
    fn spawn(&mut self, group: &Group, script: &str) -> Pid {
        let script = format!("read line; {script}");
        let mut child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        group.join(pid).unwrap();
        drop(child.stdin.take());
        self.children.push(child);
        pid
    }

    fn wait(&mut self, pid: Pid) -> std::process::ExitStatus {
        let child = self.children.iter_mut().find(|child| Pid::from_child(child) == pid).unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for group in &self.groups {
            let _ = group.kill_all();
            let removed = group.remove();
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:#?}");
        }
        let leaves = self.groups.iter().flat_map(Group::leaf_directories);
        let parents: BTreeSet<PathBuf> = leaves
            .filter_map(|(leaf, _)| {
                leaf.ancestors().find(|path| path.ends_with(&self.parent)).map(Path::to_owned)
            })
            .collect();
        for parent in parents {
            let removed = fs::remove_dir(&parent);
            assert!(removed.is_ok() || std::thread::panicking(), "{parent:?}: {removed:?}");
        }
    }
}

#[expect(clippy::unwrap_used, reason = "a test without the controller must fail")]
fn controls(group: &Group, controller: Controller) -> PathBuf {
    let v1 = group.leaf_directories().find(|(_, controllers)| controllers.contains(&controller));
    v1.or_else(|| group.leaf_directories().find(|(_, controllers)| controllers.is_empty())).unwrap().0
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn privileged_limits_are_in_force() {
    let mut fixture = Fixture::new("limits");
    let resources = Resources {
        memory: Some(32 * MEGABYTE),
        memory_swap: Some(32 * MEGABYTE),
        pids_limit: Some(7),
        nano_cpus: Some(500_000_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        ..Resources::default()
    };
    let group = fixture.create(&resources, Delegation::None);
    let usage = group.usage();
    assert_eq!(usage.memory.unwrap().limit, Some(32 << 20));
    assert_eq!(usage.pids.unwrap().limit, Some(7));

    // A shell variable of 100 MB does not fit.
    let hog =
        fixture.spawn(&group, "exec head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null; exit 3");
    fixture.wait(hog);
    eventually("a kill for want of memory", || group.oom_kills() > 0);

    assert!(
        group
            .update(&Resources {
                memory: Some(64 * MEGABYTE),
                memory_swap: Some(64 * MEGABYTE),
                ..Resources::default()
            })
            .is_empty()
    );
    assert_eq!(group.usage().memory.unwrap().limit, Some(64 << 20));
    assert!(
        group
            .update(&Resources {
                memory: Some(16 * MEGABYTE),
                memory_swap: Some(16 * MEGABYTE),
                ..Resources::default()
            })
            .is_empty()
    );
    assert_eq!(group.usage().memory.unwrap().limit, Some(16 << 20));

    let refusals = group.update(&Resources { cpuset_cpus: Some("4000".to_owned()), ..Resources::default() });
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].requested && refusals[0].what == "cpuset_cpus", "{refusals:?}");
}

#[test]
fn privileged_fork_bomb_meets_the_pids_limit() {
    let mut fixture = Fixture::new("pids");
    let group = fixture.create(&Resources { pids_limit: Some(5), ..Resources::default() }, Delegation::None);
    let pid = fixture.spawn(&group, "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; wait");
    eventually("the limit", || {
        group.usage().pids.unwrap().current == 5 || group.processes().unwrap().is_empty()
    });
    group.kill_all().unwrap();
    fixture.wait(pid);
}

#[test]
fn privileged_freeze_stops_and_kill_reaches_the_frozen() {
    let mut fixture = Fixture::new("freeze");
    let group = fixture.create(&Resources::default(), Delegation::None);
    let pid = fixture.spawn(&group, "while :; do :; done");
    let time = || group.usage().cpu.unwrap().total;
    eventually("work", || time() > 0);

    group.freeze().unwrap();
    let before = time();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(time(), before);
    group.thaw().unwrap();
    eventually("more work", || time() > before);

    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert_eq!(fixture.wait(pid).signal(), Some(9));
    eventually("an empty group", || group.processes().unwrap().is_empty());
}

#[test]
fn privileged_delegated_leaf_cannot_lift_its_limits() {
    const ROOT: u32 = 123_456;
    let mut fixture = Fixture::new("delegate");
    let resources = Resources { pids_limit: Some(20), memory: Some(64 * MEGABYTE), ..Resources::default() };
    let group = fixture.create(&resources, Delegation::To { uid: ROOT, gid: ROOT });
    let pids = controls(&group, Controller::Pids);
    assert_eq!(fs::read_to_string(pids.join("pids.max")).unwrap().trim(), "20", "the leaf repeats the limit");
    let narrower = Resources { cpuset_cpus: Some("0".to_owned()), ..Resources::default() };
    assert_eq!(group.update(&narrower), [], "a leaf does not keep its parent's cpuset from shrinking");

    let script = format!(
        "exec setpriv --reuid {ROOT} --regid {ROOT} --clear-groups /bin/sh -c '
            cd {pids} || exit 1
            echo max >pids.max && exit 2
            echo max >../pids.max && exit 3
            echo 0 >../cgroup.procs && exit 4
            mkdir inner || exit 5
            echo 0 >inner/cgroup.procs || exit 6
            exit 0' 2>/dev/null",
        pids = pids.display(),
    );
    let pid = fixture.spawn(&group, &script);
    assert_eq!(fixture.wait(pid).code(), Some(0));
    assert!(pids.join("inner").is_dir());
}

#[test]
fn privileged_exec_joins_where_init_is() {
    let mut fixture = Fixture::new("exec");
    let group = fixture.create(&Resources::default(), Delegation::To { uid: 0, gid: 0 });
    let leaves: Vec<PathBuf> = group.leaf_directories().map(|(directory, _)| directory).collect();
    // What Docker's dind script does, in every tree.
    let moves: String = leaves
        .iter()
        .map(|leaf| {
            let leaf = leaf.display();
            format!(
                "mkdir {leaf}/init; for i in cpus mems; do [ ! -e {leaf}/cpuset.$i ] || cat {leaf}/cpuset.$i >{leaf}/init/cpuset.$i 2>/dev/null; done; \
                 echo $$ >{leaf}/init/cgroup.procs; \
                 [ ! -e {leaf}/cgroup.subtree_control ] || sed 's/ / +/g; s/^/+/' <{leaf}/cgroup.controllers >{leaf}/cgroup.subtree_control 2>/dev/null; "
            )
        })
        .collect();
    let init = fixture.spawn(&group, &format!("{moves} exec sleep 60"));
    let groups_of = |pid: Pid| fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    eventually("the move", || groups_of(init).matches("/init\n").count() >= leaves.len());

    let mut command = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&command);
    let joined = group.join_for_exec(init, pid);
    let groups = groups_of(pid);
    command.kill().unwrap();
    command.wait().unwrap();
    joined.unwrap();
    assert!(groups.matches("/init\n").count() >= leaves.len(), "{groups}");
    group.kill_all().unwrap();
    fixture.wait(init);
}

#[test]
fn privileged_devices_are_denied() {
    let mut fixture = Fixture::new("devices");
    let resources = Resources { devices: Some(DeviceRule::docker_defaults()), ..Resources::default() };
    let group = fixture.create(&resources, Delegation::To { uid: 0, gid: 0 });
    let node = std::env::temp_dir().join(format!("dory-test-kmsg-{}", std::process::id()));
    let script = format!(
        "echo >/dev/null || exit 1; head -c1 /dev/zero >/dev/null || exit 2; head -c1 /dev/kmsg 2>/dev/null && exit 3
         mknod {node} c 1 11 || exit 4; head -c1 {node} 2>/dev/null && exit 5; exit 0",
        node = node.display()
    );
    let pid = fixture.spawn(&group, &script);
    let status = fixture.wait(pid);
    let _ = fs::remove_file(&node);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn privileged_sweep_spares_the_living_and_the_populated() {
    let mut fixture = Fixture::new("sweep");
    let groups: Vec<Group> =
        (0..3).map(|_| fixture.create(&Resources::default(), Delegation::None)).collect();
    fixture.spawn(&groups[1], "sleep 60");
    let live: BTreeSet<ContainerId> = [ContainerId::from_bytes([0; 32])].into();
    let errors = fixture.manager.sweep(&live);
    assert!(errors.is_empty(), "{errors:?}");
    let exists =
        |group: &Group| group.leaf_directories().all(|(directory, _)| Path::new(&directory).exists());
    assert_eq!(groups.iter().map(exists).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn privileged_group_survives_serialisation() {
    let mut fixture = Fixture::new("serial");
    let group = fixture.create(&Resources::default(), Delegation::None);
    let text = serde_json::to_string(&group).unwrap();
    assert_eq!(serde_json::from_str::<Group>(&text).unwrap(), group);
    let has_v2 = fixture.manager.hierarchies().mode() != Mode::V1;
    assert_eq!(group.entrance().unwrap().v2().is_some(), has_v2);
}

/// On v1 each thread can be in a group of its own, so a thread stands in for a single-threaded process.
#[test]
fn privileged_entrance_moves_a_single_threaded_process() {
    let mut fixture = Fixture::new("entrance");
    let group = fixture.create(&Resources::default(), Delegation::None);
    let v1: Vec<PathBuf> = group
        .leaf_directories()
        .filter(|(_, controllers)| !controllers.is_empty())
        .map(|(directory, _)| directory)
        .collect();
    if v1.is_empty() {
        eprintln!("SKIP: this machine has no v1 hierarchy");
        return;
    }
    let entrance = group.entrance().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            entrance.enter_v1().unwrap();
            let own = rustix::thread::gettid().as_raw_nonzero().to_string();
            for directory in &v1 {
                let tasks = fs::read_to_string(directory.join("tasks")).unwrap();
                assert!(tasks.lines().any(|line| line == own), "{directory:?}: {tasks}");
            }
        });
    });
}

/// An engine in a container's user namespace, made root of a delegated leaf by the engine outside.
#[test]
fn privileged_nested_engine_limits_beneath_its_leaf() {
    const ROOT: u32 = 123_456;
    let mut fixture = Fixture::new("nested");
    let resources = Resources { pids_limit: Some(50), memory: Some(256 * MEGABYTE), ..Resources::default() };
    let group = fixture.create(&resources, Delegation::To { uid: ROOT, gid: ROOT });
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(ROOT), Some(ROOT)).unwrap();
    let program = directory.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();

    let output = directory.path().join("output");
    let script = format!(
        "cd {directory} && exec setpriv --reuid {ROOT} --regid {ROOT} --clear-groups \
         unshare --user --map-root-user --mount --cgroup \
         ./test --ignored --exact within_a_user_namespace >{output} 2>&1",
        directory = directory.path().display(),
        output = output.display(),
    );
    let pid = fixture.spawn(&group, &script);
    let status = fixture.wait(pid);
    let output = fs::read_to_string(output).unwrap_or_default();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

/// Run by the test above only.
#[test]
#[ignore = "half of another test"]
fn within_a_user_namespace() {
    let directory = std::env::current_dir().unwrap().join("cgroup");
    let seen = Hierarchies::detect().unwrap();
    assert!(seen.needs_fresh_mount(), "the outer mounts lie outside of this cgroup namespace: {seen:?}");
    let hierarchies = Hierarchies::mount_fresh(&directory).unwrap();
    let manager = Manager::new(hierarchies, "dory").unwrap();
    let resources = Resources {
        memory: Some(32 * MEGABYTE),
        pids_limit: Some(5),
        cpuset_cpus: Some("0".to_owned()),
        devices: Some(DeviceRule::docker_defaults()),
        ..Resources::default()
    };
    let id = ContainerId::from_bytes([7; 32]);
    // One id is all that this namespace has: its containers' root is its own.
    let (group, refusals) = manager.create(&id, None, &resources, Delegation::To { uid: 0, gid: 0 }).unwrap();
    assert_eq!(
        refusals.iter().map(|refusal| refusal.what.as_str()).collect::<Vec<_>>(),
        ["devices"],
        "{refusals:?}"
    );
    assert!(!refusals[0].requested);
    assert_eq!(group.usage().pids.unwrap().limit, Some(5));
    assert_eq!(group.usage().memory.unwrap().limit, Some(32 << 20));

    let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&child);
    group.join(pid).unwrap();
    assert_eq!(group.processes().unwrap(), [pid]);
    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    group.remove().unwrap();
}
