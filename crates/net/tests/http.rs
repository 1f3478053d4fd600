//! The client against the server, and each against somebody who misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use primacy_net::{
    BodyError, Bytes, ClientOptions, Full, HeaderMap, HttpClient, HttpError, Method, Peer, Request,
    RequestBody, Response, ServerLimits, StatusCode, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

async fn get(client: &HttpClient, url: &str, deadline: Instant) -> Result<String, HttpError> {
    let answer = client
        .request(Method::GET, url, HeaderMap::new(), Bytes::new(), deadline)
        .await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

async fn echo(request: Request<RequestBody>, peer: Peer) -> Response<Full<Bytes>> {
    let head = format!(
        "{} {} {}\n",
        request.method(),
        request.uri(),
        peer.address.ip()
    );
    let (status, body) = match request.into_body().read().await {
        Ok(body) => (StatusCode::OK, body),
        Err(BodyError::TooLong(_)) => (StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()),
        Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
    };
    let mut response = Response::new(Full::new([head.as_bytes(), &body].concat().into()));
    *response.status_mut() = status;
    response
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn start(limits: ServerLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, None, limits, echo, stop.clone()));
    Server {
        address,
        stop,
        serving,
    }
}

/// Sends bytes, and reads until the server closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("it closes")
        .unwrap();
    answer
}

/// A server that does to each connection what a test wants.
async fn misbehaving<F, R>(act: F) -> String
where
    F: Fn(usize, TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(act(number, stream));
        }
    });
    url
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn requests_and_answers() {
    let server = start(ServerLimits::default()).await;
    let client = HttpClient::new(ClientOptions::default().with_basic_auth("me", "secret"));
    let url = format!("http://{}/a/b?c=d", server.address);
    let answer = client
        .request(Method::POST, &url, HeaderMap::new(), "body".into(), soon())
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(&answer.body[..], b"POST /a/b?c=d 127.0.0.1\nbody");
    let head = client
        .request(Method::HEAD, &url, HeaderMap::new(), Bytes::new(), soon())
        .await;
    let head = head.unwrap();
    assert!(head.body.is_empty() && head.headers["content-length"] == "24");
    server.stop.cancel();
    timeout(PATIENCE, server.serving)
        .await
        .expect("idle connections do not hold it")
        .unwrap();
    let error = get(&client, &url, soon()).await.unwrap_err();
    assert!(
        matches!(error, HttpError::Connect { .. }) && !error.was_sent(),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_request_is_told_without_credentials() {
    let client = HttpClient::new(ClientOptions::default());
    for url in [
        "",
        "/x",
        "ftp://u:secret@h/",
        "http://u:secret@/",
        "http://u:secret@h:x/",
    ] {
        let error = get(&client, url, soon()).await.unwrap_err();
        assert!(
            matches!(error, HttpError::BadRequest { .. }) && !error.was_sent(),
            "{error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// As load balancers ask: the answer ends with the connection, even if more is wanted.
#[tokio::test]
async fn old_clients_are_answered_and_hung_up_on() {
    let server = start(ServerLimits::default()).await;
    for request in [
        "OPTIONS /primary HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let answer = raw(server.address, request.as_bytes()).await;
        assert!(
            answer.contains(" 200 OK\r\n") && answer.contains("Connection: close"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn slow_and_greedy_clients_are_bounded() {
    let short = Duration::from_secs(1);
    let limits = ServerLimits {
        connections: 1,
        header_timeout: short,
        body_timeout: short,
        body_limit: 10,
        ..ServerLimits::default()
    };
    let server = start(limits).await;
    raw(server.address, b"GET / HTTP/1.1\r\nHost").await;
    let answer = raw(
        server.address,
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab",
    );
    assert!(answer.await.starts_with("HTTP/1.1 400"));
    let greedy = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n";
    assert!(
        raw(server.address, greedy)
            .await
            .starts_with("HTTP/1.1 413")
    );
    let chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n";
    assert!(
        raw(server.address, chunked)
            .await
            .starts_with("HTTP/1.1 413")
    );
    // One connection at a time, and each makes room for the next.
    let silent = TcpStream::connect(server.address).await.unwrap();
    let client = HttpClient::new(ClientOptions::default());
    get(&client, &format!("http://{}/", server.address), soon())
        .await
        .unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_request_in_progress_is_answered_before_the_end() {
    let server = start(ServerLimits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
        .await
        .unwrap();
    // The server has begun with it once it accepts others no more quickly than this one: ask and see.
    let client = HttpClient::new(ClientOptions::default());
    get(&client, &format!("http://{}/", server.address), soon())
        .await
        .unwrap();
    server.stop.cancel();
    stream.write_all(b"b").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("\nab"), "{answer}");
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
}

/// Whatever happens after the request was sent, nobody knows what came of it, and it is not sent again.
#[tokio::test]
async fn lost_answers_are_unknown() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let url = misbehaving(move |number, mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            read_head(&mut stream).await;
            counter.fetch_add(1, Ordering::SeqCst);
            match number {
                0 => {}
                1 => stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                    .await
                    .unwrap(),
                2 => stream.write_all(b"nonsense\r\n\r\n").await.unwrap(),
                _ => std::future::pending().await,
            }
        }
    })
    .await;
    let client = HttpClient::new(ClientOptions::default());
    for round in 1..=4 {
        let deadline = Instant::now() + Duration::from_secs(5);
        let error = get(&client, &url, deadline).await.unwrap_err();
        assert!(
            matches!(error, HttpError::NoAnswer { .. }) && error.was_sent(),
            "{error}"
        );
        assert_eq!(seen.load(Ordering::SeqCst), round, "sent once");
    }
}

/// A kept connection that the server has closed is no reason to fail, nor to call anything unknown.
#[tokio::test]
async fn a_closed_connection_is_replaced() {
    let url = misbehaving(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        // Closes, without having said so.
    })
    .await;
    let client = HttpClient::new(ClientOptions::default());
    for _ in 0..20 {
        match get(&client, &url, soon()).await {
            Ok(body) => assert_eq!(body, "ok"),
            // The close may cross the next request on its way.
            Err(error) => assert!(error.was_sent(), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_are_bounded_and_connecting_takes_no_longer_than_allowed() {
    let url = misbehaving(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let client = HttpClient::new(ClientOptions {
        body_limit: 100_000,
        ..ClientOptions::default()
    });
    let error = get(&client, &url, soon()).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLong { limit: 100_000, .. }) && error.was_sent());

    // Nobody accepts from this queue, which holds one connection or two.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let full = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(full)).await {
        waiting.push(stream.unwrap());
    }
    let short = Duration::from_millis(300);
    let client = HttpClient::new(ClientOptions {
        connect_timeout: short,
        ..ClientOptions::default()
    });
    let error = timeout(
        PATIENCE / 2,
        get(&client, &format!("http://{full}/"), soon()),
    )
    .await;
    let error = error.expect("the connect timeout is kept").unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn streams_come_piece_by_piece() {
    let url = misbehaving(|_, mut stream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
        stream.write_all(head).await.unwrap();
        // The next piece comes only when the reader is gone, which closes the connection.
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    })
    .await;
    let client = HttpClient::new(ClientOptions::default());
    let opened = client
        .stream(Method::GET, &url, HeaderMap::new(), Bytes::new(), soon())
        .await;
    let mut stream = opened.unwrap();
    assert_eq!(&stream.next().await.unwrap().unwrap()[..], b"one");
    assert!(
        timeout(Duration::from_millis(50), stream.next())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn connections_are_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let port = |_: Request<RequestBody>, peer: Peer| async move {
        Response::new(Full::new(Bytes::from(peer.address.port().to_string())))
    };
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, None, ServerLimits::default(), port, stop));
    let client = HttpClient::new(ClientOptions::default());
    let mut ports = Vec::new();
    for _ in 0..5 {
        ports.push(get(&client, &url, soon()).await.unwrap());
    }
    ports.dedup();
    assert_eq!(ports.len(), 1, "one connection is enough");
}
