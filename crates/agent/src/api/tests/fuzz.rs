//! What clients and other members send, spoiled; `make fuzz`.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::{Bench, PATIENCE, section};
use super::replica;
use crate::api::route::{Query, Route, collapse};
use crate::api::switchover::{Action, Wish};
use crate::api::time::Schedule;
use crate::peers::PeerStatus;

/// Paths with queries.
#[test]
#[ignore = "long: make fuzz"]
fn paths_and_queries() {
    let samples = [
        "GET //replica?lag=16MB&tag_a=%41+b&replication_state=streaming",
        "POST /restart?x",
        "DELETE /switchover/../patroni?=&&a=%f",
    ];
    primacy_fuzz::text(&samples, |input| {
        let (method, rest) = input.split_once(' ').unwrap_or(("GET", input));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = collapse(path);
        assert!(path.starts_with('/') && !path.starts_with("//"));
        let _ = Route::find(method, &path).is_protected();
        let query = Query::parse(query);
        query.tags().count() > 0 || query.get("lag").is_some()
    });
}

/// Bodies, and what members answer about themselves.
#[test]
#[ignore = "long: make fuzz"]
fn bodies() {
    let samples = [
        r#"{"leader":"a","candidate":"b","scheduled_at":"2036-01-01T10:00:00.5+02:00"}"#,
        r#"{"schedule":"20360101 100000Z","role":"primary","postgres_version":"15.4","timeout":"1min","restart_pending":true}"#,
        r#"{"state":"running","role":"replica","xlog":{"received_location":67108960,"replayed_location":1,"paused":false},"timeline":1,"tags":{"nosync":true},"watchdog_failed":true}"#,
    ];
    let now = Timestamp::UNIX_EPOCH;
    primacy_fuzz::text(&samples, |input| {
        let Ok(value) = serde_json::from_str::<Value>(input) else {
            return false;
        };
        let peer = PeerStatus::from_json(&value);
        let nothing = Map::new();
        let body = value.as_object().unwrap_or(&nothing);
        let mut understood = peer.is_some();
        for action in [Action::Switchover, Action::Failover] {
            understood |= Wish::new(action, body, false, now).is_ok();
        }
        for value in body.values() {
            if let Ok(schedule) = Schedule::parse(value, "restart", now) {
                // As it is echoed it can be asked for again.
                let echoed = Value::from(schedule.to_string());
                assert!(Schedule::parse(&echoed, "restart", now).is_ok(), "{echoed}");
                understood = true;
            }
        }
        understood
    });
}

/// Bytes on the socket: whatever they are, the server answers, or hangs up, and serves the next one.
#[test]
#[ignore = "long: make fuzz"]
fn connections() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(Bench::new(replica(), section()));
    let samples: [&[u8]; 4] = [
        b"OPTIONS /replica?lag=1MB HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /patroni HTTP/1.0\r\nAuthorization: Basic dTpw\r\nAccept: */*\r\n\r\n",
        b"PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"ttl\": 30}\n",
        b"PUT /config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
    ];
    primacy_fuzz::bytes(&samples, |input| {
        let answer = runtime.block_on(exchange(&bench, input, true));
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{}",
            answer.escape_ascii()
        );
        answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200")
    });
    let alive = runtime.block_on(exchange(&bench, samples[1], false));
    assert!(alive.starts_with(b"HTTP/1."));
}

/// Sends bytes as they are, and returns everything that comes back. Who has hung up, so that no more can come, need not be
/// answered.
async fn exchange(bench: &Bench, bytes: &[u8], hang_up: bool) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let mut answer = Vec::new();
        // The server may have hung up already.
        let _ = stream.write_all(bytes).await;
        if hang_up {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("the server neither answers nor hangs up")
}
