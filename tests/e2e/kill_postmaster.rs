//! The primary's postmaster is killed, its agent lives.

use anyhow::Result;
use primacy_testkit::{StoreKind, TestCluster};

on_both_stores!(postmaster_killed);

/// Either the agent starts the server again, or a replica takes over; writes go on, and nothing is lost.
async fn postmaster_killed(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let leader = cluster.leader().await?;
    cluster.agents[leader].sigkill_postmaster()?;
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.wait_healthy().await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
