//! What one side's commands schedule, the other side does in time.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Implementation, StoreKind, TestCluster, wait_until};

use Implementation::{Patroni, Primacy};

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a minute"]
    async fn each_keeps_the_others_schedule() -> anyhow::Result<()> {
        super::both_ways().await
    }
}

/// Soon, but not before a command has done its work.
fn soon() -> Result<String> {
    let at = SystemTime::now() + Duration::from_secs(20);
    let at = jiff::Timestamp::try_from(at)?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string())
}

/// A restart of each member and a switchover away from it, ordered by the commands of the other.
async fn both_ways() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    let mut led = [false; 2];
    for _ in 0..2 {
        let old = cluster.wait_healthy().await?;
        led[old] = true;
        let new = cluster.others(old)[0];
        let others = match old {
            0 => Patroni,
            _ => Primacy,
        };
        let (leader, candidate) = (&cluster.agents[old], &cluster.agents[new]);

        let before = leader.postmaster_pid().context("the server does not run")?;
        let at = soon()?;
        let restart = [
            "restart",
            SCOPE,
            &leader.name,
            "--scheduled",
            &at,
            "--force",
        ];
        let printed = cluster.control_by(others, &restart).await?;
        ensure!(
            printed.contains(&format!(
                "Success: restart scheduled on member {}",
                leader.name
            )),
            "{printed}"
        );
        wait_until(
            "the scheduled restart",
            cluster.timing.recovery(),
            async || {
                let now = leader.postmaster_pid().context("it is down")?;
                ensure!(now != before, "it has not been restarted");
                Ok(())
            },
        )
        .await?;
        ensure!(
            cluster.wait_healthy().await? == old,
            "the restart moved the lead"
        );

        let at = soon()?;
        let switchover = [
            "switchover",
            SCOPE,
            "--leader",
            &leader.name,
            "--candidate",
            &candidate.name,
            "--scheduled",
            &at,
            "--force",
        ];
        let printed = cluster.control_by(others, &switchover).await?;
        ensure!(printed.contains("Switchover scheduled"), "{printed}");
        wait_until(
            "the scheduled switchover",
            cluster.timing.recovery(),
            async || {
                ensure!(
                    candidate.check("/primary").await? == 200,
                    "the lead has not moved"
                );
                Ok(())
            },
        )
        .await?;
        writer.wait_progress(cluster.timing.failover()).await?;
    }
    ensure!(led == [true; 2], "only one of them led");
    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
