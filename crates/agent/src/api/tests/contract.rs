//! The API held to its own description, `openapi.json`: requests are made from it, fitting ones and others, in many
//! situations, and every answer must be one that it announces. It must announce nothing else, either.

use std::collections::BTreeSet;
use std::time::Duration;

use primacy_config::local::BasicAuth;
use primacy_config::{Secret, StandbyCluster, SynchronousMode};
use primacy_dcs::{Expected, Fault};
use primacy_model::{PendingRestart, ScheduledRestart, Tags};
use primacy_testkit::http;
use primacy_testkit::openapi::{Contract, Operation};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{Union, ValueTree};
use proptest::string::string_regex;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::bench::{Bench, PATIENCE, section};
use super::*;

const DESCRIPTION: &str = include_str!("../openapi.json");

/// So many requests are made, and up to ten times as many until every answer was seen. They are the same ones in
/// every run.
const CASES: usize = 1500;

/// Announced, and not to be had here: somebody else's write, or a failure, between reading the store and writing it.
const NEVER_SEEN: [(&str, &str, u16); 3] = [
    ("PATCH", "/config", 409),
    ("PUT", "/config", 502),
    ("DELETE", "/switchover", 409),
];

/// A request, and the cluster that it meets.
#[derive(Clone, Debug)]
struct Case {
    operation: usize,
    bench: usize,
    situation: usize,
    world: World,
    authorization: &'static str,
    path: String,
    body: Option<String>,
}

/// What the store holds, and what becomes of a failover key.
#[derive(Clone, Debug)]
struct World {
    reachable: bool,
    failsafe_mode: bool,
    config: Option<Value>,
    scheduled: bool,
    /// `None`: it is cleared, and nobody takes over.
    successor: Option<&'static str>,
}

#[tokio::test]
async fn every_answer_is_announced_and_every_announced_answer_is_given() {
    let contract = Contract::parse(DESCRIPTION).unwrap();
    let benches = [
        coordinator().await,
        with_password().await,
        with_allowlist().await,
    ];
    let mut missing: BTreeSet<_> = contract.operations.iter().flat_map(announced).collect();
    missing.retain(|(method, path, status)| !NEVER_SEEN.contains(&(method, path, *status)));

    let reads = |operation: &&Operation| ["GET", "HEAD", "OPTIONS"].contains(&&*operation.method);
    for number in 0..situations().len() {
        publish(&benches[0], number, false);
        for operation in contract.operations.iter().filter(reads) {
            let Operation { method, path, .. } = operation;
            let request = format!("{method} {path} HTTP/1.0\r\n\r\n");
            let answer = benches[0].raw(&request).await;
            missing.remove(&check(operation, &answer, &request));
        }
    }
    let cases = cases(&contract, benches.len());
    let mut random = TestRunner::deterministic();
    for number in 0..10 * CASES {
        if number >= CASES && missing.is_empty() {
            break;
        }
        let case = cases.new_tree(&mut random).unwrap().current();
        let operation = &contract.operations[case.operation];
        let bench = &benches[case.bench];
        publish(bench, case.situation, case.world.failsafe_mode);
        prepare(bench, &case.world).await;
        let request = case.request(&operation.method);
        let answer = tokio::select! {
            answer = bench.raw(&request) => answer,
            () = cluster(bench, case.world.successor) => unreachable!("it never ends"),
        };
        bench.memory.set_fault(Fault::None);
        missing.remove(&check(
            operation,
            &answer,
            &format!("{request:.2000}\nin {case:.3000?}"),
        ));
    }
    assert!(missing.is_empty(), "announced and never given: {missing:?}");
}

/// Method, path, status; 0 is a connection closed without an answer.
type Given = (String, String, u16);

fn announced(operation: &Operation) -> impl Iterator<Item = Given> {
    let status = |status: &u16| (operation.method.clone(), operation.path.clone(), *status);
    operation.answers.keys().map(status)
}

fn check(operation: &Operation, answer: &str, request: &str) -> Given {
    let answer = (!answer.is_empty()).then(|| http::parse(answer.as_bytes()).unwrap());
    if let Err(problem) = operation.check(answer.as_ref()) {
        panic!("{problem:#}\nin answer to {request}");
    }
    let status = answer.map_or(0, |answer| answer.status);
    (operation.method.clone(), operation.path.clone(), status)
}

fn publish(bench: &Bench, situation: usize, failsafe_mode: bool) {
    let situation = situations().swap_remove(situation);
    let situation = situation.with_global(|global| global.failsafe_mode |= failsafe_mode);
    bench.published.send_replace(Arc::new(situation));
}

/// `rest-api.md` §1.3: nothing else is answered but by a health check that fails, or a page.
#[tokio::test]
async fn what_is_not_described_is_not_there() {
    let contract = Contract::parse(DESCRIPTION).unwrap();
    let bench = open().await;
    let paths: BTreeSet<_> = contract
        .operations
        .iter()
        .map(|operation| &operation.path)
        .collect();
    for path in paths {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] {
            if contract.operation(method, path).is_ok() {
                continue;
            }
            let expected = match method {
                "GET" | "HEAD" | "OPTIONS" => 503,
                _ => 501,
            };
            let answer = bench
                .raw(&format!("{method} {path} HTTP/1.0\r\n\r\n"))
                .await;
            let answer = http::parse(answer.as_bytes()).unwrap();
            assert_eq!(answer.status, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_description_is_served() {
    let bench = open().await;
    let (code, text) = bench.ask("GET", "/openapi.json", None).await;
    assert_eq!((code, text.as_str()), (200, DESCRIPTION));
}

impl Case {
    fn request(&self, method: &str) -> String {
        let (length, body) = match &self.body {
            None => (String::new(), ""),
            Some(body) => (format!("Content-Length: {}\r\n", body.len()), body.as_str()),
        };
        let Case {
            path,
            authorization,
            ..
        } = self;
        format!("{method} {path} HTTP/1.0\r\n{authorization}{length}\r\n{body}")
    }
}

async fn open() -> Bench {
    Bench::new(primary(), section()).await
}

async fn coordinator() -> Bench {
    Bench::of_coordinator(primary(), section()).await
}

async fn with_password() -> Bench {
    let mut section = section();
    section.authentication = Some(BasicAuth {
        username: "patroni".into(),
        password: Secret::new("secret"),
    });
    Bench::new(primary(), section).await
}

async fn with_allowlist() -> Bench {
    let mut section = section();
    section.allowlist = vec!["192.0.2.0/24".into()];
    Bench::new(primary(), section).await
}

/// Members in all conditions that the status document tells apart.
fn situations() -> Vec<Published> {
    let configured = |view: &mut Cluster| {
        view.config = Some(primacy_model::DynamicConfig {
            version: Version(1),
            value: object(json!({"ttl": 30})),
        });
    };
    vec![
        primary(),
        replica(),
        replica().with_view(configured),
        replica()
            .with_view(listed_in_sync)
            .with_global(|global| global.synchronous_mode = SynchronousMode::On),
        replica()
            .with_view(listed_in_sync)
            .with_global(|global| global.synchronous_mode = SynchronousMode::Quorum),
        primary()
            .with(|p| p.role = Role::StandbyLeader)
            .with_global(|global| {
                global.standby_cluster = Some(StandbyCluster {
                    host: Some("up".into()),
                    ..Default::default()
                });
            })
            .with_wal(|wal| {
                wal.timeline = None;
                wal.replay_lsn = Lsn(7);
            }),
        primary()
            .with_global(|global| global.pause = true)
            .without_view(),
        replica().with_global(|global| global.pause = true),
        replica().without_view(),
        replica().without_answer(),
        replica()
            .with(|p| {
                p.state = State::CreatingReplica;
                p.role = Role::Uninitialized;
                p.next_pass = Instant::now() - PATIENCE * 60;
            })
            .without_answer(),
        replica()
            .with_global(|global| global.failsafe_mode = true)
            .with(|p| p.failsafe_map = Some(json!({"pg0": "http://10.0.0.11:8008/patroni"}))),
        primary()
            .with_global(|global| global.failsafe_mode = true)
            .without_view()
            .with(|p| p.failsafe_until = Some(p.view_until)),
        replica()
            .with(|p| {
                p.tags = Tags::from_json(
                    &json!({"clonefrom": true, "nofailover": true, "zone": "\u{e9}\"\\"}),
                );
                p.pending_restart = Some(PendingRestart {
                    reasons: [("max_connections".into(), ("50".into(), "61".into()))].into(),
                });
                p.scheduled_restart = Some(ScheduledRestart {
                    schedule: "2040-01-01T00:00:00+01:00".into(),
                    postmaster_start_time: Some("2026-11-20 23:13:29.134102+00:00".into()),
                    filters: object(
                        json!({"role": "replica", "timeout": 60, "restart_pending": false}),
                    ),
                });
                p.watchdog_failed = true;
                p.fence = Some("failed");
            })
            .with_wal(|wal| wal.replayed_timestamp_text = Some("2026-11-20 23:13:38+00".into())),
    ]
}

/// Fills the store: `pg0` leads, `pg1` answers by this very API, `pg2` does not answer.
async fn prepare(bench: &Bench, world: &World) {
    let store = &bench.store;
    let deadline = Instant::now() + PATIENCE;
    store.delete_cluster(deadline).await.unwrap();
    let lease = store.grant_lease(PATIENCE * 10, deadline).await.unwrap();
    for (name, address) in [
        ("pg0", "127.0.0.1:1"),
        ("pg1", &bench.address.to_string()),
        ("pg2", "127.0.0.1:1"),
    ] {
        let data = MemberData {
            api_url: Some(format!("http://{address}/patroni")),
            conn_url: Some("postgres://10.0.0.12:5432/postgres".into()),
            state: Some(State::Running),
            ..MemberData::default()
        };
        store
            .put_member(&name.into(), &data, &lease, deadline)
            .await
            .unwrap();
    }
    store
        .acquire_leader(&"pg0".into(), &lease, deadline)
        .await
        .unwrap();
    if let Some(config) = &world.config {
        let config = object(config.clone());
        store
            .write_config(&config, Expected::Anything, deadline)
            .await
            .unwrap();
    }
    if world.scheduled {
        let text = r#"{"leader":"pg0","scheduled_at":"2040-01-01T10:00:00+01:00"}"#;
        store
            .write_failover(text, Expected::Anything, deadline)
            .await
            .unwrap();
    }
    if !world.reachable {
        bench.memory.set_fault(Fault::Unavailable);
    }
}

/// What the agents of the cluster do meanwhile: they look at the store, and heed a failover key.
async fn cluster(bench: &Bench, successor: Option<&str>) {
    let store = &bench.store;
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let deadline = Instant::now() + PATIENCE;
        let read = store.read(deadline).await.unwrap();
        bench.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            if let Some(view) = &mut published.view {
                Arc::make_mut(view).config = read.config;
            }
        });
        let asked = read
            .failover
            .filter(|request| request.scheduled_at.is_none());
        let (Some(_), Some(leader)) = (asked, read.leader) else {
            continue;
        };
        if let Some(successor) = successor {
            let lease = store.grant_lease(PATIENCE * 10, deadline).await.unwrap();
            store.release_leader(&leader.name, deadline).await.unwrap();
            store
                .acquire_leader(&successor.into(), &lease, deadline)
                .await
                .unwrap();
        }
        store
            .write_failover("{}", Expected::Anything, deadline)
            .await
            .unwrap();
    }
}

fn cases(contract: &Contract, benches: usize) -> impl Strategy<Value = Case> {
    // Each as often as it has answers.
    let requests = contract
        .operations
        .iter()
        .enumerate()
        .map(|(index, operation)| {
            let answers = u32::try_from(operation.answers.len()).unwrap();
            (answers, (Just(index), request(operation)).boxed())
        });
    let requests = Union::new_weighted(requests.collect());
    let authorization = select(vec![
        "",
        "Authorization: Basic cGF0cm9uaTpzZWNyZXQ=\r\n",
        "Authorization: Basic cGF0cm9uaTp3cm9uZw==\r\n",
    ]);
    // Most are let in: the others are all answered alike.
    let benches = prop_oneof![8 => Just(0), 3 => 0..benches];
    (
        requests,
        benches,
        0..situations().len(),
        world(),
        authorization,
    )
        .prop_map(
            |((operation, (path, body)), bench, situation, world, authorization)| Case {
                operation,
                bench,
                situation,
                world,
                authorization,
                path,
                body,
            },
        )
}

fn world() -> impl Strategy<Value = World> {
    let configs = [
        json!({"ttl": 30}),
        json!({"pause": true}),
        json!({"synchronous_mode": true}),
    ];
    (
        prop::bool::weighted(0.9),
        any::<bool>(),
        weighted(0.8, select(configs.to_vec())),
        any::<bool>(),
        select(vec![None, Some("pg1"), Some("pg2")]),
    )
        .prop_map(
            |(reachable, failsafe_mode, config, scheduled, successor)| World {
                reachable,
                failsafe_mode,
                config,
                scheduled,
                successor,
            },
        )
}

/// The path with its query, and the body.
fn request(operation: &Operation) -> BoxedStrategy<(String, Option<String>)> {
    let path = operation.path.clone();
    let path = prop_oneof![8 => Just(path.clone()), 1 => Just(format!("{path}/x")), 1 => Just(format!("/{path}"))];
    let parameters: Vec<_> = operation.parameters.iter().map(parameter).collect();
    let query = parameters.prop_map(|parameters| parameters.concat());
    let target = (path, query).prop_map(|(path, query)| match query.is_empty() {
        true => path,
        false => format!("{path}?{query}"),
    });
    let body = match &operation.body {
        None => weighted(0.1, Just("{}".to_owned())).boxed(),
        Some(schema) => {
            let broken = ["", "{", "{}", "[]", "null", "{\"a\": \"\u{e9}"].map(str::to_owned);
            let too_long = || format!("{{\"a\": \"{}\"}}", "x".repeat(1024 * 1024 + 1 - 9));
            weighted(
                0.9,
                prop_oneof![
                    30 => value(schema).prop_map(|value| value.to_string()),
                    5 => select(broken.to_vec()),
                    3 => Just(()).prop_map(move |()| too_long()),
                ],
            )
            .boxed()
        }
    };
    (target, body).boxed()
}

/// A parameter as a part of a query string, or nothing.
fn parameter(parameter: &Value) -> BoxedStrategy<String> {
    let name = parameter["name"].as_str().unwrap().to_owned();
    weighted(0.2, value(&parameter["schema"]))
        .prop_map(move |value| match value {
            None => String::new(),
            Some(Value::Object(map)) => map.iter().map(|(name, value)| pair(name, value)).collect(),
            Some(value) => pair(&name, &value),
        })
        .boxed()
}

fn pair(name: &str, value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let encode =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    format!("{}={}&", encode(name), encode(&text))
}

/// Values that fit a schema, mostly.
fn value(schema: &Value) -> BoxedStrategy<Value> {
    prop_oneof![9 => fitting(schema), 1 => anything()].boxed()
}

fn fitting(schema: &Value) -> BoxedStrategy<Value> {
    for key in ["enum", "examples"] {
        if let Some(values) = schema.get(key).and_then(Value::as_array) {
            return select(values.clone()).boxed();
        }
    }
    if let Some(schemas) = schema.get("anyOf").and_then(Value::as_array) {
        return Union::new(schemas.iter().map(fitting)).boxed();
    }
    if schema.get("format").is_some() {
        let times = [
            "2999-01-01T10:00:00+01:00",
            "2999-01-01 10:00Z",
            "2999-01-01T10:00",
            "2001-01-01T00:00:00Z",
            "soon",
        ];
        return select(times.to_vec()).prop_map(Value::from).boxed();
    }
    match (schema["type"].as_str(), schema["pattern"].as_str()) {
        (Some("string"), Some(pattern)) => {
            string_regex(pattern).unwrap().prop_map(Value::from).boxed()
        }
        (Some("string"), None) => text(),
        (Some("integer"), _) => (0..3000_i64).prop_map(Value::from).boxed(),
        (Some("boolean"), _) => any::<bool>().prop_map(Value::from).boxed(),
        (Some("object"), _) => members(schema),
        _ => anything(),
    }
}

/// Most of an object's members, and perhaps one that nobody knows.
fn members(schema: &Value) -> BoxedStrategy<Value> {
    let required = schema["required"].as_array().into_iter().flatten();
    let required: Vec<_> = required.filter_map(Value::as_str).collect();
    let known = schema["properties"].as_object().into_iter().flatten();
    let known = known.map(|(name, schema)| {
        let share = if required.contains(&name.as_str()) {
            0.95
        } else {
            0.3
        };
        (Just(name.clone()), weighted(share, value(schema))).boxed()
    });
    let unknown = (Just("unknown".to_owned()), weighted(0.05, anything())).boxed();
    let members: Vec<_> = known.chain([unknown]).collect();
    members
        .prop_map(|members| {
            let given = members
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            Value::Object(given.collect())
        })
        .boxed()
}

fn text() -> BoxedStrategy<Value> {
    let text = string_regex("[ -~\u{e9}\u{3c0}]{0,8}").unwrap();
    text.prop_map(Value::from).boxed()
}

fn anything() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5..40_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text(),
        Just(json!([])),
        Just(json!({"a": {"b": null}})),
    ]
    .boxed()
}
