//! What a Citus cluster needs beside high availability (`ha.md` §16.1, `dcs.md` §13). Each of its groups is a cluster
//! of its own. The coordinator's servers find the workers' by the table `pg_dist_node`, which the coordinator group's
//! leader keeps true: from what the store tells of the groups, and sooner from what the workers' leaders tell it
//! of the steps that they take.

mod coordinator;
mod topology;

use std::time::Duration;

use primacy_model::{CitusGroup, MemberName, SlotKind};

use crate::{DemotionMode, Job, StopReason};

pub use coordinator::{CitusCoordinator, NodeRow, Outcome, Statement, Work};
pub use topology::{Change, NodeAddress, NodeRole, Registered, Row, Wanted, transition};

/// What the leader of a worker group tells the coordinator group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CitusEvent {
    /// It is about to stop or restart: clients of the coordinator wait instead of failing.
    BeforeDemote,
    /// It is about to be promoted.
    BeforePromote,
    /// It accepts writes: the clients that wait go on, on it.
    AfterPromote,
}

impl CitusEvent {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CitusEvent::BeforeDemote => "before_demote",
            CitusEvent::BeforePromote => "before_promote",
            CitusEvent::AfterPromote => "after_promote",
        }
    }

    /// The event of a name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [
            CitusEvent::BeforeDemote,
            CitusEvent::BeforePromote,
            CitusEvent::AfterPromote,
        ]
        .into_iter()
        .find(|event| event.as_str() == text)
    }
}

/// An event as it travels: the body of `POST /citus` (`dcs.md` §13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CitusNews {
    /// What happens.
    pub event: CitusEvent,
    /// In which group.
    pub group: CitusGroup,
    /// To which member: the group's leader.
    pub leader: MemberName,
    /// For how long clients may be kept waiting for what follows: the group's `ttl`.
    pub timeout: Duration,
    /// For how long Citus lets the transactions of others finish before it ends them.
    pub cooldown: Duration,
}

impl Job {
    /// What a worker group's leader tells the coordinator right before the server goes down or is promoted.
    pub fn told_coordinator_before(&self, leads: bool) -> Option<CitusEvent> {
        match self {
            Job::Stop { reason, .. } => match reason {
                StopReason::Demotion(DemotionMode::Graceful) => Some(CitusEvent::BeforeDemote),
                StopReason::Shutdown if leads => Some(CitusEvent::BeforeDemote),
                _ => None,
            },
            Job::Restart { upstream: None, .. } => Some(CitusEvent::BeforeDemote),
            Job::Promote => Some(CitusEvent::BeforePromote),
            _ => None,
        }
    }

    /// What it tells the coordinator once the job has succeeded.
    pub fn told_coordinator_after(&self) -> Option<CitusEvent> {
        matches!(self, Job::Restart { upstream: None, .. }).then_some(CitusEvent::AfterPromote)
    }
}

/// Whether Citus made this slot on a primary for itself, to move or split a shard of `database`: nobody else drops it.
pub(crate) fn is_own_slot(name: &str, kind: &SlotKind, of: &str) -> bool {
    let SlotKind::Logical { database, plugin } = kind else {
        return false;
    };
    let numbers = match plugin.as_str() {
        "pgoutput" => name.strip_prefix("citus_shard_move_slot_"),
        "citus" => name.strip_prefix("citus_shard_split_slot_"),
        _ => None,
    };
    let is_number = |text: &str| {
        text.starts_with(|first: char| ('1'..='9').contains(&first))
            && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    database == of
        && numbers.is_some_and(|numbers| {
            let numbers: Vec<&str> = numbers.split('_').collect();
            (2..=3).contains(&numbers.len()) && numbers.into_iter().all(is_number)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StopMode, Upstream};

    fn stop(reason: StopReason) -> Job {
        Job::Stop {
            mode: StopMode::Fast,
            checkpoint: true,
            timeout: None,
            reason,
        }
    }

    fn restart(upstream: Option<Upstream>) -> Job {
        Job::Restart {
            upstream,
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn s16_1_what_is_told_around_which_job() {
        use CitusEvent::{AfterPromote, BeforeDemote, BeforePromote};
        let demotion = |mode| stop(StopReason::Demotion(mode));
        let rows = [
            (
                demotion(DemotionMode::Graceful),
                true,
                Some(BeforeDemote),
                None,
            ),
            (demotion(DemotionMode::Immediate), true, None, None),
            (demotion(DemotionMode::ImmediateNoLock), true, None, None),
            (demotion(DemotionMode::Offline), true, None, None),
            (demotion(DemotionMode::DemoteCluster), true, None, None),
            (stop(StopReason::Shutdown), true, Some(BeforeDemote), None),
            (stop(StopReason::Shutdown), false, None, None),
            (stop(StopReason::StaleData), true, None, None),
            (restart(None), true, Some(BeforeDemote), Some(AfterPromote)),
            (restart(Some(Upstream::Nobody)), false, None, None),
            (Job::Promote, true, Some(BeforePromote), None),
            (Job::Bootstrap, true, None, None),
        ];
        for (job, leads, before, after) in rows {
            assert_eq!(job.told_coordinator_before(leads), before, "{job:?}");
            assert_eq!(job.told_coordinator_after(), after, "{job:?}");
        }
    }

    #[test]
    fn s16_1_events_have_their_names_on_the_wire() {
        for (event, name) in [
            (CitusEvent::BeforeDemote, "before_demote"),
            (CitusEvent::BeforePromote, "before_promote"),
            (CitusEvent::AfterPromote, "after_promote"),
        ] {
            assert_eq!(event.as_str(), name);
            assert_eq!(CitusEvent::parse(name), Some(event));
        }
        assert_eq!(CitusEvent::parse("after_demote"), None);
    }

    #[test]
    fn s16_1_slots_that_citus_made() {
        let logical = |plugin: &str| SlotKind::Logical {
            database: "app".into(),
            plugin: plugin.into(),
        };
        for (name, kind, expected) in [
            ("citus_shard_move_slot_1_2", logical("pgoutput"), true),
            ("citus_shard_move_slot_10_20_30", logical("pgoutput"), true),
            ("citus_shard_split_slot_1_2", logical("citus"), true),
            ("citus_shard_split_slot_1_2", logical("pgoutput"), false),
            ("citus_shard_move_slot_1_2", logical("citus"), false),
            ("citus_shard_move_slot_1", logical("pgoutput"), false),
            ("citus_shard_move_slot_1_2_3_4", logical("pgoutput"), false),
            ("citus_shard_move_slot_1_02", logical("pgoutput"), false),
            ("citus_shard_move_slot_1_", logical("pgoutput"), false),
            ("citus_shard_move_slot_1_2", SlotKind::Physical, false),
            ("mine", logical("pgoutput"), false),
        ] {
            assert_eq!(is_own_slot(name, &kind, "app"), expected, "{name} {kind:?}");
            assert!(!is_own_slot(name, &kind, "other"), "{name} {kind:?}");
        }
    }
}
