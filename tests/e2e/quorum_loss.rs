//! The store loses its quorum, and gets it back.

use std::time::Instant;

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, wait_until};

on_both_stores!(store_loses_quorum);

/// Without a store, nobody can renew a lease: the primary stops accepting writes before the lease that it had lapses.
async fn store_loses_quorum(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let leader = cluster.leader().await?;
    cluster.take_quorum_away(leader).await?;
    let lost = Instant::now();
    let must_stop = lost + cluster.timing.ttl;

    wait_until(
        "writes to be refused",
        2 * cluster.timing.ttl + cluster.timing.loop_wait,
        async || {
            let last = writers[leader].last().map(|last| last.at.elapsed());
            ensure!(
                last.is_none_or(|ago| ago > cluster.timing.loop_wait),
                "the last commit was {last:?} ago"
            );
            ensure!(Instant::now() > must_stop, "the lease may be valid still");
            Ok(())
        },
    )
    .await?;

    let returned = Instant::now();
    cluster.give_quorum_back().await?;
    cluster.wait_healthy().await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    for acknowledged in &ledger.acknowledged {
        ensure!(
            acknowledged.at <= must_stop || acknowledged.at >= returned,
            "a commit was acknowledged {:?} after the store was lost",
            acknowledged.at - lost
        );
    }
    cluster.finish(ledger).await
}
