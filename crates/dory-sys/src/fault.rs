//! Fault points: places at which a test has a process die.
//!
//! Whatever a process dies of, it may do so between any two instructions; [`crate::fault_point!`] marks the places between
//! which something outside of it changes. The macro is nothing unless the feature `fault-points` is on, which only tests
//! ask for. Which point kills is said by a *plan*: a file that `DORY_FAULT_PLAN` names, with `<count> <point>` in it. Each
//! process that comes by counts it down, whichever process it is, and the one that reaches zero is gone at once: so every
//! arrival at a point can be tried in turn, and only one process dies of a plan.

/// The variable that names the plan.
pub const PLAN: &str = "DORY_FAULT_PLAN";

/// Dies here where a test's plan says so; nothing at all without the feature `fault-points`.
#[cfg(feature = "fault-points")]
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault::reach($name)
    };
}

/// Dies here where a test's plan says so; nothing at all without the feature `fault-points`.
#[cfg(not(feature = "fault-points"))]
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {};
}

/// Hands the plan to a process that is started without our environment.
#[cfg(not(feature = "fault-points"))]
pub fn pass_on(_: &mut std::process::Command) {}

#[cfg(feature = "fault-points")]
pub use armed::{pass_on, reach};

#[cfg(feature = "fault-points")]
mod armed {
    // Only for `_exit`.
    #![allow(unsafe_code)]

    use std::os::fd::OwnedFd;
    use std::sync::OnceLock;

    use rustix::fs::{Mode, OFlags};
    use rustix::io::{pread, pwrite};
    use rustix::process::{Signal, getpid, kill_process};

    /// Digits of the count; it is replaced in place.
    const WIDTH: usize = 6;

    /// Hands the plan to a process that is started without our environment.
    pub fn pass_on(command: &mut std::process::Command) {
        if let Some(plan) = std::env::var_os(super::PLAN) {
            command.env(super::PLAN, plan);
        }
    }

    /// Arrives at `point`.
    pub fn reach(point: &str) {
        // Opened once: a child that changed its root still has it.
        static FILE: OnceLock<Option<OwnedFd>> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let path = std::env::var_os(super::PLAN)?;
            rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()
        });
        if let Some(file) = file
            && count_down(file, point) == Some(0)
        {
            die();
        }
    }

    /// Counts an arrival; what is left, or `None` where the plan is for another point or was carried out.
    fn count_down(file: &OwnedFd, point: &str) -> Option<u32> {
        let mut bytes = [0; 128];
        let length = pread(file, &mut bytes, 0).ok()?;
        let (count, planned) = std::str::from_utf8(&bytes[..length]).ok()?.trim_end().split_once(' ')?;
        let left = count.parse::<u32>().ok()?.checked_sub(1).filter(|_| planned == point)?;
        pwrite(file, format!("{left:0WIDTH$}").as_bytes(), 0).ok()?;
        Some(left)
    }

    fn die() -> ! {
        let _first_of_its_pid_namespace = kill_process(getpid(), Signal::KILL);
        // The first process of a pid namespace cannot kill itself.
        // SAFETY: it takes a plain number, runs nothing of this process and does not return.
        unsafe { libc::_exit(137) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn counts_down_its_own_point_only() {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "000002 a.b").unwrap();
            let plan = rustix::fs::open(file.path(), OFlags::RDWR, Mode::empty()).unwrap();
            assert_eq!(count_down(&plan, "a.c"), None);
            assert_eq!(count_down(&plan, "a.b"), Some(1));
            assert_eq!(count_down(&plan, "a.b"), Some(0));
            assert_eq!(count_down(&plan, "a.b"), None);
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "000000 a.b");
        }
    }
}
