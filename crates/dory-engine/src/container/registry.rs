//! Which containers there are, and how they are named.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dory_types::{ContainerId, ContainerName};

use super::object::Container;
use crate::{EngineError, Result};

/// All containers of the engine.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    containers: BTreeMap<ContainerId, Arc<Container>>,
    names: HashMap<ContainerName, ContainerId>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `name` for the container `id`.
    pub(crate) fn reserve(&self, name: &ContainerName, id: &ContainerId) -> Result<()> {
        let mut index = self.lock();
        match index.names.get(name) {
            Some(owner) if owner != id => Err(EngineError::conflict(format!(
                "Conflict. The container name \"{}\" is already in use by container \"{owner}\". You have to remove \
                 (or rename) that container to be able to reuse that name.",
                name.with_slash()
            ))),
            _ => {
                index.names.insert(name.clone(), id.clone());
                Ok(())
            }
        }
    }

    /// Gives `name` back, if the container `id` has it.
    pub(crate) fn release(&self, name: &ContainerName, id: &ContainerId) {
        let mut index = self.lock();
        if index.names.get(name) == Some(id) {
            index.names.remove(name);
        }
    }

    /// Adds a container whose name is reserved.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.lock().containers.insert(container.id.clone(), container);
    }

    /// Takes a container and its name out.
    pub(crate) fn remove(&self, id: &ContainerId) {
        let mut index = self.lock();
        index.containers.remove(id);
        index.names.retain(|_, owner| owner != id);
    }

    /// All containers, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.lock().containers.values().cloned().collect()
    }

    /// The container that `reference` means: full id, name, or the start of one id only, in this order as dockerd has
    /// it.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>> {
        let missing = || EngineError::not_found(format!("No such container: {reference}"));
        if reference.is_empty() {
            return Err(EngineError::invalid("No container name or ID supplied"));
        }
        let index = self.lock();
        if let Ok(id) = reference.parse::<ContainerId>()
            && let Some(container) = index.containers.get(&id)
        {
            return Ok(Arc::clone(container));
        }
        if let Ok(name) = reference.parse::<ContainerName>()
            && let Some(container) = index.names.get(&name).and_then(|id| index.containers.get(id))
        {
            return Ok(Arc::clone(container));
        }
        let mut matching = index.containers.iter().filter(|(id, _)| id.as_str().starts_with(reference));
        let (_, first) = matching.next().ok_or_else(missing)?;
        if matching.next().is_some() {
            return Err(EngineError::invalid(format!(
                "Multiple IDs found with provided prefix: {reference}"
            )));
        }
        Ok(Arc::clone(first))
    }
}
