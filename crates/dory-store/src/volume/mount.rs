//! Volumes with options: what they name is mounted on their `_data` while somebody uses them, as dockerd's driver `local`
//! does. Unlike everything else that containers see this is mounted where the engine's host sees it, because that is what
//! the volume's `Mountpoint` promises; so it has to be unmounted again, by the next engine if need be.

use std::ffi::CString;
use std::io;
use std::path::Path;

use dory_types::VolumeName;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount,
};

use super::{DATA, Volume, VolumeError};
use crate::directory;
use crate::error::StoreError;
use crate::store::Store;

/// Words of the option `o` that are flags of mount(2); everything else is the filesystem's own.
const FLAGS: [(&str, MountFlags); 12] = [
    ("ro", MountFlags::RDONLY),
    ("rw", MountFlags::empty()),
    ("defaults", MountFlags::empty()),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("sync", MountFlags::SYNCHRONOUS),
    ("bind", MountFlags::BIND),
    ("rbind", MountFlags::BIND.union(MountFlags::REC)),
];

/// The option `o`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    data: String,
}

impl Options {
    fn parse(text: &str) -> Self {
        let mut flags = MountFlags::empty();
        let mut data: Vec<&str> = Vec::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match FLAGS.iter().find(|(name, _)| *name == word) {
                Some((_, flag)) => flags |= *flag,
                None => data.push(word),
            }
        }
        Self { flags, data: data.join(",") }
    }
}

impl Volume {
    /// True where using it means mounting something.
    pub fn is_mounted_on_use(&self) -> bool {
        !self.options.is_empty()
    }
}

impl Store {
    /// Mounts what a volume's options name, unless it is mounted.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], and [`VolumeError::Mount`] with the kernel's word.
    pub fn mount_volume(&self, name: &VolumeName) -> Result<(), StoreError> {
        let volume = self.volume(name)?;
        if !volume.is_mounted_on_use() || self.is_mounted(name)? {
            return Ok(());
        }
        let option = |name: &str| volume.options.get(name).map_or("", String::as_str);
        let (kind, device, options) = (option("type"), option("device"), Options::parse(option("o")));
        attach(kind, device, &options, &volume.mountpoint).map_err(|source| {
            VolumeError::Mount {
                mountpoint: volume.mountpoint.clone(),
                device: device.to_owned(),
                data: options.data,
                source,
            }
            .into()
        })
    }

    /// Unmounts what is mounted on a volume; nothing there is no error.
    ///
    /// # Errors
    /// [`VolumeError::Directory`].
    pub fn unmount_volume(&self, name: &VolumeName) -> Result<(), StoreError> {
        Ok(self.detach(name)?)
    }

    /// As [`Store::unmount_volume`]. Whoever deletes a volume's files must have called this: they may be the host's.
    pub(super) fn detach(&self, name: &VolumeName) -> Result<(), VolumeError> {
        let path = self.data_root().join("volumes").join(name.as_str()).join(DATA);
        while self.is_mounted(name)? {
            unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|errno| {
                VolumeError::Directory { operation: "unmount", name: name.clone(), source: errno.into() }
            })?;
        }
        Ok(())
    }

    fn is_mounted(&self, name: &VolumeName) -> Result<bool, VolumeError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = directory::open_child(&self.volumes, name.as_str())
            .and_then(|volume| rustix::fs::statx(&volume, DATA, flags, StatxFlags::BASIC_STATS));
        match stat {
            Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
            Err(errno) => {
                Err(VolumeError::Directory { operation: "look at", name: name.clone(), source: errno.into() })
            }
        }
    }
}

/// Flags of a bind are set by a second call (mount(2), "Remounting an existing mount").
fn attach(kind: &str, device: &str, options: &Options, target: &Path) -> io::Result<()> {
    if !options.flags.contains(MountFlags::BIND) {
        let data = CString::new(options.data.as_str())?;
        let data = Some(data.as_c_str()).filter(|data| !data.is_empty());
        return Ok(mount(device, target, kind, options.flags, data)?);
    }
    match options.flags.contains(MountFlags::REC) {
        true => mount_bind_recursive(device, target)?,
        false => mount_bind(device, target)?,
    }
    let flags = options.flags - MountFlags::REC;
    if flags == MountFlags::BIND {
        return Ok(());
    }
    mount_remount(target, flags, "").inspect_err(|_| {
        // A volume that was to be read-only is not given out writable.
        let _ = unmount(target, UnmountFlags::DETACH);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_options_apart() {
        let parsed = |text| {
            let Options { flags, data } = Options::parse(text);
            (flags, data)
        };
        assert_eq!(parsed(""), (MountFlags::empty(), String::new()));
        let flags = MountFlags::NOSUID | MountFlags::RDONLY;
        assert_eq!(parsed("size=1m,nosuid,,ro,mode=700"), (flags, "size=1m,mode=700".to_owned()));
        assert_eq!(parsed("addr=192.0.2.1,rw"), (MountFlags::empty(), "addr=192.0.2.1".to_owned()));
        assert_eq!(parsed("rbind").0, MountFlags::BIND | MountFlags::REC);
    }
}
