//! The old primary has WAL that nobody else has: it must be rewound before it can follow.

use anyhow::{Context, Result, bail, ensure};
use primacy_testkit::{Pid, Scratch, Signal, StoreKind, TestCluster, processes, sql, wait_until};
use serde_json::json;

use crate::synchrony::configure;

on_both_stores!(diverged_primary_returns);

async fn diverged_primary_returns(store: StoreKind) -> Result<()> {
    let mut cluster = crate::cluster(store)
        .postgresql("remove_data_directory_on_rewind_failure", false.into())
        .start()
        .await?;
    let writer = cluster.writer().await?;

    let old = cluster.leader().await?;
    let port = cluster.agents[old].postgres_port;
    sql::execute(port, "create table only_here (id int)").await?;
    diverge(&cluster, old).await?;
    let log_before = cluster.agents[old].log().len();
    cluster.agents[old].kill_node().await?;

    let new = cluster.wait_new_leader(old).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    cluster.start_agent(old)?;
    ensure!(
        cluster.wait_healthy().await? == new,
        "the returned primary took the lead again"
    );

    let log = cluster.agents[old].log().split_off(log_before);
    ensure!(
        log.contains("pg_rewind"),
        "the diverged primary came back without pg_rewind"
    );
    ensure_nowhere(&cluster).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// A former primary lacks its WAL since the last checkpoint that it has in common with the new one, and that lacks the
/// beginning of its timeline: pg_rewind, and the recovery after it, have both from the archive alone. Then the same
/// without pg_rewind: only a new copy helps, where it is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recycled_wal_comes_from_the_archive() -> Result<()> {
    let shared = Scratch::new()?;
    let archive = shared.path().join("archive");
    shared.account().create_dir(&archive)?;
    let (restored, closed) = (archive.join("restored"), archive.join("closed"));
    let dir = archive.display();
    // The shell's own number keeps members that archive the same file at the same time apart.
    let keep = format!("test -e {dir}/%f || (cp %p {dir}/%f.$$ && mv {dir}/%f.$$ {dir}/%f)");
    let restore = format!(
        "test ! -e {} && cp {dir}/%f %p && echo %p >> {}",
        closed.display(),
        restored.display()
    );
    let dynamic = json!({
        // Slots would keep the WAL.
        "use_slots": false,
        "parameters": {
            "wal_keep_size": "16MB",
            "archive_mode": "on",
            "archive_command": keep,
        },
    });
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .postgresql("recovery_conf", json!({"restore_command": restore}))
        .postgresql("remove_data_directory_on_rewind_failure", false.into())
        .merge_dynamic("postgresql", &dynamic)
        // What goes on alone ends segments.
        .dynamic("maximum_lag_on_failover", json!(1 << 30))
        .start()
        .await?;
    let writer = cluster.writer().await?;

    let old = cluster.leader().await?;
    let port = cluster.agents[old].postgres_port;
    sql::execute(port, "create table only_here (id int)").await?;
    sql::execute(port, "checkpoint").await?;
    let common = "select pg_walfile_name(checkpoint_lsn) from pg_control_checkpoint()";
    let common = sql::text(port, common).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    // Nobody gets from there what the primary has alone.
    shared.account().write(&closed, "")?;
    diverge(&cluster, old).await?;
    recycle(&cluster, old, &common).await?;
    let log_before = cluster.agents[old].log().len();
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    let begun = "select pg_walfile_name(pg_current_wal_lsn())";
    let begun = sql::text(cluster.agents[new].postgres_port, begun).await?;
    writer.wait_progress(cluster.timing.failover()).await?;
    recycle(&cluster, new, &begun).await?;
    std::fs::remove_file(&closed)?;

    cluster.start_agent(old)?;
    ensure!(cluster.wait_healthy().await? == new, "the lead moved");
    let log = cluster.agents[old].log().split_off(log_before);
    ensure!(
        log.contains("running pg_rewind") && !log.contains("replica has been created"),
        "not rewound: {log}"
    );
    let fetched = std::fs::read_to_string(&restored)?;
    // A server that recovers has it put elsewhere.
    ensure!(
        fetched.lines().any(|path| path.ends_with(&common)),
        "rewound without {common}: {fetched}"
    );
    ensure_nowhere(&cluster).await?;

    let change = json!({"postgresql": {
        "use_pg_rewind": false,
        "remove_data_directory_on_diverged_timelines": true,
    }});
    configure(&cluster, new, change).await?;
    shared.account().write(&closed, "")?;
    diverge(&cluster, new).await?;
    let log_before = cluster.agents[new].log().len();
    cluster.agents[new].kill_node().await?;
    let newest = cluster.wait_new_leader(new).await?;
    cluster.start_agent(new)?;
    ensure!(cluster.wait_healthy().await? == newest, "the lead moved");
    let log = cluster.agents[new].log().split_off(log_before);
    ensure!(
        log.contains("reinitialize due to diverged timelines")
            && !log.contains("running pg_rewind"),
        "no new copy: {log}"
    );
    ensure_nowhere(&cluster).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// A standby that is lost with its primary has more WAL than the next leader, and more than its control file tells of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_standby_is_ahead_of_the_next_leader() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .dynamic("synchronous_mode", json!(false))
        .start()
        .await?;
    let old = cluster.leader().await?;
    let [next, ahead] = cluster.others(old)[..] else {
        bail!("not three members");
    };
    let port = cluster.agents[old].postgres_port;
    sql::execute(port, "create table only_here (id int)").await?;
    cluster.wait_healthy().await?;
    let sender = |member: usize| {
        let name = &cluster.agents[member].name;
        format!("from pg_stat_replication where application_name = '{name}'")
    };
    let frozen = sql::rows(port, &format!("select pid {}", sender(next))).await?;
    let frozen = frozen.first().context("a walsender")?.get(0);
    processes::signal(Pid::from_raw(frozen), Signal::SIGSTOP);
    sql::execute(
        port,
        "insert into only_here select generate_series(1, 1000)",
    )
    .await?;
    let written = sql::text(port, "select pg_current_wal_lsn()::text").await?;
    let flushed = format!("select (flush_lsn >= '{written}')::text {}", sender(ahead));
    wait_until(
        "the other standby to have it",
        cluster.timing.recovery(),
        async || {
            ensure!(sql::text(port, &flushed).await? == "true");
            Ok(())
        },
    )
    .await?;
    cluster.agents[old].kill_node().await?;
    cluster.agents[ahead].kill_node().await?;
    ensure!(cluster.wait_new_leader(old).await? == next);
    let begun = cluster.agents[ahead].log().len();
    cluster.start_all()?;
    ensure!(cluster.wait_healthy().await? == next, "the lead moved");
    let log = cluster.agents[ahead].log().split_off(begun);
    // Before the start, if the background writer moved its control file on, or once it has replayed what it has.
    ensure!(log.contains("running pg_rewind"), "not rewound: {log}");
    ensure_nowhere(&cluster).await?;
    cluster.pass();
    Ok(())
}

/// With its walsenders frozen, a primary's WAL stays at home; some comes.
pub(crate) async fn diverge(cluster: &TestCluster, leader: usize) -> Result<()> {
    let port = cluster.agents[leader].postgres_port;
    let senders = sql::rows(port, "select pid from pg_stat_replication").await?;
    let standbys = cluster.others(leader).len();
    ensure!(senders.len() == standbys, "{} walsenders", senders.len());
    for sender in &senders {
        processes::signal(Pid::from_raw(sender.get(0)), Signal::SIGSTOP);
    }
    sql::execute(
        port,
        "set synchronous_commit = local; insert into only_here select generate_series(1, 1000)",
    )
    .await
}

/// Has a primary go on until it has archived and recycled this segment.
async fn recycle(cluster: &TestCluster, leader: usize, segment: &str) -> Result<()> {
    let port = cluster.agents[leader].postgres_port;
    let what = format!("{segment} to be recycled");
    let there = format!("select count(*)::text from pg_ls_waldir() where name = '{segment}'");
    wait_until(&what, cluster.timing.recovery(), async || {
        sql::execute(port, "select pg_switch_wal()").await?;
        sql::execute(port, "checkpoint").await?;
        ensure!(sql::text(port, &there).await? == "0", "it is there");
        Ok(())
    })
    .await
}

/// What was never replicated is on no member.
async fn ensure_nowhere(cluster: &TestCluster) -> Result<()> {
    for agent in &cluster.agents {
        let count = sql::text(agent.postgres_port, "select count(*)::text from only_here").await?;
        ensure!(
            count == "0",
            "{} has {count} rows that were never replicated",
            agent.name
        );
    }
    Ok(())
}
