//! The primary's disk is full, with everything on it: data, WAL, logs, what the agent and the embedded store write.

use std::cell::Cell;

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, account, sql, wait_until};

on_both_stores!(without_space);

/// Data, WAL and logs of a cluster that does little, and room for what a base backup brings.
const DISK_MEGABYTES: u32 = 400;

/// Segments are 16 MB, and a few of them are there before they are needed.
const MOST_SWITCHES: u32 = 8;

/// Begins another WAL segment, for which there must be space.
const SWITCH: &str = "select pg_switch_wal() from pg_create_restore_point('full')";

/// PostgreSQL fails as soon as it needs another WAL segment, and again whenever it is started. Another member takes
/// over; with space again, the old primary follows it. A synchronous standby without space is replaced.
async fn without_space(store: StoreKind) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let cluster = crate::cluster(store).disks(DISK_MEGABYTES).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let old = cluster.leader().await?;
    let postmaster = cluster.agents[old].postmaster_pid();
    cluster.disks[old].fill()?;
    wait_until(
        "PostgreSQL to run out of space",
        cluster.timing.recovery(),
        async || {
            let port = cluster.agents[old].postgres_port;
            for _ in 0..4 {
                // Its own segments last for a while.
                let _ = sql::execute(port, SWITCH).await;
            }
            ensure!(
                cluster.agents[old].postmaster_pid() != postmaster,
                "it runs"
            );
            Ok(())
        },
    )
    .await?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    cluster.disks[old].free()?;
    ensure!(cluster.wait_healthy().await? == new, "the lead moved back");

    let standby = cluster.synchronous_standby().await?;
    cluster.disks[standby].fill()?;
    let switches = Cell::new(0);
    wait_until(
        "another standby to be synchronous",
        cluster.timing.recovery(),
        async || {
            // Until the standby's own segments are used up, but not until everybody's disk is full.
            if switches.get() < MOST_SWITCHES {
                switches.set(switches.get() + 1);
                let _ = sql::execute(cluster.agents[new].postgres_port, SWITCH).await;
            }
            let present = cluster.synchronous_standby().await?;
            ensure!(present != standby, "it is the one without space");
            Ok(())
        },
    )
    .await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.disks[standby].free()?;
    ensure!(cluster.wait_healthy().await? == new, "the lead moved");

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
