use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use primacy_model::parse_time;

use crate::Failure;

/// `YYYY-MM-DD HH:MM:SS`, local time.
pub(crate) fn timestamp() -> String {
    Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// As [`timestamp`] with five digits of the second's fraction, cut: what `switchover` and its like print.
pub(crate) fn precise_timestamp() -> String {
    let mut text = Zoned::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
    text.pop();
    text
}

/// The time in a line of the client's own log.
pub(crate) fn log_timestamp() -> String {
    Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string()
}

/// An hour from now, in the form that prompts suggest.
pub(crate) fn suggestion() -> String {
    let now = Zoned::now();
    let later = now.checked_add(1.hour()).unwrap_or(now);
    later.strftime("%Y-%m-%dT%H:%M").to_string()
}

/// Reads when something is to happen: `None` for `now` or nothing; in the forms of [`parse_time`], and local time without a zone.
///
/// # Errors
/// The refusal that scripts know (`patronictl.md` §7.6 row 9).
pub(crate) fn parse(text: &str) -> Result<Option<Zoned>, Failure> {
    match text.trim() {
        "" | "now" => Ok(None),
        trimmed => parse_in(trimmed, &Zoned::now()).map(Some).ok_or_else(|| {
            Failure::refused(format!(
                "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)"
            ))
        }),
    }
}

/// Reads a moment of the past, in the same forms; a time of day alone is the last one of that kind.
pub(crate) fn past(text: &str) -> Result<Timestamp, Failure> {
    past_in(text.trim(), &Zoned::now()).ok_or_else(|| {
        Failure::refused(format!(
            "{text:?} is no time: write 2026-11-21T02:13, with an offset if it is not local time, or 02:13"
        ))
    })
}

fn past_in(text: &str, now: &Zoned) -> Option<Timestamp> {
    let at = parse_in(text, now)?;
    let yesterday = now.checked_sub(1.day()).ok()?;
    // Another day makes a difference only to a time of day.
    match parse_in(text, &yesterday)? {
        earlier if at > *now && earlier != at => Some(earlier.timestamp()),
        _ => Some(at.timestamp()),
    }
}

fn parse_in(text: &str, now: &Zoned) -> Option<Zoned> {
    let (local, offset) = parse_time(text, now.date())?;
    let zone = offset.map_or_else(|| now.time_zone().clone(), TimeZone::fixed);
    local.to_zoned(zone).ok()
}

/// ISO 8601 with an offset, as it goes over the wire; `separator` stands between date and time.
pub(crate) fn iso_8601(at: &Zoned, separator: char) -> String {
    let date = at.strftime("%Y-%m-%d");
    let time = at.strftime("%H:%M:%S");
    let fraction = match at.subsec_nanosecond() / 1000 {
        0 => String::new(),
        microseconds => format!(".{microseconds:06}"),
    };
    format!("{date}{separator}{time}{fraction}{}", at.strftime("%:z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Zoned {
        "2026-11-20T23:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn forms_of_a_time() {
        for (text, expected) in [
            (
                "2040-01-01T10:00:00+01:00",
                Some("2040-01-01T10:00:00+01:00"),
            ),
            ("2040-01-01 10:00+01", Some("2040-01-01T10:00:00+01:00")),
            ("2040-01-01T10:00Z", Some("2040-01-01T10:00:00+00:00")),
            ("2040-07-01T10:00", Some("2040-07-01T10:00:00+02:00")),
            ("2040-01-01", Some("2040-01-01T00:00:00+01:00")),
            (
                "2040-01-01T10:00:00.5Z",
                Some("2040-01-01T10:00:00.500000+00:00"),
            ),
            ("10:30", Some("2026-11-20T10:30:00+01:00")),
            ("2040-07-01 10:00", Some("2040-07-01T10:00:00+02:00")),
            ("2040-01-01 10:00 UTC", Some("2040-01-01T10:00:00+00:00")),
            // As `date -R` writes it.
            (
                "Sun, 01 Jan 2040 10:00:00 -0330",
                Some("2040-01-01T10:00:00-03:30"),
            ),
            ("tomorrow", None),
            ("2040-13-01", None),
        ] {
            let parsed = parse_in(text, &now()).map(|at| iso_8601(&at, 'T'));
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        assert!(parse("now").unwrap().is_none() && parse(" ").unwrap().is_none());
    }

    #[test]
    fn moments_of_the_past() {
        for (text, expected) in [
            ("22:30", Some("2026-11-20T21:30:00Z")),
            ("23:30", Some("2026-11-19T22:30:00Z")),
            ("22:30 UTC", Some("2026-11-19T22:30:00Z")),
            ("2026-11-19T02:13:05Z", Some("2026-11-19T02:13:05Z")),
            ("2026-11-19 02:13", Some("2026-11-19T01:13:00Z")),
            ("last night", None),
        ] {
            let at = past_in(text, &now()).map(|at| at.to_string());
            assert_eq!(at.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_have_their_length() {
        assert_eq!(timestamp().len(), 19);
        assert_eq!(precise_timestamp().len(), 25);
        assert_eq!(log_timestamp().len(), 23);
        assert_eq!(suggestion().len(), 16);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = parse(&text);
        }
    }
}
