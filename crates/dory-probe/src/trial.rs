//! Running a list of attempts in a process of their own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use std::{io, thread};

use dory_sys::process::{ChildProcess, CloneOptions, clone_process, pidfd_signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::attempt::{Attempt, Feature};

/// What a trial found out.
pub(crate) type Outcomes = BTreeMap<Feature, Attempt>;

/// How long one attempt may take: some milliseconds, but an emulated machine on a loaded one has needed more than ten
/// seconds for a trial, and a trial that is given up costs a tier.
const PATIENCE: Duration = Duration::from_secs(20);

/// One attempt, made in the trial's scratch directory.
pub(crate) struct Try {
    pub(crate) feature: Feature,
    /// `CLONE_NEW*` bits without which the attempt is not made: it would change the surroundings, or mean nothing.
    pub(crate) needs: u64,
    pub(crate) run: fn() -> io::Result<()>,
}

impl Try {
    pub(crate) const fn new(feature: Feature, needs: u64, run: fn() -> io::Result<()>) -> Self {
        Self { feature, needs, run }
    }
}

/// Reports outcomes from within a trial.
pub(crate) struct Reporter(File);

impl Reporter {
    /// Tells the outcome at once: the next attempt may be the last thing this process does.
    pub(crate) fn report(&mut self, feature: Feature, attempt: Attempt) {
        let index = Feature::ALL.iter().position(|&other| other == feature).expect("every feature is listed");
        let index = u8::try_from(index).expect("there are fewer than 256 features");
        // A reader that is gone wants no answer.
        let _ = self.0.write_all(&[index, attempt.to_byte()]);
    }

    /// Tries and tells.
    pub(crate) fn run(&mut self, attempt: &Try) -> Attempt {
        // Told first, so that an attempt that kills its process is known.
        self.report(attempt.feature, Attempt::Lost);
        let outcome = Attempt::from((attempt.run)());
        self.report(attempt.feature, outcome);
        outcome
    }
}

/// Runs `body` in a child made with the `CLONE_NEW*` bits `namespaces`; `prepare` acts on the child from outside (id
/// maps) before `body` starts.
///
/// # Errors
/// Where the child cannot be made, or `prepare` fails.
pub(crate) fn run(
    namespaces: u64,
    prepare: impl FnOnce(Pid) -> io::Result<()>,
    body: impl FnOnce(&mut Reporter),
) -> io::Result<Outcomes> {
    let (answers, reporter) = pipe_with(PipeFlags::CLOEXEC)?;
    let (go, start) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = {
        // Moved into the closure, the parent's copies close as soon as the child is there.
        let ends = (go, reporter);
        clone_process(CloneOptions { flags: namespaces, ..CloneOptions::default() }, move || {
            let (go, reporter) = ends;
            if File::from(go).read_exact(&mut [0]).is_ok() {
                body(&mut Reporter(reporter.into()));
            }
            0
        })?
    };
    let result = prepare(child.pid).map(|()| {
        let _ = File::from(start).write_all(b"!");
        collect(answers)
    });
    end(&child);
    result
}

/// A trial whose only question is whether its namespaces can be had.
pub(crate) fn can_clone(namespaces: u64) -> Attempt {
    let child = clone_process(CloneOptions { flags: namespaces, ..CloneOptions::default() }, || 0);
    Attempt::from(child.map(|child| end(&child)))
}

/// Reads outcomes until the trial ends, or an attempt takes too long.
fn collect(answers: OwnedFd) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut answers = File::from(answers);
    let mut buffer = [0_u8; 2];
    while readable(&answers, PATIENCE) && answers.read_exact(&mut buffer).is_ok() {
        if let Some(&feature) = Feature::ALL.get(usize::from(buffer[0])) {
            outcomes.insert(feature, Attempt::from_byte(buffer[1]));
        }
    }
    outcomes
}

fn readable(file: &File, patience: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut descriptors = [PollFd::new(file, PollFlags::IN)];
    matches!(poll(&mut descriptors, Some(&timeout)), Ok(ready) if ready > 0)
}

/// Kills and reaps the child, which has nothing left to say.
pub(crate) fn end(child: &ChildProcess) {
    let _ = pidfd_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
    while matches!(waitpid(Some(child.pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR)) {
        thread::yield_now();
    }
}
