//! A cluster of Python's Patroni and of this project is paused, and handed over by hand.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Implementation, StoreKind, TestCluster};
use tokio::time::Instant;

use Implementation::{Patroni, Primacy};

/// Whichever of them leads: its agent may end, nobody takes over, and it comes back to the server that went on. The
/// lead goes where the other's command says, within the pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_waits_for_the_other_in_pause() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .start()
        .await?;
    let writer = cluster.writer().await?;

    let mut led = [false; 2];
    for _ in 0..2 {
        let old = cluster.leader().await?;
        led[old] = true;
        let new = cluster.others(old)[0];
        let (own, others) = match old {
            0 => (Primacy, Patroni),
            _ => (Patroni, Primacy),
        };
        cluster
            .control_by(others, &["pause", SCOPE, "--wait"])
            .await?;
        let postmaster = cluster.agents[old].postmaster_pid();
        cluster.agents[old]
            .sigterm(cluster.timing.recovery())
            .await?;
        let until = Instant::now() + cluster.timing.ttl + 2 * cluster.timing.loop_wait;
        while Instant::now() < until {
            ensure!(
                cluster.agents[new].check("/primary").await? == 503,
                "{} took over in a paused cluster",
                cluster.agents[new].name
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        cluster.start_agent(old)?;
        ensure!(cluster.wait_healthy().await? == old, "the lead moved");
        ensure!(
            cluster.agents[old].postmaster_pid() == postmaster,
            "the server was stopped"
        );

        let candidate = cluster.agents[new].name.clone();
        let printed = cluster
            .control_by(
                own,
                &["failover", SCOPE, "--candidate", &candidate, "--force"],
            )
            .await?;
        ensure!(
            printed.contains(&format!("Successfully failed over to \"{candidate}\"")),
            "{printed}"
        );
        ensure!(
            cluster.wait_healthy().await? == new,
            "{candidate} does not lead"
        );
        cluster
            .control_by(others, &["resume", SCOPE, "--wait"])
            .await?;
        ensure!(cluster.wait_healthy().await? == new, "the lead moved");
        writer.wait_progress(cluster.timing.failover()).await?;
    }
    ensure!(led == [true; 2], "only one of them led");

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
