//! Limits: `Resources` of API 1.51, for create and update alike.

use serde_json::{Map, Value};

use super::{field, host};
use crate::judge::{Judgement, dropped, free, is_zero, never};
use crate::policy::{Choice, HostNamespace};
use crate::shape::Field;
use crate::shape::Shape::{Int, Object, Text};

static RESTART: &[Field] = &[field("Name", Text, free), field("MaximumRetryCount", Int, free)];

/// The body of `POST /containers/{id}/update`.
pub(crate) static UPDATE: &[Field] = &[
    field("CpuShares", Int, free),
    field("Memory", Int, memory),
    field("NanoCpus", Int, cpus),
    field("BlkioWeight", Int, free),
    field("CpuPeriod", Int, quota),
    field("CpuQuota", Int, quota),
    field("CpuRealtimePeriod", Int, never),
    field("CpuRealtimeRuntime", Int, never),
    field("CpusetCpus", Text, free),
    field("CpusetMems", Text, free),
    field("KernelMemory", Int, dropped),
    field("MemoryReservation", Int, free),
    field("MemorySwap", Int, swap),
    field("PidsLimit", Int, pids),
    field("RestartPolicy", Object(RESTART), host::restart),
];

/// Memory, bytes. Zero means without limit in a create, and unchanged in an update: both are "absent" here.
pub(crate) fn memory(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let bytes = value.as_i64()?;
    match judgement.policy.limits.memory {
        _ if bytes == 0 => None,
        Some(limit) if bytes > limit.0 || bytes < 0 => {
            judgement.change("limits.memory", format!("memory is limited to {} bytes", limit.0));
            Some(limit.0.into())
        }
        _ => Some(value),
    }
}

/// Memory and swap together, bytes. Without a value it is twice the memory; more than that is for nobody with a limit.
pub(crate) fn swap(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let bytes = value.as_i64()?;
    match judgement.policy.limits.memory {
        _ if bytes == 0 => None,
        Some(limit) if bytes < 0 || bytes > limit.0.saturating_mul(2) => {
            judgement.change("limits.memory", "the limit of memory and swap was left out");
            None
        }
        _ => Some(value),
    }
}

fn nano(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

/// CPUs, billionths.
pub(crate) fn cpus(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let wanted = value.as_i64()?;
    match judgement.policy.limits.cpus.map(nano) {
        _ if wanted == 0 => None,
        Some(limit) if wanted > limit || wanted < 0 => {
            judgement.change("limits.cpus", format!("CPUs are limited to {}", limit as f64 / 1e9));
            Some(limit.into())
        }
        _ => Some(value),
    }
}

/// Period and quota say the same as `NanoCpus`; where CPUs are limited, only that is passed on.
pub(crate) fn quota(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if is_zero(&value) {
        return None;
    }
    if judgement.policy.limits.cpus.is_some() {
        judgement
            .refuse("limits.cpus", "CPUs are limited by `NanoCpus` (--cpus) here, not by period and quota");
    }
    Some(value)
}

/// Tasks. Zero and -1 mean without limit, in an update too.
pub(crate) fn pids(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    let wanted = value.as_i64()?;
    match judgement.policy.limits.pids {
        // Docker's client always sends a zero.
        Some(limit) if wanted == 0 => Some(limit.into()),
        Some(limit) if wanted < 0 || wanted > limit => {
            judgement.change("limits.pids", format!("processes are limited to {limit}"));
            Some(limit.into())
        }
        _ => Some(value),
    }
}

/// Bytes of `/dev/shm`, which count as memory.
pub(crate) fn shared_memory(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if let (Some(bytes), Some(limit)) = (value.as_i64(), judgement.policy.limits.memory)
        && bytes > limit.0
    {
        judgement.refuse("limits.memory", format!("shared memory is limited to {} bytes", limit.0));
    }
    Some(value)
}

/// Killed last, at the cost of everybody else.
pub(crate) fn oom_score(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if value.as_i64().is_some_and(|score| score < 0)
        && judgement.policy.containers.privileged != Choice::Allow
    {
        judgement.refuse("containers.privileged", "a negative `OomScoreAdj` makes others be killed first");
    }
    Some(value)
}

/// Never killed.
pub(crate) fn oom_kill(judgement: &mut Judgement<'_>, value: Value) -> Option<Value> {
    if is_zero(&value) {
        return None;
    }
    if judgement.policy.containers.host_namespaces.contains(&HostNamespace::Pid) {
        return Some(value);
    }
    judgement.change("containers.privileged", "`OomKillDisable` was left out");
    None
}

/// The limits of a new container that names none.
pub(crate) fn finish(judgement: &Judgement<'_>, host: &mut Map<String, Value>) {
    let limits = &judgement.policy.limits;
    let defaults = [
        ("Memory", limits.memory.map(|bytes| bytes.0)),
        ("NanoCpus", limits.cpus.map(nano)),
        ("PidsLimit", limits.pids),
    ];
    for (name, limit) in defaults {
        if let Some(limit) = limit {
            host.entry(name).or_insert_with(|| limit.into());
        }
    }
}
