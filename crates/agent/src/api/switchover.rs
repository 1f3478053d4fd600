//! POST `/switchover` and `/failover`, DELETE `/switchover` (`rest-api.md` §8.1, §8.2).

use std::time::Duration;

use jiff::Timestamp;
use primacy_config::scalar::{python_str, truthy};
use primacy_config::{GlobalConfig, SynchronousMode};
use primacy_dcs::{Expected, Outcome};
use primacy_model::{Cluster, FailoverRequest, Member, MemberName};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::Api;
use super::answer::{Answer, ErrorPage};
use super::time::Schedule;
use crate::peers::{PeerStatus, ask_members};
use crate::request::Request;

/// Between two looks at what became of a request.
const POLL: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Switchover,
    Failover,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Switchover => "switchover",
            Action::Failover => "failover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Action::Switchover => "Switchover",
            Action::Failover => "Failover",
        }
    }

    /// `Successfully … over to`.
    fn done(self) -> &'static str {
        match self {
            Action::Switchover => "switched",
            Action::Failover => "failed",
        }
    }
}

/// A request that makes sense by itself (rows 1 to 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    action: Action,
    leader: Option<String>,
    candidate: Option<String>,
    scheduled_at: Option<Schedule>,
}

impl Wish {
    /// Rows 1 to 8.
    pub(crate) fn new(
        asked: Action,
        body: &Map<String, Value>,
        paused: bool,
        now: Timestamp,
    ) -> Result<Self, Answer> {
        let field = |key: &str| body.get(key).filter(|value| truthy(value));
        let leader = field("leader").map(python_str);
        let candidate = field("candidate")
            .or_else(|| field("member"))
            .map(python_str);
        tracing::info!(
            "received {} request with leader={} candidate={} scheduled_at={}",
            asked.name(),
            leader.as_deref().unwrap_or("None"),
            candidate.as_deref().unwrap_or("None"),
            field("scheduled_at").map_or_else(|| "None".to_owned(), python_str),
        );
        let refuse = |text: &'static str| Err(Answer::text(400, text));
        match asked {
            Action::Failover if candidate.is_none() => {
                return refuse("Failover could be performed only to a specific candidate");
            }
            Action::Switchover if leader.is_none() => {
                return refuse("Switchover could be performed only from a specific leader");
            }
            _ => {}
        }
        // A field that is there and empty is not given, as the original has it.
        let scheduled_at = match field("scheduled_at") {
            None => None,
            Some(_) if asked == Action::Failover => return refuse("Failover can't be scheduled"),
            Some(_) if paused => return refuse("Can't schedule switchover in the paused state"),
            Some(value) => Some(Schedule::parse(value, "switchover", now)?),
        };
        if paused && candidate.is_none() {
            return refuse("Switchover is possible only to a specific candidate in a paused state");
        }
        let mut action = asked;
        if asked == Action::Failover && leader.is_some() {
            tracing::warn!(
                "received failover request with leader specified - performing switchover instead"
            );
            action = Action::Switchover;
        }
        if leader == candidate {
            return refuse("Switchover target and source are the same");
        }
        Ok(Wish {
            action,
            leader,
            candidate,
            scheduled_at,
        })
    }

    /// Rows 9 to 13: whom to ask whether they can take over.
    pub(crate) fn candidates<'a>(
        &self,
        cluster: &'a Cluster,
        mode: SynchronousMode,
    ) -> Result<Vec<&'a Member>, Answer> {
        let action = self.action.name();
        let refuse = |text: String| Err(Answer::text(412, text));
        let current = cluster.leader_name().map(MemberName::as_str);
        if self.leader.is_some() && self.leader.as_deref() != current {
            return refuse("leader name does not match".into());
        }
        let synchronous = mode == SynchronousMode::On;
        if let Some(candidate) = self.candidate.as_deref() {
            if self.action == Action::Switchover
                && synchronous
                && !cluster.sync.has_standby(candidate)
            {
                return refuse("candidate name does not match with sync_standby".into());
            }
            return match cluster.member(candidate) {
                Some(member) => Ok(vec![member]),
                None => refuse("candidate does not exists".into()),
            };
        }
        let members = cluster.members.iter();
        let (members, reason): (Vec<_>, _) = if synchronous {
            let synced = members
                .filter(|member| cluster.sync.has_standby(&member.name))
                .collect();
            (synced, "can not find sync_standby")
        } else {
            let others = members
                .filter(|member| !cluster.is_led_by(&member.name) && member.data.api_url.is_some())
                .collect();
            (others, "cluster does not have members except leader")
        };
        match members.is_empty() {
            true => refuse(format!("{action} is not possible: {reason}")),
            false => Ok(members),
        }
    }

    /// Where nobody leads, whom an operator chooses may be one that withdrew itself: it may be all that is left.
    pub(crate) fn overrules_withdrawal(&self, cluster: &Cluster) -> bool {
        let chosen = self
            .candidate
            .as_deref()
            .and_then(|name| cluster.member(name));
        self.action == Action::Failover
            && cluster.is_unlocked()
            && chosen.is_some_and(|member| member.data.may_be_chosen())
    }

    /// What the poll makes of one look at the cluster; `None` while it is under way.
    pub(crate) fn outcome(&self, before: Option<&MemberName>, cluster: &Cluster) -> Option<Answer> {
        let done = self.action.done();
        match cluster.leader_name() {
            Some(leader) if before != Some(leader) => Some(Answer::text(
                200,
                match &self.candidate {
                    Some(candidate) if *leader != *candidate.as_str() => {
                        let mut verb = done.to_owned();
                        verb[..1].make_ascii_uppercase();
                        format!("{verb} over to \"{leader}\" instead of \"{candidate}\"")
                    }
                    _ => format!("Successfully {done} over to \"{leader}\""),
                },
            )),
            leader if leader == before && cluster.failover.is_none() => {
                Some(Answer::text(503, format!("{} failed", self.action.title())))
            }
            _ => None,
        }
    }
}

/// Row 14: somebody answered who may and can be promoted.
pub(crate) fn somebody_can(
    answers: &[(MemberName, Option<PeerStatus>)],
    overrules_withdrawal: bool,
) -> bool {
    answers
        .iter()
        .filter_map(|(_, status)| status.as_ref())
        .any(|status| {
            !status.watchdog_failed && (overrules_withdrawal || !status.tags.nofailover())
        })
}

impl Api {
    /// The whole of §8.1.
    pub(super) async fn switchover(
        &self,
        asked: Action,
        body: Map<String, Value>,
    ) -> Result<Answer, Answer> {
        let cluster = self.read_cluster().await?;
        let global = self.global_of(&cluster);
        let wish = Wish::new(asked, &body, global.pause, Timestamp::now())?;
        if wish.scheduled_at.is_none() {
            let candidates = wish.candidates(&cluster, global.synchronous_mode)?;
            let urls = candidates
                .iter()
                .filter_map(|member| Some((member.name.clone(), member.data.api_url.clone()?)));
            let answers = ask_members(&self.peers(), urls).await;
            if !somebody_can(&answers, wish.overrules_withdrawal(&cluster)) {
                let action = wish.action.name();
                let text = format!("{action} is not possible: no good candidates have been found");
                return Err(Answer::text(412, text));
            }
        }
        let scheduled_at = wish.scheduled_at.map(|at| at.to_string());
        let text = FailoverRequest::to_json(
            wish.leader.as_deref(),
            wish.candidate.as_deref(),
            scheduled_at.as_deref(),
        );
        let written = self
            .store
            .write_failover(&text, Expected::Anything, self.store_deadline())
            .await;
        match written {
            Ok(Outcome::Done(_)) => {}
            // The write may have happened: whether it has shows in what becomes of the leadership.
            Err(error) if error.is_unknown() && scheduled_at.is_none() => {
                tracing::warn!("the failover key may not have been written: {error}");
            }
            Ok(Outcome::ConditionFailed) | Err(_) => {
                return Err(Answer::text(503, "failed to write failover key into DCS"));
            }
        }
        // The watch tells the loop as well; this spares the wait for it.
        let _ = self.send(Request::WakeUp).await;
        if scheduled_at.is_some() {
            return Ok(Answer::text(202, "Switchover scheduled"));
        }
        Ok(self.poll(&wish, &global, cluster.leader_name()).await)
    }

    pub(super) async fn poll(
        &self,
        wish: &Wish,
        global: &GlobalConfig,
        before: Option<&MemberName>,
    ) -> Answer {
        let limit = 2 * global.loop_wait.max(Duration::from_secs(10));
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            match self.read_store(deadline.min(self.store_deadline())).await {
                Ok(cluster) => {
                    if let Some(answer) = wish.outcome(before, &cluster) {
                        return answer;
                    }
                }
                Err(error) => tracing::debug!("cannot see yet what became of the request: {error}"),
            }
        }
        let (title, seconds) = (wish.action.title(), limit.as_secs());
        let text = format!(
            "{title} status unknown after {seconds} seconds; operation may still be in progress"
        );
        Answer::text(503, text)
    }

    /// §8.2.
    pub(super) async fn delete_switchover(&self) -> Result<Answer, Answer> {
        let cluster = self.read_cluster().await?;
        let Some(request) = cluster
            .failover
            .filter(|request| request.scheduled_at.is_some())
        else {
            return Err(Answer::text(404, "no switchover is scheduled"));
        };
        let expected = Expected::Version(request.version);
        match self
            .store
            .write_failover(FailoverRequest::CLEARED, expected, self.store_deadline())
            .await
        {
            Ok(Outcome::Done(_)) => Ok(Answer::text(200, "scheduled switchover deleted")),
            Ok(Outcome::ConditionFailed) => Err(Answer::Page(ErrorPage::Conflict)),
            Err(error) => Err(Answer::Dropped(format!(
                "cannot clear the failover key: {error}"
            ))),
        }
    }
}
