//! Timestamps in requests (`rest-api.md` §8.3).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use primacy_model::parse_time;
use serde_json::Value;

use super::answer::Answer;

/// A point in time that somebody asked for, with the offset it was given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    local: DateTime,
    offset: Offset,
}

impl Schedule {
    /// Reads what [`parse_time`] does, with a zone. `what` is `switchover` or `restart`.
    pub(crate) fn parse(value: &Value, what: &str, now: Timestamp) -> Result<Self, Answer> {
        const UNPARSABLE: &str = "Unable to parse scheduled timestamp. \
                                  It should be in an unambiguous format, e.g. ISO 8601";
        let (local, offset) = value
            .as_str()
            .and_then(|text| parse_time(text, now.to_zoned(TimeZone::system()).date()))
            .ok_or_else(|| Answer::text(422, UNPARSABLE))?;
        let offset = offset.ok_or_else(|| {
            Answer::text(
                400,
                format!("Timezone information is mandatory for the scheduled {what}"),
            )
        })?;
        let instant = offset
            .to_timestamp(local)
            .map_err(|_| Answer::text(422, UNPARSABLE))?;
        if instant < now {
            return Err(Answer::text(
                422,
                format!("Cannot schedule {what} in the past"),
            ));
        }
        Ok(Schedule { local, offset })
    }
}

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]±HH:MM`.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.local.strftime("%Y-%m-%dT%H:%M:%S"))?;
        let micros = self.local.subsec_nanosecond() / 1000;
        if micros != 0 {
            write!(f, ".{micros:06}")?;
        }
        let seconds = self.offset.seconds();
        let (sign, seconds) = if seconds < 0 {
            ('-', -seconds)
        } else {
            ('+', seconds)
        };
        write!(f, "{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)?;
        match seconds % 60 {
            0 => Ok(()),
            rest => write!(f, ":{rest:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn schedules_are_read_and_echoed() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let unparsable = (
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        );
        let no_zone = (
            400,
            "Timezone information is mandatory for the scheduled restart",
        );
        let past = (422, "Cannot schedule restart in the past");
        let cases = [
            (json!("2040-01-01T10:00Z"), Ok("2040-01-01T10:00:00+00:00")),
            (
                json!("2040-01-01 10:00+02"),
                Ok("2040-01-01T10:00:00+02:00"),
            ),
            (
                json!("2040-01-01 10:00 +02:30"),
                Ok("2040-01-01T10:00:00+02:30"),
            ),
            (json!("20400101T100000Z"), Ok("2040-01-01T10:00:00+00:00")),
            (json!("20400101T1000-0330"), Ok("2040-01-01T10:00:00-03:30")),
            (
                json!("2040-01-01T10:00:00.5+01:00"),
                Ok("2040-01-01T10:00:00.500000+01:00"),
            ),
            (
                json!("2040-01-01T10:00:00.123456789Z"),
                Ok("2040-01-01T10:00:00.123456+00:00"),
            ),
            (
                json!("2040-01-01 10:00 UTC"),
                Ok("2040-01-01T10:00:00+00:00"),
            ),
            (
                json!("2040-01-01T10:00:00GMT"),
                Ok("2040-01-01T10:00:00+00:00"),
            ),
            // As `date -R` writes it.
            (
                json!("Sun, 01 Jan 2040 10:00:00 +0100"),
                Ok("2040-01-01T10:00:00+01:00"),
            ),
            (json!("2040-01-01T10:00"), Err(no_zone)),
            (json!("2040-01-01"), Err(no_zone)),
            (json!("2029-01-01T10:00Z"), Err(past)),
            (json!("2030-01-01T00:00:00+01:00"), Err(past)),
            (json!("tomorrow"), Err(unparsable)),
            (json!("2040-13-01T10:00Z"), Err(unparsable)),
            (json!(null), Err(unparsable)),
            (json!(5), Err(unparsable)),
            (json!(""), Err(unparsable)),
        ];
        for (value, expected) in cases {
            let read = Schedule::parse(&value, "restart", now).map(|schedule| schedule.to_string());
            let expected = expected
                .map(str::to_owned)
                .map_err(|(code, text)| Answer::text(code, text));
            assert_eq!(read, expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}|[0-9TZ:+. -]{0,30}") {
            let _ = Schedule::parse(&json!(text), "restart", Timestamp::UNIX_EPOCH);
        }
    }
}
