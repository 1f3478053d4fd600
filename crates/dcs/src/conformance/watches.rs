//! Watches, without faults.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

use crate::conformance::{Fixture, delete, done, put, put_leased, scratch, soon};
use crate::{Condition, Store, WatchEvent};

/// A watch sees what is put, deleted and lapses below its prefix, in order, and nothing else.
pub async fn watches(fixture: &dyn Fixture) {
    let (store, base) = (fixture.client(0), scratch("watch"));
    let (prefix, beside) = (format!("{base}/t/"), format!("{base}/t2"));
    let mut watch = established(&*store, &*fixture.client(1), &prefix).await;

    let key = format!("{prefix}a");
    let version = done(&*store, put(&key, "1", Condition::Always)).await;
    done(&*store, put(&beside, "x", Condition::Always)).await;
    match next(&mut watch, fixture.patience()).await {
        WatchEvent::Put(entry) => {
            assert_eq!((&entry.key, &entry.value[..]), (&key, &b"1"[..]));
            assert_eq!(entry.version, version);
        }
        other => panic!("{other:?} instead of a put"),
    }
    done(&*store, delete(&key, Condition::Always)).await;
    assert_eq!(
        next(&mut watch, fixture.patience()).await,
        WatchEvent::Delete { key: key.clone() }
    );

    let lease = store
        .grant_lease(fixture.ttl(), soon())
        .await
        .expect("a lease can be had");
    done(&*store, put_leased(&key, "2", &lease)).await;
    match next(&mut watch, fixture.patience()).await {
        WatchEvent::Put(entry) => assert_eq!(entry.lease.as_ref(), Some(&lease)),
        other => panic!("{other:?} instead of a put"),
    }
    let lapse = next(&mut watch, fixture.ttl() + fixture.patience()).await;
    let gone = WatchEvent::Delete { key: key.clone() };
    assert_eq!(lapse, gone, "a lapse is a deletion");

    for number in 0..20 {
        let version = done(
            &*store,
            put(
                &format!("{prefix}n"),
                &number.to_string(),
                Condition::Always,
            ),
        );
        let version = version.await;
        match next(&mut watch, fixture.patience()).await {
            WatchEvent::Put(entry) => assert_eq!(entry.version, version, "missed or out of order"),
            other => panic!("{other:?} instead of a put"),
        }
    }

    // A store that counts its revisions says that this was all.
    let last = done(&*store, put(&key, "3", Condition::Always)).await;
    let now = store.read(&prefix, soon()).await;
    if now.is_ok_and(|now| now.revision.is_some()) {
        let mut reached = None;
        while reached < Some(last) {
            match timeout(fixture.patience(), watch.recv()).await {
                Ok(Some(WatchEvent::Reached(revision))) => reached = Some(revision),
                Ok(Some(_)) => {}
                _ => panic!("the watch does not tell how far it has got"),
            }
        }
        assert_eq!(reached, Some(last));
    }
}

/// A watch of `watcher` that is known to be live: it has reported something that `writer` wrote.
pub(super) async fn established(
    writer: &dyn Store,
    watcher: &dyn Store,
    prefix: &str,
) -> Receiver<WatchEvent> {
    let mut watch = watcher.watch(prefix);
    let marker = format!("{prefix}marker");
    let limit = Instant::now() + Duration::from_secs(30);
    let seen = loop {
        let version = done(writer, put(&marker, "", Condition::Always)).await;
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut seen = false;
        while let Ok(event) = tokio::time::timeout_at(deadline, watch.recv()).await {
            match event.expect("a watch does not end") {
                WatchEvent::Put(entry) if entry.version == version => {
                    seen = true;
                    break;
                }
                _ => {}
            }
        }
        if seen || Instant::now() > limit {
            break seen;
        }
    };
    assert!(seen, "the watch reports nothing");
    watch
}

/// The next change, or that something may have been missed.
pub(super) async fn next(watch: &mut Receiver<WatchEvent>, patience: Duration) -> WatchEvent {
    loop {
        match timeout(patience, watch.recv()).await {
            Ok(Some(WatchEvent::Reached(_))) => {}
            Ok(event) => return event.expect("a watch does not end"),
            Err(_) => panic!("the watch is silent"),
        }
    }
}
