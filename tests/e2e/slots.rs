//! Replication slots: consumers outside of the cluster go on after a failover, members that are away find their WAL,
//! slots that nobody asked for go.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, settings, sql, wait_until};
use serde_json::{Value, json};

use crate::tags::wait_told;

/// `postgresql` of the usual dynamic configuration, with what logical decoding needs.
pub(crate) fn decoding() -> Value {
    let mut dynamic = settings::dynamic_configuration(0, 0, 0);
    let mut postgresql = dynamic["postgresql"].take();
    postgresql["parameters"]["wal_level"] = json!("logical");
    postgresql
}

fn permanent_slots() -> Value {
    json!({
        "backup": { "type": "physical" },
        "cdc": { "type": "logical", "database": "postgres", "plugin": "test_decoding" },
    })
}

/// Asks for the permanent slots in a cluster whose members all are there: a base backup taken after the logical one was
/// made may lack WAL that it needs.
pub(crate) async fn make_permanent_slots(cluster: &TestCluster) -> Result<()> {
    let body = json!({ "slots": permanent_slots() });
    let answer = cluster.agents[0].send("PATCH", "/config", &body).await?;
    ensure!(answer.status == 200, "{answer:?}");
    for member in 0..cluster.agents.len() {
        wait_slot(cluster, member, "backup", true).await?;
        wait_slot(cluster, member, "cdc", true).await?;
    }
    Ok(())
}

/// What the slot has decoded and nobody has taken yet: the numbers that were inserted into `feed`.
pub(crate) async fn consume(port: u16, slot: &str) -> Result<Vec<i64>> {
    let changes = format!(
        "select (regexp_match(data, 'INSERT: id\\[bigint\\]:(\\d+)'))[1]::bigint \
         from pg_logical_slot_get_changes('{slot}', null, null) where data like 'table public.feed: INSERT:%'"
    );
    let rows = sql::rows(port, &changes).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(crate) async fn create_feed(port: u16) -> Result<()> {
    sql::execute(port, "create table feed (id bigint primary key)").await
}

pub(crate) async fn feed(port: u16, ids: std::ops::RangeInclusive<i64>) -> Result<()> {
    let (first, last) = ids.into_inner();
    sql::execute(
        port,
        &format!("insert into feed select generate_series({first}, {last})"),
    )
    .await
}

async fn slots(port: u16) -> Result<BTreeSet<String>> {
    let rows = sql::rows(port, "select slot_name::text from pg_replication_slots").await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(crate) async fn wait_slot(
    cluster: &TestCluster,
    member: usize,
    name: &str,
    there: bool,
) -> Result<()> {
    let agent = &cluster.agents[member];
    let what = format!("slot {name} on {} to be there: {there}", agent.name);
    wait_until(&what, cluster.timing.recovery(), async || {
        let slots = slots(agent.postgres_port).await?;
        ensure!(slots.contains(name) == there, "{slots:?}");
        Ok(())
    })
    .await
}

/// Waits until a slot of a replica is where the primary has it.
async fn wait_position(
    cluster: &TestCluster,
    leader: usize,
    replica: usize,
    column: &str,
    slot: &str,
) -> Result<()> {
    let position =
        format!("select {column}::text from pg_replication_slots where slot_name = '{slot}'");
    let primary = sql::text(cluster.agents[leader].postgres_port, &position).await?;
    let agent = &cluster.agents[replica];
    let what = format!("slot {slot} on {} to be moved to {primary}", agent.name);
    let reached = format!(
        "select ({column} >= '{primary}')::text || ' ' || {column}::text from pg_replication_slots \
         where slot_name = '{slot}'"
    );
    wait_until(&what, cluster.timing.recovery(), async || {
        let text = sql::text(agent.postgres_port, &reached).await?;
        ensure!(text.starts_with("true"), "{text:?}");
        Ok(())
    })
    .await
}

async fn wait_log(cluster: &TestCluster, member: usize, line: &str) -> Result<()> {
    let agent = &cluster.agents[member];
    let what = format!("{} to say {line:?}", agent.name);
    wait_until(&what, cluster.timing.recovery(), async || {
        let log = std::fs::read_to_string(agent.log_file())?;
        ensure!(log.contains(line), "not yet");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_go_on_after_a_failover() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("postgresql", decoding())
        .dynamic(
            "ignore_slots",
            json!([{ "name": "mine", "type": "physical" }]),
        )
        .start()
        .await?;
    let writer = cluster.writer().await?;

    // Every member gets both: the primary makes the logical one, the others copy it and say when it is good.
    make_permanent_slots(&cluster).await?;
    let old = cluster.wait_healthy().await?;
    for replica in cluster.others(old) {
        let feedback = "show hot_standby_feedback";
        let feedback = sql::text(cluster.agents[replica].postgres_port, feedback).await?;
        ensure!(feedback == "on", "hot_standby_feedback is {feedback}");
        wait_log(
            &cluster,
            replica,
            "Logical slot cdc is safe to be used after a failover",
        )
        .await?;
    }

    // An agent that starts again takes the standby over as it is: feedback that stopped for a moment would cost the slot.
    let restarted = cluster.others(old)[0];
    cluster.agents[restarted].sigkill().await?;
    cluster.start_agent(restarted)?;
    cluster.wait_healthy().await?;
    wait_until(
        "the agent to be at work",
        cluster.timing.recovery(),
        async || {
            let log = cluster.agents[restarted].log();
            let (_, since) = log.rsplit_once("manages e2e as").unwrap_or_default();
            ensure!(since.matches("no action").count() > 1, "{since}");
            Ok(())
        },
    )
    .await?;
    let server_log =
        std::fs::read_to_string(cluster.agents[restarted].dir.join("log/postgresql.log"))?;
    ensure!(
        !server_log.contains("\"hot_standby_feedback\" removed")
            && !server_log.contains("\"hot_standby_feedback\" changed to \"off\""),
        "hot_standby_feedback was turned off"
    );

    // A slot made by hand goes, one to be ignored stays.
    let port = cluster.agents[old].postgres_port;
    create_feed(port).await?;
    sql::execute(
        port,
        "select pg_create_physical_replication_slot('mine'); \
         select pg_create_physical_replication_slot('stranger', true)",
    )
    .await?;
    wait_slot(&cluster, old, "stranger", false).await?;
    ensure!(
        slots(port).await?.contains("mine"),
        "an ignored slot was dropped"
    );

    // The copies follow the consumers of the primary.
    feed(port, 1..=100).await?;
    let mut consumed = consume(port, "cdc").await?;
    ensure!(consumed == (1..=100).collect::<Vec<_>>(), "{consumed:?}");
    sql::execute(
        port,
        "select pg_replication_slot_advance('backup', pg_current_wal_lsn())",
    )
    .await?;
    for replica in cluster.others(old) {
        wait_position(&cluster, old, replica, "confirmed_flush_lsn", "cdc").await?;
        wait_position(&cluster, old, replica, "restart_lsn", "backup").await?;
    }

    // A slot whose creation waits for a transaction that stays open: the agent goes on meanwhile, for longer than a lease.
    let open = sql::connect(port, "stays open").await?;
    open.batch_execute("begin; select txid_current()").await?;
    let late = json!({ "slots": { "late": { "type": "logical", "database": "postgres", "plugin": "pgoutput" } } });
    let answer = cluster.agents[old].send("PATCH", "/config", &late).await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait_slot(&cluster, old, "late", true).await?;
    let begun = cluster.agents[old].get("/patroni").await?["dcs_last_seen"].clone();
    let within = cluster.timing.failover() + cluster.timing.ttl;
    wait_until(
        "the loop to turn for longer than a lease",
        within,
        async || {
            let status = cluster.agents[old].get("/patroni").await?;
            let passed = status["dcs_last_seen"].as_i64().zip(begun.as_i64());
            let passed = passed.map(|(now, begun)| now - begun).unwrap_or_default();
            ensure!(
                passed > cluster.timing.ttl.as_secs() as i64,
                "{passed} s, {status}"
            );
            Ok(())
        },
    )
    .await?;
    let pending = "select (confirmed_flush_lsn is null)::text from pg_replication_slots where slot_name = 'late'";
    ensure!(
        sql::text(port, pending).await? == "true",
        "the slot did not wait"
    );
    ensure!(cluster.leader().await? == old, "the lead moved");
    open.batch_execute("commit").await?;
    for member in 0..cluster.agents.len() {
        wait_slot(&cluster, member, "late", true).await?;
    }
    cluster.wait_healthy().await?;

    // What is fed and not consumed when the primary is lost comes from the next one.
    feed(port, 101..=200).await?;
    cluster.agents[old].kill_node().await?;
    let new = cluster.wait_new_leader(old).await?;
    let port = cluster.agents[new].postgres_port;
    feed(port, 201..=300).await?;
    let after = consume(port, "cdc").await?;
    let fresh: BTreeSet<i64> = after.iter().copied().collect();
    ensure!(
        (101..=300).all(|id| fresh.contains(&id)),
        "the consumer misses changes: {after:?}"
    );
    consumed.extend(after);
    ensure!(
        slots(port).await?.contains("backup"),
        "the physical slot is lost"
    );

    // The slot of the member that is away is kept longer than its key.
    let away = cluster.agents[old].name.clone();
    wait_until(
        "the lost member's key to lapse",
        cluster.timing.failover(),
        async || {
            let document = cluster.agents[new].get("/cluster").await?;
            ensure!(
                !document["members"]
                    .to_string()
                    .contains(&format!("\"{away}\"")),
                "{document}"
            );
            Ok(())
        },
    )
    .await?;
    sql::execute(port, "select pg_switch_wal(); checkpoint").await?;
    ensure!(
        slots(port).await?.contains(&away),
        "the absent member's slot is gone"
    );

    // For member_slots_ttl; then it goes, and comes back with the member.
    let body = json!({ "member_slots_ttl": 1 });
    let answer = cluster.agents[new].send("PATCH", "/config", &body).await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait_slot(&cluster, new, &away, false).await?;
    cluster.start_agent(old)?;
    let leader = cluster.wait_healthy().await?;
    wait_slot(&cluster, leader, &away, true).await?;
    wait_slot(&cluster, old, "cdc", true).await?;

    writer.wait_progress(Duration::from_secs(30)).await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Whom a permanent slot no longer keeps WAL for is told so, and the slot is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_slot_is_made_anew() -> Result<()> {
    let limited = json!({"parameters": {"max_slot_wal_keep_size": "1MB"}});
    let cluster = crate::cluster(StoreKind::Embedded)
        .members(1)
        .dynamic("slots", json!({"backup": {"type": "physical"}}))
        .merge_dynamic("postgresql", &limited)
        .start()
        .await?;
    let writer = cluster.writer().await?;
    wait_slot(&cluster, 0, "backup", true).await?;
    let port = cluster.agents[0].postgres_port;
    let begun = sql::text(port, "select pg_current_wal_lsn()::text").await?;
    let kept = format!(
        "select wal_status || ' ' || (restart_lsn > '{begun}') from pg_replication_slots where slot_name = 'backup'"
    );
    wait_until("another slot", cluster.timing.recovery(), async || {
        let kept = sql::text(port, &kept).await?;
        if kept.ends_with("false") && !kept.starts_with("lost") {
            sql::execute(port, "select pg_switch_wal()").await?;
            sql::execute(port, "checkpoint").await?;
        }
        ensure!(kept == "reserved true", "{kept}");
        Ok(())
    })
    .await?;
    wait_told(&cluster, 0, "backup lost WAL that it had to keep").await?;
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// PostgreSQL 17 brings such slots to standbys itself. Nobody drops them; what a demoted primary made stands in the way
/// there and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL 17 or later, run by `make test-versions`"]
async fn failover_slots_are_left_to_the_server() -> Result<()> {
    let mut postgresql = decoding();
    postgresql["parameters"]["sync_replication_slots"] = json!("on");
    postgresql["parameters"]["hot_standby_feedback"] = json!("on");
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("postgresql", postgresql)
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let first = cluster.leader().await?;
    let port = cluster.agents[first].postgres_port;
    create_feed(port).await?;
    let create =
        "select pg_create_logical_replication_slot('native', 'test_decoding', false, false, true)";
    sql::execute(port, create).await?;
    feed(port, 1..=100).await?;
    let mut consumed = BTreeSet::new();
    for replica in cluster.others(first) {
        wait_synced(&cluster, first, replica, &mut consumed).await?;
    }

    feed(port, 101..=200).await?;
    cluster
        .control_ok(&["switchover", settings::SCOPE, "--force"])
        .await?;
    let second = cluster.wait_new_leader(first).await?;
    feed(cluster.agents[second].postgres_port, 201..=300).await?;
    for replica in cluster.others(second) {
        wait_synced(&cluster, second, replica, &mut consumed).await?;
    }

    cluster.wait_healthy().await?;
    feed(cluster.agents[second].postgres_port, 301..=400).await?;
    cluster.agents[second].kill_node().await?;
    let third = cluster.wait_new_leader(second).await?;
    consumed.extend(consume(cluster.agents[third].postgres_port, "native").await?);
    ensure!(
        consumed == (1..=400).collect(),
        "the consumer misses changes: {consumed:?}"
    );
    cluster.start_agent(second)?;
    cluster.wait_healthy().await?;
    wait_synced(&cluster, third, second, &mut consumed).await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// The server copies a slot once it is consumed up to what the standby has.
async fn wait_synced(
    cluster: &TestCluster,
    leader: usize,
    member: usize,
    consumed: &mut BTreeSet<i64>,
) -> Result<()> {
    let taken = std::sync::Mutex::new(std::mem::take(consumed));
    let port = cluster.agents[leader].postgres_port;
    let agent = &cluster.agents[member];
    let what = format!("{} to have the primary's failover slot", agent.name);
    let slot = "select format('synced %s, temporary %s', synced, temporary) from pg_replication_slots \
                where slot_name = 'native'";
    wait_until(&what, cluster.timing.recovery(), async || {
        sql::execute(port, "select pg_log_standby_snapshot()").await?;
        let changes = consume(port, "native").await?;
        taken.lock().expect("one user").extend(changes);
        let slot = sql::text(agent.postgres_port, slot).await?;
        ensure!(slot == "synced t, temporary f", "{slot}");
        Ok(())
    })
    .await?;
    *consumed = taken.into_inner().expect("one user");
    Ok(())
}

/// A standby made anew lacks WAL that a slow consumer still needs: its copy of the slot is of no use until the consumer
/// has read it, and is replaced then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn long_a_new_standby_lacks_what_a_slow_consumer_needs() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Embedded)
        .dynamic("postgresql", decoding())
        .dynamic("slots", permanent_slots())
        .start()
        .await?;
    let writer = cluster.writer().await?;
    for member in 0..cluster.agents.len() {
        wait_slot(&cluster, member, "cdc", true).await?;
    }
    let leader = cluster.wait_healthy().await?;
    let port = cluster.agents[leader].postgres_port;
    create_feed(port).await?;
    for round in 0..3 {
        feed(port, 100 * round..=100 * round + 99).await?;
        sql::execute(port, "select pg_switch_wal()").await?;
        sql::execute(port, "checkpoint").await?;
    }
    let replica = cluster.others(leader)[0];
    let name = &cluster.agents[replica].name;
    cluster
        .control_ok(&["reinit", settings::SCOPE, name, "--force", "--wait"])
        .await?;
    wait_slot(&cluster, replica, "cdc", true).await?;
    cluster.wait_healthy().await?;

    let consumed = consume(port, "cdc").await?;
    ensure!(consumed.len() == 300, "{consumed:?}");
    wait_log(&cluster, replica, "what it needs is gone").await?;
    // The slot lets old WAL go as it is consumed further.
    let again = std::sync::atomic::AtomicI64::new(300);
    let agent = &cluster.agents[replica];
    let position =
        "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'cdc'";
    let before = sql::text(port, position).await?;
    let reached = format!(
        "select (confirmed_flush_lsn >= '{before}')::text from pg_replication_slots where slot_name = 'cdc'"
    );
    let within = cluster.timing.recovery() + Duration::from_secs(60);
    wait_until("a copy of use", within, async || {
        let id = again.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        feed(port, id..=id).await?;
        sql::execute(port, "select pg_log_standby_snapshot()")
            .await
            .ok();
        sql::execute(port, "checkpoint").await?;
        consume(port, "cdc").await?;
        let reached = sql::text(agent.postgres_port, &reached).await?;
        ensure!(reached == "true", "{reached}");
        Ok(())
    })
    .await?;

    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
