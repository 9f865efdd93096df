//! Points in time as Go prints them, and the forms in which `since` and `until` arrive.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, Month, OffsetDateTime, Time, UtcOffset};

use crate::GoDuration;

/// The text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// No form matches; dockerd's message for filters.
    #[error("failed to parse value as time or duration: {0:?}")]
    InvalidTime(String),
    /// Not seconds since 1970 with an optional fraction; Go's message.
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    InvalidUnix(String),
}

/// A point in time with nanoseconds. Its text is Go's RFC 3339 form, in which zeros at the end of the fraction are
/// left out; "never" is [`Timestamp::ZERO`], `0001-01-01T00:00:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// Go's zero time, which Docker's answers use for "never".
    pub const ZERO: Self = Self(zero());

    /// The present, in UTC.
    pub fn now() -> Self {
        Self(OffsetDateTime::now_utc())
    }

    /// True for [`Timestamp::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The point `seconds` and `nanoseconds` after 1970; `None` outside the years 1 to 9999.
    pub fn from_unix(seconds: i64, nanoseconds: i64) -> Option<Self> {
        let start = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        let instant = start.checked_add(Duration::nanoseconds(nanoseconds))?;
        (instant.year() >= 1).then_some(Self(instant))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn unix_seconds(&self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Nanoseconds since 1970, clamped to 64 bits (the years 1678 to 2262).
    pub fn unix_nanoseconds(&self) -> i64 {
        let nanoseconds = self.0.unix_timestamp_nanos();
        i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
    }

    /// Nanoseconds within the second.
    pub fn subsecond_nanoseconds(&self) -> u32 {
        self.0.nanosecond()
    }

    /// The time that has passed since `earlier`; zero where `earlier` is later.
    pub fn since(&self, earlier: Self) -> std::time::Duration {
        (self.0 - earlier.0).try_into().unwrap_or_default()
    }

    /// The point `duration` later; `None` past the year 9999.
    pub fn checked_add(&self, duration: std::time::Duration) -> Option<Self> {
        self.0.checked_add(duration.try_into().ok()?).map(Self)
    }

    /// Reads seconds since 1970 with an optional fraction of up to nine digits, the form of the API's `since` and
    /// `until` parameters.
    ///
    /// # Errors
    /// [`TimestampError::InvalidUnix`].
    pub fn parse_unix(text: &str) -> Result<Self, TimestampError> {
        let invalid = || TimestampError::InvalidUnix(text.to_owned());
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
        if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let nanoseconds = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
        Self::from_unix(seconds, nanoseconds).ok_or_else(invalid)
    }

    /// Reads a filter's or a flag's point in time: a Go duration before `now` (`10m`), RFC 3339 and its shortened
    /// forms (`2006-01-02T15:04`, `2006-01-02`; UTC where no zone is given), or [`Timestamp::parse_unix`]'s form.
    ///
    /// # Errors
    /// [`TimestampError::InvalidTime`].
    pub fn parse_relative(text: &str, now: Self) -> Result<Self, TimestampError> {
        let invalid = || TimestampError::InvalidTime(text.to_owned());
        if text != "0"
            && let Ok(GoDuration(nanoseconds)) = text.parse()
        {
            let instant = now.0.checked_sub(Duration::nanoseconds(nanoseconds)).ok_or_else(invalid)?;
            return Ok(Self(instant));
        }
        if let Some(instant) = parse_calendar(text) {
            return Ok(Self(instant));
        }
        Self::parse_unix(text).map_err(|_| invalid())
    }
}

/// Midnight of the first day of the year 1, in UTC.
const fn zero() -> OffsetDateTime {
    let Ok(date) = Date::from_calendar_date(1, Month::January, 1) else { panic!("the date exists") };
    date.midnight().assume_utc()
}

/// Reads RFC 3339 and what Docker allows to be left out of it: seconds, minutes, the whole time, the zone.
fn parse_calendar(text: &str) -> Option<OffsetDateTime> {
    if let Ok(instant) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(instant);
    }
    let (date, rest) = text.split_at_checked(10)?;
    let (time, offset) = split_offset(rest)?;
    let mut fields = date.split('-');
    let year: i32 = fields.next()?.parse().ok()?;
    let month: u8 = fields.next()?.parse().ok()?;
    let day: u8 = fields.next()?.parse().ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let date_time = date.with_time(parse_clock(time)?).assume_offset(offset);
    fields.next().is_none().then_some(date_time)
}

/// Splits a trailing `Z` or `+01:00` off; no zone means UTC.
fn split_offset(text: &str) -> Option<(&str, UtcOffset)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, UtcOffset::UTC));
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, UtcOffset::UTC)) };
    let (time, offset) = text.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let hours: i8 = hours.parse().ok()?;
    let minutes: i8 = minutes.parse().ok()?;
    Some((time, UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()?))
}

/// Reads `T15`, `T15:04`, `T15:04:05` or `T15:04:05.25`; nothing means midnight.
fn parse_clock(text: &str) -> Option<Time> {
    if text.is_empty() {
        return Some(Time::MIDNIGHT);
    }
    let clock = text.strip_prefix('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if fraction.len() > 9 {
        return None;
    }
    let nanosecond = format!("{fraction:0<9}").parse().ok()?;
    let mut fields = [0_u8; 3];
    for (index, field) in clock.split(':').enumerate() {
        *fields.get_mut(index)? = field.parse().ok()?;
    }
    Time::from_hms_nano(fields[0], fields[1], fields[2], nanosecond).ok()
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = self.0;
        write!(
            formatter,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            instant.year(),
            u8::from(instant.month()),
            instant.day(),
            instant.hour(),
            instant.minute(),
            instant.second()
        )?;
        if instant.nanosecond() != 0 {
            let fraction = format!("{:09}", instant.nanosecond());
            write!(formatter, ".{}", fraction.trim_end_matches('0'))?;
        }
        let (hours, minutes, _) = instant.offset().as_hms();
        if (hours, minutes) == (0, 0) {
            return formatter.write_str("Z");
        }
        let sign = if instant.offset().is_negative() { '-' } else { '+' };
        write!(formatter, "{sign}{:02}:{:02}", hours.unsigned_abs(), minutes.unsigned_abs())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Timestamp({self})")
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads RFC 3339 with or without a fraction.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(Self)
            .map_err(|_| TimestampError::InvalidTime(text.to_owned()))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(instant: OffsetDateTime) -> Self {
        Self(instant)
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        Self(time.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        let cases = [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 120_000_000, "2023-11-14T22:13:20.12Z"),
            (1_700_000_000, 1, "2023-11-14T22:13:20.000000001Z"),
        ];
        for (seconds, nanoseconds, text) in cases {
            let timestamp = Timestamp::from_unix(seconds, nanoseconds).unwrap();
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), timestamp);
        }
        assert_eq!(Timestamp::ZERO.to_string(), "0001-01-01T00:00:00Z");
        assert!("0001-01-01T00:00:00Z".parse::<Timestamp>().unwrap().is_zero());
        assert_eq!(
            "2024-01-02T03:04:05.5-07:30".parse::<Timestamp>().unwrap().to_string(),
            "2024-01-02T03:04:05.5-07:30"
        );
    }

    #[test]
    fn reads_unix_times() {
        assert_eq!(Timestamp::parse_unix("12.5").unwrap().unix_nanoseconds(), 12_500_000_000);
        assert_eq!(Timestamp::parse_unix("12.000000007").unwrap().subsecond_nanoseconds(), 7);
        for wrong in ["", "a", "1.x", "1.0123456789", "99999999999999"] {
            assert!(Timestamp::parse_unix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_relative_and_shortened_times() {
        let now = Timestamp::from_unix(1_000_000_000, 0).unwrap();
        let cases = [
            ("10m", 1_000_000_000 - 600),
            ("-10m", 1_000_000_000 + 600),
            ("0", 0),
            ("1136073600", 1_136_073_600),
            ("2006-01-01", 1_136_073_600),
            ("2006-01-01Z", 1_136_073_600),
            ("2006-01-01T01", 1_136_077_200),
            ("2006-01-01T01:01", 1_136_077_260),
            ("2006-01-01T01:01:05", 1_136_077_265),
            ("2006-01-01T01:00+01:00", 1_136_073_600),
            ("2006-01-01T01:01:05Z", 1_136_077_265),
        ];
        for (text, seconds) in cases {
            let timestamp = Timestamp::parse_relative(text, now).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(timestamp.unix_seconds(), seconds, "{text}");
        }
        assert_eq!(
            Timestamp::parse_relative("yesterday", now).unwrap_err().to_string(),
            "failed to parse value as time or duration: \"yesterday\""
        );
        assert!(Timestamp::parse_relative("2006-13-01", now).is_err());
        assert!(Timestamp::parse_relative("2006-01-01T25", now).is_err());
    }

    #[test]
    fn measures_what_has_passed() {
        let earlier = Timestamp::from_unix(10, 0).unwrap();
        let later = Timestamp::from_unix(12, 500_000_000).unwrap();
        assert_eq!(later.since(earlier), std::time::Duration::from_millis(2_500));
        assert_eq!(earlier.since(later), std::time::Duration::ZERO);
    }
}
