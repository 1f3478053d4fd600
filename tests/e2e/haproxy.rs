//! Clients behind HAProxy, which asks the agents who is who.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::{HaProxy, StoreKind, Target, TestCluster, Writer, sql, wait_until};

on_both_stores!(client_survives_a_failover);

async fn client_survives_a_failover(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let proxy = HaProxy::start(&cluster).await?;
    let writer = Writer::start(100, Target::Port(proxy.primary_port));
    writer.wait_progress(cluster.timing.failover()).await?;
    replica_listener_leads_to_a_replica(&proxy).await?;

    let old = cluster.leader().await?;
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    let last = writer.last().map(|last| last.port);
    ensure!(
        last == Some(i32::from(cluster.agents[new].postgres_port)),
        "the proxy leads to port {last:?}, not to the new primary"
    );
    replica_listener_leads_to_a_replica(&proxy).await?;

    cluster.start_agent(old)?;
    cluster.wait_healthy().await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

async fn replica_listener_leads_to_a_replica(proxy: &HaProxy) -> Result<()> {
    // Two checks in a row bring a server up, a second apart.
    wait_until(
        "the replica listener to lead to a replica",
        Duration::from_secs(15),
        async || {
            let recovering =
                sql::text(proxy.replica_port, "select pg_is_in_recovery()::text").await?;
            ensure!(recovering == "true", "it leads to a primary");
            Ok(())
        },
    )
    .await
}
