//! What can be seen of the members from outside, looked at all the time: their REST API as a load balancer
//! and a monitor would, and their processes.

use std::sync::Arc;
use std::time::Duration;

use primacy_model::Lsn;
use primacy_net::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::Cluster;
use crate::process::Life;

/// How often each member is looked at. It adds to each outage that the writer measures, so it is short.
const PERIOD: Duration = Duration::from_millis(100);
/// How long a health check may take: a frozen agent accepts connections and never answers.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// A server is taken out after so many failed checks in a row, as load balancers do.
const FALL: u32 = 2;

/// One member as last seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemberStatus {
    pub(crate) name: String,
    pub(crate) agent: Life,
    pub(crate) postmaster: Life,
    /// `OPTIONS /primary` answers 200; kept through fewer than [`FALL`] failures.
    pub(crate) primary: bool,
    /// What `GET /patroni` told, if it answered.
    pub(crate) told: Option<Told>,
}

/// The status document (`rest-api.md` §5), as far as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) role: String,
    pub(crate) state: String,
    pub(crate) sync_standby: bool,
    pub(crate) timeline: Option<u64>,
    pub(crate) replication_state: Option<String>,
    /// Written by a primary, received by a replica.
    pub(crate) position: Option<Lsn>,
}

impl Told {
    fn from_json(document: &Value) -> Option<Self> {
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        let xlog = &document["xlog"];
        let position = xlog["location"].as_u64().or_else(|| {
            let received = xlog["received_location"].as_u64();
            let replayed = xlog["replayed_location"].as_u64();
            received.max(replayed)
        });
        Some(Told {
            role: text("role")?,
            state: text("state")?,
            sync_standby: document["sync_standby"].as_bool().unwrap_or(false),
            timeline: document["timeline"].as_u64(),
            replication_state: text("replication_state"),
            position: position.map(Lsn),
        })
    }

    /// Role and state in the words of `list`.
    pub(crate) fn summary(&self) -> String {
        let role = if self.sync_standby {
            "sync standby"
        } else {
            &self.role
        };
        let state = self.replication_state.as_ref().unwrap_or(&self.state);
        format!("{role}, {state}")
    }
}

/// Follows all members until the set is dropped.
pub(crate) fn follow(cluster: &Arc<Cluster>) -> (watch::Receiver<Vec<MemberStatus>>, JoinSet<()>) {
    let unseen = |name: &str| MemberStatus {
        name: name.to_owned(),
        agent: Life::Alive,
        postmaster: Life::Dead,
        primary: false,
        told: None,
    };
    let members = cluster.members();
    let (sender, receiver) =
        watch::channel(members.iter().map(|place| unseen(&place.name)).collect());
    let mut tasks = JoinSet::new();
    for member in 0..members.len() {
        tasks.spawn(follow_one(cluster.clone(), member, sender.clone()));
    }
    (receiver, tasks)
}

async fn follow_one(
    cluster: Arc<Cluster>,
    member: usize,
    sender: watch::Sender<Vec<MemberStatus>>,
) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = FALL;
    loop {
        ticks.tick().await;
        let (check, document) = tokio::join!(
            cluster.ask(member, Method::OPTIONS, "/primary", CHECK_TIMEOUT),
            cluster.ask(member, Method::GET, "/patroni", CHECK_TIMEOUT),
        );
        failures = match check {
            Ok(answer) if answer.status.is_success() => 0,
            _ => failures.saturating_add(1),
        };
        let told = document
            .ok()
            .and_then(|answer| serde_json::from_slice(&answer.body).ok())
            .and_then(|document| Told::from_json(&document));
        let status = MemberStatus {
            name: cluster.name(member).to_owned(),
            agent: cluster.agent_life(member),
            postmaster: cluster.postmaster_life(member),
            primary: failures < FALL,
            told,
        };
        sender.send_if_modified(|all| {
            if all[member] == status {
                return false;
            }
            for text in changes(&all[member], &status) {
                cluster.events.add(&status.name, text);
            }
            all[member] = status;
            true
        });
    }
}

/// What people want to hear about.
fn changes(old: &MemberStatus, new: &MemberStatus) -> Vec<String> {
    let mut texts = Vec::new();
    if old.postmaster != new.postmaster {
        texts.push(
            match new.postmaster {
                Life::Alive => "a postmaster runs",
                Life::Frozen => "the postmaster is frozen",
                Life::Dead => "no postmaster runs",
            }
            .to_owned(),
        );
    }
    if old.primary != new.primary {
        texts.push(
            match new.primary {
                true => "answers 200 to OPTIONS /primary",
                false => "no longer answers 200 to OPTIONS /primary",
            }
            .to_owned(),
        );
    }
    if let (Some(old), Some(new)) = (&old.told, &new.told)
        && old.summary() != new.summary()
    {
        texts.push(new.summary());
    }
    texts
}

/// The member that a load balancer would send writers to. Should there be two, the one that it sent them
/// to before.
pub(crate) fn primary(statuses: &[MemberStatus], before: Option<usize>) -> Option<usize> {
    let is_primary = |member: &usize| statuses[*member].primary;
    before
        .filter(is_primary)
        .or_else(|| (0..statuses.len()).find(is_primary))
}

/// How far each member is behind the primary, in bytes; `None` for the primary, and where it is not known.
pub(crate) fn lags(statuses: &[MemberStatus]) -> Vec<Option<u64>> {
    let position = |status: &MemberStatus| status.told.as_ref()?.position;
    let written = statuses
        .iter()
        .find(|status| status.primary)
        .and_then(position);
    statuses
        .iter()
        .map(|status| match (status.primary, written, position(status)) {
            (false, Some(written), Some(position)) => Some(position.behind(written)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(name: &str, primary: bool, document: Value) -> MemberStatus {
        MemberStatus {
            name: name.into(),
            agent: Life::Alive,
            postmaster: Life::Alive,
            primary,
            told: Told::from_json(&document),
        }
    }

    fn three() -> Vec<MemberStatus> {
        vec![
            status(
                "pg1",
                false,
                json!({"state": "running", "role": "replica", "sync_standby": true, "timeline": 2,
                       "replication_state": "streaming", "xlog": {"received_location": 900, "replayed_location": 800}}),
            ),
            status(
                "pg2",
                true,
                json!({"state": "running", "role": "primary", "timeline": 2, "xlog": {"location": 1000}}),
            ),
            status("pg3", false, json!({"state": "stopped", "role": "replica"})),
        ]
    }

    #[test]
    fn documents_are_read() {
        let statuses = three();
        let summary = |member: usize| statuses[member].told.as_ref().unwrap().summary();
        assert_eq!(summary(0), "sync standby, streaming");
        assert_eq!(summary(1), "primary, running");
        assert_eq!(summary(2), "replica, stopped");
        assert_eq!(lags(&statuses), [Some(100), None, None]);
    }

    #[test]
    fn writers_stay_where_they_are_while_they_can() {
        let mut statuses = three();
        assert_eq!(primary(&statuses, None), Some(1));
        statuses[0].primary = true;
        assert_eq!(primary(&statuses, Some(1)), Some(1));
        statuses[1].primary = false;
        assert_eq!(primary(&statuses, Some(1)), Some(0));
        statuses[0].primary = false;
        assert_eq!(primary(&statuses, Some(1)), None);
    }

    #[test]
    fn only_changes_are_told() {
        let old = three().remove(0);
        assert!(changes(&old, &old).is_empty());
        let new = MemberStatus {
            primary: true,
            postmaster: Life::Dead,
            told: None,
            ..old.clone()
        };
        assert_eq!(
            changes(&old, &new),
            ["no postmaster runs", "answers 200 to OPTIONS /primary"]
        );
    }
}
