//! Byte sizes as Docker reads and prints them (`go-units`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number, a negative one, or one too large.
    #[error("invalid size: '{0}'")]
    InvalidSize(String),
    /// The unit behind the number is unknown.
    #[error("invalid suffix: '{0}'")]
    InvalidSuffix(String),
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Decimal units and four significant digits: `1.235MB` (`docker system df`, progress).
    pub fn decimal(self) -> String {
        self.decimal_with_precision(4)
    }

    /// Decimal units and `precision` significant digits; `docker images` shows three.
    pub fn decimal_with_precision(self, precision: usize) -> String {
        scale(self.0, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], precision)
    }

    /// Binary units and four significant digits: `62.5MiB` (`docker stats`, `docker info`).
    pub fn binary(self) -> String {
        scale(self.0, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.decimal())
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// Reads `64m`, `1.5GiB`, `512`: every unit is binary, as for `--memory`.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let invalid = || SizeError::InvalidSize(text.to_owned());
        let end = text
            .rfind(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | ' '))
            .ok_or_else(invalid)?;
        let (number, suffix) = text.split_at(end + 1);
        // One space may stand between the number and its unit, none elsewhere.
        let number = number.strip_suffix(' ').unwrap_or(number);
        if !number.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return Err(invalid());
        }
        let factor = binary_unit(suffix).ok_or_else(|| SizeError::InvalidSuffix(suffix.to_owned()))?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(invalid);
        }
        let value = number.parse::<f64>().map_err(|_| invalid())? * factor as f64;
        if value.is_finite() && value < i64::MAX as f64 { Ok(Self(value as u64)) } else { Err(invalid()) }
    }
}

/// The bytes of one `suffix`: empty, `b`, or a letter of `kmgtp` with `b` or `ib` behind it.
fn binary_unit(suffix: &str) -> Option<u64> {
    let lower = suffix.to_ascii_lowercase();
    let mut letters = lower.chars();
    let exponent = match letters.next() {
        None => return Some(1),
        Some('b') => return letters.as_str().is_empty().then_some(1),
        Some(letter) => "kmgtp".find(letter)? + 1,
    };
    matches!(letters.as_str(), "" | "b" | "ib").then(|| 1 << (10 * exponent))
}

/// `size` in the largest unit of which it has one, with C's `%.*g`.
fn scale(size: u64, base: f64, units: &[&str], precision: usize) -> String {
    let mut value = size as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant_digits(value, precision), units[unit])
}

/// `value` below 1024 as C's `%.{precision}g` prints it: no trailing zeros, an exponent where digits run out.
fn significant_digits(value: f64, precision: usize) -> String {
    let scientific = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent >= precision as i32 {
        return format!("{}e+{exponent:02}", trim_zeros(mantissa));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

/// `number` without zeros at the end of its fraction.
fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        let cases = [
            ("0", 0),
            ("64m", 64 << 20),
            ("64 MB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("1kb", 1024),
            ("5B", 5),
            (".5k", 512),
            ("2p", 2 << 50),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        for wrong in ["", "m", "-1", "+1", "1 2", "1..2", "99999999999999999999p", "1x", "1kx", "1bb", "inf"]
        {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
        assert_eq!("1x".parse::<ByteSize>().unwrap_err().to_string(), "invalid suffix: 'x'");
        assert_eq!("q".parse::<ByteSize>().unwrap_err().to_string(), "invalid size: 'q'");
    }

    #[test]
    fn prints_sizes() {
        let cases = [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB"), (4_260_000, "4.26MB")];
        for (bytes, text) in cases {
            assert_eq!(ByteSize(bytes).decimal(), text);
        }
        assert_eq!(ByteSize(77_812_345).decimal_with_precision(3), "77.8MB");
        assert_eq!(ByteSize(999_900).decimal_with_precision(3), "1e+03kB");
        assert_eq!(ByteSize(62 << 20 | 1 << 19).binary(), "62.5MiB");
        assert_eq!(ByteSize(1 << 10).binary(), "1KiB");
    }
}
