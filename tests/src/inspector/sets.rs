//! What the engines are asked to make and to answer.
//!
//! ```text
//! # comment
//! create memory: --memory 64m               a container, looked at before it ran
//! run env: -e A=b -- sh -c 'exit 3'         looked at after it ended
//! keep ports: -p 80                         looked at while it runs
//! GET /containers/no-such/json              a request, of which status and body are compared
//! POST /containers/create {"Image": ""}     with a body
//! ```

use anyhow::{Context, Result, bail};

/// When a container is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before it ran.
    Created,
    /// After it ended.
    Ended,
    /// While it runs.
    Running,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A container.
    Container {
        /// Its name.
        name: String,
        /// When it is looked at.
        phase: Phase,
        /// Arguments of `docker create` before the image, as the shell reads them.
        flags: String,
        /// Those after it.
        command: String,
    },
    /// A request.
    Request {
        /// `GET`...
        method: String,
        /// Path and query, without the version.
        path: String,
        /// Body; empty for none.
        body: String,
    },
}

/// Reads the file of sets.
///
/// # Errors
/// A line that is none of the above.
pub fn parse(text: &str) -> Result<Vec<Entry>> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| entry(line).with_context(|| format!("line {}: `{line}`", index + 1)))
        .collect()
}

fn entry(line: &str) -> Result<Entry> {
    let (verb, rest) = line.split_once(' ').context("one word alone")?;
    let phase = match verb {
        "create" => Phase::Created,
        "run" => Phase::Ended,
        "keep" => Phase::Running,
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" => {
            let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
            return Ok(Entry::Request {
                method: verb.to_owned(),
                path: path.to_owned(),
                body: body.to_owned(),
            });
        }
        other => bail!("unknown verb `{other}`"),
    };
    let (name, arguments) = rest.split_once(':').context("no colon")?;
    let (flags, command) = arguments.split_once(" -- ").unwrap_or((arguments, ""));
    Ok(Entry::Container {
        name: name.to_owned(),
        phase,
        flags: flags.trim().to_owned(),
        command: command.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let entries = parse(
            "# x\n\ncreate plain:\nrun env: -e A=b -- sh -c 'exit 3'\nGET /x?y=1\nPOST /x {\"a\": 1}\n",
        )
        .unwrap();
        let container = |name: &str, phase, flags: &str, command: &str| Entry::Container {
            name: name.into(),
            phase,
            flags: flags.into(),
            command: command.into(),
        };
        let request = |method: &str, path: &str, body: &str| Entry::Request {
            method: method.into(),
            path: path.into(),
            body: body.into(),
        };
        assert_eq!(
            entries,
            [
                container("plain", Phase::Created, "", ""),
                container("env", Phase::Ended, "-e A=b", "sh -c 'exit 3'"),
                request("GET", "/x?y=1", ""),
                request("POST", "/x", "{\"a\": 1}"),
            ]
        );
        assert!(parse("make x:").is_err() && parse("create x").is_err());
    }
}
