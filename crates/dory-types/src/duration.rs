//! Durations as Go reads and prints them, and as `docker ps` shows them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The units of Go's `time.ParseDuration`, in nanoseconds; both signs for "micro" are in use.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The text is not a Go duration; Go's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("time: invalid duration {0:?}")]
pub struct DurationError(pub String);

/// A signed number of nanoseconds, written `1h30m`, `1.5s`, `-10m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

impl GoDuration {
    /// The duration, where it is not negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError(text.to_owned());
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned == "0" {
            return Ok(Self(0));
        }
        let total = parse_terms(unsigned).filter(|total| *total <= i64::MAX as u64).ok_or_else(invalid)?;
        let nanoseconds = total as i64;
        Ok(Self(if negative { -nanoseconds } else { nanoseconds }))
    }
}

/// The sum of terms such as `1h` and `.5s`, in nanoseconds; at least one is needed.
fn parse_terms(mut rest: &str) -> Option<u64> {
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end =
            rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end =
            after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(term(number, unit)?)?;
        rest = after;
    }
    Some(total)
}

/// `number`, which may have a fraction, times `unit` nanoseconds.
fn term(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond the 18th are worth less than a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let numerator: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = numerator * u128::from(unit) / 10_u128.pow(fraction.len() as u32);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

impl fmt::Display for GoDuration {
    /// Go's `Duration.String`: `0s`, `1.5ms`, `1h0m3s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if self.0 < 0 {
            formatter.write_str("-")?;
        }
        match nanoseconds {
            0 => return formatter.write_str("0s"),
            1..1_000 => return write!(formatter, "{nanoseconds}ns"),
            1_000..1_000_000 => return write!(formatter, "{}\u{b5}s", fraction(nanoseconds, 1_000)),
            1_000_000..1_000_000_000 => return write!(formatter, "{}ms", fraction(nanoseconds, 1_000_000)),
            _ => {}
        }
        let minutes = nanoseconds / 60_000_000_000;
        if minutes >= 60 {
            write!(formatter, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(formatter, "{}m", minutes % 60)?;
        }
        write!(formatter, "{}s", fraction(nanoseconds % 60_000_000_000, 1_000_000_000))
    }
}

/// `value / unit` with as many decimals as it has; `unit` is a power of ten.
fn fraction(value: u64, unit: u64) -> String {
    let decimals = unit.ilog10() as usize;
    let text = format!("{}.{:0decimals$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration in words, as in "Up 5 minutes" (`go-units` `HumanDuration`).
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Go rounds the hours to the nearest one, everything else down.
    let hours = (seconds + 1_800) / 3_600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1_440) => format!("{} weeks", hours / 24 / 7),
        (.., 1_440..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3_600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_go_durations() {
        let cases = [
            ("0", 0, "0s"),
            ("10m", 600_000_000_000, "10m0s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("-.5h", -1_800_000_000_000, "-30m0s"),
            ("+3ms20us", 3_020_000, "3.02ms"),
            ("7\u{3bc}s", 7_000, "7\u{b5}s"),
            ("12ns", 12, "12ns"),
            ("1.s", 1_000_000_000, "1s"),
        ];
        for (text, nanoseconds, printed) in cases {
            assert_eq!(text.parse(), Ok(GoDuration(nanoseconds)), "{text}");
            assert_eq!(GoDuration(nanoseconds).to_string(), printed);
        }
        for wrong in ["", "-", "10", "m", "1x", ".s", "1..2s", "1.2.3s", "1 s", "99999999999h", "1d"] {
            assert!(wrong.parse::<GoDuration>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn speaks_as_docker_ps() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (179, "2 minutes"),
            (3_600, "About an hour"),
            (3 * 3_600, "3 hours"),
            (49 * 3_600, "2 days"),
            (15 * 86_400, "2 weeks"),
            (70 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ];
        for (seconds, words) in cases {
            assert_eq!(human_duration(Duration::from_secs(seconds)), words);
        }
    }
}
