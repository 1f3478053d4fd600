//! Quorum commit while its members change: a node is lost right after each write of `synchronous_standby_names` or of
//! `/sync`.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::{Signal, StoreKind, TestCluster, Writer, account, sql, wait_until};
use serde_json::json;

use crate::synchrony::{Records, configure, in_quorum_mode};

/// A change of who is synchronous, or of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Every commit waits for so many.
    Count(usize),
    /// A standby is stopped in good order, and so released.
    Leave,
    /// It comes back.
    Join,
}

const CHANGES: [Change; 4] = [
    Change::Count(2),
    Change::Count(1),
    Change::Leave,
    Change::Join,
];

/// Without a further write for so long, a change is through. A loop and a confirmation are shorter.
fn quiet(cluster: &TestCluster) -> Duration {
    cluster.timing.loop_wait + Duration::from_secs(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_lost_after_the_first_write() -> Result<()> {
    rounds(StoreKind::Embedded, 3, 1).await
}

mod long {
    use primacy_testkit::StoreKind;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn primary_lost_at_each_moment_embedded() -> anyhow::Result<()> {
        super::rounds(StoreKind::Embedded, 5, 8).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn primary_lost_at_each_moment_etcd3() -> anyhow::Result<()> {
        super::rounds(StoreKind::Etcd3, 3, 8).await
    }
}

/// Each change, with the primary lost after its first write, after its second, and so on up to `most`.
async fn rounds(store: StoreKind, members: usize, most: usize) -> Result<()> {
    let builder = crate::cluster(store).members(members);
    let mut cluster = in_quorum_mode(builder).start().await?;
    let records = Records::of(&cluster)?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let mut count = 1;
    for moment in 1..=most {
        let mut reached = false;
        for change in CHANGES {
            reached |= round(&mut cluster, &records, &writer, change, &mut count, moment).await?;
        }
        if !reached {
            break;
        }
    }

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// One change, and the loss of the primary after its write number `moment`. Whether there was such a write.
async fn round(
    cluster: &mut TestCluster,
    records: &Records,
    writer: &Writer,
    change: Change,
    count: &mut usize,
    moment: usize,
) -> Result<bool> {
    let primary = records.wait_settled(cluster, *count).await?;
    let standby = cluster.others(primary)[0];
    if change == Change::Join {
        cluster.agents[standby]
            .sigterm(Duration::from_secs(60))
            .await?;
        writer.wait_progress(cluster.timing.failover()).await?;
    }

    let mut moments = records.moments(cluster, primary);
    match change {
        Change::Count(wanted) => {
            *count = wanted;
            configure(
                cluster,
                primary,
                json!({ "synchronous_node_count": wanted }),
            )
            .await?;
        }
        Change::Leave => cluster.agents[standby].signal(Signal::SIGTERM)?,
        Change::Join => cluster.start_agent(standby)?,
    }
    let mut written = 0;
    while written < moment && moments.next(quiet(cluster)).await {
        written += 1;
    }
    cluster.agents[primary].kill_node().await?;
    println!(
        "{change:?}: {} lost after write {written}",
        cluster.agents[primary].name
    );

    // Where one is to be enough, the loss of two is one too many: whoever left comes back first.
    if change != Change::Leave {
        let new = cluster.wait_new_leader(primary).await?;
        ensure!(new != primary, "the lost primary leads");
        writer.wait_progress(cluster.timing.failover()).await?;
    }
    if change == Change::Leave {
        cluster.agents[standby]
            .wait_exit(Duration::from_secs(60))
            .await?;
    }
    cluster.start_all()?;
    Ok(written == moment)
}

/// W3: more standbys must confirm every commit from now on, but one has not confirmed those before. As long as it has
/// not, `/sync` must not say that a single voter has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grown_count_waits_for_who_is_behind() -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let builder = crate::cluster(StoreKind::Embedded).on_network();
    let mut cluster = in_quorum_mode(builder).start().await?;
    let records = Records::of(&cluster)?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let primary = records.wait_settled(&cluster, 1).await?;
    let others = cluster.others(primary);
    let (quick, behind) = (others[0], others[1]);
    let ports = [cluster.agents[primary].postgres_port];
    cluster.network()?.cut(primary, behind, Some(&ports))?;
    writer.wait_progress(cluster.timing.failover()).await?;

    let mut moments = records.moments(&cluster, primary);
    configure(&cluster, primary, json!({ "synchronous_node_count": 2 })).await?;
    let port = cluster.agents[primary].postgres_port;
    wait_until("the names", cluster.timing.failover(), async || {
        let names = sql::text(port, "show synchronous_standby_names").await?;
        ensure!(names.starts_with("ANY 2 ("), "the names are {names}");
        Ok(())
    })
    .await?;
    // Whatever is to be written, is written by then.
    while moments.next(quiet(&cluster)).await {}
    let sync = records.sync().await?;
    ensure!(sync.quorum == 1, "/sync is {sync:?}");

    cluster.agents[primary].kill_node().await?;
    let new = cluster.wait_new_leader(primary).await?;
    ensure!(
        new == quick,
        "{} leads, which was behind",
        cluster.agents[new].name
    );
    cluster.network()?.heal()?;
    cluster.start_all()?;
    records.wait_settled(&cluster, 2).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
