//! Signals by name and number, as `--stop-signal` and `kill -s` take them.

use std::str::FromStr;

/// A signal's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// Cannot be caught.
    pub const KILL: Self = Self(9);
    /// Asks for the end.
    pub const TERM: Self = Self(15);
}

/// Not a signal; dockerd's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct SignalError(pub String);

/// signal(7), numbers of x86 and Arm.
const NAMES: [(&str, i32); 37] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let invalid = || SignalError(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            return if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(invalid()) };
        }
        let upper = text.to_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let real_time =
            [("RTMIN+", 34, 1), ("RTMAX-", 64, -1)].into_iter().find_map(|(prefix, base, sign)| {
                name.strip_prefix(prefix)?.parse::<i32>().ok().map(|offset| base + sign * offset)
            });
        real_time.filter(|number| (34..=64).contains(number)).map(Self).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_numbers() {
        for (text, number) in [("9", 9), ("TERM", 15), ("sigkill", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
            assert_eq!(text.parse::<Signal>().unwrap().0, number, "{text}");
        }
        for wrong in ["", "0", "65", "FOO", "SIGRTMIN+40", "-1"] {
            assert!(wrong.parse::<Signal>().is_err(), "{wrong}");
        }
    }
}
