//! The operator takes the cluster out of the agents' hands, and gives it back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster, programs, wait_until};
use tokio::time::Instant;

on_both_stores!(paused_cluster_is_left_alone);

/// In a paused cluster the loss of the primary's agent is nobody's business: the server goes on, and nobody takes
/// over, however long that lasts.
async fn paused_cluster_is_left_alone(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let leader = cluster.leader().await?;
    let postmaster = cluster.agents[leader].postmaster_pid();

    pause(&cluster).await?;
    cluster.agents[leader].sigkill().await?;
    let until = Instant::now() + cluster.timing.ttl + 2 * cluster.timing.loop_wait;
    while Instant::now() < until {
        for member in cluster.others(leader) {
            let status = cluster.agents[member].check("/primary").await?;
            ensure!(
                status == 503,
                "{} took over in a paused cluster",
                cluster.agents[member].name
            );
        }
        ensure!(
            cluster.agents[leader].postmaster_pid() == postmaster,
            "the server was stopped"
        );
        tokio::time::sleep(cluster.timing.loop_wait / 4).await;
    }

    cluster.start_agent(leader)?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    let document = cluster.agents[leader].get("/cluster").await?;
    ensure!(document["pause"] == true, "{document}");
    resume(&cluster).await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");
    ensure!(
        cluster.agents[leader].postmaster_pid() == postmaster,
        "the server was restarted"
    );
    writer.wait_progress(cluster.timing.failover()).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Maintenance by hand: the primary's server is stopped and started, its agent restarted, the lead handed to a named
/// member, the new primary killed. The agents keep the lock in step with that and fail over to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_by_hand() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded).start().await?;
    let writer = cluster.writer().await?;
    let old = cluster.leader().await?;
    pause(&cluster).await?;

    by_hand(&cluster, old, &["stop", "-m", "fast"])?;
    stays_without_leader(&cluster, old).await?;
    let ended = cluster.agents[old].sigterm(Duration::from_secs(20)).await?;
    ensure!(ended.success(), "the agent ended with {ended}");
    cluster.start_agent(old)?;
    stays_without_leader(&cluster, old).await?;

    by_hand(&cluster, old, &["start", "-l", "by-hand.log"])?;
    ensure!(cluster.wait_healthy().await? == old, "the lead moved");
    let postmaster = cluster.agents[old].postmaster_pid();
    let ended = cluster.agents[old].sigterm(Duration::from_secs(20)).await?;
    ensure!(ended.success(), "the agent ended with {ended}");
    cluster.start_agent(old)?;
    ensure!(cluster.wait_healthy().await? == old, "the lead moved");
    ensure!(
        cluster.agents[old].postmaster_pid() == postmaster,
        "the server was restarted"
    );

    // In synchronous mode only the synchronous standby can take over.
    let new = cluster.synchronous_standby().await?;
    let name = cluster.agents[new].name.clone();
    cluster
        .control_ok(&["switchover", SCOPE, "--candidate", &name, "--force"])
        .await?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "{name} does not lead, or the old primary does not follow"
    );
    writer.wait_progress(cluster.timing.failover()).await?;

    cluster.agents[new].sigkill_postmaster()?;
    stays_without_leader(&cluster, new).await?;
    resume(&cluster).await?;
    cluster.wait_healthy().await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

async fn pause(cluster: &TestCluster) -> Result<()> {
    set_pause(cluster, "pause", "paused").await
}

async fn resume(cluster: &TestCluster) -> Result<()> {
    set_pause(cluster, "resume", "resumed").await
}

/// The command gives up waiting after two loops, and says so: a busy member may take longer.
async fn set_pause(cluster: &TestCluster, command: &str, done: &str) -> Result<()> {
    let printed = cluster.control_ok(&[command, SCOPE, "--wait"]).await?;
    let success = format!("Success: cluster management is {done}");
    ensure!(
        printed.contains(&success) || printed.contains("didn't recognized pause state"),
        "{printed}"
    );
    for agent in &cluster.agents {
        let what = format!("{} to be {done}", agent.name);
        wait_until(&what, cluster.timing.failover(), async || {
            let status = agent.get("/patroni").await?;
            let paused = status["pause"] == true;
            ensure!(paused == (done == "paused"), "{status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn by_hand(cluster: &TestCluster, member: usize, arguments: &[&str]) -> Result<()> {
    let agent = &cluster.agents[member];
    let pg_ctl = programs::postgresql_bin_dir()?.join("pg_ctl");
    let status = cluster
        .scratch()
        .command(pg_ctl)
        .current_dir(&agent.dir)
        .arg("-w")
        .arg("-D")
        .arg(agent.data_dir())
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status()
        .context("cannot run pg_ctl")?;
    ensure!(status.success(), "pg_ctl {arguments:?}: {status}");
    Ok(())
}

/// The server of that member is down, and for longer than `ttl` nobody starts it and nobody takes over.
async fn stays_without_leader(cluster: &TestCluster, down: usize) -> Result<()> {
    let witness = &cluster.agents[cluster.others(down)[0]];
    wait_until(
        "the lock to be released",
        cluster.timing.failover(),
        async || {
            let status = witness.get("/patroni").await?;
            ensure!(status["cluster_unlocked"] == true, "{status}");
            Ok(())
        },
    )
    .await?;
    let until = Instant::now() + cluster.timing.ttl + cluster.timing.loop_wait;
    while Instant::now() < until {
        for member in cluster.others(down) {
            let agent = &cluster.agents[member];
            let primary = agent.check("/primary").await;
            ensure!(
                !primary.is_ok_and(|status| status == 200),
                "{} took over in a paused cluster",
                agent.name
            );
        }
        ensure!(
            cluster.agents[down].postmaster_pid().is_none(),
            "the server was started"
        );
        tokio::time::sleep(cluster.timing.loop_wait / 4).await;
    }
    Ok(())
}
