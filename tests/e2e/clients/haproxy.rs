//! Clients behind HAProxy, which asks the agents who is who.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::client::output;
use primacy_testkit::{HaProxy, StoreKind, Target, TestCluster, Writer, sql, wait_until};

/// The usual configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_http() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded).start().await?;
    client_survives_a_failover(cluster).await
}

/// The agents speak HTTPS and want certificates: from HAProxy, from each other, and from operators.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_https_with_client_certificates() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3).with_certificates();
    let cluster = cluster.start().await?;
    for agent in &cluster.agents {
        // Whoever shows none gets no answer at all, not even who is the primary.
        let mut curl = cluster.scratch().command("curl");
        curl.args(["--silent", "--insecure", "--max-time", "5"])
            .arg(format!("https://127.0.0.1:{}/health", agent.rest_port));
        let refused = output(curl, Duration::from_secs(30)).await?;
        ensure!(
            !refused.status.success() && refused.stdout.is_empty(),
            "{} answered without a certificate: {refused:?}",
            agent.name
        );
    }
    client_survives_a_failover(cluster).await
}

async fn client_survives_a_failover(mut cluster: TestCluster) -> Result<()> {
    let proxy = HaProxy::start(&cluster).await?;
    let writer = Writer::start(100, Target::Port(proxy.primary_port));
    writer.wait_progress(cluster.timing.failover()).await?;
    replica_listener_leads_to_a_replica(&cluster, &proxy).await?;

    let old = cluster.leader().await?;
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    let last = writer.last().map(|last| last.port);
    ensure!(
        last == Some(i32::from(cluster.agents[new].postgres_port)),
        "the proxy leads to port {last:?}, not to the new primary"
    );
    replica_listener_leads_to_a_replica(&cluster, &proxy).await?;

    cluster.start_agent(old)?;
    cluster.wait_healthy().await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Two checks in a row bring a server up, a second apart; a replica that lost its primary may be rewound first.
async fn replica_listener_leads_to_a_replica(cluster: &TestCluster, proxy: &HaProxy) -> Result<()> {
    wait_until(
        "the replica listener to lead to a replica",
        cluster.timing.recovery(),
        async || {
            let recovering =
                sql::text(proxy.replica_port, "select pg_is_in_recovery()::text").await?;
            ensure!(recovering == "true", "it leads to a primary");
            Ok(())
        },
    )
    .await
}
