use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde_json::{Map, Value, json};

use crate::{MemberName, Version};

/// The `/failover` key (`dcs.md` §2.6): an operator's wish to move the leadership. With a leader it is a
/// switchover, without one a manual failover (`ha.md` §11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverRequest {
    /// Who is to hand over.
    pub leader: Option<MemberName>,
    /// Who is to take over; `member` on the wire.
    pub candidate: Option<MemberName>,
    /// When; `None` is at once.
    pub scheduled_at: Option<ScheduledAt>,
    /// The version to compare with when clearing it.
    pub version: Version,
}

/// A point in time that somebody wrote into the DCS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduledAt {
    /// Understood.
    At {
        /// The instant.
        timestamp: Timestamp,
        /// The text as it was written, which is echoed to people.
        text: String,
    },
    /// Not a timestamp: the request is cleared (`ha.md` §11.3).
    Unusable(String),
}

impl ScheduledAt {
    /// Reads ISO 8601, with `T` or a blank between date and time; a missing offset means `zone`.
    pub fn parse(text: &str, zone: &TimeZone) -> Self {
        let trimmed = text.trim();
        let timestamp = trimmed.parse::<Timestamp>().ok().or_else(|| {
            let civil: civil::DateTime = trimmed.parse().ok()?;
            Some(civil.to_zoned(zone.clone()).ok()?.timestamp())
        });
        match timestamp {
            Some(timestamp) => ScheduledAt::At {
                timestamp,
                text: trimmed.to_owned(),
            },
            None => ScheduledAt::Unusable(text.to_owned()),
        }
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        match self {
            ScheduledAt::At { text, .. } | ScheduledAt::Unusable(text) => text,
        }
    }
}

/// What overwrites a request once it has been dealt with: the key is never deleted.
pub(crate) const NOTHING_REQUESTED: &str = "{}";

impl FailoverRequest {
    /// The value that clears the key.
    pub const CLEARED: &str = NOTHING_REQUESTED;

    /// Reads the key: JSON, or the legacy `leader:member` and `leader`. `None` when nothing is requested.
    pub fn parse(text: &str, version: Version) -> Option<Self> {
        let name = |name: &str| (!name.is_empty()).then(|| MemberName::from(name));
        let (leader, candidate, scheduled_at) = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => {
                let field = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
                let scheduled_at = match map.get("scheduled_at") {
                    None | Some(Value::Null) => None,
                    Some(Value::String(text)) => Some(ScheduledAt::parse(text, &TimeZone::UTC)),
                    Some(other) => Some(ScheduledAt::Unusable(other.to_string())),
                };
                (name(field("leader")), name(field("member")), scheduled_at)
            }
            Ok(_) => return None,
            Err(_) => {
                let (leader, candidate) = text.split_once(':').unwrap_or((text, ""));
                (name(leader.trim()), name(candidate.trim()), None)
            }
        };
        let meaningful = leader.is_some() || candidate.is_some();
        meaningful.then_some(FailoverRequest {
            leader,
            candidate,
            scheduled_at,
            version,
        })
    }

    /// The value to write; absent fields are left out.
    pub fn to_json(
        leader: Option<&str>,
        candidate: Option<&str>,
        scheduled_at: Option<&str>,
    ) -> String {
        let mut map = Map::new();
        for (key, value) in [
            ("leader", leader),
            ("member", candidate),
            ("scheduled_at", scheduled_at),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                map.insert(key.into(), json!(value));
            }
        }
        Value::Object(map).to_string()
    }

    /// Whether it names the leader that is to hand over.
    pub fn is_switchover(&self) -> bool {
        self.leader.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V: Version = Version(1);

    #[test]
    fn requests_are_read_in_every_form() {
        let read = |text| FailoverRequest::parse(text, V);
        assert_eq!(read("{}"), None);
        assert_eq!(read(""), None);
        assert_eq!(read("[]"), None);
        let json = read(r#"{"leader":"a","member":"b"}"#).unwrap();
        assert_eq!(json.leader.as_deref(), Some("a"));
        assert_eq!(json.candidate.as_deref(), Some("b"));
        let legacy = read("a:b").unwrap();
        assert_eq!(legacy.candidate.as_deref(), Some("b"));
        assert_eq!(read("a").unwrap().candidate, None);
    }

    #[test]
    fn schedules_are_read_or_marked_unusable() {
        let at = |text: &str| {
            FailoverRequest::parse(&format!(r#"{{"leader":"a","scheduled_at":"{text}"}}"#), V)
                .unwrap()
                .scheduled_at
                .unwrap()
        };
        let expected: Timestamp = "2040-01-01T09:00:00Z".parse().unwrap();
        for text in [
            "2040-01-01T10:00:00+01:00",
            "2040-01-01 10:00+01",
            "2040-01-01T09:00",
        ] {
            match at(text) {
                ScheduledAt::At { timestamp, .. } => assert_eq!(timestamp, expected, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(at("tomorrow"), ScheduledAt::Unusable(_)));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            let _ = FailoverRequest::parse(&text, V);
        }

        #[test]
        fn what_is_written_is_read(leader in "[a-z]{0,5}", candidate in "[a-z]{0,5}") {
            let text = FailoverRequest::to_json(Some(&leader), Some(&candidate), None);
            let read = FailoverRequest::parse(&text, V);
            prop_assert_eq!(read.as_ref().and_then(|r| r.leader.as_deref()), Some(leader.as_str()).filter(|l| !l.is_empty()));
            prop_assert_eq!(read.as_ref().and_then(|r| r.candidate.as_deref()), Some(candidate.as_str()).filter(|c| !c.is_empty()));
        }
    }
}
