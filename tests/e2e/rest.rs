//! The REST APIs of Patroni and Primacy beside each other: the same questions to a leader and to a replica of either,
//! in a cluster of both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::http::{self, Response};
use primacy_testkit::openapi::Contract;
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Agent, StoreKind, TestCluster, wait_until};
use serde_json::{Value, json};

const DESCRIPTION: &str = include_str!("../../crates/agent/src/api/openapi.json");

/// The member that is Patroni's; the other one is ours.
const PATRONI: usize = 1;

/// Beyond what every operation takes: a switchover that is not possible asks the members first.
const WITHIN: Duration = Duration::from_secs(60);

/// Headers that may differ: ours tells where an answer ends, and what it is called is no secret.
const OWN_HEADERS: [&str; 5] = [
    "connection",
    "content-length",
    "date",
    "server",
    "x-primacy-observed-ago-ms",
];

/// What ours tells besides, in the status document and of members.
const OWN_KEYS: [&str; 2] = ["fence", "hang"];

/// Health checks, documents, and requests that are refused, as method, target and body. `LEADER` and `REPLICA` are
/// replaced by names. What one of them schedules, a later one cancels.
const REQUESTS: [(&str, &str, Option<&str>); 86] = [
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("OPTIONS", "/", None),
    ("GET", "/primary", None),
    ("OPTIONS", "/master", None),
    ("OPTIONS", "/read-write", None),
    ("OPTIONS", "/leader", None),
    ("OPTIONS", "/standby-leader", None),
    ("GET", "/replica", None),
    ("OPTIONS", "/replica?lag=10%20MB", None),
    ("OPTIONS", "/replica?lag=-1", None),
    ("OPTIONS", "/replica?lag=1mb", None),
    ("OPTIONS", "/replica?tag_zone=x", None),
    ("OPTIONS", "/replica?tag_clonefrom=true", None),
    ("OPTIONS", "/read-only", None),
    ("OPTIONS", "/read-only?tag_clonefrom=True", None),
    ("OPTIONS", "/health", None),
    ("OPTIONS", "/sync", None),
    ("OPTIONS", "/async", None),
    ("OPTIONS", "/async/", None),
    ("OPTIONS", "/quorum", None),
    ("OPTIONS", "/read-only-sync", None),
    ("OPTIONS", "/read-only-quorum", None),
    (
        "OPTIONS",
        "/health?tag_clonefrom=true&tag_clonefrom=x",
        None,
    ),
    (
        "OPTIONS",
        "/health?tag_clonefrom=&tag_%63lonefrom=%74rue",
        None,
    ),
    ("OPTIONS", "/health?tag_clonefrom=true;x", None),
    ("OPTIONS", "*", None),
    ("GET", "http://x/primary", None),
    ("OPTIONS", "//replica//x", None),
    ("OPTIONS", "/%70rimary", None),
    ("GET", "/nowhere", None),
    ("GET", "/liveness", None),
    ("GET", "/liveness/x", None),
    ("HEAD", "/liveness", None),
    ("GET", "/readiness", None),
    ("GET", "/readiness?lag=1MB&mode=write", None),
    ("GET", "/readiness?lag=-1", None),
    ("GET", "/patroni", None),
    ("OPTIONS", "/patroni", None),
    ("GET", "/cluster", None),
    ("GET", "/history", None),
    ("GET", "/config", None),
    ("GET", "/metrics", None),
    ("GET", "/switchover", None),
    ("POST", "/primary", None),
    ("PUT", "/patroni", Some("{}")),
    ("DELETE", "/config", None),
    ("get", "/patroni", None),
    ("TRACE", "/", None),
    ("PATCH", "/config", None),
    ("PATCH", "/config", Some("")),
    ("PATCH", "/config", Some("[1]")),
    ("PATCH", "/config", Some(r#"{"no": null}"#)),
    ("PATCH", "/config", Some(r#"{"loop_wait": "5"}"#)),
    ("PUT", "/config", Some("{}")),
    ("POST", "/switchover", None),
    ("POST", "/switchover", Some("{}")),
    ("POST", "/switchover", Some(r#"{"candidate": "x"}"#)),
    ("POST", "/switchover", Some(r#"{"leader": "x"}"#)),
    (
        "POST",
        "/switchover",
        Some(r#"{"leader": "LEADER", "candidate": "LEADER"}"#),
    ),
    (
        "POST",
        "/switchover",
        Some(r#"{"leader": "LEADER", "candidate": "nobody"}"#),
    ),
    (
        "POST",
        "/switchover",
        Some(r#"{"leader": "LEADER", "scheduled_at": "soon"}"#),
    ),
    (
        "POST",
        "/switchover",
        Some(r#"{"leader": "LEADER", "scheduled_at": "2040-01-01T10:00"}"#),
    ),
    (
        "POST",
        "/switchover",
        Some(r#"{"leader": "LEADER", "scheduled_at": "2001-01-01T10:00Z"}"#),
    ),
    (
        "POST",
        "/switchover",
        Some(r#"{"leader": "LEADER", "scheduled_at": "2040-01-01 10:00+01"}"#),
    ),
    ("GET", "/cluster", None),
    ("DELETE", "/switchover", None),
    ("DELETE", "/switchover", None),
    ("POST", "/failover", Some(r#"{"leader": "LEADER"}"#)),
    ("POST", "/failover", Some(r#"{"candidate": "nobody"}"#)),
    (
        "POST",
        "/failover",
        Some(r#"{"candidate": "REPLICA", "scheduled_at": "2040-01-01T10:00Z"}"#),
    ),
    ("POST", "/restart", Some("{")),
    ("POST", "/restart", Some(r#"{"role": "master"}"#)),
    ("POST", "/restart", Some(r#"{"postgres_version": "15"}"#)),
    ("POST", "/restart", Some(r#"{"timeout": "0"}"#)),
    ("POST", "/restart", Some(r#"{"timeout": 0.2}"#)),
    ("POST", "/restart", Some(r#"{"timeout": false}"#)),
    ("POST", "/restart", Some(r#"{"schedule": 12}"#)),
    (
        "POST",
        "/restart",
        Some(r#"{"schedule": "2040-01-01 10:00 UTC", "nonsense": 1}"#),
    ),
    (
        "POST",
        "/restart",
        Some(r#"{"schedule": "Sun, 01 Jan 2040 10:00:00 +0100", "nonsense": 1}"#),
    ),
    ("POST", "/restart", Some(r#"{"postgres_version": "15.x"}"#)),
    ("POST", "/restart", Some(r#"{"nonsense": 1, "role": "x"}"#)),
    ("POST", "/restart", Some(r#"{"restart_pending": false}"#)),
    (
        "POST",
        "/restart",
        Some(
            r#"{"schedule": "2040-01-01T10:00:00.5+01:00", "timeout": "1min", "role": "replica"}"#,
        ),
    ),
    ("POST", "/sigterm", None),
    ("POST", "/mpp", Some(r#"{"type": "after_promote"}"#)),
];

/// What comes after them, once a restart is scheduled and that is known.
const AFTER: [(&str, &str, Option<&str>); 5] = [
    ("GET", "/patroni", None),
    (
        "POST",
        "/restart",
        Some(r#"{"schedule": "2040-01-01T10:00Z"}"#),
    ),
    ("DELETE", "/restart", None),
    ("DELETE", "/restart", None),
    ("POST", "/reload", None),
];

/// In pause.
const PAUSED: [(&str, &str, Option<&str>); 8] = [
    ("GET", "/patroni", None),
    ("GET", "/cluster", None),
    ("GET", "/metrics", None),
    ("GET", "/readiness", None),
    ("POST", "/switchover", Some(r#"{"leader": "LEADER"}"#)),
    (
        "POST",
        "/switchover",
        Some(
            r#"{"leader": "LEADER", "candidate": "REPLICA", "scheduled_at": "2040-01-01T10:00Z"}"#,
        ),
    ),
    (
        "POST",
        "/restart",
        Some(r#"{"schedule": "2040-01-01T10:00Z", "nonsense": 1}"#),
    ),
    ("POST", "/reinitialize", Some("LEADER ONLY")),
];

/// In failsafe mode.
const FAILSAFE: [(&str, &str, Option<&str>); 4] = [
    ("GET", "/failsafe", None),
    ("GET", "/metrics", None),
    ("POST", "/failsafe", None),
    ("POST", "/failsafe", Some(r#"{"name": "LEADER"}"#)),
];

/// The answers of one member in one role.
type Answers = BTreeMap<String, Option<Response>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_patronis() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[PATRONI])
        .tags(0, json!({"clonefrom": true}))
        .tags(1, json!({"clonefrom": true}))
        .start()
        .await?;
    let writer = cluster.writer().await?;
    // By member and whether it led.
    let mut answers: BTreeMap<(usize, bool), Answers> = BTreeMap::new();
    // Each of them has led once before, so that there is the same history to tell.
    for _ in 0..2 {
        cluster
            .control_ok(&["switchover", SCOPE, "--force"])
            .await?;
        let leader = cluster.wait_healthy().await?;
        let replica = &cluster.agents[1 - leader];
        wait_until(
            "the replica to know that it is synchronous",
            cluster.timing.recovery(),
            async || {
                let status = replica.get("/patroni").await?;
                ensure!(status["sync_standby"] == true, "{status}");
                Ok(())
            },
        )
        .await?;
        // A replica that was just started tells when it replayed a commit, if there was one.
        writer.wait_progress(cluster.timing.failover()).await?;
        for member in [0, 1] {
            let asked = interview(&cluster, leader, member).await?;
            answers.insert((member, member == leader), asked);
        }
    }

    let contract = Contract::parse(DESCRIPTION)?;
    let mut differences = Vec::new();
    for leads in [true, false] {
        let ours = &answers[&(1 - PATRONI, leads)];
        let theirs = &answers[&(PATRONI, leads)];
        for (request, theirs) in theirs {
            let ours = &ours[request];
            for (whose, answer) in [("ours", ours), ("theirs", theirs)] {
                if let Err(problem) = announced(&contract, request, answer) {
                    differences.push(format!("{whose}, leads {leads}: {request}: {problem:#}"));
                }
            }
            if let Err(problem) = same(request, ours.as_ref(), theirs.as_ref()) {
                differences.push(format!("leads {leads}: {request}: {problem:#}"));
            }
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n\n"));
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}

/// Asks one member everything, in all conditions.
async fn interview(cluster: &TestCluster, leader: usize, member: usize) -> Result<Answers> {
    let agent = &cluster.agents[member];
    let mut answers = Answers::new();
    let mut ask = async |when: &str, requests: &[(&str, &str, Option<&str>)]| {
        for (number, (method, target, body)) in requests.iter().enumerate() {
            // Any other replica would do as it is told.
            let body = match *body {
                Some("LEADER ONLY") if member != leader => continue,
                Some("LEADER ONLY") => None,
                body => body,
            };
            let names = [("LEADER", leader), ("REPLICA", 1 - leader)];
            let body = names
                .iter()
                .fold(body.map(str::to_owned), |body, (word, member)| {
                    body.map(|body| body.replace(word, &cluster.agents[*member].name))
                });
            let length = body
                .as_ref()
                .map(|body| format!("Content-Length: {}\r\n", body.len()));
            let request = format!(
                "{method} {target} HTTP/1.0\r\n{}\r\n{}",
                length.unwrap_or_default(),
                body.unwrap_or_default()
            );
            let answer = http::exchange(agent.rest_port, &request, WITHIN).await?;
            let answer = (!answer.is_empty())
                .then(|| http::parse(&answer))
                .transpose()?;
            answers.insert(format!("{when} {number:02} {method} {target}"), answer);
        }
        anyhow::Ok(())
    };
    ask("running", &REQUESTS).await?;
    ask("scheduled", &AFTER).await?;

    configure(
        cluster,
        json!({"pause": true}),
        "GET",
        "/patroni",
        |answer| answer.body.contains("\"pause\": true"),
    )
    .await?;
    ask("paused", &PAUSED).await?;
    configure(
        cluster,
        json!({"pause": null}),
        "GET",
        "/patroni",
        |answer| !answer.body.contains("\"pause\": true"),
    )
    .await?;
    let on = || json!({"failsafe_mode": true});
    // Switched off, it is an empty document, which stays until the leader's next pass.
    let is_complete = |answer: &Response| {
        let named = |agent: &Agent| answer.body.contains(&format!("\"{}\"", agent.name));
        cluster.agents.iter().all(named)
    };
    configure(cluster, on(), "GET", "/failsafe", is_complete).await?;
    // Without a body, it is 411 when the mode is on.
    let is_on = |answer: &Response| answer.status == 411;
    configure(cluster, on(), "POST", "/failsafe", is_on).await?;
    ask("failsafe", &FAILSAFE).await?;
    configure(
        cluster,
        json!({"failsafe_mode": null}),
        "POST",
        "/failsafe",
        |answer| !is_on(answer),
    )
    .await?;
    Ok(answers)
}

/// Changes the dynamic configuration, and waits until every member shows it.
async fn configure(
    cluster: &TestCluster,
    change: Value,
    method: &str,
    path: &str,
    shown: impl Fn(&Response) -> bool,
) -> Result<()> {
    cluster.agents[0].send("PATCH", "/config", &change).await?;
    for agent in &cluster.agents {
        let what = format!("{} to obey {change}", agent.name);
        wait_until(&what, cluster.timing.recovery(), async || {
            let answer = http::request(agent.rest_port, method, path, None, WITHIN).await?;
            ensure!(shown(&answer), "{answer:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Whether the description has such an answer, where it has such a request at all.
fn announced(contract: &Contract, request: &str, answer: &Option<Response>) -> Result<()> {
    let mut words = request.split(' ').skip(2);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = target.split('?').next().unwrap_or_default();
    match contract.operation(method, path) {
        Ok(operation) => operation.check(answer.as_ref()),
        Err(_) => Ok(()),
    }
}

/// Whether two answers say the same, up to values that are the member's own.
fn same(request: &str, ours: Option<&Response>, theirs: Option<&Response>) -> Result<()> {
    let what = || format!("\nours:   {}\ntheirs: {}", brief(ours), brief(theirs));
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        ensure!(ours.is_none() && theirs.is_none(), "{}", what());
        return Ok(());
    };
    ensure!(ours.status == theirs.status, "another status: {}", what());
    ensure!(
        headers(ours) == headers(theirs),
        "other headers: {}",
        what()
    );
    if theirs.header("Content-Type") == Some("application/json") {
        let (ours, theirs) = (shape(&ours.json()?), shape(&theirs.json()?));
        ensure!(ours == theirs, "other keys or types: {}", what());
    } else if request.ends_with("/metrics") {
        let (ours, theirs) = (metrics(&ours.body), metrics(&theirs.body));
        for (name, lines) in &theirs {
            let ours = ours
                .get(name)
                .with_context(|| format!("no metric {name}"))?;
            ensure!(
                ours == lines,
                "another metric: {ours:?} instead of {lines:?}"
            );
        }
    } else {
        ensure!(ours.body == theirs.body, "another text: {}", what());
    }
    Ok(())
}

fn brief(response: Option<&Response>) -> String {
    response.map_or_else(
        || "no answer".to_owned(),
        |response| {
            format!(
                "{} {:?} {}",
                response.status, response.headers, response.body
            )
        },
    )
}

/// Names, and values where they are not a moment's.
fn headers(response: &Response) -> BTreeSet<String> {
    let headers = response
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    headers
        .filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| match name.as_str() {
            "lsn" => name,
            _ => format!("{name}: {value}"),
        })
        .collect()
}

/// Keys in their order and types; values that are the same for both.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let told = map
                .iter()
                .filter(|(key, _)| !OWN_KEYS.contains(&key.as_str()));
            let shapes = told.map(|(key, value)| match key.as_str() {
                "role" | "state" | "sync_state" | "replication_state" => json!([key, value]),
                _ => json!([key, shape(value)]),
            });
            json!({"object": shapes.collect::<Vec<_>>()})
        }
        // In any order, and alike ones once: members are sorted by name, and not by who leads.
        Value::Array(items) => {
            let shapes = items.iter().map(|item| shape(item).to_string());
            json!(shapes.collect::<BTreeSet<_>>())
        }
        Value::String(_) => json!("string"),
        Value::Number(number) => json!(if number.is_f64() { "float" } else { "integer" }),
        Value::Bool(_) | Value::Null => value.clone(),
    }
}

/// By name: comments, labels, and what kind of number the value is.
fn metrics(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut metrics: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            name = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        let line = match (line.starts_with('#'), line.rsplit_once(' ')) {
            (false, Some((sample, value))) => {
                let sample = sample.split(",name=").next().unwrap_or_default();
                let value = match value {
                    "0" | "1" => value,
                    value if value.contains('.') => "float",
                    _ => "integer",
                };
                format!("{sample} {value}")
            }
            _ => line.to_owned(),
        };
        metrics.entry(name.clone()).or_default().push(line);
    }
    metrics
}
