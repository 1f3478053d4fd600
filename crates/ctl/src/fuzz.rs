//! What operators type, and what members and the store tell them, spoiled; `make fuzz`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use primacy_model::{
    Cluster, DynamicConfig, FailoverRequest, History, Initialize, JournalRecord, Leader, Member,
    MemberData, Status, SyncState, Version,
};
use serde_json::Value;

use crate::render::{Format, Story, Style, View, history, member_table};
use crate::{diff, schedule};

const FORMATS: [Format; 4] = [Format::Pretty, Format::Tsv, Format::Json, Format::Yaml];

/// A time that was understood is sent as one that is the same time.
#[test]
#[ignore = "long: make fuzz"]
fn times() {
    let samples = [
        "2040-01-01T10:00:00+01:00",
        "2040-07-01 10:00:00.123456-03:30",
        "2026-11-21T02:13Z",
        "2040-01-01",
        "10:30",
        "now",
        "9999-12-31T23:59:59.999999+00:00",
        "20400101T100000[Europe/Berlin]",
    ];
    primacy_fuzz::text(&samples, |input| {
        let _ = schedule::past(input);
        let Ok(Some(at)) = schedule::parse(input) else {
            return false;
        };
        for separator in ['T', ' '] {
            let sent = schedule::iso_8601(&at, separator);
            let read = schedule::parse(&sent).ok().flatten();
            let read = read.unwrap_or_else(|| panic!("{sent} is no time"));
            assert_eq!(
                read.timestamp().as_microsecond(),
                at.timestamp().as_microsecond(),
                "{sent}"
            );
        }
        true
    });
}

/// Two texts, parted by a line of its own. Nothing is shown only where nothing changed.
#[test]
#[ignore = "long: make fuzz"]
fn diffs() {
    let sample = "ttl: 30\nloop_wait: 10\npostgresql:\n  parameters:\n    work_mem: 4MB\n  use_slots: true\n";
    let changed = sample.replace("30", "20").replace("use_slots", "--- x");
    let samples = [
        format!("{sample}====\n{changed}"),
        "a\nb\nc\nd\ne\nf\ng\nh\ni\n====\nb\nc\nd\ne\nf\ng\nh\nj\nk".to_owned(),
    ];
    primacy_fuzz::text(&samples.each_ref().map(String::as_str), |input| {
        let Some((before, after)) = input.split_once("====\n") else {
            return false;
        };
        let unified = diff::unified(before, after);
        let coloured = diff::coloured(&unified);
        assert_eq!(coloured.lines().count(), unified.lines().count());
        assert_eq!(unified.is_empty(), before == after, "{unified}");
        true
    });
}

/// A cluster's keys, a line each, beginning with what key it is.
#[test]
#[ignore = "long: make fuzz"]
fn member_tables() {
    let sample = "initialize 7710586312756997346\nleader a\nstatus {\"optime\":67108960}\nconfig {\"pause\":true}\n\
        sync {\"leader\":\"a\",\"sync_standby\":\"b\"}\nfailover {\"leader\":\"a\",\"member\":\"b\",\"scheduled_at\":\"2040-01-01T10:00:00+01:00\"}\n\
        a {\"conn_url\":\"postgres://10.0.0.1:5432/postgres\",\"state\":\"running\",\"role\":\"primary\",\"timeline\":2,\"pending_restart\":true,\
        \"pending_restart_reason\":{\"work_mem\":{\"old_value\":\"1\",\"new_value\":\"2\"}},\"scheduled_restart\":{\"schedule\":\"2026-01-01T00:00:00+00:00\"}}\n\
        b {\"conn_url\":\"postgres://10.0.0.2:5432/postgres\",\"state\":\"running\",\"replication_state\":\"streaming\",\"receive_lsn\":5,\
        \"replay_lsn\":67108960,\"timeline\":1,\"tags\":{\"replicatefrom\":\"c\",\"nosync\":true}}\nc {\"state\":\"stopped\",\"tags\":{\"replicatefrom\":\"b\"}}\n";
    primacy_fuzz::text(&[sample], |input| {
        let version = Version(1);
        let mut cluster = Cluster::default();
        for line in input.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "initialize" => cluster.initialize = Initialize::parse(value),
                "leader" => {
                    cluster.leader = Some(Leader {
                        name: value.into(),
                        version,
                        session: None,
                    });
                }
                "status" => cluster.status = Status::from_json(value),
                "sync" => cluster.sync = SyncState::from_json(value, version),
                "failover" => cluster.failover = FailoverRequest::parse(value, version),
                "config" => {
                    if let Ok(Value::Object(value)) = serde_json::from_str(value) {
                        cluster.config = Some(DynamicConfig { value, version });
                    }
                }
                name => cluster.members.push(Member {
                    name: name.into(),
                    version,
                    session: None,
                    data: MemberData::from_json(value),
                }),
            }
        }
        let scope = input.split(' ').next().unwrap_or_default();
        // One way of drawing for each input: all of them take long.
        let groups = [(0, cluster.clone()), (7, cluster.clone())];
        let view = match input.len() % 3 {
            0 => View::Cluster(&cluster),
            1 => View::Group(3, &cluster),
            _ => View::Groups(&groups),
        };
        let extended = input.len() % 2 == 0;
        let format = FORMATS[input.len() / 6 % FORMATS.len()];
        let _ = member_table(scope, view, extended, Style::Topology);
        is_data(
            &member_table(scope, view, extended, Style::List(format)),
            format,
        );
        cluster.members.len() > 1
    });
}

/// What a member of another version may have noted.
#[test]
#[ignore = "long: make fuzz"]
fn journals_and_histories() {
    let at: Timestamp = Timestamp::UNIX_EPOCH;
    let line = |name: &str, text: &str| JournalRecord::event(at, name.into(), text).to_line();
    let journal = line("pg1", "promoted pg2") + "\n" + &line("pg2", "x");
    let timelines = r#"[[1,73970000,"no recovery target specified","2026-11-20T23:21:35.134349+00:00","pg1"],[2,5,"x"]]"#;
    primacy_fuzz::text(&[&journal, timelines], |input| {
        if let Some(timelines) = History::from_json(input) {
            for format in FORMATS {
                is_data(&history(&timelines, format), format);
            }
            return true;
        }
        let records: Vec<_> = input.lines().filter_map(JournalRecord::from_line).collect();
        let is_some = !records.is_empty();
        let story = Story::new(records);
        let leaders = story.leaders();
        let chosen = story.without_calm().about(&["pg1".to_owned()]);
        let chosen = chosen.between(Some(at), None, 3);
        for format in FORMATS {
            let text = chosen.draw(&leaders, format, &TimeZone::UTC);
            is_data(&text, format);
        }
        is_some
    });
}

/// What programs read is JSON or YAML whatever is in it.
fn is_data(text: &str, format: Format) {
    let read = match format {
        Format::Json => serde_json::from_str::<Value>(text).is_ok(),
        Format::Yaml => primacy_config::yaml::parse("x", text).is_ok(),
        Format::Pretty | Format::Tsv => return,
    };
    assert!(read, "{format:?}: {text}");
}
