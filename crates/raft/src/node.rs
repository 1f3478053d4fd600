//! A member of the group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use primacy_config::local::RaftTimings;
use primacy_dcs::Store;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{canonical, node_id};
use crate::core::{Core, Life};
use crate::disk::{Disk, DiskError};
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
use crate::{RaftConfig, RaftError};

/// A snapshot is made after so many entries: an hour or so of an idle cluster's loops, a megabyte or two.
const SNAPSHOT_AFTER: u64 = 1000;

/// Entries kept behind the snapshot, for members that were away shortly.
const KEEP_ENTRIES: u64 = 100;

/// Entries in one message: with the largest values it still fits in a frame.
const ENTRIES_AT_ONCE: u64 = 16;

/// Between two tries to go on after the disk failed: space may be freed at any time, and a try reads the whole file.
const AGAIN: Duration = Duration::from_secs(1);

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
        let replica = Replica::load(disk.clone()).map_err(|error| unreadable(&disk, &error))?;
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
            life: RwLock::new(Life::new(disk, replica)),
            peers: Arc::new(Peers::new(identity.clone(), stop.clone(), faults.clone())),
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
        core.tasks.spawn(live(core.clone(), config));
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

/// One life after the other, until the member is stopped.
async fn live(core: Arc<Core>, config: RaftConfig) {
    let lives = async {
        loop {
            let failure = take_part(&core, config.timings).await;
            *core.lock_reign() = None;
            let reason = format!("raft: {} cannot take part: {failure}", core.addr);
            core.reports.trouble("own", reason);
            core.set_trouble(Some(failure.to_string()));
            end_life(&core).await;
            begin_again(&core, &config).await;
        }
    };
    core.stop.run_until_cancelled(lives).await;
    *core.lock_reign() = None;
    end_life(&core).await;
    core.tasks.close();
}

/// Joins and takes part as long as the library and the disk allow. Returns why they do not.
async fn take_part(core: &Arc<Core>, timings: RaftTimings) -> RaftError {
    let raft = match join(core.clone(), timings).await {
        Ok(raft) => raft,
        Err(error) => return error,
    };
    core.set_trouble(None);
    core.reports
        .well("own", || format!("raft: {} takes part again", core.addr));
    let part = async {
        tokio::join!(
            reign::lead(core.clone(), raft.clone()),
            join::recover(core.clone(), raft.clone())
        );
        std::future::pending().await
    };
    let mut metrics = raft.metrics();
    let stopped = async {
        let last = metrics.wait_for(|metrics| metrics.running_state.is_err());
        match last.await.as_ref().map(|metrics| &metrics.running_state) {
            Ok(Err(fatal)) => fatal.to_string(),
            _ => "it ended".into(),
        }
    };
    let reason = tokio::select! {
        reason = stopped => reason,
        reason = part => reason,
    };
    RaftError::Core { reason }
}

/// Ends what is left of a life: no more part in the group's talk, and the file is free.
async fn end_life(core: &Core) {
    let life = core.life();
    if let Some(raft) = life.raft.get()
        && timeout(LEAVE, raft.shutdown()).await.is_err()
    {
        tracing::warn!(
            "raft: the core of {} did not stop within {LEAVE:?}",
            core.addr
        );
    }
    life.disk.close();
}

/// Opens the file again, as often as it takes.
async fn begin_again(core: &Core, config: &RaftConfig) {
    loop {
        sleep(AGAIN).await;
        let (config, addr, members) = (config.clone(), core.addr.clone(), core.members.clone());
        let former = core.life().replica.clone();
        let opened = spawn_blocking(move || {
            let disk = Arc::new(Disk::open(&config.data_dir, &addr, &members)?);
            let replica = former.load_again(disk.clone());
            let replica = replica.map_err(|error| unreadable(&disk, &error))?;
            Ok::<_, RaftError>(Life::new(disk, replica))
        });
        match opened.await {
            Ok(Ok(life)) => {
                core.recovering.store(false, Ordering::Relaxed);
                core.begin(life);
                return;
            }
            Ok(Err(error)) => core.set_trouble(Some(error.to_string())),
            Err(error) => core.set_trouble(Some(error.to_string())),
        }
    }
}

fn unreadable(disk: &Disk, error: &DiskError) -> RaftError {
    RaftError::Disk {
        path: disk.path().into(),
        reason: error.to_string(),
    }
}

async fn join(core: Arc<Core>, timings: RaftTimings) -> Result<Raft, RaftError> {
    join::consult(&core).await?;
    let life = core.life();
    let fatal = |error: &dyn std::error::Error| RaftError::Core {
        reason: error.to_string(),
    };
    let config = library_config(timings, !core.recovering.load(Ordering::Relaxed))?;
    let network = Network {
        peers: core.peers.clone(),
        replica: life.replica.clone(),
    };
    let log = Log::new(life.disk.clone());
    let raft = Raft::new(
        node_id(&core.addr),
        Arc::new(config),
        network,
        log,
        life.replica.clone(),
    )
    .await
    .map_err(|error| fatal(&error))?;
    life.raft.get_or_init(|| raft.clone());
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
/// member stands for election: halves of ours make the whole silence `min_timeout`..`max_timeout`, never
/// less than the mean of both.
pub(crate) fn library_config(
    timings: RaftTimings,
    enable_elect: bool,
) -> Result<Config, RaftError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "primacy".into(),
        heartbeat_interval: millis(timings.append_entries_period),
        election_timeout_min: millis(timings.min_timeout / 2),
        election_timeout_max: millis(timings.max_timeout / 2),
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
