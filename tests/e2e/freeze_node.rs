//! The primary's machine stands still for longer than its lease, as a virtual machine that is suspended or moved, then
//! goes on as if nothing had happened.

use anyhow::{Result, ensure};
use primacy_testkit::{Signal, StoreKind, TestCluster, processes, sql, wait_until};

on_both_stores!(suspended_beyond_ttl);

/// PostgreSQL wakes first, with clients connected and with nobody to stop it. Its commits wait for standbys that follow
/// another one by now.
async fn suspended_beyond_ttl(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let old = cluster.leader().await?;
    let frozen = cluster.agents[old].node();
    for pid in frozen.server.iter().chain(&frozen.agent) {
        processes::signal(*pid, Signal::SIGSTOP);
    }
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    for pid in &frozen.server {
        processes::signal(*pid, Signal::SIGCONT);
    }
    let port = cluster.agents[old].postgres_port;
    let woken = wait_until(
        "clients to wait on the old primary",
        cluster.timing.ttl,
        async || {
            let waiting =
                "select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'";
            let waiting = sql::text(port, waiting).await?;
            ensure!(waiting != "0", "nobody waits");
            Ok(())
        },
    )
    .await;
    for pid in &frozen.agent {
        processes::signal(*pid, Signal::SIGCONT);
    }
    woken?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the woken primary took the lead again"
    );

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
