use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Lsn, MemberName, Timeline};

/// One entry of a member's journal: what was done or left, and why. A line of the journal's file, and an item of
/// what `GET /journal` answers.
///
/// *Shape*: `at` (RFC 3339), `member`, `kind`, `text`, and where there is something to tell `step`, `reasons` of
/// `{rule, text}`, `leader`, `peers`, `repeated`. Readers ignore what they do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// When.
    pub at: Timestamp,
    /// Whose journal.
    pub member: MemberName,
    /// What it tells of.
    #[serde(default)]
    pub kind: JournalKind,
    /// One sentence.
    pub text: String,
    /// The step that was begun.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// The rules that had a say, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<JournalReason>,
    /// Who held the leader key as far as this member knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<MemberName>,
    /// Who was asked for it, and what each answered; `None` for no answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<MemberName, Option<JournalPeer>>,
    /// How often the same came up, with other values, since it was last told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated: u32,
}

/// What an entry tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalKind {
    /// A step that was begun.
    #[default]
    Step,
    /// Nothing was done, and why.
    Wait,
    /// What came of a step or a long action.
    Result,
    /// Something that happened.
    Event,
    /// Written by a later release.
    #[serde(other)]
    Other,
}

/// A rule that had a say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalReason {
    /// Where the rule is written down: `ha.md §10.2.1`.
    pub rule: String,
    /// What it compared and what came of it.
    pub text: String,
}

/// What a member answered when it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPeer {
    /// It accepts no writes.
    pub in_recovery: bool,
    /// How far its WAL goes, in bytes.
    pub position: Lsn,
    /// Its timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Why it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limitation: Option<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl JournalRecord {
    /// Something happened, and there is no more to say of it.
    pub fn event(at: Timestamp, member: MemberName, text: impl Into<String>) -> Self {
        JournalRecord {
            at,
            member,
            kind: JournalKind::Event,
            text: text.into(),
            step: String::new(),
            reasons: Vec::new(),
            leader: None,
            peers: BTreeMap::new(),
            repeated: 0,
        }
    }

    /// One line, without its end.
    pub fn to_line(&self) -> String {
        // Nothing in it can fail to be JSON: names are text, numbers are integers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a line; `None` for one that was torn, or is none of a journal.
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = JournalRecord> {
        let name = || any::<String>().prop_map(MemberName::new);
        let kind = prop_oneof![
            Just(JournalKind::Step),
            Just(JournalKind::Wait),
            Just(JournalKind::Result),
            Just(JournalKind::Event),
        ];
        let reason = (any::<String>(), any::<String>())
            .prop_map(|(rule, text)| JournalReason { rule, text });
        let peer = (
            any::<bool>(),
            any::<u64>(),
            option::of(any::<u32>()),
            option::of(any::<String>()),
        )
            .prop_map(
                |(in_recovery, position, timeline, limitation)| JournalPeer {
                    in_recovery,
                    position: Lsn(position),
                    timeline: timeline.map(Timeline),
                    limitation,
                },
            );
        // What RFC 3339 can say: the years 0 to 9999.
        let at = -60_000_000_000_i64..250_000_000_000;
        (
            (at, 0..1_000_000_000_i32),
            (name(), kind, any::<String>(), any::<String>()),
            (
                vec(reason, 0..4),
                option::of(name()),
                btree_map(name(), option::of(peer), 0..3),
                any::<u32>(),
            ),
        )
            .prop_map(
                |(
                    (second, nano),
                    (member, kind, text, step),
                    (reasons, leader, peers, repeated),
                )| {
                    JournalRecord {
                        at: Timestamp::new(second, nano).unwrap(),
                        member,
                        kind,
                        text,
                        step,
                        reasons,
                        leader,
                        peers,
                        repeated,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_the_same(record in record()) {
            let line = record.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(JournalRecord::from_line(&line), Some(record));
        }

        #[test]
        fn a_line_cut_anywhere_is_none(record in record(), cut in any::<prop::sample::Index>()) {
            let line = record.to_line();
            let mut end = cut.index(line.len());
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            prop_assert_eq!(JournalRecord::from_line(&line[..end]), None);
        }
    }

    #[test]
    fn an_entry_of_another_release_is_read() {
        let line =
            r#"{"at":"2026-11-21T02:13:05Z","member":"pg1","kind":"omen","text":"t","new":[1]}"#;
        let record = JournalRecord::from_line(line).unwrap();
        assert_eq!(
            (record.kind, record.text.as_str()),
            (JournalKind::Other, "t")
        );
    }
}
