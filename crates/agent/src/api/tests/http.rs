//! The API over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::local::BasicAuth;
use primacy_config::{HostPort, Secret, TimingLimits};
use primacy_dcs::{ClusterStore, Expected, Fault, MemoryStore};
use primacy_model::{Lsn, PendingRestart};
use primacy_net::{ClientOptions, HttpClient};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::access::Access;
use super::super::answer::Answer;
use super::super::switchover::{Action, Wish};
use super::super::{Api, ApiError, ApiServer};
use super::bench::{Bench, PATIENCE, header, raw, section};
use super::*;
use crate::logging::LogQueue;
use crate::request::Request;

#[tokio::test]
async fn protected_requests_need_credentials_and_an_address() {
    let mut section = section();
    section.authentication = Some(BasicAuth {
        username: "patroni".into(),
        password: Secret::new("secret"),
    });
    let bench = Bench::new(primary(), section.clone()).await;
    let refused = bench
        .raw("POST /mpp HTTP/1.0\r\nContent-Length: 99\r\n\r\n")
        .await;
    assert!(
        refused.starts_with("HTTP/1.0 401 Unauthorized\r\n"),
        "{refused}"
    );
    assert_eq!(
        header(&refused, "WWW-Authenticate"),
        Some("Basic realm=\"Patroni\"")
    );
    assert!(refused.ends_with("no auth header received"));
    let wrong = bench
        .raw("POST /reload HTTP/1.0\r\nAuthorization: Basic xxx\r\n\r\n")
        .await;
    assert!(wrong.ends_with("\r\n\r\nnot authenticated"), "{wrong}");
    let right = "POST /reload HTTP/1.0\r\nAuthorization: Basic cGF0cm9uaTpzZWNyZXQ=\r\n\r\n";
    assert!(bench.raw(right).await.ends_with("reload scheduled"));
    assert!(
        bench
            .raw("GET /patroni HTTP/1.0\r\n\r\n")
            .await
            .starts_with("HTTP/1.0 200")
    );

    // A reload takes effect without a new listener, and a dual-stack one knows IPv4 clients (A6).
    let mut bench = bench;
    section.allowlist = vec!["192.0.2.0/24".into()];
    let peers = || HttpClient::new(ClientOptions::default());
    bench.server.reconfigure(&section, peers()).await.unwrap();
    assert!(bench.raw(right).await.ends_with("Access is denied"));
    section.listen.host = "*".into();
    section.allowlist = vec!["127.0.0.0/8".into()];
    bench.server.reconfigure(&section, peers()).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], bench.server.local_address().unwrap().port()));
    assert_ne!(address, bench.address);
    assert!(raw(address, right).await.ends_with("reload scheduled"));
    bench.server.stop().await;
}

/// §2.2: members are looked up in the view, for every request but those between members.
#[tokio::test]
async fn members_may_change_what_strangers_may_not() {
    let mut section = section();
    section.allowlist = vec!["192.0.2.0/24".into()];
    section.allowlist_include_members = true;
    let failsafe = |global: &mut GlobalConfig| global.failsafe_mode = true;
    let bench = Bench::new(replica().with_global(failsafe), section).await;
    let denied = (403, "Access is denied".to_owned());
    assert_eq!(bench.ask("POST", "/reload", None).await, denied);
    let joined = replica().with_global(failsafe).with_view(|view| {
        view.members[2].data.api_url = Some("http://127.0.0.1:8008/patroni".into());
    });
    bench.published.send_replace(Arc::new(joined));
    assert_eq!(bench.ask("POST", "/reload", None).await.0, 202);
    assert_eq!(bench.ask("POST", "/failsafe", None).await, denied);
}

/// §2.2: what cannot be used of the list lets nobody in, and is told of in the known words.
#[tokio::test]
async fn entries_of_the_list_that_cannot_be_used_are_told_of() {
    let mut section = section();
    let entries = ["10.0.0.0/33", "nowhere.invalid", "192.0.2.1"];
    section.allowlist = entries.map(String::from).into();
    section.allowlist_include_members = true;
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt().with_writer(log.reopen().unwrap());
    let access = {
        let _told = tracing::subscriber::set_default(subscriber.finish());
        Access::new(&section).await
    };
    let told = std::fs::read_to_string(log.path()).unwrap();
    for sentence in [
        "Invalid value \"10.0.0.0/33\" in the allowlist: ",
        "Failed to resolve nowhere.invalid: ",
    ] {
        let line = told.lines().find(|line| line.contains(sentence));
        assert!(line.is_some_and(|line| line.contains("ERROR")), "{told}");
    }
    // Members are looked up for those who are not on the list.
    assert!(access.needs_members("10.0.0.1".parse().unwrap()));
    assert!(!access.needs_members("192.0.2.1".parse().unwrap()));
}

#[tokio::test]
async fn an_address_in_use_is_told_in_patronis_words() {
    let bench = Bench::new(replica(), section()).await;
    let mut taken = section();
    taken.listen.port = bench.address.port();
    let mut other = Bench::new(replica(), section()).await;
    let error = other
        .server
        .reconfigure(&taken, HttpClient::new(ClientOptions::default()))
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::Bind { .. }));
    let expected = format!(
        "Couldn't start a service on '127.0.0.1:{}', please check your `restapi.listen` configuration",
        bench.address.port()
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(
        other.ask("GET", "/replica", None).await.0,
        200,
        "the old listener still serves"
    );
}

/// §1.8, `request_queue_size`: what waits in the kernel, as `ss` tells it, and never less than a burst of health checks.
#[tokio::test]
async fn a_burst_of_connections_finds_a_place() {
    for (configured, expected) in [(5, "128"), (1, "128"), (300, "300")] {
        let mut section = section();
        section.request_queue_size = configured;
        let bench = Bench::new(replica(), section).await;
        let port = format!("sport = :{}", bench.address.port());
        let listening = tokio::process::Command::new("ss")
            .args(["-Hltn", &port])
            .output();
        let told = String::from_utf8(listening.await.unwrap().stdout).unwrap();
        assert_eq!(
            told.split_whitespace().nth(2),
            Some(expected),
            "{configured}: {told}"
        );
    }
}

#[tokio::test]
async fn a_wider_address_of_the_same_port_can_be_taken() {
    let mut bench = Bench::new(replica(), section()).await;
    let mut wider = section();
    wider.listen = HostPort {
        host: "0.0.0.0".into(),
        port: bench.address.port(),
    };
    let mut narrow = section();
    narrow.listen.port = bench.address.port();
    let peers = || HttpClient::new(ClientOptions::default());
    bench.server.reconfigure(&wider, peers()).await.unwrap();
    assert_eq!(bench.ask("GET", "/replica", None).await.0, 200);
    bench.server.reconfigure(&narrow, peers()).await.unwrap();
    assert_eq!(bench.ask("GET", "/replica", None).await.0, 200);
}

#[tokio::test]
async fn operations() {
    let published = replica().with_global(|global| global.failsafe_mode = true);
    let bench = Bench::new(published, section()).await;
    let schedule = json!({"schedule": "2999-01-01T00:00Z"});
    let leader = json!({"name": "pg0", "conn_url": "c", "api_url": "a", "slots": {"s": 5}});
    let stranger = json!({"name": "pg7", "conn_url": "c", "api_url": "a"});
    let cases = [
        ("POST", "/restart", None, 200, "restarted successfully"),
        (
            "POST",
            "/restart",
            Some(json!({"restart_pending": false})),
            503,
            "restart conditions are not satisfied",
        ),
        ("DELETE", "/restart", None, 404, "no restarts are scheduled"),
        (
            "POST",
            "/restart",
            Some(schedule.clone()),
            202,
            "Restart scheduled",
        ),
        (
            "POST",
            "/restart",
            Some(schedule),
            409,
            "Another restart is already scheduled",
        ),
        ("DELETE", "/restart", None, 200, "scheduled restart deleted"),
        (
            "POST",
            "/reinitialize",
            None,
            503,
            "restart already in progress",
        ),
        (
            "POST",
            "/reinitialize",
            Some(json!({"force": "on", "from_leader": 1})),
            200,
            "reinitialize started",
        ),
        ("POST", "/sigterm", None, 202, "shutdown scheduled"),
        ("POST", "/failsafe", Some(leader), 200, "Accepted"),
        (
            "POST",
            "/failsafe",
            Some(stranger),
            500,
            "Another leader is known: pg7",
        ),
    ];
    for (method, path, body, code, text) in cases {
        let asked = format!("{method} {path} {body:?}");
        assert_eq!(
            bench.ask(method, path, body).await,
            (code, text.to_owned()),
            "{asked}"
        );
    }
    let off = Bench::new(replica(), section()).await;
    assert_eq!(off.ask("POST", "/failsafe", None).await.0, 502);
    assert_eq!(off.ask("GET", "/failsafe", None).await.0, 502);
    let emptied = replica().with(|p| p.failsafe_map = Some(json!({})));
    off.published.send_replace(Arc::new(emptied));
    let told = off.ask("GET", "/failsafe", None).await;
    assert_eq!(told, (200, "{}".into()));
    let metrics = off.ask("GET", "/metrics", None).await.1;
    let member = r#"patroni_failsafe_member{scope="demo",name="pg1"} 0"#;
    assert!(metrics.contains(member), "{metrics}");
    let leading = Bench::new(
        primary().with_global(|global| global.failsafe_mode = true),
        section(),
    )
    .await;
    let asked = leading
        .ask("POST", "/failsafe", Some(json!({"x": 1})))
        .await;
    assert_eq!(asked, (500, "Running as a leader".into()));
}

/// §8.7: whoever leads the coordinator's group says what is wrong with an event, to the others it does not matter.
#[tokio::test]
async fn an_event_that_is_none_is_refused_by_who_would_act_on_it() {
    let event = json!({"type": "after_promote", "group": 1, "leader": "w1", "timeout": 30});
    let bench = Bench::of_coordinator(primary(), section()).await;
    let bystander = Bench::of_coordinator(replica(), section()).await;
    for path in ["/citus", "/mpp"] {
        let ask = async |bench: &Bench| bench.ask("POST", path, Some(event.clone())).await;
        assert_eq!(ask(&bench).await, (400, "cooldown is missing".into()));
        assert_eq!(ask(&bystander).await, (200, "OK".into()));
    }
}

/// The configuration over the store, with the view following it as the loop would have it.
#[tokio::test]
async fn configuration_is_written_and_read() {
    let bench = Bench::new(replica().without_view(), section()).await;
    assert_eq!(bench.ask("GET", "/config", None).await.0, 502);
    assert_eq!(
        bench
            .ask("PATCH", "/config", Some(json!({"ttl": 20})))
            .await
            .0,
        503
    );
    let text = |text: &str| (200, text.to_owned());
    let put = bench
        .ask(
            "PUT",
            "/config",
            Some(json!({"ttl": "garbage", "a": {"b": 1}})),
        )
        .await;
    assert_eq!(put, text(r#"{"ttl": "garbage", "a": {"b": 1}}"#));
    let patched = bench
        .ask(
            "PATCH",
            "/config",
            Some(json!({"ttl": 30, "a": {"b": null, "c": [1]}, "x": null})),
        )
        .await;
    assert_eq!(patched, text(r#"{"ttl": 30, "a": {"c": [1]}}"#));
    let before = bench
        .store
        .read(Instant::now() + PATIENCE)
        .await
        .unwrap()
        .config
        .unwrap()
        .version;
    assert_eq!(
        bench
            .ask("PATCH", "/config", Some(json!({"ttl": "30"})))
            .await
            .0,
        200
    );
    let same = json!({"ttl": "30", "a": {"c": [1]}});
    assert_eq!(
        bench.ask("PUT", "/config", Some(same)).await,
        text(r#"{"ttl": "30", "a": {"c": [1]}}"#)
    );
    let after = bench
        .store
        .read(Instant::now() + PATIENCE)
        .await
        .unwrap()
        .config
        .unwrap()
        .version;
    assert_eq!(before, after, "nothing changed, nothing written");
    assert_eq!(
        bench.ask("GET", "/config", None).await,
        text(r#"{"ttl": 30, "a": {"c": [1]}}"#)
    );
    assert_eq!(bench.ask("GET", "/history", None).await, text("[]"));
    assert_eq!(
        bench.ask("GET", "/cluster", None).await,
        text(r#"{"members": [], "scope": "demo"}"#)
    );
}

/// §7.3, §8.2: another one's write between reading and writing.
#[tokio::test]
async fn who_comes_second_is_told_so() {
    let (bench, mut reads) = Bench::gated(replica(), section()).await;
    let deadline = || Instant::now() + PATIENCE;
    let store = &bench.store;
    let write_config = async |ttl: u64| {
        let config = object(json!({ "ttl": ttl }));
        let written = store.write_config(&config, Expected::Anything, deadline());
        written.await.unwrap()
    };
    let write_failover = async |day: u64| {
        let at = format!(r#"{{"leader":"pg0","scheduled_at":"2999-01-0{day}T10:00:00Z"}}"#);
        let written = store.write_failover(&at, Expected::Anything, deadline());
        written.await.unwrap()
    };

    write_config(30).await;
    let change = bench.ask("PATCH", "/config", Some(json!({"pause": true})));
    let (answer, _) = tokio::join!(change, reads.then(write_config(31)));
    assert_eq!(answer.0, 409);
    write_failover(1).await;
    let deletion = bench.ask("DELETE", "/switchover", None);
    let (answer, _) = tokio::join!(deletion, reads.then(write_failover(2)));
    assert_eq!(answer.0, 409);

    let cluster = store.read(deadline()).await.unwrap();
    assert_eq!(cluster.config.unwrap().value, object(json!({"ttl": 31})));
    assert!(cluster.failover.is_some());
}

/// §7.3: the store is lost between reading and writing.
#[tokio::test]
async fn a_configuration_that_was_not_written_is_not_told_as_written() {
    let (bench, mut reads) = Bench::gated(replica(), section()).await;
    let change = bench.ask("PUT", "/config", Some(json!({"ttl": 30})));
    let lost = reads.then(async { bench.memory.set_fault(Fault::Unavailable) });
    let (answer, ()) = tokio::join!(change, lost);
    assert_eq!(answer.0, 502);
}

/// §8.1, row 15: the same for a switchover, of which nothing would show.
#[tokio::test]
async fn a_switchover_that_was_not_written_is_not_told_as_scheduled() {
    let (bench, mut reads) = Bench::gated(replica(), section()).await;
    let body = json!({"leader": "pg0", "candidate": "pg1", "scheduled_at": "2999-01-01 10:00Z"});
    for lost in [Fault::Unavailable, Fault::RequestLost] {
        bench.memory.set_fault(Fault::None);
        let asked = bench.ask("POST", "/switchover", Some(body.clone()));
        let lost = reads.then(async { bench.memory.set_fault(lost) });
        let (answer, ()) = tokio::join!(asked, lost);
        let text = "failed to write failover key into DCS".to_owned();
        assert_eq!(answer, (503, text));
    }
}

/// §8.1, the last row.
#[tokio::test(start_paused = true)]
async fn a_switchover_of_which_nothing_shows_may_still_happen() {
    let (api, _requests) = api();
    let failover = object(json!({"candidate": "pg1"}));
    let switchover = object(json!({"leader": "pg0"}));
    for (action, body, loop_wait, expected) in [
        (
            Action::Failover,
            failover,
            5,
            "Failover status unknown after 20 seconds; operation may still be in progress",
        ),
        (
            Action::Switchover,
            switchover,
            15,
            "Switchover status unknown after 30 seconds; operation may still be in progress",
        ),
    ] {
        let wish = Wish::new(action, &body, false, Timestamp::now()).unwrap();
        let global = GlobalConfig {
            loop_wait: Duration::from_secs(loop_wait),
            ..GlobalConfig::default()
        };
        let answer = api.poll(&wish, &global, Some(&"pg0".into())).await;
        assert_eq!(answer, Answer::text(503, expected));
    }
}

/// §8.4: the loop ends before the restart does.
#[tokio::test]
async fn a_restart_that_nobody_answers_for_has_failed() {
    let (api, mut requests) = api();
    let (answer, _) = tokio::join!(api.restart(Map::new()), async {
        drop(requests.recv().await);
    });
    assert_eq!(answer, Ok(Answer::text(400, "restart failed")));
}

/// An API without a listener, and what it asks of the machine.
fn api() -> (Api, mpsc::Receiver<Request>) {
    let published = watch::channel(Arc::new(replica())).1;
    let (requests, asked) = mpsc::channel(8);
    let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
    let peers = HttpClient::new(ClientOptions::default());
    let (limits, log) = (TimingLimits::PATRONI, LogQueue::default());
    let api = Api::new(published, requests, store, limits, peers, log);
    (api, asked)
}

/// §8.2.
#[tokio::test]
async fn a_failover_under_way_is_not_deleted() {
    let bench = Bench::new(replica(), section()).await;
    let (store, deadline) = (&bench.store, || Instant::now() + PATIENCE);
    let key = r#"{"leader":"pg0","member":"pg1"}"#;
    let written = store.write_failover(key, Expected::Anything, deadline());
    written.await.unwrap();
    let answer = bench.ask("DELETE", "/switchover", None).await;
    assert_eq!(answer, (404, "no switchover is scheduled".into()));
    let failover = store.read(deadline()).await.unwrap().failover.unwrap();
    assert_eq!(failover.candidate.as_deref(), Some("pg1"));
}

#[tokio::test]
async fn scheduled_switchovers_come_and_go() {
    let bench = Bench::new(replica(), section()).await;
    let body = json!({"leader": "pg0", "candidate": "pg1", "scheduled_at": "2999-01-01 10:00+01"});
    assert_eq!(
        bench.ask("POST", "/switchover", Some(body)).await,
        (202, "Switchover scheduled".into())
    );
    let cluster = bench.ask("GET", "/cluster", None).await.1;
    assert!(cluster.contains(r#""scheduled_switchover": {"at": "2999-01-01T10:00:00+01:00", "from": "pg0", "to": "pg1"}"#), "{cluster}");
    assert_eq!(
        bench.ask("DELETE", "/switchover", None).await,
        (200, "scheduled switchover deleted".into())
    );
    assert_eq!(
        bench.ask("DELETE", "/switchover", None).await,
        (404, "no switchover is scheduled".into())
    );
}

/// A whole switchover: the candidate is asked over its own API, and a made-up leader hands over.
#[tokio::test]
async fn switchover_follows_the_leader_key() {
    let candidate = Bench::new(replica(), section()).await;
    let bench = Bench::new(primary(), section()).await;
    let deadline = || Instant::now() + PATIENCE;
    let store = &bench.store;
    let lease = store.grant_lease(PATIENCE * 10, deadline()).await.unwrap();
    let data = MemberData {
        api_url: Some(format!("http://{}/patroni", candidate.address)),
        ..MemberData::default()
    };
    store
        .put_member(&"pg1".into(), &data, &lease, deadline())
        .await
        .unwrap();
    store
        .acquire_leader(&"pg0".into(), &lease, deadline())
        .await
        .unwrap();

    let hand_over = async {
        while store.read(deadline()).await.unwrap().failover.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store
            .release_leader(&"pg0".into(), deadline())
            .await
            .unwrap();
        store
            .acquire_leader(&"pg1".into(), &lease, deadline())
            .await
            .unwrap();
        store
            .write_failover("{}", Expected::Anything, deadline())
            .await
            .unwrap();
    };
    let ask = bench.ask(
        "POST",
        "/switchover",
        Some(json!({"leader": "pg0", "candidate": "pg1"})),
    );
    let (answer, ()) = tokio::join!(ask, hand_over);
    assert_eq!(
        answer,
        (200, "Successfully switched over to \"pg1\"".into())
    );

    let gone = MemberData {
        api_url: Some("http://127.0.0.1:1/patroni".into()),
        ..MemberData::default()
    };
    store
        .put_member(&"pg0".into(), &gone, &lease, deadline())
        .await
        .unwrap();
    let refused = bench
        .ask("POST", "/failover", Some(json!({"candidate": "pg0"})))
        .await;
    assert_eq!(
        refused,
        (
            412,
            "failover is not possible: no good candidates have been found".into()
        )
    );
}

/// The machine is stuck: the lock still answers for the primary, and nothing old is told.
#[tokio::test]
async fn health_checks_do_not_wait_for_a_stuck_machine() {
    let old = Instant::now() - Duration::from_secs(5);
    let (publish, published) = watch::channel(Arc::new(primary().with(|p| p.observed_at = old)));
    let (requests, _stuck) = mpsc::channel(1);
    let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
    let peers = HttpClient::new(ClientOptions::default());
    let api = Api::new(
        published,
        requests,
        store,
        TimingLimits::PATRONI,
        peers,
        LogQueue::default(),
    );
    let server = ApiServer::start(api, &section()).await.unwrap();
    let address = server.local_address().unwrap();
    let answer = raw(address, "GET /primary HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(
        answer.contains(r#"{"state": "unknown", "role": "primary", "dcs_last_seen""#),
        "{answer}"
    );
    let age: u64 = header(&answer, "X-Primacy-Observed-Ago-Ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!(age >= 5000);
    publish.send_modify(|published| Arc::make_mut(published).lease_until = Some(old));
    assert!(
        raw(address, "GET /primary HTTP/1.0\r\n\r\n")
            .await
            .starts_with("HTTP/1.0 503")
    );
}

/// Members compare positions in a race: what they are told is from a look that began after they asked. Others share a
/// look while it is young, and what was made of it, until there is another snapshot.
#[tokio::test]
async fn a_member_that_asks_has_the_server_looked_at() {
    // As young as can be, however slow the test.
    let young = Instant::now() + Duration::from_secs(3600);
    let (publish, published) = watch::channel(Arc::new(primary().with(|p| p.observed_at = young)));
    let (requests, mut asked) = mpsc::channel(8);
    let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
    let peers = HttpClient::new(ClientOptions::default());
    let (limits, log) = (TimingLimits::PATRONI, LogQueue::default());
    let api = Api::new(published.clone(), requests, store, limits, peers, log);
    let server = ApiServer::start(api, &section()).await.unwrap();
    let address = server.local_address().unwrap();
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            if let Request::Observe { reply } = request {
                let mut look = (*published.borrow().observation).clone();
                look.wal.as_mut().unwrap().flush_lsn = Lsn(77);
                let _ = reply.send(Arc::new(look));
            }
        }
    });
    let ask = async |agent: &str| {
        let request = format!("GET /patroni HTTP/1.0\r\nUser-Agent: {agent}\r\n\r\n");
        raw(address, &request).await
    };
    let new = r#""xlog": {"location": 77}"#;
    for member in ["Patroni/4.1.5 Python/3.11.2 Linux", "primacy/0.1.0"] {
        let answer = ask(member).await;
        assert!(answer.contains(new), "{member}: {answer}");
    }
    for _ in 0..2 {
        let answer = ask("curl/7.88.1").await;
        assert!(
            answer.contains(r#""xlog": {"location": 50331744}"#),
            "{answer}"
        );
        assert!(!answer.contains("pending_restart"), "{answer}");
    }
    publish.send_modify(|published| {
        Arc::make_mut(published).pending_restart = Some(PendingRestart::default());
    });
    let answer = ask("curl/7.88.1").await;
    assert!(answer.contains(r#""pending_restart": true"#), "{answer}");
    publish
        .send_modify(|published| Arc::make_mut(published).observed_at = Instant::now() - PATIENCE);
    let answer = ask("curl/7.88.1").await;
    assert!(answer.contains(new), "{answer}");
}

/// §3.1, `dcs_last_seen`: also a read for a request counts, and is told once.
#[tokio::test]
async fn a_read_beside_the_loop_is_told_to_it() {
    let (publish, published) = watch::channel(Arc::new(primary()));
    let (requests, mut told) = mpsc::channel(8);
    let store = ClusterStore::new(MemoryStore::new(), "service", "demo");
    let peers = HttpClient::new(ClientOptions::default());
    let (limits, log) = (TimingLimits::PATRONI, LogQueue::default());
    let api = Api::new(published, requests, store, limits, peers, log);
    let server = ApiServer::start(api, &section()).await.unwrap();
    let address = server.local_address().unwrap();
    let ask = || raw(address, "GET /cluster HTTP/1.0\r\n\r\n");
    publish.send_modify(|published| Arc::make_mut(published).dcs_last_seen = 0);
    ask().await;
    assert!(matches!(told.try_recv(), Ok(Request::StoreRead)));
    publish.send_modify(|published| Arc::make_mut(published).dcs_last_seen = i64::MAX);
    ask().await;
    assert!(told.try_recv().is_err());
}

/// §9, the DCS is lost.
#[tokio::test]
async fn without_the_store_only_what_needs_it_fails() {
    let bench = Bench::new(primary(), section()).await;
    bench.memory.set_fault(Fault::Unavailable);
    assert_eq!(bench.ask("GET", "/primary", None).await.0, 200);
    assert_eq!(
        bench.ask("GET", "/history", None).await.0,
        200,
        "from the view"
    );
    let cluster = bench.raw("GET /cluster HTTP/1.0\r\n\r\n").await;
    assert!(cluster.is_empty(), "{cluster}");
    bench
        .published
        .send_modify(|published| *published = Arc::new(primary().without_view()));
    // 0: the connection is closed.
    let cases = [
        ("GET", "/primary", "", 200),
        ("GET", "/liveness", "", 200),
        ("GET", "/readiness", "", 200),
        ("GET", "/patroni", "", 200),
        ("GET", "/metrics", "", 200),
        ("GET", "/cluster", "", 0),
        ("GET", "/history", "", 0),
        ("GET", "/config", "", 0),
        ("GET", "/failsafe", "", 502),
        ("PATCH", "/config", r#"{"ttl": 20}"#, 0),
        ("PUT", "/config", r#"{"ttl": 20}"#, 0),
        ("POST", "/switchover", r#"{"leader": "pg0"}"#, 0),
        ("POST", "/failover", r#"{"candidate": "pg1"}"#, 0),
        ("DELETE", "/switchover", "", 0),
        ("DELETE", "/restart", "", 404),
        ("POST", "/restart", "", 200),
        ("POST", "/reinitialize", "", 503),
        ("POST", "/reload", "", 202),
        ("POST", "/sigterm", "", 202),
        ("POST", "/mpp", r#"{"type": "after_promote"}"#, 200),
    ];
    for (method, path, body, expected) in cases {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = bench.raw(&request).await;
        let code = answer
            .split(' ')
            .nth(1)
            .map_or(0, |code| code.parse().unwrap());
        assert_eq!(code, expected, "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn the_journal_is_told_by_time_and_number() {
    let bench = Bench::new(primary(), section()).await;
    let window = "since=2026-11-21T02:00:00Z&until=2026-11-21T03:00:00%2B01:00&limit=5";
    for (query, expected) in [
        ("", "HTTP/1.0 200 OK"),
        (window, "HTTP/1.0 200 OK"),
        ("limit=many", "HTTP/1.0 400 Bad Request"),
        ("since=tonight", "HTTP/1.0 400 Bad Request"),
    ] {
        let answer = bench
            .raw(&format!("GET /journal?{query} HTTP/1.0\r\n\r\n"))
            .await;
        assert!(answer.starts_with(expected), "{query}: {answer}");
        if expected.ends_with("OK") {
            assert_eq!(header(&answer, "Content-Type"), Some("application/json"));
            assert!(answer.ends_with("[]\n"), "{answer}");
        }
    }
    bench.server.stop().await;
}
