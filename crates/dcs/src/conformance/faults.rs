//! What a store does when things go wrong: it tells the truth, and in time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::conformance::watches::{established, next};
use crate::conformance::{
    Fixture, done, put, put_leased, read, scratch, soon, until_writable, value, within,
};
use crate::{Condition, Outcome, Renewal, StoreError, WatchEvent};

/// A short deadline: long enough to send, too short to be mistaken for something else.
const SHORT: Duration = Duration::from_secs(3);

/// A write whose answer is lost is of unknown outcome, is applied at most once, and a read tells.
///
/// Needs [`Fixture::lose_answers`].
pub async fn lost_answers(fixture: &dyn Fixture) {
    let (deaf, other, base) = (fixture.client(0), fixture.client(1), scratch("lost"));
    let prefix = format!("{base}/");
    let mut watch = established(&*other, &*other, &prefix).await;
    // Once before, so that nothing is left to negotiate when it matters.
    read(&*deaf, &base).await;

    let key = format!("{prefix}key");
    let mut versions = Vec::new();
    let mut condition = Condition::Absent;
    for round in 0..5 {
        fixture.lose_answers(0, true).await;
        let text = round.to_string();
        let attempt = put(&key, &text, condition.clone());
        let error = within(SHORT, "a write", |deadline| deaf.write(attempt, deadline)).await;
        let error = error.expect_err("there was no answer");
        assert!(
            error.is_unknown(),
            "round {round}: may have been applied, but: {error}"
        );
        let read = within(SHORT, "a read", |deadline| deaf.read(&base, deadline)).await;
        assert!(read.is_err(), "there was no answer");
        fixture.lose_answers(0, false).await;

        let limit = Instant::now() + fixture.patience();
        while value(&*other, &key).await.as_deref() != Some(text.as_str()) {
            assert!(
                Instant::now() < limit,
                "round {round}: the request arrived and is not applied"
            );
            sleep(Duration::from_millis(50)).await;
        }
        let version = self::read(&*deaf, &key).await[0].version;
        versions.push(version);
        condition = Condition::Version(version);
    }
    // Always: here a second application would not be stopped by the condition.
    fixture.lose_answers(0, true).await;
    let attempt = put(&key, "once", Condition::Always);
    let error = within(SHORT, "a write", |deadline| deaf.write(attempt, deadline)).await;
    assert!(error.is_err_and(|error| error.is_unknown()));
    fixture.lose_answers(0, false).await;
    let limit = Instant::now() + fixture.patience();
    while value(&*other, &key).await.as_deref() != Some("once") {
        assert!(
            Instant::now() < limit,
            "the request arrived and is not applied"
        );
        sleep(Duration::from_millis(50)).await;
    }
    versions.push(read(&*deaf, &key).await[0].version);

    done(&*other, put(&format!("{prefix}end"), "", Condition::Always)).await;
    let mut seen = Vec::new();
    loop {
        match next(&mut watch, fixture.patience()).await {
            WatchEvent::Put(entry) if entry.key == key => seen.push(entry.version),
            WatchEvent::Put(entry) if entry.key.ends_with("/end") => break,
            _ => {}
        }
    }
    assert_eq!(seen, versions, "every write is applied once");
}

/// One silent member of three does not stop anybody: calls find another within their deadline.
///
/// Needs [`Fixture::freeze_member`] and [`Fixture::thaw_member`] for members `0..3`.
pub async fn frozen_member(fixture: &dyn Fixture) {
    let base = scratch("frozen");
    for member in 0..3 {
        fixture.freeze_member(member).await;
        let mut expected = BTreeMap::new();
        for client in 0..3 {
            let (store, key) = (fixture.client(client), format!("{base}/{member}/{client}"));
            let limit = Instant::now() + fixture.patience();
            // A write that went to the silent member is unknown; the next one must find another.
            let outcome = loop {
                let attempt = put(&key, "x", Condition::Absent);
                match within(AMPLE_WRITE, "a write", |deadline| {
                    store.write(attempt, deadline)
                })
                .await
                {
                    Ok(outcome) => break outcome,
                    Err(error) => assert!(Instant::now() < limit, "{error}"),
                }
            };
            expected.insert(key, outcome);
            let read = within(AMPLE_WRITE, "a read", |deadline| {
                store.read(&base, deadline)
            })
            .await;
            let entries = read.expect("a read finds another member").entries;
            for key in expected.keys() {
                assert!(
                    entries.iter().any(|entry| entry.key == *key),
                    "{key} was written before"
                );
            }
        }
        fixture.thaw_member(member).await;
        until_writable(fixture, &*fixture.client(0), &format!("{base}/works")).await;
    }
}

/// Enough to try every member of three.
const AMPLE_WRITE: Duration = Duration::from_secs(10);

/// The store's own leader dies while clients write and watch: nothing that was answered is lost, nothing
/// that was refused appears, the watch misses nothing, leases live on.
///
/// Needs [`Fixture::kill_leader`] and [`Fixture::restore`].
pub async fn leader_loss(fixture: &dyn Fixture) {
    let (writer, watcher) = (fixture.client(0), fixture.client(1));
    let base = scratch("leader");
    let prefix = format!("{base}/");
    let mut watch = established(&*writer, &*watcher, &prefix).await;
    let ttl = fixture.ttl() + fixture.patience();
    let lease = writer
        .grant_lease(ttl, soon())
        .await
        .expect("a lease can be had");
    done(&*writer, put_leased(&format!("{base}-leased"), "x", &lease)).await;
    let renewed = Instant::now();
    assert!(matches!(
        renew(fixture, &lease).await,
        Renewal::Renewed { .. }
    ));

    let mut answers: BTreeMap<String, Result<Outcome, StoreError>> = BTreeMap::new();
    for number in 0..60 {
        if number == 10 {
            fixture.kill_leader().await;
        }
        let key = format!("{prefix}{number:03}");
        let attempt = put(&key, "x", Condition::Absent);
        let answer = within(SHORT, "a write", |deadline| writer.write(attempt, deadline)).await;
        answers.insert(key, answer);
    }
    until_writable(fixture, &*writer, &format!("{base}-recovered")).await;
    let kept = value(&*writer, &format!("{base}-leased")).await.is_some();
    assert!(
        kept || renewed.elapsed() >= ttl,
        "a lease lapsed with the leader, before its time"
    );
    fixture.restore().await;
    until_writable(fixture, &*watcher, &format!("{prefix}~end")).await;
    told_the_truth(fixture, &prefix, &answers).await;

    // What the watch saw, in order, up to the mark; after a resync one has to read, so that is fine too.
    let mut seen = Vec::new();
    let mut resync = false;
    loop {
        match next(&mut watch, fixture.patience()).await {
            WatchEvent::Put(entry) if entry.key.ends_with("~end") => break,
            WatchEvent::Put(entry) if !entry.key.ends_with("marker") => seen.push(entry.key),
            WatchEvent::Resync => {
                resync = true;
                break;
            }
            _ => {}
        }
    }
    if !resync {
        let there = read(&*watcher, &prefix)
            .await
            .into_iter()
            .map(|entry| entry.key);
        let there: Vec<String> = there
            .filter(|key| !key.ends_with("~end") && !key.ends_with("marker"))
            .collect();
        assert_eq!(
            seen, there,
            "the watch has missed something and does not say so"
        );
    }
    writer
        .revoke_lease(&lease, soon())
        .await
        .expect("a lease can be revoked");
}

async fn renew(fixture: &dyn Fixture, lease: &primacy_model::Session) -> Renewal {
    fixture
        .client(0)
        .renew_lease(lease, soon())
        .await
        .expect("a renewal is answered")
}

/// Without a quorum every call fails within its deadline, and no read shows what may be old; with it back,
/// all works again, and nothing that was refused has happened.
///
/// Needs [`Fixture::lose_quorum`] and [`Fixture::restore`].
pub async fn quorum_loss(fixture: &dyn Fixture) {
    let base = scratch("quorum");
    let prefix = format!("{base}/");
    let lease = fixture
        .client(0)
        .grant_lease(fixture.ttl(), soon())
        .await
        .expect("a lease");
    done(
        &*fixture.client(0),
        put(&format!("{prefix}before"), "x", Condition::Always),
    )
    .await;
    for client in 0..3 {
        read(&*fixture.client(client), &base).await;
    }
    fixture.lose_quorum().await;
    let mut answers = BTreeMap::new();
    for round in 0..3 {
        for client in 0..3 {
            let store = fixture.client(client);
            let read = within(SHORT, "a read", |deadline| store.read(&base, deadline)).await;
            assert!(
                read.is_err(),
                "round {round}: a read was served without a quorum"
            );
            let key = format!("{prefix}{round}-{client}");
            let attempt = put(&key, "x", Condition::Absent);
            let answer = within(SHORT, "a write", |deadline| store.write(attempt, deadline)).await;
            assert!(
                answer.is_err(),
                "round {round}: {answer:?} without a quorum"
            );
            answers.insert(key, answer);
        }
    }
    let store = fixture.client(0);
    let renewal = within(SHORT, "a renewal", |deadline| {
        store.renew_lease(&lease, deadline)
    })
    .await;
    assert!(renewal.is_err(), "{renewal:?} without a quorum");
    let granted = within(SHORT, "a grant", |deadline| {
        store.grant_lease(fixture.ttl(), deadline)
    })
    .await;
    assert!(granted.is_err(), "a lease was granted without a quorum");

    fixture.restore().await;
    for client in 0..3 {
        until_writable(fixture, &*fixture.client(client), &format!("{prefix}after")).await;
    }
    assert!(
        value(&*store, &format!("{prefix}before")).await.is_some(),
        "a write was lost"
    );
    told_the_truth(fixture, &prefix, &answers).await;
}

/// What was done is there, what was refused is not, and what is unknown may be either.
async fn told_the_truth(
    fixture: &dyn Fixture,
    prefix: &str,
    answers: &BTreeMap<String, Result<Outcome, StoreError>>,
) {
    for client in 0..3 {
        let entries = read(&*fixture.client(client), prefix).await;
        for (key, answer) in answers {
            let there = entries.iter().any(|entry| entry.key == *key);
            match answer {
                Ok(Outcome::Done(_)) => assert!(there, "{key} was written and is lost"),
                Ok(Outcome::ConditionFailed) => panic!("{key} was written by nobody else"),
                Err(StoreError::Unknown { .. }) => {}
                Err(error) => assert!(!there, "{key} is there in spite of: {error}"),
            }
        }
    }
}
