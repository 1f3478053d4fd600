//! Parameters that size shared memory: a standby may not have less than its primary had.

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, sql, wait_until};
use serde_json::{Value, json};

const PARAMETER: &str = "max_connections";

async fn configure(cluster: &TestCluster, value: u32) -> Result<()> {
    let body = json!({ "postgresql": { "parameters": { PARAMETER: value } } });
    let answer = cluster.agents[0].send("PATCH", "/config", &body).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

async fn restart(cluster: &TestCluster, member: usize) -> Result<()> {
    let answer = cluster.agents[member]
        .send("POST", "/restart", &json!({}))
        .await?;
    ensure!(answer.status == 200, "restart: {answer:?}");
    Ok(())
}

/// Waits until a member runs with that value and says that it waits for a restart to change it to another, or does not.
async fn wait_for(
    cluster: &TestCluster,
    member: usize,
    value: u32,
    waits_for: Option<u32>,
) -> Result<()> {
    let agent = &cluster.agents[member];
    let what = format!("{} to have {value}, waiting for {waits_for:?}", agent.name);
    let reason = waits_for.map(|new| json!({ PARAMETER: { "old_value": value.to_string(), "new_value": new.to_string() } }));
    let show = format!("show {PARAMETER}");
    wait_until(&what, cluster.timing.recovery(), async || {
        let found = sql::text(agent.postgres_port, &show).await?;
        let status = agent.get("/patroni").await?;
        let told = status.get("pending_restart_reason").cloned();
        ensure!(
            found == value.to_string()
                && told == reason
                && status.get("pending_restart").and_then(Value::as_bool)
                    == waits_for.map(|_| true),
            "{found}, {told:?}"
        );
        Ok(())
    })
    .await
}

/// Waits until a standby knows what its primary has by now.
async fn wait_replayed(cluster: &TestCluster, primary: usize, standby: usize) -> Result<()> {
    let port = |member: usize| cluster.agents[member].postgres_port;
    let written = sql::text(port(primary), "select pg_current_wal_lsn()::text").await?;
    let replayed = format!("select (pg_last_wal_replay_lsn() >= '{written}')::text");
    wait_until(
        "the standby to replay",
        cluster.timing.recovery(),
        async || {
            ensure!(sql::text(port(standby), &replayed).await? == "true");
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_first_down_standbys_first_up() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded).start().await?;
    let writer = cluster.writer().await?;
    let leader = cluster.leader().await?;
    let standbys = cluster.others(leader);

    // Less: a standby that is restarted too early keeps what its primary has, and goes on waiting.
    configure(&cluster, 30).await?;
    for member in 0..cluster.agents.len() {
        wait_for(&cluster, member, 40, Some(30)).await?;
    }
    restart(&cluster, standbys[0]).await?;
    wait_for(&cluster, standbys[0], 40, Some(30)).await?;
    cluster.wait_healthy().await?;
    restart(&cluster, leader).await?;
    wait_for(&cluster, leader, 30, None).await?;
    cluster.wait_healthy().await?;
    wait_replayed(&cluster, leader, standbys[0]).await?;
    restart(&cluster, standbys[0]).await?;
    wait_for(&cluster, standbys[0], 30, None).await?;
    cluster.wait_healthy().await?;

    // More, and the primary first by mistake: its standbys stop replaying, and are brought up with what it has.
    configure(&cluster, 50).await?;
    wait_for(&cluster, leader, 30, Some(50)).await?;
    wait_for(&cluster, standbys[0], 30, Some(50)).await?;
    wait_for(&cluster, standbys[1], 40, Some(50)).await?;
    restart(&cluster, leader).await?;
    for member in 0..cluster.agents.len() {
        wait_for(&cluster, member, 50, None).await?;
    }
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");

    // A value taken back before the restart: nothing waits any more.
    configure(&cluster, 60).await?;
    for member in 0..cluster.agents.len() {
        wait_for(&cluster, member, 50, Some(60)).await?;
    }
    configure(&cluster, 50).await?;
    for member in 0..cluster.agents.len() {
        wait_for(&cluster, member, 50, None).await?;
    }

    writer.wait_progress(cluster.timing.failover()).await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
