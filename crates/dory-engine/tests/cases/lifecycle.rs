//! States and what leads from one to another.

use std::time::{Duration, Instant};

use dory_engine::config::{HostConfig, RestartPolicy, UpdateConfig};
use dory_engine::{
    Engine, ErrorKind, EventOptions, Filters, ListOptions, RemoveOptions, Status, StopOptions, WaitCondition,
};

use crate::fixture::{Fixture, request, run, within};

const TRAP: &str = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.05; done";

async fn status(engine: &Engine, id: &str) -> Status {
    engine.inspect_container(id, false).await.unwrap().state.status
}

pub fn stop_and_kill() {
    Fixture::new().run(async |engine: &Engine| {
        let id =
            engine.create_container(request(&["sh", "-c", TRAP], HostConfig::default())).await.unwrap().id;
        let id = id.as_str();
        let stopped = engine.stop_container(id, StopOptions::default()).await.unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::NotModified);
        engine.start_container(id).await.unwrap();
        assert_eq!(engine.start_container(id).await.unwrap_err().kind(), ErrorKind::NotModified);
        tokio::time::sleep(Duration::from_millis(200)).await;
        within(engine.stop_container(id, StopOptions::default())).await.unwrap();
        assert_eq!(engine.inspect_container(id, false).await.unwrap().state.exit_code, 5);

        // pid 1 without a handler takes no SIGTERM.
        let deaf =
            engine.create_container(request(&["sleep", "100"], HostConfig::default())).await.unwrap().id;
        engine.start_container(deaf.as_str()).await.unwrap();
        let begin = Instant::now();
        let options = StopOptions { timeout: Some(1), ..StopOptions::default() };
        within(engine.stop_container(deaf.as_str(), options)).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(engine.inspect_container(deaf.as_str(), false).await.unwrap().state.exit_code, 137);

        engine.start_container(id).await.unwrap();
        let wait = engine.wait_container(id, WaitCondition::NotRunning).await.unwrap();
        engine.kill_container(id, Some("KILL")).await.unwrap();
        assert_eq!(within(wait.outcome()).await.unwrap().exit_code, 137);
        assert_eq!(engine.kill_container(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(engine.kill_container(id, Some("FOO")).await.unwrap_err().kind(), ErrorKind::Invalid);
    });
}

pub fn pause_and_limits() {
    Fixture::new().run(async |engine: &Engine| {
        let host = HostConfig { memory: 64 << 20, pids_limit: Some(20), ..HostConfig::default() };
        let id = engine.create_container(request(&["sleep", "100"], host)).await.unwrap().id;
        let id = id.as_str();
        engine.start_container(id).await.unwrap();
        engine.pause_container(id).await.unwrap();
        assert_eq!(status(engine, id).await, Status::Paused);
        assert_eq!(engine.pause_container(id).await.unwrap_err().kind(), ErrorKind::Conflict);
        engine.unpause_container(id).await.unwrap();
        assert_eq!(status(engine, id).await, Status::Running);
        let update = UpdateConfig { memory: 32 << 20, memory_swap: 64 << 20, ..UpdateConfig::default() };
        engine.update_container(id, update).await.unwrap();
        assert_eq!(engine.inspect_container(id, false).await.unwrap().host_config.memory, 32 << 20);
        // A frozen container can still be killed.
        engine.pause_container(id).await.unwrap();
        within(engine.kill_container(id, None)).await.unwrap();
        assert_eq!(status(engine, id).await, Status::Exited);

        let host = HostConfig { memory: 16 << 20, memory_swap: 16 << 20, ..HostConfig::default() };
        let eater = request(&["sh", "-c", "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"], host);
        let id = engine.create_container(eater).await.unwrap().id;
        let wait = engine.wait_container(id.as_str(), WaitCondition::NextExit).await.unwrap();
        engine.start_container(id.as_str()).await.unwrap();
        assert_eq!(within(wait.outcome()).await.unwrap().exit_code, 137);
        assert!(engine.inspect_container(id.as_str(), false).await.unwrap().state.oom_killed);
    });
}

pub fn names_and_removal() {
    Fixture::new().run(async |engine: &Engine| {
        let mut named = request(&["sleep", "100"], HostConfig::default());
        named.name = Some("/one".into());
        let id = engine.create_container(named.clone()).await.unwrap().id;
        let taken = engine.create_container(named).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Conflict);
        assert_eq!(
            taken.message(),
            format!(
                "Conflict. The container name \"/one\" is already in use by container \"{id}\". You have to remove \
                 (or rename) that container to be able to reuse that name."
            )
        );
        for reference in ["one", "/one", id.as_str(), id.short()] {
            assert_eq!(engine.resolve_container(reference).unwrap(), id);
        }
        engine.rename_container("one", "two").await.unwrap();
        assert!(engine.resolve_container("one").is_err());
        engine.start_container("two").await.unwrap();
        let running = engine.remove_container("two", RemoveOptions::default()).await.unwrap_err();
        assert_eq!(running.kind(), ErrorKind::Conflict);
        let filters = Filters::parse(r#"{"name":["two"],"status":["running"]}"#).unwrap();
        let listed = engine.list_containers(ListOptions { filters, ..ListOptions::default() }).await.unwrap();
        assert_eq!((listed.len(), listed[0].names[0].as_str()), (1, "/two"));
        let options = RemoveOptions { force: true, volumes: true, link: false };
        within(engine.remove_container("two", options)).await.unwrap();
        assert!(engine.resolve_container("two").is_err());
        let missing = engine.create_container(dory_engine::CreateContainer {
            config: dory_engine::config::ContainerConfig { image: "nope".into(), ..Default::default() },
            ..Default::default()
        });
        assert_eq!(missing.await.unwrap_err().message(), "No such image: nope:latest");
    });
}

pub fn automatic_removal() {
    Fixture::new().run(async |engine: &Engine| {
        let host = HostConfig { auto_remove: true, ..HostConfig::default() };
        let id = engine.create_container(request(&["false"], host.clone())).await.unwrap().id;
        let wait = engine.wait_container(id.as_str(), WaitCondition::Removed).await.unwrap();
        engine.start_container(id.as_str()).await.unwrap();
        assert_eq!(within(wait.outcome()).await.unwrap().exit_code, 1);
        assert!(engine.resolve_container(id.as_str()).is_err());
        assert!(engine.list_volumes(&Default::default()).await.unwrap().volumes.is_empty());
        // Also where a stop holds the container meanwhile.
        let id = engine.create_container(request(&["sleep", "100"], host)).await.unwrap().id;
        let wait = engine.wait_container(id.as_str(), WaitCondition::Removed).await.unwrap();
        engine.start_container(id.as_str()).await.unwrap();
        let options = StopOptions { timeout: Some(0), ..StopOptions::default() };
        within(engine.stop_container(id.as_str(), options)).await.unwrap();
        within(wait.outcome()).await.unwrap();
    });
}

pub fn restart_policy() {
    Fixture::new().run(async |engine: &Engine| {
        let restart_policy = RestartPolicy { name: "on-failure".into(), maximum_retry_count: 2 };
        let host = HostConfig { restart_policy, ..HostConfig::default() };
        let id = engine.create_container(request(&["false"], host)).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        within(async {
            loop {
                let details = engine.inspect_container(id.as_str(), false).await.unwrap();
                if details.restart_count == 2 && details.state.status == Status::Exited {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
        let host = HostConfig { restart_policy, ..HostConfig::default() };
        let id = engine.create_container(request(&["true"], host)).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        within(engine.stop_container(id.as_str(), StopOptions::default())).await.unwrap();
        let count = engine.inspect_container(id.as_str(), false).await.unwrap().restart_count;
        assert!(count >= 1);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let details = engine.inspect_container(id.as_str(), false).await.unwrap();
        assert_eq!((details.state.status, details.restart_count), (Status::Exited, count));
    });
}

pub fn events_in_order() {
    Fixture::new().run(async |engine: &Engine| {
        let mut events = engine.subscribe_events(EventOptions::default()).unwrap();
        let host = HostConfig { network_mode: "bridge".into(), auto_remove: true, ..HostConfig::default() };
        let mut request = request(&["true"], host);
        request.config.image = "box".into();
        run(engine, request).await;
        let mut actions = Vec::new();
        while actions.last().is_none_or(|last| last != "container destroy") {
            let event = within(events.next()).await.unwrap();
            actions.push(format!("{} {}", event.kind, event.action));
        }
        let expected = [
            "volume create",
            "container create",
            "container attach",
            "network connect",
            "volume mount",
            "container start",
            "container die",
            "network disconnect",
            "volume unmount",
        ];
        assert_eq!(&actions[..9], expected, "{actions:?}");
    });
}

pub fn health() {
    Fixture::new().run(async |engine: &Engine| {
        let mut events = engine.subscribe_events(EventOptions::default()).unwrap();
        let mut request = request(&["sleep", "100"], HostConfig::default());
        let check = "busybox test -e /tmp/sick && echo sick && exit 1; echo well";
        request.host_config.tmpfs = [("/tmp".to_owned(), String::new())].into();
        request.config.healthcheck = Some(dory_engine::config::HealthConfig {
            test: vec!["CMD-SHELL".to_owned(), check.to_owned()].into(),
            interval: 50_000_000,
            retries: 2,
            ..Default::default()
        });
        let id = engine.create_container(request).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        let mut wait_for = async |status: &str| {
            while within(events.next()).await.unwrap().action != format!("health_status: {status}") {}
            engine.inspect_container(id.as_str(), false).await.unwrap().state.health.unwrap()
        };
        let health = wait_for("healthy").await;
        assert_eq!((health.status.as_str(), health.log[0].output.as_str()), ("healthy", "well\n"));
        let config = dory_engine::config::ExecConfig {
            cmd: crate::fixture::words(&["sh", "-c", "echo > /tmp/sick"]),
            ..Default::default()
        };
        let exec = engine.create_exec(id.as_str(), config).await.unwrap();
        engine.start_exec(exec.as_str(), Default::default()).await.unwrap();
        let health = wait_for("unhealthy").await;
        assert!(health.failing_streak >= 2 && health.log.last().unwrap().output == "sick\n", "{health:?}");
    });
}
