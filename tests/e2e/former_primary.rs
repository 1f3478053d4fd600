//! A former primary is back as a standby, and who led after it is gone before anybody compared the two.
//!
//! On etcd alone: without two of three members the embedded store has no majority.

use anyhow::{Context, Result, bail, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::store::Store;
use primacy_testkit::{StoreKind, TestCluster, Writer, sql, wait_until};
use serde_json::json;

use crate::rewind::diverge;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w1_what_its_successor_acknowledged_is_kept() -> Result<()> {
    let (mut cluster, former, writer) = without_its_successor().await?;
    cluster.start_all()?;
    ensure!(
        cluster.wait_healthy().await? != former,
        "the former primary leads again"
    );
    wait_until_known_to_fit(&cluster, former).await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// It may be all that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w1_an_operator_may_choose_it() -> Result<()> {
    let (mut cluster, former, writer) = without_its_successor().await?;
    let name = cluster.agents[former].name.clone();
    let printed = cluster
        .control_ok(&["failover", SCOPE, "--candidate", &name, "--force"])
        .await?;
    ensure!(
        printed.contains(&format!("Successfully failed over to \"{name}\"")),
        "{printed}"
    );
    cluster.start_all()?;
    ensure!(
        cluster.wait_healthy().await? == former,
        "not the chosen one leads"
    );
    wait_until_known_to_fit(&cluster, former).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    // What the successor acknowledged is gone: the operator said so.
    writer.stop().await?;
    cluster.pass();
    Ok(())
}

/// A cluster of which only a former primary is left, with WAL of its own, and an agent that never saw it lead.
async fn without_its_successor() -> Result<(TestCluster, usize, Writer)> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        // With one standby less it would not be votes that count.
        .members(4)
        .dynamic("synchronous_mode", json!("quorum"))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let former = cluster.leader().await?;
    let port = cluster.agents[former].postgres_port;
    sql::execute(port, "create table only_here (id int)").await?;
    diverge(&cluster, former).await?;
    cluster.agents[former].kill_node().await?;
    let successor = cluster.wait_new_leader(former).await?;
    wait_until(
        "the successor to name its standbys in /sync",
        cluster.timing.recovery(),
        async || {
            let document = cluster.agents[successor].get("/cluster").await?;
            let members = document["members"].as_array().into_iter().flatten();
            // Those in /sync before the promotion may be listed yet.
            let named = members.filter(|member| {
                member["role"] == "quorum_standby"
                    && member["state"] == "streaming"
                    && member["timeline"] == 2
            });
            ensure!(named.count() == 2, "{document}");
            Ok(())
        },
    )
    .await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    for other in cluster.others(former) {
        cluster.agents[other].kill_node().await?;
    }
    // As if it had been lost before it could write it: what is left tells nobody where it began.
    let Store::Etcd3(etcd) = &cluster.store else {
        bail!("not on etcd");
    };
    etcd.delete(&format!("/service/{SCOPE}/history")).await?;

    cluster.start_agent(former)?;
    wait_until_withdrawn(&cluster, former).await?;
    let postmaster = cluster.agents[former].postmaster_pid();
    cluster.agents[former].sigkill().await?;
    cluster.start_agent(former)?;
    wait_until_withdrawn(&cluster, former).await?;
    ensure!(
        cluster.agents[former].postmaster_pid() == postmaster,
        "PostgreSQL was restarted"
    );
    Ok((cluster, former, writer))
}

/// Patroni's members see its tag, ours why.
async fn wait_until_withdrawn(cluster: &TestCluster, member: usize) -> Result<()> {
    let agent = &cluster.agents[member];
    wait_until(
        "the former primary to be withdrawn",
        cluster.timing.recovery(),
        async || {
            let status = agent.get("/patroni").await?;
            ensure!(status["state"] == "running", "{status}");
            ensure!(status["role"] == "replica", "{status}");
            // By the agent that runs; the key may be an earlier one's.
            ensure!(status["tags"]["nofailover"] == true, "{status}");
            let document = agent.get("/cluster").await?;
            let members = document["members"].as_array().context("no members")?;
            let published = members
                .iter()
                .find(|published| published["name"] == *agent.name)
                .context("no member key")?;
            ensure!(published["tags"]["nofailover"] == true, "{document}");
            let why = published["withdrawn"].as_str().unwrap_or_default();
            ensure!(why.contains("I was a primary"), "{document}");
            Ok(())
        },
    )
    .await
}

async fn wait_until_known_to_fit(cluster: &TestCluster, member: usize) -> Result<()> {
    let agent = &cluster.agents[member];
    let marker = agent.data_dir().join("primacy.former_primary");
    wait_until(
        "the marker of a former primary to be removed",
        cluster.timing.recovery(),
        async || {
            ensure!(!marker.exists(), "{} is there", marker.display());
            let tags = &agent.get("/patroni").await?["tags"];
            ensure!(tags["nofailover"] != true, "{tags}");
            Ok(())
        },
    )
    .await
}
