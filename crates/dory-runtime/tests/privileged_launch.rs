//! Real containers through launcher, shim and init. Needs root and Debian's busybox-static.
//!
//! No test harness: the launcher re-executes this very binary in the shim's role, before any thread exists.

#![expect(
    clippy::unwrap_used,
    reason = "a test may end by panicking; without a harness clippy does not know it for one"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use dory_log::{LogConfig, LogDriver};
use dory_runtime::protocol::{self, Event};
use dory_runtime::spec::{
    ContainerSpec, DeviceKind, DeviceNode, ExecSpec, IdMapping, Mount, MountFlags, MountSource, Namespace,
    Namespaces, Process, Propagation, Rootfs, Stdio, UserNamespace,
};
use dory_runtime::{LaunchError, Launcher, ShimClient, Started};
use dory_types::ContainerId;

type Test = (&'static str, fn(&Launcher));

const TESTS: &[Test] = &[
    ("privileged_output_and_exit_code", output_and_exit_code),
    ("privileged_user_namespace", user_namespace),
    ("privileged_overlay_on_id_mapped_volume", overlay_on_id_mapped_volume),
    ("privileged_missing_program", missing_program),
    ("privileged_stdin_until_half_close", stdin_until_half_close),
    ("privileged_output_after_half_close", output_after_half_close),
    ("privileged_exec", exec),
    ("privileged_terminal", terminal),
    ("privileged_reaper", reaper),
    ("privileged_kill_and_large_output", kill_and_large_output),
    ("privileged_shim_killed", shim_killed),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.first().is_some_and(|name| name == dory_runtime::reaper::NAME) {
        return ExitCode::from(dory_runtime::reaper::main(&arguments[1..]) as u8);
    }
    if arguments.get(1).is_some_and(|role| role == dory_runtime::shim::ROLE) {
        return ExitCode::from(dory_runtime::shim::main() as u8);
    }
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let wanted = arguments.iter().skip(1).find(|argument| !argument.starts_with('-'));
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let launcher = Launcher::new().expect("a sealed copy of this binary");
    let mut passed = 0;
    for (name, test) in TESTS {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let begin = Instant::now();
        test(&launcher);
        passed += 1;
        println!("test {name} ... ok ({} ms)", begin.elapsed().as_millis());
    }
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

/// A container's directories below a temporary one.
struct Fixture {
    directory: tempfile::TempDir,
    spec: ContainerSpec,
}

impl Fixture {
    fn new(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        for name in ["layer/bin", "layer/etc", "layer/tmp", "upper", "work", "container", "run"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", path.join("layer/bin/busybox")).expect("Debian's busybox-static");
        for applet in [
            "sh", "cat", "echo", "id", "sleep", "stty", "hostname", "mount", "umount", "mkdir", "rm",
            "chown", "ps", "kill", "dd", "tty", "head",
        ] {
            std::os::unix::fs::symlink("busybox", path.join("layer/bin").join(applet)).unwrap();
        }
        fs::write(
            path.join("layer/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n",
        )
        .unwrap();
        let id = ContainerId::from_bytes(rand_bytes());
        let spec = spec(id, &path, args);
        Self { directory, spec }
    }

    fn user_namespace(mut self) -> Self {
        let map = vec![IdMapping { container_id: 0, host_id: 1_000_000, size: 65_536 }];
        self.spec.namespaces.user = UserNamespace::New { uid_mappings: map.clone(), gid_mappings: map };
        for name in ["upper", "work"] {
            rustix::fs::chown(
                self.directory.path().join(name),
                Some(rustix::fs::Uid::from_raw(1_000_000)),
                Some(rustix::fs::Gid::from_raw(1_000_000)),
            )
            .unwrap();
        }
        self
    }

    fn client(&self) -> ShimClient {
        ShimClient::new(self.directory.path().join("run"))
    }

    fn start(&self, launcher: &Launcher) -> Started {
        self.try_start(launcher).expect("the container starts")
    }

    fn try_start(&self, launcher: &Launcher) -> Result<Started, LaunchError<std::io::Error>> {
        launcher.start(self.spec.clone(), |_| Ok(Vec::new()), || ())
    }

    /// Starts with a client attached before the program runs; that client's stream.
    fn start_attached(&self, launcher: &Launcher) -> (Started, UnixStream) {
        let mut stream = None;
        let started = launcher
            .start::<std::io::Error>(self.spec.clone(), |_| Ok(Vec::new()), || stream = Some(self.client()))
            .expect("the container starts");
        drop(stream);
        let stream = self.client().attach(true, true, true).expect("attach");
        (started, stream)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("container/container.log")).unwrap()
    }
}

fn rand_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

fn spec(id: ContainerId, path: &Path, args: &[&str]) -> ContainerSpec {
    let filesystem = |destination: &str, kind: &str, options: &[&str]| Mount {
        destination: destination.into(),
        source: MountSource::Filesystem {
            kind: kind.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        },
        flags: MountFlags { nosuid: true, ..MountFlags::default() },
        propagation: Propagation::RecursivePrivate,
    };
    ContainerSpec {
        id,
        hostname: "inside".into(),
        domainname: String::new(),
        rootfs: Rootfs {
            lower: vec![path.join("layer")],
            upper: path.join("upper"),
            work: path.join("work"),
            readonly: false,
        },
        namespaces: Namespaces {
            user: UserNamespace::Host,
            pid: Namespace::New,
            network: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            cgroup: Namespace::New,
        },
        mounts: vec![
            filesystem("/proc", "proc", &[]),
            filesystem("/dev", "tmpfs", &["size=65536k", "mode=755"]),
            filesystem("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            filesystem("/sys", "sysfs", &[]),
            filesystem("/dev/shm", "tmpfs", &["mode=1777"]),
        ],
        devices: vec![DeviceNode {
            path: "/dev/null".into(),
            host_path: PathBuf::from("/dev/null"),
            kind: DeviceKind::Character,
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }],
        masked_paths: vec!["/proc/kcore".into(), "/proc/acpi".into(), "/sys/firmware".into()],
        readonly_paths: vec!["/proc/sys".into()],
        sysctls: Default::default(),
        process: process(args),
        init: false,
        stdio: Stdio::default(),
        cgroup: None,
        log: LogConfig { driver: LogDriver::JsonFile(Default::default()), ..Default::default() },
        directory: path.join("container"),
        runtime_directory: path.join("run"),
        guarded_socket: false,
        dies_with_parent: false,
    }
}

fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|argument| (*argument).to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: String::new(),
        additional_groups: Vec::new(),
        capabilities: vec!["CAP_CHOWN".into(), "CAP_KILL".into(), "CAP_SETUID".into(), "CAP_SETGID".into()],
        no_new_privileges: false,
        rlimits: Vec::new(),
        seccomp: None,
        apparmor: None,
        oom_score_adj: None,
    }
}

fn exit_code(started: &Started) -> i32 {
    loop {
        if let (Event::Exited(record), _) = protocol::receive(&started.monitor).expect("an exit event") {
            return record.exit_code;
        }
    }
}

fn output_and_exit_code(launcher: &Launcher) {
    let script = "echo out; echo err >&2; hostname; cat /proc/self/status | head -1; echo $$; exit 7";
    let fixture = Fixture::new(&["sh", "-c", script]);
    let started = fixture.start(launcher);
    assert_eq!(exit_code(&started), 7);
    let log = fixture.log();
    for line in
        ["\"out\\n\",\"stream\":\"stdout\"", "\"err\\n\",\"stream\":\"stderr\"", "\"inside\\n\"", "\"1\\n\""]
    {
        assert!(log.contains(line), "{line} in {log}");
    }
    assert!(fixture.directory.path().join("container/exit.json").exists());
}

fn user_namespace(launcher: &Launcher) {
    let script = "id -u; cat /proc/self/uid_map; echo x > /file; test -O /bin/busybox && echo owned; \
                  mount -t tmpfs none /tmp && echo mounted; echo $(cat /proc/sys/kernel/core_pattern >/dev/null && echo read)";
    let mut fixture = Fixture::new(&["sh", "-c", script]).user_namespace();
    fixture.spec.process.capabilities =
        dory_runtime::capability::names().iter().map(|name| (*name).to_owned()).collect();
    let started = fixture.start(launcher);
    assert_eq!(exit_code(&started), 0, "{}", fixture.log());
    let log = fixture.log();
    for line in ["\"0\\n\"", "1000000      65536", "owned", "mounted"] {
        assert!(log.contains(line), "{line} in {log}");
    }
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(fixture.directory.path().join("upper/file")).unwrap(),
    );
    assert_eq!(owner, 1_000_000);
}

/// What a nested engine needs: an overlay of its own whose layers lie on a volume that is id-mapped into the container.
fn overlay_on_id_mapped_volume(launcher: &Launcher) {
    let script = "cd /volume && mkdir l u w m && echo old > l/gone && echo low > l/kept && \
                  mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr m && \
                  rm m/gone && echo new > m/kept && mkdir m/sub && chown 5:6 m/sub && cat m/kept && test ! -e m/gone && \
                  umount m && mount -t proc proc /proc && mount -t tmpfs none /tmp && echo all";
    let mut fixture = Fixture::new(&["sh", "-c", script]).user_namespace();
    fixture.spec.process.capabilities =
        dory_runtime::capability::names().iter().map(|name| (*name).to_owned()).collect();
    fixture.spec.masked_paths.clear();
    fixture.spec.readonly_paths.clear();
    let volume = fixture.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fixture.spec.mounts.push(Mount {
        destination: "/volume".into(),
        source: MountSource::Bind {
            path: volume.clone(),
            subpath: String::new(),
            recursive: true,
            id_mapped: true,
        },
        flags: MountFlags::default(),
        propagation: Propagation::RecursivePrivate,
    });
    let started = fixture.start(launcher);
    assert_eq!(exit_code(&started), 0, "{}", fixture.log());
    assert!(fixture.log().contains("all"), "{}", fixture.log());
    // Root inside is root on disk, and 5:6 is 5:6.
    let owner = |path: &str| {
        let metadata = fs::metadata(volume.join(path)).unwrap();
        (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata))
    };
    assert_eq!((owner("u/kept"), owner("u/sub")), ((0, 0), (5, 6)));
}

fn missing_program(launcher: &Launcher) {
    for user in [false, true] {
        let fixture = Fixture::new(&["nope"]);
        let fixture = if user { fixture.user_namespace() } else { fixture };
        match fixture.try_start(launcher) {
            Err(LaunchError::Failed(failure)) => {
                assert_eq!(failure.message, "exec: \"nope\": executable file not found in $PATH");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn stdin_until_half_close(launcher: &Launcher) {
    let mut fixture = Fixture::new(&["sh", "-c", "cat; echo end"]);
    fixture.spec.stdio = Stdio { open_stdin: true, stdin_once: true, ..Stdio::default() };
    let (started, mut stream) = fixture.start_attached(launcher);
    let input = "x".repeat(300_000);
    let mut writer = stream.try_clone().unwrap();
    let text = input.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(text.as_bytes()).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut output = Vec::new();
    stream.read_to_end(&mut output).unwrap();
    thread.join().unwrap();
    let (mut text, mut rest) = (Vec::new(), output.as_slice());
    while rest.len() >= 8 {
        let length = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        text.extend_from_slice(&rest[8..8 + length]);
        rest = &rest[8 + length..];
    }
    assert_eq!(String::from_utf8(text).unwrap(), input + "end\n");
    assert_eq!(exit_code(&started), 0);
}

/// What `docker run` without `-i` does: it ends its side at once and reads on.
fn output_after_half_close(launcher: &Launcher) {
    let fixture =
        Fixture::new(&["sh", "-c", "for number in 1 2 3 4 5; do sleep 0.1; echo line $number; done"]);
    let started = fixture.start(launcher);
    let mut stream = fixture.client().attach(false, true, true).expect("attach");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut output = Vec::new();
    stream.read_to_end(&mut output).unwrap();
    let output = String::from_utf8_lossy(&output);
    assert!(output.contains("line 2") && output.contains("line 5"), "{output}");
    assert_eq!(exit_code(&started), 0);
}

fn exec(launcher: &Launcher) {
    for user in [false, true] {
        let fixture = Fixture::new(&["sleep", "100"]);
        let fixture = if user { fixture.user_namespace() } else { fixture };
        let started = fixture.start(launcher);
        let id = ContainerId::from_bytes(rand_bytes()).to_string().parse().unwrap();
        let spec = ExecSpec {
            id,
            process: Process { user: "user".into(), ..process(&["sh", "-c", "id -u; hostname; ps; exit 3"]) },
            stdio: Stdio::default(),
            attach_output: true,
            ends_with_caller: false,
        };
        let (_, mut stream) = fixture.client().exec(spec).expect("exec");
        let mut output = Vec::new();
        stream.read_to_end(&mut output).unwrap();
        let output = String::from_utf8_lossy(&output);
        assert!(output.contains("1000\n") && output.contains("inside\n"), "{output}");
        assert!(output.contains("1 root     sleep") || output.contains("sleep 100"), "{output}");
        match protocol::receive(&started.monitor).unwrap().0 {
            Event::ExecExited { exit_code, .. } => assert_eq!(exit_code, 3),
            other => panic!("{other:?}"),
        }
        fixture.client().signal(None, 9).unwrap();
        assert_eq!(exit_code(&started), 137);
    }
}

fn terminal(launcher: &Launcher) {
    for user in [false, true] {
        let fixture = Fixture::new(&["sh", "-c", "tty; stty size; echo x > /dev/console; exit 4"]);
        let mut fixture = if user { fixture.user_namespace() } else { fixture };
        fixture.spec.stdio = Stdio {
            tty: true,
            open_stdin: true,
            console_size: Some(dory_runtime::spec::ConsoleSize { height: 33, width: 77 }),
            ..Stdio::default()
        };
        let started = fixture.start(launcher);
        assert_eq!(exit_code(&started), 4);
        let log = fixture.log();
        assert!(log.contains("/dev/pts/0") && log.contains("33 77"), "{log}");
    }
}

fn reaper(launcher: &Launcher) {
    let mut fixture = Fixture::new(&["sh", "-c", "echo pid $$; (sleep 0.1 &) ; sleep 0.3; ps; exit 5"]);
    fixture.spec.init = true;
    let started = fixture.start(launcher);
    assert_eq!(exit_code(&started), 5);
    let log = fixture.log();
    assert!(log.contains("docker-init") && !log.contains("pid 1\\n"), "{log}");
}

fn kill_and_large_output(launcher: &Launcher) {
    let fixture = Fixture::new(&[
        "sh",
        "-c",
        "sleep 1; cat /bin/busybox /bin/busybox /bin/busybox; echo > /done; exec sleep 100",
    ]);
    let (started, mut stream) = fixture.start_attached(launcher);
    // Slow: nothing is read for a while, and the container must get through all the same.
    let done = fixture.directory.path().join("upper/done");
    while !done.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    fixture.client().signal(None, 15).unwrap();
    fixture.client().signal(None, 9).unwrap();
    assert_eq!(exit_code(&started), 137);
    let mut output = Vec::new();
    stream.read_to_end(&mut output).unwrap();
    let expected = 3 * fs::metadata("/bin/busybox").unwrap().len() as usize;
    assert!(output.len() > expected, "{} of {expected}", output.len());
}

fn shim_killed(launcher: &Launcher) {
    let fixture = Fixture::new(&["sleep", "100"]);
    let started = fixture.start(launcher);
    let status = fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let pid = rustix::process::Pid::from_raw(shim.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(protocol::receive::<Event>(&started.monitor).is_err(), "the connection ends without an event");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let gone = fs::read_to_string(format!("/proc/{}/status", started.pid));
    assert!(gone.is_err() || gone.unwrap().contains("State:\tZ"), "the container dies with its shim");
}
