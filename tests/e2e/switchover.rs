//! The operator moves the lead.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Pid, Signal, StoreKind, TestCluster, processes, sql, wait_until};
use serde_json::json;

use crate::synchrony::configure;

on_both_stores!(
    through_the_rest_api,
    through_commands,
    seen_by_load_balancers
);

async fn through_the_rest_api(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store)
        .postgresql("parameters_primary", json!({"work_mem": "5MB"}))
        .postgresql("parameters_replica", json!({"work_mem": "6MB"}))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let first = cluster.leader().await?;
    let request = json!({ "leader": cluster.agents[first].name });
    let answer = cluster.agents[first]
        .send("POST", "/switchover", &request)
        .await?;
    ensure!(
        answer.status == 200
            && answer
                .body
                .starts_with("Successfully switched over to \"pg"),
        "without a candidate: {answer:?}"
    );
    let second = cluster.wait_healthy().await?;
    ensure!(second != first, "the lead did not move");
    writer.wait_progress(cluster.timing.failover()).await?;
    wait_until(
        "what each role is set to",
        cluster.timing.recovery(),
        async || {
            for (member, expected) in [(second, "5MB"), (first, "6MB")] {
                let port = cluster.agents[member].postgres_port;
                let work_mem = sql::text(port, "SHOW work_mem").await?;
                ensure!(work_mem == expected, "{member}: {work_mem}");
            }
            Ok(())
        },
    )
    .await?;

    // Only the synchronous standby will do, and any member takes the request.
    let candidate = cluster.synchronous_standby().await?;
    let asynchronous = cluster
        .others(second)
        .into_iter()
        .find(|member| *member != candidate);
    let asynchronous = asynchronous.expect("three members have an asynchronous one");
    let request = |member: usize| json!({ "leader": cluster.agents[second].name, "candidate": cluster.agents[member].name });
    let answer = cluster.agents[asynchronous]
        .send("POST", "/switchover", &request(asynchronous))
        .await?;
    ensure!(
        answer.status == 412 && answer.body == "candidate name does not match with sync_standby",
        "to an asynchronous candidate: {answer:?}"
    );
    let answer = cluster.agents[asynchronous]
        .send("POST", "/switchover", &request(candidate))
        .await?;
    ensure!(
        answer.status == 200
            && answer.body
                == format!(
                    "Successfully switched over to \"{}\"",
                    cluster.agents[candidate].name
                ),
        "to a candidate: {answer:?}"
    );
    ensure!(
        cluster.wait_healthy().await? == candidate,
        "not the candidate leads"
    );
    writer.wait_progress(cluster.timing.failover()).await?;

    // A client's process that does not end keeps the lead for primary_stop_timeout, and no longer.
    configure(&cluster, candidate, json!({"primary_stop_timeout": 1})).await?;
    let client = sql::connect(cluster.agents[candidate].postgres_port, "stuck").await?;
    let row = client.query_one("select pg_backend_pid()", &[]).await?;
    processes::signal(Pid::from_raw(row.get(0)), Signal::SIGSTOP);
    let request = json!({ "leader": cluster.agents[candidate].name });
    // The answer may come before the end.
    cluster.agents[candidate]
        .send("POST", "/switchover", &request)
        .await?;
    cluster.wait_new_leader(candidate).await?;
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

async fn through_commands(store: StoreKind) -> Result<()> {
    let cluster = crate::cluster(store).start().await?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();

    let first = cluster.leader().await?;
    let printed = cluster
        .control_ok(&["switchover", SCOPE, "--force"])
        .await?;
    ensure!(
        printed.contains("Successfully switched over to \"pg"),
        "{printed}"
    );
    let second = cluster.wait_healthy().await?;
    ensure!(second != first, "the lead did not move");

    let candidate = cluster.synchronous_standby().await?;
    let name = &cluster.agents[candidate].name;
    let leader = &cluster.agents[second].name;
    let arguments = [
        "switchover",
        SCOPE,
        "--leader",
        leader,
        "--candidate",
        name,
        "--force",
    ];
    let printed = cluster.control_ok(&arguments).await?;
    ensure!(
        printed.contains(&format!("Successfully switched over to \"{name}\"")),
        "{printed}"
    );
    ensure!(
        cluster.wait_healthy().await? == candidate,
        "not the candidate leads"
    );

    let candidate = cluster.synchronous_standby().await?;
    let name = &cluster.agents[candidate].name;
    let printed = cluster
        .control_ok(&["failover", SCOPE, "--candidate", name, "--force"])
        .await?;
    ensure!(
        printed.contains(&format!("Successfully failed over to \"{name}\"")),
        "{printed}"
    );
    ensure!(
        cluster.wait_healthy().await? == candidate,
        "not the candidate leads"
    );
    writer.wait_progress(cluster.timing.failover()).await?;

    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

/// The answers to one health check as they changed: which, when the last request with it was sent, when the first was
/// answered.
type Seen = Vec<(bool, Instant, Instant)>;

fn note(seen: &mut Seen, up: bool, sent: Instant) {
    match seen.last_mut() {
        Some(last) if last.0 == up => last.1 = sent,
        _ => seen.push((up, sent, Instant::now())),
    }
}

/// `rest-api.md` §13: the health checks of both members in their order, and nobody is a primary after the next one is.
async fn seen_by_load_balancers(store: StoreKind) -> Result<()> {
    const CHECKS: [&str; 4] = ["/primary", "/leader", "/replica", "/health"];
    let cluster = crate::cluster(store).start().await?;
    let (old, new) = (
        cluster.leader().await?,
        cluster.synchronous_standby().await?,
    );
    let seen: [[RefCell<Seen>; 4]; 2] = Default::default();
    let look = async || -> Result<()> {
        for (member, seen) in [(old, &seen[0]), (new, &seen[1])] {
            for (path, seen) in CHECKS.into_iter().zip(seen) {
                let sent = Instant::now();
                let up = cluster.agents[member].check(path).await? == 200;
                note(&mut seen.borrow_mut(), up, sent);
            }
        }
        Ok(())
    };
    look().await?;
    let request =
        json!({"leader": cluster.agents[old].name, "candidate": cluster.agents[new].name});
    let switched = cluster.agents[old].send("POST", "/switchover", &request);
    let arrived = wait_until(
        "both in their new roles",
        cluster.timing.recovery(),
        async || {
            look().await?;
            for (member, role) in [(0, 2), (1, 0)] {
                for check in [role, 3] {
                    let last = seen[member][check]
                        .borrow()
                        .last()
                        .is_some_and(|last| last.0);
                    ensure!(last, "{}", CHECKS[check]);
                }
            }
            Ok(())
        },
    );
    let (switched, arrived) = tokio::join!(switched, arrived);
    let answer = switched?;
    ensure!(answer.status == 200, "{answer:?}");
    arrived?;

    for (member, expected) in [
        (0, [&[true, false][..], &[true, false], &[false, true]]),
        (1, [&[false, true], &[false, true], &[true, false]]),
    ] {
        for (check, expected) in expected.into_iter().enumerate() {
            let answers = seen[member][check].borrow();
            let answers: Vec<bool> = answers.iter().map(|seen| seen.0).collect();
            // A replica whose server does not answer in time is none for that moment.
            let fits = match CHECKS[check] {
                "/replica" => {
                    answers.first() == expected.first() && answers.last() == expected.last()
                }
                _ => answers == expected,
            };
            ensure!(fits, "{member} {}: {answers:?}", CHECKS[check]);
        }
    }
    for check in [0, 1] {
        let (old, new) = (seen[0][check].borrow(), seen[1][check].borrow());
        ensure!(old[0].1 < new[1].2, "{}: both at once", CHECKS[check]);
    }
    Ok(())
}
