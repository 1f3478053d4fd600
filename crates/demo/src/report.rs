//! What a fault led to: the numbers, and a timeline of what happened when and why, put together from what
//! the demo saw and what the members tell.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use primacy_net::Method;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::Fault;
use crate::cluster::Cluster;
use crate::events::Event;

/// For asking a member for its journal.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A sentence that a member repeats within so many sentences is told once: each pass of its loop says two
/// or three.
const REPEATS_WITHIN: usize = 6;

/// How sentences begin that are news to nobody: each pass says them with other positions.
const NOISE: [&str; 4] = [
    "Local timeline=",
    "pg_controldata:",
    "changing replication slots (advance",
    "changing replication slots: advance",
];

/// The account of one fault. Its JSON is what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(serialize_with = "fault_name")]
    pub(crate) scenario: Fault,
    /// Between the last acknowledged transaction before the new leader and the first on it; absent when
    /// nobody took over.
    pub(crate) outage_ms: Option<u64>,
    /// Transactions acknowledged to the writer since the demo began.
    pub(crate) acknowledged: u64,
    /// Acknowledged ones that the new leader does not have; absent when it could not be asked.
    pub(crate) lost: Option<u64>,
    pub(crate) old_leader: String,
    pub(crate) new_leader: Option<String>,
    /// The other two members stream from the new leader.
    pub(crate) rejoined: bool,
    pub(crate) timeline: Vec<TimelineEntry>,
    /// Transactions of which the writer does not know what came.
    #[serde(skip)]
    pub(crate) unknown: u64,
    /// What went wrong with the scenario itself.
    #[serde(skip)]
    pub(crate) problem: Option<String>,
}

fn fault_name<S: Serializer>(fault: &Fault, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(fault)
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TimelineEntry {
    /// Since the fault.
    pub(crate) at_ms: u64,
    /// A member's name, `demo` or `writer`.
    pub(crate) member: String,
    pub(crate) event: String,
}

impl Report {
    /// Whether everything went as it must.
    pub(crate) fn is_success(&self) -> bool {
        self.new_leader.is_some() && self.lost == Some(0) && self.rejoined && self.problem.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            scenario,
            old_leader,
            ..
        } = self;
        match &self.new_leader {
            Some(new) => writeln!(f, "{scenario}: {new} took over from {old_leader}")?,
            None => writeln!(f, "{scenario}: nobody took over from {old_leader}")?,
        }
        if let Some(problem) = &self.problem {
            writeln!(f, "  problem            {problem}")?;
        }
        if let Some(outage_ms) = self.outage_ms {
            writeln!(f, "  write outage       {outage_ms} ms")?;
        }
        let unknown = match self.unknown {
            0 => String::new(),
            unknown => format!(", {unknown} without an answer"),
        };
        writeln!(
            f,
            "  acknowledged       {} transactions{unknown}",
            self.acknowledged
        )?;
        match self.lost {
            Some(lost) => writeln!(f, "  missing            {lost} of the acknowledged")?,
            None => writeln!(f, "  missing            could not be counted")?,
        }
        if self.rejoined {
            writeln!(f, "  rejoined           all members stream")?;
        }
        for TimelineEntry {
            at_ms,
            member,
            event,
        } in &self.timeline
        {
            write!(f, "\n{at_ms:>7} ms  {member:<7}{event}")?;
        }
        writeln!(f)
    }
}

/// What the members and the demo tell of the time from `since` on.
pub(crate) async fn timeline(cluster: &Cluster, since: Timestamp) -> Vec<TimelineEntry> {
    let mut events = cluster.events.since(since);
    for (member, place) in cluster.members().iter().enumerate() {
        let journal = cluster
            .ask(member, Method::GET, "/journal", JOURNAL_TIMEOUT)
            .await
            .ok()
            .filter(|answer| answer.status.is_success())
            .and_then(|answer| parse_journal(&answer.body, &place.name));
        let log = std::fs::read(place.log()).unwrap_or_default();
        let log = parse_log(&String::from_utf8_lossy(&log), &place.name);
        let told = match journal {
            // It has the decisions and their reasons; the log adds what went wrong beside them.
            Some(mut told) => {
                told.extend(
                    log.into_iter()
                        .filter(|(level, _)| *level != Level::Usual)
                        .map(|(_, event)| event),
                );
                told.sort_by_key(|event| event.at);
                told
            }
            // A member that is dead or frozen, or keeps no journal.
            None => log.into_iter().map(|(_, event)| event).collect(),
        };
        events.extend(news(told, since));
    }
    merge(events, since)
}

/// The entries of `GET /journal`; those that cannot be read are left out.
fn parse_journal(body: &[u8], member: &str) -> Option<Vec<Event>> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let event = |entry: &Value| {
        let at = match &entry["at"] {
            Value::String(text) => text.parse().ok()?,
            Value::Number(seconds) => {
                Timestamp::from_millisecond((seconds.as_f64()? * 1000.0) as i64).ok()?
            }
            _ => return None,
        };
        let text = entry["text"].as_str()?;
        Some(Event {
            at,
            member: entry["member"].as_str().unwrap_or(member).to_owned(),
            text: match reasons(entry) {
                reasons if reasons.is_empty() => text.to_owned(),
                reasons => format!("{text}: {reasons}"),
            },
        })
    };
    Some(document.as_array()?.iter().filter_map(event).collect())
}

/// The values that the rules compared, and where each rule is written down.
fn reasons(entry: &Value) -> String {
    let reason = |reason: &Value| {
        Some(format!(
            "{} [{}]",
            reason["text"].as_str()?,
            reason["rule"].as_str()?
        ))
    };
    let reasons = entry["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(reason);
    reasons.collect::<Vec<_>>().join("; ")
}

/// How loud a line of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// INFO and below.
    Usual,
    /// WARNING and above.
    Problem,
}

/// The lines of an agent's log that have a time, `2026-01-01 00:00:00,000 INFO: text` in UTC.
fn parse_log(log: &str, member: &str) -> Vec<(Level, Event)> {
    let event = |line: &str| {
        let (time, rest) = line.split_at_checked(23)?;
        let at: DateTime = time.replace(',', ".").parse().ok()?;
        let at = at.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let (level, text) = rest.trim_start().split_once(": ")?;
        let (level, text) = match level {
            "INFO" | "DEBUG" => (Level::Usual, text.to_owned()),
            _ => (Level::Problem, format!("{level}: {text}")),
        };
        let member = member.to_owned();
        Some((level, Event { at, member, text }))
    };
    log.lines().filter_map(event).collect()
}

/// What one member said from `since` on, without what it keeps repeating.
fn news(told: Vec<Event>, since: Timestamp) -> Vec<Event> {
    let mut recent: VecDeque<String> = VecDeque::new();
    told.into_iter()
        .filter(|event| {
            let is_new = !recent.contains(&event.text);
            if recent.len() == REPEATS_WITHIN {
                recent.pop_front();
            }
            recent.push_back(event.text.clone());
            is_new
                && is_since(event, since)
                && !NOISE.iter().any(|noise| event.text.starts_with(noise))
        })
        .collect()
}

/// Logs have milliseconds, the fault has more digits.
fn is_since(event: &Event, since: Timestamp) -> bool {
    event.at.as_millisecond() >= since.as_millisecond()
}

fn merge(mut events: Vec<Event>, since: Timestamp) -> Vec<TimelineEntry> {
    events.sort_by_key(|event| event.at.as_millisecond());
    let elapsed = |at: Timestamp| at.as_millisecond() - since.as_millisecond();
    events
        .into_iter()
        .map(|event| TimelineEntry {
            at_ms: elapsed(event.at).unsigned_abs(),
            member: event.member,
            event: event.text,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01 10:00:00,100 INFO: no action. I am (pg2), a secondary, and following a leader (pg1)
2026-01-01 10:00:01,100 INFO: no action. I am (pg2), a secondary, and following a leader (pg1)
2026-01-01 10:00:01,300 WARNING: Request failed to pg1: it is gone
Traceback (most recent call last):
  something: else
2026-01-01 10:00:02,000 INFO: promoted self to leader by acquiring session lock
2026-01-01 10:00:03,000 INFO: no action. I am (pg2), the leader with the lock
2026-01-01 10:00:04,000 INFO: no action. I am (pg2), the leader with the lock
";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn event(time: &str, member: &str, text: &str) -> Event {
        Event {
            at: at(time),
            member: member.into(),
            text: text.into(),
        }
    }

    #[test]
    fn timeline_merges_by_time_and_leaves_out_repetitions() {
        let since = at("2026-01-01T10:00:01.0005Z");
        let mut events = vec![
            event("2026-01-01T10:00:01.0005Z", "demo", "killed pg1"),
            event("2026-01-01T10:00:02.5Z", "writer", "writes to pg2"),
        ];
        let log = parse_log(LOG, "pg2");
        events.extend(news(
            log.into_iter().map(|(_, event)| event).collect(),
            since,
        ));
        let lines: Vec<String> = merge(events, since)
            .iter()
            .map(|entry| format!("{} {} {}", entry.at_ms, entry.member, entry.event))
            .collect();
        assert_eq!(
            lines,
            [
                "0 demo killed pg1",
                "300 pg2 WARNING: Request failed to pg1: it is gone",
                "1000 pg2 promoted self to leader by acquiring session lock",
                "1500 writer writes to pg2",
                "2000 pg2 no action. I am (pg2), the leader with the lock",
            ]
        );
    }

    #[test]
    fn journal_gives_reasons() {
        let body = br#"[{"at": "2026-01-01T10:00:00.5Z", "text": "not the best", "member": "pg3",
             "reasons": [{"rule": "ha.md 10.2.1", "text": "lag 2 > 1"}, {"rule": "r", "text": "t"}]},
            {"at": 1767261601.25, "text": "promoting"}, {"text": "no time"}, {"at": null}]"#;
        assert_eq!(
            parse_journal(body, "pg2").unwrap(),
            [
                event(
                    "2026-01-01T10:00:00.5Z",
                    "pg3",
                    "not the best: lag 2 > 1 [ha.md 10.2.1]; t [r]"
                ),
                event("2026-01-01T10:00:01.25Z", "pg2", "promoting"),
            ]
        );
        assert_eq!(parse_journal(b"<html>", "pg2"), None);
        assert_eq!(parse_journal(b"{}", "pg2"), None);
    }

    fn report() -> Report {
        Report {
            scenario: Fault::KillNode,
            outage_ms: Some(5123),
            acknowledged: 4200,
            lost: Some(0),
            old_leader: "pg1".into(),
            new_leader: Some("pg2".into()),
            rejoined: true,
            timeline: vec![TimelineEntry {
                at_ms: 0,
                member: "demo".into(),
                event: "killed pg1".into(),
            }],
            unknown: 1,
            problem: None,
        }
    }

    #[test]
    fn json_has_exactly_the_promised_keys() {
        assert_eq!(
            serde_json::to_string(&report()).unwrap(),
            r#"{"scenario":"kill-node","outage_ms":5123,"acknowledged":4200,"lost":0,"old_leader":"pg1","new_leader":"pg2","rejoined":true,"timeline":[{"at_ms":0,"member":"demo","event":"killed pg1"}]}"#
        );
    }

    #[test]
    fn success_needs_everything() {
        assert!(report().is_success());
        let spoiled: [fn(&mut Report); 5] = [
            |report| report.new_leader = None,
            |report| report.lost = None,
            |report| report.lost = Some(1),
            |report| report.rejoined = false,
            |report| report.problem = Some("late".into()),
        ];
        for spoil in spoiled {
            let mut report = report();
            spoil(&mut report);
            assert!(!report.is_success(), "{report:?}");
        }
    }

    #[test]
    fn text_is_for_people() {
        assert_eq!(
            report().to_string(),
            "\
kill-node: pg2 took over from pg1
  write outage       5123 ms
  acknowledged       4200 transactions, 1 without an answer
  missing            0 of the acknowledged
  rejoined           all members stream

      0 ms  demo   killed pg1
"
        );
    }
}
