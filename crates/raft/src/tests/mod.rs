//! Groups of members in one process, and what is done to them.

mod conformance;
mod crash;
mod fuzz;
mod group;
mod machine;
mod security;
mod storage;
mod timings;

use std::sync::Arc;
use std::time::Duration;

use primacy_config::local::RaftTimings;
use primacy_dcs::{Change, Condition, Outcome, Store, StoreError, Write};
use primacy_testkit::ports;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{RaftClient, RaftConfig, RaftNode};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Members with a directory and a port each.
struct TestGroup {
    dirs: Vec<TempDir>,
    addrs: Vec<String>,
    nodes: Vec<Option<RaftNode>>,
}

impl TestGroup {
    fn new(size: usize) -> TestGroup {
        TestGroup {
            dirs: (0..size).map(|_| tempfile::tempdir().unwrap()).collect(),
            addrs: (0..size)
                .map(|_| format!("127.0.0.1:{}", ports::free().unwrap()))
                .collect(),
            nodes: (0..size).map(|_| None).collect(),
        }
    }

    async fn started(size: usize) -> TestGroup {
        let mut group = TestGroup::new(size);
        for number in 0..size {
            group.start(number).await;
        }
        group.wait_until_whole().await;
        group
    }

    fn config(&self, number: usize) -> RaftConfig {
        let others = self
            .addrs
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number);
        RaftConfig {
            self_addr: Some(self.addrs[number].clone()),
            bind_addr: None,
            partner_addrs: others.map(|(_, addr)| addr.clone()).collect(),
            data_dir: self.dirs[number].path().to_owned(),
            password: Some("secret".into()),
            timings: RaftTimings::default(),
        }
    }

    async fn start(&mut self, number: usize) {
        self.nodes[number] = Some(RaftNode::start(self.config(number)).await.unwrap());
    }

    async fn stop(&mut self, number: usize) {
        if let Some(node) = self.nodes[number].take() {
            node.shutdown().await;
        }
    }

    fn node(&self, number: usize) -> &RaftNode {
        self.nodes[number].as_ref().unwrap()
    }

    fn store(&self, number: usize) -> Arc<dyn Store> {
        self.node(number).store()
    }

    fn client(&self) -> RaftClient {
        RaftClient::new(&self.config(0)).unwrap()
    }

    fn cut(&self, number: usize, cut: bool) {
        self.node(number).core().faults.set(cut, cut);
    }

    /// The member that leads and serves, among those that are not cut off.
    fn leader(&self) -> Option<usize> {
        let serves =
            |node: &RaftNode| !node.core().faults.mute() && node.core().lock_reign().is_some();
        self.nodes
            .iter()
            .position(|node| node.as_ref().is_some_and(serves))
    }

    /// All members vote. A group that loses its leader before waits for it: whoever has not joined yet asks
    /// everybody first.
    async fn wait_until_whole(&self) {
        let votes = |node: &Option<RaftNode>| {
            node.as_ref()
                .is_some_and(|node| matches!(node.status().state, "follower" | "leader"))
        };
        eventually("a whole group", || {
            self.nodes.iter().all(votes).then_some(())
        })
        .await;
    }

    async fn wait_for_leader(&self) -> usize {
        eventually("a leader", || self.leader()).await
    }
}

/// Waits for a condition.
async fn eventually<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    let limit = soon();
    loop {
        if let Some(met) = met() {
            return met;
        }
        assert!(Instant::now() < limit, "{what} did not come about");
        sleep(Duration::from_millis(20)).await;
    }
}

fn put(key: &str, value: &str, condition: Condition) -> Write {
    let change = Change::Put {
        value: value.into(),
        lease: None,
    };
    Write {
        key: key.into(),
        change,
        condition,
    }
}

async fn set(store: &dyn Store, key: &str, value: &str) {
    let done = store
        .write(put(key, value, Condition::Always), soon())
        .await;
    assert!(matches!(done, Ok(Outcome::Done(_))), "{key}: {done:?}");
}

async fn get(store: &dyn Store, key: &str) -> Option<String> {
    let snapshot = store.read(key, soon()).await.unwrap();
    let found = snapshot.entries.into_iter().find(|entry| entry.key == key);
    found.map(|entry| String::from_utf8(entry.value).unwrap())
}

fn short() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}
