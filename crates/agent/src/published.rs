//! What the agent tells the world: an immutable snapshot, replaced as a whole after every step of the
//! machine. REST, metrics and the journal's readers only ever look at this; nobody shares a lock with the
//! machine.

use std::sync::Arc;

use primacy_config::GlobalConfig;
use primacy_model::{
    Cluster, MemberName, Observation, PendingRestart, Role, ScheduledRestart, State, Tags,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// One snapshot.
#[derive(Clone, Debug)]
pub struct Published {
    /// Name of the cluster.
    pub scope: String,
    /// Name of this member.
    pub name: MemberName,
    /// The last cluster view, discarded when a read fails; means something only until `view_until`.
    pub view: Option<Arc<Cluster>>,
    /// `ttl` after the view was read (`rest-api.md` §3.1).
    pub view_until: Instant,
    /// The last dynamic configuration that could be read, as the operator wrote it.
    pub dynamic: Arc<Map<String, Value>>,
    /// The same, typed.
    pub global: Arc<GlobalConfig>,
    /// The last value of `/failsafe` that was seen, if it was an object.
    pub failsafe_map: Option<Value>,
    /// What is being done to the server.
    pub state: State,
    /// What this agent takes its server for.
    pub role: Role,
    /// The last look at the server.
    pub observation: Arc<Observation>,
    /// When that look was taken.
    pub observed_at: Instant,
    /// Until when this member may act as the leader: the lease's deadline. `None` without the lock.
    pub lease_until: Option<Instant>,
    /// Until when failsafe mode holds.
    pub failsafe_until: Option<Instant>,
    /// The tags in force.
    pub tags: Tags,
    /// Those configured, without what the member says of itself for a while (`nosync` before a restart, say).
    pub configured_tags: Tags,
    /// Seconds since the epoch of the last successful DCS read.
    pub dcs_last_seen: i64,
    /// Parameters that wait for a restart.
    pub pending_restart: Option<PendingRestart>,
    /// A restart that was scheduled.
    pub scheduled_restart: Option<ScheduledRestart>,
    /// The name of the long action under way (`rest-api.md` §8.6).
    pub job: Option<String>,
    /// How far the long action is, for people.
    pub job_progress: Option<String>,
    /// Watchdog mode is `required` and it cannot be used.
    pub watchdog_failed: bool,
    /// What the fence says of itself when it is in charge: `armed`, `fired`, `failed`.
    pub fence: Option<&'static str>,
    /// When the next pass of the loop is due.
    pub next_pass: Instant,
    /// The postmaster lives.
    pub postmaster_alive: bool,
    /// What the last pass came to: the sentence in the log.
    pub outcome: String,
}

impl Published {
    /// Whether the leader lock is held, by the lease's deadline and not by the view (`rest-api.md` §3.1).
    pub fn holds_lock(&self, now: Instant) -> bool {
        self.lease_until.is_some_and(|until| now < until)
    }

    /// The view, while it counts. One in which there is nothing at all is none: somebody has deleted everything, and a
    /// primary in pause goes on without it (`rest-api.md` §3.1).
    pub fn view(&self, now: Instant) -> Option<&Cluster> {
        let view = self.view.as_deref().filter(|_| now < self.view_until)?;
        (*view != Cluster::default()).then_some(view)
    }
}
