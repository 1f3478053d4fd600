//! Two agents and a witness: any one of the three machines may be lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_one_of_three_is_lost() -> Result<()> {
    let builder = crate::cluster(StoreKind::Embedded).members(2).witness();
    let mut cluster = builder.by_replaced_names().start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    // The primary's machine: the witness makes the majority without which nobody could take the lock.
    let old = cluster.leader().await?;
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.start_agent(old)?;
    ensure!(cluster.wait_healthy().await? == new, "the lead moved");

    // The witness: nobody notices, and the lead can still be handed over.
    cluster.witness()?.sigkill().await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    ensure!(cluster.leader().await? == new, "the lead moved");
    let (from, to) = (&cluster.agents[new].name, &cluster.agents[old].name);
    let switchover = [
        "switchover",
        "--force",
        "--primary",
        from,
        "--candidate",
        to,
        "e2e",
    ];
    cluster.control_ok(&switchover).await?;
    ensure!(cluster.wait_healthy().await? == old, "the lead stayed");

    // The replica's machine, once the witness is back.
    let scratch = cluster.scratch().path().to_owned();
    let told = cluster.witness()?.log().len();
    cluster.start_all()?;
    wait_until(
        "the witness to take part again",
        Duration::from_secs(30),
        async || {
            let witness = cluster.witness.as_ref().context("none")?;
            let log = witness.log();
            let since_its_start = log.get(told..).unwrap_or_default();
            // As soon as it is up it follows nobody.
            let mut told = since_its_start.lines().rev();
            let last = told.find(|line| line.contains("a witness: "));
            let takes_part = ["a witness: follower; ", "a witness: leader; "];
            ensure!(
                last.is_some_and(|last| takes_part.iter().any(|told| last.contains(told))
                    && !last.contains("nobody leads")),
                "{log}"
            );
            Ok(())
        },
    )
    .await?;
    cluster.agents[new].kill_node().await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    ensure!(cluster.leader().await? == old, "the lead moved");
    cluster.start_agent(new)?;
    ensure!(cluster.wait_healthy().await? == old, "the lead moved");

    // It keeps its part of the store, and nothing else, and ends in good order.
    ensure!(scratch.join("witness/raft").is_dir(), "it keeps nothing");
    let status = cluster.witness()?.sigterm(Duration::from_secs(20)).await?;
    ensure!(status.success(), "the witness ended with {status}");
    cluster.start_all()?;
    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
