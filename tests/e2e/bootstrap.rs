//! Three members come up from empty directories.

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster, sql};

on_both_stores!(three_members_from_empty_directories);

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
            (200, 503, 200)
        } else {
            (503, 200, 200)
        };
        let answered = (
            agent.check("/primary").await?,
            agent.check("/replica").await?,
            agent.check("/health").await?,
        );
        ensure!(
            answered == expected,
            "{}: /primary, /replica, /health answered {answered:?}",
            agent.name
        );
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
