//! Who is synchronous, as the two records have it: `synchronous_standby_names` and `/sync`; and the moments at which
//! one of them changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_config::local::RaftTimings;
use primacy_dcs::{Etcd3, Etcd3Config, Store, WatchEvent};
use primacy_model::SyncState;
use primacy_raft::{RaftClient, RaftConfig};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster, sql, wait_until};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Between two looks at the primary's configuration file.
const LOOK: Duration = Duration::from_millis(1);

/// The cluster's store, as an observer sees it.
pub(crate) struct Records {
    store: Arc<dyn Store>,
    key: String,
}

impl Records {
    pub(crate) fn of(cluster: &TestCluster) -> Result<Self> {
        let store: Arc<dyn Store> = match cluster.store.kind() {
            StoreKind::Embedded => RaftClient::new(&RaftConfig {
                self_addr: None,
                bind_addr: None,
                partner_addrs: cluster.store.hosts(),
                data_dir: PathBuf::new(),
                password: Some(primacy_testkit::store::PASSWORD.to_owned()),
                timings: RaftTimings::default(),
            })?
            .store(),
            StoreKind::Etcd3 => {
                let hosts = cluster.store.hosts();
                let endpoints = hosts.iter().map(|host| format!("http://{host}")).collect();
                Arc::new(Etcd3::new(Etcd3Config {
                    endpoints,
                    ..Etcd3Config::default()
                })?)
            }
        };
        let key = format!("/service/{SCOPE}/sync");
        Ok(Self { store, key })
    }

    /// `/sync` as it is.
    pub(crate) async fn sync(&self) -> Result<SyncState> {
        let deadline = Instant::now() + Duration::from_secs(3);
        let snapshot = self.store.read(&self.key, deadline).await?;
        let entry = snapshot.entries.first().context("there is no /sync")?;
        let text = std::str::from_utf8(&entry.value)?;
        Ok(SyncState::from_json(text, entry.version))
    }

    /// Watches for changes of either record from now on.
    pub(crate) async fn moments(&self, cluster: &TestCluster, primary: usize) -> Result<Moments> {
        let file = cluster.agents[primary].data_dir().join("postgresql.conf");
        let mut sync = self.store.watch(&self.key);
        let live = async { while !matches!(sync.recv().await, Some(WatchEvent::Resync) | None) {} };
        tokio::time::timeout(cluster.timing.failover(), live)
            .await
            .context("the store does not let watch")?;
        Ok(Moments {
            sync,
            names: names_in(&file).unwrap_or_default(),
            file,
        })
    }

    /// Waits until nothing is left to change: all other members are synchronous, `count` of them for every commit.
    pub(crate) async fn wait_settled(&self, cluster: &TestCluster, count: usize) -> Result<usize> {
        let leader = cluster.wait_healthy().await?;
        let voters = cluster.agents.len() - 1;
        self.wait_voters(cluster, leader, voters, count).await?;
        Ok(leader)
    }

    /// Waits until this leader has so many synchronous standbys, and every commit waits for `count` of them.
    pub(crate) async fn wait_voters(
        &self,
        cluster: &TestCluster,
        leader: usize,
        voters: usize,
        count: usize,
    ) -> Result<()> {
        let within = cluster.timing.recovery();
        let port = cluster.agents[leader].postgres_port;
        let what = format!("{voters} members to be synchronous");
        wait_until(&what, within, async || {
            let sync = self.sync().await?;
            ensure!(
                sync.leader.as_ref().map(|name| name.as_str())
                    == Some(&*cluster.agents[leader].name)
                    && sync.standbys.len() == voters
                    && sync.quorum as usize == voters - count,
                "/sync is {sync:?}"
            );
            let names = sql::text(port, "show synchronous_standby_names").await?;
            ensure!(
                names.starts_with(&format!("ANY {count} (")) && names.split(',').count() == voters,
                "the names are {names}"
            );
            Ok(())
        })
        .await
    }
}

/// Changes of the records.
pub(crate) struct Moments {
    sync: mpsc::Receiver<WatchEvent>,
    file: PathBuf,
    names: String,
}

impl Moments {
    /// Waits for the next write of either record; `false` if there is none for `within`.
    pub(crate) async fn next(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let written = match names_in(&self.file) {
                Some(names) if names != self.names => {
                    self.names = names;
                    true
                }
                _ => matches!(
                    self.sync.try_recv(),
                    Ok(WatchEvent::Put(_) | WatchEvent::Delete { .. })
                ),
            };
            if written || Instant::now() > deadline {
                return written;
            }
            sleep(LOOK).await;
        }
    }
}

fn names_in(file: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("synchronous_standby_names"))?;
    Some(line.to_owned())
}

/// Changes the dynamic configuration. The store may be without a leader, and who asks then asks again.
pub(crate) async fn configure(cluster: &TestCluster, member: usize, change: Value) -> Result<()> {
    let agent = &cluster.agents[member];
    wait_until(
        &format!("{change}"),
        cluster.timing.failover(),
        async || {
            let answer = agent.send("PATCH", "/config", &change).await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        },
    )
    .await
}

/// A cluster in quorum mode.
pub(crate) fn in_quorum_mode(
    builder: primacy_testkit::ClusterBuilder,
) -> primacy_testkit::ClusterBuilder {
    builder
        .dynamic("synchronous_mode", json!("quorum"))
        .dynamic("synchronous_node_count", json!(1))
}
