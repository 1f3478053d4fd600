//! All synchronous standbys are lost, and then the primary.

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, Writer, wait_until};
use serde_json::json;

use crate::synchrony::{Records, configure};

/// W13. Not strictly, the primary goes on alone, and says so in `/sync`: nobody else has everything, so nobody else may
/// lead when it is lost, too. Strictly, nothing is acknowledged that only the primary has, and so its synchronous
/// standby may.
///
/// With the embedded store, members that are down take their votes along: there, one standby and a witness.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_then_primary() -> Result<()> {
    let builder = crate::cluster(StoreKind::Etcd3);
    let builder = match builder.store() {
        StoreKind::Embedded => builder.members(2).witness(),
        StoreKind::Etcd3 => builder,
    };
    let mut cluster = builder.start().await?;
    let records = Records::of(&cluster)?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let primary = cluster.leader().await?;
    lose_standbys(&mut cluster, primary).await?;
    writer.wait_progress(cluster.timing.recovery()).await?;
    let sync = records.sync().await?;
    ensure!(sync.standbys.is_empty(), "alone, with /sync {sync:?}");
    cluster.agents[primary].kill_node().await?;
    for standby in cluster.others(primary) {
        cluster.start_agent(standby)?;
    }
    wait_until(
        "the others to race and to refuse",
        cluster.timing.recovery(),
        async || {
            for standby in cluster.others(primary) {
                let agent = &cluster.agents[standby];
                ensure!(
                    agent.check("/primary").await? != 200,
                    "{} leads",
                    agent.name
                );
                let log = agent.log();
                let since = log.rfind("manages e2e").unwrap_or_default();
                ensure!(
                    log[since..].contains("i am not the healthiest node"),
                    "{} has not raced",
                    agent.name
                );
            }
            Ok(())
        },
    )
    .await?;
    cluster.start_agent(primary)?;
    ensure!(
        cluster.wait_healthy().await? == primary,
        "another one leads"
    );
    writer.wait_progress(cluster.timing.failover()).await?;

    configure(&cluster, primary, json!({"synchronous_mode_strict": true})).await?;
    wait_until(
        "the primary to know",
        cluster.timing.failover(),
        async || {
            let config = cluster.agents[primary].get("/config").await?;
            ensure!(config["synchronous_mode_strict"] == true, "{config}");
            Ok(())
        },
    )
    .await?;
    let standby = cluster.synchronous_standby().await?;
    lose_standbys(&mut cluster, primary).await?;
    wait_nothing_acknowledged(&cluster, &[&writer, &writers[primary]]).await?;
    let sync = records.sync().await?;
    ensure!(
        sync.standbys.len() == 1 && *sync.standbys[0].as_str() == cluster.agents[standby].name,
        "strict, with /sync {sync:?}"
    );
    cluster.agents[primary].kill_node().await?;
    for standby in cluster.others(primary) {
        cluster.start_agent(standby)?;
    }
    let new = cluster.wait_new_leader(primary).await?;
    ensure!(
        new == standby,
        "{} leads, which was not synchronous",
        cluster.agents[new].name
    );
    cluster.start_all()?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

async fn lose_standbys(cluster: &mut TestCluster, primary: usize) -> Result<()> {
    for standby in cluster.others(primary) {
        cluster.agents[standby].kill_node().await?;
    }
    Ok(())
}

/// Waits until nothing was acknowledged for some loops on end.
async fn wait_nothing_acknowledged(cluster: &TestCluster, writers: &[&Writer]) -> Result<()> {
    let quiet = 3 * cluster.timing.loop_wait;
    wait_until("commits to wait", cluster.timing.recovery(), async || {
        let last = writers
            .iter()
            .filter_map(|writer| writer.last())
            .map(|last| last.at.elapsed());
        let last = last.min();
        ensure!(
            last.is_none_or(|ago| ago > quiet),
            "the last was {last:?} ago"
        );
        Ok(())
    })
    .await
}
