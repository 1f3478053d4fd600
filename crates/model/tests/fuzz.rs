//! The values of the keys, as a member of any version or an operator may have written them; `make fuzz`.

use primacy_model::{
    ConnUrl, FailoverRequest, History, Initialize, JournalRecord, Lsn, MemberData, Status,
    SyncState, Tags, Version,
};
use serde_json::Value;

#[test]
#[ignore = "long: make fuzz"]
fn documents() {
    let samples = [
        r#"{"conn_url":"postgres://10.0.0.12:15432/postgres","api_url":"http://10.0.0.12:8008/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":61865920,"replay_lsn":50331744,"timeline":1,"tags":{"nosync":true,"failover_priority":"2"},"slots":{"a":5},"pending_restart":true,"pending_restart_reason":{"work_mem":{"old_value":"1","new_value":"2"}},"scheduled_restart":{"schedule":"2026-01-01T00:00:00+00:00"}}"#,
        "postgres://rep:x@[::1]:5432/postgres?application_name=http://a:8008/patroni",
        r#"{"leader":"a","sync_standby":"b,c","quorum":1}"#,
        r#"{"leader":"a","member":"b","scheduled_at":"2026-01-01T10:00:00.5+02:00"}"#,
        "a:b",
        r#"{"optime":67108960,"slots":{"a":67108960},"retain_slots":["b"]}"#,
        "67108960",
        r#"[[1,25623960,"no recovery target specified","2026-01-01T10:00:00+00:00","pg1"],[2,3,"x"]]"#,
        "7710586312756997346",
    ];
    primacy_fuzz::text(&samples, |input| {
        let _ = FailoverRequest::parse(input, Version(1));
        let _ = (Initialize::parse(input), ConnUrl::parse(input));
        let _ = Tags::from_json(&serde_json::from_str(input).unwrap_or(Value::Null)).published();
        // What we write of what we read reads as what we read.
        let member = MemberData::from_json(input);
        assert_eq!(MemberData::from_json(&member.to_json()), member);
        let status = Status::from_json(input);
        assert_eq!(Status::from_json(&status.to_json()), status);
        let sync = SyncState::from_json(input, Version(1));
        assert_eq!(SyncState::from_json(&sync.to_json(), Version(1)), sync);
        if let Some(history) = History::from_json(input) {
            let _ = history.cluster_timeline();
            assert_eq!(History::from_json(&history.to_json()), Some(history));
        }
        serde_json::from_str::<Value>(input).is_ok()
    });
}

#[test]
#[ignore = "long: make fuzz"]
fn positions() {
    primacy_fuzz::text(
        &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "a/1"],
        |input| {
            let Ok(lsn) = input.parse::<Lsn>() else {
                return false;
            };
            assert_eq!(lsn.to_string().parse(), Ok(lsn));
            true
        },
    );
}

#[test]
#[ignore = "long: make fuzz"]
fn journal_lines() {
    let at = "2026-01-01T10:00:00Z".parse().unwrap();
    let line = JournalRecord::event(at, "pg1".into(), "text").to_line();
    primacy_fuzz::text(&[&line], |input| {
        let Some(record) = JournalRecord::from_line(input) else {
            return false;
        };
        assert_eq!(JournalRecord::from_line(&record.to_line()), Some(record));
        true
    });
}
