//! What is done, and what is seen after it.
//!
//! Positions and times are other ones on every server, so a look has only what they mean: who has which transaction, whose
//! histories are the same, who has the shutdown checkpoint of whom.

use std::collections::{BTreeMap, BTreeSet};

use primacy_model::{ControlData, ControlState, Lsn, Observation, Process, Readiness};
use serde::{Deserialize, Serialize};

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// As a standby of that server, or as a primary.
    Start(String, Option<String>),
    /// Another upstream, with a reload.
    Follow(String, String),
    StopFast(String),
    StopImmediate(String),
    /// SIGSTOP to every process of the server, and SIGCONT.
    Freeze(String),
    Thaw(String),
    /// `synchronous_standby_names`.
    Names(String, String),
    /// A transaction, by its name, with that `synchronous_commit`.
    Commit(String, String, String),
    Promote(String),
    /// Crash recovery in single-user mode.
    Recover(String),
    /// The comparison of a server with a primary.
    Compare(String, String),
    /// `pg_rewind --dry-run` of a stopped server, with that source.
    Rewind(String, String),
}

/// What is seen once nothing moves any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// `acknowledged`, `waits`, `unanswered`; real ones have a moment of `under way`, which is never recorded.
    pub(crate) commits: BTreeMap<String, String>,
    /// Those that are not frozen.
    pub(crate) servers: BTreeMap<String, Seen>,
    /// The answer to a comparison or a rewind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<String>,
}

/// What is seen of one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// `primary`, `standby`, `rejects connections`, or what the control file says of a stopped one.
    pub(crate) state: String,
    /// Of its WAL, while it answers; as the control file has it otherwise.
    pub(crate) timeline: u32,
    /// The timelines before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) history: Vec<u32>,
    /// Answering servers with the same timelines, left at the same positions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) same_history: Vec<String>,
    /// The transactions that a query sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) visible: Vec<String>,
    /// `sync_state` by standby.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) standbys: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) streams_from: Option<String>,
    /// Of stopped servers, those whose shutdown checkpoint it has received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) has_shutdown_of: Vec<String>,
    /// The control file has a minimum recovery position.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recovery_position: bool,
}

/// What both kinds of server tell of one.
pub(crate) struct Facts {
    pub(crate) observation: Observation,
    /// While it answers.
    pub(crate) timeline: u32,
    pub(crate) history: Vec<(u32, Lsn)>,
    pub(crate) visible: Vec<String>,
    pub(crate) streams_from: Option<String>,
}

impl Look {
    pub(crate) fn new(
        commits: BTreeMap<String, String>,
        facts: &BTreeMap<String, Facts>,
        found: Option<String>,
    ) -> Look {
        let servers = facts
            .iter()
            .map(|(name, fact)| (name.clone(), Seen::new(name, fact, facts)))
            .collect();
        Look {
            commits,
            servers,
            found,
        }
    }
}

impl Seen {
    fn new(name: &str, facts: &Facts, all: &BTreeMap<String, Facts>) -> Seen {
        let seen = &facts.observation;
        let Some(wal) = &seen.wal else {
            return Seen::without_answer(seen);
        };
        let others = || all.iter().filter(|(other, _)| *other != name);
        let has_shutdown_of = |other: &Facts| {
            shutdown_checkpoint(&other.observation)
                .is_some_and(|(timeline, lsn)| facts.has_after(timeline, lsn))
        };
        Seen {
            state: if wal.is_primary() {
                "primary"
            } else {
                "standby"
            }
            .into(),
            timeline: facts.timeline,
            history: facts
                .history
                .iter()
                .map(|(timeline, _)| *timeline)
                .collect(),
            same_history: others()
                .filter(|(_, other)| {
                    other.observation.wal.is_some()
                        && (other.timeline, &other.history) == (facts.timeline, &facts.history)
                })
                .map(|(other, _)| other.clone())
                .collect(),
            visible: facts
                .visible
                .iter()
                .cloned()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            standbys: wal
                .senders
                .iter()
                .map(|sender| (sender.application_name.clone(), sender.sync_state.clone()))
                .collect(),
            streams_from: facts.streams_from.clone(),
            has_shutdown_of: others()
                .filter(|(_, other)| has_shutdown_of(other))
                .map(|(other, _)| other.clone())
                .collect(),
            recovery_position: false,
        }
    }

    fn without_answer(seen: &Observation) -> Seen {
        let control = seen.control.as_ref();
        let state = match (&seen.process, seen.readiness, control) {
            (Process::Running(_), Readiness::Rejecting, _) => "rejects connections".to_owned(),
            (Process::Absent, _, Some(control)) => format!("{:?}", control.state),
            (process, readiness, _) => format!("{process:?}, {readiness:?}"),
        };
        if seen.process != Process::Absent {
            // What the control file says moves meanwhile.
            return Seen {
                state,
                ..Seen::default()
            };
        }
        let timeline =
            |control: &ControlData| control.checkpoint_timeline.map_or(0, |known| known.0);
        Seen {
            state,
            timeline: control.map_or(0, timeline),
            recovery_position: control.is_some_and(|control| control.min_recovery_lsn != Lsn::ZERO),
            ..Seen::default()
        }
    }
}

impl Facts {
    /// Whether its WAL goes beyond a position on a timeline.
    fn has_after(&self, timeline: u32, lsn: Lsn) -> bool {
        let end = match self.history.iter().find(|(left, _)| *left == timeline) {
            Some((_, left_at)) => *left_at,
            None if self.timeline == timeline => {
                let wal = self.observation.wal.as_ref();
                wal.map_or(Lsn::ZERO, |wal| wal.position())
            }
            None => return false,
        };
        end > lsn
    }
}

/// Where the shutdown checkpoint of a primary that was shut down begins.
fn shutdown_checkpoint(seen: &Observation) -> Option<(u32, Lsn)> {
    let control = seen.control.as_ref()?;
    let down = seen.process == Process::Absent && control.state == ControlState::ShutDown;
    down.then_some((control.checkpoint_timeline?.0, control.checkpoint_lsn))
}

/// One line of a stored trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) step: Step,
    pub(crate) seen: Look,
}

/// The entries of a stored trace: a JSON object per line.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
