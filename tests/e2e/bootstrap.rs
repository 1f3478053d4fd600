//! Three members come up from empty directories.

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Scratch, StoreKind, TestCluster, sql, wait_until};
use serde_json::json;

use crate::mixed_tags::check;

on_both_stores!(three_members_from_empty_directories, bootstrapper_dies);

async fn three_members_from_empty_directories(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let leader = cluster.leader().await?;

    // One was initialised, the others are its copies.
    let mut system_identifiers = Vec::new();
    for agent in &cluster.agents {
        let statement = "select system_identifier::text from pg_control_system()";
        system_identifiers.push(sql::text(agent.postgres_port, statement).await?);
    }
    system_identifiers.dedup();
    ensure!(
        system_identifiers.len() == 1,
        "system identifiers: {system_identifiers:?}"
    );

    // The health checks that load balancers rely on.
    for (index, agent) in cluster.agents.iter().enumerate() {
        let expected = if index == leader {
            [200, 503, 200]
        } else {
            [503, 200, 200]
        };
        for (path, code) in ["/primary", "/replica", "/health"]
            .into_iter()
            .zip(expected)
        {
            check(&cluster, index, path, code).await?;
        }
        let status = agent.get("/patroni").await?;
        ensure!(
            status["patroni"]["scope"] == SCOPE && status["patroni"]["name"] == *agent.name,
            "{status}"
        );
    }

    let writers = vec![cluster.writer().await?];
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// Nothing but the names of two symbolic links changes for whoever ran Patroni before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_names_that_are_replaced() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded)
        .by_replaced_names()
        .start()
        .await?;
    let version = cluster.control_ok(&["version", SCOPE]).await?;
    ensure!(version.starts_with("patronictl version 4."), "{version}");
    let ledger = TestCluster::collect([cluster.writer().await?]).await?;
    cluster.finish(ledger).await
}

/// The member that won the bid dies with its machine in the midst of the bootstrap. The others do not wait for it for
/// ever, and it does not mistake for a cluster what it finds in its data directory afterwards.
async fn bootstrapper_dies(store: StoreKind) -> Result<()> {
    let scratch = Scratch::new()?;
    let first = scratch.path().join("first");
    let script = scratch.path().join("hook");
    let text = format!(
        "mkdir {0} 2>/dev/null || exit 0\necho ${{PWD##*/}} > {0}/name\nsleep 600\n",
        first.display()
    );
    scratch.account().write(&script, &text)?;
    let mut cluster = crate::cluster(store)
        .bootstrap("post_bootstrap", json!(format!("sh {}", script.display())))
        .prepare()
        .await?;
    cluster.start_all()?;
    let dead = wait_until("a bootstrap", cluster.timing.recovery(), async || {
        let name = std::fs::read_to_string(first.join("name"))?;
        let position = cluster
            .agents
            .iter()
            .position(|agent| agent.name == name.trim());
        position.ok_or_else(|| anyhow::anyhow!("{name:?} is no member"))
    })
    .await?;
    ensure!(cluster.leader().await.is_err(), "somebody leads already");
    cluster.agents[dead].kill_node().await?;

    // A lease, and all of a bootstrap.
    let within = cluster.timing.recovery();
    let leader = cluster.wait_leader_other_than(dead, within).await?;
    cluster.start_agent(dead)?;
    ensure!(
        cluster.wait_healthy().await? == leader,
        "the leader changed"
    );
    let data_dir = cluster.agents[dead].data_dir();
    ensure!(
        data_dir.with_extension("failed").exists(),
        "the unfinished cluster was not set aside"
    );
    ensure!(
        !data_dir.with_extension("bootstrap").exists()
            && !cluster.agents[leader]
                .data_dir()
                .with_extension("bootstrap")
                .exists(),
        "a marker was left behind"
    );
    cluster.create_ledger(leader).await?;
    let ledger = TestCluster::collect([cluster.writer().await?]).await?;
    cluster.finish(ledger).await
}
