//! `synchronous_mode` is switched on a live cluster, and the primary is lost at each switch.

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster, Writer, sql, wait_until};
use serde_json::{Value, json};

use crate::synchrony::{Records, configure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_and_lost() -> Result<()> {
    switches(StoreKind::Embedded).await
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes"]
    async fn switched_and_lost_etcd3() -> anyhow::Result<()> {
        super::switches(primacy_testkit::StoreKind::Etcd3).await
    }
}

/// From one mode that keeps every commit to another, each is kept whenever the primary fails. From asynchronous
/// replication on, that begins when `/sync` names a standby.
///
/// In the middle of a switch there may be a moment in which no standby is known to have everything: then the cluster
/// waits for its primary. With the switch in force, it does without.
async fn switches(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let records = Records::of(&cluster)?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    for change in [
        json!({"synchronous_mode": "quorum"}),
        json!({"synchronous_node_count": 2}),
        json!({"synchronous_mode": true}),
    ] {
        let primary = cluster.leader().await?;
        configure(&cluster, primary, change.clone()).await?;
        cluster.agents[primary].kill_node().await?;
        cluster.start_all()?;
        cluster.wait_healthy().await?;
        wait_in_force(&cluster, &change).await?;
        writer.wait_progress(cluster.timing.failover()).await?;
    }
    let primary = cluster.leader().await?;
    lose(&mut cluster, &writer, primary).await?;

    let primary = cluster.leader().await?;
    configure(
        &cluster,
        primary,
        json!({"synchronous_mode": false, "synchronous_node_count": null}),
    )
    .await?;
    cluster.synchronous = false;
    wait_until(
        "no standby to be synchronous",
        cluster.timing.recovery(),
        async || {
            let primary = cluster.leader().await?;
            let names = sql::text(
                cluster.agents[primary].postgres_port,
                "show synchronous_standby_names",
            )
            .await?;
            ensure!(names.is_empty(), "the names are {names}");
            let sync = records.sync().await;
            ensure!(
                sync.as_ref().is_err() || sync.is_ok_and(|sync| sync.leader.is_none()),
                "/sync is there"
            );
            Ok(())
        },
    )
    .await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    // A switchover hands everything over, in any mode.
    cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    cluster.wait_healthy().await?;

    let change = json!({"synchronous_mode": "quorum"});
    let primary = cluster.leader().await?;
    configure(&cluster, primary, change.clone()).await?;
    wait_in_force(&cluster, &change).await?;
    cluster.synchronous = true;
    lose(&mut cluster, &writer, primary).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The primary's node is lost, and comes back when another one leads.
async fn lose(cluster: &mut TestCluster, writer: &Writer, primary: usize) -> Result<()> {
    cluster.agents[primary].kill_node().await?;
    cluster.wait_new_leader(primary).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.start_all()?;
    cluster.wait_healthy().await?;
    Ok(())
}

/// Waits until the primary's commits wait as the change wants it, and `/cluster` shows the standbys so.
async fn wait_in_force(cluster: &TestCluster, change: &Value) -> Result<()> {
    wait_until(
        &format!("{change} to be in force"),
        cluster.timing.recovery(),
        async || {
            let primary = cluster.leader().await?;
            let agent = &cluster.agents[primary];
            let configuration = agent.get("/config").await?;
            let names = sql::text(agent.postgres_port, "show synchronous_standby_names").await?;
            let count = configuration["synchronous_node_count"]
                .as_u64()
                .unwrap_or(1);
            let (role, form) = match &configuration["synchronous_mode"] {
                Value::String(_) => ("quorum_standby", format!("ANY {count} (")),
                _ if count > 1 => ("sync_standby", format!("{count} (")),
                _ => ("sync_standby", "\"pg".to_owned()),
            };
            ensure!(names.starts_with(&form), "the names are {names}");
            let document = agent.get("/cluster").await?;
            let members = document["members"].as_array().context("no members")?;
            ensure!(
                members.iter().any(|member| member["role"] == role),
                "in {document}"
            );
            Ok(())
        },
    )
    .await
}
