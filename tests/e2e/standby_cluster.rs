//! A second site: a cluster that follows another one, loses its leader, and changes roles with it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Scratch, StoreKind, Target, TestCluster, Writer, ports, sql, wait_until};
use serde_json::{Value, json};

use crate::slots::wait_slot;
use crate::synchrony::configure;

/// The slot on the first site.
const SLOT: &str = "site_b";

/// The member that leads a standby cluster, in recovery, with all others streaming from it.
async fn standby_leader(cluster: &TestCluster) -> Result<usize> {
    let mut leaders = Vec::new();
    for (index, agent) in cluster.agents.iter().enumerate() {
        let status = agent.get("/patroni").await?;
        if status["role"] == "standby_leader" && status["state"] == "running" {
            leaders.push(index);
        }
    }
    let [leader] = leaders[..] else {
        anyhow::bail!("members {leaders:?} (from 0) say that they are the standby leader");
    };
    let port = cluster.agents[leader].postgres_port;
    let recovering = sql::text(port, "select pg_is_in_recovery()::text").await?;
    ensure!(recovering == "true", "the standby leader accepts writes");
    for member in cluster.others(leader) {
        let upstream = upstream(cluster, member).await?;
        let name = &cluster.agents[member].name;
        ensure!(
            upstream == port.to_string(),
            "{name} streams from {upstream:?}"
        );
    }
    Ok(leader)
}

/// The port that a standby streams from; empty when it does not.
pub(crate) async fn upstream(cluster: &TestCluster, member: usize) -> Result<String> {
    let statement =
        "select (select sender_port::text from pg_stat_wal_receiver where status = 'streaming')";
    sql::text(cluster.agents[member].postgres_port, statement).await
}

pub(crate) async fn wait_standby_leader(cluster: &TestCluster) -> Result<usize> {
    let what = "one standby leader, and all others streaming from it";
    wait_until(what, cluster.timing.recovery(), || standby_leader(cluster)).await
}

/// A writer whose commits are told from those of the other site's.
async fn numbered_writer(cluster: &TestCluster, number: i32) -> Result<Writer> {
    let members = cluster.agents.iter();
    let members = members.map(|agent| (agent.rest_port, agent.postgres_port));
    let writer = Writer::start(number, Target::Primary(members.collect()));
    writer.wait_progress(cluster.timing.failover()).await?;
    Ok(writer)
}

/// Waits until a member has this row.
async fn wait_row(cluster: &TestCluster, member: usize, row: &str) -> Result<()> {
    let agent = &cluster.agents[member];
    let what = format!("{row} to arrive on {}", agent.name);
    wait_until(&what, cluster.timing.recovery(), async || {
        let statement = format!("select count(*)::text from sites where row = '{row}'");
        let count = sql::text(agent.postgres_port, &statement).await?;
        ensure!(count == "1", "{count} rows");
        Ok(())
    })
    .await
}

fn listed<'a>(rows: &'a Value, name: &str) -> Result<&'a Value> {
    let rows = rows.as_array().context("`list` printed no array")?;
    let row = rows.iter().find(|row| row["Member"] == *name);
    row.with_context(|| format!("`list` has no {name}"))
}

/// Both sites lose nothing: what the first acknowledged before it was demoted is on the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_change_roles() -> Result<()> {
    let first = crate::cluster(StoreKind::Embedded)
        .members(2)
        .dynamic("slots", json!({SLOT: {"type": "physical"}}))
        .start()
        .await?;
    let primary = first.leader().await?;
    let primary_port = first.agents[primary].postgres_port;
    sql::execute(primary_port, "create table sites (row text)").await?;
    let mut second = crate::cluster(StoreKind::Embedded)
        .dynamic(
            "standby_cluster",
            json!({"host": "127.0.0.1", "port": primary_port, "primary_slot_name": SLOT}),
        )
        .prepare()
        .await?;
    second.start_all()?;
    let old = wait_standby_leader(&second).await?;
    ensure!(
        upstream(&second, old).await? == primary_port.to_string(),
        "the standby leader does not stream from the other site"
    );
    let active =
        format!("select active::text from pg_replication_slots where slot_name = '{SLOT}'");
    ensure!(
        sql::text(primary_port, &active).await? == "true",
        "the slot is not used"
    );
    let agent = &second.agents[old];
    let checks = (
        agent.check("/standby-leader").await?,
        agent.check("/primary").await?,
        agent.check("/replica").await?,
    );
    ensure!(checks == (200, 503, 503), "{checks:?}");
    let rows = second.control_ok(&["list", "-f", "json", SCOPE]).await?;
    let rows: Value = serde_json::from_str(&rows)?;
    let row = listed(&rows, &agent.name)?;
    ensure!(row["Role"] == "Standby Leader", "{row}");

    // A failover within the standby cluster.
    second.agents[old].kill_node().await?;
    let new = wait_until(
        "another standby leader that streams from the other site",
        second.timing.failover(),
        async || {
            for member in second.others(old) {
                let status = second.agents[member].get("/patroni").await?;
                if status["role"] == "standby_leader"
                    && upstream(&second, member).await? == primary_port.to_string()
                {
                    return Ok(member);
                }
            }
            anyhow::bail!("none")
        },
    )
    .await?;
    second.start_agent(old)?;
    ensure!(
        wait_standby_leader(&second).await? == new,
        "the returned standby leader took the lead again"
    );
    sql::execute(primary_port, "insert into sites values ('by the first')").await?;
    wait_row(&second, old, "by the first").await?;

    // A planned change of sites.
    let writer = first.writer().await?;
    let second_port = second.agents[new].postgres_port.to_string();
    let remote = ["--host", "127.0.0.1", "--port", &second_port];
    let demote = [&["demote-cluster", SCOPE, "--force"][..], &remote].concat();
    let printed = first.control_ok(&demote).await?;
    ensure!(
        printed.contains("cluster is successfully demoted"),
        "{printed}"
    );
    let ledger = TestCluster::collect([writer]).await?;
    let printed = second
        .control_ok(&["promote-cluster", SCOPE, "--force"])
        .await?;
    ensure!(
        printed.contains("cluster is successfully promoted"),
        "{printed}"
    );
    let leader = second.leader().await?;
    ensure!(leader == new, "{leader} leads the second site, not {new}");
    let new_port = second.agents[new].postgres_port;
    ledger.verify_durable(new_port).await?;
    ensure!(
        wait_standby_leader(&first).await? == primary,
        "another member leads the first site"
    );
    sql::execute(new_port, "insert into sites values ('by the second')").await?;
    for member in [0, 1] {
        wait_row(&first, member, "by the second").await?;
    }
    let recovering = "select pg_is_in_recovery()::text";
    ensure!(sql::text(primary_port, recovering).await? == "true");
    first.pass();
    let ledger = TestCluster::collect([numbered_writer(&second, 2).await?]).await?;
    second.finish(ledger).await
}

/// Of several hosts the one is followed that is the primary; and what the section says is done on this site only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_of_several_hosts() -> Result<()> {
    // Members of both sites have the same names: nobody could tell who confirmed what (W25).
    let first = crate::cluster(StoreKind::Embedded)
        .members(2)
        .dynamic("synchronous_mode", json!(false))
        .dynamic("slots", json!({SLOT: {"type": "physical"}}))
        .start()
        .await?;
    let primary = first.leader().await?;
    let [old, new] = [primary, 1 - primary].map(|member| first.agents[member].postgres_port);
    sql::execute(old, "create table sites (row text)").await?;
    let remote = json!({
        "host": "127.0.0.1,127.0.0.1,127.0.0.1",
        "port": format!("{},{new},{old}", ports::free()?),
        // Without one, any of the hosts would do (`configuration.md` §3.5).
        "primary_slot_name": SLOT,
        "recovery_min_apply_delay": "1d",
    });
    let mut second = crate::cluster(StoreKind::Embedded)
        .members(2)
        .dynamic("standby_cluster", remote)
        .dynamic(
            "slots",
            json!({
                "of_a_primary": {"type": "physical", "cluster_type": "primary"},
                "of_a_standby": {"type": "physical", "cluster_type": "standby"},
            }),
        )
        .prepare()
        .await?;
    second.start_all()?;
    let leader = wait_standby_leader(&second).await?;
    let port = second.agents[leader].postgres_port;
    ensure!(upstream(&second, leader).await? == old.to_string());
    wait_slot(&second, leader, "of_a_standby", true).await?;
    wait_slot(&second, leader, "of_a_primary", false).await?;

    // What has come is not shown for a day, or until that is over.
    sql::execute(old, "insert into sites values ('late')").await?;
    let written = sql::text(old, "select pg_current_wal_lsn()::text").await?;
    let received = format!("select (pg_last_wal_receive_lsn() >= '{written}')::text");
    wait_until("the row to come", second.timing.recovery(), async || {
        ensure!(sql::text(port, &received).await? == "true");
        Ok(())
    })
    .await?;
    let shown = sql::text(port, "select count(*)::text from sites").await?;
    ensure!(shown == "0", "it is shown");
    let at_once = json!({"standby_cluster": {"recovery_min_apply_delay": null}});
    configure(&second, leader, at_once).await?;
    for member in [0, 1] {
        wait_row(&second, member, "late").await?;
    }

    // The other site has another primary.
    first.control_ok(&["switchover", SCOPE, "--force"]).await?;
    let what = "the standby leader to follow the new primary";
    wait_until(what, second.timing.recovery(), async || {
        let upstream = upstream(&second, leader).await?;
        ensure!(upstream == new.to_string(), "it follows {upstream:?}");
        Ok(())
    })
    .await?;
    sql::execute(new, "insert into sites values ('by the new')").await?;
    for member in [0, 1] {
        wait_row(&second, member, "by the new").await?;
    }
    first.wait_healthy().await?;
    first.pass();
    second.pass();
    Ok(())
}

/// Nothing but an archive connects the sites. What the first wrote last is in a segment that never gets full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archive_alone() -> Result<()> {
    let shared = Scratch::new()?;
    let (archive, backup) = (shared.path().join("archive"), shared.path().join("backup"));
    shared.account().create_dir(&archive)?;
    let archive = archive.display();
    let postgresql = json!({
        "use_pg_rewind": true,
        "parameters": {
            "archive_mode": "on",
            "archive_command": format!("cp %p {archive}/%f.new && mv {archive}/%f.new {archive}/%f"),
            "wal_log_hints": "on",
        },
    });
    let restore = format!("cp {archive}/%f %p");
    let first = crate::cluster(StoreKind::Embedded)
        .members(1)
        .dynamic("postgresql", postgresql.clone())
        .start()
        .await?;
    let first_port = first.agents[0].postgres_port;
    sql::execute(first_port, "create table sites (row text)").await?;
    base_backup(&shared, first_port, &backup).await?;

    let script = shared.path().join("copy");
    let log = shared.path().join("copied");
    let text = format!(
        "for word; do case $word in --datadir=*) data=${{word#*=}};; esac; done\n\
         echo \"$@\" >> {}\ncp -a {}/. $data\n",
        log.display(),
        backup.display()
    );
    shared.account().write(&script, &text)?;
    let mut second = crate::cluster(StoreKind::Embedded)
        .members(2)
        .dynamic("synchronous_mode", json!(false))
        .dynamic("postgresql", postgresql)
        .dynamic(
            "standby_cluster",
            json!({"restore_command": restore, "create_replica_methods": ["copy"]}),
        )
        .postgresql(
            "copy",
            json!({"command": format!("sh {}", script.display()), "no_leader": true}),
        )
        .prepare()
        .await?;
    second.start_all()?;
    let leader = wait_standby_leader(&second).await?;
    let data = second.agents[leader].data_dir();
    let expected = format!(
        "--no_leader=True --scope={SCOPE} --role=replica --datadir={} --connstring=",
        data.display()
    );
    let copied = std::fs::read_to_string(&log)?;
    ensure!(copied.lines().any(|line| line == expected), "{copied}");
    let status = second.agents[leader].get("/patroni").await?;
    ensure!(
        status["replication_state"] == "in archive recovery",
        "{status}"
    );
    sql::execute(first_port, "insert into sites values ('archived')").await?;
    sql::execute(first_port, "select pg_switch_wal()").await?;
    for member in [0, 1] {
        wait_row(&second, member, "archived").await?;
    }

    // Nothing archives this row but the demotion.
    sql::execute(first_port, "insert into sites values ('at last')").await?;
    first
        .control_ok(&[
            "demote-cluster",
            SCOPE,
            "--force",
            "--restore-command",
            &restore,
        ])
        .await?;
    wait_row(&second, leader, "at last").await?;
    second
        .control_ok(&["promote-cluster", SCOPE, "--force"])
        .await?;
    let second_port = second.agents[leader].postgres_port;
    sql::execute(second_port, "insert into sites values ('by the second')").await?;
    sql::execute(second_port, "select pg_switch_wal()").await?;
    wait_row(&first, 0, "by the second").await?;
    second.wait_healthy().await?;
    first.pass();
    second.pass();
    Ok(())
}

async fn base_backup(shared: &Scratch, port: u16, directory: &Path) -> Result<()> {
    let bin_dir = primacy_testkit::programs::postgresql_bin_dir()?;
    let mut command = shared.command(bin_dir.join("pg_basebackup"));
    command
        .args(["-h", "127.0.0.1", "-U", "replicator", "-c", "fast", "-p"])
        .arg(port.to_string())
        .arg("-D")
        .arg(directory)
        .env("PGPASSWORD", "replication secret");
    let output = tokio::process::Command::from(command).output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pg_basebackup: {stderr}");
    Ok(())
}
