//! Volumes of the driver `local`.
//!
//! ```text
//! volumes/<name>/volume.json   record
//! volumes/<name>/_data         what containers see
//! ```
//!
//! A volume with options (`type`, `device`, `o`) is something that is mounted on its `_data` while containers use it.

mod copy_up;
mod mount;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;

use dory_sys::fault_point;
use dory_types::{ContainerId, Timestamp, VolumeName};
use rustix::fs::{self, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use copy_up::{CopyUpError, copy_up};

use crate::directory;
use crate::error::{StoreError, StoreErrorKind};
use crate::record::{Durability, RecordError, read_record, temporary_name, write_record};
use crate::store::Store;

/// The record's file name.
const RECORD: &str = "volume.json";
/// The directory that containers see.
const DATA: &str = "_data";
/// dockerd marks volumes without a name of their own by this label.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// The options of dockerd's driver `local`, and which others each of them needs.
const OPTIONS: [(&str, &[&str]); 3] =
    [("device", &["type"]), ("type", &["device"]), ("o", &["device", "type"])];

/// A volume cannot be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none with that name; dockerd's message.
    #[error("get {0}: no such volume")]
    NotFound(VolumeName),
    /// Containers use it; dockerd's message.
    #[error("remove {name}: volume is in use - [{}]", users.iter().map(ContainerId::as_str).collect::<Vec<_>>().join(", "))]
    InUse {
        /// The volume.
        name: VolumeName,
        /// Its users.
        users: Vec<ContainerId>,
    },
    /// The driver has no such option; dockerd's message.
    #[error("create {name}: invalid option: {option:?}")]
    InvalidOption {
        /// The volume.
        name: VolumeName,
        /// The option.
        option: String,
    },
    /// Another option must be given too; dockerd's message.
    #[error("create {name}: missing required option: {option:?}")]
    MissingOption {
        /// The volume.
        name: VolumeName,
        /// The missing option.
        option: &'static str,
    },
    /// What its options name cannot be mounted; dockerd's message.
    #[error(
        "error while mounting volume '{}': failed to mount local volume: mount {device}:{}, data: {data}",
        mountpoint.display(),
        mountpoint.display()
    )]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// The option `device`.
        device: String,
        /// The filesystem's own options.
        data: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directories cannot be made or removed.
    #[error("cannot {operation} volume `{name}`")]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// The volume.
        name: VolumeName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record cannot be written or read.
    #[error("cannot record volume `{name}`")]
    Record {
        /// The volume.
        name: VolumeName,
        /// Why.
        #[source]
        source: RecordError,
    },
}

impl VolumeError {
    /// How the error is to be answered.
    pub(crate) fn kind(&self) -> StoreErrorKind {
        match self {
            Self::NotFound(_) => StoreErrorKind::NotFound,
            Self::InUse { .. } => StoreErrorKind::Conflict,
            Self::InvalidOption { .. } | Self::MissingOption { .. } => StoreErrorKind::InvalidParameter,
            Self::Mount { .. } | Self::Directory { .. } | Self::Record { .. } => StoreErrorKind::Internal,
        }
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// When it was made.
    pub created: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options: `type`, `device` and `o` of the mount, or none.
    pub options: BTreeMap<String, String>,
    /// The absolute path of `_data`.
    pub mountpoint: PathBuf,
}

impl Volume {
    /// True where nobody chose its name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }
}

/// What `volume.json` has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    created: Timestamp,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

impl Store {
    /// Makes a volume; one that has the name already is given back as it is, as dockerd does. Without a name it gets
    /// a random one and the label of anonymous volumes, and is as durable as a container: a power cut may take the
    /// newest ones.
    ///
    /// # Errors
    /// [`StoreError::Volume`]; nothing is left then.
    pub fn create_volume(
        &self,
        name: Option<VolumeName>,
        mut labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume, StoreError> {
        let durability = if name.is_some() { Durability::Synced } else { Durability::Unsynced };
        let name = match name {
            Some(name) => name,
            None => {
                labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
                random_name()?
            }
        };
        let mut state = self.lock();
        if let Some(record) = state.volumes.get(&name) {
            return Ok(self.describe_volume(&name, record));
        }
        check_options(&name, &options)?;
        let record = VolumeRecord { created: Timestamp::now(), labels, options };
        let temporary = temporary_name();
        if let Err(error) = self.make_volume(&temporary, &name, &record, durability) {
            // What stays behind in spite of this is discarded at the next start.
            let _ = self.trash.discard(self.temporary(), temporary.as_bytes());
            return Err(error.into());
        }
        let volume = self.describe_volume(&name, &record);
        state.volumes.insert(name, record);
        Ok(volume)
    }

    /// The volume `name`.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`].
    pub fn volume(&self, name: &VolumeName) -> Result<Volume, StoreError> {
        let state = self.lock();
        let record = state.volumes.get(name).ok_or_else(|| VolumeError::NotFound(name.clone()))?;
        Ok(self.describe_volume(name, record))
    }

    /// All volumes, in the order of their names.
    pub fn volumes(&self) -> Vec<Volume> {
        let state = self.lock();
        let mut volumes: Vec<_> =
            state.volumes.iter().map(|(name, record)| self.describe_volume(name, record)).collect();
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        volumes
    }

    /// The volumes that no container uses, for pruning; `users` is called with the store locked.
    pub fn unused_volumes(&self, users: &dyn Fn(&VolumeName) -> Vec<ContainerId>) -> Vec<Volume> {
        self.volumes().into_iter().filter(|volume| users(&volume.name).is_empty()).collect()
    }

    /// Removes a volume with all that is in it. `users` gives the containers that use it; it is called with the store
    /// locked and must not call back.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], unless `force`; [`VolumeError::InUse`] even then.
    pub fn remove_volume(
        &self,
        name: &VolumeName,
        force: bool,
        users: &dyn Fn(&VolumeName) -> Vec<ContainerId>,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !state.volumes.contains_key(name) {
            return if force { Ok(()) } else { Err(VolumeError::NotFound(name.clone()).into()) };
        }
        let users = users(name);
        if !users.is_empty() {
            return Err(VolumeError::InUse { name: name.clone(), users }.into());
        }
        self.detach(name)?;
        self.trash.discard(&self.volumes, name.as_str().as_bytes()).map_err(|errno| {
            VolumeError::Directory { operation: "remove", name: name.clone(), source: errno.into() }
        })?;
        fault_point!("volume.discarded");
        state.volumes.remove(name);
        Ok(())
    }

    /// How much the files of a volume take, in bytes; hard links count once.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`] and [`VolumeError::Directory`].
    pub fn volume_size(&self, name: &VolumeName) -> Result<u64, StoreError> {
        self.volume(name)?;
        let size = directory::open_child(&self.volumes, name.as_str())
            .and_then(|volume| directory::open_child(volume, DATA))
            .and_then(|data| directory::size(&data));
        size.map_err(|errno| {
            VolumeError::Directory { operation: "measure", name: name.clone(), source: errno.into() }.into()
        })
    }

    /// Makes a volume in `tmp/` and gives it its name.
    fn make_volume(
        &self,
        temporary: &str,
        name: &VolumeName,
        record: &VolumeRecord,
        durability: Durability,
    ) -> Result<(), VolumeError> {
        let error = |errno: Errno| VolumeError::Directory {
            operation: "create",
            name: name.clone(),
            source: errno.into(),
        };
        let directory = directory::make_and_open(self.temporary(), temporary, 0o711).map_err(error)?;
        let data = directory::make_and_open(&directory, DATA, 0o755).map_err(error)?;
        fs::fchmod(&data, Mode::from_raw_mode(0o755)).map_err(error)?;
        write_record(&directory, RECORD, record, durability)
            .map_err(|source| VolumeError::Record { name: name.clone(), source })?;
        fault_point!("volume.made");
        fs::renameat_with(
            self.temporary(),
            temporary,
            &self.volumes,
            name.as_str(),
            fs::RenameFlags::NOREPLACE,
        )
        .map_err(error)?;
        fault_point!("volume.named");
        if durability == Durability::Synced {
            fs::fsync(&self.volumes).map_err(error)?;
        }
        Ok(())
    }

    fn describe_volume(&self, name: &VolumeName, record: &VolumeRecord) -> Volume {
        Volume {
            name: name.clone(),
            created: record.created,
            labels: record.labels.clone(),
            options: record.options.clone(),
            mountpoint: self.data_root().join("volumes").join(name.as_str()).join(DATA),
        }
    }

    /// Finds the volumes on the disk. One whose record is torn keeps its files and loses its labels: data is worth
    /// more than what is said about it.
    pub(crate) fn read_volumes(&self) -> Result<HashMap<VolumeName, VolumeRecord>, StoreError> {
        let error = |errno: Errno| StoreError::Directory {
            path: self.data_root().join("volumes"),
            source: errno.into(),
        };
        let mut volumes = HashMap::new();
        for (name, _) in directory::names(&self.volumes).map_err(error)? {
            let name = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<VolumeName>().ok());
            let Some(name) = name else { continue };
            let directory = match directory::open_child(&self.volumes, name.as_str()) {
                Ok(directory) => directory,
                Err(scarce @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(error(scarce)),
                Err(_) => continue,
            };
            let record = match read_record(&directory, RECORD) {
                Err(error) if error.is_scarcity() => return Err(error.into()),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(volume = %name, error, "A volume's record is torn: its labels are lost");
                    None
                }
                Ok(record) => record,
            };
            let unknown = || VolumeRecord {
                created: Timestamp::ZERO,
                labels: BTreeMap::new(),
                options: BTreeMap::new(),
            };
            volumes.insert(name, record.unwrap_or_else(unknown));
        }
        Ok(volumes)
    }
}

/// 64 random hexadecimal digits.
fn random_name() -> Result<VolumeName, StoreError> {
    let mut bytes = [0; 32];
    let error = |source: io::Error| StoreError::Directory { path: PathBuf::from("/dev/urandom"), source };
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))
        .map_err(error)?;
    let hex = ContainerId::from_bytes(bytes).to_string();
    Ok(hex.parse().expect("64 hexadecimal digits are a volume's name"))
}

/// Checks the driver's options as dockerd does.
fn check_options(name: &VolumeName, options: &BTreeMap<String, String>) -> Result<(), VolumeError> {
    for option in options.keys() {
        let known = OPTIONS.iter().find(|(known, _)| known == option);
        let (_, needed) =
            known.ok_or_else(|| VolumeError::InvalidOption { name: name.clone(), option: option.clone() })?;
        if let Some(missing) = needed.iter().find(|needed| !options.contains_key(**needed)) {
            return Err(VolumeError::MissingOption { name: name.clone(), option: missing });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_local_driver() {
        let name: VolumeName = "vol".parse().unwrap();
        let check = |pairs: &[(&str, &str)]| {
            let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            check_options(&name, &options).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), Ok(()));
        assert_eq!(check(&[("x", "")]).unwrap_err(), "create vol: invalid option: \"x\"");
        assert_eq!(check(&[("o", "bind")]).unwrap_err(), "create vol: missing required option: \"device\"");
    }
}
