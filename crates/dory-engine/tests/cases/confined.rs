//! `--privileged` by default: everything inside, nothing outside.

use dory_engine::config::HostConfig;
use dory_engine::{Engine, ErrorKind};

use crate::fixture::{Fixture, request, run};

fn privileged() -> HostConfig {
    HostConfig { privileged: true, ..HostConfig::default() }
}

pub fn confined() {
    let fixture = Fixture::new();
    let shared = fixture.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    fixture.run(async |engine: &Engine| {
        let script = "id -u; busybox awk '{print $3}' /proc/self/uid_map; mount -t tmpfs none /dev/shm && echo mounted; \
                      echo own > /data/own; echo host > /shared/file; \
                      hostname renamed && echo renamed; \
                      for d in /sys/fs/cgroup /sys/fs/cgroup/*; do busybox mkdir $d/inner 2>/dev/null && echo delegated && break; done; \
                      echo b > /proc/sysrq-trigger; busybox test -e /dev/kmsg && echo kmsg; \
                      echo x > /proc/sys/kernel/core_pattern && echo pattern; true";
        let binds = vec![format!("{}:/shared", shared.display())].into();
        let host = HostConfig { binds, ..privileged() };
        let mut request = request(&["sh", "-c", script], host);
        request.config.hostname = "inside".into();
        let outcome = run(engine, request).await;
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines, ["0", "65536", "mounted", "renamed", "delegated"], "{outcome:?}");
        assert!(outcome.stderr.contains("core_pattern: Permission denied"), "{outcome:?}");
        // What root inside wrote through a bind is root's outside.
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(shared.join("file")).unwrap().uid(), 0);
    });
}

pub fn refusals() {
    Fixture::new().run(async |engine: &Engine| {
        let host = HostConfig { userns_mode: "host".into(), ..privileged() };
        let refused = engine.create_container(request(&["true"], host)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
        let script = "busybox test -e /dev/fuse && echo fuse; ls /dev | busybox grep -cE '^(sd|vd|nvme|mem|kmsg|port)'";
        let outcome = run(engine, request(&["sh", "-c", script], privileged())).await;
        assert_eq!(outcome.stdout.lines().last(), Some("0"), "{outcome:?}");
        // Two of them do not share ids.
        let map = ["busybox", "awk", "{print $2}", "/proc/self/uid_map"];
        let first = run(engine, request(&map, privileged())).await.stdout;
        let second = run(engine, request(&map, privileged())).await.stdout;
        assert_ne!(first, second);
    });
}
