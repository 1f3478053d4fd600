//! What the members' journals tell, in the order of time.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use primacy_model::{JournalKind, JournalPeer, JournalRecord, MemberName};
use serde_json::{Value, json};

use super::format::{Column, Format, write_rows};

/// Members that see the same thing within it are told in one line.
const SAME_NEWS: SignedDuration = SignedDuration::from_secs(3);

const COLUMNS: [Column; 5] = [
    Column::left("Time"),
    Column::left("Member"),
    Column::left("Kind"),
    Column::left("Text"),
    Column::left("Reasons"),
];

/// The members' journals as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// Oldest first.
    records: Vec<JournalRecord>,
}

impl Story {
    /// Merges by time.
    pub fn new(mut records: Vec<JournalRecord>) -> Self {
        records.sort_by_key(|record| record.at);
        Story { records }
    }

    /// Who led since when, as the members saw it; `None` for nobody.
    pub fn leaders(&self) -> Vec<(Timestamp, Option<MemberName>)> {
        let mut seen: BTreeMap<&MemberName, Option<&MemberName>> = BTreeMap::new();
        let mut leaders: Vec<(Timestamp, Option<MemberName>)> = Vec::new();
        for record in &self.records {
            let leader = record.leader.as_ref();
            let before = seen.insert(&record.member, leader);
            let current = leaders.last().map(|(_, leader)| leader.as_ref());
            let changed = before.is_some_and(|before| before != leader);
            // One that lags behind sees what is over already: only who knew the last state tells that nobody leads.
            let news = match current {
                None => leader.is_some(),
                Some(current) => {
                    changed && current != leader && (leader.is_some() || before == Some(current))
                }
            };
            if news {
                leaders.push((record.at, leader.cloned()));
            }
        }
        leaders
    }

    /// Only what that member did, or others did or left because of it.
    #[must_use]
    pub fn about(mut self, names: &[String]) -> Self {
        let mentions = |text: &str, name: &str| {
            text.split(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)))
                .any(|word| word.trim_matches('.') == name)
        };
        self.records.retain(|record| {
            names.iter().any(|name| {
                record.member == **name
                    || record.peers.contains_key(name.as_str())
                    || mentions(&record.text, name)
                    || record
                        .reasons
                        .iter()
                        .any(|reason| mentions(&reason.text, name))
            })
        });
        self
    }

    /// What it tells between two moments, the newest so many; and of each member the last thing before them.
    #[must_use]
    pub fn between(
        mut self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        limit: usize,
    ) -> Self {
        let mut before: BTreeMap<MemberName, JournalRecord> = BTreeMap::new();
        for record in self
            .records
            .iter()
            .filter(|record| since.is_some_and(|since| record.at < since))
        {
            before.insert(record.member.clone(), record.clone());
        }
        self.records.retain(|record| {
            since.is_none_or(|since| record.at >= since)
                && until.is_none_or(|until| record.at <= until)
        });
        let surplus = self.records.len().saturating_sub(limit);
        self.records.drain(..surplus);
        let mut records: Vec<JournalRecord> = before.into_values().collect();
        records.append(&mut self.records);
        Story::new(records)
    }

    /// Without the passes in which no rule had anything to say.
    #[must_use]
    pub fn without_calm(mut self) -> Self {
        self.records
            .retain(|record| record.kind != JournalKind::Wait || !record.reasons.is_empty());
        self
    }

    /// Draws it; times are told in `zone`.
    pub fn draw(
        &self,
        leaders: &[(Timestamp, Option<MemberName>)],
        format: Format,
        zone: &TimeZone,
    ) -> String {
        match format {
            Format::Pretty => self.sentences(leaders, zone),
            Format::Tsv => {
                let rows: Vec<Vec<Value>> = self.records.iter().map(row).collect();
                write_rows(&COLUMNS, &rows, format, None, true)
            }
            Format::Json => primacy_model::json_line(&json!(self.records)) + "\n",
            Format::Yaml => {
                let document = json!(self.records);
                primacy_config::yaml::to_block(&document, primacy_config::yaml::KeyOrder::Sorted)
                    + "\n"
            }
        }
    }

    fn sentences(&self, leaders: &[(Timestamp, Option<MemberName>)], zone: &TimeZone) -> String {
        if self.records.is_empty() {
            return "The journals tell nothing of that time.\n".into();
        }
        let mut text = String::from("Who led\n");
        for (index, (at, leader)) in leaders.iter().enumerate() {
            let leader = leader.as_ref().map_or("nobody", |name| name.as_str());
            let since = if index == 0 { "by" } else { "since" };
            let lasted = leaders.get(index + 1).map_or(String::new(), |(until, _)| {
                format!(", for {}", span(until.duration_since(*at)))
            });
            text.push_str(&format!(
                "  {leader} {since} {}{lasted}\n",
                time(*at, zone, true)
            ));
        }
        if leaders.is_empty() {
            text.push_str("  nobody, as far as is told\n");
        }
        text.push_str("\nWhat happened, and why\n");
        let entries = self.entries();
        let width = entries
            .iter()
            .map(|(members, _)| members.len())
            .max()
            .unwrap_or_default();
        let mut day = String::new();
        for (members, record) in entries {
            let date = record
                .at
                .to_zoned(zone.clone())
                .strftime("%Y-%m-%d")
                .to_string();
            if date != day {
                text.push_str(&format!("{date}\n"));
                day = date;
            }
            let indent = " ".repeat(2 + 12 + 2 + width + 2);
            text.push_str(&format!(
                "  {}  {members:width$}  {}\n",
                time(record.at, zone, false),
                sentence(record)
            ));
            for reason in &record.reasons {
                text.push_str(&format!("{indent}- {} [{}]\n", reason.text, reason.rule));
            }
            if !record.peers.is_empty() {
                let peers: Vec<String> = record.peers.iter().map(answer).collect();
                text.push_str(&format!("{indent}asked {}\n", peers.join("; ")));
            }
            if record.repeated > 0 {
                text.push_str(&format!(
                    "{indent}(the same came up {} times more before this)\n",
                    record.repeated
                ));
            }
        }
        text
    }

    /// One per line: the names of those who saw it, and what it was.
    fn entries(&self) -> Vec<(String, &JournalRecord)> {
        let mut entries: Vec<(Vec<&str>, &JournalRecord)> = Vec::new();
        for record in &self.records {
            let same = entries.iter_mut().rev().find(|(_, earlier)| {
                record.kind == JournalKind::Event
                    && earlier.kind == JournalKind::Event
                    && earlier.text == record.text
                    && record.at.duration_since(earlier.at) <= SAME_NEWS
            });
            match same {
                Some((members, _)) if !members.contains(&record.member.as_str()) => {
                    members.push(&record.member)
                }
                _ => entries.push((vec![&record.member], record)),
            }
        }
        let joined = entries.into_iter().map(|(mut members, record)| {
            members.sort_unstable();
            (members.join(", "), record)
        });
        joined.collect()
    }
}

fn sentence(record: &JournalRecord) -> String {
    if record.step.is_empty() || record.text.is_empty() || record.text == record.step {
        let texts = [record.text.as_str(), record.step.as_str()];
        return texts
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned();
    }
    format!("{} -> {}", record.text, record.step)
}

fn answer((name, peer): (&MemberName, &Option<JournalPeer>)) -> String {
    let Some(peer) = peer else {
        return format!("{name}: no answer");
    };
    let mut text = format!("{name}: ");
    text.push_str(if peer.in_recovery {
        "a replica"
    } else {
        "a primary"
    });
    if peer.in_recovery {
        text.push_str(&format!(" at {}", peer.position));
    }
    if let Some(timeline) = peer.timeline {
        text.push_str(&format!(" on timeline {timeline}"));
    }
    if let Some(limitation) = &peer.limitation {
        text.push_str(&format!(", {limitation}"));
    }
    text
}

fn row(record: &JournalRecord) -> Vec<Value> {
    let reasons: Vec<String> = record
        .reasons
        .iter()
        .map(|reason| format!("{} [{}]", reason.text, reason.rule))
        .collect();
    vec![
        json!(record.at),
        json!(record.member),
        json!(record.kind),
        json!(sentence(record).replace(['\t', '\n'], " ")),
        json!(reasons.join("; ").replace(['\t', '\n'], " ")),
    ]
}

fn time(at: Timestamp, zone: &TimeZone, date: bool) -> String {
    let format = if date {
        "%Y-%m-%d %H:%M:%S.%3f"
    } else {
        "%H:%M:%S.%3f"
    };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

/// `1.4 s`, `2 min 5 s`, `3 h 10 min`.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_model::{JournalReason, Lsn, Timeline};
    use proptest::prelude::*;

    fn record(
        milliseconds: i64,
        member: &str,
        leader: Option<&str>,
        kind: JournalKind,
        text: &str,
    ) -> JournalRecord {
        JournalRecord {
            at: Timestamp::from_millisecond(1_795_226_400_000 + milliseconds).unwrap(),
            member: member.into(),
            kind,
            text: text.into(),
            step: String::new(),
            reasons: Vec::new(),
            leader: leader.map(MemberName::from),
            peers: BTreeMap::new(),
            repeated: 0,
        }
    }

    fn night() -> Story {
        use JournalKind::{Event, Step, Wait};
        let mut lagging = record(
            31_100,
            "pg3",
            None,
            Wait,
            "following a different leader because i am not the healthiest node",
        );
        lagging.reasons.push(JournalReason {
            rule: "ha.md §10.2.1".into(),
            text: "lag 2097152 > maximum_lag_on_failover 1048576".into(),
        });
        lagging.repeated = 2;
        let mut won = record(
            31_200,
            "pg2",
            None,
            Step,
            "acquired session lock as a leader",
        );
        won.step = "acquire the leader key".into();
        won.peers.insert("pg1".into(), None);
        won.peers.insert(
            "pg3".into(),
            Some(JournalPeer {
                in_recovery: true,
                position: Lsn(0x300_0000),
                timeline: Some(Timeline(1)),
                limitation: None,
            }),
        );
        Story::new(vec![
            record(31_300, "pg2", Some("pg2"), Event, "pg2 leads"),
            record(
                0,
                "pg1",
                Some("pg1"),
                Event,
                "PostgreSQL's process 7 is gone",
            ),
            record(
                10,
                "pg2",
                Some("pg1"),
                Wait,
                "no action. I am (pg2), a secondary, and following a leader (pg1)",
            ),
            record(
                20,
                "pg3",
                Some("pg1"),
                Wait,
                "no action. I am (pg3), a secondary, and following a leader (pg1)",
            ),
            record(31_000, "pg2", None, Event, "nobody leads; before pg1 did"),
            record(31_050, "pg3", None, Event, "nobody leads; before pg1 did"),
            lagging,
            won,
            record(31_400, "pg3", Some("pg2"), Event, "pg2 leads"),
        ])
    }

    #[test]
    fn a_night_is_told_in_sentences() {
        let story = night();
        let leaders = story.leaders();
        let text = story
            .without_calm()
            .draw(&leaders, Format::Pretty, &TimeZone::UTC);
        assert_eq!(
            text,
            "\
Who led
  pg1 by 2026-11-21 02:00:00.000, for 31.0 s
  nobody since 2026-11-21 02:00:31.000, for 0.3 s
  pg2 since 2026-11-21 02:00:31.300

What happened, and why
2026-11-21
  02:00:00.000  pg1       PostgreSQL's process 7 is gone
  02:00:31.000  pg2, pg3  nobody leads; before pg1 did
  02:00:31.100  pg3       following a different leader because i am not the healthiest node
                          - lag 2097152 > maximum_lag_on_failover 1048576 [ha.md §10.2.1]
                          (the same came up 2 times more before this)
  02:00:31.200  pg2       acquired session lock as a leader -> acquire the leader key
                          asked pg1: no answer; pg3: a replica at 0/3000000 on timeline 1
  02:00:31.300  pg2, pg3  pg2 leads
"
        );
    }

    #[test]
    fn one_that_lags_behind_does_not_turn_back_the_time() {
        use JournalKind::Event;
        let story = Story::new(vec![
            record(0, "pg1", Some("pg1"), Event, ""),
            record(0, "pg3", Some("pg1"), Event, ""),
            record(1, "pg1", None, Event, ""),
            record(2, "pg2", Some("pg2"), Event, ""),
            record(3, "pg1", Some("pg2"), Event, ""),
            record(4, "pg3", None, Event, ""),
            record(5, "pg3", Some("pg2"), Event, ""),
        ]);
        let leaders: Vec<Option<String>> = story
            .leaders()
            .into_iter()
            .map(|(_, l)| l.map(|l| l.to_string()))
            .collect();
        assert_eq!(leaders, [Some("pg1".into()), None, Some("pg2".into())]);
    }

    #[test]
    fn a_member_is_asked_about() {
        let about = |name: &str| night().about(&[name.to_owned()]).records.len();
        // Its own four, and the one that asked it; those of pg2 about the others are left out.
        assert_eq!(about("pg3"), 5);
        assert_eq!(about("pg"), 0);
        let text = night()
            .about(&["pg1".into()])
            .draw(&[], Format::Tsv, &TimeZone::UTC);
        assert!(text.contains("PostgreSQL's process 7 is gone"), "{text}");
    }

    #[test]
    fn a_window_begins_with_what_was_before() {
        let at = |milliseconds| record(milliseconds, "", None, JournalKind::Event, "").at;
        let story = night().between(Some(at(31_100)), Some(at(31_250)), 10);
        let texts: Vec<&str> = story
            .records
            .iter()
            .map(|record| record.member.as_str())
            .collect();
        assert_eq!(texts, ["pg1", "pg2", "pg3", "pg3", "pg2"]);
        let limited = night().between(None, None, 2);
        assert_eq!(limited.records.len(), 2);
    }

    #[test]
    fn spans() {
        for (seconds, expected) in [
            (0, "0.0 s"),
            (59, "59.0 s"),
            (125, "2 min 5 s"),
            (11_400, "3 h 10 min"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), expected);
        }
    }

    proptest! {
        #[test]
        fn anything_is_drawn(texts in prop::collection::vec((any::<String>(), any::<String>(), 0i64..100_000), 0..8)) {
            let records = texts.iter().map(|(member, text, at)| record(*at, member, None, JournalKind::Event, text));
            let story = Story::new(records.collect());
            for format in [Format::Pretty, Format::Tsv, Format::Json, Format::Yaml] {
                prop_assert!(story.draw(&story.leaders(), format, &TimeZone::UTC).ends_with('\n'));
            }
        }
    }
}
