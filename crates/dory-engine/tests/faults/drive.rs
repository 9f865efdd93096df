//! What engines do in this test: one container's life, a look at what is there, and its end.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use dory_engine::config::{ExecConfig, ExecStartConfig, HostConfig, PortBinding};
use dory_engine::{
    CommitOptions, Engine, EngineError, ErrorKind, ListOptions, NetworkCreate, RemoveOptions, Status,
    StopOptions, VolumeCreate, WaitCondition,
};
use tokio::io::AsyncReadExt;

use crate::fixture::{engine_at, remove_all, request, within, words};

/// The container that everything happens to.
const SUBJECT: &str = "subject";
/// The container that is there all the time, and that nothing may happen to.
pub const BYSTANDER: &str = "bystander";
/// A volume that is there while the subject is.
const VOLUME: &str = "kept";

/// A network that the subject is in for a while.
const NETWORK: &str = "second";
/// What the subject is committed to.
const IMAGE: &str = "committed:latest";

type Outcome = Result<(), EngineError>;

/// What this process is started as.
pub fn role(name: &str) -> Option<fn(&Path)> {
    Some(match name {
        "begin" => begin,
        "drive" => drive,
        "inspect" => inspect,
        "finish" => finish,
        "dismantle" => dismantle,
        _ => return None,
    })
}

/// Runs `work` on an engine that then ends without a word to anybody.
fn as_engine(directory: &Path, work: impl AsyncFnOnce(Engine)) {
    engine_at(directory, async |engine| {
        work(engine).await;
        // Deletion goes on behind everybody's back, but it must come to its end; and this one's end may come first.
        let trash = directory.join("data/trash");
        while std::fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_some()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        std::process::exit(0)
    })
}

/// One container's life; each step's name is printed before and after it.
fn drive(directory: &Path) {
    as_engine(directory, async |engine| {
        if let Err(error) = Box::pin(live(&engine)).await {
            // The shim or the container died of the plan. This engine goes on, and so can the container.
            println!("failed {error}");
            go_on(&engine).await;
            println!("went on");
        }
    });
}

async fn live(engine: &Engine) -> Outcome {
    step("volume create", create_volume(engine)).await?;
    step("create", create(engine)).await?;
    step("start", engine.start_container(SUBJECT)).await?;
    step("exec", exec(engine, false)).await?;
    step("exec -t", exec(engine, true)).await?;
    step("network create", create_network(engine)).await?;
    step("connect", engine.connect_network(NETWORK, SUBJECT, Default::default())).await?;
    step("disconnect", engine.disconnect_network(NETWORK, SUBJECT, false)).await?;
    step("network rm", engine.remove_network(NETWORK)).await?;
    step("commit", commit(engine)).await?;
    step("rmi", remove_image(engine)).await?;
    step("pause", engine.pause_container(SUBJECT)).await?;
    step("unpause", engine.unpause_container(SUBJECT)).await?;
    let now = StopOptions { timeout: Some(0), ..StopOptions::default() };
    step("stop", engine.stop_container(SUBJECT, now)).await?;
    step("cp", copy(engine)).await?;
    step("restart", engine.restart_container(SUBJECT, StopOptions::default())).await?;
    step("rename", engine.rename_container(SUBJECT, "renamed")).await?;
    step("rename back", engine.rename_container("renamed", SUBJECT)).await?;
    step("rm", remove(engine)).await?;
    step("run --rm", run_and_remove(engine)).await?;
    step("volume rm", engine.remove_volume(VOLUME, false)).await
}

async fn step(name: &str, work: impl Future<Output = Outcome>) -> Outcome {
    println!("begin {name}");
    within(Box::pin(work)).await?;
    println!("end {name}");
    Ok(())
}

async fn create_volume(engine: &Engine) -> Outcome {
    let request = VolumeCreate { name: VOLUME.into(), ..VolumeCreate::default() };
    engine.create_volume(request).await.map(drop)
}

async fn create_network(engine: &Engine) -> Outcome {
    let request = NetworkCreate { name: NETWORK.into(), ..NetworkCreate::default() };
    engine.create_network(request).await.map(drop)
}

async fn commit(engine: &Engine) -> Outcome {
    let options = CommitOptions {
        repository: "committed".into(),
        tag: "latest".into(),
        pause: true,
        ..CommitOptions::default()
    };
    engine.commit_container(SUBJECT, options).await.map(drop)
}

async fn remove_image(engine: &Engine) -> Outcome {
    engine.remove_image(IMAGE, true, false).await.map(drop)
}

async fn create(engine: &Engine) -> Outcome {
    let port = PortBinding { host_ip: "127.0.0.1".into(), host_port: String::new() };
    let host = HostConfig {
        network_mode: "bridge".into(),
        binds: vec![format!("{VOLUME}:/kept")].into(),
        port_bindings: [("80/tcp".to_owned(), vec![port].into())].into(),
        ..HostConfig::default()
    };
    let mut request = request(&["sleep", "1000"], host);
    request.name = Some(SUBJECT.into());
    engine.create_container(request).await.map(drop)
}

async fn exec(engine: &Engine, tty: bool) -> Outcome {
    let config =
        ExecConfig { cmd: words(&["echo", "hello"]), attach_stdout: true, tty, ..ExecConfig::default() };
    let exec = engine.create_exec(SUBJECT, config).await?;
    let Some(mut stream) = engine.start_exec(exec.as_str(), ExecStartConfig::default()).await? else {
        panic!("no stream")
    };
    let mut output = Vec::new();
    // Its end is all that counts here: a killed shim resets the stream.
    let _reset = stream.stream.read_to_end(&mut output).await;
    engine.wait_exec(exec.as_str()).await
}

/// Writes into the volume and the layer of the stopped subject, and looks at what is there.
async fn copy(engine: &Engine) -> Outcome {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_cksum();
    for path in ["kept/copied", "etc/copied"] {
        archive.append_data(&mut header, path, &b"copy\n"[..]).unwrap();
    }
    let archive = std::io::Cursor::new(archive.into_inner().unwrap());
    engine.write_container_archive(SUBJECT, "/", archive, Default::default()).await?;
    engine.stat_container_path(SUBJECT, "/kept/copied").await.map(drop)
}

async fn remove(engine: &Engine) -> Outcome {
    let options = RemoveOptions { force: true, volumes: true, link: false };
    engine.remove_container(SUBJECT, options).await
}

async fn run_and_remove(engine: &Engine) -> Outcome {
    let host = HostConfig { auto_remove: true, ..HostConfig::default() };
    let id = engine.create_container(request(&["true"], host)).await?.id;
    let gone = engine.wait_container(id.as_str(), WaitCondition::Removed).await?;
    engine.start_container(id.as_str()).await?;
    gone.outcome().await.map(drop)
}

/// Brings the subject to life, whatever became of it, and ends it. The volume, too.
async fn go_on(engine: &Engine) {
    within(create_volume(engine)).await.unwrap();
    match engine.resolve_container("renamed") {
        Ok(_) => within(engine.rename_container("renamed", SUBJECT)).await.unwrap(),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
    }
    if engine.resolve_container(SUBJECT).is_err() {
        within(create(engine)).await.unwrap();
    }
    let settled = async {
        // The end of a container whose shim died is told in its own time.
        while status(engine).await == Status::Removing {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if status(engine).await == Status::Paused {
            engine.unpause_container(SUBJECT).await.unwrap();
        }
        // Its death is told in its own time, too: until then it counts as running.
        while exec(engine, false).await.is_err() {
            match engine.start_container(SUBJECT).await {
                Err(error) if error.kind() != ErrorKind::NotModified => panic!("start: {error}"),
                _ => {}
            }
        }
    };
    within(settled).await;
    within(remove(engine)).await.unwrap();
    within(engine.remove_volume(VOLUME, true)).await.unwrap();
    for removed in [within(engine.remove_network(NETWORK)).await, within(remove_image(engine)).await] {
        // It may not have come so far.
        // The bridge itself goes behind everybody's back; the next engine would remove what this one's end leaves.
        while has_bridge() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(removed.is_ok() || removed.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    }
}

/// True where the bridge of a network that somebody made is there.
fn has_bridge() -> bool {
    let output = std::process::Command::new("ip").args(["-o", "link"]).output().expect("iproute2");
    String::from_utf8_lossy(&output.stdout).contains(" br-")
}

async fn status(engine: &Engine) -> Status {
    engine.inspect_container(SUBJECT, false).await.unwrap().state.status
}

/// Prints what a new engine finds: one line for each container and each volume.
fn inspect(directory: &Path) {
    as_engine(directory, async |engine| {
        let mut lines = within(async {
            loop {
                // What ended with `--rm` is being removed behind everybody's back.
                match containers(&engine).await {
                    Some(lines) => break lines,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        lines.sort();
        for volume in engine.list_volumes(&Default::default()).await.unwrap().volumes {
            lines.push(format!("found volume {}", volume.name));
        }
        println!("{}", lines.join("\n"));
    });
}

/// A line for each container; `None` while one is about to go.
async fn containers(engine: &Engine) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for summary in engine.list_containers(ListOptions { all: true, ..Default::default() }).await.unwrap() {
        let details = engine.inspect_container(summary.id.as_str(), false).await.ok()?;
        let ended = matches!(details.state.status, Status::Exited | Status::Removing);
        if ended && details.host_config.auto_remove {
            return None;
        }
        let mut line = format!(
            "found container {} {} {} {} code={}",
            details.id,
            details.name,
            details.state.status.as_str(),
            details.state.pid,
            details.state.exit_code
        );
        for (name, network) in &details.network_settings.networks {
            write!(line, " {name}={}", network.ip_address).unwrap();
        }
        write!(line, " {:?}", details.network_settings.ports).unwrap();
        lines.push(line);
    }
    Some(lines)
}

/// Goes on with what is there, and removes all of it but the bystander, the image and what engines keep.
fn finish(directory: &Path) {
    as_engine(directory, async |engine| {
        go_on(&engine).await;
        for summary in engine.list_containers(ListOptions { all: true, ..Default::default() }).await.unwrap()
        {
            if summary.names.iter().all(|name| name != &format!("/{BYSTANDER}")) {
                let options = RemoveOptions { force: true, volumes: true, link: false };
                within(engine.remove_container(summary.id.as_str(), options)).await.unwrap();
            }
        }
        let all: dory_engine::Filters = dory_engine::Filters::parse(r#"{"all":["true"]}"#).unwrap();
        within(engine.prune_volumes(&all)).await.unwrap();
    });
}

/// Makes the image and the bystander.
fn begin(directory: &Path) {
    as_engine(directory, async |engine| {
        let host = HostConfig { network_mode: "bridge".into(), ..HostConfig::default() };
        let mut request = request(&["sleep", "10000"], host);
        request.name = Some(BYSTANDER.into());
        within(engine.create_container(request)).await.unwrap();
        within(engine.start_container(BYSTANDER)).await.unwrap();
    });
}

/// Removes everything.
fn dismantle(directory: &Path) {
    as_engine(directory, async |engine| {
        remove_all(&engine).await;
        within(engine.dismantle()).await;
    });
}
