//! Who may take part, and who may not.

use std::time::Duration;

use primacy_dcs::{Condition, StoreError, WatchEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{TestGroup, eventually, get, is_unavailable, put, set, short, soon};
use crate::handshake::{HandshakeError, Identity};
use crate::{RaftClient, RaftError, RaftNode};

/// What both ends of a connection say.
async fn meet(
    asker: &Identity,
    answerer: &Identity,
) -> (Option<HandshakeError>, Option<HandshakeError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let answering = async {
        answerer
            .welcome(listener.accept().await.unwrap().0)
            .await
            .err()
    };
    let asking = async { asker.dial(&addr).await.err() };
    tokio::join!(asking, answering)
}

#[tokio::test]
async fn both_ends_say_what_is_wrong_with_the_password() {
    let group = TestGroup::new(2);
    let with = |password: Option<&str>| {
        let mut config = group.config(0);
        config.password = password.map(str::to_owned);
        Identity::new(&config, None)
    };
    for (asker, answerer, there, here) in [
        (
            Some("a"),
            Some("b"),
            "wrong raft password",
            "another raft password",
        ),
        (
            None,
            Some("b"),
            "a raft password is required",
            "no raft password",
        ),
        (
            Some("a"),
            None,
            "has no raft password",
            "this member has none",
        ),
    ] {
        let (asked, answered) = meet(&with(asker), &with(answerer)).await;
        assert!(asked.unwrap().to_string().contains(there));
        assert!(answered.unwrap().to_string().contains(here));
    }
    for same in [Some("a"), None] {
        let (asked, answered) = meet(&with(same), &with(same)).await;
        assert!(asked.is_none() && answered.is_none());
    }
}

#[tokio::test]
async fn members_must_agree_on_who_they_are() {
    let group = TestGroup::new(3);
    let me = Identity::new(&group.config(0), Some(&group.addrs[0]));
    let mut fewer = group.config(1);
    fewer.partner_addrs.pop();
    let other = Identity::new(&fewer, Some(&group.addrs[1]));
    let (asked, answered) = meet(&other, &me).await;
    for error in [asked, answered] {
        let words = error.unwrap().to_string();
        assert!(words.contains("must be configured alike"), "{words}");
        assert!(words.contains(&group.addrs[1]), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_wrong_password_stays_outside() {
    let mut group = TestGroup::new(3);
    group.start(0).await;
    group.start(1).await;
    set(&*group.store(0), "/k", "1").await;
    let mut config = group.config(2);
    config.password = Some("guess".into());
    group.nodes[2] = Some(RaftNode::start(config).await.unwrap());
    let refused = group.store(2).read("/k", short()).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    set(&*group.store(0), "/k", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_wrong_password_is_refused_for_good() {
    let group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "1").await;
    let mut config = group.config(0);
    config.password = Some("guess".into());
    let store = RaftClient::new(&config).unwrap().store();
    let refused = store.write(put("/k", "2", Condition::Always), soon()).await;
    let Err(StoreError::Refused { reason, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        reason.contains("wrong raft password") && reason.contains(&group.addrs[0]),
        "{reason}"
    );
    assert!(!reason.contains("guess"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_watches_and_follows_to_another_member() {
    let mut group = TestGroup::started(3).await;
    let store = group.client().store();
    set(&*store, "/k", "0").await;
    let mut watch = store.watch("/k");
    for number in 0..3 {
        // Wherever the watch hangs, it comes back and says so.
        group.stop(number).await;
        group.start(number).await;
    }
    let mut count = 0;
    loop {
        count += 1;
        set(&*store, "/k", &count.to_string()).await;
        let seen = async {
            loop {
                match watch.recv().await.expect("a watch does not end") {
                    WatchEvent::Put(entry) if entry.value == count.to_string().as_bytes() => break,
                    _ => {}
                }
            }
        };
        if timeout(Duration::from_secs(1), seen).await.is_ok() {
            break;
        }
        assert!(count < 60, "the watch is dead");
    }
    assert_eq!(get(&*store, "/k").await, Some(count.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_is_no_harm() {
    let group = TestGroup::started(1).await;
    set(&*group.store(0), "/k", "1").await;
    for noise in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 1, b'{', b'}'],
        &[0, 0, 0, 1, 9],
        &[0, 0, 0x30, 0, 1],
    ] {
        let mut stream = TcpStream::connect(&group.addrs[0]).await.unwrap();
        stream.write_all(noise).await.unwrap();
        let mut answer = Vec::new();
        // It may reset the connection, too.
        let closed = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "the connection stays open");
    }
    assert_eq!(get(&*group.store(0), "/k").await.as_deref(), Some("1"));
}

/// Everything goes through a man who changes one byte, somewhere behind the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_was_tampered_with_ends_the_connection() {
    let group = TestGroup::started(1).await;
    set(&*group.store(0), "/k", "1").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = group.config(0);
    config.self_addr = None;
    config.partner_addrs = vec![listener.local_addr().unwrap().to_string()];
    let real = group.addrs[0].clone();
    tokio::spawn(async move {
        loop {
            let (mut inner, _) = listener.accept().await.unwrap();
            let mut outer = TcpStream::connect(&real).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = inner.split();
                let (mut back, mut forth) = outer.split();
                let tamper = async {
                    let mut buffer = vec![0; 1 << 16];
                    loop {
                        let size = from.read(&mut buffer).await.unwrap_or(0);
                        if size == 0 {
                            return;
                        }
                        let bytes = &mut buffer[..size];
                        if let Some(at) = bytes.windows(4).position(|window| window == b"ZZZZ") {
                            bytes[at] = b'A';
                        }
                        if forth.write_all(bytes).await.is_err() {
                            return;
                        }
                    }
                };
                let copy = tokio::io::copy(&mut back, &mut to);
                tokio::select! { () = tamper => {}, _ = copy => {} }
            });
        }
    });
    let store = RaftClient::new(&config).unwrap().store();
    assert_eq!(get(&*store, "/k").await.as_deref(), Some("1"));
    let tampered = store
        .write(put("/ZZZZ", "x", Condition::Always), short())
        .await;
    assert!(tampered.is_err(), "{tampered:?}");
    assert!(
        group
            .store(0)
            .read("/", soon())
            .await
            .unwrap()
            .entries
            .len()
            == 1
    );
    assert_eq!(get(&*store, "/k").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let group = TestGroup::new(1);
    let mut config = group.config(0);
    config.self_addr = None;
    assert!(matches!(
        RaftNode::start(config.clone()).await,
        Err(RaftError::Config { .. })
    ));
    assert!(matches!(
        RaftClient::new(&config),
        Err(RaftError::Config { .. })
    ));
    let busy = std::net::TcpListener::bind(&group.addrs[0]).unwrap();
    assert!(matches!(
        RaftNode::start(group.config(0)).await,
        Err(RaftError::Bind { .. })
    ));
    drop(busy);
    let node = RaftNode::start(group.config(0)).await.unwrap();
    eventually("a leader", || node.status().leader).await;
    assert!(!format!("{:?}", group.config(0)).contains("secret"));
    node.shutdown().await;
}
