//! Whether the local WAL left the leader's, and what to do about it (`ha.md` §8).

use std::time::Duration;

use primacy_model::{Cluster, ControlState, Member, Role};

use super::{Reasons, bootstrap, standby_cluster};
use crate::decision::{Job, Source, Step};
use crate::situation::{RewindState, Situation};

/// Between two comparisons that could not be made.
const RETRY: Duration = Duration::from_millis(500);
/// After so many of them a stopped server is started all the same: it streams from nobody, and is compared again
/// while it runs. One that is a copy still has a control file that tells nothing of itself.
const TRIES_BEFORE_START: u32 = 20;

/// The primary whose WAL this member's must be a prefix of.
enum Primary<'a> {
    /// The leader of this cluster.
    Leader(&'a Member),
    /// The one outside that all members of a standby cluster get their WAL from (`ha.md` §8.4).
    Remote(Source),
}

impl<'a> Primary<'a> {
    fn of(s: &Situation<'_>, cluster: &'a Cluster) -> Option<Self> {
        if s.global.standby_cluster.is_some() {
            return standby_cluster::source(s.global).map(Primary::Remote);
        }
        let leader = cluster.leader_member()?;
        (leader.name != *s.me()).then_some(Primary::Leader(leader))
    }

    fn name(&self) -> &str {
        match self {
            Primary::Leader(leader) => &leader.name,
            Primary::Remote(source) => &source.name,
        }
    }

    fn source(&self) -> Option<Source> {
        match self {
            Primary::Leader(leader) => bootstrap::member_source(leader, true),
            Primary::Remote(source) => Some(source.clone()),
        }
    }

    /// How often it is asked, and how many times before a stopped server is started without an answer. A
    /// remote primary may be away for long, or be a standby itself while two sites change their roles.
    fn patience(&self, s: &Situation<'_>) -> (Duration, u32) {
        match self {
            Primary::Leader(_) => (RETRY, TRIES_BEFORE_START),
            Primary::Remote(_) => (s.global.loop_wait, 1),
        }
    }
}

/// Where the local WAL may have left the leader's, and nobody has looked yet. A timeline of the same number need not be
/// the same one: PostgreSQL would stream whatever comes next at its position.
pub(super) fn is_to_be_compared(s: &Situation<'_>) -> bool {
    let streams = s.wal().is_some_and(|wal| wal.receiver.is_some());
    let unknown = match s.memory.rewind {
        RewindState::Check { .. } | RewindState::FitsSoFar => true,
        RewindState::Initial => !streams,
        _ => false,
    };
    unknown && compares(s)
}

/// The leader is still a standby: what its new timeline will fork from is not known, and its number may be that of mine.
/// It is followed once it was promoted and compared with.
pub(super) fn is_to_be_promoted(s: &Situation<'_>, cluster: &Cluster) -> bool {
    let leader = cluster
        .leader_member()
        .filter(|leader| leader.name != *s.me());
    leader.is_some_and(|leader| leader.data.role != Some(Role::Primary)) && compares(s)
}

fn compares(s: &Situation<'_>) -> bool {
    s.can_repair_divergence() && s.global.standby_cluster.is_none()
}

/// The step that divergence needs, if it needs one.
pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if !s.can_repair_divergence() {
        if s.memory.rewind == RewindState::Needed {
            why.note("ha.md §8.4", cannot_repair(s));
        }
        return None;
    }
    let primary = Primary::of(s, cluster)?;
    let (retry, tries_before_start) = primary.patience(s);
    let stopped = !s.server.process.is_alive();
    match s.memory.rewind {
        RewindState::FitsSoFar if stopped => {
            why.note(
                "ha.md §8.3",
                "the control file fits; how far the WAL goes is known once it is replayed",
            );
            None
        }
        RewindState::FitsSoFar => check(s, &primary, why),
        RewindState::Initial if stopped => check(s, &primary, why),
        RewindState::Check { undecided: None } => check(s, &primary, why),
        RewindState::Check {
            undecided: Some((_, tries)),
        } if stopped && (tries >= tries_before_start || s.server.backup_label) => {
            why.note(
                "ha.md §8.3",
                format!("the comparison with {} cannot be made now", primary.name()),
            );
            None
        }
        RewindState::Check {
            undecided: Some((at, _)),
        } if s.now >= at + retry => check(s, &primary, why),
        RewindState::Check {
            undecided: Some((at, _)),
        } if stopped => {
            why.outcome(format!(
                "waiting for {} to be ready for a comparison",
                primary.name()
            ));
            Some(Step::WaitUntil(at + retry))
        }
        RewindState::Needed => repair(s, cluster, &primary, why),
        RewindState::Failed if s.local.remove_on_rewind_failure || s.local.remove_on_divergence => {
            why.note(
                "ha.md §8.5.6",
                "pg_rewind failed, and the configuration asks for a new copy then",
            );
            reinitialize(s, cluster, &primary, why)
        }
        RewindState::Failed => {
            why.note(
                "ha.md §8.5.6",
                "pg_rewind failed, and remove_data_directory_on_rewind_failure is off: reinitialize this member by hand",
            );
            None
        }
        _ => None,
    }
}

/// Why WAL that left the leader's stays as it is.
fn cannot_repair(s: &Situation<'_>) -> &'static str {
    if s.local.use_pg_rewind {
        "the local WAL left the leader's; pg_rewind needs wal_log_hints or data checksums, which this cluster has not: \
         reinitialize this member"
    } else {
        "the local WAL left the leader's; neither use_pg_rewind nor remove_data_directory_on_diverged_timelines is on: \
         reinitialize this member"
    }
}

/// Steps 2 of `ha.md` §8.3: a leader that has not been promoted yet cannot be compared with.
fn check(s: &Situation<'_>, primary: &Primary<'_>, why: &mut Reasons) -> Option<Step> {
    let promoted = match primary {
        Primary::Leader(leader) => leader.data.role == Some(Role::Primary),
        Primary::Remote(_) => true,
    };
    let Some(source) = primary.source().filter(|_| promoted) else {
        let name = primary.name();
        why.note(
            "ha.md §8.3.2",
            format!("{name} leads, and is not a primary yet"),
        );
        why.outcome(format!("waiting for {name} to be promoted"));
        return Some(Step::WaitUntil(s.now + RETRY));
    };
    why.note(
        "ha.md §8.3",
        "whether the local WAL is part of the primary's must be known first",
    );
    why.outcome(format!("comparing the local WAL with that of {source}"));
    Some(Step::StartJob(Job::CheckDivergence { source }))
}

/// `ha.md` §8.4.
fn repair(
    s: &Situation<'_>,
    cluster: &Cluster,
    primary: &Primary<'_>,
    why: &mut Reasons,
) -> Option<Step> {
    let source = primary.source()?;
    if s.can_rewind() {
        if let Primary::Leader(leader) = primary
            && leader.data.checkpoint_pending
        {
            why.note(
                "ha.md §8.5.3",
                format!("{} has made no checkpoint since its promotion", leader.name),
            );
            why.outcome(format!(
                "waiting for checkpoint on {} before rewind",
                leader.name
            ));
            return Some(Step::WaitUntil(s.now + RETRY));
        }
        let crashed_standby = s
            .server
            .control
            .as_ref()
            .is_some_and(|control| control.state == ControlState::InArchiveRecovery);
        if crashed_standby && !s.server.process.is_alive() && !s.memory.crash_recovery_tried {
            why.note(
                "ha.md §8.4.1",
                "pg_rewind needs a server that was shut down in good order",
            );
            why.outcome("doing crash recovery in a single user mode");
            return Some(Step::StartJob(Job::CrashRecovery));
        }
        why.note("ha.md §8.4.1", "the local WAL left the primary's");
        why.outcome(format!("running pg_rewind from {source}"));
        // What a remote primary did since its promotion, nobody publishes here.
        let checkpoint_confirmed = match primary {
            Primary::Leader(leader) => leader.data.version.is_some(),
            Primary::Remote(_) => false,
        };
        return Some(Step::StartJob(Job::Rewind {
            source,
            checkpoint_confirmed,
        }));
    }
    if s.local.remove_on_divergence && s.global.standby_cluster.is_none() {
        why.note(
            "ha.md §8.4.2",
            "the local WAL left the leader's, pg_rewind cannot be used",
        );
        return reinitialize(s, cluster, primary, why);
    }
    why.note("ha.md §8.4", cannot_repair(s));
    None
}

/// A new copy in the place of what an interrupted pg_rewind left.
pub(super) fn copy_anew(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    reinitialize(s, cluster, &Primary::of(s, cluster)?, why)
}

/// A new copy: of the leader; the leader of a standby cluster copies the remote primary.
fn reinitialize(
    s: &Situation<'_>,
    cluster: &Cluster,
    primary: &Primary<'_>,
    why: &mut Reasons,
) -> Option<Step> {
    let leader = cluster
        .leader_member()
        .filter(|leader| leader.name != *s.me());
    let source = match leader {
        Some(leader) => bootstrap::member_source(leader, true),
        None => primary.source(),
    }?;
    why.outcome(format!(
        "reinitialize due to diverged timelines, from {source}"
    ));
    Some(Step::StartJob(Job::CreateReplica {
        source: Some(source),
        reinitialize: true,
        basebackup_only: false,
    }))
}
