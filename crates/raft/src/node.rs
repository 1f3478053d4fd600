//! A member of the group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use primacy_dcs::Store;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{canonical, node_id};
use crate::core::Core;
use crate::disk::Disk;
use crate::faults::Faults;
use crate::handshake::Identity;
use crate::join;
use crate::log::Log;
use crate::network::Network;
use crate::peers::Peers;
use crate::reign;
use crate::replica::Replica;
use crate::reports::Reports;
use crate::server;
use crate::store::RaftStore;
use crate::types::Raft;
use crate::{RaftConfig, RaftError, Timings};

/// A snapshot is made after so many entries: an hour or so of an idle cluster's loops, a megabyte or two.
const SNAPSHOT_AFTER: u64 = 1000;

/// Entries kept behind the snapshot, for members that were away shortly.
const KEEP_ENTRIES: u64 = 100;

/// Entries in one message: with the largest values it still fits in a frame.
const ENTRIES_AT_ONCE: u64 = 16;

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(5);

/// A member: an agent's, or a witness without PostgreSQL.
///
/// Dropped without [`RaftNode::shutdown`], it leaves in the background.
pub struct RaftNode {
    core: Arc<Core>,
}

/// What a member knows of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its own address.
    pub addr: String,
    /// All members' addresses.
    pub members: Vec<String>,
    /// The leader's address, when known.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// The last log index applied here.
    pub applied: u64,
    /// `joining`, `recovering`, `learner`, `follower`, `candidate`, `leader`, `stopped`.
    pub state: &'static str,
    /// Why it does not take part, when it does not.
    pub trouble: Option<String>,
}

impl RaftNode {
    /// Opens the file, listens, and joins the group in the background. Does not wait for a leader.
    ///
    /// # Errors
    /// Whatever a person must set right: the configuration, the directory, the address.
    pub async fn start(config: RaftConfig) -> Result<RaftNode, RaftError> {
        config.timings.check()?;
        let Some(addr) = config.self_addr.as_deref().map(canonical) else {
            return Err(RaftError::Config {
                what: "a member needs self_addr".into(),
            });
        };
        if config.password.as_deref().unwrap_or_default().is_empty()
            && !config.partner_addrs.is_empty()
        {
            tracing::warn!(
                "raft: no password is set: whoever reaches {addr} can read and change the store"
            );
        }
        let members = config.members();
        let disk = Arc::new(Disk::open(&config.data_dir, &addr, &members)?);
        let replica = Replica::load(disk.clone()).map_err(|error| RaftError::Disk {
            path: disk.path().into(),
            reason: error.to_string(),
        })?;
        let bind = config.bind_addr.clone().unwrap_or_else(|| addr.clone());
        let listener = TcpListener::bind(&bind)
            .await
            .map_err(|source| RaftError::Bind { addr: bind, source })?;
        let stop = CancellationToken::new();
        let identity = Arc::new(Identity::new(&config, Some(&addr)));
        let faults = Arc::new(Faults::default());
        let core = Arc::new(Core {
            addr,
            members,
            disk,
            replica,
            peers: Arc::new(Peers::new(identity.clone(), stop.clone(), faults.clone())),
            raft: OnceLock::new(),
            reign: Mutex::new(None),
            recovering: AtomicBool::new(false),
            trouble: Mutex::new(None),
            stop,
            tasks: TaskTracker::new(),
            faults,
            reports: Reports::default(),
        });
        core.tasks
            .spawn(server::serve(core.clone(), identity, listener));
        core.tasks.spawn(live(core.clone(), config.timings));
        Ok(RaftNode { core })
    }

    /// The store, as seen from this member.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(RaftStore::new(self.core.clone()))
    }

    /// What the member knows now.
    pub fn status(&self) -> NodeStatus {
        let core = &self.core;
        let metrics = core.metrics();
        let state = match &metrics {
            None => "joining",
            Some(metrics) if metrics.running_state.is_err() => "stopped",
            Some(_) if core.recovering.load(Ordering::Relaxed) => "recovering",
            Some(metrics) => match metrics.state {
                ServerState::Learner => "learner",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Leader => "leader",
                ServerState::Shutdown => "stopped",
            },
        };
        NodeStatus {
            addr: core.addr.clone(),
            members: core.members.clone(),
            leader: core.leader(),
            term: metrics.as_ref().map_or(0, |metrics| metrics.current_term),
            applied: metrics
                .and_then(|metrics| metrics.last_applied)
                .map_or(0, |log| log.index),
            state,
            trouble: core.trouble(),
        }
    }

    /// Leaves: no more part in the group's talk, the file and the port are free when it returns.
    pub async fn shutdown(self) {
        self.core.stop.cancel();
        if timeout(LEAVE, self.core.tasks.wait()).await.is_err() {
            tracing::warn!("raft: {} did not stop within {LEAVE:?}", self.core.addr);
        }
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for RaftNode {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

/// Joins, takes part until the member is stopped, and leaves in good order.
async fn live(core: Arc<Core>, timings: Timings) {
    let joined = core
        .stop
        .run_until_cancelled(join(core.clone(), timings))
        .await;
    match joined {
        Some(Ok(raft)) => {
            let part = async {
                tokio::join!(
                    reign::lead(core.clone(), raft.clone()),
                    join::recover(core.clone(), raft.clone())
                )
            };
            core.stop.run_until_cancelled(part).await;
            core.stop.cancelled().await;
            *core.lock_reign() = None;
        }
        Some(Err(error)) => {
            tracing::error!("raft: {} cannot take part: {error}", core.addr);
            core.set_trouble(Some(error.to_string()));
            core.stop.cancelled().await;
        }
        None => {}
    }
    if let Some(raft) = core.raft.get()
        && timeout(LEAVE, raft.shutdown()).await.is_err()
    {
        tracing::warn!(
            "raft: the core of {} did not stop within {LEAVE:?}",
            core.addr
        );
    }
    core.disk.close();
    core.tasks.close();
}

async fn join(core: Arc<Core>, timings: Timings) -> Result<Raft, RaftError> {
    join::consult(&core).await?;
    let fatal = |error: &dyn std::error::Error| RaftError::Core {
        reason: error.to_string(),
    };
    let config = library_config(timings, !core.recovering.load(Ordering::Relaxed))?;
    let network = Network {
        peers: core.peers.clone(),
        replica: core.replica.clone(),
    };
    let log = Log::new(core.disk.clone());
    let raft = Raft::new(
        node_id(&core.addr),
        Arc::new(config),
        network,
        log,
        core.replica.clone(),
    )
    .await
    .map_err(|error| fatal(&error))?;
    core.raft.get_or_init(|| raft.clone());
    if !core.recovering.load(Ordering::Relaxed)
        && !raft.is_initialized().await.map_err(|error| fatal(&error))?
    {
        let members = core
            .members
            .iter()
            .map(|addr| (node_id(addr), BasicNode::new(addr)));
        // Refused when a partner was quicker and has made this member a follower meanwhile: just as well.
        if let Err(error) = raft
            .initialize(members.collect::<std::collections::BTreeMap<_, _>>())
            .await
        {
            tracing::debug!("raft: {}: {error}", core.addr);
        }
    }
    Ok(raft)
}

/// The library waits for a lease of `election_timeout_max` and then for a random election timeout before a
/// member stands for election: halves of ours make the whole silence `election_min`..`election_max`, never
/// less than the mean of both.
fn library_config(timings: Timings, enable_elect: bool) -> Result<Config, RaftError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "primacy".into(),
        heartbeat_interval: millis(timings.heartbeat),
        election_timeout_min: millis(timings.election_min / 2),
        election_timeout_max: millis(timings.election_max / 2),
        max_payload_entries: ENTRIES_AT_ONCE,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: KEEP_ENTRIES,
        replication_lag_threshold: SNAPSHOT_AFTER,
        install_snapshot_timeout: 10_000,
        enable_elect,
        ..Config::default()
    }
    .validate()
    .map_err(|error| RaftError::Config {
        what: error.to_string(),
    })
}
