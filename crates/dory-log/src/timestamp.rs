//! Points in time with nanoseconds, in the two text forms that Docker uses.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
const NANOS: u32 = 1_000_000_000;
/// Seconds in a day.
const DAY: i64 = 86_400;
/// Length of `2006-01-02T15:04:05`.
const DATE_LENGTH: usize = 19;

/// A point in time (UTC): seconds since 1970 and nanoseconds within the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Timestamp {
    /// The wall clock's time.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 }
    }

    /// The time `seconds` and `nanoseconds` after 1970; `None` for a billion nanoseconds or more, and outside the
    /// years 0 to 9999, which RFC 3339 cannot write.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Option<Self> {
        (nanoseconds < NANOS && (-62_167_219_200..253_402_300_800).contains(&seconds))
            .then_some(Self { seconds, nanoseconds })
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    pub fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// Parses the form of the API's `since` and `until`: seconds, optionally with a fraction (`1700000000.000000001`).
    pub fn parse_unix(text: &str) -> Option<Self> {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let nanoseconds = parse_fraction(fraction.as_bytes())?;
        Self::from_unix(seconds.parse().ok()?, nanoseconds)
    }

    /// Parses RFC 3339 with any number of decimals and any offset.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (date, rest) = bytes.split_at_checked(DATE_LENGTH)?;
        for (index, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
            if date[index] != separator {
                return None;
            }
        }
        let field = |from: usize, to: usize| number(&date[from..to]);
        let (month, day) = (field(5, 7)?, field(8, 10)?);
        let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction, zone) = match rest.strip_prefix(b".") {
            Some(rest) => rest.split_at(rest.iter().position(|byte| !byte.is_ascii_digit())?),
            None => (&rest[..0], rest),
        };
        let seconds = days_from_civil(field(0, 4)?, month, day) * DAY + hour * 3600 + minute * 60 + second;
        Self::from_unix(seconds - parse_offset(zone)?, parse_fraction(fraction)?)
    }

    /// Appends the form of log files: Go's `time.RFC3339Nano` in UTC, trailing zeros of the fraction left out.
    pub fn append_rfc3339(self, text: &mut Vec<u8>) {
        text.extend_from_slice(&self.date());
        self.append_fraction(text);
    }

    /// Appends the form of `docker logs --timestamps`: always nine decimals.
    pub fn append_rfc3339_fixed(self, text: &mut Vec<u8>) {
        text.extend_from_slice(&self.date());
        text.push(b'.');
        text.extend_from_slice(&decimals(self.nanoseconds));
        text.push(b'Z');
    }

    /// `2006-01-02T15:04:05`.
    pub(crate) fn date(self) -> [u8; DATE_LENGTH] {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(DAY));
        let second = self.seconds.rem_euclid(DAY);
        let mut date = *b"0000-00-00T00:00:00";
        two_digits(&mut date[0..2], year / 100);
        two_digits(&mut date[2..4], year % 100);
        two_digits(&mut date[5..7], month);
        two_digits(&mut date[8..10], day);
        two_digits(&mut date[11..13], second / 3600);
        two_digits(&mut date[14..16], second / 60 % 60);
        two_digits(&mut date[17..19], second % 60);
        date
    }

    /// Appends `.123456Z`, or `Z` at a whole second.
    pub(crate) fn append_fraction(self, text: &mut Vec<u8>) {
        if self.nanoseconds != 0 {
            let digits = decimals(self.nanoseconds);
            let length = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
            text.push(b'.');
            text.extend_from_slice(&digits[..length]);
        }
        text.push(b'Z');
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(30);
        self.append_rfc3339(&mut text);
        formatter.write_str(&String::from_utf8_lossy(&text))
    }
}

/// The nine decimals of `nanoseconds`.
fn decimals(nanoseconds: u32) -> [u8; 9] {
    let mut digits = [b'0'; 9];
    let mut rest = nanoseconds;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

fn two_digits(target: &mut [u8], value: i64) {
    target[0] = b'0' + (value / 10) as u8;
    target[1] = b'0' + (value % 10) as u8;
}

/// The value of a text of digits only.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0_i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

/// Nanoseconds from the digits after the point; further digits than nine are cut off, as Go does.
fn parse_fraction(digits: &[u8]) -> Option<u32> {
    number(digits.get(..digits.len().min(9))?)?;
    let mut padded = [b'0'; 9];
    let length = digits.len().min(9);
    padded[..length].copy_from_slice(&digits[..length]);
    number(&padded).map(|value| value as u32)
}

/// Seconds east of UTC from `Z` or `+hh:mm`.
fn parse_offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let offset = number(&[*h1, *h2])? * 3600 + number(&[*m1, *m2])? * 60;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the proleptic Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day is the last day of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year.div_euclid(400) * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_parses_rfc3339() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_700_000_000, 590_755_690, "2023-11-14T22:13:20.59075569Z"),
            (1_709_251_199, 100_000_000, "2024-02-29T23:59:59.1Z"),
            (4_102_444_800, 0, "2100-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
        ] {
            let time = Timestamp::from_unix(seconds, nanoseconds).unwrap();
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Some(time), "{text}");
        }
    }

    #[test]
    fn parses_offsets_and_refuses_nonsense() {
        let time = Timestamp::from_unix(1_700_000_000, 500_000_000);
        assert_eq!(Timestamp::parse_rfc3339("2023-11-15T00:13:20.5+02:00"), time);
        assert_eq!(Timestamp::parse_rfc3339("2023-11-14T20:43:20.50000000099-01:30"), time);
        for wrong in
            ["", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z", "2023-11-14T22:13:20.Q", "x"]
        {
            assert_eq!(Timestamp::parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parses_unix_seconds() {
        assert_eq!(Timestamp::parse_unix("17"), Timestamp::from_unix(17, 0));
        assert_eq!(Timestamp::parse_unix("17.000000001"), Timestamp::from_unix(17, 1));
        assert_eq!(Timestamp::parse_unix("17.5"), Timestamp::from_unix(17, 500_000_000));
        for wrong in ["", ".", "x", "1.x", "99999999999999"] {
            assert_eq!(Timestamp::parse_unix(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fixed_form_keeps_zeros() {
        let mut text = Vec::new();
        Timestamp::from_unix(0, 10).unwrap().append_rfc3339_fixed(&mut text);
        assert_eq!(text, b"1970-01-01T00:00:00.000000010Z");
    }
}
