//! The process of an exec, as the container's spec would have it.

use dory_runtime::spec::{Process, Rootfs};

use super::object::Container;
use crate::Result;
use crate::config::ExecConfig;
use crate::engine::Inner;
use crate::spec::namespace::Modes;
use crate::spec::{Joined, SpecInput, process};

impl Inner {
    /// What `exec` runs in `container`.
    pub(crate) fn exec_process(&self, container: &Container, exec: &ExecConfig) -> Result<Process> {
        let record = container.record();
        let modes = Modes::parse(&record.host_config)?;
        let own_name = record.name.as_str();
        // One that went away meanwhile has nothing to tell any more.
        let links = self.links(&record).unwrap_or_default();
        let linked_env: Vec<String> = links.iter().flat_map(|link| link.environment(own_name)).collect();
        let input = SpecInput {
            id: &container.id,
            config: &record.config,
            host_config: &record.host_config,
            facts: &self.facts,
            default_profile: &self.default_profile,
            path: &record.path,
            args: &record.args,
            hostname: &record.config.hostname,
            linked_env: &linked_env,
            user_namespace: &record.user_namespace,
            modes: &modes,
            joined: Joined::default(),
            rootfs: Rootfs {
                lower: Vec::new(),
                upper: Default::default(),
                work: Default::default(),
                readonly: false,
            },
            devices: Vec::new(),
            points: &[],
            files: Vec::new(),
            shared_memory: None,
            shm_size: 0,
            shared_store: None,
            guarded_socket: false,
            cgroup: None,
            log: record.log.clone(),
            directory: container.directory.clone(),
            runtime_directory: container.runtime_directory.clone(),
        };
        process::exec(&input, exec)
    }
}
