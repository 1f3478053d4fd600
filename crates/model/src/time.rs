use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::rfc2822;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// Reads a time as people and scripts write it to commands and the REST API (`patronictl.md` §7.6, `rest-api.md` §8.3): ISO
/// 8601, basic or extended, with `T` or a blank; a date alone, its midnight; `HH:MM[:SS]` alone, on the day `today`; what
/// `date -R` writes. A zone after it, `Z`, `UTC`, `GMT` or an offset such as `+2`, `-0330` or `+02:00`, may stand after a blank.
///
/// Without a zone the second is `None`. What Patroni reads beyond that (`Jan 1 2040 10pm`) is `None` as a whole.
pub fn parse_time(text: &str, today: Date) -> Option<(DateTime, Option<Offset>)> {
    let text = text.trim();
    if let Ok(zoned) = rfc2822::parse(text) {
        return Some((zoned.datetime(), Some(zoned.offset())));
    }
    let (local, offset) = split_zone(text);
    if local.contains('[') {
        return None;
    }
    if let Ok(pieces) = Pieces::parse(local) {
        let time = pieces.time().unwrap_or(Time::midnight());
        return Some((pieces.date().to_datetime(time), offset));
    }
    // Digits alone would be a year.
    let time: Time = local.contains(':').then(|| local.parse().ok())??;
    Some((today.to_datetime(time), offset))
}

/// What stands before the zone, and the zone. Text that is not quite a zone stays where it is, to be refused.
fn split_zone(text: &str) -> (&str, Option<Offset>) {
    for utc in ["UTC", "GMT", "Z", "z"] {
        if let Some(local) = text.strip_suffix(utc) {
            return (local.trim_end(), Some(Offset::UTC));
        }
    }
    // A dash before any time belongs to the date.
    let zone = text
        .rfind(['+', '-'])
        .filter(|at| text[..*at].contains([':', 'T']))
        .and_then(|at| Some((text[..at].trim_end(), parse_offset(&text[at..])?)));
    match zone {
        Some((local, offset)) => (local, Some(offset)),
        None => (text, None),
    }
}

/// `+2`, `+02`, `+0230`, `+02:30`.
fn parse_offset(text: &str) -> Option<Offset> {
    let digits = text.get(1..)?;
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
        Some(_) => return None,
        None if digits.len() == 4 => digits.split_at_checked(2)?,
        None => (digits, "0"),
    };
    let number = |text: &str| {
        let right = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        right.then(|| text.parse::<i32>().ok()).flatten()
    };
    let seconds = number(hours)? * 3600 + number(minutes).filter(|minutes| *minutes < 60)? * 60;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    Offset::from_seconds(sign * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_patroni_reads_them() {
        let today: Date = "2026-11-22".parse().unwrap();
        for (text, expected) in [
            ("10:30", Some("2026-11-22T10:30:00 -")),
            ("10:30Z", Some("2026-11-22T10:30:00 +00")),
            ("10:30 UTC", Some("2026-11-22T10:30:00 +00")),
            ("10:30+02:00", Some("2026-11-22T10:30:00 +02")),
            ("10:00-03", Some("2026-11-22T10:00:00 -03")),
            ("10:30:05.5", Some("2026-11-22T10:30:05.5 -")),
            ("2040-01-01", Some("2040-01-01T00:00:00 -")),
            ("2040-01-01 10:00", Some("2040-01-01T10:00:00 -")),
            ("2040-01-01 10:00 UTC", Some("2040-01-01T10:00:00 +00")),
            ("2040-01-01T10:00 GMT", Some("2040-01-01T10:00:00 +00")),
            ("2040-01-01T10:00z", Some("2040-01-01T10:00:00 +00")),
            ("2040-01-01T04:32:31-3", Some("2040-01-01T04:32:31 -03")),
            ("2040-01-01 10:00 +0230", Some("2040-01-01T10:00:00 +02:30")),
            ("2040-01-01T10:00:00,5", Some("2040-01-01T10:00:00.5 -")),
            ("20400101T100000Z", Some("2040-01-01T10:00:00 +00")),
            ("20400101 1000", Some("2040-01-01T10:00:00 -")),
            (
                "Sun, 01 Jan 2040 10:00:00 +0100",
                Some("2040-01-01T10:00:00 +01"),
            ),
            ("2040-01-01T10:00utc", None),
            ("2040-01-01T10:00+01:00[Europe/Berlin]", None),
            // Patroni reads these, and not as whoever writes them expects.
            ("2040-01-01 10:00 UTC+3", None),
            ("2040-01-01 10:00 CET", None),
            ("1030", None),
            ("10", None),
            ("2040-01-01 10:00 +99", None),
            ("10:00 +1:5", None),
            ("10:00 +é", None),
            ("Z", None),
            ("", None),
        ] {
            let read = parse_time(text, today).map(|(local, offset)| {
                let offset = offset.map_or("-".to_owned(), |offset| offset.to_string());
                format!("{local} {offset}")
            });
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
