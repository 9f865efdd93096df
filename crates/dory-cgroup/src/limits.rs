//! Setting limits: the mapping from [`Resources`] to control files is pure, writing is one loop.

use std::path::Path;

use crate::control_file;
use crate::controller::Controller;
use crate::error::{CgroupError, Refusal};
use crate::group::Place;
use crate::resources::Resources;
use crate::{limits_v1, limits_v2};

/// One value for one control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Field of [`Resources`].
    pub(crate) what: &'static str,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write the value to the first of these files that exists.
    Write { files: &'static [&'static str], value: String },
    /// This version of control groups has no such limit.
    Unsupported,
}

impl Setting {
    pub(crate) fn write(what: &'static str, files: &'static [&'static str], value: String) -> Self {
        Self { what, action: Action::Write { files, value } }
    }

    pub(crate) fn unsupported(what: &'static str) -> Self {
        Self { what, action: Action::Unsupported }
    }
}

/// Settings of one controller; a table of these is what each version of control groups amounts to.
pub(crate) type SettingsOf = (Controller, fn(&Resources) -> Vec<Setting>);

/// Files that a delegated leaf repeats for the programs that size themselves by them.
const REPEATED_IN_LEAF: [&str; 5] =
    ["memory.max", "cpu.max", "pids.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];

/// Puts `resources` into force on the groups at `places`.
pub(crate) fn apply(places: &[Place], resources: &Resources) -> Vec<Refusal> {
    let has = |controller| places.iter().find(|place| place.controllers.contains(&controller));
    limits_v1::TABLE
        .iter()
        .zip(limits_v2::TABLE)
        .flat_map(|(&(controller, v1), (_, v2))| match has(controller) {
            Some(place) if place.is_v2 => apply_settings(place, v2(resources)),
            Some(place) => apply_settings(place, v1(resources)),
            None => {
                let missing = CgroupError::NotAvailable(controller.v1_name());
                v1(resources).iter().map(|setting| Refusal::requested(setting.what, &missing)).collect()
            }
        })
        .collect()
}

fn apply_settings(place: &Place, settings: Vec<Setting>) -> Vec<Refusal> {
    let attempt = |setting: Setting| write_setting(place, &setting).err().map(|error| (setting, error));
    let failed: Vec<_> = settings.into_iter().filter_map(attempt).collect();
    // The kernel checks memory against memory and swap, and quota against period, at each single write. Which order is
    // right depends on the values in force, so what failed is tried again after the rest.
    let still: Vec<_> = failed.into_iter().filter_map(|(setting, _)| attempt(setting)).collect();
    still.iter().map(|(setting, error)| Refusal::requested(setting.what, error)).collect()
}

fn write_setting(place: &Place, setting: &Setting) -> Result<(), CgroupError> {
    let Action::Write { files, value } = &setting.action else {
        return Err(CgroupError::NotAvailable(setting.what));
    };
    let limits = place.limits_directory();
    let file = pick(&limits, files);
    control_file::write(&limits, file, value)?;
    if let Some(leaf) = place.separate_leaf().filter(|_| REPEATED_IN_LEAF.contains(&file)) {
        // Only for show: the group above is what counts.
        let _ = control_file::write(&leaf, file, value);
    }
    Ok(())
}

/// The first that exists, else the first, whose absence is then the error.
fn pick<'a>(group: &Path, files: &[&'a str]) -> &'a str {
    let existing = files.iter().find(|file| control_file::exists(group, file));
    existing.unwrap_or(&files[0])
}
