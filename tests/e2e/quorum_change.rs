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
    /// Every commit waits for two standbys instead of one.
    Grow,
    /// For one instead of two.
    Shrink,
    /// A standby is stopped in good order, and so released.
    Leave,
    /// It comes back.
    Join,
}

/// Who is lost in the middle of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Primary,
    /// A standby that is to stay.
    Standby,
    /// The standby that comes or goes.
    Mover,
}

/// A change, and who is lost in the middle of it.
type Round = (Change, Lost);

const PRIMARY_LOST: &[Round] = &[
    (Change::Grow, Lost::Primary),
    (Change::Shrink, Lost::Primary),
    (Change::Leave, Lost::Primary),
    (Change::Join, Lost::Primary),
];

const STANDBY_LOST: &[Round] = &[
    (Change::Grow, Lost::Standby),
    (Change::Shrink, Lost::Standby),
    (Change::Leave, Lost::Standby),
    (Change::Leave, Lost::Mover),
    (Change::Join, Lost::Standby),
    (Change::Join, Lost::Mover),
];

/// Every change is of both records, so that it has this many moments at least.
const CERTAIN_MOMENTS: usize = 2;

/// Without a further write for so long, a change is through. A loop and a confirmation are shorter.
fn quiet(cluster: &TestCluster) -> Duration {
    cluster.timing.loop_wait + Duration::from_secs(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_lost_after_the_first_write() -> Result<()> {
    rounds(StoreKind::Embedded, 3, PRIMARY_LOST, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_lost_after_the_first_write() -> Result<()> {
    let some = [(Change::Grow, Lost::Standby), (Change::Join, Lost::Mover)];
    rounds(StoreKind::Embedded, 3, &some, 1).await
}

/// `make test-stores` runs each on the other store, so that three members are on both.
mod long {
    use anyhow::Result;
    use primacy_testkit::StoreKind;

    use super::{PRIMARY_LOST, STANDBY_LOST, rounds};

    /// No change has so many.
    const MOST: usize = 8;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn primary_lost_at_each_moment_embedded() -> Result<()> {
        rounds(StoreKind::Embedded, 3, PRIMARY_LOST, MOST).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn primary_lost_at_each_moment_etcd3() -> Result<()> {
        rounds(StoreKind::Etcd3, 3, PRIMARY_LOST, MOST).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn primary_of_five_lost_at_each_moment() -> Result<()> {
        rounds(StoreKind::Embedded, 5, PRIMARY_LOST, MOST).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn standby_lost_at_each_moment_embedded() -> Result<()> {
        rounds(StoreKind::Embedded, 3, STANDBY_LOST, MOST).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn standby_lost_at_each_moment_etcd3() -> Result<()> {
        rounds(StoreKind::Etcd3, 3, STANDBY_LOST, MOST).await
    }
}

/// Each round with the loss after its first write, after its second, and so on up to `most`.
async fn rounds(store: StoreKind, members: usize, rounds: &[Round], most: usize) -> Result<()> {
    let builder = crate::cluster(store).members(members);
    let mut cluster = in_quorum_mode(builder).start().await?;
    let records = Records::of(&cluster)?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    for kind in rounds {
        for moment in 1..=most {
            if !round(&mut cluster, &records, &writer, *kind, moment).await? {
                break;
            }
        }
    }

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// One change, and the loss of a node after its write number `moment`. Whether there was such a write.
async fn round(
    cluster: &mut TestCluster,
    records: &Records,
    writer: &Writer,
    (change, lost): Round,
    moment: usize,
) -> Result<bool> {
    let (before, after) = match change {
        Change::Grow => (1, 2),
        Change::Shrink => (2, 1),
        Change::Leave | Change::Join => (1, 1),
    };
    let count = |count: usize| json!({ "synchronous_node_count": count });
    configure(cluster, cluster.wait_healthy().await?, count(before)).await?;
    let primary = records.wait_settled(cluster, before).await?;
    let (mover, stays) = (cluster.others(primary)[0], cluster.others(primary)[1]);
    if change == Change::Join {
        cluster.agents[mover]
            .sigterm(Duration::from_secs(60))
            .await?;
        let voters = cluster.agents.len() - 2;
        records
            .wait_voters(cluster, primary, voters, before)
            .await?;
        writer.wait_progress(cluster.timing.failover()).await?;
    }

    let mut moments = records.moments(cluster, primary).await?;
    match change {
        Change::Grow | Change::Shrink => configure(cluster, primary, count(after)).await?,
        Change::Leave => cluster.agents[mover].signal(Signal::SIGTERM)?,
        Change::Join => cluster.start_agent(mover)?,
    }
    let mut written = 0;
    while written < moment {
        let within = match written < CERTAIN_MOMENTS {
            true => cluster.timing.recovery(),
            false => quiet(cluster),
        };
        if !moments.next(within).await {
            break;
        }
        written += 1;
    }
    let lost = match lost {
        Lost::Primary => primary,
        Lost::Standby => stays,
        Lost::Mover => mover,
    };
    cluster.agents[lost].kill_node().await?;
    let name = &cluster.agents[lost].name;
    println!("{change:?}: {name} lost after write {written}");
    ensure!(
        written >= moment.min(CERTAIN_MOMENTS),
        "{change:?} wrote {written} times"
    );

    if change == Change::Leave {
        // Where one is to be enough, the loss of two is one too many: whoever left comes back first.
        if lost != mover {
            cluster.agents[mover]
                .wait_exit(Duration::from_secs(60))
                .await?;
        }
        cluster.start_all()?;
        return Ok(written == moment);
    }
    if lost != primary {
        // Without it, commits go on; then the primary is lost, too, and what was acknowledged meanwhile is still there.
        writer.wait_progress(cluster.timing.failover()).await?;
        ensure!(
            cluster.agents[primary].check("/primary").await? == 200,
            "the loss of a standby moved the lead"
        );
        cluster.start_agent(lost)?;
        cluster.agents[primary].kill_node().await?;
    }
    cluster.wait_new_leader(primary).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
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

    let mut moments = records.moments(&cluster, primary).await?;
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
