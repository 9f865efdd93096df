//! What happens when the disk, its inodes or the descriptors are gone, and when there are some again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use dory_engine::config::{ExecConfig, ExecStartConfig, HostConfig};
use dory_engine::{Engine, ErrorKind, LogOptions, RemoveOptions, Status, StopOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;

use crate::fixture::{Fixture, config_at, logs, remove_all, request, run, within, words};

/// A container that writes its log all the time.
const TICKER: &str = "i=0; while true; do echo $i; i=$((i+1)); busybox usleep 5000; done";

pub fn full_disk() {
    scarce("size=16m", &|directory| {
        // Down to the last page: the error is that of the last write.
        for size in [1 << 20, 1 << 12] {
            let mut number = 0;
            while std::fs::write(directory.join(format!("{size}-{number}")), vec![0; size]).is_ok() {
                number += 1;
            }
        }
    });
}

pub fn no_inodes() {
    scarce("size=64m,nr_inodes=600", &|directory| {
        let mut number = 0;
        while std::fs::write(directory.join(number.to_string()), "").is_ok() {
            number += 1;
        }
    });
}

/// A file system that is mounted for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &str, place: PathBuf) -> Self {
        std::fs::create_dir(&place).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&place).status();
        assert!(mount.unwrap().success(), "this test needs CAP_SYS_ADMIN");
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Lives through a data-root that `fill` takes all room of.
fn scarce(options: &str, fill: &dyn Fn(&Path)) {
    let fixture = Fixture::new();
    let _mounted = Mounted::new(options, fixture.path().join("data"));
    let filler = fixture.path().join("data/filler");
    fixture.engine(async |engine| {
        for name in ["ticker", "kept", "removed"] {
            let mut request = request(&["sh", "-c", TICKER], HostConfig::default());
            request.name = Some(name.into());
            within(engine.create_container(request)).await.unwrap();
        }
        within(engine.start_container("ticker")).await.unwrap();
        std::fs::create_dir(&filler).unwrap();
        fill(&filler);
        let refused = within(engine.create_container(request(&["true"], HostConfig::default()))).await;
        assert_no_room(&refused.unwrap_err());
        assert_no_room(&within(engine.start_container("kept")).await.unwrap_err());
        assert_eq!(echo(&engine).await, "hello\n", "the running container goes on");
        within(engine.remove_container("removed", RemoveOptions::default())).await.unwrap();
        fill(&filler);
    });
    // Another engine opens without room, and takes nothing for gone that is there.
    fixture.engine(async |engine| {
        assert_eq!(status(&engine, "ticker").await, Status::Running);
        assert_eq!(status(&engine, "kept").await, Status::Created);
        assert_eq!(engine.resolve_container("removed").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(echo(&engine).await, "hello\n");
        let now = StopOptions { timeout: Some(0), ..StopOptions::default() };
        within(engine.stop_container("ticker", now)).await.unwrap();
    });
    fixture.engine(async |engine| {
        assert_eq!(status(&engine, "ticker").await, Status::Exited);
        std::fs::remove_dir_all(&filler).unwrap();
        let outcome = run(&engine, request(&["echo", "room"], HostConfig::default())).await;
        assert_eq!((outcome.stdout.as_str(), outcome.exit_code), ("room\n", 0));
        // What did not fit is missing; what is there is whole.
        for line in logs(&engine, "ticker", LogOptions::default()).await.stdout.lines() {
            line.parse::<u32>().expect("a whole line");
        }
        within(engine.start_container("kept")).await.unwrap();
        remove_all(&engine).await;
        within(engine.dismantle()).await;
    });
}

fn assert_no_room(error: &dory_engine::EngineError) {
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().to_lowercase().contains("no space left on device"), "{error}");
}

async fn status(engine: &Engine, name: &str) -> Status {
    engine.inspect_container(name, false).await.unwrap().state.status
}

/// What an exec in the ticker prints.
async fn echo(engine: &Engine) -> String {
    let config = ExecConfig {
        cmd: words(&["echo", "hello"]),
        attach_stdout: true,
        tty: true,
        ..ExecConfig::default()
    };
    let exec = engine.create_exec("ticker", config).await.unwrap();
    let mut stream =
        engine.start_exec(exec.as_str(), ExecStartConfig::default()).await.unwrap().unwrap().stream;
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap().replace('\r', "")
}

/// Containers that run while no descriptor is left.
const MANY: usize = 16;

pub fn no_descriptors() {
    let fixture = Fixture::new();
    let started = fixture.engine(async |engine| {
        let mut started = Vec::new();
        for _ in 0..MANY {
            let host = HostConfig::default();
            let id = engine.create_container(request(&["sleep", "1000"], host)).await.unwrap().id;
            within(engine.start_container(id.as_str())).await.unwrap();
            started.push(id);
        }
        let more =
            engine.create_container(request(&["sleep", "1000"], HostConfig::default())).await.unwrap().id;
        let error = {
            let _few = FewDescriptors::but(2);
            within(engine.start_container(more.as_str())).await.unwrap_err()
        };
        assert!(error.message().to_lowercase().contains("too many open files"), "{error}");
        within(engine.start_container(more.as_str())).await.unwrap();
        started.push(more);
        started
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opened = {
        // Enough to open the store, too few for all shims.
        let _few = FewDescriptors::but(MANY);
        runtime.block_on(async { within(Engine::open(config_at(fixture.path()))).await.map(drop) })
    };
    let error = opened.expect_err("whoever cannot reach a shim cannot say that its container ended");
    assert!(error.to_string().to_lowercase().contains("cannot tell whether"), "{error}");
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    fixture.run(async |engine: &Engine| {
        for id in &started {
            assert_eq!(status(engine, id.as_str()).await, Status::Running);
        }
    });
}

/// Hardly any descriptors, for as long as this lives.
struct FewDescriptors(Rlimit);

impl FewDescriptors {
    /// Leaves `count` numbers free: the lowest ones, which the kernel gives next.
    fn but(count: usize) -> Self {
        let open: BTreeSet<u64> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let last = (0_u64..).filter(|number| !open.contains(number)).nth(count - 1).unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(last + 1), ..before }).unwrap();
        Self(before)
    }
}

impl Drop for FewDescriptors {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}
