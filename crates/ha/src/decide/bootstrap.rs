//! A new cluster, or a new member (`ha.md` §6).

use primacy_config::GlobalConfig;
use primacy_model::{Cluster, DataDirectory, Initialize, Member, State};

use super::{Reasons, repair, standby_cluster};
use crate::decision::{Job, Over, Source, Step};
use crate::situation::Situation;

/// Nothing in the data directory, not paused, not the owner (`ha.md` §6.1).
pub(super) fn empty_data_directory(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Step {
    if cluster.is_unlocked() && cluster.initialize == Initialize::Absent {
        if s.local.tags.nofailover() {
            why.note(
                "ha.md §6.1.1",
                "tagged nofailover: does not start a new cluster",
            );
        } else if s.local.may_bootstrap {
            why.note(
                "ha.md §6.1.1",
                "no leader, never initialized: bidding for the bootstrap",
            );
            why.outcome("trying to bootstrap a new cluster");
            return Step::ClaimInitialize;
        } else {
            why.note(
                "ha.md §6.1.1",
                "no bootstrap section: does not start a new cluster",
            );
        }
    }
    if let Some(source) = clone_source(s, cluster) {
        why.note("ha.md §6.1.2", format!("copying {}", source.name));
        why.outcome(format!("trying to bootstrap from {source}"));
        return Step::StartJob(Job::CreateReplica {
            source: Some(source),
            reinitialize: false,
            basebackup_only: false,
        });
    }
    if standby_cluster::has_method_without_source(s) && cluster.initialize != Initialize::Running {
        why.note("ha.md §6.1.3", "a replica method needs no source");
        why.outcome("trying to bootstrap without leader");
        return Step::StartJob(Job::CreateReplica {
            source: None,
            reinitialize: false,
            basebackup_only: false,
        });
    }
    why.note(
        "ha.md §6.1.4",
        match &cluster.initialize {
            Initialize::Absent => "/initialize is absent, and there is nobody to copy".into(),
            Initialize::Running => "/initialize is claimed, and there is nobody to copy yet".into(),
            Initialize::Done(identifier) => {
                format!("/initialize is {identifier}, and there is nobody to copy now")
            }
            Initialize::Invalid(text) => format!("/initialize is no system identifier: {text:?}"),
        },
    );
    why.outcome(if cluster.is_unlocked() {
        "waiting for leader to bootstrap"
    } else {
        "waiting for the leader to be reachable"
    });
    Step::Wait
}

/// A key that is not there is only created: others may see its absence, too.
pub(super) fn over(initialize: &Initialize) -> Over {
    match initialize {
        Initialize::Absent => Over::Nothing,
        _ => Over::Anything,
    }
}

/// An earlier agent of this member died while it made a new cluster (W11). What it left looks like a cluster, and
/// may lack its roles, or everything; nobody ever relied on it. A marker beside the data directory tells.
pub(super) fn unfinished(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    if !s.server.unfinished_bootstrap || s.memory.bootstrapping.is_some() {
        return None;
    }
    if let Some(step) = published(s, cluster, why) {
        return Some(step);
    }
    if s.server.data_directory == DataDirectory::Empty && !s.server.process.is_alive() {
        why.note(
            "ha.md W11",
            "the data directory of an unfinished bootstrap is empty",
        );
        why.outcome("nothing is left of an unfinished bootstrap");
        return Some(Step::ForgetBootstrap);
    }
    if s.global.pause {
        return None;
    }
    why.note(
        "ha.md W11",
        "an earlier bootstrap of this member did not come to its end, and the cluster does not know it",
    );
    why.outcome("moving the data directory of an unfinished bootstrap aside");
    Some(Step::AbandonBootstrap)
}

/// The cluster is the one that was made here. Perhaps its maker never heard that the write arrived, and lost the store then:
/// nobody else can make another one any more, so this one is not given up.
fn published(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let published = cluster.initialize.system_identifier()?;
    if s.server.system_identifier.as_ref() != Some(published) {
        return None;
    }
    why.note(
        "ha.md W11",
        format!("/initialize is {published}, as the data directory has it"),
    );
    why.outcome("the bootstrap is finished");
    Some(Step::ForgetBootstrap)
}

/// What makes a new cluster once the bid for it is won (`ha.md` §6.1.1).
pub(crate) fn first_job(global: &GlobalConfig) -> Job {
    if global.standby_cluster.is_none() {
        return Job::Bootstrap;
    }
    Job::BootstrapStandbyLeader {
        upstream: standby_cluster::remote(global, true),
    }
}

/// Whom to copy (`ha.md` §6.1): a running member tagged `clonefrom`, else the leader. The choice among
/// several differs from member to member, and is the same each time for one.
pub(super) fn clone_source(s: &Situation<'_>, cluster: &Cluster) -> Option<Source> {
    let leader = cluster.leader_member()?;
    let willing: Vec<&Member> = s
        .others(cluster)
        .filter(|member| {
            member.name != leader.name
                && member.data.tags.clonefrom()
                && member.data.state == Some(State::Running)
                && member.data.connection().is_some()
        })
        .collect();
    if willing.is_empty() {
        return member_source(leader, true);
    }
    let spread: usize = s.me().bytes().map(usize::from).sum();
    member_source(willing[spread % willing.len()], false)
}

/// A member to copy or to compare with; `None` while it publishes no address.
pub(super) fn member_source(member: &Member, leads: bool) -> Option<Source> {
    let role = if leads { "leader" } else { "replica" };
    Some(Source {
        name: format!("{role} '{}'", member.name),
        connection: member.data.connection()?.into(),
    })
}

/// The first start of a new cluster was made here (`ha.md` §6.2).
pub(super) fn after_first_start(
    s: &Situation<'_>,
    cluster: &Cluster,
    result: Option<bool>,
    why: &mut Reasons,
) -> Step {
    if !s.server.process.is_alive() || result == Some(false) {
        if let Some(step) = published(s, cluster, why) {
            return step;
        }
        why.note("ha.md §6.2", "the new cluster did not come up");
        why.outcome("failed to bootstrap cluster");
        return Step::CancelBootstrap;
    }
    if result == Some(true) {
        return publish_new_cluster(s, cluster, why);
    }
    if !s.is_primary() {
        why.outcome("waiting for end of recovery after bootstrap");
        return Step::Wait;
    }
    why.note(
        "ha.md §6.2",
        "the new cluster accepts writes: creating its roles",
    );
    why.outcome("running post_bootstrap");
    Step::StartJob(Job::PostBootstrap)
}

/// One key after the other, the leader key last: whoever sees it finds everything else.
fn publish_new_cluster(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Step {
    let Some(mine) = &s.server.system_identifier else {
        why.outcome("the system ID of the new cluster cannot be read");
        return Step::Wait;
    };
    why.note(
        "ha.md §6.2",
        "post_bootstrap succeeded: publishing the new cluster key by key",
    );
    why.outcome("initialized a new cluster");
    match &cluster.initialize {
        Initialize::Done(theirs) if theirs == mine => {}
        Initialize::Done(_) => {
            why.note(
                "ha.md §6.2",
                "somebody else initialized the cluster meanwhile",
            );
            return Step::CancelBootstrap;
        }
        // A claim that lapsed meanwhile may be another member's now (W11).
        initialize => {
            let over = match initialize {
                Initialize::Running => Over::OwnClaim,
                other => over(other),
            };
            return Step::WriteInitialize {
                identifier: mine.clone(),
                over,
            };
        }
    }
    if cluster.config.is_none() {
        return repair::write_config(cluster);
    }
    match cluster.leader_name() {
        None => Step::AcquireLeader { failover: None },
        Some(leader) if leader == s.me() => Step::Wait,
        Some(leader) => {
            why.note("ha.md §6.2", format!("{leader} leads already"));
            Step::CancelBootstrap
        }
    }
}
