use primacy_model::{PATRONI_VERSION, PendingRestart, ScheduledRestart, Tags, json_line};
use serde_json::json;

use super::super::metrics;
use super::super::status::Status;
use super::*;
use crate::logging::QueueStatus;
use primacy_config::{StandbyCluster, SynchronousMode};

fn text(published: &Published) -> String {
    let fresh = Some(&*published.observation);
    let status = Status::new(published, fresh, QueueStatus::default(), Instant::now());
    json_line(&status.to_json()).replace(PATRONI_VERSION, "4.1.4")
}

/// The examples of `rest-api.md` §13.
#[test]
fn documents_are_the_originals() {
    let bootstrap = primary()
        .with(|p| {
            p.state = State::InitializingNewCluster;
            p.role = Role::Uninitialized;
            p.lease_until = None;
            p.dcs_last_seen = 1_795_216_407;
        })
        .without_answer()
        .with_view(|view| view.leader = None);
    let creating = replica()
        .with(|p| {
            p.state = State::CreatingReplica;
            p.role = Role::Uninitialized;
            p.dcs_last_seen = 1_795_216_416;
        })
        .without_answer();
    let stopped = replica()
        .with(|p| {
            p.state = State::Stopped;
            p.dcs_last_seen = 1_795_218_667;
        })
        .without_answer()
        .with_global(|global| global.pause = true);
    let standby_leader = primary()
        .with(|p| {
            p.role = Role::StandbyLeader;
            p.dcs_last_seen = 1_795_217_834;
        })
        .with_global(|global| {
            global.standby_cluster = Some(StandbyCluster {
                host: Some("up".into()),
                ..Default::default()
            });
        })
        .with_wal(|wal| {
            wal.timeline = None;
            wal.replay_timeline = Some(Timeline(5));
            wal.postmaster_start_time_text = "2026-11-20 23:22:48.700426+00".into();
            wal.receive_lsn = Lsn(1_448_664_912);
            wal.replay_lsn = Lsn(1_448_664_912);
            wal.replayed_timestamp_text = Some("2026-11-20 23:36:12.233351+00".into());
        });
    let cases = [
        (
            primary(),
            r#"{"state": "running", "postmaster_start_time": "2026-11-20 23:13:29.134102+00:00", "role": "primary", "server_version": 150018, "xlog": {"location": 50331744}, "timeline": 1, "replication": [{"usename": "replicator", "application_name": "pg1", "client_addr": "10.0.0.12", "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1795216449, "database_system_identifier": "7710395762296189624", "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg0"}}"#,
        ),
        (
            replica(),
            r#"{"state": "running", "postmaster_start_time": "2026-11-20 23:13:38.535128+00:00", "role": "replica", "server_version": 150018, "xlog": {"received_location": 50331744, "replayed_location": 50331744, "replayed_timestamp": null, "paused": false}, "timeline": 1, "replication_state": "streaming", "dcs_last_seen": 1795216450, "database_system_identifier": "7710395762296189624", "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg1"}}"#,
        ),
        (
            bootstrap,
            r#"{"state": "initializing new cluster", "role": "uninitialized", "cluster_unlocked": true, "dcs_last_seen": 1795216407, "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg0"}}"#,
        ),
        (
            creating,
            r#"{"state": "creating replica", "role": "uninitialized", "dcs_last_seen": 1795216416, "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg1"}}"#,
        ),
        (
            replica().without_answer(),
            r#"{"state": "unknown", "role": "replica", "dcs_last_seen": 1795216450, "database_system_identifier": "7710395762296189624", "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg1"}}"#,
        ),
        (
            stopped,
            r#"{"state": "stopped", "role": "replica", "pause": true, "dcs_last_seen": 1795218667, "database_system_identifier": "7710395762296189624", "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg1"}}"#,
        ),
        (
            standby_leader,
            r#"{"state": "running", "postmaster_start_time": "2026-11-20 23:22:48.700426+00:00", "role": "standby_leader", "server_version": 150018, "xlog": {"received_location": 1448664912, "replayed_location": 1448664912, "replayed_timestamp": "2026-11-20 23:36:12.233351+00:00", "paused": false}, "timeline": 5, "replication": [{"usename": "replicator", "application_name": "pg1", "client_addr": "10.0.0.12", "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1795217834, "database_system_identifier": "7710395762296189624", "patroni": {"version": "4.1.4", "scope": "demo", "name": "pg0"}}"#,
        ),
    ];
    for (published, expected) in cases {
        assert_eq!(text(&published), expected);
    }
}

/// The excerpts of §13, and the keys that come after.
#[test]
fn flags_stand_where_the_original_has_them() {
    let listed = |mode| {
        replica()
            .with_view(listed_in_sync)
            .with_global(|global| global.synchronous_mode = mode)
    };
    let restart = |p: &mut Published| {
        let reasons = [
            ("max_connections", ("50", "61")),
            ("shared_preload_libraries", ("", "pg_stat_statements")),
        ];
        p.pending_restart = Some(PendingRestart {
            reasons: reasons
                .map(|(name, (old, new))| (name.into(), (old.into(), new.into())))
                .into(),
        });
        p.scheduled_restart = Some(ScheduledRestart {
            schedule: "2040-01-01T00:00:00+01:00".into(),
            postmaster_start_time: Some("not told".into()),
            filters: object(json!({
                "role": "replica", "postgres_version": "15.20", "timeout": 60, "restart_pending": true,
            })),
        });
        p.watchdog_failed = true;
    };
    let cases = [
        (
            listed(SynchronousMode::On),
            r#""paused": false}, "sync_standby": true, "timeline": 1, "replication_state""#,
        ),
        (
            listed(SynchronousMode::Quorum),
            r#""paused": false}, "quorum_standby": true, "timeline": 1, "replication_state""#,
        ),
        (
            primary()
                .without_view()
                .with(|p| p.failsafe_until = p.lease_until),
            r#""cluster_unlocked": true, "failsafe_mode_is_active": true, "dcs_last_seen": 1795216449, "#,
        ),
        (
            replica().with(restart),
            r#", "pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "50", "new_value": "61"}, "shared_preload_libraries": {"old_value": "", "new_value": "pg_stat_statements"}}, "patroni": "#,
        ),
        (
            replica().with(restart),
            r#", "scheduled_restart": {"schedule": "2040-01-01T00:00:00+01:00", "role": "replica", "postgres_version": "15.20", "timeout": 60, "restart_pending": true}, "watchdog_failed": true}"#,
        ),
        (
            replica().with(|p| {
                p.tags = Tags::from_json(&json!({"a": 1, "nosync": true, "sync_priority": 0}));
            }),
            r#""dcs_last_seen": 1795216450, "tags": {"a": 1, "nosync": true, "sync_priority": 0}, "database_"#,
        ),
        (
            replica().with_wal(|wal| {
                wal.receiver = None;
                wal.restore_command = true;
            }),
            r#""timeline": null, "replication_state": "in archive recovery", "#,
        ),
    ];
    for (published, expected) in cases {
        let text = text(&published);
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}

/// An old position must never be told: without a look taken for the request there is none.
#[test]
fn nothing_old_is_told_of_postgresql() {
    let published = replica();
    let status = Status::new(
        &published,
        None,
        QueueStatus { queued: 3, lost: 1 },
        Instant::now(),
    );
    let document = status.to_json();
    for key in [
        "xlog",
        "timeline",
        "server_version",
        "replication_state",
        "postmaster_start_time",
    ] {
        assert_eq!(document.get(key), None, "{key}");
    }
    assert_eq!(document["state"], "unknown");
    assert_eq!(
        (
            &document["logger_queue_size"],
            &document["logger_records_lost"]
        ),
        (&json!(3), &json!(1))
    );
}

/// Two records are queued at any time on a busy member.
#[test]
fn the_queue_of_the_log_is_told_of_from_the_third_record_on() {
    let published = replica();
    let told = |queued| {
        let queue = QueueStatus { queued, lost: 1 };
        let document = Status::new(&published, None, queue, Instant::now()).to_json();
        let keys = ["logger_queue_size", "logger_records_lost"];
        keys.map(|key| document.get(key).cloned())
    };
    assert_eq!(told(2), [None, None]);
    assert_eq!(told(3), [Some(json!(3)), Some(json!(1))]);
}

#[test]
fn metrics_of_a_primary_are_golden() {
    let published =
        primary().with(|p| p.failsafe_map = Some(json!({"pg0": "http://10.0.0.11:8008/patroni"})));
    assert_eq!(
        metrics_text(&published),
        include_str!("metrics_primary.txt")
    );
}

#[test]
fn metrics_of_a_replica_are_golden() {
    let published = replica()
        .with_global(|global| global.failsafe_mode = true)
        .with_wal(|wal| {
            wal.replayed_timestamp = Some("2026-11-20T23:14:00Z".parse().unwrap());
            wal.replay_paused = true;
        });
    let published = published.with(|p| p.tags = Tags::from_json(&json!({"failover_priority": 3})));
    assert_eq!(
        metrics_text(&published),
        include_str!("metrics_replica.txt")
    );
}

/// §6, the column of values: each is what the status document says, in every role and state.
#[test]
fn metrics_say_what_the_status_says() {
    let sync = |mode| {
        replica()
            .with_view(listed_in_sync)
            .with_global(|global| global.synchronous_mode = mode)
    };
    let standby_leader = primary()
        .with(|p| p.role = Role::StandbyLeader)
        .with_global(|global| {
            global.standby_cluster = Some(StandbyCluster {
                host: Some("up".into()),
                ..Default::default()
            });
        })
        .with_wal(|wal| wal.timeline = None);
    let archive = replica().with_wal(|wal| {
        wal.receiver = None;
        wal.restore_command = true;
    });
    let failsafe = primary()
        .without_view()
        .with(|p| p.failsafe_until = p.lease_until);
    let waiting = replica().with(|p| p.pending_restart = Some(PendingRestart::default()));
    let old = replica().with_wal(|wal| wal.server_version = 90_500);
    let mut situations = vec![
        (primary(), "primary"),
        (
            sync(SynchronousMode::On),
            "replica sync_standby postgres_streaming",
        ),
        (
            sync(SynchronousMode::Quorum),
            "replica quorum_standby postgres_streaming",
        ),
        (standby_leader, "standby_leader"),
        (archive, "replica postgres_in_archive_recovery"),
        (failsafe, "primary cluster_unlocked failsafe_mode_is_active"),
        (waiting, "replica postgres_streaming pending_restart"),
        (
            replica().with_global(|global| global.pause = true),
            "replica postgres_streaming is_paused",
        ),
        (
            replica().without_view(),
            "replica postgres_streaming cluster_unlocked",
        ),
        (old, "replica"),
    ];
    for (situation, flags) in &mut situations {
        let text = metrics_text(situation);
        let set: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#') && line.ends_with(" 1"))
            .filter_map(|line| line.strip_prefix("patroni_")?.split('{').next())
            .filter(|name| {
                !["postgres_running", "postgres_timeline", "failover_priority"].contains(name)
            })
            .collect();
        assert_eq!(set.join(" "), *flags);
        let tells_receiver = situation.observation.wal.as_ref().unwrap().server_version >= 90_600;
        assert_eq!(
            text.contains("patroni_postgres_streaming"),
            tells_receiver,
            "{flags}"
        );
    }
    for &state in State::ALL {
        let text = metrics_text(&replica().with(|p| p.state = state).without_answer());
        let number = match state {
            State::Running => -1,
            state => i32::from(state.number()),
        };
        let line = format!("patroni_postgres_state{{scope=\"demo\",name=\"pg1\"}} {number}\n");
        assert!(text.contains(&line), "{state:?}");
        assert!(
            text.contains("patroni_postgres_running{scope=\"demo\",name=\"pg1\"} 0\n"),
            "{state:?}"
        );
    }
    let named = metrics_text(&primary().with(|p| {
        p.scope = "a\"b\nc".into();
        p.name = "c\\d".into();
    }));
    assert!(
        named.contains(r#"{scope="a\"b\nc",name="c\\d"} 040105"#),
        "{named:.300}"
    );
}

#[test]
fn metrics_without_an_answer_are_zero() {
    let text = metrics_text(
        &replica()
            .without_answer()
            .with(|p| p.tags = Tags::from_json(&json!({"nofailover": true}))),
    );
    assert!(!text.contains("patroni_postgres_streaming"));
    for line in [
        "patroni_postgres_state{scope=\"demo\",name=\"pg1\"} -1\n",
        "patroni_postmaster_start_time{scope=\"demo\",name=\"pg1\"} 0\n",
        "patroni_replica{scope=\"demo\",name=\"pg1\"} 1\n",
        "patroni_failover_priority{scope=\"demo\",name=\"pg1\"} 0\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

fn metrics_text(published: &Published) -> String {
    let fresh = Some(&*published.observation);
    metrics::text(&Status::new(
        published,
        fresh,
        QueueStatus::default(),
        Instant::now(),
    ))
}
