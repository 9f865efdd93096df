//! Variables, labels and other pairs, from flags and from files.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::flags::Arguments;

/// The variables of `--env-file` and `--env`, the latter last so that they win.
///
/// A name alone takes its value from the caller's environment. Without one there, `--env` passes the bare name on (which
/// takes the image's variable away), and a file's line is dropped.
///
/// # Errors
/// Files that cannot be read, and names with blanks in them.
pub(crate) fn environment(arguments: &Arguments) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in arguments.list("env-file") {
        for line in lines(path)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() {
                bail!("no variable name on line '{line}'");
            }
            if name.contains(char::is_whitespace) {
                bail!("variable '{name}' contains whitespaces");
            }
            match std::env::var(&line) {
                _ if line.contains('=') => variables.push(line),
                Ok(value) => variables.push(format!("{line}={value}")),
                Err(_) => {}
            }
        }
    }
    let named = |variable: &str| {
        let named = !variable.is_empty() && !variable.starts_with('=');
        if named { Ok(variable.to_owned()) } else { Err(format!("invalid environment variable: {variable}")) }
    };
    for variable in arguments.parsed_list("env", named)? {
        match std::env::var(&variable) {
            Ok(value) if !variable.contains('=') => variables.push(format!("{variable}={value}")),
            _ => variables.push(variable),
        }
    }
    Ok(variables)
}

/// The labels of `--label-file` and `--label`; a key alone has the empty value.
pub(super) fn labels(arguments: &Arguments) -> Result<Map<String, Value>> {
    let mut labels = Map::new();
    let mut add = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        labels.insert(key.to_owned(), value.into());
    };
    for path in arguments.list("label-file") {
        lines(path)?.iter().for_each(|line| add(line));
    }
    arguments.list("label").iter().for_each(|label| add(label));
    Ok(labels)
}

/// The pairs of a flag that takes `KEY=VALUE`; what a key alone means is for the engine to say.
pub(super) fn pairs(arguments: &Arguments, flag: &str) -> Map<String, Value> {
    arguments
        .list(flag)
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect()
}

/// The lines of a file that are neither empty nor comments.
fn lines(path: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::json;

    #[test]
    fn reads_files_before_flags() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, "\u{feff}# comment\n\n  A=1 # not a comment\nDORY_SURELY_UNSET\nPATH\nB=x=y\n")
            .unwrap();
        let path = path.to_str().unwrap();
        let body =
            parse(&["-e", "A=2", "-e", "DORY_UNSET", "--env-file", path, "--label-file", path, "x"]).unwrap();
        let own_path = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(body["Env"], json!(["A=1 # not a comment", own_path, "B=x=y", "A=2", "DORY_UNSET"]));
        assert_eq!(body["Labels"]["B"], "x=y");
    }

    #[test]
    fn refuses_what_cannot_be_a_variable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, "A B=1\n").unwrap();
        assert_eq!(
            parse(&["--env-file", path.to_str().unwrap(), "x"]).unwrap_err(),
            "variable 'A B' contains whitespaces"
        );
        assert_eq!(
            parse(&["-e", "=x", "x"]).unwrap_err(),
            "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x"
        );
    }
}
