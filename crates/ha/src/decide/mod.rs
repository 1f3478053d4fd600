//! The order of the rules (`ha.md` §3): the first that has something to do ends the pass.

pub(crate) mod bootstrap;
pub(crate) mod confirmation;
mod demotion;
pub(crate) mod failsafe;
mod fence;
mod follow;
mod hang;
pub(crate) mod history;
mod in_flight;
mod leader;
mod operation;
mod quorum;
mod race;
mod reach;
mod recover;
mod repair;
mod rewind;
mod shutdown;
pub(crate) mod slots;
mod standby_cluster;
mod starting;
mod switchover;
pub(crate) mod sync;
mod synchronous_names;
mod walsenders;
pub(crate) mod watchdog;

pub(crate) use race::limitation;
pub(crate) use switchover::next_schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_model::{Cluster, DataDirectory, Initialize, MemberName, Process, Role};

use crate::decision::{Decision, DemotionMode, Exit, Job, Reason, Step, StopMode, StopReason};
use crate::machine::LogLevel;
use crate::situation::{Lease, RewindState, Situation, StoreView};

/// The one next step.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let mut why = Reasons::default();
    let step = match first_step(situation, &mut why) {
        Ok(step) => step,
        Err(Ask(members)) => Step::AskPeers(members),
    };
    Decision {
        step,
        reasons: why.reasons,
        outcome: why.outcome,
        said: why.said,
    }
}

/// The members whose answers a rule needs before it can say anything: name to API address.
#[derive(Debug)]
pub(crate) struct Ask(pub(crate) BTreeMap<MemberName, String>);

/// What a rule comes to: a step, nothing, or a question.
pub(crate) type Verdict<T> = Result<T, Ask>;

/// Collects the reasons of one decision.
#[derive(Default)]
pub(crate) struct Reasons {
    reasons: Vec<Reason>,
    outcome: String,
    said: Vec<(LogLevel, String)>,
}

impl Reasons {
    /// A rule had its say.
    pub(crate) fn note(&mut self, rule: &'static str, text: impl Into<String>) {
        self.reasons.push(Reason {
            rule,
            text: text.into(),
        });
    }

    /// The sentence that the log gets for this pass.
    pub(crate) fn outcome(&mut self, text: impl Into<String>) {
        self.outcome = text.into();
    }

    /// A rule had its say, and the log has it as well, beside the outcome.
    pub(crate) fn say(&mut self, rule: &'static str, level: LogLevel, text: impl Into<String>) {
        let text = text.into();
        self.said.push((level, text.clone()));
        self.note(rule, text);
    }
}

fn first_step(s: &Situation<'_>, why: &mut Reasons) -> Verdict<Step> {
    if let Some(shutdown) = &s.memory.shutdown {
        return shutdown::decide(s, shutdown, why);
    }
    let cluster = match s.store {
        StoreView::Seen(cluster) => cluster,
        StoreView::Unreachable => return Ok(unreachable_store(s, why)),
    };
    if let Some(step) = lost_lease(s, cluster, why) {
        return Ok(step);
    }
    if let Some(step) = failsafe::lock_lapsed(s, cluster, why) {
        return Ok(step);
    }
    let owner = cluster.is_led_by(s.me());
    // A lock that is being given up is not taken back by looking at an old view.
    if owner && s.lease == Lease::None && s.memory.demotion.is_none() {
        if let Some(step) = failsafe::unwanted_lock(s, why) {
            return Ok(step);
        }
        if let Some(step) = race::unjudged_lock(s, cluster, why) {
            return Ok(step);
        }
        why.note(
            "ha.md §5.3",
            "the leader key names me, and I hold no lease on it",
        );
        why.outcome(format!(
            "the leader key is mine ({}), taking its lease over",
            s.me()
        ));
        return Ok(Step::AdoptLease);
    }
    if owner && let Some(step) = repair::decide(s, cluster, why) {
        return Ok(step);
    }
    if let Some(job) = s.job {
        return in_flight::decide(s, cluster, job, why);
    }
    if let Some(demotion) = &s.memory.demotion
        && let Some(step) = demotion::decide(s, cluster, demotion, why)
    {
        return Ok(step);
    }
    if !owner && let Some(step) = promotion_without_lock(s, cluster, why) {
        return Ok(step);
    }
    if let Process::Dying(_) = s.server.process {
        return Ok(hang::dying(s, cluster, why));
    }
    if let Some(step) = bootstrap::unfinished(s, cluster, why) {
        return Ok(step);
    }
    if let Some(step) = starting::decide(s, cluster, why)? {
        return Ok(step);
    }
    if let Some(result) = s.memory.bootstrapping {
        return Ok(bootstrap::after_first_start(s, cluster, result, why));
    }
    if let Some(step) = failed_start(s, cluster, why) {
        return Ok(step);
    }
    if let Some(step) = hang::decide(s, cluster, why)? {
        return Ok(step);
    }
    if let Some(operation) = &s.memory.operation
        && operation::replaces_data(s, operation)
    {
        return Ok(operation::decide(s, cluster, operation, why));
    }
    if let Some(step) = data_directory(s, cluster, why) {
        return Ok(step);
    }
    if let Some(step) = system_identifier(s, cluster, why) {
        return Ok(step);
    }
    if let Some(operation) = &s.memory.operation {
        return Ok(operation::decide(s, cluster, operation, why));
    }
    if !s.server.process.is_alive() {
        return process_absent(s, cluster, why);
    }
    if cluster.is_unlocked() {
        race::decide(s, cluster, why)
    } else if owner {
        leader::decide(s, cluster, why)
    } else {
        follow::decide(s, cluster, why)
    }
}

/// The store is out of reach (`ha.md` §3.3). Reads that fail while renewals succeed change nothing: what
/// ends a leadership is the lease (safety over availability), and what keeps it is the lease as well.
fn unreachable_store(s: &Situation<'_>, why: &mut Reasons) -> Step {
    if s.global.pause {
        why.note("ha.md §3.3", "paused: a store out of reach demotes nobody");
        why.outcome("PAUSE: DCS is not accessible");
        return Step::Wait;
    }
    if s.job.is_some() || s.memory.demotion.is_some_and(|demotion| !demotion.stopped) {
        why.outcome("DCS is not accessible, a long action is under way");
        return Step::Wait;
    }
    if !s.server.process.is_alive() {
        let offline = s
            .memory
            .demotion
            .is_some_and(|demotion| demotion.mode == DemotionMode::Offline);
        if offline && !matches!(s.server.data_directory, DataDirectory::HalfRewound(_)) {
            why.note(
                "ha.md §12.1",
                "offline demotion: starting read-only, without an upstream",
            );
            why.outcome("demoted self because DCS is not accessible and I was a leader");
            return Step::StartJob(Job::Start {
                upstream: Default::default(),
            });
        }
        why.outcome("DCS is not accessible");
        return Step::Wait;
    }
    let promotion_without_lock = s.is_being_promoted() && s.lease == Lease::None;
    if !s.is_primary() && !promotion_without_lock {
        why.outcome("DCS is not accessible");
        return slots_without_store(s, why).unwrap_or(Step::Wait);
    }
    let lost = match s.lease {
        Lease::Held {
            until,
            failing_since,
        } => {
            s.now >= until
                || failing_since.is_some_and(|since| s.now.since(since) >= s.global.retry_timeout)
        }
        // A lock that an agent before this one held lasts for a ttl at most: so long the store may take to answer an agent
        // that begins, and the server to stop in good order before it is fenced.
        Lease::None => {
            let patience = s.global.ttl.saturating_sub(s.global.retry_timeout);
            s.memory.store_seen || s.now.since(s.memory.began) >= patience
        }
    };
    if !lost {
        why.note(
            "ha.md §3.3",
            "the store cannot be read, the lease still holds",
        );
        why.outcome("DCS cannot be read, the leader lock still holds");
        return Step::Wait;
    }
    if failsafe::stays(s, why) {
        return slots_without_store(s, why).unwrap_or(Step::Wait);
    }
    why.note(
        "ha.md §3.3",
        "primary, no store, no failsafe: nobody may be told, so nobody may write here",
    );
    why.outcome("demoting self because DCS is not accessible and I was a leader");
    demote(s, DemotionMode::Offline)
}

/// In failsafe mode slots are kept moving (`ha.md` §3.3).
fn slots_without_store(s: &Situation<'_>, why: &mut Reasons) -> Option<Step> {
    let view = failsafe::view_without_store(s)?;
    slots::decide(s, &view, why)
}

/// The lease ran out, or the key is somebody else's, while the server may still accept writes.
fn lost_lease(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let Lease::Held {
        until,
        failing_since,
    } = s.lease
    else {
        return None;
    };
    let failing = failing_since.is_some_and(|since| s.now.since(since) >= s.global.retry_timeout);
    if s.global.pause
        || s.job.is_some()
        || s.memory.demotion.is_some()
        || !s.is_primary()
        || !s.server.process.is_alive()
        || !cluster.is_led_by(s.me())
        || !(s.now >= until || failing)
        || failsafe::stays(s, why)
    {
        return None;
    }
    why.note(
        "ha.md §3.3",
        "the leader lock could not be renewed within retry_timeout",
    );
    why.outcome("demoting self because DCS is not accessible and I was a leader");
    Some(demote(s, DemotionMode::Offline))
}

/// A promotion that an agent before this one, or this one under a lock that is lost, has asked for is still under way. By
/// the time it comes to its end others may have led, and it would accept writes before anybody looks: also in pause
/// (safety over availability) it is a standby again, which follows or races.
fn promotion_without_lock(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if s.lease != Lease::None || !s.is_being_promoted() {
        return None;
    }
    let leader = match cluster.leader_name() {
        Some(leader) => format!("{leader} holds the lock"),
        None => "nobody holds the lock".into(),
    };
    why.note(
        "ha.md W15",
        format!("{leader}, and the server here was asked to promote"),
    );
    why.outcome("demoting self because i do not have the lock and i am being promoted");
    Some(demote(s, DemotionMode::ImmediateNoLock))
}

/// The start that was under way has failed (`ha.md` §3 H). A leader gives the lock up; everybody looks
/// again after loop_wait.
fn failed_start(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let failed_at = s.memory.start_failed_at?;
    if s.server.process.is_alive() {
        return None;
    }
    let retry_at = failed_at + s.global.loop_wait;
    if s.now >= retry_at {
        return None;
    }
    why.outcome("failed to start postgres");
    if cluster.is_led_by(s.me()) {
        why.note(
            "ha.md §3 H1",
            "PostgreSQL failed to start here: another member shall try",
        );
        return Some(Step::ReleaseLeader { optime: None });
    }
    why.note(
        "ha.md §3 H1",
        "PostgreSQL failed to start; the next try is after loop_wait",
    );
    Some(Step::WaitUntil(retry_at))
}

/// The data directory is empty or cannot be read (`ha.md` §3 I).
fn data_directory(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let reason = match &s.server.data_directory {
        DataDirectory::Valid => return None,
        DataDirectory::Foreign(text) => {
            why.note(
                "design.md I6",
                "files that are not a PostgreSQL cluster are never touched",
            );
            why.outcome(format!("waiting: {text}"));
            if cluster.is_led_by(s.me()) {
                return Some(Step::ReleaseLeader { optime: None });
            }
            return Some(Step::Wait);
        }
        DataDirectory::HalfRewound(text) => {
            return Some(half_rewound(s, cluster, text, why));
        }
        // What holds a server that lives is for `hang` to judge.
        DataDirectory::Hanging(_) if s.server.process.is_alive() => return None,
        DataDirectory::Unreadable(text) | DataDirectory::Hanging(text) => Some(text),
        DataDirectory::Empty => None,
    };
    if s.server.process.is_alive() {
        why.note(
            "ha.md §3 I",
            "the data directory is gone under the running server",
        );
        why.outcome("stopping PostgreSQL, its data directory is gone");
        return Some(Step::StartJob(Job::Stop {
            mode: StopMode::Immediate,
            checkpoint: false,
            timeout: Some(s.global.retry_timeout),
            reason: StopReason::StaleData,
        }));
    }
    if cluster.is_led_by(s.me()) {
        why.note("ha.md §3 I", "no data directory, and I own the lock");
        why.outcome("released leader key voluntarily as data dir empty");
        return Some(Step::ReleaseLeader { optime: None });
    }
    if let Some(text) = reason {
        why.outcome(format!("data directory is not accessible: {text}"));
        return Some(Step::Wait);
    }
    if s.global.pause {
        why.outcome("PAUSE: running with empty data directory");
        return Some(Step::Wait);
    }
    Some(bootstrap::empty_data_directory(s, cluster, why))
}

/// Safety over availability: Patroni starts what an interrupted pg_rewind left, which PostgreSQL's documentation says cannot
/// be recovered. A second pg_rewind does not help: the source's WAL is already where it looks for this server's.
fn half_rewound(s: &Situation<'_>, cluster: &Cluster, text: &str, why: &mut Reasons) -> Step {
    why.note(
        "ha.md §8.5.6",
        "pg_rewind was interrupted while it wrote: what it left is neither started nor rewound again",
    );
    if cluster.is_led_by(s.me()) {
        why.outcome(format!("released leader key voluntarily: {text}"));
        return Step::ReleaseLeader { optime: None };
    }
    let replaced = s.local.remove_on_rewind_failure || s.local.remove_on_divergence;
    if replaced
        && !s.global.pause
        && !s.server.process.is_alive()
        && let Some(step) = rewind::copy_anew(s, cluster, why)
    {
        return step;
    }
    why.outcome(format!("{text}: reinitialize this member"));
    Step::Wait
}

/// Whose data this is (`ha.md` §3 J).
fn system_identifier(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let Some(mine) = &s.server.system_identifier else {
        if matches!(s.server.data_directory, DataDirectory::Hanging(_)) {
            // It was known before the disk hung, and a server that runs is still subject to the rules.
            return None;
        }
        why.note(
            "ha.md §3 J",
            "the system identifier of the data directory cannot be read",
        );
        why.outcome(match s.server.control {
            Some(_) => format!("system ID is invalid, {} needs to be reinitialized", s.me()),
            None => "waiting for the control file to be read".into(),
        });
        return Some(Step::Wait);
    };
    match &cluster.initialize {
        Initialize::Done(theirs) if theirs != mine => {
            why.note(
                "ha.md §3 J",
                format!("system identifier {mine}, the cluster's is {theirs}"),
            );
            if s.global.pause {
                if cluster.is_led_by(s.me()) {
                    why.outcome(
                        "PAUSE: released leader key voluntarily due to the system ID mismatch",
                    );
                    return Some(Step::ReleaseLeader { optime: None });
                }
                return None;
            }
            let reason = format!(
                "system ID mismatch, node {} belongs to a different cluster: its data directory has {mine}, the \
                 cluster has {theirs}; point postgresql.data_dir to another directory, or change scope",
                s.me()
            );
            Some(Step::Exit(Exit { code: 1, reason }))
        }
        Initialize::Done(_) => None,
        _ if cluster.is_unlocked() && !s.global.pause && !s.memory.joined => {
            if s.server.process.is_alive() && !s.is_primary() {
                why.note(
                    "ha.md §3 J",
                    "the cluster was never initialized, and I run as a replica",
                );
                let reason = format!(
                    "aborting the start: PostgreSQL of {} runs as a replica, but the cluster has no system ID yet; \
                     start the agent of its primary first",
                    s.me()
                );
                return Some(Step::Exit(Exit { code: 1, reason }));
            }
            why.note(
                "ha.md §3 J",
                "existing data, and the cluster was never initialized",
            );
            why.outcome(format!(
                "initializing the cluster with the data of {}",
                s.me()
            ));
            Some(Step::WriteInitialize {
                identifier: mine.clone(),
                over: bootstrap::over(&cluster.initialize),
            })
        }
        _ => None,
    }
}

/// No postmaster (`ha.md` §3 K).
fn process_absent(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Verdict<Step> {
    if !s.global.pause {
        return recover::decide(s, cluster, why);
    }
    if cluster.is_led_by(s.me()) {
        why.note("ha.md §3 K", "paused, and PostgreSQL does not run");
        why.outcome("PAUSE: removed leader lock because postgres is not running");
        return Ok(Step::ReleaseLeader { optime: None });
    }
    if was_stopped_here(s) {
        why.note(
            "ha.md §3 K",
            "paused, and the agent stopped the server itself: to hand over, rewind or copy it",
        );
        return recover::decide(s, cluster, why);
    }
    why.note("ha.md §22", "paused: a stopped server is not started");
    why.outcome("PAUSE: postgres is not running");
    Ok(Step::Wait)
}

/// A pause leaves alone what people do, not what the agent was asked to do and has half done.
fn was_stopped_here(s: &Situation<'_>) -> bool {
    let handed_over = s.memory.demotion.is_some_and(|demotion| demotion.stopped);
    handed_over
        || s.memory.copied
        || match s.memory.rewind {
            RewindState::Succeeded => true,
            RewindState::Needed => s.can_repair_divergence(),
            RewindState::Check { .. } | RewindState::FitsSoFar => {
                s.can_repair_divergence() && s.memory.role == Role::Demoted
            }
            RewindState::Initial | RewindState::NotNeeded | RewindState::Failed => false,
        }
}

/// Begins the end of a leadership.
pub(crate) fn demote(s: &Situation<'_>, mode: DemotionMode) -> Step {
    debug_assert!(s.server.process != Process::Absent || mode.releases());
    demote_within(
        mode,
        match mode {
            // A fast stop that waits for ever would outlive the lease: the rest of it is all there is.
            DemotionMode::Offline => Some(s.global.retry_timeout),
            DemotionMode::Graceful if s.wants_sync() => s.global.primary_stop_timeout,
            _ => None,
        },
    )
}

/// As [`demote`]; what has not stopped after `timeout` is stopped more roughly.
pub(crate) fn demote_within(mode: DemotionMode, timeout: Option<Duration>) -> Step {
    Step::StartJob(Job::Stop {
        mode: mode.stop_mode(),
        checkpoint: mode == DemotionMode::Graceful,
        timeout,
        reason: StopReason::Demotion(mode),
    })
}
