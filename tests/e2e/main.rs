//! End to end: real agents, real PostgreSQL, real stores, one scenario per file. `tests/README.md` says how to run
//! one of them.

use primacy_testkit::{ClusterBuilder, StoreKind, TestCluster};

/// Makes two tests of each scenario: one on the embedded store, one on a three-member etcd.
macro_rules! on_both_stores {
    ($($scenario:ident),+ $(,)?) => {
        $(
            mod $scenario {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn embedded() -> anyhow::Result<()> {
                    super::$scenario(primacy_testkit::StoreKind::Embedded).await
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn etcd3() -> anyhow::Result<()> {
                    super::$scenario(primacy_testkit::StoreKind::Etcd3).await
                }
            }
        )+
    };
}

mod auxiliary;
mod bad_input;
mod bootstrap;
mod citus;
mod clients;
mod commands;
mod commands_keys;
mod config_commands;
mod control;
mod failsafe;
mod fence;
mod former_primary;
mod freeze_agent;
mod freeze_node;
mod full_disk;
mod hang;

mod hooks;
mod journal;
mod kill_agent;
mod kill_node;
mod kill_postmaster;
mod lag;
mod mixed;
mod mixed_matrix;
mod mixed_pause;
mod mixed_schedule;
mod mixed_tags;
mod packaging;
mod parameters;
mod partition;
mod pause;
mod quorum_change;
mod quorum_loss;
mod reload;
mod rest;
mod restarts;
mod rewind;
mod slots;
mod standby_cluster;
mod stop_agent;
mod storm;
mod switchover;
mod sync_loss;
mod sync_modes;
mod synchrony;
mod systemd;
mod tags;
mod terminal;
mod watchdog;
mod witness;

/// The executable under test.
const EXECUTABLE: &str = env!("CARGO_BIN_EXE_primacy");

/// A synchronous cluster of three members, unless the scenario says otherwise. With `PRIMACY_TEST_STORES=swapped` it
/// is on the other store: that is how `make test-stores` runs the scenarios that need one of them only to be quick.
fn cluster(store: StoreKind) -> ClusterBuilder {
    let swapped = std::env::var("PRIMACY_TEST_STORES").is_ok_and(|stores| stores == "swapped");
    let store = match store {
        StoreKind::Embedded if swapped => StoreKind::Etcd3,
        StoreKind::Etcd3 if swapped => StoreKind::Embedded,
        _ => store,
    };
    // Who loses its source in the middle of a rewind, be it that a busy machine starves that of its lease, needs a new copy.
    TestCluster::builder(store, EXECUTABLE)
        .postgresql("remove_data_directory_on_rewind_failure", true.into())
}
