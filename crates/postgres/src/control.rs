use indexmap::IndexMap;
use primacy_model::{ControlData, ControlState, Lsn, SystemIdentifier, Timeline};
use tokio::time::Instant;

use crate::command::Run;
use crate::{Error, Server, Until};

/// What pg_controldata printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// As decisions need it.
    pub data: ControlData,
    /// Every line: label (without a leading `Current `) and value.
    pub fields: IndexMap<String, String>,
}

/// Reads the text that pg_controldata prints in the C locale; `None` when it has no cluster state.
pub fn parse_controldata(text: &str) -> Option<ControlFile> {
    let fields: IndexMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(label, value)| {
            (
                label.strip_prefix("Current ").unwrap_or(label),
                value.trim(),
            )
        })
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .collect();
    let get = |label: &str| fields.get(label).map(String::as_str);
    let lsn = |label| {
        get(label)
            .and_then(|text| text.parse().ok())
            .unwrap_or(Lsn::ZERO)
    };
    let timeline = |label| {
        get(label)
            .and_then(|text| text.parse().ok())
            .and_then(Timeline::known)
    };
    let checksums = get("Data page checksum version").is_some_and(|version| version != "0");
    let data = ControlData {
        state: state(get("Database cluster state")?),
        system_identifier: get("Database system identifier").and_then(SystemIdentifier::parse),
        checkpoint_lsn: lsn("Latest checkpoint location"),
        checkpoint_timeline: timeline("Latest checkpoint's TimeLineID"),
        min_recovery_lsn: lsn("Minimum recovery ending location"),
        min_recovery_timeline: timeline("Min recovery ending loc's timeline"),
        rewindable: checksums || get("wal_log_hints setting") == Some("on"),
    };
    Some(ControlFile { data, fields })
}

fn state(text: &str) -> ControlState {
    match text {
        "starting up" => ControlState::StartingUp,
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "shutting down" => ControlState::ShuttingDown,
        "in crash recovery" => ControlState::InCrashRecovery,
        "in archive recovery" => ControlState::InArchiveRecovery,
        "in production" => ControlState::InProduction,
        _ => ControlState::Unknown,
    }
}

impl Server {
    /// Runs pg_controldata.
    pub async fn control_file(&self, deadline: Instant) -> Result<ControlFile, Error> {
        let settings = self.settings();
        let output = Run::new(settings.binary("pg_controldata"))
            .arg(&settings.data_dir)
            .c_locale()
            .quiet()
            .success(&Until::deadline(deadline))
            .await?;
        parse_controldata(&output.stdout).ok_or_else(|| Error::BadFile {
            path: settings.data_dir.join("global/pg_control"),
            problem: "pg_controldata printed no cluster state".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
pg_control version number:            1300
Database system identifier:           7412345678901234567
Database cluster state:               shut down in recovery
pg_control last modified:             Sat 21 Nov 2026 01:00:00 AM UTC
Latest checkpoint location:           0/3000060
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/30000D8
Min recovery ending loc's timeline:   2
wal_log_hints setting:                on
Current max_connections setting:      100
Data page checksum version:           0
";

    #[test]
    fn fields_are_read() {
        let control = parse_controldata(TEXT).unwrap();
        assert_eq!(control.data.state, ControlState::ShutDownInRecovery);
        assert_eq!(control.data.checkpoint_lsn, Lsn(0x300_0060));
        assert_eq!(control.data.checkpoint_timeline, Some(Timeline(2)));
        assert_eq!(control.data.min_recovery_lsn, Lsn(0x300_00D8));
        assert!(control.data.rewindable);
        assert_eq!(control.fields["max_connections setting"], "100");
        assert_eq!(
            control.fields["pg_control last modified"],
            "Sat 21 Nov 2026 01:00:00 AM UTC"
        );
    }

    #[test]
    fn rewindable_by_hints_or_checksums() {
        for (hints, checksums, rewindable) in [
            ("on", "0", true),
            ("off", "1", true),
            ("off", "0", false),
            ("on", "2", true),
        ] {
            let text = TEXT
                .replace(
                    "setting:                on",
                    &format!("setting:                {hints}"),
                )
                .replace(
                    "version:           0",
                    &format!("version:           {checksums}"),
                );
            let data = parse_controldata(&text).unwrap().data;
            assert_eq!(data.rewindable, rewindable, "{hints} {checksums}");
        }
    }

    #[test]
    fn states() {
        for (text, expected) in [
            ("starting up", ControlState::StartingUp),
            ("shut down", ControlState::ShutDown),
            ("shutting down", ControlState::ShuttingDown),
            ("in crash recovery", ControlState::InCrashRecovery),
            ("in archive recovery", ControlState::InArchiveRecovery),
            ("in production", ControlState::InProduction),
            ("unrecognized status code", ControlState::Unknown),
        ] {
            assert_eq!(state(text), expected, "{text}");
        }
        assert_eq!(parse_controldata("WARNING: no such thing\n"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = parse_controldata(&text);
        }
    }
}
