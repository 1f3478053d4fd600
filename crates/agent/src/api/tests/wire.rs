//! Requests and answers as bytes: the first line, headers, bodies, connections.

use primacy_config::local::ServerTokens;
use primacy_model::Tags;
use primacy_net::{ClientOptions, HttpClient};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::{Bench, PATIENCE, header, section};
use super::*;

/// `rest-api.md` §1.2.
#[tokio::test]
async fn shapes() {
    let mut section = section();
    section.http_extra_headers = [("X-Foo", "bar"), ("Bad Name", "x")]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    let bench = Bench::new(primary(), section).await;

    let json = bench.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(json.starts_with("HTTP/1.0 200 OK\r\n"), "{json}");
    assert_eq!(header(&json, "Content-Type"), Some("application/json"));
    assert_eq!(header(&json, "X-Foo"), Some("bar"));
    assert!(header(&json, "Server").unwrap().starts_with("Patroni/4."));
    assert!(header(&json, "Date").is_some());
    let age: u128 = header(&json, "X-Primacy-Observed-Ago-Ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!(age < PATIENCE.as_millis());
    assert!(json.contains("\r\n\r\n{\"state\": \"running\", "), "{json}");

    for request in [
        "HEAD / HTTP/1.0\r\n\r\n",
        "OPTIONS /primary HTTP/1.0\r\n\r\n",
        "GET /liveness HTTP/1.0\r\n\r\n",
    ] {
        let status = bench.raw(request).await;
        assert!(
            status.starts_with("HTTP/1.0 200 OK\r\n") && status.ends_with("\r\n\r\n"),
            "{status}"
        );
        assert_eq!(header(&status, "X-Foo"), None);
        assert_eq!(header(&status, "Server"), None);
    }
    let unavailable = bench.raw("OPTIONS /replica HTTP/1.0\r\n\r\n").await;
    assert!(
        unavailable.starts_with("HTTP/1.0 503 Service Unavailable\r\n"),
        "{unavailable}"
    );

    let text = bench.raw("POST /reload HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 202 Accepted\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nreload scheduled"), "{text}");
    assert_eq!(header(&text, "Content-Type"), Some("text/html"));
    assert_eq!(header(&text, "Connection"), Some("close"));

    let page = bench.raw("POST /nowhere HTTP/1.0\r\n\r\n").await;
    assert!(
        page.starts_with("HTTP/1.0 501 Unsupported method ('POST')\r\n"),
        "{page}"
    );
    assert_eq!(
        header(&page, "Content-Type"),
        Some("text/html;charset=utf-8")
    );
    assert_eq!(header(&page, "Content-Length"), Some("357"));
    assert_eq!(header(&page, "X-Foo"), None);
    assert!(page.contains("Server does not support this operation"));

    let metrics = bench.raw("GET /metrics HTTP/1.0\r\n\r\n").await;
    assert_eq!(header(&metrics, "Content-Type"), Some("text/plain"));
    assert!(metrics.ends_with('\n'));
    bench.server.stop().await;
}

/// §1.1, §1.3, §1.4: what clients write on the first line, and the status line that they get.
#[tokio::test]
async fn status_lines() {
    let tagged = primary()
        .with(|p| p.configured_tags = Tags::from_json(&json!({"zone": "a", "clonefrom": true})));
    let bench = Bench::new(tagged, section()).await;
    let cases = [
        ("GET http://x/primary HTTP/1.0", "HTTP/1.0 200 OK"),
        ("OPTIONS * HTTP/1.0", "HTTP/1.0 503 Service Unavailable"),
        (
            "OPTIONS /%70rimary HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        ("OPTIONS //primary//x HTTP/1.0", "HTTP/1.0 200 OK"),
        (
            "OPTIONS /Primary HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        ("OPTIONS /primary?tag_zone=b HTTP/1.0", "HTTP/1.0 200 OK"),
        (
            "OPTIONS /read-only?tag_zone=b HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        (
            "OPTIONS /health?tag_zone=b&tag_zone=a HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        (
            "OPTIONS /health?tag_zone=a&tag_zone=b HTTP/1.0",
            "HTTP/1.0 200 OK",
        ),
        (
            "OPTIONS /health?tag_zone=&tag_zone=a HTTP/1.0",
            "HTTP/1.0 200 OK",
        ),
        (
            "OPTIONS /health?tag_%7aone=%61&x HTTP/1.0",
            "HTTP/1.0 200 OK",
        ),
        (
            "OPTIONS /health?tag_=a HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        (
            "OPTIONS /health?tag_clonefrom=true;x HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        ("HEAD /primary HTTP/1.1", "HTTP/1.1 200 OK"),
        (
            "HEAD /liveness HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        (
            "OPTIONS /readiness HTTP/1.0",
            "HTTP/1.0 503 Service Unavailable",
        ),
        ("GET /liveness/anything HTTP/1.0", "HTTP/1.0 200 OK"),
        ("GET /readiness?lag=&mode= HTTP/1.0", "HTTP/1.0 200 OK"),
        ("GET /reload HTTP/1.0", "HTTP/1.0 503 Service Unavailable"),
        (
            "POST /patroni HTTP/1.0",
            "HTTP/1.0 501 Unsupported method ('POST')",
        ),
        (
            "get /patroni HTTP/1.0",
            "HTTP/1.0 501 Unsupported method ('get')",
        ),
        (
            "TRACE / HTTP/1.0",
            "HTTP/1.0 501 Unsupported method ('TRACE')",
        ),
        (
            "PROPFIND / HTTP/1.0",
            "HTTP/1.0 501 Unsupported method ('PROPFIND')",
        ),
        (
            "DELETE /failover HTTP/1.0",
            "HTTP/1.0 501 Unsupported method ('DELETE')",
        ),
        ("GET /a b HTTP/1.0", "HTTP/1.1 400 Bad Request"),
    ];
    for (request, expected) in cases {
        let answer = bench
            .raw(&format!("{request}\r\nConnection: close\r\n\r\n"))
            .await;
        assert_eq!(answer.lines().next(), Some(expected), "{request}");
    }
}

/// §1.6: names as scripts look for them, ours first, then those configured in their order. Those of HTTPS alone are not
/// sent without it.
#[tokio::test]
async fn headers_come_in_order() {
    let mut section = section();
    let extra = |headers: [(&str, &str); 2]| headers.map(|(k, v)| (k.into(), v.into())).into();
    section.http_extra_headers = extra([("X-B", "1"), ("X-A", "True")]);
    section.https_extra_headers = extra([("X-B", "2"), ("Strict-Transport-Security", "max-age=1")]);
    section.server_tokens = ServerTokens::ProductOnly;
    let failsafe = replica().with_global(|global| global.failsafe_mode = true);
    let mut bench = Bench::new(failsafe, section.clone()).await;
    let names = |answer: &str| -> String {
        let head = answer.split("\r\n\r\n").next().unwrap();
        let names = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        names.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    };
    let body = r#"{"name": "pg0", "conn_url": "c", "api_url": "a"}"#;
    let promise = format!(
        "POST /failsafe HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = bench.raw(&promise).await;
    assert_eq!(
        names(&answer),
        "Server Content-Type Lsn X-B X-A Connection Content-Length Date",
        "{answer}"
    );
    assert_eq!(header(&answer, "lsn"), Some("73973584"));
    assert_eq!(header(&answer, "X-B"), Some("1"));
    assert_eq!(header(&answer, "Server"), Some("Patroni"));
    let page = bench.raw("GET /config HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        names(&page),
        "Server Content-Type Connection Content-Length Date",
        "{page}"
    );

    section.server_tokens = ServerTokens::Original;
    let peers = HttpClient::new(ClientOptions::default());
    bench.server.reconfigure(&section, peers).await.unwrap();
    let answer = bench.raw("GET /patroni HTTP/1.0\r\n\r\n").await;
    assert!(
        header(&answer, "Server").unwrap().starts_with("Primacy/"),
        "{answer}"
    );
}

/// Whoever reads may ask again over the same connection; members, who ask once in a while, may not.
#[tokio::test]
async fn connections_are_kept_for_those_who_read() {
    let bench = Bench::new(primary(), section()).await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let mut answers = String::new();
    for path in ["/primary", "/patroni", "/metrics"] {
        let request = format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let last = "GET /liveness HTTP/1.1\r\nHost: x\r\nUser-Agent: Patroni/4.1.5 Python/3.11.2 Linux\r\n\r\n";
    stream.write_all(last.as_bytes()).await.unwrap();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answers))
        .await
        .expect("the answer to a member does not end the connection")
        .unwrap();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 4, "{answers}");
    assert_eq!(
        answers.to_lowercase().matches("connection: close").count(),
        1,
        "{answers}"
    );

    for unlike in [
        "POST /reload HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /primary HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let answer = bench.raw(unlike).await;
        assert_eq!(header(&answer, "Connection"), Some("close"), "{answer}");
    }
}

/// A5: more silent clients than the original has workers.
#[tokio::test]
async fn slow_clients_hold_nobody_up() {
    let bench = Bench::new(primary(), section()).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(b"GET /pri").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(bench.ask("GET", "/primary", None).await.0, 200);
    drop(slow);
}

/// `rest-api.md` §1.5.
#[tokio::test]
async fn bodies() {
    let bench = Bench::new(replica(), section()).await;
    let post = |path: &str, rest: &str| format!("POST {path} HTTP/1.0\r\n{rest}");
    let cases = [
        ("/switchover", "\r\n", "411 Length Required"),
        (
            "/switchover",
            "Content-Length: 0\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "/switchover",
            "Content-Length: 2\r\n\r\n{}",
            "400 Bad Request",
        ),
        (
            "/switchover",
            "Content-Length: 2\r\n\r\n[]",
            "400 Bad Request",
        ),
        ("/citus", "Content-Length: 3\r\n\r\n{x}", "400 Bad Request"),
        ("/citus", "Content-Length: 7\r\n\r\n{\"a\":1}", "200 OK"),
        ("/restart", "\r\n", "200 OK"),
        ("/restart", "Content-Length: 0\r\n\r\n", "200 OK"),
        ("/restart", "Content-Length: 2\r\n\r\n{}", "200 OK"),
        ("/restart", "Content-Length: 1\r\n\r\n{", "400 Bad Request"),
        (
            "/reinitialize",
            "Content-Length: 1\r\n\r\n{",
            "400 Bad Request",
        ),
    ];
    for (path, rest, expected) in cases {
        let answer = bench.raw(&post(path, rest)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.0 {expected}\r\n")),
            "{path} {rest:?}: {answer}"
        );
    }
}

/// A length that is not told beforehand hides no filter.
#[tokio::test]
async fn a_body_in_chunks_counts() {
    let bench = Bench::new(replica(), section()).await;
    let chunks = "Transfer-Encoding: chunked\r\n\r\n19\r\n{\"restart_pending\": true}\r\n0\r\n\r\n";
    for (path, expected) in [
        ("/restart", "restart conditions are not satisfied"),
        (
            "/switchover",
            "Switchover could be performed only from a specific leader",
        ),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{chunks}");
        let answer = bench.raw(&request).await;
        assert!(answer.ends_with(expected), "{answer}");
    }
}
