//! The primary's agent is killed, its server lives.

use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, wait_until};
use serde_json::json;

on_both_stores!(
    agent_returns_within_ttl,
    agent_returns_after_ttl,
    agent_returns_to_an_unfinished_promotion
);

/// The new agent adopts the running server, and takes over its fence: no restart, no failover. The data directory, which
/// the first agent made, is written as a person may write it.
async fn agent_returns_within_ttl(store: StoreKind) -> Result<()> {
    // With either store: time for an agent to begin on a busy machine.
    let ttl = Duration::from_secs(20);
    let mut cluster = crate::cluster(store)
        .dynamic("ttl", json!(ttl.as_secs()))
        .prepare()
        .await?;
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
    wait_until("the new agent to lead", ttl, async || {
        ensure!(cluster.leader().await? == leader, "another leads");
        Ok(())
    })
    .await?;

    // Long enough for a lease that was not taken up again to lapse, and for the failover that would follow.
    let quiet_until = tokio::time::Instant::now() + ttl + cluster.timing.loop_wait;
    while tokio::time::Instant::now() < quiet_until {
        writer.wait_progress(ttl).await?;
        ensure!(
            cluster.agents[leader].postmaster_pid() == postmaster,
            "the server was restarted"
        );
    }
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// The promotion takes minutes, its agent is killed, nothing fences the server, and another member leads. The agent that
/// returns finds a standby, which would become a second primary.
async fn agent_returns_to_an_unfinished_promotion(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store).prepare().await?;
    for agent in &cluster.agents {
        let hold = agent.dir.join("hold");
        let text = std::fs::read_to_string(&agent.config)?;
        let section = "\npostgresql:\n";
        ensure!(text.contains(section), "{text}");
        let command = format!("while [ -e {} ]; do sleep 0.1; done", hold.display());
        let text = text.replace(
            section,
            &format!("{section}  recovery_conf: {{recovery_end_command: '{command}'}}\n"),
        );
        let account = cluster.scratch().account();
        account.write(&agent.config, &format!("{text}fencing: {{mode: off}}\n"))?;
    }
    cluster.start_all()?;
    let old = cluster.wait_healthy().await?;
    cluster.create_ledger(old).await?;
    let writer = cluster.writer().await?;
    let new = cluster.synchronous_standby().await?;
    let hold = cluster.agents[new].dir.join("hold");
    cluster.scratch().account().write(&hold, "")?;

    cluster.agents[old].kill_node().await?;
    let marker = cluster.agents[new].data_dir().join("primacy.promoting");
    let patience = cluster.timing.failover();
    wait_until("the promotion to begin", patience, async || {
        ensure!(marker.exists(), "no {}", marker.display());
        Ok(())
    })
    .await?;
    let postmaster = cluster.agents[new].postmaster_pid();
    cluster.agents[new].sigkill().await?;
    cluster.start_agent(old)?;
    wait_until("the old primary to lead again", patience, async || {
        let status = cluster.agents[old].check("/primary").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    ensure!(
        marker.exists() && cluster.agents[new].postmaster_pid() == postmaster,
        "the promotion did not outlive its agent"
    );

    cluster.start_agent(new)?;
    wait_until("the promotion to be given up", patience, async || {
        let now = cluster.agents[new].postmaster_pid();
        ensure!(now != postmaster, "{now:?} is still being promoted");
        Ok(())
    })
    .await?;
    std::fs::remove_file(&hold)?;
    ensure!(
        cluster.wait_healthy().await? == old,
        "whose promotion was given up leads"
    );
    writer.wait_progress(patience).await?;
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
