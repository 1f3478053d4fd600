//! The operator takes the cluster out of the agents' hands, and gives it back.

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster};

on_both_stores!(paused_cluster_is_left_alone);

/// In a paused cluster the loss of the primary's agent is nobody's business: the server goes on, and nobody takes
/// over, however long that lasts.
async fn paused_cluster_is_left_alone(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let leader = cluster.leader().await?;
    let postmaster = cluster.agents[leader].postmaster_pid();

    let printed = cluster.control_ok(&["pause", SCOPE, "--wait"]).await?;
    ensure!(
        printed.contains("Success: cluster management is paused"),
        "{printed}"
    );
    cluster.agents[leader].sigkill().await?;
    let until = tokio::time::Instant::now() + cluster.timing.ttl + 2 * cluster.timing.loop_wait;
    while tokio::time::Instant::now() < until {
        for member in cluster.others(leader) {
            let status = cluster.agents[member].check("/primary").await?;
            ensure!(
                status == 503,
                "{} took over in a paused cluster",
                cluster.agents[member].name
            );
        }
        ensure!(
            cluster.agents[leader].postmaster_pid() == postmaster,
            "the server was stopped"
        );
        tokio::time::sleep(cluster.timing.loop_wait / 4).await;
    }

    cluster.start_agent(leader)?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    let document = cluster.agents[leader].get("/cluster").await?;
    ensure!(document["pause"] == true, "{document}");
    let printed = cluster.control_ok(&["resume", SCOPE, "--wait"]).await?;
    ensure!(
        printed.contains("Success: cluster management is resumed"),
        "{printed}"
    );
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    ensure!(
        cluster.agents[leader].postmaster_pid() == postmaster,
        "the server was restarted"
    );
    writer.wait_progress(cluster.timing.failover()).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
