//! What is told, and how often: every step, every time that none was taken and why, what came of both, and what
//! happened beside them.
//!
//! The journal is bounded, and an hour of "not the healthiest", looked at each second, must not push out the night
//! before it. So what says the same with other values is of one *kind*, and each kind has a ration per window of
//! time. What it does not say is counted, and the count is told with the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_model::{JournalKind, JournalPeer, JournalReason, JournalRecord, Lsn, MemberName};

use super::{Action, LogLevel, Machine};
use crate::decide::limitation;
use crate::decision::{Decision, Reason, Step};
use crate::time::Moment;

/// A kind's ration is for so long. Six entries an hour tell that a state lasts.
const WINDOW: Duration = Duration::from_secs(600);
/// Steps, results and events of one kind per window. A cluster that flaps does not do so more often than it can
/// be told in whole, one that retries each second does.
const TOLD_MAX: u32 = 5;
/// Kinds that are remembered; more than a situation has.
const KINDS_MAX: usize = 256;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// When.
    pub at: Timestamp,
    /// What it tells of.
    pub kind: JournalKind,
    /// The pass, or what happened, in one sentence.
    pub outcome: String,
    /// The step in words; empty where the entry is of none.
    pub step: String,
    /// The rules that led to it.
    pub reasons: Vec<Reason>,
    /// Who holds the leader key, as far as this member knows.
    pub leader: Option<MemberName>,
    /// What the members that were asked answered.
    pub peers: BTreeMap<MemberName, Option<JournalPeer>>,
    /// How often the same came up since it was last told.
    pub repeated: u32,
}

impl JournalEntry {
    /// As it is kept and served.
    pub fn record(self, member: MemberName) -> JournalRecord {
        let reasons = self.reasons.into_iter();
        JournalRecord {
            at: self.at,
            member,
            kind: self.kind,
            text: self.outcome,
            step: self.step,
            reasons: reasons
                .map(|reason| JournalReason {
                    rule: reason.rule.to_owned(),
                    text: reason.text,
                })
                .collect(),
            leader: self.leader,
            peers: self.peers,
            repeated: self.repeated,
        }
    }
}

/// What was told of late.
#[derive(Debug, Default)]
pub(super) struct Rations {
    kinds: BTreeMap<String, Told>,
    /// The last pass without a step that was told.
    rest: String,
}

#[derive(Debug)]
struct Told {
    since: Moment,
    times: u32,
    withheld: u32,
    rest: bool,
}

impl Rations {
    /// Whether to tell it, and how often it was withheld before.
    fn admit(&mut self, kind: String, most: u32, rest: bool, now: Moment) -> Option<u32> {
        if self.kinds.len() >= KINDS_MAX {
            let oldest = self.kinds.iter().min_by_key(|(_, told)| told.since);
            if let Some(oldest) = oldest.map(|(kind, _)| kind.clone()) {
                self.kinds.remove(&oldest);
            }
        }
        let told = self.kinds.entry(kind).or_insert(Told {
            since: now,
            times: 0,
            withheld: 0,
            rest,
        });
        if now.since(told.since) >= WINDOW {
            told.since = now;
            told.times = 0;
        }
        if told.times >= most {
            told.withheld += 1;
            return None;
        }
        told.times += 1;
        Some(std::mem::take(&mut told.withheld))
    }

    /// Another leader, or none: why nothing is done is news again.
    pub(super) fn begin_episode(&mut self) {
        self.rest.clear();
        self.kinds.retain(|_, told| !told.rest);
    }
}

impl Machine {
    /// A pass came to this.
    pub(super) fn journal(
        &mut self,
        decision: &Decision,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        if matches!(decision.step, Step::AskPeers(_)) {
            return;
        }
        if !decision.outcome.is_empty() {
            self.outcome.clone_from(&decision.outcome);
        }
        let resting = matches!(decision.step, Step::Wait | Step::WaitUntil(_));
        if self.line_due || decision.said != self.said {
            let said = decision.said.iter().cloned();
            actions.extend(said.map(|(level, text)| Action::Log(level, text)));
            self.said.clone_from(&decision.said);
        }
        if resting && (self.line_due || self.outcome != self.logged) {
            self.line_due = false;
            self.logged.clone_from(&self.outcome);
            actions.push(self.lock_owner());
            actions.push(Action::Log(LogLevel::Info, self.outcome.clone()));
        }
        let kind = kind_of(decision);
        let repeated = if !resting {
            // A slot that is moved along is no news, however often.
            let most = match decision.step {
                Step::ChangeSlots(_)
                | Step::ChangeLogicalSlots { .. }
                | Step::CompareLogicalSlots { .. } => 1,
                _ => TOLD_MAX,
            };
            self.rations.admit(kind, most, false, now)
        } else if !decision.reasons.is_empty() {
            self.rations.admit(kind, 1, true, now)
        } else if self.rations.rest != kind {
            // No rule had anything to say: only a change is news.
            self.rations.rest.clone_from(&kind);
            self.rations.admit(kind, TOLD_MAX, true, now)
        } else {
            None
        };
        let Some(repeated) = repeated else {
            return;
        };
        let peers = self.peers.iter().flatten();
        let peers = peers
            .map(|(name, peer)| {
                let peer = peer.as_ref().map(|peer| JournalPeer {
                    in_recovery: peer.in_recovery,
                    position: peer.position,
                    timeline: peer.timeline,
                    limitation: limitation(peer).map(str::to_owned),
                });
                (name.clone(), peer)
            })
            .collect();
        if !resting {
            actions.push(self.lock_owner());
        }
        actions.push(Action::Journal(JournalEntry {
            at: wall,
            kind: if resting {
                JournalKind::Wait
            } else {
                JournalKind::Step
            },
            outcome: self.outcome.clone(),
            step: if resting {
                String::new()
            } else {
                decision.step.to_string()
            },
            reasons: decision.reasons.clone(),
            leader: self.known_leader(),
            peers,
            repeated,
        }));
    }

    /// Something happened, or came of what was done.
    pub(super) fn tell(
        &mut self,
        kind: JournalKind,
        text: String,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let key = format!("{kind:?} {}", without_values(&text));
        if let Some(repeated) = self.rations.admit(key, TOLD_MAX, false, now) {
            actions.push(Action::Journal(JournalEntry {
                at: wall,
                kind,
                outcome: text,
                step: String::new(),
                reasons: Vec::new(),
                leader: self.known_leader(),
                peers: BTreeMap::new(),
                repeated,
            }));
        }
    }

    /// A step that no pass decided on: the clock or the store left no choice.
    pub(super) fn journal_forced(
        &self,
        step: &str,
        outcome: &str,
        reason: Reason,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Journal(JournalEntry {
            at: wall,
            kind: JournalKind::Step,
            outcome: outcome.to_owned(),
            step: step.to_owned(),
            reasons: vec![reason],
            leader: self.known_leader(),
            peers: BTreeMap::new(),
            repeated: 0,
        }));
    }

    /// Who holds the lock, as the pass found it: the log has it before what came of the pass (`process.md`).
    fn lock_owner(&self) -> Action {
        let owner = self.known_leader();
        let owner = owner.as_ref().map_or("None", MemberName::as_str);
        let text = format!("Lock owner: {owner}; I am {}", self.local.name);
        Action::Log(LogLevel::Info, text)
    }

    pub(super) fn known_leader(&self) -> Option<MemberName> {
        let view = self.view.as_ref()?;
        view.leader_name().cloned()
    }
}

/// What two decisions have in common that say the same of other values.
fn kind_of(decision: &Decision) -> String {
    let mut kind = format!(
        "{} {}",
        without_values(&decision.step.to_string()),
        without_values(&decision.outcome)
    );
    for reason in &decision.reasons {
        kind.push('|');
        kind.push_str(reason.rule);
        kind.push(' ');
        kind.push_str(&without_values(&reason.text));
    }
    kind
}

/// The text without its numbers, positions and times. A member's name keeps its digits.
fn without_values(text: &str) -> String {
    let word = |word: &str| {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let number = core.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &core[number.len()..];
        let is_value =
            core.parse::<Lsn>().is_ok() || (unit.len() <= 2 && number.parse::<f64>().is_ok());
        if is_value { "#" } else { word }.to_owned()
    };
    text.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_make_another_kind() {
        for (text, expected) in [
            (
                "lag 2097152 > maximum_lag_on_failover 1048576",
                "lag # > maximum_lag_on_failover #",
            ),
            (
                "Wal position of pg2 is ahead of my wal position (0/5000000 > F/3A)",
                "Wal position of pg2 is ahead of my wal position # > #",
            ),
            (
                "the lease ends at +12.500s, in 250ms",
                "the lease ends at # in #",
            ),
            ("pg3 does not answer", "pg3 does not answer"),
        ] {
            assert_eq!(without_values(text), expected);
        }
    }

    #[test]
    fn a_kind_has_its_ration_and_the_rest_is_counted() {
        let mut rations = Rations::default();
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let mut told = Vec::new();
        for second in 0..3600 {
            if let Some(withheld) = rations.admit("not the healthiest".into(), 1, true, at(second))
            {
                told.push((second, withheld));
            }
        }
        assert_eq!(told.len(), 6);
        assert_eq!(told[..2], [(0, 0), (600, 599)]);
        // Another leader: the reasons are news again.
        rations.begin_episode();
        assert_eq!(
            rations.admit("not the healthiest".into(), 1, true, at(3600)),
            Some(0)
        );
    }

    #[test]
    fn remembered_kinds_are_bounded() {
        let mut rations = Rations::default();
        for number in 0..10 * KINDS_MAX {
            let now = Moment(Duration::from_secs(number as u64));
            rations.admit(format!("kind {number}"), 1, false, now);
        }
        assert!(rations.kinds.len() <= KINDS_MAX);
    }
}
