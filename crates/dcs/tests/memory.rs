//! The store in memory keeps the contract, and its faults are what they say.

use std::sync::Arc;

use async_trait::async_trait;
use primacy_dcs::conformance::{self, Fixture};
use primacy_dcs::{Fault, MemoryStore, Store};

struct Memory([Arc<MemoryStore>; 3]);

impl Memory {
    fn new() -> Self {
        let first = MemoryStore::new();
        Memory([first.clone(), first.client(), first.client()])
    }
}

#[async_trait]
impl Fixture for Memory {
    fn client(&self, number: usize) -> Arc<dyn Store> {
        self.0[number].clone()
    }

    async fn lose_answers(&self, client: usize, lose: bool) {
        self.0[client].set_fault(if lose { Fault::AnswerLost } else { Fault::None });
    }
}

#[tokio::test(start_paused = true)]
async fn writes() {
    conformance::writes(&Memory::new()).await;
}

#[tokio::test(start_paused = true)]
async fn reads() {
    conformance::reads(&Memory::new()).await;
}

#[tokio::test(start_paused = true)]
async fn leases() {
    conformance::leases(&Memory::new()).await;
}

#[tokio::test(start_paused = true)]
async fn watches() {
    conformance::watches(&Memory::new()).await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers() {
    conformance::lost_answers(&Memory::new()).await;
}
