//! Input that cannot be worked with: one clear sentence, a non-zero exit code, and nothing changed on disk.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Scratch, StoreKind, TestCluster, account, client, programs, wait_until};

on_both_stores!(
    broken_yaml,
    missing_configuration,
    rest_port_in_use,
    missing_binary,
    postgresql_11,
    a_watchdog_that_cannot_be,
    no_permission_on_the_data_directory,
    data_directory_of_another_cluster,
    store_does_not_answer,
    command_without_a_store,
    started_as_root,
    a_namesake_that_runs,
);

/// A process that cannot go on says so at once. Initialising the interpreter of a busy machine's disk takes its time.
const EXIT_WITHIN: Duration = Duration::from_secs(30);

/// One member, not started, its store running.
async fn lone_member(store: StoreKind) -> Result<TestCluster> {
    crate::cluster(store).members(1).prepare().await
}

/// The same, with a store of which most does not run.
async fn without_a_store(store: StoreKind) -> Result<TestCluster> {
    let builder = crate::cluster(store).members(1);
    match builder.store() {
        StoreKind::Embedded => builder.witness().prepare().await,
        StoreKind::Etcd3 => {
            let mut cluster = builder.prepare().await?;
            cluster.take_quorum_away(0).await?;
            Ok(cluster)
        }
    }
}

/// Replaces the line of the configuration that begins (after blanks) with `key`.
fn set_line(cluster: &TestCluster, key: &str, value: &str) -> Result<()> {
    let config = &cluster.agents[0].config;
    let text = std::fs::read_to_string(config)?;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(key))
        .context("no such line")?;
    let indent = &line[..line.len() - line.trim_start().len()];
    cluster.scratch().account().write(
        config,
        &text.replace(line, &format!("{indent}{key} {value}")),
    )
}

/// Every path below the directory, with what would change if somebody wrote to it.
fn disk(directory: &Path) -> Result<BTreeMap<String, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let (path, metadata) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            // The log, and the embedded store, which a member is part of before it knows whether it can go on.
            if path.ends_with("agent.log") || path.ends_with("raft") {
                continue;
            }
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            found.insert(path.display().to_string(), (size, metadata.modified()?));
        }
    }
    Ok(found)
}

/// Starts the agent, which must end by itself, with a last line that has all of `says` in it.
async fn refuses(mut cluster: TestCluster, says: &[&str]) -> Result<()> {
    let before = disk(&cluster.agents[0].dir)?;
    cluster.start_agent(0)?;
    let status = cluster.agents[0].wait_exit(EXIT_WITHIN).await?;
    ensure!(!status.success(), "the agent ended with {status}");
    check_sentence(&cluster.agents[0].log(), says)?;
    ensure!(
        disk(&cluster.agents[0].dir)? == before,
        "something changed on disk"
    );
    cluster.pass();
    Ok(())
}

fn check_sentence(output: &str, says: &[&str]) -> Result<()> {
    ensure!(!output.contains("panicked at"), "it panicked: {output}");
    let last = output
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .context("it said nothing")?;
    for says in says {
        ensure!(
            last.contains(says),
            "the last line does not say {says:?}: {output}"
        );
    }
    Ok(())
}

async fn broken_yaml(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    let config = cluster.agents[0].config.clone();
    cluster
        .scratch()
        .account()
        .write(&config, "scope: [unclosed\nname: pg1\n")?;
    refuses(cluster, &[&config.display().to_string()]).await
}

async fn missing_configuration(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    let config = cluster.agents[0].config.clone();
    std::fs::remove_file(&config)?;
    refuses(cluster, &[&config.display().to_string()]).await
}

#[test]
fn unknown_command() -> Result<()> {
    let output = Command::new(crate::EXECUTABLE)
        .arg("frobnicate")
        .stdin(Stdio::null())
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2),
        "it ended with {}",
        output.status
    );
    ensure!(
        complaint.contains("frobnicate") && !complaint.contains("panicked at"),
        "{complaint}"
    );
    Ok(())
}

async fn rest_port_in_use(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    let port = cluster.agents[0].rest_port;
    let _occupied = TcpListener::bind(("127.0.0.1", port))?;
    refuses(cluster, &[&port.to_string()]).await
}

async fn missing_binary(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    set_line(&cluster, "bin_dir:", "/nonexistent/bin")?;
    refuses(cluster, &["/nonexistent/bin"]).await
}

async fn postgresql_11(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    let real = programs::postgresql_bin_dir()?;
    let old = cluster.agents[0].dir.join("bin");
    cluster.scratch().account().create_dir(&old)?;
    for program in [
        "pg_ctl",
        "initdb",
        "pg_controldata",
        "pg_basebackup",
        "pg_isready",
        "pg_rewind",
    ] {
        std::os::unix::fs::symlink(real.join(program), old.join(program))?;
    }
    cluster.scratch().account().write(
        &old.join("postgres"),
        "#!/bin/sh\necho 'postgres (PostgreSQL) 11.22'\n",
    )?;
    std::fs::set_permissions(old.join("postgres"), std::fs::Permissions::from_mode(0o755))?;
    set_line(&cluster, "bin_dir:", &old.display().to_string())?;
    refuses(cluster, &["11"]).await
}

/// `ha.md` §1.1.4
async fn a_watchdog_that_cannot_be(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    let config = &cluster.agents[0].config;
    let text = std::fs::read_to_string(config)?;
    cluster.scratch().account().write(
        config,
        &format!("{text}watchdog: {{mode: required, driver: hamster}}\n"),
    )?;
    refuses(
        cluster,
        &["watchdog is not supported on this platform", "hamster"],
    )
    .await
}

async fn no_permission_on_the_data_directory(store: StoreKind) -> Result<()> {
    let cluster = lone_member(store).await?;
    let closed = cluster.agents[0].dir.join("closed");
    cluster.scratch().account().create_dir(&closed)?;
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500))?;
    let data_dir = closed.join("data").display().to_string();
    set_line(&cluster, "data_dir:", &data_dir)?;
    refuses(cluster, &[&data_dir]).await
}

/// The member joins with a data directory that another `initdb` made.
async fn data_directory_of_another_cluster(store: StoreKind) -> Result<()> {
    // With the embedded store, one agent of two could agree with nobody: there, a witness.
    let builder = crate::cluster(store).members(2);
    let builder = match builder.store() {
        StoreKind::Embedded => builder.witness(),
        StoreKind::Etcd3 => builder,
    };
    let mut cluster = builder.prepare().await?;
    let data_dir = cluster.agents[1].data_dir();
    let made = cluster
        .scratch()
        .command(programs::postgresql_bin_dir()?.join("initdb"))
        .args([
            "--no-sync",
            "--auth",
            "trust",
            "--username",
            "postgres",
            "--pgdata",
        ])
        .arg(&data_dir)
        .output()?;
    ensure!(made.status.success(), "initdb: {made:?}");
    cluster.start_agent(0)?;
    cluster.start_witness()?;
    wait_until(
        "the first member to lead",
        Duration::from_secs(60),
        async || {
            ensure!(cluster.leader().await? == 0);
            Ok(())
        },
    )
    .await?;

    let before = disk(&data_dir)?;
    cluster.start_agent(1)?;
    let status = cluster.agents[1].wait_exit(EXIT_WITHIN).await?;
    ensure!(!status.success(), "the agent ended with {status}");
    let log = cluster.agents[1].log();
    ensure!(log.contains("belongs to a different cluster"), "{log}");
    ensure!(!log.contains("panicked at"), "{log}");
    ensure!(
        disk(&data_dir)? == before,
        "something changed in the data directory"
    );
    ensure!(cluster.leader().await? == 0, "the lead moved");
    cluster.pass();
    Ok(())
}

/// A store may come back: the agent says what it waits for, and touches nothing meanwhile.
async fn store_does_not_answer(store: StoreKind) -> Result<()> {
    let mut cluster = without_a_store(store).await?;
    let hosts = cluster.store.hosts();
    // The embedded store's first member is this agent itself.
    let others = match cluster.store.kind() {
        StoreKind::Embedded => &hosts[1..],
        StoreKind::Etcd3 => &hosts[..],
    };
    let before = disk(&cluster.agents[0].dir)?;
    cluster.start_agent(0)?;
    wait_until(
        "the agent to complain",
        Duration::from_secs(30),
        async || {
            let log = cluster.agents[0].log();
            ensure!(others.iter().any(|host| log.contains(host)), "{log}");
            Ok(())
        },
    )
    .await?;
    ensure!(cluster.agents[0].pid().is_some(), "the agent gave up");
    ensure!(
        disk(&cluster.agents[0].dir)? == before,
        "something changed on disk"
    );
    cluster.agents[0].sigterm(EXIT_WITHIN).await?;
    cluster.pass();
    Ok(())
}

/// `list` cannot wait for a store: it says which one, and ends.
async fn command_without_a_store(store: StoreKind) -> Result<()> {
    let cluster = without_a_store(store).await?;
    let hosts = cluster.store.hosts();
    let output = cluster.control(&["list", SCOPE]).await?;
    ensure!(!output.status.success(), "{output:?}");
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        hosts.iter().any(|host| complaint.contains(host)) && !complaint.contains("panicked at"),
        "{complaint}"
    );
    cluster.pass();
    Ok(())
}

/// PostgreSQL refuses to run as root, so its agent does, before it has done anything.
async fn started_as_root(store: StoreKind) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let cluster = lone_member(store).await?;
    let agent = &cluster.agents[0];
    let before = disk(&agent.dir)?;
    let mut command = Command::new(&cluster.executable);
    command
        .arg("agent")
        .arg(&agent.config)
        .current_dir(&agent.dir)
        .stdin(Stdio::null());
    primacy_testkit::processes::mark(&mut command, cluster.scratch().path());
    let mut command = tokio::process::Command::from(command);
    let output = tokio::time::timeout(EXIT_WITHIN, command.kill_on_drop(true).output()).await??;
    ensure!(!output.status.success(), "{output:?}");
    check_sentence(&String::from_utf8_lossy(&output.stderr), &["root"])?;
    ensure!(disk(&agent.dir)? == before, "something changed on disk");
    cluster.pass();
    Ok(())
}

/// The names that replace Patroni's take Patroni's command lines.
#[test]
fn replaced_names() -> Result<()> {
    let scratch = Scratch::new()?;
    for name in ["patroni", "patronictl"] {
        let link = scratch.path().join(name);
        std::os::unix::fs::symlink(crate::EXECUTABLE, &link)?;
        let output = Command::new(&link)
            .arg("--no-such-option")
            .stdin(Stdio::null())
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2),
            "{name} ended with {}",
            output.status
        );
        ensure!(
            complaint.contains("--no-such-option"),
            "{name}: {complaint}"
        );
    }
    Ok(())
}

/// `ha.md` §1.1.3: a second agent of the same name ends, and the first goes on.
async fn a_namesake_that_runs(store: StoreKind) -> Result<()> {
    let mut cluster = lone_member(store).await?;
    cluster.start_agent(0)?;
    let agent = &cluster.agents[0];
    wait_until("the first agent", cluster.timing.recovery(), async || {
        ensure!(agent.check("/primary").await? == 200, "it does not lead");
        Ok(())
    })
    .await?;
    let mut command = cluster.scratch().command(&cluster.executable);
    command.arg("agent").arg(&agent.config);
    let output = client::output(command, 2 * EXIT_WITHIN).await?;
    ensure!(!output.status.success(), "two agents of one name run");
    let errors = String::from_utf8_lossy(&output.stderr);
    // The embedded store's file is the first thing that there cannot be two of.
    let says = match cluster.store.kind() {
        StoreKind::Embedded => "is a second agent or witness running with this data_dir?",
        StoreKind::Etcd3 => "there is already a node named",
    };
    check_sentence(&errors, &[says])?;
    ensure!(
        agent.check("/primary").await? == 200,
        "the first one lost the lead"
    );
    cluster.pass();
    Ok(())
}
