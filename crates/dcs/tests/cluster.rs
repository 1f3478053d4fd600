//! The cluster view: the keys as Patroni lays them out, and who may write them when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use primacy_dcs::{
    Change, ClusterStore, Condition, Entry, Expected, Fault, MemoryStore, Outcome, Renewal, Store,
    Subject, WatchEvent, Write,
};
use primacy_model::{
    CitusGroup, History, Initialize, Lsn, MemberData, MemberName, Session, Status, SyncState,
    SystemIdentifier,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(30);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn demo() -> (Arc<MemoryStore>, ClusterStore) {
    let store = MemoryStore::new();
    (store.clone(), ClusterStore::new(store, "service", "demo"))
}

async fn set(store: &MemoryStore, key: &str, value: &str) {
    set_at(store, &format!("/service/demo/{key}"), value).await;
}

async fn set_at(store: &MemoryStore, key: &str, value: &str) {
    let change = Change::Put {
        value: value.into(),
        lease: None,
    };
    let write = Write {
        key: key.into(),
        change,
        condition: Condition::Always,
    };
    store.write(write, soon()).await.unwrap();
}

async fn text(store: &MemoryStore, key: &str) -> Option<String> {
    let key = format!("/service/demo/{key}");
    let snapshot = store.read(&key, soon()).await.unwrap();
    let entry = snapshot
        .entries
        .into_iter()
        .find(|entry| entry.key == key)?;
    Some(String::from_utf8(entry.value).unwrap())
}

fn done(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}

#[tokio::test]
async fn groups_of_citus_are_clusters_below_their_numbers() {
    let (store, scope) = demo();
    for (key, value) in [
        ("0/leader", "c1"),
        ("1/leader", "w1"),
        ("1/members/w1", r#"{"role": "primary"}"#),
        ("10/sync", "{}"),
        ("01/leader", "nobody"),
        ("leader", "nobody"),
        ("x/leader", "nobody"),
    ] {
        set(&store, key, value).await;
    }
    let groups = scope.read_groups(soon()).await.unwrap();
    assert_eq!(
        groups.keys().map(|group| group.0).collect::<Vec<_>>(),
        [0, 1, 10]
    );
    let worker = &groups[&CitusGroup(1)];
    assert!(worker.is_led_by("w1") && worker.leader_member().is_some());
    let alone = scope.in_group(CitusGroup(1));
    assert_eq!(alone.base_path(), "/service/demo/1");
    assert_eq!(alone.read(soon()).await.unwrap(), *worker);
}

#[tokio::test]
async fn base_paths() {
    for (namespace, scope, base) in [
        ("service", "demo", "/service/demo"),
        ("/service/", "demo", "/service/demo"),
        ("//a//b/", "demo", "/a/b/demo"),
        ("", "demo", "/demo"),
    ] {
        assert_eq!(
            ClusterStore::new(MemoryStore::new(), namespace, scope).base_path(),
            base
        );
    }
}

#[tokio::test]
async fn a_cluster_is_read_as_patroni_writes_it() {
    let (store, cluster) = demo();
    assert_eq!(cluster.read(soon()).await.unwrap(), Default::default());
    for (key, value) in [
        ("initialize", "7710395762296189624"),
        ("config", r#"{"ttl":30,"postgresql":{"use_slots":true}}"#),
        ("leader", "b"),
        (
            "members/b",
            r#"{"conn_url":"postgres://h:5432/postgres","state":"running","role":"primary"}"#,
        ),
        ("members/a", "garbage"),
        ("members/a/deeper", "{}"),
        ("members/", "{}"),
        ("optime/leader", "5"),
        ("status", r#"{"optime":67108864,"slots":{"a":7}}"#),
        ("history", r#"[[1,5,"no recovery target specified"]]"#),
        ("failover", r#"{"leader":"b","member":"a"}"#),
        ("sync", r#"{"leader":"b","quorum":0,"sync_standby":"a"}"#),
        ("failsafe", r#"{"a":"http://a:8008/patroni","odd":7}"#),
        ("from_the_future", "x"),
    ] {
        set(&store, key, value).await;
    }
    set_at(&store, "/service/demo2/leader", "stranger").await;
    let read = cluster.read(soon()).await.unwrap();
    assert!(
        matches!(&read.initialize, Initialize::Done(id) if id.as_str() == "7710395762296189624")
    );
    assert_eq!(read.config.as_ref().unwrap().value["ttl"], json!(30));
    assert_eq!(read.leader_name().unwrap(), &"b");
    let names: Vec<&str> = read
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(read.members[0].data, MemberData::default());
    assert_eq!(read.status.optime, Lsn(67108864));
    assert_eq!(read.timeline().unwrap().0, 2);
    assert_eq!(
        read.failover.as_ref().unwrap().candidate.as_deref(),
        Some("a")
    );
    assert!(read.sync.has_standby("a") && read.sync.version.is_some());
    let failsafe = BTreeMap::from([("a".into(), "http://a:8008/patroni".to_owned())]);
    assert_eq!((read.has_failsafe, read.failsafe), (true, failsafe));

    set(&store, "config", "[]").await;
    set(&store, "failsafe", "[]").await;
    let change = Write {
        key: "/service/demo/status".into(),
        change: Change::Delete,
        condition: Condition::Always,
    };
    store.write(change, soon()).await.unwrap();
    let read = cluster.read(soon()).await.unwrap();
    assert_eq!(
        (read.config, read.has_failsafe, read.status.optime),
        (None, false, Lsn(5))
    );
    set(&store, "failsafe", "{}").await;
    let read = cluster.read(soon()).await.unwrap();
    assert!(read.has_failsafe && read.failsafe.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_leader_key_is_taken_kept_and_given_up() {
    let (store, cluster) = demo();
    let (me, other): (MemberName, MemberName) = ("me".into(), "other".into());
    let lease = cluster.grant_lease(TTL, soon()).await.unwrap();
    assert!(done(
        cluster.acquire_leader(&me, &lease, soon()).await.unwrap()
    ));
    assert!(!done(
        cluster
            .acquire_leader(&other, &lease, soon())
            .await
            .unwrap()
    ));
    let version = async || cluster.read(soon()).await.unwrap().leader.unwrap();
    let before = version().await;
    assert_ne!(
        cluster
            .renew_leader(&me, &lease, |_| false, soon())
            .await
            .unwrap(),
        Renewal::Lapsed
    );
    assert_eq!(version().await, before, "to renew changes no key");
    assert_eq!(
        cluster
            .renew_leader(&other, &lease, |_| false, soon())
            .await
            .unwrap(),
        Renewal::Lapsed
    );

    // Deleted behind our back: created again, but not by who only found it. Put without our lease: moved to it.
    let gone = cluster.release_leader(&me, soon()).await.unwrap();
    assert!(done(gone) && !done(cluster.release_leader(&me, soon()).await.unwrap()));
    let adopted = cluster.adopt_leader(&me, &lease, soon()).await.unwrap();
    assert_eq!(adopted, Renewal::Lapsed);
    assert_eq!(text(&store, "leader").await, None);
    for stray in [None, Some("me")] {
        if let Some(name) = stray {
            set(&store, "leader", name).await;
        }
        assert_ne!(
            cluster
                .renew_leader(&me, &lease, |_| false, soon())
                .await
                .unwrap(),
            Renewal::Lapsed
        );
        assert_eq!(version().await.session.as_ref(), Some(&lease));
    }
    set(&store, "leader", "me").await;
    let adopted = cluster.adopt_leader(&me, &lease, soon()).await.unwrap();
    assert_ne!(adopted, Renewal::Lapsed);
    assert_eq!(version().await.session.as_ref(), Some(&lease));
    // Taken over: lost, though the lease lives.
    set(&store, "leader", "other").await;
    assert_eq!(
        cluster
            .renew_leader(&me, &lease, |_| false, soon())
            .await
            .unwrap(),
        Renewal::Lapsed
    );
    assert_eq!(text(&store, "leader").await.as_deref(), Some("other"));
    assert!(!done(cluster.release_leader(&me, soon()).await.unwrap()));

    // Lapsed: nothing is created.
    assert!(done(cluster.release_leader(&other, soon()).await.unwrap()));
    sleep(TTL).await;
    assert_eq!(
        cluster
            .renew_leader(&me, &lease, |_| false, soon())
            .await
            .unwrap(),
        Renewal::Lapsed
    );
    assert_eq!(text(&store, "leader").await, None);
    let error = cluster
        .acquire_leader(&me, &lease, soon())
        .await
        .unwrap_err();
    assert!(error.is_lease_lapsed());
    assert!(
        cluster
            .renew_leader(&me, &Session("none".into()), |_| false, soon())
            .await
            .is_ok()
    );
    store.set_fault(Fault::AnswerLost);
    cluster
        .renew_leader(&me, &lease, |_| false, soon())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let (store, cluster) = demo();
    let me: MemberName = "me".into();
    let status = Status {
        optime: Lsn(9),
        ..Status::default()
    };
    let (history, failsafe) = (
        History::default(),
        BTreeMap::from([("me".into(), "u".to_owned())]),
    );
    for (leader, allowed) in [("other", false), ("me", true)] {
        set(&store, "leader", leader).await;
        assert_eq!(
            done(cluster.write_status(&me, &status, soon()).await.unwrap()),
            allowed
        );
        assert_eq!(
            done(cluster.write_history(&me, &history, soon()).await.unwrap()),
            allowed
        );
        assert_eq!(
            done(
                cluster
                    .write_failsafe(&me, &failsafe, soon())
                    .await
                    .unwrap()
            ),
            allowed
        );
        assert_eq!(text(&store, "status").await.is_some(), allowed);
    }
    assert_eq!(
        text(&store, "failsafe").await.as_deref(),
        Some(r#"{"me":"u"}"#)
    );
}

#[tokio::test]
async fn writes_expect_what_they_say() {
    let (store, cluster) = demo();
    let map = json!({"ttl": 20, "a": {"b": null}});
    let map = map.as_object().unwrap();
    let Outcome::Done(first) = cluster
        .write_config(map, Expected::Absent, soon())
        .await
        .unwrap()
    else {
        panic!("there was no configuration");
    };
    assert_eq!(
        text(&store, "config").await.as_deref(),
        Some(r#"{"ttl":20,"a":{"b":null}}"#)
    );
    for (expected, outcome) in [
        (Expected::Absent, false),
        (Expected::Version(first), true),
        (Expected::Version(first), false),
        (Expected::Anything, true),
    ] {
        let written = cluster.write_config(map, expected, soon()).await.unwrap();
        assert_eq!(done(written), outcome, "{expected:?}");
    }
    assert!(done(
        cluster
            .write_failover("{}", Expected::Absent, soon())
            .await
            .unwrap()
    ));
    assert!(!done(
        cluster
            .write_failover("{}", Expected::Absent, soon())
            .await
            .unwrap()
    ));

    let sync = SyncState {
        leader: Some("me".into()),
        ..SyncState::default()
    };
    let Outcome::Done(version) = cluster.write_sync(&sync, None, soon()).await.unwrap() else {
        panic!("there was no sync key");
    };
    assert_eq!(
        cluster.read(soon()).await.unwrap().sync.version,
        Some(version)
    );
    assert!(!done(
        cluster.write_sync(&sync, None, soon()).await.unwrap()
    ));
    let Outcome::Done(next) = cluster
        .write_sync(&sync, Some(version), soon())
        .await
        .unwrap()
    else {
        panic!("the version was right");
    };
    assert!(!done(cluster.delete_sync(version, soon()).await.unwrap()));
    assert!(done(cluster.delete_sync(next, soon()).await.unwrap()));

    let lease = cluster.grant_lease(TTL, soon()).await.unwrap();
    let claim = async || cluster.claim_initialize(&lease, soon()).await.unwrap();
    let Outcome::Done(first) = claim().await else {
        panic!("nobody had claimed it");
    };
    assert!(!done(claim().await));
    assert_eq!(
        cluster.read(soon()).await.unwrap().initialize,
        Initialize::Running
    );
    let identifier = SystemIdentifier::parse("7710395762296189624").unwrap();
    let written = cluster
        .write_initialize(&identifier, Expected::Absent, soon())
        .await
        .unwrap();
    assert!(!done(written));
    let written = cluster
        .write_initialize(&identifier, Expected::Anything, soon())
        .await
        .unwrap();
    assert!(done(written));
    // What took the place of the claim is not the claimant's to remove, nor does it go with the lease.
    assert!(!done(
        cluster.cancel_initialize(first, soon()).await.unwrap()
    ));
    cluster.revoke_lease(&lease, soon()).await.unwrap();
    assert_eq!(
        cluster.read(soon()).await.unwrap().initialize,
        Initialize::Done(identifier)
    );

    let lease = cluster.grant_lease(TTL, soon()).await.unwrap();
    let member = MemberData::from_json(r#"{"state":"running"}"#);
    cluster
        .put_member(&"me".into(), &member, &lease, soon())
        .await
        .unwrap();
    assert_eq!(
        cluster.read(soon()).await.unwrap().members[0].session,
        Some(lease)
    );
    cluster.delete_member(&"me".into(), soon()).await.unwrap();
    set_at(&store, "/service/demo2/leader", "stranger").await;
    cluster.delete_cluster(soon()).await.unwrap();
    assert_eq!(cluster.read(soon()).await.unwrap(), Default::default());
    let beside = ClusterStore::new(store, "service", "demo2")
        .read(soon())
        .await
        .unwrap();
    assert!(beside.is_led_by("stranger"));
}

#[tokio::test]
async fn events_are_told_apart() {
    let (_, cluster) = demo();
    for (key, subject) in [
        ("/service/demo/leader", Subject::Leader),
        ("/service/demo/members/a", Subject::Member("a".into())),
        ("/service/demo/members/a/b", Subject::Other),
        ("/service/demo/optime/leader", Subject::Status),
        ("/service/demo/sync", Subject::Sync),
        ("/service/demo2/leader", Subject::Other),
    ] {
        let deleted = WatchEvent::Delete { key: key.into() };
        assert_eq!(cluster.subject(&deleted), subject);
        let version = primacy_model::Version(1);
        let entry = Entry {
            key: key.into(),
            value: Vec::new(),
            version,
            lease: None,
        };
        assert_eq!(cluster.subject(&WatchEvent::Put(entry)), subject);
    }
    assert_eq!(cluster.subject(&WatchEvent::Resync), Subject::Everything);
}
