//! Conditional writes and consistent reads, without faults.

use crate::conformance::leases::grant_lasting;
use crate::conformance::{
    Fixture, delete, done, put, put_leased, read, scratch, soon, value, write,
};
use crate::{Condition, Outcome};

const RACES: usize = 40;

/// Every condition holds when it should and only then; of two writers of one version exactly one wins.
pub async fn writes(fixture: &dyn Fixture) {
    create_only(fixture).await;
    compare_and_set(fixture).await;
    by_value(fixture).await;
    held_by(fixture).await;
    both(fixture).await;
    races(fixture).await;
    delete_prefix(fixture).await;
}

async fn create_only(fixture: &dyn Fixture) {
    let (store, key) = (fixture.client(0), scratch("create"));
    let version = done(&*store, put(&key, "first", Condition::Absent)).await;
    let again = write(&*store, put(&key, "second", Condition::Absent)).await;
    assert_eq!(again, Outcome::ConditionFailed, "the key exists");
    let entries = read(&*fixture.client(1), &key).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].value, b"first");
    assert_eq!(
        entries[0].version, version,
        "the version of the write is the version of the key"
    );
    assert_eq!(entries[0].lease, None);
    done(&*store, delete(&key, Condition::Always)).await;
    done(&*store, delete(&key, Condition::Always)).await;
    let anew = done(&*store, put(&key, "", Condition::Absent)).await;
    assert_ne!(anew, version, "a version is never used again");
    assert_eq!(
        value(&*store, &key).await.as_deref(),
        Some(""),
        "an empty value is a value"
    );
}

async fn compare_and_set(fixture: &dyn Fixture) {
    let (store, key) = (fixture.client(0), scratch("cas"));
    let stale = done(&*store, put(&key, "a", Condition::Always)).await;
    let fresh = done(&*store, put(&key, "b", Condition::Version(stale))).await;
    assert_ne!(fresh, stale);
    for refused in [
        put(&key, "c", Condition::Version(stale)),
        delete(&key, Condition::Version(stale)),
        put(&format!("{key}/absent"), "c", Condition::Version(fresh)),
    ] {
        assert_eq!(write(&*store, refused).await, Outcome::ConditionFailed);
    }
    assert_eq!(value(&*store, &key).await.as_deref(), Some("b"));
    let same = done(&*store, put(&key, "b", Condition::Version(fresh))).await;
    assert_ne!(same, fresh, "writing the same value is a write");
    done(&*store, delete(&key, Condition::Version(same))).await;
    assert_eq!(value(&*store, &key).await, None);
    let gone = write(&*store, put(&key, "c", Condition::Version(same))).await;
    assert_eq!(gone, Outcome::ConditionFailed, "the key is gone");
}

async fn by_value(fixture: &dyn Fixture) {
    let (store, key) = (fixture.client(0), scratch("value"));
    let is = |text: &str| Condition::Value(text.into());
    assert_eq!(
        write(&*store, put(&key, "a", is(""))).await,
        Outcome::ConditionFailed
    );
    done(&*store, put(&key, "me", Condition::Absent)).await;
    assert_eq!(
        write(&*store, delete(&key, is("you"))).await,
        Outcome::ConditionFailed
    );
    assert_eq!(
        write(&*store, delete(&key, is("me "))).await,
        Outcome::ConditionFailed
    );
    done(&*store, put(&key, "you", is("me"))).await;
    done(&*store, delete(&key, is("you"))).await;
    assert_eq!(value(&*store, &key).await, None);
}

async fn held_by(fixture: &dyn Fixture) {
    let (store, base) = (fixture.client(0), scratch("holds"));
    let (leader, status) = (format!("{base}/leader"), format!("{base}/status"));
    let held = |name: &str| Condition::Holds {
        key: leader.clone(),
        value: name.into(),
    };
    let nobody = write(&*store, put(&status, "1", held("me"))).await;
    assert_eq!(
        nobody,
        Outcome::ConditionFailed,
        "an absent key is held by nobody"
    );
    done(&*store, put(&leader, "me", Condition::Absent)).await;
    done(&*store, put(&status, "1", held("me"))).await;
    done(&*store, put(&leader, "you", Condition::Always)).await;
    let deposed = write(&*store, put(&status, "2", held("me"))).await;
    assert_eq!(deposed, Outcome::ConditionFailed);
    assert_eq!(value(&*store, &status).await.as_deref(), Some("1"));
}

/// The one write needs a condition, the other one is made all the same, unless its lease is gone.
async fn both(fixture: &dyn Fixture) {
    let (store, base) = (fixture.client(0), scratch("both"));
    let [leader, status, member] =
        ["leader", "status", "member"].map(|key| format!("{base}/{key}"));
    let held = Condition::Holds {
        key: leader.clone(),
        value: "me".into(),
    };
    let lease = grant_lasting(fixture, &*store).await;
    let both = async |text: &str| {
        let status = put(&status, text, held.clone());
        let member = put_leased(&member, text, &lease);
        store.write_both(status, member, soon()).await
    };
    let values = async || (value(&*store, &status).await, value(&*store, &member).await);
    let text = |text: &str| Some(text.to_owned());

    let deposed = both("1").await.expect("an answer");
    assert_eq!(deposed, Outcome::ConditionFailed);
    assert_eq!(values().await, (None, text("1")));
    done(&*store, put(&leader, "me", Condition::Absent)).await;
    let leads = both("2").await.expect("an answer");
    assert!(matches!(leads, Outcome::Done(_)));
    assert_eq!(values().await, (text("2"), text("2")));
    store
        .revoke_lease(&lease, soon())
        .await
        .expect("the end of the lease");
    let lapsed = both("3").await.expect_err("the lease is gone");
    assert!(lapsed.is_lease_lapsed(), "{lapsed}");
    assert_eq!(value(&*store, &member).await, None);
}

async fn races(fixture: &dyn Fixture) {
    let key = scratch("race");
    let clients = [fixture.client(0), fixture.client(1), fixture.client(2)];
    let mut condition = Condition::Absent;
    for round in 0..RACES {
        let attempts: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(number, store)| {
                let attempt = put(&key, &format!("{round} by {number}"), condition.clone());
                let store = store.clone();
                tokio::spawn(async move { write(&*store, attempt).await })
            })
            .collect();
        let mut winner = None;
        for (number, attempt) in attempts.into_iter().enumerate() {
            if let Outcome::Done(version) = attempt.await.expect("the attempt must not fail") {
                assert_eq!(
                    winner.replace((number, version)),
                    None,
                    "round {round}: two winners"
                );
            }
        }
        let (number, version) = winner.unwrap_or_else(|| panic!("round {round}: no winner"));
        let entries = read(&*clients[round % 3], &key).await;
        assert_eq!(entries[0].version, version, "round {round}");
        assert_eq!(
            entries[0].value,
            format!("{round} by {number}").into_bytes()
        );
        condition = Condition::Version(version);
    }
}

async fn delete_prefix(fixture: &dyn Fixture) {
    let (store, base) = (fixture.client(0), scratch("tree"));
    let (tree, beside) = (format!("{base}/t/"), format!("{base}/t2"));
    for key in [&format!("{tree}a"), &format!("{tree}b/c"), &beside] {
        done(&*store, put(key, "x", Condition::Always)).await;
    }
    let deadline = crate::conformance::soon();
    store
        .delete_prefix(&tree, deadline)
        .await
        .expect("the prefix can be deleted");
    let left: Vec<String> = read(&*store, &base)
        .await
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(left, [beside]);
    store
        .delete_prefix(&tree, deadline)
        .await
        .expect("an empty prefix can be deleted");
}

/// A read shows one instant, is sorted, and is no older than any write that was answered before it began.
pub async fn reads(fixture: &dyn Fixture) {
    let base = scratch("read");
    let (first, second) = (format!("{base}/1"), format!("{base}/2"));
    let writer = {
        let (store, first, second) = (fixture.client(0), first.clone(), second.clone());
        tokio::spawn(async move {
            for number in 0..RACES {
                done(&*store, put(&first, &number.to_string(), Condition::Always)).await;
                done(
                    &*store,
                    put(&second, &number.to_string(), Condition::Always),
                )
                .await;
            }
        })
    };
    let reader = fixture.client(1);
    while !writer.is_finished() {
        let entries = read(&*reader, &base).await;
        let number = |key: &str| {
            let entry = entries.iter().find(|entry| entry.key == key)?;
            String::from_utf8_lossy(&entry.value).parse::<usize>().ok()
        };
        match (number(&first), number(&second)) {
            (None, None) | (Some(0), None) => {}
            (Some(a), Some(b)) if a == b || a == b + 1 => {}
            torn => panic!("a read shows two instants: {torn:?}"),
        }
    }
    writer.await.expect("the writer must not fail");
    for (number, key) in ["b", "a", "c"].into_iter().enumerate() {
        done(
            &*fixture.client(number),
            put(&format!("{base}/{key}"), "x", Condition::Always),
        )
        .await;
        let entries = read(&*fixture.client((number + 1) % 3), &base).await;
        assert_eq!(
            entries.len(),
            3 + number,
            "a read is older than an answered write"
        );
        assert!(
            entries.is_sorted_by(|a, b| a.key < b.key),
            "a read is sorted by key"
        );
    }
}
