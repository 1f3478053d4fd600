//! The network parts the primary from the others, each on a machine of its own. Clients on its side keep trying.

use anyhow::{Result, ensure};
use primacy_testkit::{ClusterBuilder, Network, StoreKind, TestCluster, Writer, account};
use serde_json::{Value, json};
use tokio::time::Instant;

on_both_stores!(cut_off, cut_in_one_direction, cut_between_two);

/// From everyone, from the store only, from the other servers only.
async fn cut_off(store: StoreKind) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let cluster = on_network(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    fails_over(&cluster, &writer, &|network, primary| {
        network.cut_off(primary, None)
    })
    .await?;
    let store_ports = cluster.store.ports();
    fails_over(&cluster, &writer, &|network, primary| {
        network.cut_off(primary, Some(&store_ports))
    })
    .await?;

    // Nobody else can be the primary while this one holds the lock. Its commits wait until its standbys are given up.
    let primary = cluster.leader().await?;
    cluster
        .network()?
        .cut_off(primary, Some(&cluster.member_ports()))?;
    writer.wait_progress(cluster.timing.recovery()).await?;
    ensure!(cluster.leader().await? == primary, "the lead moved");
    cluster.network()?.heal()?;
    ensure!(cluster.wait_healthy().await? == primary, "the lead moved");

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The primary is heard and hears nothing, so that it never knows what became of its requests; or it hears and is
/// not heard.
async fn cut_in_one_direction(store: StoreKind) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let cluster = on_network(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    fails_over(&cluster, &writer, &|network, primary| {
        network.deafen(primary, None)
    })
    .await?;
    fails_over(&cluster, &writer, &|network, primary| {
        network.mute(primary, None)
    })
    .await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The primary and one replica cannot talk to each other, and the third member talks to both. Whatever the store makes of
/// that, there is a primary that commits, and the members do not take the lead from each other on and on.
async fn cut_between_two(store: StoreKind) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let cluster = on_network(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let primary = cluster.leader().await?;
    let other = cluster.synchronous_standby().await?;
    cluster.network()?.cut(primary, other, None)?;
    cluster.network()?.cut(other, primary, None)?;
    let until = Instant::now() + 2 * cluster.timing.ttl;
    while Instant::now() < until {
        writer.wait_progress(cluster.timing.recovery()).await?;
    }
    let timeline = writer.last().map_or(0, |last| last.timeline);
    ensure!(timeline <= 3, "the lead moved {} times", timeline - 1);
    cluster.network()?.heal()?;
    cluster.wait_healthy().await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// With such a cut another member takes over, and the old primary has stopped before; healed, it follows.
async fn fails_over(
    cluster: &TestCluster,
    writer: &Writer,
    cut: &dyn Fn(&Network, usize) -> Result<()>,
) -> Result<()> {
    let old = cluster.leader().await?;
    cut(cluster.network()?, old)?;
    let new = cluster.wait_new_leader(old).await?;
    ensure!(
        cluster.leader().await? == new,
        "the old primary still says that it is one"
    );
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.network()?.heal()?;
    ensure!(cluster.wait_healthy().await? == new, "the lead moved back");
    Ok(())
}

/// Streams that a cut silenced end soon, rather than after PostgreSQL's minute.
pub(crate) fn on_network(store: StoreKind) -> ClusterBuilder {
    let parameters: Value = json!({
        "max_connections": 40,
        "max_wal_senders": 8,
        "max_replication_slots": 8,
        "wal_log_hints": "on",
        "hot_standby": "on",
        "wal_sender_timeout": "5s",
        "wal_receiver_timeout": "5s",
    });
    crate::cluster(store).on_network().dynamic(
        "postgresql",
        json!({"use_pg_rewind": true, "parameters": parameters}),
    )
}
