//! Failsafe mode: the store is gone for longer than `ttl`, and the primary stays, as long as every member accepts it.

use anyhow::{Context, Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, Writer, account, wait_until};
use serde_json::json;
use tokio::time::Instant;

on_both_stores!(store_gone_in_failsafe_mode);

/// First the primary alone loses the store: its lock lapses there and nobody takes it. Then everybody does. Then a
/// replica is gone as well, which could be a primary for all that anybody knows.
async fn store_gone_in_failsafe_mode(store: StoreKind) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let mut cluster = crate::cluster(store)
        .on_network()
        .dynamic("failsafe_mode", json!(true))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    let primary = cluster.leader().await?;
    let postmaster = cluster.agents[primary].postmaster_pid();
    wait_until(
        "all members in /failsafe",
        cluster.timing.failover(),
        async || {
            let map = cluster.agents[primary].get("/failsafe").await?;
            let names = map.as_object().context("no object")?.len();
            ensure!(names == 3, "{map}");
            Ok(())
        },
    )
    .await?;
    let ports = cluster.store.ports();

    cluster.network()?.cut_off(primary, Some(&ports))?;
    stays(&cluster, &writer, primary).await?;
    returns(&cluster, primary).await?;

    for member in 0..cluster.agents.len() {
        cluster.network()?.cut_off(member, Some(&ports))?;
    }
    stays(&cluster, &writer, primary).await?;
    ensure!(
        cluster.agents[primary].postmaster_pid() == postmaster,
        "the server was restarted"
    );

    let lost = cluster.others(primary)[0];
    cluster.agents[lost].kill_node().await?;
    wait_until(
        "the primary to be demoted",
        2 * cluster.timing.ttl,
        async || {
            let status = cluster.agents[primary].check("/primary").await?;
            ensure!(status == 503, "it says {status}");
            Ok(())
        },
    )
    .await?;
    cluster.network()?.heal()?;
    cluster.start_agent(lost)?;
    cluster.wait_healthy().await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// For longer than `ttl` it is the one primary, and accepts writes; every member says that failsafe mode is active.
async fn stays(cluster: &TestCluster, writer: &Writer, primary: usize) -> Result<()> {
    let until = Instant::now() + cluster.timing.ttl + 2 * cluster.timing.loop_wait;
    while Instant::now() < until {
        ensure!(cluster.leader().await? == primary, "the lead moved");
        tokio::time::sleep(cluster.timing.loop_wait / 8).await;
    }
    writer.wait_progress(cluster.timing.failover()).await?;
    for agent in &cluster.agents {
        let status = agent.get("/patroni").await?;
        ensure!(
            status["failsafe_mode_is_active"] == true,
            "{}: {status}",
            agent.name
        );
    }
    Ok(())
}

/// The store is back: the lock is the primary's again, on the timeline that it always had.
async fn returns(cluster: &TestCluster, primary: usize) -> Result<()> {
    cluster.network()?.heal()?;
    wait_until(
        "failsafe mode to end",
        cluster.timing.recovery(),
        async || {
            ensure!(cluster.leader().await? == primary, "the lead moved");
            let status = cluster.agents[primary].get("/patroni").await?;
            ensure!(status["failsafe_mode_is_active"].is_null(), "{status}");
            ensure!(status["cluster_unlocked"].is_null(), "{status}");
            ensure!(status["timeline"] == 1, "{status}");
            Ok(())
        },
    )
    .await?;
    ensure!(cluster.wait_healthy().await? == primary, "the lead moved");
    Ok(())
}
