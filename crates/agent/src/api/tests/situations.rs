use primacy_config::{StandbyCluster, SynchronousMode};
use primacy_model::{Lsn, Tags};
use serde_json::json;

use super::super::health::{check, liveness, readiness, readiness_needs_status};
use super::super::route::Query;
use super::super::status::Status;
use super::*;

fn codes(published: &Published, paths: &[&str]) -> String {
    let now = Instant::now();
    let status = Status::new(
        published,
        Some(&published.observation),
        Default::default(),
        now,
    );
    let mark = |passes: bool| if passes { '1' } else { '.' };
    paths
        .iter()
        .map(|path| {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let query = Query::parse(query);
            match path {
                "/liveness" => mark(liveness(published, now) == 200),
                "/readiness" => mark(readiness(&query, &status).is_ok()),
                _ => mark(check(path, &query, &status) == 200),
            }
        })
        .collect()
}

/// `rest-api.md` §4.4, row by row.
#[test]
fn codes_in_common_situations() {
    const PATHS: [&str; 13] = [
        "/primary",
        "/leader",
        "/standby-leader",
        "/replica",
        "/read-only",
        "/async",
        "/sync",
        "/quorum",
        "/read-only-sync",
        "/read-only-quorum",
        "/health",
        "/liveness",
        "/readiness",
    ];
    let standby_cluster = |published: Published| {
        published.with_global(|global| {
            global.standby_cluster = Some(StandbyCluster {
                host: Some("up".into()),
                ..Default::default()
            });
        })
    };
    let no_receiver = |published: Published| published.with_wal(|wal| wal.receiver = None);
    let mode = |mode| move |global: &mut GlobalConfig| global.synchronous_mode = mode;
    let lock = |published: Published| published.with(|p| p.lease_until = Some(p.view_until));
    let no_lock = |published: Published| published.with(|p| p.lease_until = None);
    let state = |published: Published, state| published.with(|p| p.state = state);
    let paused = |published: Published| published.with_global(|global| global.pause = true);
    #[rustfmt::skip]
    let rows = [
        ("healthy primary", primary(), "11..1...11111"),
        ("replica, streaming, asynchronous", replica(), "...111....111"),
        ("replica running, not streaming", no_receiver(replica()), "...111....11."),
        ("synchronous standby",
         replica().with_view(listed_in_sync).with_global(mode(SynchronousMode::On)), "...11.1.1.111"),
        ("quorum standby",
         replica().with_view(listed_in_sync).with_global(mode(SynchronousMode::Quorum)), "...11..1.1111"),
        ("standby leader",
         standby_cluster(lock(replica())).with(|p| p.role = Role::StandbyLeader), ".11.1...11111"),
        ("lock held, starting", state(primary(), State::Starting).without_answer(), "11..1...11.11"),
        ("lock held, stopping", state(primary(), State::Stopping), "11..1...11.11"),
        ("lock just acquired, still in recovery", lock(replica()), "11.111..11111"),
        ("initdb", state(no_lock(primary()), State::InitializingNewCluster).with(|p| p.role = Role::Uninitialized).without_answer(), "...........1."),
        ("creating replica", state(replica(), State::CreatingReplica).with(|p| p.role = Role::Uninitialized).without_answer(), "...........1."),
        ("stopped", state(replica(), State::Stopped).without_answer(), "...........1."),
        ("initdb finished, lock not yet taken", no_lock(primary()), "..........11."),
        ("queries fail, no lock", replica().without_answer(), "...........1."),
        ("queries fail, with lock", primary().without_answer(), "11..1...11.11"),
        ("no DCS: replica still streaming", replica().without_view(), "...11.....111"),
        ("no DCS: demoted former primary",
         no_receiver(replica()).without_view(), "...11.....11."),
        ("no DCS, failsafe: primary",
         primary().without_view().with(|p| p.failsafe_until = p.lease_until), "11..1.....111"),
        ("no DCS, paused: primary", paused(primary()).without_view(), "11..1.....111"),
        ("no DCS, paused: primary, ttl passed", paused(no_lock(primary())).without_view(), "11..1.....11."),
        ("everything deleted, paused: primary",
         paused(no_lock(primary())).with_view(|view| *view = Cluster::default()), "11..1.....11."),
        ("everything deleted: replica", replica().with_view(|view| *view = Cluster::default()), "...11.....111"),
        ("no DCS, paused: replica", paused(replica()).without_view(), "...11.....111"),
        // W5: the lease has passed and nobody has noticed yet.
        ("frozen leader awakes",
         primary().with(|p| p.lease_until = Some(Instant::now() - Duration::from_millis(1))), "..........11."),
    ];
    for (situation, published, expected) in rows {
        assert_eq!(codes(&published, &PATHS), expected, "{situation}");
    }
}

/// `rest-api.md` §4.2: words anywhere in the path, or exact ones.
#[test]
fn paths_match_by_words() {
    let paths = [
        "/",
        "//",
        "/master",
        "/masters",
        "/primary/",
        "/read-write",
        "/leaderboard",
        "/standby_leader",
        "/replica-health",
        "/read-only/",
        "/read_only",
        "/async/",
        "/sync/",
        "/asynchronous",
        "/nothing",
        "/restart",
        "/health/x",
    ];
    assert_eq!(codes(&primary(), &paths), "1111111..1......1");
    assert_eq!(codes(&replica(), &paths), "........11...1..1");
}

/// `rest-api.md` §4.3.
#[test]
fn parameters_limit_replicas() {
    let lagging = replica().with_wal(|wal| wal.replay_lsn = Lsn(50_331_744 - 16_384));
    let paths = [
        "/replica",
        "/replica?lag=16384",
        "/replica?lag=16kB",
        "/replica?lag=16383",
        "/replica?lag=-1",
        "/replica?lag=1mb",
        "/replica?lag=abc",
        "/replica?lag=0x4000",
        "/replica?lag=040000",
        "/replica?lag=037777",
        "/replica?lag=10%20MB",
        "/replica?lag=+10MB",
        "/async?lag=1",
        "/read-only?lag=1",
        "/health?lag=1",
        "/replica?replication_state=streaming",
        "/replica?replication_state=in+archive+recovery",
    ];
    assert_eq!(codes(&lagging, &paths), "111..1111.11..11.");
    let unknown = lagging
        .with_view(|view| view.status.optime = Lsn::ZERO)
        .with_wal(|wal| wal.receiver = None);
    assert_eq!(codes(&unknown, &["/replica?lag=0"]), "1");
}

/// Rules 7 to 11 of `rest-api.md` §4.2: the parameters are those of `/replica`, and who leads is asked for its tags alone.
#[test]
fn parameters_limit_standbys_of_every_kind() {
    let tag = |p: &mut Published| {
        p.configured_tags = Tags::from_json(&json!({"key": "value"})).published();
    };
    let listed = |mode| {
        let replica = replica().with(tag).with_view(listed_in_sync);
        let replica = replica.with_wal(|wal| wal.replay_lsn = Lsn(50_331_744 - 16_384));
        replica.with_global(move |global| global.synchronous_mode = mode)
    };
    let asked = |published: &Published, path: &str| {
        let queries = [
            "",
            "?tag_key=value",
            "?tag_key=other",
            "?lag=16kB",
            "?lag=16383",
            "?replication_state=streaming",
            "?replication_state=in+archive+recovery",
        ];
        let paths = queries.map(|query| format!("{path}{query}"));
        codes(published, &paths.each_ref().map(String::as_str))
    };
    use SynchronousMode::{Off, On, Quorum};
    for (mode, paths) in [
        (
            On,
            &[
                "/sync",
                "/synchronous",
                "/read-only-sync",
                "/read-only-synchronous",
            ][..],
        ),
        (Quorum, &["/quorum", "/read-only-quorum"]),
        (Off, &["/async", "/asynchronous"]),
    ] {
        for path in paths {
            assert_eq!(asked(&listed(mode), path), "11.1.1.", "{path}");
            for other in [On, Quorum, Off].into_iter().filter(|it| *it != mode) {
                assert_eq!(asked(&listed(other), path), ".......", "{path}");
            }
            let expected = match path.starts_with("/read-only") {
                true => "11.1111",
                false => ".......",
            };
            assert_eq!(asked(&primary().with(tag), path), expected, "{path}");
        }
    }
}

/// §3.1: one that is older than `ttl` is none, whoever leads in it.
#[test]
fn a_view_expires() {
    let old = |p: &mut Published| p.view_until = Instant::now();
    let paths = ["/replica", "/async", "/read-only-sync", "/primary"];
    assert_eq!(codes(&replica(), &paths), "11..");
    assert_eq!(codes(&replica().with(old), &paths), "1...");
    assert_eq!(codes(&primary(), &paths), "..11");
    let leading = primary().with(|p| p.lease_until = Some(p.view_until));
    assert_eq!(codes(&leading.with(old), &paths), "...1");

    let published = replica();
    let until = published.view_until;
    let before = until - Duration::from_nanos(1);
    assert!(published.view(before).is_some() && published.view(until).is_none());
    let document = |now| Status::new(&published, None, Default::default(), now).to_json();
    assert_eq!(document(before).get("cluster_unlocked"), None);
    assert_eq!(document(until)["cluster_unlocked"], true);
}

#[test]
fn tags_must_be_there_and_match() {
    let tagged = |published: Published| {
        published.with(|p| {
            p.configured_tags = Tags::from_json(&json!({
                "key": "value", "flag": true, "number": 1.4, "list": [1, "two"], "nothing": null,
                "nofailover": false, "clonefrom": true,
            }))
            .published();
        })
    };
    let paths = [
        "/replica?tag_key=value",
        "/replica?tag_key=Value",
        "/replica?tag_flag=true",
        "/replica?tag_flag=True",
        "/replica?tag_number=1.4",
        "/replica?tag_list=[1,%20'two']",
        "/replica?tag_nothing=none",
        "/replica?tag_nofailover=false",
        "/replica?tag_clonefrom=true",
        "/replica?tag_key=value&tag_flag=false",
        "/health?tag_key=other",
        "/primary?tag_key=other",
        "/?tag_key=other",
    ];
    assert_eq!(codes(&tagged(replica()), &paths), "1.1.11..1....");
    assert_eq!(codes(&tagged(primary()), &paths), "...........11");
    let withdrawing = replica().with(|p| {
        p.tags = Tags::from_json(&json!({"nosync": true, "sync_priority": 0}));
    });
    assert_eq!(
        codes(&withdrawing, &["/replica", "/replica?tag_nosync=true"]),
        "1."
    );
    let unbalanced = replica().with(|p| p.tags = Tags::from_json(&json!({"noloadbalance": true})));
    assert_eq!(
        codes(
            &unbalanced,
            &["/replica", "/read-only", "/async", "/health", "/readiness"]
        ),
        "...11"
    );
}

/// `rest-api.md` §4.5.
#[test]
fn liveness_follows_the_loop() {
    let late = |seconds| {
        move |p: &mut Published| p.next_pass = Instant::now() - Duration::from_secs(seconds)
    };
    let cases = [
        (primary().with(late(29)), "1"),
        (primary().with(late(31)), "."),
        (
            primary()
                .with(late(31))
                .with(|p| p.postmaster_alive = false),
            "1",
        ),
        (replica().with(late(59)), "1"),
        (replica().with(late(61)), "."),
        (
            replica()
                .with(late(61))
                .with_global(|global| global.pause = true),
            "1",
        ),
    ];
    for (published, expected) in cases {
        assert_eq!(codes(&published, &["/liveness"]), expected);
    }
}

/// `rest-api.md` §4.6.
#[test]
fn readiness_looks_at_the_lag() {
    let paths = [
        "/readiness",
        "/readiness?lag=2MB",
        "/readiness?lag=abc",
        "/readiness?mode=write",
        "/readiness?mode=apply",
    ];
    let behind = replica().with_wal(|wal| wal.replay_lsn = Lsn(50_331_744 - 1_048_577));
    assert_eq!(codes(&behind, &paths), ".1.1.");
    let at_the_limit = replica().with_wal(|wal| wal.replay_lsn = Lsn(50_331_744 - 1_048_576));
    assert_eq!(codes(&at_the_limit, &paths), "11111");
    // The leader last told an earlier position than the one that is replayed here.
    let ahead = |by: u64| replica().with_wal(move |wal| wal.replay_lsn = Lsn(50_331_744 + by));
    let paths = ["/readiness?lag=0", "/readiness?lag=-1", "/readiness?lag=-2"];
    assert_eq!(codes(&ahead(0), &paths), "1..");
    assert_eq!(codes(&ahead(1), &paths), "11.");
    let archive = replica().with_wal(|wal| {
        wal.receiver = None;
        wal.restore_command = true;
    });
    assert_eq!(codes(&archive, &["/readiness"]), ".");
    let cut_off = replica().without_view().with_wal(|wal| {
        wal.receiver.as_mut().unwrap().latest_end_lsn = Lsn::ZERO;
    });
    assert_eq!(codes(&cut_off, &["/readiness"]), ".");
    let failsafe = cut_off.with(|p| p.failsafe_until = Some(p.view_until));
    assert_eq!(codes(&failsafe, &["/readiness"]), "1");
}

/// `rest-api.md` §4.6, the reasons, and §3.3: who leads or does not run is not asked for more.
#[test]
fn readiness_says_what_is_missing() {
    let reason = |published: Published, query: &str| {
        let look = Some(&*published.observation);
        let status = Status::new(&published, look, Default::default(), Instant::now());
        let reason = readiness(&Query::parse(query), &status).err();
        (
            reason.map(|reason| reason.to_string()).unwrap_or_default(),
            readiness_needs_status(&published, Instant::now()),
        )
    };
    let stopped = replica().with(|p| p.state = State::Stopped);
    let archive = replica().with_wal(|wal| wal.receiver = None);
    let cut_off = replica().without_view().with_wal(|wal| {
        wal.receiver.as_mut().unwrap().latest_end_lsn = Lsn::ZERO;
    });
    let behind = |by: u64| replica().with_wal(move |wal| wal.replay_lsn = Lsn(50_331_744 - by));
    let cases = [
        (primary(), "", "", false),
        (stopped, "", "PostgreSQL is not running", false),
        (
            archive,
            "",
            "PostgreSQL replication state is not streaming",
            true,
        ),
        (cut_off, "", "DCS is not accessible", true),
        (
            behind(2_000_000),
            "",
            "Replication apply lag 2000000 exceeds maximum allowable 1048576",
            true,
        ),
        (
            replica(),
            "mode=write&lag=-1",
            "Replication write lag 0 exceeds maximum allowable -1",
            true,
        ),
        (replica(), "", "", true),
    ];
    for (published, query, expected, asks) in cases {
        assert_eq!(reason(published, query), (expected.to_owned(), asks));
    }
}

#[test]
fn w6_a_replica_that_hangs_counts_for_nobody_and_says_why() {
    let hangs = |published: Published| {
        published.with(|p| {
            Arc::make_mut(&mut p.observation).probes.connection = Some(Duration::from_secs(7));
        })
    };
    assert_eq!(codes(&replica(), &["/replica", "/health"]), "11");
    assert_eq!(codes(&hangs(replica()), &["/replica", "/health"]), "..");
    let document = |published: &Published| {
        let fresh = Some(&*published.observation);
        Status::new(published, fresh, Default::default(), Instant::now()).to_json()
    };
    let told = document(&hangs(replica()));
    assert_eq!(told["hang"], json!({"connection": 7}));
    assert_eq!(told.get("xlog"), None, "no member counts on it in a race");
    assert_eq!(document(&replica()).get("hang"), None);
    let primary = document(&hangs(primary()));
    assert_eq!(primary["hang"], json!({"connection": 7}));
    assert!(primary.get("xlog").is_some(), "it still leads");
}
