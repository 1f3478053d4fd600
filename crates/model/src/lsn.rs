use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log, in bytes since the beginning of the timeline's history.
///
/// In the DCS and in REST answers it is a plain number; towards PostgreSQL and people it is `X/X`
/// (upper-case hexadecimal without padding), which is what `Display` and `FromStr` speak.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The invalid position: PostgreSQL's `0/0`.
    pub const ZERO: Lsn = Lsn(0);

    /// How many bytes `self` is behind `other`; zero when it is not behind.
    pub fn behind(self, other: Lsn) -> u64 {
        other.0.saturating_sub(self.0)
    }

    /// `None` for the invalid position, which everywhere means "not known".
    pub fn known(self) -> Option<Lsn> {
        (self != Lsn::ZERO).then_some(self)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not of the form `X/X` with hexadecimal halves of at most eight digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position: {0:?} (expected two hexadecimal numbers, as in 16/B374D848)")]
pub struct ParseLsnError(pub String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |part: &str| {
            let valid =
                (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            valid.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lsn_prints_as_postgresql_does() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn(1).to_string(), "0/1");
    }

    #[test]
    fn bad_text_is_refused() {
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "x/1",
            "1/123456789",
            "-1/0",
            " 1/0",
            "+1/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>(), Ok(Lsn(value)));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = text.parse::<Lsn>();
        }
    }
}
