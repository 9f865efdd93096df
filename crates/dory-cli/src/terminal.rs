//! The user's terminal: raw mode and size.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The keyboard's bytes pass unchanged, unechoed and at once until this is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    saved: Termios,
}

impl RawMode {
    /// Switches standard input to raw mode.
    pub(crate) fn enter() -> Result<Self> {
        let saved = tcgetattr(rustix::stdio::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)
            .context("cannot set the terminal's mode")?;
        Ok(Self { saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// What is typed is not shown until this is dropped.
#[derive(Debug)]
pub(crate) struct Hidden {
    saved: Termios,
}

impl Hidden {
    /// Switches the echo of standard input off.
    pub(crate) fn enter() -> Result<Self> {
        let saved = tcgetattr(rustix::stdio::stdin()).context("cannot read the terminal's mode")?;
        let mut hidden = saved.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &hidden)
            .context("cannot set the terminal's mode")?;
        Ok(Self { saved })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize {
    /// Lines.
    pub(crate) rows: u16,
    /// Characters per line.
    pub(crate) columns: u16,
}

/// The size of the terminal on standard output, or else on standard input.
pub(crate) fn window_size() -> Option<WindowSize> {
    let size =
        tcgetwinsize(rustix::stdio::stdout()).or_else(|_| tcgetwinsize(rustix::stdio::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}
