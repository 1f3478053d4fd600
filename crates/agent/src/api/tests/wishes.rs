use jiff::Timestamp;
use primacy_config::SynchronousMode;
use primacy_model::{FailoverRequest, Tags};
use serde_json::json;

use super::super::answer::Answer;
use super::super::switchover::{Action, Wish, somebody_can};
use super::super::{host, log_line, restart};
use super::*;
use crate::peers::PeerStatus;
use crate::request::{RestartAnswer, RestartFilters};

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Answer>) -> (u16, String) {
    match result {
        Err(Answer::Text { code, text, .. }) => (code, text.into_owned()),
        other => panic!("{other:?}"),
    }
}

/// `rest-api.md` §8.1, rows 1 to 8.
#[test]
fn requests_that_make_no_sense_are_refused() {
    use Action::{Failover, Switchover};
    let later = "2040-01-01T10:00+01:00";
    let cases = [
        (
            Failover,
            json!({"leader": "a"}),
            false,
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            Failover,
            json!({"candidate": ""}),
            false,
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            Switchover,
            json!({"candidate": "b"}),
            false,
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            Failover,
            json!({"member": "b", "scheduled_at": later}),
            false,
            400,
            "Failover can't be scheduled",
        ),
        (
            Switchover,
            json!({"leader": "a", "scheduled_at": later}),
            true,
            400,
            "Can't schedule switchover in the paused state",
        ),
        (
            Switchover,
            json!({"leader": "a", "scheduled_at": "x"}),
            false,
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        ),
        (
            Switchover,
            json!({"leader": "a", "scheduled_at": null}),
            true,
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        (
            Switchover,
            json!({"leader": "a", "scheduled_at": "2040-01-01T10:00"}),
            false,
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            Switchover,
            json!({"leader": "a", "scheduled_at": "2020-01-01T10:00Z"}),
            false,
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            Switchover,
            json!({"leader": "a"}),
            true,
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        (
            Switchover,
            json!({"leader": "a", "candidate": "a"}),
            false,
            400,
            "Switchover target and source are the same",
        ),
        (
            Failover,
            json!({"leader": "a", "candidate": "a"}),
            false,
            400,
            "Switchover target and source are the same",
        ),
    ];
    for (action, body, paused, code, text) in cases {
        let refused = refusal(Wish::new(action, &object(body.clone()), paused, now()));
        assert_eq!(refused, (code, text.to_owned()), "{body}");
    }
}

fn wish(action: Action, body: Value) -> Wish {
    Wish::new(action, &object(body), false, now()).unwrap()
}

/// Rows 9 to 13.
#[test]
fn requests_that_do_not_fit_the_cluster_are_refused() {
    use Action::{Failover, Switchover};
    use SynchronousMode::{Off, On, Quorum};
    let mut listed = cluster();
    listed_in_sync(&mut listed);
    let mut lonely = cluster();
    lonely.members.truncate(1);
    let refused = [
        (
            Switchover,
            json!({"leader": "pg1"}),
            cluster(),
            Off,
            "leader name does not match",
        ),
        (
            Switchover,
            json!({"leader": "pg0"}),
            Cluster {
                leader: None,
                ..cluster()
            },
            Off,
            "leader name does not match",
        ),
        (
            Switchover,
            json!({"leader": "pg0", "candidate": "pg2"}),
            listed.clone(),
            On,
            "candidate name does not match with sync_standby",
        ),
        // With a leader it is a switchover.
        (
            Failover,
            json!({"leader": "pg0", "candidate": "pg2"}),
            listed.clone(),
            On,
            "candidate name does not match with sync_standby",
        ),
        (
            Failover,
            json!({"candidate": "pg9"}),
            cluster(),
            Off,
            "candidate does not exists",
        ),
        (
            Switchover,
            json!({"leader": "pg0"}),
            cluster(),
            On,
            "switchover is not possible: can not find sync_standby",
        ),
        (
            Switchover,
            json!({"leader": "pg0"}),
            lonely,
            Off,
            "switchover is not possible: cluster does not have members except leader",
        ),
    ];
    for (action, body, cluster, mode, text) in refused {
        let result = wish(action, body.clone())
            .candidates(&cluster, mode)
            .map(|found| found.len());
        assert_eq!(refusal(result), (412, text.to_owned()), "{body}");
    }
    let accepted = [
        (
            Switchover,
            json!({"leader": "pg0"}),
            Off,
            vec!["pg1", "pg2"],
        ),
        (Switchover, json!({"leader": "pg0"}), On, vec!["pg1"]),
        (
            Switchover,
            json!({"leader": "pg0", "candidate": "pg2"}),
            Quorum,
            vec!["pg2"],
        ),
        (Failover, json!({"candidate": "pg2"}), On, vec!["pg2"]),
        (
            Failover,
            json!({"leader": "pg0", "member": "pg1"}),
            On,
            vec!["pg1"],
        ),
    ];
    for (action, body, mode, expected) in accepted {
        let wish = wish(action, body.clone());
        let found = wish.candidates(&listed, mode).unwrap();
        let names: Vec<_> = found.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, expected, "{body}");
    }
}

/// Row 14.
#[test]
fn somebody_must_be_able_to_take_over() {
    let peer = |tags: Value, watchdog_failed| PeerStatus {
        failsafe_active: false,
        in_recovery: true,
        position: Lsn(1),
        timeline: None,
        tags: Tags::from_json(&tags),
        watchdog_failed,
        role: None,
        state: None,
    };
    let cases = [
        (None, [false, false]),
        (Some(peer(json!({}), false)), [true, true]),
        (
            Some(peer(json!({"nofailover": true}), false)),
            [false, true],
        ),
        (
            Some(peer(json!({"failover_priority": 0}), false)),
            [false, true],
        ),
        (Some(peer(json!({}), true)), [false, false]),
    ];
    for (answer, expected) in cases {
        let answers = [("pg1".into(), answer.clone())];
        let can = [false, true].map(|overruled| somebody_can(&answers, overruled));
        assert_eq!(can, expected, "{answer:?}");
    }
    assert!(!somebody_can(&[], false));
}

#[test]
fn w1_an_operator_may_choose_a_member_that_withdrew_itself_where_nobody_leads() {
    let overrules = |action, leads: bool, tags: Value, withdrawn: Option<&str>| {
        let mut cluster = cluster();
        if !leads {
            cluster.leader = None;
        }
        let member = &mut cluster.members[1];
        member.data.tags = Tags::from_json(&tags);
        member.data.withdrawn = withdrawn.map(str::to_owned);
        let body = json!({"leader": "pg0", "candidate": member.name.as_str()});
        let body = body.as_object().unwrap().clone();
        let body = match action {
            Action::Failover => body.into_iter().skip(1).collect(),
            Action::Switchover => body,
        };
        Wish::new(action, &body, false, now())
            .unwrap()
            .overrules_withdrawal(&cluster)
    };
    let tags = || json!({"nofailover": true});
    let why = Some("my WAL left the last leader's");
    assert!(overrules(Action::Failover, false, tags(), why));
    assert!(
        !overrules(Action::Failover, false, tags(), None),
        "by its configuration"
    );
    assert!(
        !overrules(Action::Failover, true, tags(), why),
        "somebody leads"
    );
    assert!(!overrules(Action::Switchover, false, tags(), why));
}

#[test]
fn outcome_shows_in_the_leader_key() {
    let led_by = |name: Option<&str>, requested: bool| {
        let mut cluster = cluster();
        cluster.leader = name.map(|name| Leader {
            name: name.into(),
            version: Version(2),
            session: None,
        });
        cluster.failover = FailoverRequest::parse("pg0:pg1", Version(1)).filter(|_| requested);
        cluster
    };
    let any = wish(Action::Switchover, json!({"leader": "pg0"}));
    let chosen = wish(
        Action::Switchover,
        json!({"leader": "pg0", "candidate": "pg1"}),
    );
    let forced = wish(Action::Failover, json!({"candidate": "pg1"}));
    let pg0 = MemberName::from("pg0");
    let cases = [
        (&any, led_by(Some("pg0"), true), None),
        (&any, led_by(None, true), None),
        (&any, led_by(None, false), None),
        (
            &any,
            led_by(Some("pg0"), false),
            Some((503, "Switchover failed")),
        ),
        (
            &forced,
            led_by(Some("pg0"), false),
            Some((503, "Failover failed")),
        ),
        (
            &any,
            led_by(Some("pg2"), true),
            Some((200, "Successfully switched over to \"pg2\"")),
        ),
        (
            &chosen,
            led_by(Some("pg1"), false),
            Some((200, "Successfully switched over to \"pg1\"")),
        ),
        (
            &chosen,
            led_by(Some("pg2"), false),
            Some((200, "Switched over to \"pg2\" instead of \"pg1\"")),
        ),
        (
            &forced,
            led_by(Some("pg1"), false),
            Some((200, "Successfully failed over to \"pg1\"")),
        ),
        (
            &forced,
            led_by(Some("pg2"), false),
            Some((200, "Failed over to \"pg2\" instead of \"pg1\"")),
        ),
    ];
    for (wish, cluster, expected) in cases {
        let expected = expected.map(|(code, text)| Answer::text(code, text));
        assert_eq!(wish.outcome(Some(&pg0), &cluster), expected);
    }
    let unled = forced.outcome(None, &led_by(None, false));
    assert_eq!(unled, Some(Answer::text(503, "Failover failed")));
}

/// `rest-api.md` §8.4.
#[test]
fn restart_filters_are_checked_in_order() {
    let role = "PostgreSQL role should be either primary, standby_leader, or replica";
    let timeout = "Timeout should be a positive number of seconds";
    let format =
        |version| format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {version}");
    let cases = [
        (
            json!({"role": "master", "timeout": 0}),
            400,
            role.to_owned(),
        ),
        (json!({"timeout": 0, "role": "master"}), 400, timeout.into()),
        (json!({"timeout": "-5"}), 400, timeout.into()),
        (json!({"timeout": "1 kB"}), 400, timeout.into()),
        (json!({"role": null}), 400, role.into()),
        (json!({"postgres_version": "15"}), 400, format("15")),
        (json!({"postgres_version": "9.6"}), 400, format("9.6")),
        (
            json!({"postgres_version": "1.2.3.4"}),
            400,
            format("1.2.3.4"),
        ),
        (
            json!({"postgres_version": "15.x"}),
            400,
            "Invalid PostgreSQL version: 15.x".into(),
        ),
        (
            json!({"force": true}),
            400,
            "Unknown filter for the scheduled restart: force".into(),
        ),
        (
            json!({"schedule": "2040-01-01"}),
            400,
            "Timezone information is mandatory for the scheduled restart".into(),
        ),
    ];
    for (body, code, text) in cases {
        assert_eq!(
            refusal(restart::Wish::new(&object(body.clone()), false, now())),
            (code, text),
            "{body}"
        );
    }
    let paused = restart::Wish::new(&object(json!({"schedule": null, "x": 1})), true, now());
    assert_eq!(
        refusal(paused),
        (500, "Can't schedule restart in the paused state".into())
    );
    let dropped = restart::Wish::new(&object(json!({"postgres_version": 15})), false, now());
    assert!(matches!(dropped, Err(Answer::Dropped(_))));
}

#[test]
fn restart_filters_are_taken() {
    let body = json!({
        "schedule": "2040-01-01 10:00+01", "role": "replica", "postgres_version": "15.20", "timeout": "1min",
        "restart_pending": false,
    });
    let wish = restart::Wish::new(&object(body), false, now()).unwrap();
    assert_eq!(wish.schedule.as_deref(), Some("2040-01-01T10:00:00+01:00"));
    assert_eq!(wish.timeout, Some(Duration::from_secs(60)));
    let filters = RestartFilters {
        role: Some("replica".into()),
        below_version: Some(150_020),
        pending: true,
    };
    assert_eq!(wish.filters, filters);
    let given = json!({"role": "replica", "postgres_version": "15.20", "timeout": 60, "restart_pending": false});
    assert_eq!(Value::Object(wish.given), given);
    let old =
        restart::Wish::new(&object(json!({"postgres_version": "9.6.3"})), true, now()).unwrap();
    assert_eq!(old.filters.below_version, Some(90_603));
}

#[test]
fn how_a_restart_ended_is_told_in_patronis_words() {
    let cases = [
        (RestartAnswer::Restarted, 200, "restarted successfully"),
        (
            RestartAnswer::ConditionsNotMet,
            503,
            "restart conditions are not satisfied",
        ),
        (
            RestartAnswer::Busy("reinitialize".into()),
            503,
            "reinitialize already in progress",
        ),
        (
            RestartAnswer::StillStarting,
            503,
            "postgres is still starting",
        ),
        (RestartAnswer::Failed, 503, "restart failed"),
    ];
    for (ended, code, text) in cases {
        assert_eq!(restart::restart_answer(ended), Answer::text(code, text));
    }
}

#[test]
fn hosts_of_api_urls() {
    let cases = [
        ("http://10.0.0.1:8008/patroni", Some("10.0.0.1")),
        ("https://[fd00::1]:8008/patroni", Some("fd00::1")),
        ("http://db.example/patroni", Some("db.example")),
        ("nonsense", None),
    ];
    for (url, expected) in cases {
        assert_eq!(host(url).as_deref(), expected, "{url}");
    }
}

#[test]
fn requests_are_logged_as_patroni_does() {
    let client = "::ffff:10.0.0.9".parse().unwrap();
    let line = log_line(
        client,
        "GET /replica?lag=1MB HTTP/1.1",
        503,
        Duration::from_micros(5016),
    );
    assert_eq!(
        line,
        "API thread: 10.0.0.9 - - \"GET /replica?lag=1MB HTTP/1.1\" 503 - latency: 5.016 ms"
    );
}
