//! What is kept of a container in its directory, and what inspect is made of.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dory_cgroup::Group;
use dory_net::{Endpoint, PortMapping, PublishTarget};
use dory_runtime::spec::UserNamespace;
use dory_types::{ContainerId, ContainerName, ImageId, NetworkId, Timestamp};
use serde::{Deserialize, Serialize};

use super::state::ContainerState;
use crate::config::{ContainerConfig, EndpointSettings, HostConfig};
use crate::mount::Point;

/// The record's file in the container's directory.
pub(crate) const RECORD_NAME: &str = "record.json";

/// One container. Versions are immutable and shared: readers take the `Arc`, a change makes a new one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) created: Timestamp,
    pub(crate) image: ImageId,
    /// Program and arguments: entry point and command together.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    /// Merged with the image's.
    pub(crate) config: Arc<ContainerConfig>,
    pub(crate) host_config: Arc<HostConfig>,
    /// The networks that it is in whenever it runs, by name, and what is wished of its endpoint in each. None where it
    /// shares another container's.
    pub(crate) endpoints: BTreeMap<String, EndpointSettings>,
    pub(crate) state: ContainerState,
    pub(crate) restart_count: u32,
    /// A stop or kill was asked for: no restart policy but `always` at the engine's start goes against that.
    pub(crate) stopped_by_user: bool,
    /// It is paused because it is being committed, and for no longer than that: an engine that finds it so thaws it.
    #[serde(default)]
    pub(crate) paused_for_commit: bool,
    pub(crate) points: Vec<Point>,
    /// Where the container's ids lie; fixed at creation, because its files belong to them.
    pub(crate) user_namespace: UserNamespace,
    pub(crate) log: dory_log::LogConfig,
    /// Marks what the container makes through its guarded socket ([`dory_types::OWNER_LABEL`]); a secret, made when it first
    /// needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard_owner: Option<String>,
    /// The present or the last run.
    pub(crate) run: Option<Run>,
}

/// What one run holds; released when it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) group: Group,
    /// Its places in networks, in the order in which they were taken.
    pub(crate) endpoints: Vec<RunEndpoint>,
    /// Names the network namespace in the API.
    pub(crate) sandbox_id: String,
    pub(crate) ports: Vec<PortMapping>,
    /// It has a guarded socket, and what that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<GuardedMount>,
    /// The endpoint to which the published ports lead.
    pub(crate) published_on: Option<PublishedOn>,
    /// What the surroundings refused and nobody asked for by name.
    pub(crate) facts: Vec<String>,
}

/// How a container has its guarded socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardedMount {
    /// Every mount of it is read-only, which its policy follows.
    pub(crate) read_only: bool,
}

/// A place in a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunEndpoint {
    /// The network's name.
    pub(crate) name: String,
    pub(crate) network: NetworkId,
    /// Names the endpoint in the API; 64 hexadecimal digits.
    pub(crate) endpoint_id: String,
    /// Taken from the network's subnets; none in networks that give no interface.
    pub(crate) addresses: Vec<IpAddr>,
    /// The interface, once it was made.
    pub(crate) endpoint: Option<Endpoint>,
}

/// To which endpoint published ports lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedOn {
    pub(crate) network: NetworkId,
    pub(crate) target: PublishTarget,
}

impl Record {
    /// True while a process of it runs, frozen or not.
    pub(crate) fn runs(&self) -> bool {
        self.state.running && !self.state.restarting
    }

    /// The present run; `None` where none is under way.
    pub(crate) fn present_run(&self) -> Option<&Run> {
        self.run.as_ref().filter(|_| self.state.running)
    }

    /// Attributes of this container's events: image, name and labels.
    pub(crate) fn event_attributes(&self) -> std::collections::BTreeMap<String, String> {
        let mut attributes = self.config.labels.clone();
        attributes.insert("image".to_owned(), self.config.image.clone());
        attributes.insert("name".to_owned(), self.name.as_str().to_owned());
        attributes
    }
}
