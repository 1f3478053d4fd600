//! The store's contract, faults included.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use primacy_dcs::Store;
use primacy_dcs::conformance::{
    Fixture, frozen_member, leader_loss, leases, lost_answers, quorum_loss, reads, watches, writes,
};
use tokio::sync::Mutex;

use super::TestGroup;
use crate::RaftClient;

/// Three members, and three clients: outside the group, or the members' own.
struct Three {
    group: Mutex<TestGroup>,
    stores: Vec<Arc<dyn Store>>,
    clients: Vec<RaftClient>,
}

impl Three {
    /// Everybody asks the member next door.
    async fn inside() -> Three {
        let group = TestGroup::started(3).await;
        let stores = (0..3).map(|number| group.store(number)).collect();
        Three {
            group: Mutex::new(group),
            stores,
            clients: Vec::new(),
        }
    }

    /// Everybody asks whichever member answers.
    async fn outside() -> Three {
        let group = TestGroup::started(3).await;
        let clients: Vec<_> = (0..3).map(|_| group.client()).collect();
        let stores = clients.iter().map(RaftClient::store).collect();
        Three {
            group: Mutex::new(group),
            stores,
            clients,
        }
    }
}

#[async_trait]
impl Fixture for Three {
    fn client(&self, number: usize) -> Arc<dyn Store> {
        self.stores[number].clone()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn lose_answers(&self, client: usize, lose: bool) {
        self.clients[client].faults().set(false, lose);
    }

    async fn freeze_member(&self, member: usize) {
        self.group.lock().await.cut(member, true);
    }

    async fn thaw_member(&self, member: usize) {
        self.group.lock().await.cut(member, false);
    }

    async fn kill_leader(&self) {
        let mut group = self.group.lock().await;
        let leader = group.wait_for_leader().await;
        group.stop(leader).await;
    }

    async fn lose_quorum(&self) {
        let mut group = self.group.lock().await;
        group.stop(1).await;
        group.stop(2).await;
    }

    async fn restore(&self) {
        let mut group = self.group.lock().await;
        for number in 0..3 {
            if group.nodes[number].is_none() {
                group.start(number).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_keep_the_contract() {
    let three = Three::inside().await;
    writes(&three).await;
    reads(&three).await;
    leases(&three).await;
    watches(&three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_keep_the_contract() {
    let three = Three::outside().await;
    writes(&three).await;
    reads(&three).await;
    leases(&three).await;
    watches(&three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_unknown() {
    lost_answers(&Three::outside().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_stops_nobody() {
    frozen_member(&Three::outside().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_die() {
    leader_loss(&Three::outside().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_quorum_nothing_is_claimed() {
    quorum_loss(&Three::outside().await).await;
}
