//! `--security-opt`.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Object;
use crate::data::Data;
use crate::flags::Arguments;

/// Sets `SecurityOpt`, and the masked paths that `systempaths=unconfined` takes away.
///
/// A seccomp profile is a file of the caller's, so its content goes to the engine and not its name.
pub(super) fn set(arguments: &Arguments, host: &mut Object) -> Result<()> {
    let mut options = Vec::new();
    for option in arguments.list("security-opt") {
        if option == "systempaths=unconfined" {
            host.set("MaskedPaths", Vec::<String>::new());
            host.set("ReadonlyPaths", Vec::<String>::new());
            continue;
        }
        // Docker's first form had a colon.
        let (name, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        if value.is_empty() && name != "no-new-privileges" {
            bail!("Invalid --security-opt: \"{option}\"");
        }
        match (name, value) {
            ("seccomp", "unconfined" | "builtin") => options.push(option.clone()),
            ("seccomp", path) => options.push(format!("seccomp={}", read_profile(path)?)),
            _ => options.push(option.clone()),
        }
    }
    host.set_list("SecurityOpt", &options);
    Ok(())
}

fn read_profile(path: &str) -> Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("opening seccomp profile ({path}) failed"))?;
    let profile: Data = serde_json::from_str(&text)
        .with_context(|| format!("compacting json for seccomp profile ({path}) failed"))?;
    Ok(profile.to_json())
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::json;

    #[test]
    fn sends_profiles_and_unmasks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.json");
        std::fs::write(&path, "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n").unwrap();
        let seccomp = format!("seccomp={}", path.display());
        let body = parse(&[
            "--security-opt",
            &seccomp,
            "--security-opt",
            "no-new-privileges",
            "--security-opt",
            "systempaths=unconfined",
            "--security-opt",
            "seccomp=unconfined",
            "x",
        ])
        .unwrap();
        assert_eq!(
            body["HostConfig"]["SecurityOpt"],
            json!([
                r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#,
                "no-new-privileges",
                "seccomp=unconfined"
            ])
        );
        assert_eq!(body["HostConfig"]["MaskedPaths"], json!([]));
        assert!(parse(&["--security-opt", "nonsense", "x"]).is_err());
        assert!(parse(&["--security-opt", "seccomp=/no/such/file", "x"]).is_err());
    }
}
