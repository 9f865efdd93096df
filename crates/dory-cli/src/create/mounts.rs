//! `-v`, `--mount` and `--tmpfs`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::Object;
use crate::flags::{Arguments, FlagError, parse_int};
use crate::units::parse_bytes;

/// What `-v` asks for.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// `SOURCE:TARGET[:OPTIONS]`.
    pub(super) binds: Vec<String>,
    /// Targets without a source.
    pub(super) anonymous: Map<String, Value>,
}

/// Sorts the values of `-v`; a source that begins with a dot is made absolute here, since only the caller knows its
/// working directory.
pub(super) fn volumes(values: &[String]) -> Result<Volumes> {
    let mut volumes = Volumes::default();
    for value in values {
        match value.split_once(':') {
            None => {
                volumes.anonymous.insert(value.clone(), json!({}));
            }
            Some((source, rest)) if source.starts_with('.') || source.starts_with('~') => {
                volumes.binds.push(format!("{}:{rest}", absolute(source)?));
            }
            Some(_) => volumes.binds.push(value.clone()),
        }
    }
    Ok(volumes)
}

fn absolute(path: &str) -> Result<String> {
    let full =
        std::path::absolute(Path::new(path)).with_context(|| format!("cannot find the path of `{path}`"))?;
    // `absolute` keeps `..`, whose meaning depends on links; the engine gets it as it is.
    full.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("the path `{}` is not UTF-8", path.display()))
}

/// The values of `--tmpfs`: paths and their options.
pub(super) fn tmpfs(values: &[String]) -> Map<String, Value> {
    values
        .iter()
        .map(|value| value.split_once(':').unwrap_or((value, "")))
        .map(|(path, options)| (path.to_owned(), options.into()))
        .collect()
}

/// The values of `--mount`.
pub(super) fn mounts(arguments: &Arguments) -> Result<Vec<Value>, FlagError> {
    arguments.parsed_list("mount", |text| mount(text).map_err(|error| error.to_string()))
}

fn mount(text: &str) -> Result<Value> {
    let (mut bind, mut volume, mut tmpfs, mut driver) =
        (Object::default(), Object::default(), Object::default(), Object::default());
    let mut mount = Object::default();
    let (mut labels, mut options) = (Map::new(), Map::new());
    let (mut kind, mut source) = ("volume".to_owned(), String::new());
    for field in csv_fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let needed = || value.with_context(|| format!("invalid field '{field}' must be a key=value pair"));
        let boolean = || match value {
            None | Some("1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(other) => bail!("invalid value for {key}: {other}"),
        };
        match key.as_str() {
            "type" => kind = needed()?.to_ascii_lowercase(),
            "source" | "src" => source = needed()?.to_owned(),
            "target" | "dst" | "destination" => mount.set("Target", needed()?),
            "readonly" | "ro" => mount.set("ReadOnly", boolean()?),
            "consistency" => mount.set("Consistency", needed()?),
            "bind-propagation" => bind.set("Propagation", needed()?),
            "bind-nonrecursive" => bind.set("NonRecursive", boolean()?),
            "bind-create-src" => bind.set("CreateMountpoint", boolean()?),
            "bind-recursive" => match needed()? {
                "enabled" => {}
                "disabled" => bind.set("NonRecursive", true),
                "writable" => bind.set("ReadOnlyNonRecursive", true),
                "readonly" => bind.set("ReadOnlyForceRecursive", true),
                other => bail!("invalid value for bind-recursive: {other}"),
            },
            "volume-nocopy" => volume.set("NoCopy", boolean()?),
            "volume-subpath" => volume.set("Subpath", needed()?),
            "volume-driver" => driver.set("Name", needed()?),
            "volume-label" | "volume-opt" => {
                let (name, value) = needed()?.split_once('=').unwrap_or((needed()?, ""));
                let map = if key == "volume-opt" { &mut options } else { &mut labels };
                map.insert(name.to_owned(), value.into());
            }
            "tmpfs-size" => tmpfs.set("SizeBytes", parse_bytes(needed()?).map_err(anyhow::Error::msg)?),
            "tmpfs-mode" => {
                tmpfs.set("Mode", u32::from_str_radix(needed()?, 8).context("invalid value for tmpfs-mode")?)
            }
            _ => bail!("unexpected key '{key}' in '{field}'"),
        }
    }
    if !mount.0.contains_key("Target") {
        bail!("target is required");
    }
    driver.set_map("Options", options);
    volume.set_map("DriverConfig", driver.0);
    volume.set_map("Labels", labels);
    for (name, object, owner) in
        [("BindOptions", bind, "bind"), ("VolumeOptions", volume, "volume"), ("TmpfsOptions", tmpfs, "tmpfs")]
    {
        if !object.0.is_empty() && owner != kind {
            bail!("cannot mix '{owner}-*' options with mount type '{kind}'");
        }
        mount.set_map(name, object.0);
    }
    if kind == "bind" && source.starts_with('.') {
        source = absolute(&source)?;
    }
    mount.set("Type", kind);
    if !source.is_empty() {
        mount.set("Source", source);
    }
    Ok(Value::Object(mount.0))
}

/// The fields of one line of comma-separated values, where a field may stand in double quotes.
pub(super) fn csv_fields(text: &str) -> Result<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        let at_start = fields.last().is_none_or(String::is_empty);
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => push(&mut fields, '"'),
            '"' if quoted || at_start => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => push(&mut fields, other),
        }
    }
    if quoted {
        bail!("a quote is not closed");
    }
    Ok(fields)
}

fn push(fields: &mut [String], letter: char) {
    if let Some(field) = fields.last_mut() {
        field.push(letter);
    }
}

/// `DEVICE:RATE` pairs for the block-device limits.
pub(super) fn device_rates(arguments: &Arguments, flag: &str, field: &str) -> Result<Vec<Value>, FlagError> {
    arguments.parsed_list(flag, |text| {
        let (path, rate) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
        if !path.starts_with("/dev/") {
            return Err(format!("bad format for device path: {text}"));
        }
        let rate = if flag.ends_with("bps") { parse_bytes(rate)? } else { parse_int(rate)? };
        Ok(json!({ "Path": path, field: rate }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::json;

    #[test]
    fn sorts_volumes() {
        let body = parse(&[
            "-v",
            "/data",
            "-v",
            "/a:/b:ro",
            "-v",
            "vol:/c",
            "-v",
            "./x:/d",
            "--tmpfs",
            "/t:size=1m",
            "x",
        ]);
        let body = body.unwrap();
        assert_eq!(body["Volumes"], json!({"/data": {}}));
        let here = std::env::current_dir().unwrap().join("x");
        assert_eq!(
            body["HostConfig"]["Binds"],
            json!(["/a:/b:ro", "vol:/c", format!("{}:/d", here.display())])
        );
        assert_eq!(body["HostConfig"]["Tmpfs"], json!({"/t": "size=1m"}));
    }

    #[test]
    fn reads_mounts() {
        for (text, expected) in [
            (
                "type=bind,source=/a,target=/b,readonly,bind-propagation=rshared",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                       "BindOptions": {"Propagation": "rshared"}}),
            ),
            (
                "src=v,dst=/b,volume-nocopy,volume-label=a=b,\"volume-opt=o=x,y\",volume-driver=local",
                json!({"Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": {"NoCopy": true,
                       "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"o": "x,y"}}}}),
            ),
            (
                "type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770",
                json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770}}),
            ),
        ] {
            assert_eq!(
                parse(&["--mount", text, "x"]).unwrap()["HostConfig"]["Mounts"],
                json!([expected]),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_broken_mounts() {
        for (text, reason) in [
            ("type=bind,source=/a", "target is required"),
            ("type=bind,nope=1,target=/b", "unexpected key 'nope' in 'nope=1'"),
            ("type=bind,target", "invalid field 'target' must be a key=value pair"),
            ("type=tmpfs,target=/a,volume-nocopy", "cannot mix 'volume-*' options with mount type 'tmpfs'"),
        ] {
            let message = format!("invalid argument \"{text}\" for \"--mount\" flag: {reason}");
            assert_eq!(parse(&["--mount", text, "x"]).unwrap_err(), message);
        }
    }
}
