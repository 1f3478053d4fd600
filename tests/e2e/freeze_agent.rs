//! The primary's agent is frozen for longer than its lease, then goes on as if nothing had happened.

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster};

on_both_stores!(frozen_beyond_ttl);

async fn frozen_beyond_ttl(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let old = cluster.leader().await?;
    cluster.agents[old].sigstop()?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    cluster.agents[old].sigcont()?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the thawed primary took the lead again"
    );

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
