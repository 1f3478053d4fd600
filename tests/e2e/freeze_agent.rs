//! The primary's agent is frozen for twice its lease, then goes on as if nothing had happened.

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, Writer, processes};
use tokio::time::Instant;

on_both_stores!(frozen_beyond_ttl);

async fn frozen_beyond_ttl(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    freeze(&cluster, &writer).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// Freezes the primary's agent for twice `ttl`, in which another member takes over, once the old server is dead, and goes
/// on committing; thawed, the old primary follows that one.
pub(crate) async fn freeze(cluster: &TestCluster, writer: &Writer) -> Result<()> {
    let old = cluster.leader().await?;
    let postmaster = cluster.agents[old].postmaster_pid();
    cluster.agents[old].sigstop()?;
    let frozen = Instant::now();

    let new = cluster.wait_new_leader(old).await?;
    ensure!(
        !postmaster.is_some_and(processes::alive),
        "a replica took over while the old primary's server was alive"
    );
    while frozen.elapsed() < 2 * cluster.timing.ttl {
        writer.wait_progress(cluster.timing.failover()).await?;
        ensure!(
            cluster.agents[new].check("/primary").await? == 200,
            "the lead moved again"
        );
    }

    cluster.agents[old].sigcont()?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the thawed primary took the lead again"
    );
    writer.wait_progress(cluster.timing.failover()).await
}
