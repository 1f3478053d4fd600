//! The primary's agent is killed, its server lives.

use anyhow::{Result, ensure};
use primacy_testkit::wait_until;
use primacy_testkit::{StoreKind, TestCluster};

on_both_stores!(agent_returns_within_ttl, agent_returns_after_ttl);

/// The new agent adopts the running server, and takes over its fence: no restart, no failover. The data directory, which
/// the first agent made, is written as a person may write it.
async fn agent_returns_within_ttl(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).prepare().await?;
    for agent in &cluster.agents {
        std::os::unix::fs::symlink(&agent.dir, agent.dir.join("link"))?;
        let text = std::fs::read_to_string(&agent.config)?;
        let plain = format!("data_dir: {}\n", agent.data_dir().display());
        ensure!(text.contains(&plain), "{text}");
        let linked = format!("data_dir: {}/link/data/\n", agent.dir.display());
        let text = text.replace(&plain, &linked);
        cluster.scratch().account().write(&agent.config, &text)?;
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    cluster.create_ledger(leader).await?;
    let writer = cluster.writer().await?;

    let postmaster = cluster.agents[leader].postmaster_pid();
    let killed = cluster.agents[leader].pid();
    cluster.agents[leader].sigkill().await?;
    ensure!(
        cluster.agents[leader].postmaster_pid() == postmaster,
        "the server did not outlive its agent"
    );
    cluster.start_agent(leader)?;
    ensure!(
        cluster.agents[leader].pid() != killed,
        "the agent is the killed one"
    );
    wait_until("the new agent to lead", cluster.timing.ttl, async || {
        ensure!(cluster.leader().await? == leader, "another leads");
        Ok(())
    })
    .await?;

    // Long enough for a lease that was not taken up again to lapse, and for the failover that would follow.
    let quiet_until = tokio::time::Instant::now() + cluster.timing.ttl + cluster.timing.loop_wait;
    while tokio::time::Instant::now() < quiet_until {
        writer.wait_progress(cluster.timing.ttl).await?;
        ensure!(
            cluster.agents[leader].postmaster_pid() == postmaster,
            "the server was restarted"
        );
    }
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Nobody stops the old server but what its agent left behind for the case. A replica takes over; the old primary
/// acknowledges nothing from then on, and rejoins with its agent.
async fn agent_returns_after_ttl(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let old = cluster.leader().await?;
    cluster.agents[old].sigkill().await?;
    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    cluster.start_agent(old)?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the returned primary took the lead again"
    );

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}
