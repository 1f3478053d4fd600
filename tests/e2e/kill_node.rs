//! A machine is lost: agent and server are killed at once.

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster};

on_both_stores!(primary_killed, replica_killed, all_killed);

async fn primary_killed(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let old = cluster.leader().await?;
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    cluster.start_agent(old)?;
    let leader = cluster.wait_healthy().await?;
    ensure!(leader == new, "the returned primary took the lead again");

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The synchronous standby is lost: commits wait until another one stands in, and none that was acknowledged is lost.
async fn replica_killed(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;

    let leader = cluster.leader().await?;
    let standby = cluster.synchronous_standby().await?;
    cluster.agents[standby].kill_node().await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    ensure!(
        cluster.leader().await? == leader,
        "the loss of a replica moved the lead"
    );

    cluster.start_agent(standby)?;
    cluster.wait_healthy().await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// The power fails, for all members at once.
async fn all_killed(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;

    for agent in &mut cluster.agents {
        agent.kill_node().await?;
    }
    cluster.start_all()?;
    cluster.wait_healthy().await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
