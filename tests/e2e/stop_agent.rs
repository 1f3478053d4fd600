//! Agents are stopped in good order.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster};

on_both_stores!(primary_then_standby_stopped);

/// SIGTERM stops the server cleanly and releases the leader key, so that a replica takes over without waiting for
/// the lease to lapse. A synchronous standby is released before it stops, so that commits do not wait for it.
async fn primary_then_standby_stopped(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let old = cluster.leader().await?;
    let status = cluster.agents[old].sigterm(Duration::from_secs(60)).await?;
    ensure!(status.success(), "the agent ended with {status}");
    ensure!(
        cluster.agents[old].postmaster_pid().is_none(),
        "the server outlived an orderly stop"
    );
    // The key's removal is an event that the replicas watch for; what remains is the race and the promotion.
    let new = cluster
        .wait_leader_other_than(old, cluster.timing.loop_wait + Duration::from_secs(5))
        .await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    cluster.start_agent(old)?;
    let leader = cluster.wait_healthy().await?;
    ensure!(leader == new, "the returned primary took the lead again");

    let standby = cluster.synchronous_standby().await?;
    cluster.agents[standby]
        .sigterm(Duration::from_secs(60))
        .await?;
    let released = format!(
        "{} does not want to be synchronous",
        cluster.agents[standby].name
    );
    ensure!(
        cluster.agents[new].log().contains(&released),
        "the standby was gone before it was released"
    );
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.start_agent(standby)?;
    ensure!(cluster.wait_healthy().await? == new, "the lead moved");

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
