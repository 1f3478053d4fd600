//! Restart, reinitialise, and change of the configuration, by command.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{StoreKind, TestCluster, sql, wait_until};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

on_both_stores!(restart, reinitialize, edit_configuration);

/// A restarted primary keeps the lead.
async fn restart(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let leader = cluster.leader().await?;
    for member in [cluster.others(leader)[0], leader] {
        let agent = &cluster.agents[member];
        let before = agent.postmaster_pid();
        let printed = cluster
            .control_ok(&["restart", SCOPE, &agent.name, "--force"])
            .await?;
        ensure!(
            printed.contains(&format!("Success: restart on member {}", agent.name)),
            "{printed}"
        );
        let after = agent.postmaster_pid();
        ensure!(
            after.is_some() && after != before,
            "the postmaster of {} is still {before:?}",
            agent.name
        );
        ensure!(
            cluster.wait_healthy().await? == leader,
            "the restart of {} moved the lead",
            agent.name
        );
    }
    writer.wait_progress(cluster.timing.failover()).await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// A reinitialised member starts over from a copy; the leader refuses to.
async fn reinitialize(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let leader = cluster.leader().await?;

    let agent = &cluster.agents[cluster.others(leader)[0]];
    let relic = agent.data_dir().join("relic");
    std::fs::write(&relic, "of the old copy")?;
    let printed = cluster
        .control_ok(&["reinit", SCOPE, &agent.name, "--force"])
        .await?;
    ensure!(
        printed.contains(&format!("Success: reinitialize for member {}", agent.name)),
        "{printed}"
    );
    wait_until(
        "the old copy to be gone",
        cluster.timing.failover(),
        async || {
            ensure!(!relic.exists(), "it is there still");
            Ok(())
        },
    )
    .await?;
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");

    let primary = &cluster.agents[leader];
    let output = cluster
        .control(&["reinit", SCOPE, &primary.name, "--force"])
        .await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        complaint.contains("No replica among provided members"),
        "{output:?}"
    );
    let answer = primary
        .send("POST", "/reinitialize", &json!({ "force": true }))
        .await?;
    ensure!(
        answer.status == 503 && answer.body == "I am the leader, can not reinitialize",
        "{answer:?}"
    );
    ensure!(cluster.wait_healthy().await? == leader, "the lead moved");

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// A change of the dynamic configuration reaches every server.
async fn edit_configuration(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;

    let arguments = [
        "edit-config",
        SCOPE,
        "--pg",
        "work_mem=5MB",
        "--force",
        "--quiet",
    ];
    cluster.control_ok(&arguments).await?;
    let shown = cluster.control_ok(&["show-config", SCOPE]).await?;
    ensure!(shown.contains("work_mem: 5MB"), "{shown}");
    for agent in &cluster.agents {
        wait_until(
            "the change to reach every server",
            cluster.timing.failover(),
            async || {
                let value = sql::text(agent.postgres_port, "show work_mem").await?;
                ensure!(value == "5MB", "{} has {value}", agent.name);
                Ok(())
            },
        )
        .await?;
    }

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// `list -w` shows a change of the lead without being asked again, until it is interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_is_watched() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded).start().await?;
    let leader = cluster.leader().await?;
    let standby = cluster.synchronous_standby().await?;
    let mut command = cluster
        .scratch()
        .command(cluster.executable.with_file_name("patronictl"));
    command
        .arg("-c")
        .arg(&cluster.agents[leader].config)
        .args(["list", "-f", "tsv", "-w", "0.2"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut watch = Command::from(command).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();

    let name = |member: usize| cluster.agents[member].name.as_str();
    shows_leader(&mut lines, name(leader)).await?;
    shows_leader(&mut lines, name(leader)).await?;
    cluster
        .control_ok(&["switchover", SCOPE, "--candidate", name(standby), "--force"])
        .await?;
    shows_leader(&mut lines, name(standby)).await?;

    let pid = watch.id().context("the watch has ended")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let ended = tokio::time::timeout(cluster.timing.failover(), watch.wait_with_output()).await??;
    let errors = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.code() == Some(1) && errors.contains("Aborted!"),
        "{}: {errors}",
        ended.status
    );
    cluster.pass();
    Ok(())
}

/// Reads on until the member leads.
async fn shows_leader(lines: &mut Lines<BufReader<ChildStdout>>, member: &str) -> Result<()> {
    let mut last = String::new();
    let shown = async {
        while let Some(line) = lines.next_line().await? {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields.contains(&member) && fields.contains(&"Leader") {
                return Ok(true);
            }
            last = line;
        }
        anyhow::Ok(false)
    };
    let shown = tokio::time::timeout(std::time::Duration::from_secs(60), shown).await;
    ensure!(
        matches!(shown, Ok(Ok(true))),
        "{member} is not shown as the leader: {shown:?}, last {last:?}"
    );
    Ok(())
}
