//! Following another source (`ha.md` §9, `configuration.md` §6.5).

use indexmap::IndexMap;
use primacy_model::Process;
use tokio::time::Instant;

use crate::conninfo::Conninfo;
use crate::recovery::{RECOVERY_GUCS, parse_recovery_section, standby_settings};
use crate::session::SettingRow;
use crate::{Error, Server, pgpass};

/// Settings that an administrator may give by an included file; not ours to remove.
const FROM_INCLUDED_FILES: &[&str] = &[
    "archive_cleanup_command",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "restore_command",
];

/// What a standby receives WAL from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryTarget {
    /// Host, port and database of the source, and `target_session_attrs` where it is wanted. User,
    /// password file, TLS and `application_name` are added by the server. `None`: archive only.
    pub primary: Option<Conninfo>,
    /// Slot on the source.
    pub slot: Option<String>,
    /// Settings over those of `recovery_conf`: `restore_command`, `archive_cleanup_command`,
    /// `recovery_min_apply_delay` of a standby cluster.
    pub settings: IndexMap<String, String>,
}

/// What it takes to follow a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowChange {
    /// Nothing.
    NoChange,
    /// New files and a reload; these parameters differ.
    ReloadNeeded(Vec<String>),
    /// New files and a restart; these parameters differ.
    RestartNeeded(Vec<String>),
}

impl Server {
    /// Compares what the running standby does with what it should do (`configuration.md` §6.5). A server
    /// that cannot be asked, because it is starting, is compared by its configuration file.
    pub async fn compare_follow(
        &self,
        target: &RecoveryTarget,
        deadline: Instant,
    ) -> Result<FollowChange, Error> {
        let settings = self.settings();
        let major = self
            .data_version(deadline)
            .await?
            .unwrap_or(crate::MAX_MAJOR);
        let wanted = standby_settings(&settings, target, major);
        let data_dir = settings.data_dir.clone();
        let standby = move || Ok(data_dir.join("standby.signal").exists());
        if !self
            .disk("looking for standby.signal", deadline, standby)
            .await?
        {
            return Ok(FollowChange::RestartNeeded(vec!["standby.signal".into()]));
        }
        let actual = match self.recovery_rows(deadline).await {
            Ok(rows) => rows,
            Err(error) => {
                let alive = matches!(self.process(deadline).await?, Process::Running(_));
                if !alive {
                    return Err(error);
                }
                self.written_rows(major, deadline).await?
            }
        };
        let config_file = settings.config_file().display().to_string();
        let mut reload = Vec::new();
        let mut restart = Vec::new();
        for row in &actual {
            let wanted = wanted.get(&row.name).map(String::as_str);
            if differs(row, wanted, &config_file, major) {
                let list = if row.context == "postmaster" {
                    &mut restart
                } else {
                    &mut reload
                };
                list.push(row.name.clone());
            }
        }
        if self.password_differs(target, deadline).await? {
            reload.push("passfile".into());
        }
        Ok(match (restart.is_empty(), reload.is_empty()) {
            (true, true) => FollowChange::NoChange,
            (true, false) => FollowChange::ReloadNeeded(reload),
            (false, _) => {
                restart.extend(reload);
                FollowChange::RestartNeeded(restart)
            }
        })
    }

    /// Writes the recovery settings and reloads.
    pub async fn apply_follow_reload(
        &self,
        target: &RecoveryTarget,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.write_files(Some(target), deadline).await?;
        self.reload(deadline).await
    }

    async fn recovery_rows(&self, deadline: Instant) -> Result<Vec<SettingRow>, Error> {
        let mut rows = self.pg_settings(deadline).await?;
        rows.retain(|row| RECOVERY_GUCS.contains(&row.name.as_str()));
        Ok(rows)
    }

    /// What the configuration file has, in the shape of `pg_settings`.
    async fn written_rows(&self, major: u32, deadline: Instant) -> Result<Vec<SettingRow>, Error> {
        let config_file = self.settings().config_file();
        let file = config_file.clone();
        let written = self
            .disk("reading the configuration file", deadline, move || {
                let text = std::fs::read_to_string(&file).map_err(Error::file("read", file))?;
                Ok(parse_recovery_section(&text).unwrap_or_default())
            })
            .await?;
        let row = |name: &&str| SettingRow {
            name: (*name).into(),
            setting: written.get(*name).cloned(),
            unit: None,
            vartype: "string".into(),
            context: context(name, major).into(),
            pending_restart: false,
            display: None,
            source_file: Some(config_file.display().to_string()),
        };
        Ok(RECOVERY_GUCS.iter().map(row).collect())
    }

    async fn password_differs(
        &self,
        target: &RecoveryTarget,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let settings = self.settings();
        let Some(primary) = &target.primary else {
            return Ok(false);
        };
        let wanted = pgpass::lines(primary, &settings.replication);
        let path = settings.pgpass.clone();
        self.disk("reading the password file", deadline, move || {
            let present = std::fs::read_to_string(path).unwrap_or_default();
            Ok(!wanted
                .lines()
                .all(|line| present.lines().any(|present| present == line)))
        })
        .await
    }
}

/// Context of a recovery parameter in a server that cannot be asked (`ha.md` §9).
fn context(name: &str, major: u32) -> &'static str {
    let restart = name.starts_with("recovery_target")
        || major < 14 && name == "restore_command"
        || major < 13 && matches!(name, "primary_conninfo" | "primary_slot_name");
    if restart { "postmaster" } else { "sighup" }
}

fn differs(row: &SettingRow, wanted: Option<&str>, config_file: &str, major: u32) -> bool {
    let actual = row.setting.as_deref().unwrap_or_default();
    let Some(wanted) = wanted else {
        let elsewhere = row
            .source_file
            .as_deref()
            .is_some_and(|file| file != config_file);
        let left_alone = elsewhere && FROM_INCLUDED_FILES.contains(&row.name.as_str());
        let default = match row.name.as_str() {
            "recovery_target_action" => "pause",
            "recovery_target_inclusive" => "on",
            "recovery_min_apply_delay" => "0",
            _ => "",
        };
        return !left_alone && !actual.is_empty() && actual != default;
    };
    match row.name.as_str() {
        "primary_conninfo" => {
            comparable(actual, major).is_none_or(|actual| Some(actual) != comparable(wanted, major))
        }
        "recovery_min_apply_delay" => milliseconds(actual) != milliseconds(wanted),
        "recovery_target_inclusive" => boolean(actual) != boolean(wanted),
        "recovery_target_action" => !actual.eq_ignore_ascii_case(wanted),
        _ => actual != wanted,
    }
}

/// A conninfo without what makes no difference to the walreceiver.
fn comparable(text: &str, major: u32) -> Option<Conninfo> {
    let mut conninfo: Conninfo = text.parse().ok()?;
    if major < 17 {
        conninfo.set("dbname", "");
    }
    Some(conninfo)
}

fn boolean(text: &str) -> bool {
    !matches!(
        text.to_ascii_lowercase().as_str(),
        "off" | "false" | "no" | "0"
    )
}

/// `5min`, `100`, `1.5 s`; the base unit is milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|char: char| !(char.is_ascii_digit() || char == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * factor).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, setting: &str, file: &str) -> SettingRow {
        SettingRow {
            name: name.into(),
            setting: Some(setting.into()),
            unit: None,
            vartype: "string".into(),
            context: "sighup".into(),
            pending_restart: false,
            display: None,
            source_file: Some(file.into()),
        }
    }

    #[test]
    fn comparison() {
        let (ours, theirs) = ("/d/postgresql.conf", "/d/extra.conf");
        for (name, actual, file, wanted, major, expected) in [
            ("restore_command", "cp", ours, Some("cp"), 15, false),
            ("restore_command", "cp", ours, None, 15, true),
            ("restore_command", "cp", theirs, None, 15, false),
            ("primary_slot_name", "a", theirs, None, 15, true),
            ("primary_slot_name", "", ours, None, 15, false),
            (
                "primary_conninfo",
                "host=a dbname=x",
                ours,
                Some("host=a dbname=y"),
                16,
                false,
            ),
            (
                "primary_conninfo",
                "host=a dbname=x",
                ours,
                Some("host=a dbname=y"),
                17,
                true,
            ),
            (
                "primary_conninfo",
                "port=1 host='a'",
                ours,
                Some("host=a port=1"),
                15,
                false,
            ),
            ("primary_conninfo", "host='", ours, Some("host=a"), 15, true),
            (
                "recovery_min_apply_delay",
                "300000",
                ours,
                Some("5min"),
                15,
                false,
            ),
            ("recovery_min_apply_delay", "0", ours, None, 15, false),
            ("recovery_target_action", "pause", ours, None, 15, false),
        ] {
            let found = differs(&row(name, actual, file), wanted, ours, major);
            assert_eq!(found, expected, "{name} {actual} {wanted:?} {major}");
        }
    }

    #[test]
    fn contexts_by_version() {
        for (name, major, expected) in [
            ("primary_conninfo", 12, "postmaster"),
            ("primary_conninfo", 13, "sighup"),
            ("restore_command", 13, "postmaster"),
            ("restore_command", 14, "sighup"),
            ("recovery_target_time", 17, "postmaster"),
        ] {
            assert_eq!(context(name, major), expected, "{name} {major}");
        }
    }
}
