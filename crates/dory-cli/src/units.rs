//! Sizes and durations as people write and read them.

/// Bytes in decimal units with four significant digits: `1.984MB`.
pub(crate) fn size(bytes: f64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 4)
}

/// Bytes in decimal units with three significant digits, as in lists of images: `1.98MB`.
pub(crate) fn short_size(bytes: f64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Bytes in binary units: `23.54GiB`.
pub(crate) fn binary_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// Go's `%.{digits}g` for values below 10^digits.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    // Rounding may carry into one digit more: 9.9996 with four digits is 10.
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A time span in words: `About an hour`, `10 minutes`.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as i64);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Bytes from `64m`, `1.5g`, `2GiB`: every unit is a power of 1024. `-1` means unlimited where that is allowed.
///
/// # Errors
/// Docker's own text.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let lower = text.to_ascii_lowercase();
    let trimmed = lower.strip_suffix('b').unwrap_or(&lower);
    let trimmed = trimmed.strip_suffix('i').unwrap_or(trimmed);
    let (digits, unit) = match trimmed.chars().next_back() {
        Some(letter) if letter.is_ascii_alphabetic() => (&trimmed[..trimmed.len() - 1], letter),
        _ => (trimmed, '1'),
    };
    let power = "1kmgtp".find(unit).ok_or_else(invalid)?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(invalid());
    }
    let value: f64 = digits.parse().map_err(|_| invalid())?;
    Ok((value * 1024_f64.powi(power as i32)) as i64)
}

/// As [`parse_bytes`], with `-1` for no limit.
///
/// # Errors
/// Docker's own text.
pub(crate) fn parse_bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse_bytes(text) }
}

/// Nanoseconds from Go's form of a duration: `1m30s`, `1.5h`, `300ms`, `0`.
///
/// # Errors
/// Go's own text.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration \"{text}\"");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .ok_or_else(|| format!("time: missing unit in duration \"{text}\""))?;
        let value: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => return Err(format!("time: unknown unit \"{other}\" in duration \"{text}\"")),
        };
        total += value * unit;
        rest = &rest[end..];
    }
    Ok((sign * total) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_sizes() {
        for (bytes, long, short, binary) in [
            (0.0, "0B", "0B", "0B"),
            (999.0, "999B", "999B", "999B"),
            (1_984_000.0, "1.984MB", "1.98MB", "1.892MiB"),
            (10_000_000.0, "10MB", "10MB", "9.537MiB"),
            (123_456_789.0, "123.5MB", "123MB", "117.7MiB"),
            (25_276_000_000.0, "25.28GB", "25.3GB", "23.54GiB"),
        ] {
            assert_eq!(
                (size(bytes), short_size(bytes), binary_size(bytes)),
                (long.into(), short.into(), binary.into())
            );
        }
    }

    #[test]
    fn writes_durations() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (600, "10 minutes"),
            (3600, "About an hour"),
            (7300, "2 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (100 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn reads_bytes() {
        for (text, bytes) in
            [("0", 0), ("64m", 64 << 20), ("1.5G", 3 << 29), ("2 kb", 2048), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "x", "-1", "1x", "m", "1..2"] {
            assert_eq!(parse_bytes(wrong), Err(format!("invalid size: '{wrong}'")));
        }
        assert_eq!(parse_bytes_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn reads_durations() {
        for (text, nanoseconds) in
            [("0", 0), ("1m30s", 90_000_000_000), ("300ms", 300_000_000), ("-1.5h", -5_400_000_000_000)]
        {
            assert_eq!(parse_duration(text), Ok(nanoseconds), "{text}");
        }
        for wrong in ["", "5", "5x", "s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
