//! Starting other programs: what is run is printed, and a failure names it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs `command` to its end, its output being ours.
///
/// # Errors
/// It cannot start, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// Runs `command` in silence, and gives back what it wrote to standard output.
///
/// # Errors
/// It cannot start, or fails; then with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` failed: {}\n{errors}", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{}` writes no UTF-8", shown(command)))
}

/// Runs a script of several lines under `sh -eu`, with `arguments` as `$1` and so on.
///
/// # Errors
/// The script fails.
pub fn script(text: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let status = Command::new("sh").args(["-euc", text, "xtask"]).args(arguments).status()?;
    ensure!(status.success(), "a script failed: {status}\n{text}");
    Ok(())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
