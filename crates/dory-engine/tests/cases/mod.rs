//! The tests.

mod confined;
mod lifecycle;
mod restore;
mod run;
mod scarcity;

type Test = (&'static str, fn());

pub const ALL: &[Test] = &[
    ("privileged_output_and_exit_code", run::output_and_exit_code),
    ("privileged_start_failures", run::start_failures),
    ("privileged_looks_like_docker", run::looks_like_docker),
    ("privileged_volumes", run::volumes),
    ("privileged_exec", run::exec),
    ("privileged_network", run::network),
    ("privileged_speed", run::speed),
    ("privileged_stop_and_kill", lifecycle::stop_and_kill),
    ("privileged_pause_and_limits", lifecycle::pause_and_limits),
    ("privileged_names_and_removal", lifecycle::names_and_removal),
    ("privileged_automatic_removal", lifecycle::automatic_removal),
    ("privileged_restart_policy", lifecycle::restart_policy),
    ("privileged_events_in_order", lifecycle::events_in_order),
    ("privileged_health", lifecycle::health),
    ("privileged_confined", confined::confined),
    ("privileged_confined_refusals", confined::refusals),
    ("privileged_finds_running_containers", restore::running),
    ("privileged_finds_ended_containers", restore::ended),
    ("privileged_finds_killed_shims", restore::killed_shims),
    ("privileged_goes_on_checking_health", restore::health),
    ("privileged_checks_end_with_their_engine", restore::health_without_engine),
    ("privileged_full_disk", scarcity::full_disk),
    ("privileged_no_inodes", scarcity::no_inodes),
    ("privileged_no_descriptors", scarcity::no_descriptors),
];
