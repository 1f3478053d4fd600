//! The journal: what was done and left, and why, told after the night.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster};

/// A machine is lost. `why` tells who led, who was asked and who took over; the journal of the lost one is there
/// when it returns. The store makes no difference to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_explained() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded).start().await?;
    let writer = cluster.writer().await?;
    let old = cluster.leader().await?;
    let old_name = cluster.agents[old].name.clone();
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    let new_name = cluster.agents[new].name.clone();
    writer.wait_progress(cluster.timing.failover()).await?;

    let told = cluster.control_ok(&["why", "--limit", "500"]).await?;
    for expected in [
        format!("nobody leads; before {old_name} did"),
        format!("{new_name} since "),
        "-> acquire the leader key".into(),
        format!("asked {old_name}: no answer"),
        "-> start: promote".into(),
        // Why not sooner: since when nothing came, and until when the lease held.
        "WAL streams no longer from ".into(),
    ] {
        ensure!(told.contains(&expected), "no {expected:?} in\n{told}");
    }
    let rows = cluster
        .control_ok(&["why", &new_name, "-f", "json", "--limit", "500"])
        .await?;
    let rows: serde_json::Value = serde_json::from_str(&rows)?;
    let ruled = rows.as_array().into_iter().flatten().any(|row| {
        let reasons = row["reasons"].as_array().into_iter().flatten();
        row["member"] == *new_name && reasons.into_iter().any(|r| r["rule"] == "ha.md §10.2.5")
    });
    ensure!(ruled, "the winner does not say why: {rows:#}");

    cluster.start_agent(old)?;
    cluster.wait_healthy().await?;
    let agent = &cluster.agents[old];
    let journal = agent.get("/journal?limit=5000").await?;
    let begun = journal.as_array().into_iter().flatten().filter(|entry| {
        entry["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("the agent begins"))
    });
    ensure!(begun.count() == 2, "what was before is lost: {journal:#}");
    let path = agent
        .data_dir()
        .with_file_name(format!("{SCOPE}-{old_name}.journal"));
    let mode = std::fs::metadata(&path)
        .with_context(|| path.display().to_string())?
        .permissions()
        .mode();
    ensure!(
        mode & 0o777 == 0o600,
        "{} has mode {mode:o}",
        path.display()
    );

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
