//! Which networks there are, and how they are named.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dory_net::{Driver, Subnet};
use dory_store::{Durability, RecordError, read_record, remove_temporaries, write_record};
use dory_types::NetworkId;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::object::NetworkObject;
use super::record::NetworkRecord;
use super::{BRIDGE, HOST, NONE};
use crate::identity::Identity;
use crate::{EngineError, Result};

/// The directory of the records, in the data-root.
const DIRECTORY: &str = "networks";

/// All networks of the engine.
#[derive(Debug)]
pub(crate) struct Networks {
    directory: OwnedFd,
    all: Mutex<BTreeMap<NetworkId, Arc<NetworkObject>>>,
    /// Held while a network is made or removed: names and subnets are taken one at a time.
    change: Mutex<()>,
}

impl Networks {
    /// The built-in networks, and those that the data-root has records of. A record that cannot be read is told of and
    /// left where it is.
    pub(crate) fn open(data_root: &Path, identity: &Identity) -> Result<Self> {
        let path = data_root.join(DIRECTORY);
        let failed = |error| EngineError::failed(format!("cannot use `{}`", path.display()), error);
        std::fs::create_dir_all(&path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let built_in = [
            (&identity.bridge, BRIDGE, Driver::Bridge),
            (&identity.host, HOST, Driver::Host),
            (&identity.none, NONE, Driver::Null),
        ];
        let mut records: Vec<_> = built_in
            .map(|(id, name, driver)| NetworkRecord::built_in(id, name, driver, identity.created))
            .into();
        remove_temporaries(&directory).map_err(failed)?;
        for entry in std::fs::read_dir(&path).map_err(failed)?.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".json")) else { continue };
            match read_record::<NetworkRecord>(&directory, name) {
                Ok(record) => records.extend(record),
                Err(error) => {
                    tracing::error!(
                        file = name,
                        error = dory_types::with_causes(&error),
                        "A network's record cannot be used"
                    );
                }
            }
        }
        let objects = records.into_iter().map(|record| {
            let id = record.id().clone();
            (id, Arc::new(NetworkObject::new(record, None)))
        });
        Ok(Self { directory, all: Mutex::new(objects.collect()), change: Mutex::default() })
    }

    /// Excludes every other change of which networks there are.
    pub(super) fn change(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Arc<NetworkObject>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All networks, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<NetworkObject>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|one, other| one.record.name().cmp(other.record.name()));
        all
    }

    /// The network with this id.
    pub(crate) fn by_id(&self, id: &NetworkId) -> Option<Arc<NetworkObject>> {
        self.lock().get(id).cloned()
    }

    /// The network that `reference` means: full id, name, or the start of one id only.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<NetworkObject>> {
        let missing = || EngineError::not_found(format!("network {reference} not found"));
        if reference.is_empty() {
            return Err(missing());
        }
        let all = self.lock();
        let exact = all.values().find(|it| it.record.id().as_str() == reference);
        if let Some(found) = exact.or_else(|| all.values().find(|it| it.record.name() == reference)) {
            return Ok(Arc::clone(found));
        }
        let mut matching = all.values().filter(|it| it.record.id().as_str().starts_with(reference));
        let first = matching.next().ok_or_else(missing)?;
        match matching.count() {
            0 => Ok(Arc::clone(first)),
            more => Err(EngineError::invalid(format!(
                "network {reference} is ambiguous ({} matches found based on ID prefix)",
                more + 1
            ))),
        }
    }

    /// The subnets of all networks.
    pub(crate) fn subnets(&self) -> Vec<Subnet> {
        let of =
            |it: &Arc<NetworkObject>| it.record.network.subnets.iter().map(|place| place.subnet).collect();
        self.lock().values().flat_map(|it| -> Vec<Subnet> { of(it) }).collect()
    }

    /// Records a network and adds it; it survives a power cut from here on.
    pub(super) fn insert(&self, object: Arc<NetworkObject>) -> Result<()> {
        let record = &object.record;
        write_record(&self.directory, &file_name(record.id()), record, Durability::Synced)
            .map_err(|error| EngineError::failed("cannot write the network's record", error))?;
        self.lock().insert(record.id().clone(), object);
        Ok(())
    }

    /// Takes a network out, and off the disk.
    pub(super) fn remove(&self, id: &NetworkId) -> Result<()> {
        let failed = |errno: Errno| {
            let error = RecordError::Write { name: file_name(id), source: errno.into() };
            EngineError::failed("cannot remove the network's record", error)
        };
        match rustix::fs::unlinkat(&self.directory, file_name(id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        rustix::fs::fsync(self.directory.as_fd()).map_err(failed)?;
        self.lock().remove(id);
        Ok(())
    }
}

fn file_name(id: &NetworkId) -> String {
    format!("{id}.json")
}
