//! What a container sees, prints and leaves.

use std::time::{Duration, Instant};

use dory_engine::config::{ExecConfig, ExecStartConfig, HostConfig};
use dory_engine::{Engine, ErrorKind, LogOptions, RemoveOptions, WaitCondition};
use tokio::io::AsyncReadExt;

use crate::fixture::{Fixture, demultiplex, logs, request, run, run_created, within, words};

pub fn output_and_exit_code() {
    Fixture::new().run(async |engine: &Engine| {
        let script = "echo out; echo err >&2; exit 7";
        let id =
            engine.create_container(request(&["sh", "-c", script], HostConfig::default())).await.unwrap().id;
        for _ in 0..2 {
            let outcome = run_created(engine, id.as_str()).await;
            assert_eq!(
                (outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.exit_code),
                ("out\n", "err\n", 7)
            );
        }
        let logged = logs(engine, id.as_str(), LogOptions::default()).await;
        assert_eq!((logged.stdout.as_str(), logged.stderr.as_str()), ("out\nout\n", "err\nerr\n"));
        let last = logs(engine, id.as_str(), LogOptions { tail: Some(1), ..LogOptions::default() }).await;
        assert_eq!(last.stdout.len() + last.stderr.len(), 4);
        let details = engine.inspect_container(id.as_str(), true).await.unwrap();
        assert_eq!((details.state.status.as_str(), details.state.exit_code), ("exited", 7));
        assert!(details.size_root_fs.unwrap() > 100_000);
    });
}

pub fn start_failures() {
    Fixture::new().run(async |engine: &Engine| {
        let cases: [(&[&str], i32, &str); 3] = [
            (&["nope"], 127, "executable file not found in $PATH"),
            (&["/nope"], 127, "no such file or directory"),
            (&["/etc/plain"], 126, "permission denied"),
        ];
        for (command, code, text) in cases {
            let id = engine.create_container(request(command, HostConfig::default())).await.unwrap().id;
            let error = engine.start_container(id.as_str()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.message().contains(text), "{error}");
            let state = engine.inspect_container(id.as_str(), false).await.unwrap().state;
            assert_eq!((state.status.as_str(), state.exit_code), ("created", code));
            assert_eq!(state.error, error.message());
        }
        let host = HostConfig { auto_remove: true, ..HostConfig::default() };
        let id = engine.create_container(request(&["nope"], host)).await.unwrap().id;
        let wait = engine.wait_container(id.as_str(), WaitCondition::Removed).await.unwrap();
        engine.start_container(id.as_str()).await.unwrap_err();
        assert_eq!(within(wait.outcome()).await.unwrap().exit_code, 127);
        assert_eq!(engine.resolve_container(id.as_str()).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

pub fn looks_like_docker() {
    Fixture::new().run(async |engine: &Engine| {
        let script = "hostname; id -u; echo $FROM_IMAGE $HOME; ls -a / | busybox grep -x .dockerenv; \
                      busybox grep -c CapEff:.*a80425fb /proc/self/status; echo x > /proc/sys/kernel/hostname || true; \
                      busybox stat -c %a /dev/null; cat /etc/hosts";
        let request = request(&["sh", "-c", script], HostConfig::default());
        let id = engine.create_container(request).await.unwrap().id;
        let outcome = run_created(engine, id.as_str()).await;
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(&lines[..6], [id.short(), "0", "1 /root", ".dockerenv", "1", "666"], "{outcome:?}");
        assert!(outcome.stdout.contains("127.0.0.1\tlocalhost"));
        assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    });
}

pub fn volumes() {
    let fixture = Fixture::new();
    fixture.run(async |engine: &Engine| {
        // The image's volume is filled from the image, and kept until somebody takes it along.
        let host = HostConfig { binds: vec!["named:/data".to_owned()].into(), ..HostConfig::default() };
        let outcome =
            run(engine, request(&["sh", "-c", "cat /data/seed; echo more >> /data/seed"], host.clone()))
                .await;
        assert_eq!(outcome.stdout, "seed\n");
        let outcome = run(engine, request(&["cat", "/data/seed"], host)).await;
        assert_eq!(outcome.stdout, "seed\nmore\n");
        let id =
            engine.create_container(request(&["cat", "/data/seed"], HostConfig::default())).await.unwrap().id;
        assert_eq!(run_created(engine, id.as_str()).await.stdout, "seed\n");
        let all = engine.list_volumes(&Default::default()).await.unwrap().volumes;
        assert_eq!(all.len(), 2);
        let used = engine.remove_volume("named", false).await.unwrap_err();
        assert_eq!(used.kind(), ErrorKind::Conflict);
        let options = RemoveOptions { volumes: true, ..RemoveOptions::default() };
        engine.remove_container(id.as_str(), options).await.unwrap();
        assert_eq!(engine.list_volumes(&Default::default()).await.unwrap().volumes.len(), 1);

        let source = fixture.path().join("made/for/it");
        let binds = vec![format!("{}:/mnt/h:ro", source.display())];
        let host = HostConfig {
            binds: binds.into(),
            tmpfs: [("/scratch".to_owned(), "size=1m".to_owned())].into(),
            ..HostConfig::default()
        };
        let script = "echo x > /mnt/h/f; echo x > /scratch/f && cat /scratch/f";
        let outcome = run(engine, request(&["sh", "-c", script], host)).await;
        assert_eq!(outcome.stdout, "x\n");
        assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
        assert!(source.is_dir());
    });
}

pub fn exec() {
    Fixture::new().run(async |engine: &Engine| {
        let id = engine.create_container(request(&["sleep", "100"], HostConfig::default())).await.unwrap().id;
        let config = |command: &[&str]| ExecConfig {
            cmd: words(command),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecConfig::default()
        };
        let stopped = engine.create_exec(id.as_str(), config(&["true"])).await.unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Conflict);
        engine.start_container(id.as_str()).await.unwrap();
        let user = ExecConfig { user: "user".into(), ..config(&["sh", "-c", "id -u; exit 3"]) };
        let exec = engine.create_exec(id.as_str(), user).await.unwrap();
        let stream = engine.start_exec(exec.as_str(), ExecStartConfig::default()).await.unwrap().unwrap();
        let mut stream = stream.stream;
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(demultiplex(&bytes).stdout, "1000\n");
        let ended = async || {
            let details = engine.inspect_exec(exec.as_str()).await.unwrap();
            (!details.running).then_some(details.exit_code)
        };
        let code = within(async {
            loop {
                if let Some(code) = ended().await {
                    return code;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(code.await, Some(3));
        let nope = engine.create_exec(id.as_str(), config(&["nope"])).await.unwrap();
        let error = engine.start_exec(nope.as_str(), ExecStartConfig::default()).await.unwrap_err();
        assert!(error.message().contains("executable file not found in $PATH"), "{error}");
        let table = engine.top_container(id.as_str(), "").await.unwrap();
        assert_eq!(table.processes.len(), 1, "{table:?}");
        assert!(table.processes[0].last().unwrap().contains("sleep 100"));
    });
}

pub fn network() {
    Fixture::new().run(async |engine: &Engine| {
        let ports = [("8080/tcp".to_owned(), Some(vec![Default::default()]))].into();
        let host = HostConfig { network_mode: "bridge".into(), port_bindings: ports, ..HostConfig::default() };
        let command = ["sh", "-c", "echo hello > /tmp/index.html; busybox httpd -f -p 8080 -h /tmp"];
        let server = request(&command, HostConfig { tmpfs: [("/tmp".to_owned(), String::new())].into(), ..host });
        let server = engine.create_container(server).await.unwrap().id;
        engine.start_container(server.as_str()).await.unwrap();
        let details = engine.inspect_container(server.as_str(), false).await.unwrap();
        let endpoint = &details.network_settings.networks["bridge"];
        assert!(!endpoint.ip_address.is_empty() && !endpoint.gateway.is_empty());
        let published = details.network_settings.ports["8080/tcp"].as_ref().unwrap()[0].host_port.clone();
        // Another container reaches it by its address, and by the bridge's published port.
        for target in [format!("{}:8080", endpoint.ip_address), format!("{}:{published}", endpoint.gateway)] {
            let script = format!("for i in 1 2 3 4 5 6 7 8 9; do busybox wget -q -O - http://{target}/ && exit; busybox usleep 100000; done");
            let host = HostConfig { network_mode: "bridge".into(), ..HostConfig::default() };
            let outcome = run(engine, request(&["sh", "-c", &script], host)).await;
            assert_eq!(outcome.stdout, "hello\n", "{target}: {outcome:?}");
        }
        let joined = HostConfig { network_mode: format!("container:{server}"), ..HostConfig::default() };
        let outcome = run(engine, request(&["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"], joined)).await;
        assert_eq!(outcome.stdout, "hello\n", "{outcome:?}");
    });
}

/// Not a limit, only a number to look at: a loaded machine is slower.
pub fn speed() {
    Fixture::new().run(async |engine: &Engine| {
        let mut times = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            let host = HostConfig { auto_remove: true, ..HostConfig::default() };
            let mut request = request(&["true"], host);
            request.config.volumes = None;
            let id = engine.create_container(request).await.unwrap().id;
            let wait = engine.wait_container(id.as_str(), WaitCondition::Removed).await.unwrap();
            engine.start_container(id.as_str()).await.unwrap();
            within(wait.outcome()).await.unwrap();
            times.push(begin.elapsed());
        }
        times.sort();
        println!("create, start, wait and remove: {:?} median, {:?} best", times[10], times[0]);
    });
}
