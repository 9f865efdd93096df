//! The values of log options, read as dockerd reads them.

use std::collections::BTreeMap;

use dory_types::parse_bool;

use crate::config::{FileOptions, LogConfigError};

/// What `mode=non-blocking` keeps in memory where `max-buffer-size` says nothing; dockerd's.
const DEFAULT_BUFFER: u64 = 1_000_000;

/// Options of `json-file`.
pub(crate) fn json_file(options: &BTreeMap<String, String>) -> Result<FileOptions, LogConfigError> {
    let mut parsed = FileOptions::default();
    for (option, value) in options {
        match option.as_str() {
            // Chosen into the records' attributes.
            "labels" | "labels-regex" | "env" | "env-regex" | "tag" => {}
            _ if apply(&mut parsed, option, value)? => {}
            _ => return Err(LogConfigError::UnknownJsonFileOption(option.clone())),
        }
    }
    if parsed.compress && (parsed.max_file < 2 || parsed.max_size.is_none()) {
        return Err(LogConfigError::NothingToCompress);
    }
    Ok(parsed)
}

/// Options of `local`; its records have no attributes.
pub(crate) fn local(options: &BTreeMap<String, String>) -> Result<FileOptions, LogConfigError> {
    let mut parsed = FileOptions::LOCAL;
    for (option, value) in options {
        let known = apply(&mut parsed, option, value).map_err(|error| match error {
            LogConfigError::Size(text) => LogConfigError::LocalSize(text),
            LogConfigError::FileCount(text) => LogConfigError::LocalFileCount(text),
            LogConfigError::Compress(text) => LogConfigError::LocalCompress(text),
            other => other,
        })?;
        if !known {
            return Err(LogConfigError::UnknownLocalOption(option.clone()));
        }
    }
    if parsed.compress && parsed.max_file < 2 {
        return Err(LogConfigError::OnlyFileCompressed);
    }
    Ok(parsed)
}

/// Takes in an option that every driver with files has; false for any other.
fn apply(parsed: &mut FileOptions, option: &str, value: &str) -> Result<bool, LogConfigError> {
    match option {
        // As `buffer` reads them.
        "mode" | "max-buffer-size" => {}
        "max-size" => parsed.max_size = Some(parse_size(value)?),
        "max-file" => parsed.max_file = parse_file_count(value)?,
        "compress" => {
            parsed.compress = parse_bool(value).ok_or_else(|| LogConfigError::Compress(value.to_owned()))?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The size of the buffer of `mode=non-blocking`, in bytes; `None` in the other mode. The same for every driver.
pub(crate) fn buffer(options: &BTreeMap<String, String>) -> Result<Option<u64>, LogConfigError> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(LogConfigError::Mode(mode.to_owned()));
    }
    match options.get("max-buffer-size") {
        None => Ok((mode == "non-blocking").then_some(DEFAULT_BUFFER)),
        Some(_) if mode != "non-blocking" => Err(LogConfigError::BufferSize),
        Some(size) => match parse_size(size) {
            Ok(size) => Ok(Some(size)),
            Err(LogConfigError::ZeroSize) => Ok(Some(0)),
            Err(_) => Err(LogConfigError::BufferSizeText(size.clone())),
        },
    }
}

/// Go-units `FromHumanSize`: `10`, `10k`, `1.5 MB`, `10MiB`; every unit is a power of 1000.
fn parse_size(text: &str) -> Result<u64, LogConfigError> {
    let invalid = || LogConfigError::Size(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let trimmed = lower.strip_suffix('b').unwrap_or(&lower);
    let trimmed = trimmed.strip_suffix('i').unwrap_or(trimmed);
    let (digits, unit) = match trimmed.char_indices().next_back() {
        Some((index, letter)) if letter.is_ascii_alphabetic() => (&trimmed[..index], letter),
        _ => (trimmed, '1'),
    };
    let power = "1kmgtp".find(unit).ok_or_else(invalid)?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    if !digits.starts_with(|first: char| first.is_ascii_digit())
        || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(invalid());
    }
    let size = digits.parse::<f64>().map_err(|_| invalid())? * 1000_f64.powi(power as i32);
    if size < 1.0 { Err(LogConfigError::ZeroSize) } else { Ok(size as u64) }
}

fn parse_file_count(text: &str) -> Result<u32, LogConfigError> {
    let count: i64 = text.parse().map_err(|_| LogConfigError::FileCount(text.to_owned()))?;
    u32::try_from(count).ok().filter(|&count| count > 0).ok_or(LogConfigError::NoFile)
}
