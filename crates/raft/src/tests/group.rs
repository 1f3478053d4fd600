//! Members that stop, come back, lose their files and lose each other.

use std::fs;
use std::time::Duration;

use primacy_dcs::{Condition, Renewal, StoreError, WatchEvent};
use tokio::time::{Instant, sleep, timeout};

use super::{TestGroup, eventually, get, is_unavailable, put, set, short, soon};

#[tokio::test(flavor = "multi_thread")]
async fn one_member_is_a_group() {
    let mut group = TestGroup::started(1).await;
    set(&*group.store(0), "/k", "1").await;
    group.stop(0).await;
    group.start(0).await;
    assert_eq!(get(&*group.store(0), "/k").await.as_deref(), Some("1"));
    let status = group.node(0).status();
    assert_eq!(
        (status.state, status.leader, status.trouble),
        ("leader", Some(group.addrs[0].clone()), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_found_the_group_and_the_third_joins() {
    let mut group = TestGroup::new(3);
    group.start(0).await;
    let alone = group
        .store(0)
        .write(put("/k", "0", Condition::Always), short())
        .await;
    assert!(is_unavailable(&alone), "{alone:?}");
    let words = alone.unwrap_err().to_string();
    assert!(words.contains("2 of 3 members must be up"), "{words}");
    group.start(1).await;
    set(&*group.store(0), "/k", "1").await;
    group.start(2).await;
    assert_eq!(get(&*group.store(2), "/k").await.as_deref(), Some("1"));
    eventually("voting", || {
        matches!(group.node(2).status().state, "follower" | "leader").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_restart_after_snapshot_and_purge() {
    let mut group = TestGroup::started(3).await;
    let lease = group
        .store(0)
        .grant_lease(Duration::from_secs(600), soon())
        .await
        .unwrap();
    for number in 0..30 {
        set(
            &*group.store(number % 3),
            &format!("/k/{number:02}"),
            "before",
        )
        .await;
    }
    for number in 0..3 {
        purge(&group, number).await;
    }
    set(&*group.store(0), "/k/30", "after").await;
    for number in 0..3 {
        group.stop(number).await;
    }
    for number in 0..3 {
        group.start(number).await;
    }
    for number in 0..3 {
        assert_eq!(
            group
                .store(number)
                .read("/k/", soon())
                .await
                .unwrap()
                .entries
                .len(),
            31
        );
    }
    let renewal = group.store(1).renew_lease(&lease, soon()).await.unwrap();
    assert_ne!(renewal, Renewal::Lapsed);
    set(&*group.store(2), "/k/31", "again").await;
}

/// Makes a snapshot of everything applied and removes the log before it.
async fn purge(group: &TestGroup, number: usize) {
    let life = group.node(number).core().life();
    let raft = life.raft.get().unwrap();
    raft.trigger().snapshot().await.unwrap();
    let taken = eventually("a snapshot", || raft.metrics().borrow().snapshot).await;
    raft.trigger().purge_log(taken.index).await.unwrap();
    eventually("a purge", || {
        (raft.metrics().borrow().purged >= Some(taken)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_long_catches_up_by_snapshot_and_says_resync() {
    let group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "0").await;
    let away = (group.wait_for_leader().await + 1) % 3;
    let others = [(away + 1) % 3, (away + 2) % 3];
    set(&*group.store(away), "/k", "1").await;
    let mut watch = group.store(away).watch("/");
    group.cut(away, true);
    for number in 0..20 {
        set(&*group.store(others[0]), "/k", &number.to_string()).await;
    }
    for number in others {
        purge(&group, number).await;
    }
    group.cut(away, false);
    let resync =
        async { while watch.recv().await.expect("the watch goes on") != WatchEvent::Resync {} };
    timeout(super::PATIENCE, resync)
        .await
        .expect("a snapshot is announced");
    assert_eq!(get(&*group.store(away), "/k").await.as_deref(), Some("19"));
    let applied = || {
        group
            .node(away)
            .core()
            .life()
            .replica
            .read(|state| state.keys["/k"].value.0.clone())
    };
    assert_eq!(applied(), b"19");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_serves_nothing() {
    let group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "old").await;
    let old = group.wait_for_leader().await;
    group.cut(old, true);
    let stale = group.store(old).read("/k", short()).await;
    assert!(is_unavailable(&stale), "{stale:?}");
    let lost = group
        .store(old)
        .write(put("/k", "lost", Condition::Always), short())
        .await;
    assert!(matches!(lost, Err(StoreError::Unknown { .. })), "{lost:?}");
    let other = (old + 1) % 3;
    set(&*group.store(other), "/k", "new").await;
    group.cut(old, false);
    assert_eq!(get(&*group.store(old), "/k").await.as_deref(), Some("new"));
    // The write that was given up does not come back.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(get(&*group.store(old), "/k").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_replaced_in_about_a_second() {
    let mut group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "0").await;
    let mut took = Vec::new();
    for _ in 0..3 {
        let old = group.wait_for_leader().await;
        let other = (old + 1) % 3;
        group.cut(old, true);
        let begun = Instant::now();
        set(&*group.store(other), "/k", "1").await;
        took.push(begun.elapsed());
        group.cut(old, false);
        group.stop(old).await;
        group.start(old).await;
        set(&*group.store(old), "/k", "2").await;
    }
    took.sort();
    assert!(took[1] < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_its_leader_and_lapses_under_the_next() {
    let mut group = TestGroup::started(3).await;
    let ttl = Duration::from_secs(3);
    let old = group.wait_for_leader().await;
    let other = (old + 1) % 3;
    let begun = Instant::now();
    let lease = group.store(other).grant_lease(ttl, soon()).await.unwrap();
    let mut write = put("/leader", "me", Condition::Absent);
    if let primacy_dcs::Change::Put {
        lease: hangs_on, ..
    } = &mut write.change
    {
        *hangs_on = Some(lease.clone());
    }
    group.store(other).write(write, soon()).await.unwrap();
    group.stop(old).await;
    while get(&*group.store(other), "/leader").await.is_some() {
        assert!(begun.elapsed() < super::PATIENCE, "the lease never lapses");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() >= ttl, "lapsed after {:?}", begun.elapsed());
    let lapsed = group
        .store(other)
        .renew_lease(&lease, soon())
        .await
        .unwrap();
    assert_eq!(lapsed, Renewal::Lapsed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_file_asks_everybody_before_it_votes() {
    let mut group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "kept").await;
    let wiped = (group.wait_for_leader().await + 1) % 3;
    let other = (wiped + 1) % 3;
    group.stop(wiped).await;
    group.stop(other).await;
    wipe(&group, wiped);
    group.start(wiped).await;
    // With one other member up it could be half of a majority that forgets.
    let core = group.node(wiped).core();
    let words = eventually("a reason", || {
        core.trouble().filter(|words| words.contains("file is new"))
    })
    .await;
    assert!(words.contains(&group.addrs[other]), "{words}");
    let refused = group.store(wiped).read("/k", short()).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    group.start(other).await;
    eventually("voting", || {
        matches!(group.node(wiped).status().state, "follower" | "leader").then_some(())
    })
    .await;
    assert_eq!(
        get(&*group.store(wiped), "/k").await.as_deref(),
        Some("kept")
    );
    // Its vote counts again.
    let leader = group.wait_for_leader().await;
    let third = (0..3)
        .find(|number| *number != leader && *number != wiped)
        .unwrap_or(other);
    group
        .stop(if leader == wiped { other } else { third })
        .await;
    set(&*group.store(wiped), "/k", "goes on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_lose_its_file() {
    let mut group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "kept").await;
    let old = group.wait_for_leader().await;
    group.stop(old).await;
    wipe(&group, old);
    group.start(old).await;
    assert_eq!(get(&*group.store(old), "/k").await.as_deref(), Some("kept"));
    set(&*group.store((old + 1) % 3), "/k", "new").await;
    eventually("voting", || {
        matches!(group.node(old).status().state, "follower" | "leader").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_that_lost_its_files_does_not_pretend() {
    let mut group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "kept").await;
    for number in 0..3 {
        group.stop(number).await;
    }
    wipe(&group, 0);
    wipe(&group, 1);
    group.start(2).await;
    group.start(0).await;
    group.start(1).await;
    for number in 0..2 {
        let core = group.node(number).core();
        eventually("the reason", || {
            core.trouble()
                .filter(|words| words.contains("lost their files"))
        })
        .await;
    }
    let refused = group.store(2).read("/k", short()).await;
    assert!(is_unavailable(&refused), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_former_group_is_kept_out() {
    let mut group = TestGroup::started(3).await;
    set(&*group.store(0), "/k", "former").await;
    let applied = |group: &TestGroup| {
        group
            .node(2)
            .core()
            .life()
            .replica
            .read(|state| state.keys.contains_key("/k"))
    };
    eventually("the write", || applied(&group).then_some(())).await;
    for number in 0..3 {
        group.stop(number).await;
    }
    wipe(&group, 0);
    wipe(&group, 1);
    group.start(0).await;
    group.start(1).await;
    set(&*group.store(0), "/n", "new group").await;
    group.start(2).await;
    let refused = group.store(2).read("/", short()).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    set(&*group.store(1), "/n", "still").await;
    assert_eq!(get(&*group.store(0), "/k").await, None);
}

fn wipe(group: &TestGroup, number: usize) {
    for file in fs::read_dir(group.dirs[number].path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_stays_small() {
    let mut group = TestGroup::started(1).await;
    let store = group.store(0);
    let value = "x".repeat(1000);
    for number in 0..2500 {
        set(&*store, &format!("/k/{}", number % 10), &value).await;
    }
    let size = fs::metadata(group.node(0).core().life().disk.path())
        .unwrap()
        .len();
    assert!(size < 12 << 20, "{size} bytes");
    let begun = Instant::now();
    group.stop(0).await;
    group.start(0).await;
    assert_eq!(
        group
            .store(0)
            .read("/k/", soon())
            .await
            .unwrap()
            .entries
            .len(),
        10
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "a start took {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_failed_says_why_and_begins_again() {
    let group = TestGroup::started(1).await;
    set(&*group.store(0), "/k", "1").await;
    let mut watch = group.store(0).watch("/");
    // The disk fails under the running member, and cannot be opened again.
    let core = group.node(0).core();
    let path = core.life().disk.path().to_owned();
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, "unreadable").unwrap();
    core.life().disk.close();
    let failed = group
        .store(0)
        .write(put("/k", "2", Condition::Always), short())
        .await;
    assert!(failed.is_err());
    eventually("the trouble", || {
        core.trouble()
            .filter(|words| words.contains("stopped") || words.contains(".raft"))
    })
    .await;
    let refused = group.store(0).read("/k", short()).await;
    assert!(is_unavailable(&refused), "{refused:?}");

    // The disk is well again.
    fs::rename(&aside, &path).unwrap();
    group.wait_until_whole().await;
    set(&*group.store(0), "/k", "3").await;
    assert_eq!(get(&*group.store(0), "/k").await.as_deref(), Some("3"));
    assert_eq!(core.trouble(), None);
    // Whoever watched before is told to read again.
    let resync =
        async { while watch.recv().await.expect("the watch goes on") != WatchEvent::Resync {} };
    tokio::time::timeout(Duration::from_secs(60), resync)
        .await
        .expect("a resync");
}
