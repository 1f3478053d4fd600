//! What PostgreSQL's programs, files and servers say, spoiled; `make fuzz`.

use crate::conninfo::Conninfo;
use crate::{control, history, observe, postmaster, recovery, replica, session, version, wal};

#[test]
#[ignore = "long: make fuzz"]
fn control_data() {
    let sample = "pg_control version number:            1300\nDatabase system identifier:           7710586312756997346\n\
        Database cluster state:               in production\nLatest checkpoint location:           0/1549988\n\
        Latest checkpoint's REDO location:    0/1549950\nLatest checkpoint's TimeLineID:       1\n\
        Minimum recovery ending location:     0/0\nMin recovery ending loc's timeline:   0\nwal_log_hints setting:                on\n\
        max_connections setting:              100\nBytes per WAL segment:                16777216\nData page checksum version:           1\n";
    primacy_fuzz::text(&[sample], |input| {
        control::parse_controldata(input).is_some()
    });
}

#[test]
#[ignore = "long: make fuzz"]
fn recovery_settings() {
    let conf = "port = '1'\n\n# recovery.conf\nprimary_conninfo = 'host=a password=''x'''\nrestore_command = 'cp \\\\ %f'\nrecovery_target_timeline = latest # c\n";
    primacy_fuzz::text(&[conf], |input| {
        let Some(settings) = recovery::parse_recovery_section(input) else {
            return false;
        };
        // Written as the agent writes it, it reads the same.
        let mut text = "\n# recovery.conf\n".to_owned();
        for (name, value) in &settings {
            text.push_str(&format!("{name} = {}\n", recovery::quote(value)));
        }
        let line_breaks = settings.values().any(|value| value.contains(['\n', '\r']));
        if !settings.is_empty() && !line_breaks {
            assert_eq!(
                recovery::parse_recovery_section(&text),
                Some(settings),
                "{text}"
            );
        }
        true
    });
}

#[test]
#[ignore = "long: make fuzz"]
fn connection_strings() {
    let samples = [
        "host=a,b port=1,2 user='x y' password=it\\'s",
        "postgres://u:p%40@[::1]:5,h/d?sslmode=x&host=/tmp",
    ];
    primacy_fuzz::text(&samples, |input| {
        let Ok(conninfo) = Conninfo::from_dsn(input) else {
            return false;
        };
        let _ = (conninfo.addresses(), conninfo.address());
        assert_eq!(conninfo.to_string().parse::<Conninfo>(), Ok(conninfo));
        true
    });
}

#[test]
#[ignore = "long: make fuzz"]
fn outputs_of_programs() {
    let samples = [
        "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/0154A980, prev 0/0154A948, desc: CHECKPOINT_SHUTDOWN redo 0/154A980; tli 1",
        "pg_waldump: error: error in WAL record at 0/154A9F8: invalid record length at 0/154AA30: wanted 24, got 0",
        "1\t0/1549988\tno recovery target specified\n2\t0/2549988\treason with\ttab\n",
        "  23456/123456 kB (19%), 0/1 tablespace (/data/base/1)",
        "4711\n/data\n1795260884\n5432\n/tmp\nlocalhost\n  1234567 8\nready   \n",
        "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
    ];
    primacy_fuzz::text(&samples, |input| {
        let _ = (
            wal::parse_end(input),
            replica::parse_progress(input),
            version::parse_major(input),
        );
        let records = input
            .lines()
            .filter(|line| wal::parse_record(line).is_some())
            .count();
        let pid_file = postmaster::parse_pid_file(input).is_some();
        records > 0
            || pid_file
            || history::parse_history(input).is_ok_and(|lines| !lines.is_empty())
    });
}

#[test]
#[ignore = "long: make fuzz"]
fn answers_of_servers() {
    let status = br#"{"in_recovery":true,"timeline":1,"lsn":"0/154A980","replayed":"0/154A948","paused":false,"start":"2026-01-01 10:00:00+00","receiver":{"status":"streaming","conninfo":"host=a"},"senders":[{"pid":1,"application_name":"a","state":"streaming","flush":"0/1"}],"slots":[{"slot_name":"a","slot_type":"logical","restart_lsn":"0/1"}]}"#;
    let refusal = b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting\0\0";
    primacy_fuzz::bytes(&[status, refusal, b"R\0\0\0\x08\0\0\0\0"], |input| {
        let _ = session::classify(input);
        let _ = session::is_complete(input);
        match serde_json::from_slice(input) {
            Ok(value) => {
                let _ = observe::parse_status(&value);
                true
            }
            Err(_) => false,
        }
    });
}
