//! Points in time: `--since`, `--until`, and how lists show them.

use anyhow::{Result, bail};
use dory_log::Timestamp;

use crate::units;

/// The API's form (seconds and nanoseconds since 1970) of what a user may write: a date with or without a time and a
/// zone, seconds, or a time span before `now`.
///
/// # Errors
/// A text that names the value.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<String> {
    if Timestamp::parse_unix(text).is_some() {
        return Ok(text.to_owned());
    }
    if let Ok(span) = units::parse_duration(text) {
        let nanoseconds =
            i128::from(now.seconds()) * 1_000_000_000 + i128::from(now.nanoseconds()) - i128::from(span);
        let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
        return Ok(format!("{seconds}.{rest:09}"));
    }
    match parse_date(text) {
        Some(time) => Ok(format!("{}.{:09}", time.seconds(), time.nanoseconds())),
        None => bail!("failed to parse value as time or duration: \"{text}\""),
    }
}

/// `2006-01-02[T15[:04[:05[.999]]]][Z|+01:00]`; without a zone, UTC.
fn parse_date(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_at_checked(10)?;
    let zone = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone);
    let zone = if zone.is_empty() { "Z" } else { zone };
    let rest = match time.len() {
        0 => "T00:00:00",
        3 => ":00:00",
        6 => ":00",
        _ => "",
    };
    Timestamp::parse_rfc3339(&format!("{date}{time}{rest}{zone}"))
}

/// `2026-11-23 14:21:29 +0000 UTC`, as lists show dates. COMPAT: always in UTC, where Docker uses the local zone.
pub(super) fn date(seconds: i64) -> String {
    match Timestamp::from_unix(seconds, 0) {
        Some(time) => time.to_string().replace('T', " ").replace('Z', " +0000 UTC"),
        None => "N/A".to_owned(),
    }
}

/// `5 minutes ago`.
pub(super) fn ago(seconds: i64) -> String {
    format!("{} ago", units::duration(Timestamp::now().seconds() - seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let now = Timestamp::from_unix(1_700_000_000, 500_000_000).unwrap();
        for (text, expected) in [
            ("1600000000", "1600000000"),
            ("10m", "1699999400.500000000"),
            ("2023-11-14", "1699920000.000000000"),
            ("2023-11-14T22", "1699999200.000000000"),
            ("2023-11-14T22:13", "1699999980.000000000"),
            ("2023-11-14T22:13:20.25", "1700000000.250000000"),
            ("2023-11-14T22:13:20+01:00", "1699996400.000000000"),
        ] {
            assert_eq!(moment(text, now).unwrap(), expected, "{text}");
        }
        assert!(moment("yesterday", now).is_err());
        assert_eq!(date(0), "1970-01-01 00:00:00 +0000 UTC");
    }
}
