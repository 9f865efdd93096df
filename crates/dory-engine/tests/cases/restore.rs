//! An engine that opens after another one has died.

use std::time::Duration;

use dory_engine::config::{ExecConfig, HealthConfig, HostConfig, RestartPolicy};
use dory_engine::{Engine, ErrorKind, LogOptions, Status, StopOptions, WaitCondition};

use crate::fixture::{Fixture, logs, remove_all, request, within, words};

pub fn running() {
    let fixture = Fixture::new();
    let script = "i=0; while true; do echo line $i; i=$((i+1)); busybox usleep 20000; done";
    let id = fixture.engine(async |engine| {
        let host = HostConfig { network_mode: "bridge".into(), ..HostConfig::default() };
        let id = engine.create_container(request(&["sh", "-c", script], host)).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        let created = engine.create_container(request(&["true"], HostConfig::default())).await.unwrap().id;
        assert!(!engine.is_idle());
        (id, created)
    });
    std::thread::sleep(Duration::from_millis(300));
    let (id, created) = id;
    fixture.run(async |engine: &Engine| {
        let details = engine.inspect_container(id.as_str(), false).await.unwrap();
        assert_eq!(details.state.status, Status::Running);
        assert!(!details.network_settings.networks["bridge"].ip_address.is_empty());
        assert_eq!(
            engine.inspect_container(created.as_str(), false).await.unwrap().state.status,
            Status::Created
        );
        let options = StopOptions { timeout: Some(0), ..StopOptions::default() };
        within(engine.stop_container(id.as_str(), options)).await.unwrap();
        let text = logs(engine, id.as_str(), LogOptions::default()).await.stdout;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() > 5, "{text}");
        for (number, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("line {number}"));
        }
        remove_all(engine).await;
    });
}

pub fn ended() {
    let fixture = Fixture::new();
    let (kept, removed, restarted) = fixture.engine(async |engine| {
        let start = async |host: HostConfig| {
            let script = "busybox usleep 300000; exit 9";
            let id = engine.create_container(request(&["sh", "-c", script], host)).await.unwrap().id;
            engine.start_container(id.as_str()).await.unwrap();
            id
        };
        let restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
        (
            start(HostConfig::default()).await,
            start(HostConfig { auto_remove: true, ..HostConfig::default() }).await,
            start(HostConfig { restart_policy, ..HostConfig::default() }).await,
        )
    });
    std::thread::sleep(Duration::from_millis(800));
    fixture.run(async |engine: &Engine| {
        let state = engine.inspect_container(kept.as_str(), false).await.unwrap().state;
        assert_eq!((state.status, state.exit_code), (Status::Exited, 9));
        within(async {
            while engine.resolve_container(removed.as_str()).is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while engine.inspect_container(restarted.as_str(), false).await.unwrap().state.status
                != Status::Running
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        remove_all(engine).await;
    });
}

pub fn killed_shims() {
    let fixture = Fixture::new();
    let id = fixture.engine(async |engine: Engine| {
        let id = engine.create_container(request(&["sleep", "100"], HostConfig::default())).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        // Under a living engine, too.
        let other =
            engine.create_container(request(&["sleep", "100"], HostConfig::default())).await.unwrap().id;
        engine.start_container(other.as_str()).await.unwrap();
        let wait = engine.wait_container(other.as_str(), WaitCondition::NextExit).await.unwrap();
        kill_shim(other.as_str());
        assert_eq!(within(wait.outcome()).await.unwrap().exit_code, 137);
        id
    });
    kill_shim(id.as_str());
    fixture.run(async |engine: &Engine| {
        let state = engine.inspect_container(id.as_str(), false).await.unwrap().state;
        assert_eq!((state.status, state.exit_code), (Status::Exited, 137));
        remove_all(engine).await;
        assert_eq!(engine.resolve_container(id.as_str()).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// A check that is under way when the engine dies ends with it; the next engine checks on, and says what is true.
pub fn health() {
    let fixture = Fixture::new();
    let check = "while [ -e /hang ]; do busybox usleep 10000; done; [ -e /well ]";
    let hangs = || programs("while [ -e /hang ]").len();
    fixture.engine(async |engine: Engine| {
        let mut request = request(&["sleep", "1000"], HostConfig::default());
        request.name = Some("checked".into());
        request.config.healthcheck = Some(HealthConfig {
            test: vec!["CMD-SHELL".to_owned(), check.to_owned()].into(),
            interval: 20_000_000,
            retries: 1,
            ..Default::default()
        });
        engine.create_container(request).await.unwrap();
        engine.start_container("checked").await.unwrap();
        in_container(&engine, "echo >/well").await;
        health_becomes(&engine, "healthy").await;
        in_container(&engine, "echo >/hang").await;
        eventually(async || hangs() == 1).await;
    });
    fixture.run(async |engine: &Engine| {
        eventually(async || hangs() == 1).await;
        let details = engine.inspect_container("checked", false).await.unwrap();
        assert_eq!(details.state.health.unwrap().status, "healthy");
        in_container(engine, "busybox rm /well /hang").await;
        health_becomes(engine, "unhealthy").await;
        in_container(engine, "echo >/well").await;
        health_becomes(engine, "healthy").await;
        in_container(engine, "echo >/hang").await;
        eventually(async || hangs() == 1).await;
        let now = StopOptions { timeout: Some(0), ..StopOptions::default() };
        within(engine.stop_container("checked", now)).await.unwrap();
        eventually(async || hangs() == 0).await;
    });
}

/// A check ends with its engine even where no other engine comes.
pub fn health_without_engine() {
    let fixture = Fixture::new();
    let hangs = || programs("sleep 777").len();
    fixture.engine(async |engine: Engine| {
        let mut request = request(&["sleep", "1000"], HostConfig::default());
        request.config.healthcheck = Some(HealthConfig {
            test: vec!["CMD".to_owned(), "sleep".to_owned(), "777".to_owned()].into(),
            interval: 20_000_000,
            timeout: 600_000_000_000,
            ..Default::default()
        });
        let id = engine.create_container(request).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        eventually(async || hangs() == 1).await;
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while hangs() > 0 {
        assert!(std::time::Instant::now() < deadline, "the check outlives its engine");
        std::thread::sleep(Duration::from_millis(10));
    }
    fixture.run(async |_: &Engine| {});
}

/// Runs a shell script in the container that is checked, to its end.
async fn in_container(engine: &Engine, script: &str) {
    let config = ExecConfig { cmd: words(&["sh", "-c", script]), attach_stdout: true, ..Default::default() };
    let exec = engine.create_exec("checked", config).await.unwrap();
    let _output = engine.start_exec(exec.as_str(), Default::default()).await.unwrap();
    within(engine.wait_exec(exec.as_str())).await.unwrap();
}

async fn health_becomes(engine: &Engine, status: &str) {
    eventually(async || {
        let details = engine.inspect_container("checked", false).await.unwrap();
        details.state.health.is_some_and(|health| health.status == status)
    })
    .await;
}

async fn eventually(mut check: impl AsyncFnMut() -> bool) {
    within(async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The processes whose arguments contain `text`; this one's do not.
fn programs(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let arguments = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    arguments
        .map(|arguments| String::from_utf8_lossy(&arguments).replace('\0', " "))
        .filter(|arguments| arguments.contains(text))
        .collect()
}

/// Kills the shim of one container: the process whose arguments name it.
fn kill_shim(id: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.split(|byte| *byte == 0).any(|word| word == id.as_bytes()) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
}
