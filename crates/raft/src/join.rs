//! A member's way into the group, and the danger of one that forgot.
//!
//! A member promises things: not to vote twice in a term, and to keep what it acknowledged. Its file is its
//! memory. If the file is lost and the member comes back as if nothing had been,
//!
//! 1. a write is acknowledged by members A and B of three, and so it counts as committed;
//! 2. B's disk dies, B is set up anew, with nothing;
//! 3. A goes away; C, which never saw the write, asks B for its vote, and B, knowing nothing better, grants it;
//! 4. C leads with B's vote: the acknowledged write is gone, and nobody noticed.
//!
//! The same goes for promises: B may have voted for A in term 5, forget it, and then acknowledge entries of
//! a leader of term 4, which a majority has already left.
//!
//! So a member whose file is new asks all others what they have promised and what they have ([`Standing`]):
//!
//! - If no other has seen the group at work, and a majority is in reach, the group is founded. Every member
//!   does so by itself with the same first entry.
//! - If the group is at work, it waits until *every* other member has answered. Then it takes over the
//!   highest vote among the answers as its own promise: whatever it has forgotten was promised together
//!   with one of them. And until it has applied the highest entry among the answers, it neither votes nor
//!   stands for election: whatever it acknowledged is in front of that entry, since it was acknowledged
//!   together with one of them.
//! - If so many members have lost their files that they were a majority, nobody can say what was
//!   acknowledged. They wait, and say so; a person must decide to begin anew, by moving away the
//!   other files too.
//!
//! The price: a new or wiped member joins only while all others are up. The group itself goes on meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::RaftError;
use crate::core::Core;
use crate::disk::Standing;
use crate::message::{Reply, Request};
use crate::peers::Lane;
use crate::types::{LogId, Raft, Vote};

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(250);

/// How long the others may think about one.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to do with a new file.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The group begins.
    Found,
    /// The group is at work: keep this promise, and catch up with this entry before voting.
    Recover {
        vote: Option<Vote>,
        target: Option<LogId>,
    },
    /// Not yet, for this reason.
    Wait(String),
}

/// Judges what the other members answered; `None` did not.
fn judge(others: &[(String, Option<Standing>)]) -> Verdict {
    let total = others.len() + 1;
    let majority = total / 2 + 1;
    let silent: Vec<&str> = others
        .iter()
        .filter(|(_, answer)| answer.is_none())
        .map(|(addr, _)| addr.as_str())
        .collect();
    let answers = || others.iter().filter_map(|(_, answer)| answer.as_ref());
    let at_work = answers().any(|standing| standing.is_founded() || standing.recovering.is_some());
    if !at_work {
        return if 1 + answers().count() >= majority {
            Verdict::Found
        } else {
            Verdict::Wait(format!(
                "the group is not founded: {majority} of {total} members must be up, waiting for {}",
                silent.join(", ")
            ))
        };
    }
    if !silent.is_empty() {
        return Verdict::Wait(format!(
            "this member's file is new, but the group is at work: every other member must say what this one may \
             have promised, waiting for {}",
            silent.join(", ")
        ));
    }
    let lost = 1 + answers()
        .filter(|standing| standing.is_fresh() || standing.recovering.is_some())
        .count();
    if lost >= majority {
        return Verdict::Wait(format!(
            "{lost} of {total} members have lost their files: what the group had agreed on cannot be known; to begin \
             anew with an empty store, stop all members and move away their files"
        ));
    }
    let votes = answers().filter_map(|standing| standing.vote);
    let vote = votes
        .map(|vote| (vote.leader_id.term, vote.leader_id.node_id))
        .max();
    Verdict::Recover {
        // Never as a granted one: it might be this member's own from before, and it must not lead.
        vote: vote.map(|(term, node)| Vote::new(term, node)),
        target: answers().filter_map(|standing| standing.last_log).max(),
    }
}

/// Waits until this member may take part. Returns whether it must catch up first.
pub(crate) async fn consult(core: &Core) -> Result<(), RaftError> {
    let disk = core.life().disk.clone();
    let disk_error = |error: crate::disk::DiskError| RaftError::Disk {
        path: disk.path().into(),
        reason: error.to_string(),
    };
    let standing = disk.standing().map_err(disk_error)?;
    if standing.recovering.is_some() {
        core.recovering.store(true, Ordering::Relaxed);
        return Ok(());
    }
    if !standing.is_fresh() {
        return Ok(());
    }
    loop {
        match judge(&ask_all(core).await) {
            Verdict::Found => break,
            Verdict::Recover { vote, target } => {
                disk.adopt(vote, target).map_err(disk_error)?;
                core.recovering.store(true, Ordering::Relaxed);
                tracing::info!(
                    "raft: {} joins the group with nothing, and votes when it has caught up",
                    core.addr
                );
                break;
            }
            Verdict::Wait(reason) => {
                if core.trouble().as_ref() != Some(&reason) {
                    tracing::info!("raft: {}: {reason}", core.addr);
                }
                core.set_trouble(Some(reason));
                sleep(PAUSE).await;
            }
        }
    }
    core.set_trouble(None);
    Ok(())
}

async fn ask_all(core: &Core) -> Vec<(String, Option<Standing>)> {
    let others = core.members.iter().filter(|member| **member != core.addr);
    join_all(others.map(async |member| {
        let deadline = Instant::now() + PATIENCE;
        let answer = core
            .peers
            .ask(member, Lane::Calls, &Request::Probe, deadline)
            .await;
        let standing = match answer {
            Ok(Reply::Standing(standing)) => Some(standing),
            _ => None,
        };
        (member.clone(), standing)
    }))
    .await
}

/// Lets a member that had lost its file vote again once it has caught up.
pub(crate) async fn recover(core: Arc<Core>, raft: Raft) {
    let disk = core.life().disk.clone();
    let Ok(Standing {
        recovering: Some(target),
        ..
    }) = disk.standing()
    else {
        return;
    };
    let mut metrics = raft.data_metrics();
    if metrics
        .wait_for(|metrics| metrics.last_applied >= Some(target))
        .await
        .is_err()
    {
        return;
    }
    match disk.recovered() {
        Ok(()) => {
            core.recovering.store(false, Ordering::Relaxed);
            raft.runtime_config().elect(true);
            tracing::info!("raft: {} has caught up and votes", core.addr);
        }
        Err(error) => core.set_trouble(Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn log(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    fn standing(term: u64, index: u64) -> Option<Standing> {
        let vote = Some(Vote::new_committed(term, 1));
        Some(Standing {
            vote,
            last_log: Some(log(term, index)),
            recovering: None,
        })
    }

    fn fresh() -> Option<Standing> {
        Some(Standing::default())
    }

    fn recovering() -> Option<Standing> {
        Some(Standing {
            recovering: Some(log(3, 9)),
            ..Standing::default()
        })
    }

    fn verdict(answers: &[Option<Standing>]) -> Verdict {
        let named = answers
            .iter()
            .enumerate()
            .map(|(number, answer)| (format!("m{number}"), answer.clone()));
        judge(&named.collect::<Vec<_>>())
    }

    fn waits(answers: &[Option<Standing>], why: &str) -> bool {
        matches!(verdict(answers), Verdict::Wait(reason) if reason.contains(why))
    }

    #[test]
    fn a_new_group_needs_a_majority() {
        assert_eq!(verdict(&[]), Verdict::Found);
        assert_eq!(verdict(&[fresh(), None]), Verdict::Found);
        assert_eq!(verdict(&[standing(0, 0), None]), Verdict::Found);
        assert!(waits(&[None, None], "not founded"));
        assert!(waits(&[None], "not founded"));
    }

    #[test]
    fn a_group_at_work_is_joined_when_all_have_answered() {
        assert!(waits(&[standing(3, 7), None], "waiting for m1"));
        let joined = Verdict::Recover {
            vote: Some(Vote::new(5, 1)),
            target: Some(log(5, 2)),
        };
        assert_eq!(verdict(&[standing(3, 7), standing(5, 2)]), joined);
        assert_eq!(verdict(&[standing(5, 2)]), joined);
        assert_eq!(
            verdict(&[standing(3, 7), standing(5, 2), standing(4, 4), fresh()]),
            joined
        );
    }

    #[test]
    fn a_majority_that_lost_its_files_waits_for_a_person() {
        assert!(waits(
            &[standing(3, 7), fresh()],
            "2 of 3 members have lost their files"
        ));
        assert!(waits(&[standing(3, 7), recovering()], "lost their files"));
    }
}
