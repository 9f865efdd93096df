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

/// Files that a delegated leaf repeats, for programs that size themselves by them. A v1 cpuset must be repeated, for it
/// cannot be smaller than one beneath it.
const REPEATED_V1: [&str; 5] =
    ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max", "cpuset.cpus", "cpuset.mems"];
/// The same on v2.
const REPEATED_V2: [&str; 3] = ["memory.max", "cpu.max", "pids.max"];

/// Puts `resources` into force on the groups at `places`.
pub(crate) fn apply(places: &[Place], resources: &Resources) -> Vec<Refusal> {
    let of_controller = |(&(controller, v1), &(_, v2)): (&SettingsOf, &SettingsOf)| match places
        .iter()
        .find(|place| place.controllers.contains(&controller))
    {
        Some(place) => apply_settings(place, if place.is_v2 { v2(resources) } else { v1(resources) }),
        None => {
            let missing = CgroupError::NotAvailable(controller.v1_name());
            v1(resources).iter().map(|setting| Refusal::requested(setting.what, &missing)).collect()
        }
    };
    limits_v1::TABLE.iter().zip(&limits_v2::TABLE).flat_map(of_controller).collect()
}

/// Repeats `resources` in the leaves, where they were made after the limits.
pub(crate) fn repeat_in_leaves(places: &[Place], resources: &Resources) {
    for place in places {
        let table = if place.is_v2 { &limits_v2::TABLE } else { &limits_v1::TABLE };
        for setting in table
            .iter()
            .filter(|(controller, _)| place.controllers.contains(controller))
            .flat_map(|(_, of)| of(resources))
        {
            if let Action::Write { files, value } = &setting.action {
                repeat(place, pick(&place.limits_directory(), files), value);
            }
        }
    }
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
    // Before and after: a cpuset that shrinks must do so in the leaf first, one that grows in the leaf last.
    repeat(place, file, value);
    control_file::write(&limits, file, value)?;
    repeat(place, file, value);
    Ok(())
}

/// Writes a limit to the leaf too. A failure does not matter: the group above is what counts.
fn repeat(place: &Place, file: &str, value: &str) {
    let repeated: &[&str] = if place.is_v2 { &REPEATED_V2 } else { &REPEATED_V1 };
    if let Some(leaf) = place.separate_leaf().filter(|_| repeated.contains(&file)) {
        let _ = control_file::write(&leaf, file, value);
    }
}

/// The first that exists, else the first, whose absence is then the error.
fn pick<'a>(group: &Path, files: &[&'a str]) -> &'a str {
    let existing = files.iter().find(|file| control_file::exists(group, file));
    existing.unwrap_or(&files[0])
}
