//! Gives up what the process must not have: capabilities, ids, new privileges, system calls.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit as RawRlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::capability;
use crate::error::{FailureKind, StartFailure};
use crate::spec::{Process, Rlimit};

use super::user::Identity;

/// Sets the resource limits. Before the ids change, because raising one needs CAP_SYS_RESOURCE.
pub fn set_rlimits(limits: &[Rlimit]) -> Result<(), StartFailure> {
    for limit in limits {
        let resource = resource(&limit.name).ok_or_else(|| {
            StartFailure::new(FailureKind::Invalid, format!("unknown ulimit `{}`", limit.name))
        })?;
        let finite = |value: u64| (value != u64::MAX).then_some(value);
        let raw = RawRlimit { current: finite(limit.soft), maximum: finite(limit.hard) };
        rustix::process::setrlimit(resource, raw).map_err(|error| {
            StartFailure::refused(format!("error setting ulimit `{}`", limit.name), error)
        })?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Drops everything in the order that the kernel demands. After it the process is what its user asked for and only
/// `execve` is left.
///
/// 1. Without `no_new_privs` a filter needs CAP_SYS_ADMIN, so it is loaded first; with it, last, so that the filter need
///    not allow what the steps between do.
/// 2. The bounding set shrinks while CAP_SETPCAP is still there.
/// 3. Ids change with `keepcaps`, else the kernel would clear the permitted set on leaving uid 0.
pub fn confine(process: &Process, identity: &Identity) -> Result<(), StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    if !process.no_new_privileges {
        load_seccomp(process).map_err(refused("cannot load the seccomp filter"))?;
    }
    let wanted = capability::mask(&process.capabilities);
    drop_bounding_set(wanted).map_err(refused("cannot drop the bounding set"))?;
    set_identity(identity).map_err(refused("cannot change ids"))?;
    set_capabilities(wanted).map_err(refused("cannot set capabilities"))?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| StartFailure::refused("cannot set no_new_privs", error))?;
        load_seccomp(process).map_err(refused("cannot load the seccomp filter"))?;
    }
    Ok(())
}

fn load_seccomp(process: &Process) -> io::Result<()> {
    match &process.seccomp {
        Some(filter) => dory_sys::seccomp::load_filter(&filter.program()),
        None => Ok(()),
    }
}

fn drop_bounding_set(wanted: u64) -> io::Result<()> {
    for bit in 0..64_u32 {
        if wanted & 1 << bit != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the kernel's last capability.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn set_identity(identity: &Identity) -> io::Result<()> {
    rustix::thread::set_keep_capabilities(true)?;
    let groups: Vec<Gid> = identity.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    // A user namespace with one mapped id denies setgroups (user_namespaces(7)); then there are none to set either.
    match rustix::thread::set_thread_groups(&groups) {
        Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_keep_capabilities(false)?;
    Ok(())
}

fn set_capabilities(wanted: u64) -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?.permitted;
    // What the engine itself lacks cannot be given (a nested engine, a restricted machine).
    let given = CapabilitySet::from_bits_retain(wanted) & held;
    // Nothing inheritable: it would survive into programs with file capabilities (CVE-2022-24769).
    let sets = CapabilitySets { effective: given, permitted: given, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// Asks AppArmor to switch to `profile` at the next exec. `attribute` is this process's own attribute file, opened while
/// the engine's `/proc` was still in reach.
pub fn set_apparmor_profile(mut attribute: &File, profile: &str) -> Result<(), StartFailure> {
    attribute.write_all(format!("exec {profile}").as_bytes()).map_err(|error| {
        StartFailure::refused(format!("cannot apply the AppArmor profile `{profile}`"), error)
    })
}
