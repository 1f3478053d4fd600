//! Nobody holds the lock (`ha.md` §10).

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_config::SynchronousMode;
use primacy_model::{
    Cluster, FailoverRequest, Lsn, Member, MemberName, Role, State, SystemIdentifier, Timeline,
    Version, WalStatus,
};

use super::reach::Reach;
use super::{
    Ask, Reasons, Verdict, demote, failsafe, fence, follow, hang, slots, switchover, watchdog,
};
use crate::decision::{DemotionMode, Step};
use crate::machine::LogLevel;
use crate::situation::{PeerReport, RewindState, Situation};
use crate::time::Moment;

/// While nobody leads, the answer may change with any member that comes or goes.
const RACE_LOOK: Duration = Duration::from_secs(1);

pub(super) fn decide(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Verdict<Step> {
    if let Some(step) = drop_schedule(s, cluster, why) {
        return Ok(step);
    }
    if let Some((until, reason)) = back_off(s, cluster, why) {
        let step = follow::keep_following(s, cluster, why);
        if step == Step::Wait {
            why.outcome(format!(
                "the old primary may still be alive, {reason}: not racing for the lock yet"
            ));
            return Ok(Step::WaitUntil(until));
        }
        return Ok(step);
    }
    if is_healthiest(s, cluster, why)? {
        if let Some(until) = slots::leave_lock_until(s, cluster, why) {
            why.outcome(
                "a member with better replication slots may take the lock: not racing for it yet",
            );
            return Ok(Step::WaitUntil(until));
        }
        why.outcome("acquired session lock as a leader");
        return Ok(Step::AcquireLeader {
            failover: failover_after_winning(s, cluster),
        });
    }
    // §10.4
    if s.is_primary() {
        if s.global.pause {
            why.outcome("PAUSE: continue to run as primary without lock");
            return Ok(Step::Wait);
        }
        why.note(
            "ha.md §10.4",
            "a primary that may not take the lock may not accept writes",
        );
        why.outcome("demoting self because I am not the healthiest node");
        return Ok(demote(s, DemotionMode::ImmediateNoLock));
    }
    let step = follow::keep_following(s, cluster, why);
    if step == Step::Wait {
        // Both as alerts match on them (`process.md`).
        why.outcome(match s.local.tags.nofailover() {
            true => "following a different leader because I am not allowed to promote",
            false => "following a different leader because i am not the healthiest node",
        });
        if s.global.pause {
            // Only a request of an operator's changes anything, and the store tells of those.
            return Ok(Step::Wait);
        }
        return Ok(Step::WaitUntil(s.now + RACE_LOOK));
    }
    Ok(step)
}

/// `primary_race_backoff` (`ha.md` §10.0): a replica that still gets WAL leaves the lock to the primary that sends it,
/// for so long at most; the first `loop_wait` is always left to it. `None`: race now.
fn back_off(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Option<(Moment, &'static str)> {
    let backoff = s.global.primary_race_backoff;
    let chosen = cluster
        .failover
        .as_ref()
        .is_some_and(|request| request.candidate.is_some());
    if backoff == Duration::ZERO
        || s.global.pause
        || s.global.standby_cluster.is_some()
        || chosen
        || s.is_primary()
    {
        return None;
    }
    let (_, moved) = s.memory.wal_moved?;
    let since = s.memory.unlocked_since?;
    let (end, first) = (since + backoff, since + s.global.loop_wait.min(backoff));
    let streams = s.wal()?.receiver.as_ref();
    let streams = streams.is_some_and(|receiver| receiver.status == "streaming");
    let receives = streams && moved.is_some_and(|at| s.now.since(at) < s.global.loop_wait);
    if s.now >= end || !receives && s.now >= first {
        return None;
    }
    let reason = match receives {
        true => "wal position moved since last heart beat loop",
        false => "the first loop_wait is not over",
    };
    why.note(
        "ha.md §10.0",
        format!(
            "nobody leads for {:.1} s < primary_race_backoff {} s, and {reason}",
            s.now.since(since).as_secs_f64(),
            backoff.as_secs(),
        ),
    );
    Some((end.min(s.now + RACE_LOOK), reason))
}

/// What the winner writes into `/failover` (`ha.md` §5.1): in pause a request that names leader and
/// candidate is kept for the candidate until it is primary.
fn failover_after_winning(s: &Situation<'_>, cluster: &Cluster) -> Option<(Version, String)> {
    let request = cluster.failover.as_ref()?;
    let text = match (&request.leader, &request.candidate) {
        (_, Some(candidate)) if s.global.pause && !s.is_primary() => {
            FailoverRequest::to_json(None, Some(candidate), None)
        }
        _ => FailoverRequest::CLEARED.to_owned(),
    };
    Some((request.version, text))
}

/// A switchover is scheduled for later, and the leader that it names is gone before (W10). Its candidate has no
/// claim to what happens now, and Patroni's members would wait for it: the winner drops the request anyway, so it is
/// dropped before the race.
fn drop_schedule(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Option<Step> {
    let request = cluster.failover.as_ref()?;
    if s.global.pause || s.is_primary() || !switchover::lies_ahead(s, request) {
        return None;
    }
    why.note(
        "ha.md W10",
        "the switchover is scheduled for later, and the leader is gone already",
    );
    why.outcome("dropping the scheduled switchover: the leader is gone before its time");
    Some(Step::ClearFailover(request.version))
}

/// The table of `ha.md` §10.1; the first row that applies decides.
fn is_healthiest(s: &Situation<'_>, cluster: &Cluster, why: &mut Reasons) -> Verdict<bool> {
    let mut no = |row: &'static str, text: String| {
        why.note(row, text);
        Ok(false)
    };
    if let Some(at) = s.memory.pre_promote_failed_at
        && s.now.since(at) < s.global.ttl
    {
        return no(
            "ha.md §10.1 row 1",
            format!(
                "pre_promote failed here {:?} ago, less than ttl {:?}",
                s.now.since(at),
                s.global.ttl
            ),
        );
    }
    if !s.is_primary()
        && failsafe::others_may_have_promised(s, cluster, || race_members(s, cluster), why)?
    {
        return Ok(false);
    }
    let immediate = cluster
        .failover
        .as_ref()
        .filter(|request| request.scheduled_at.is_none());
    if s.global.pause
        && !s.local.tags.nofailover()
        && let Some(request) = immediate
        && let Some(answer) = manual_failover(s, cluster, request, why)?
    {
        return Ok(answer);
    }
    let mut no = |row: &'static str, text: String| {
        why.note(row, text);
        Ok(false)
    };
    let Some(wal) = s.wal() else {
        return no("ha.md §10.1 row 3", "PostgreSQL does not answer yet".into());
    };
    if let Some((row, text)) = barred_primary(s, cluster, wal) {
        return no(row, text);
    }
    if s.is_primary() && s.global.pause {
        let mine = s.server.system_identifier.as_ref();
        let theirs = cluster.initialize.system_identifier();
        let same = theirs.is_none() || theirs == mine;
        let told = |identifier: Option<&SystemIdentifier>| match identifier {
            Some(identifier) => identifier.to_string(),
            None => "unknown".to_owned(),
        };
        let relation = if same { "fits" } else { "is not" };
        why.note(
            "ha.md §10.1 row 4",
            format!(
                "paused, and I am a primary: system identifier {} {relation} the cluster's, {}",
                told(mine),
                told(theirs)
            ),
        );
        return Ok(same);
    }
    if let Some(timeline) = wal.timeline {
        why.note(
            "ha.md §10.1 row 5",
            format!("I am a primary on timeline {timeline}"),
        );
        return Ok(true);
    }
    if s.global.pause {
        return no("ha.md §10.1 row 6", "paused: replicas do not race".into());
    }
    if let Some(hang) = hang::limitation(s) {
        return no("ha.md W6", hang);
    }
    if s.local.tags.nofailover() {
        return no("ha.md §10.1 row 7", "tagged nofailover".into());
    }
    if let Some((rule, text)) = s.memory.is_no_candidate() {
        return no(rule, text);
    }
    let sync_active = s.sync_is_active(cluster);
    if let Some(request) = &cluster.failover {
        if request.is_switchover() && sync_active && !cluster.sync.has_member(s.me()) {
            return no(
                "ha.md §10.1 row 8",
                format!("a switchover, and I am not in /sync: {}", in_sync(cluster)),
            );
        }
        if let Some(answer) = manual_failover(s, cluster, request, why)? {
            return Ok(answer);
        }
        why.note("ha.md §10.1 row 9", "whom an operator chose is undecided");
        return Ok(false);
    }
    if let Some(problem) = fence::limitation(s) {
        return no("fencing.mode", problem.into());
    }
    if let Some(problem) = watchdog::limitation(s) {
        return no(
            "ha.md §10.1 row 10",
            format!("watchdog.mode is required: {problem}"),
        );
    }
    // Whatever the mode is now: who is not asked does not tell a leader without the store that it was switched off.
    if !cluster.failsafe.is_empty()
        && !cluster.failsafe.contains_key(s.me())
        && !failsafe::nobody_leads_by_promises(s, cluster, || race_members(s, cluster))?
    {
        return no(
            "ha.md §10.1 row 11",
            format!(
                "I am not in /failsafe, and not all who are tell that they neither lead nor promised: {}",
                listed(cluster.failsafe.keys())
            ),
        );
    }
    if sync_active
        && s.global.synchronous_mode == SynchronousMode::On
        && !cluster.sync.has_member(s.me())
    {
        return no(
            "ha.md §10.1 row 12",
            format!(
                "synchronous mode, and I am not in /sync: {}",
                in_sync(cluster)
            ),
        );
    }
    let old_leader = s.last_healthy.and_then(Cluster::leader_name);
    let compared = match s.memory.rewind {
        RewindState::Check { .. } | RewindState::FitsSoFar => false,
        // An agent that has not seen anybody lead does not know whom its server followed.
        RewindState::Initial => old_leader.is_some(),
        _ => true,
    };
    if s.needs_votes(cluster) && !cluster.sync.has_member(s.me()) && !compared {
        // Voters tell positions, and two timelines of one number may have been begun apart.
        return no(
            "ha.md §10.2.5",
            format!(
                "quorum mode, I am not in /sync ({}), and my WAL was not compared with the last leader's",
                in_sync(cluster)
            ),
        );
    }
    let candidates = race_members(s, cluster)
        .into_iter()
        .filter(|(name, _)| !sync_active || cluster.sync.has_member(name))
        .collect();
    compare_with_peers(s, cluster, candidates, true, old_leader, why)
}

/// Why a server that is a primary may not take the lock: the rule, and what shows it. `None` also of one that is none.
fn barred_primary(
    s: &Situation<'_>,
    cluster: &Cluster,
    wal: &WalStatus,
) -> Option<(&'static str, String)> {
    let timeline = wal.timeline?;
    let published = !s.sync_is_active(cluster) || cluster.sync.has_leader(s.me());
    if s.global.pause {
        if let Some((_, known)) = behind_the_cluster(cluster, wal) {
            // The members would be rewound to it, and lose what the leader after it was told to keep. Who wants
            // that chooses it as the candidate of a failover.
            return Some((
                "ha.md §10.1 row 4",
                format!(
                    "paused, and I am a primary on timeline {timeline}, the cluster got to {known}: I lead again only as \
                     the candidate of a failover"
                ),
            ));
        }
        // Who was promoted by hand is not in there either, and has a timeline that the cluster does not know.
        let known = cluster.timeline().unwrap_or(Timeline(1));
        return (!published && timeline <= known).then(|| {
            let text = format!(
                "paused, and I am a primary, but the one in /sync is {}: I lead again only as the candidate of a failover",
                in_sync(cluster)
            );
            ("ha.md W1", text)
        });
    }
    if let Some((_, known)) = behind_the_cluster(cluster, wal) {
        return Some((
            "ha.md §10.1 row 5",
            format!("I am a primary on timeline {timeline}, the cluster got to {known}"),
        ));
    }
    if !published {
        // W1: another primary published itself after this one was last in charge.
        return Some((
            "ha.md W1",
            format!(
                "I am a primary, but the one in /sync is {}",
                in_sync(cluster)
            ),
        ));
    }
    // A new primary may be gone before it wrote /history: who followed it tells of it.
    let (name, theirs) = newer_timeline(s, cluster, timeline)?;
    Some((
        "ha.md W1",
        format!("I am a primary on timeline {timeline}, {name} is on {theirs}"),
    ))
}

/// The lock is mine, perhaps by an acquisition that had no answer and arrived late: others may have led in between, and
/// committed what this member lacks. So it is given up and raced for again, where votes, positions and timelines are
/// looked at anew. A primary that may lead by what is there keeps it.
pub(super) fn unjudged_lock(
    s: &Situation<'_>,
    cluster: &Cluster,
    why: &mut Reasons,
) -> Option<Step> {
    if !s.memory.unheard_acquisition || s.global.standby_cluster.is_some() {
        return None;
    }
    if let Some(wal) = s.wal().filter(|wal| wal.is_primary()) {
        let (rule, text) = barred_primary(s, cluster, wal)?;
        why.note(rule, text);
        if !s.global.pause && s.job.is_none() {
            why.outcome("demoting self because I am not the healthiest node");
            return Some(demote(s, DemotionMode::Immediate));
        }
    }
    why.note(
        "ha.md §10",
        "the lock is mine by an acquisition that had no answer: others may have led before it arrived",
    );
    why.outcome("released leader key voluntarily: it was acquired too late, racing for it again");
    Some(Step::ReleaseLeader { optime: None })
}

/// The timeline of a primary that others went on from without it, and how far the cluster got by `/history`.
fn behind_the_cluster(cluster: &Cluster, wal: &WalStatus) -> Option<(Timeline, Timeline)> {
    let (mine, known) = (wal.timeline?, cluster.timeline()?);
    (mine < known).then_some((mine, known))
}

/// A member that publishes a newer timeline than this.
fn newer_timeline<'a>(
    s: &Situation<'a>,
    cluster: &'a Cluster,
    mine: Timeline,
) -> Option<(&'a MemberName, Timeline)> {
    s.others(cluster)
        .filter_map(|member| Some((&member.name, member.data.timeline?)))
        .find(|(_, theirs)| *theirs > mine)
}

/// Everybody who may take part: the members of the last healthy view, who may be alive though their keys are
/// gone, and the present ones.
fn race_members(s: &Situation<'_>, cluster: &Cluster) -> BTreeMap<MemberName, String> {
    let mut members = BTreeMap::new();
    for (name, url) in cluster.failsafe.iter().filter(|_| s.global.failsafe_mode) {
        members.insert(name.clone(), url.clone());
    }
    let views = s.last_healthy.into_iter().chain([cluster]);
    for member in views.flat_map(|view| &view.members) {
        let votes = s.needs_votes(cluster) && cluster.sync.has_member(&member.name);
        if let Some(url) = &member.data.api_url
            && (votes || !member.data.tags.nofailover())
        {
            members.insert(member.name.clone(), url.clone());
        }
    }
    members.remove(s.me());
    members
}

/// `ha.md` §10.2.
fn compare_with_peers(
    s: &Situation<'_>,
    cluster: &Cluster,
    candidates: BTreeMap<MemberName, String>,
    check_lag: bool,
    old_leader: Option<&MemberName>,
    why: &mut Reasons,
) -> Verdict<bool> {
    let Some(wal) = s.wal() else {
        return Ok(false);
    };
    let mine = Reach::of(wal);
    if check_lag && is_lagging(s, cluster, mine.position, why) {
        return Ok(false);
    }
    if s.global.check_timeline
        && s.global.standby_cluster.is_none()
        && let Some(known) = cluster.timeline()
        && s.memory
            .last_timeline
            .is_none_or(|timeline| timeline < known)
    {
        why.note(
            "ha.md §10.2.2",
            match s.memory.last_timeline {
                Some(mine) => format!("check_timeline: my timeline {mine} < the cluster's {known}"),
                None => format!("check_timeline: my timeline is unknown, the cluster's is {known}"),
            },
        );
        return Ok(false);
    }
    if candidates.is_empty() {
        why.note("ha.md §10.2", "there is nobody to compare with");
        return Ok(Votes::begin(s, cluster).suffice(s, cluster, mine, why));
    }
    let Some(peers) = s.peers else {
        return Err(Ask(candidates));
    };
    let sync_active = s.sync_is_active(cluster);
    let chosen = cluster
        .failover
        .as_ref()
        .and_then(|it| it.candidate.as_ref())
        == Some(s.me());
    let mut votes = Votes::begin(s, cluster);
    for name in candidates.keys() {
        let Some(Some(peer)) = peers.get(name) else {
            if let Some(theirs) = ahead_by_its_key(s, cluster, name, mine) {
                why.note(
                    "ha.md W17",
                    format!(
                        "{name} does not answer, but it was ahead of my wal position less than ttl ago ({}): it may take \
                         the lock",
                        theirs.compared_with(mine)
                    ),
                );
                return Ok(false);
            }
            why.note(
                "ha.md §10.2.3",
                format!("{name} does not answer: it does not count"),
            );
            continue;
        };
        if let Some(limitation) = limitation(peer) {
            why.note(
                "ha.md §10.2.4",
                format!("{name} does not count: {limitation}"),
            );
            continue;
        }
        if !peer.in_recovery {
            why.note(
                "ha.md §10.2.4",
                format!("{name} is a primary and still alive"),
            );
            return Ok(false);
        }
        let theirs = Reach::of_peer(peer);
        if theirs.is_ahead_of(mine) {
            if sync_active && cluster.sync.has_leader(name) {
                why.note(
                    "ha.md §10.2.4",
                    format!("{name} is ahead; it was the synchronous primary"),
                );
                votes.somebody_ahead = true;
                continue;
            }
            why.say(
                "ha.md §10.2.4",
                LogLevel::Info,
                format!(
                    "Wal position of {name} is ahead of my wal position ({})",
                    theirs.compared_with(mine)
                ),
            );
            return Ok(false);
        }
        let exempt = if sync_active {
            cluster.sync.leader.as_ref()
        } else {
            old_leader
        };
        let priority = peer.tags.failover_priority();
        let own = s.local.tags.failover_priority();
        // All others leave the lock to whom an operator chose, whatever their priority.
        if !chosen
            && theirs.equals(mine)
            && mine.position != Lsn::ZERO
            && own < priority
            && exempt != Some(name)
        {
            why.say(
                "ha.md §10.2.4",
                LogLevel::Info,
                format!("{name} has equally tolerable WAL position and priority {priority}, while this node has priority {own}"),
            );
            return Ok(false);
        }
        why.note(
            "ha.md §10.2.4",
            format!(
                "{name} is not ahead of my wal position ({})",
                theirs.compared_with(mine)
            ),
        );
        if peer.position > Lsn::ZERO && cluster.sync.has_member(name) {
            votes.count += 1;
        }
    }
    Ok(votes.suffice(s, cluster, mine, why))
}

/// How far a standby goes that does not answer and is ahead of this one, from its member key: such a key lives
/// for ttl after its agent wrote it last. Whoever is ahead can win itself, if its agent lives; it gets a ttl for
/// that, since its key alone cannot tell that it may not.
fn ahead_by_its_key(
    s: &Situation<'_>,
    cluster: &Cluster,
    name: &MemberName,
    mine: Reach,
) -> Option<Reach> {
    let since = s.memory.unlocked_since?;
    if s.now.since(since) >= s.global.ttl {
        return None;
    }
    let data = &cluster.member(name)?.data;
    let may_win = data.state == Some(State::Running)
        && data.role == Some(Role::Replica)
        && !data.tags.nofailover();
    let theirs = Reach::new(data.timeline, data.xlog_location?);
    (may_win && theirs.is_ahead_of(mine)).then_some(theirs)
}

/// The votes of quorum mode (`ha.md` §10.2.4-5): a candidate must find enough voters that are not ahead of it.
struct Votes {
    count: i64,
    somebody_ahead: bool,
}

impl Votes {
    fn begin(s: &Situation<'_>, cluster: &Cluster) -> Self {
        let own = if cluster.sync.has_member(s.me()) {
            0
        } else {
            -1
        };
        Votes {
            count: own,
            somebody_ahead: false,
        }
    }

    fn suffice(
        &self,
        s: &Situation<'_>,
        cluster: &Cluster,
        mine: Reach,
        why: &mut Reasons,
    ) -> bool {
        if !s.needs_votes(cluster) {
            why.note(
                "ha.md §10.2.5",
                format!("nobody is ahead of my WAL position {}", mine.position),
            );
            return true;
        }
        let needed = i64::from(cluster.sync.quorum);
        if self.count >= needed {
            why.note(
                "ha.md §10.2.5",
                format!("{} votes >= quorum {needed}", self.count),
            );
            return true;
        }
        let led_last = s.last_healthy.and_then(Cluster::leader_name);
        let led_last = led_last.is_none_or(|leader| leader == s.me());
        if !self.somebody_ahead && cluster.sync.has_leader(s.me()) && led_last {
            why.note(
                "ha.md §10.2.5",
                "I was the primary, and nobody is ahead of me",
            );
            return true;
        }
        why.note(
            "ha.md §10.2.5",
            format!("{} votes < quorum {needed}", self.count),
        );
        false
    }
}

/// Who is in `/sync`, for people: the primary first.
fn in_sync(cluster: &Cluster) -> String {
    listed(cluster.sync.leader.iter().chain(&cluster.sync.standbys))
}

fn listed<'a>(names: impl Iterator<Item = &'a MemberName>) -> String {
    let names: Vec<&str> = names.map(|name| name.as_str()).collect();
    if names.is_empty() {
        return "nobody".into();
    }
    names.join(", ")
}

fn is_lagging(s: &Situation<'_>, cluster: &Cluster, mine: Lsn, why: &mut Reasons) -> bool {
    let lag = mine.behind(cluster.status.optime);
    let limit = s.global.maximum_lag_on_failover;
    let lagging = lag > limit;
    let relation = if lagging { ">" } else { "<=" };
    why.note(
        "ha.md §10.2.1",
        format!("lag {lag} {relation} maximum_lag_on_failover {limit}"),
    );
    lagging
}

/// Why a member's answer does not count in a race or as a candidate; `None` when it does.
pub(crate) fn limitation(peer: &PeerReport) -> Option<&'static str> {
    if peer.tags.nofailover() {
        Some("not allowed to promote")
    } else if peer.watchdog_failed {
        Some("not watchdog capable")
    } else {
        None
    }
}

/// A request without a living leader to carry it out (`ha.md` §10.3). `None`: undecided.
fn manual_failover(
    s: &Situation<'_>,
    cluster: &Cluster,
    request: &FailoverRequest,
    why: &mut Reasons,
) -> Verdict<Option<bool>> {
    if let Some(candidate) = &request.candidate {
        if candidate == s.me() {
            if !may_win(s, cluster, request, candidate) {
                why.note(
                    "ha.md §10.1 row 8",
                    format!("a switchover, and I am not in /sync: {}", in_sync(cluster)),
                );
                return Ok(Some(false));
            }
            why.note("ha.md §10.3.1a", "an operator chose me");
            if !needs_votes(s, cluster, request) {
                return Ok(Some(true));
            }
            // To be a voter is not to have every commit: the leader may have died before it handed over.
            let voters = race_members(s, cluster)
                .into_iter()
                .filter(|(name, _)| cluster.sync.has_member(name))
                .collect();
            return compare_with_peers(s, cluster, voters, false, None, why).map(Some);
        }
        let member = cluster.member(candidate);
        if s.global.pause {
            if member.is_none() && s.is_primary() {
                return Ok(None);
            }
            why.note(
                "ha.md §10.3.1b",
                format!("paused, and an operator chose {candidate}"),
            );
            return Ok(Some(false));
        }
        if s.sync_is_active(cluster)
            && s.global.synchronous_mode == SynchronousMode::On
            && !cluster.sync.has_member(s.me())
        {
            why.note(
                "ha.md §10.3.1c",
                format!(
                    "synchronous mode, and I am not in /sync: {}",
                    in_sync(cluster)
                ),
            );
            return Ok(Some(false));
        }
        if let Some(url) = member.and_then(|member| member.data.api_url.clone()) {
            let Some(peers) = s.peers else {
                return Err(Ask(everybody(
                    s,
                    cluster,
                    [(candidate.clone(), url)].into(),
                )));
            };
            let behind = |peer: &PeerReport| {
                needs_votes(s, cluster, request)
                    && s.wal()
                        .is_some_and(|wal| Reach::of(wal).is_ahead_of(Reach::of_peer(peer)))
            };
            let overruled = !request.is_switchover()
                && member.is_some_and(|member| member.data.withdrawn.is_some());
            let able = |peer: &PeerReport| match overruled {
                true => !peer.watchdog_failed,
                false => limitation(peer).is_none(),
            };
            if let Some(Some(peer)) = peers.get(candidate)
                && able(peer)
                && may_win(s, cluster, request, candidate)
                && !behind(peer)
            {
                why.note(
                    "ha.md §10.3.1d",
                    format!("an operator chose {candidate}, and it can take over"),
                );
                return Ok(Some(false));
            }
        }
        why.note(
            "ha.md §10.3.1d",
            format!("{candidate} was chosen, and cannot take over"),
        );
    } else if s.global.pause {
        why.note("ha.md §10.3.2", "paused, and no candidate was chosen");
        return Ok(Some(false));
    }
    if request.leader.as_ref() == Some(s.me()) {
        let excluded = request.candidate.as_ref();
        if switchover::anybody_can_take_over(s, cluster, excluded, why)? {
            why.note(
                "ha.md §10.3.3",
                "I handed over: another member can take the lock",
            );
            return Ok(Some(false));
        }
        why.note(
            "ha.md §10.3.3",
            "I handed over, and nobody else can take the lock",
        );
        return Ok(Some(true));
    }
    let sync_active = s.sync_is_active(cluster);
    let candidates: BTreeMap<MemberName, String> = s
        .others(cluster)
        .filter(|member| request.leader.as_ref() != Some(&member.name))
        .filter(|member| !sync_active || cluster.sync.has_standby(&member.name))
        .filter(|member| !member.data.tags.nofailover())
        .filter_map(|member| Some((member.name.clone(), member.data.api_url.clone()?)))
        .collect();
    // The leader of a switchover may have died before it handed anything over: nobody forces that (W10).
    let check_lag = request.is_switchover();
    compare_with_peers(s, cluster, candidates, check_lag, None, why).map(Some)
}

/// Whether even the chosen candidate of a switchover must find a quorum: of one that waits for its time, or whose leader
/// died before it handed over, nobody made sure that the candidate has everything (W10). A failover without a leader is
/// what the operator wants to force.
fn needs_votes(s: &Situation<'_>, cluster: &Cluster, request: &FailoverRequest) -> bool {
    request.is_switchover() && s.needs_votes(cluster)
}

/// A candidate that row 8 of `ha.md` §10.1 holds back never takes the lock: who waits for it waits for ever.
fn may_win(
    s: &Situation<'_>,
    cluster: &Cluster,
    request: &FailoverRequest,
    candidate: &MemberName,
) -> bool {
    !request.is_switchover() || !s.sync_is_active(cluster) || cluster.sync.has_member(candidate)
}

/// All who may be asked in one go, so that a pass never has to ask twice.
pub(super) fn everybody(
    s: &Situation<'_>,
    cluster: &Cluster,
    mut first: BTreeMap<MemberName, String>,
) -> BTreeMap<MemberName, String> {
    first.extend(race_members(s, cluster));
    first.extend(s.others(cluster).filter_map(member_url));
    first
}

fn member_url(member: &Member) -> Option<(MemberName, String)> {
    Some((member.name.clone(), member.data.api_url.clone()?))
}
