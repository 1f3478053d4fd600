//! One look at the server.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use primacy_model::{
    DataDirectory, Lsn, Observation, PostmasterIdentity, Process, Readiness, ReplicationSlot,
    SlotKind, Timeline, WalReceiver, WalSender, WalStatus,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::postmaster::Listens;
use crate::unfinished::Unfinished;
use crate::wal_marker::WalMarker;
use crate::{Error, Server, postmaster, promoting, session};

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObserveOptions {
    /// Replication slots too.
    pub slots: bool,
}

/// What the files say.
struct Files {
    data_directory: DataDirectory,
    major_version: Option<u32>,
    process: Process,
    listens: Option<Listens>,
    recovery_signal: bool,
    backup_label: bool,
    unfinished_bootstrap: bool,
    diverged: bool,
    former_primary: bool,
    asked_to_promote: bool,
}

impl Server {
    /// One look at files, process and server. Never fails and never takes longer than the deadline: what
    /// could not be seen is absent in the answer, or `Unreadable`.
    ///
    /// While the disk does not answer the data directory is `Hanging`, and the process is the one seen last, as long
    /// as that lives.
    pub async fn observe(&self, options: ObserveOptions, deadline: Instant) -> Observation {
        let data_dir = self.settings().data_dir.clone();
        let last = self.memory(|memory| memory.postmaster);
        // A disk that does not answer leaves time to ask the server.
        let half = deadline - deadline.saturating_duration_since(Instant::now()) / 2;
        let look = self
            .disk("looking at the data directory", half, move || {
                Ok(look(&data_dir, last))
            })
            .await;
        let files = match look {
            Ok(files) => {
                self.saw(files.process, files.listens.as_ref());
                self.memory(|memory| memory.major = files.major_version.or(memory.major));
                files
            }
            Err(Error::Deadline { .. }) => Files {
                data_directory: DataDirectory::Hanging(format!(
                    "reading {} did not end in time",
                    self.settings().data_dir.display()
                )),
                major_version: self.memory(|memory| memory.major),
                process: self.last_process(),
                listens: None,
                recovery_signal: false,
                backup_label: false,
                unfinished_bootstrap: false,
                diverged: false,
                former_primary: false,
                asked_to_promote: false,
            },
            Err(error) => {
                return Observation {
                    data_directory: DataDirectory::Unreadable(error.to_string()),
                    ..Observation::default()
                };
            }
        };
        let mut observation = Observation {
            probes: self.probes(),
            data_directory: files.data_directory,
            major_version: files.major_version,
            process: files.process,
            recovery_signal: files.recovery_signal,
            backup_label: files.backup_label,
            unfinished_bootstrap: files.unfinished_bootstrap,
            diverged: files.diverged,
            former_primary: files.former_primary,
            ..Observation::default()
        };
        if let Process::Running(_) = observation.process {
            match self
                .wal_status(options, observation.major_version, deadline)
                .await
            {
                Ok((status, system_identifier)) => {
                    observation.promoting = files.asked_to_promote && !status.is_primary();
                    if files.asked_to_promote
                        && status.is_primary()
                        && let Err(error) = self.unmark_promoting(deadline).await
                    {
                        tracing::warn!("{error}");
                    }
                    observation.wal = Some(status);
                    observation.system_identifier = system_identifier;
                    observation.readiness = Readiness::Accepting;
                }
                Err(error) => {
                    tracing::debug!("the status query got no answer: {error}");
                    observation.readiness = session::readiness(&self.settings(), deadline).await;
                }
            }
        }
        if observation.wal.is_none() && observation.data_directory == DataDirectory::Valid {
            match self.control_file(deadline).await {
                Ok(control) => {
                    observation.system_identifier = control.data.system_identifier.clone();
                    observation.control = Some(control.data);
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
        observation
    }

    async fn wal_status(
        &self,
        options: ObserveOptions,
        major: Option<u32>,
        deadline: Instant,
    ) -> Result<(WalStatus, Option<primacy_model::SystemIdentifier>), Error> {
        let sql = status_query(major.unwrap_or(crate::MAX_MAJOR), options.slots);
        let rows = self.query(&sql, deadline).await?;
        let json = rows.first().and_then(|row| row.get(0));
        let json: Option<Value> = json.and_then(|text| serde_json::from_str(text).ok());
        let json =
            json.ok_or_else(|| Error::NotPossible("the status query had no answer".into()))?;
        let identifier = json["system_identifier"].as_str();
        let identifier = identifier.and_then(primacy_model::SystemIdentifier::parse);
        let mut status = parse_status(&json);
        if status.timeline_in_use().is_none() {
            status.replay_timeline = self.replayed_timeline(&status, deadline).await;
        }
        Ok((status, identifier))
    }

    /// The timeline that a standby replays, which no query tells: asked anew whenever more was replayed.
    async fn replayed_timeline(&self, status: &WalStatus, deadline: Instant) -> Option<Timeline> {
        let (run, position) = (&status.postmaster_start_time_text, status.position());
        let known = self.memory(|memory| match &memory.replayed {
            Some((seen_run, seen, timeline)) => {
                (seen_run == run && *seen == position).then_some(*timeline)
            }
            None => None,
        });
        if known.is_some() {
            return known;
        }
        match self.local_identity(deadline).await {
            Ok(identity) => {
                let replayed = (run.clone(), position, identity.timeline);
                self.memory(|memory| memory.replayed = Some(replayed));
                Some(identity.timeline)
            }
            Err(error) => {
                tracing::warn!("the timeline of this standby is not known: {error}");
                None
            }
        }
    }
}

fn look(data_dir: &Path, last: Option<PostmasterIdentity>) -> Files {
    let process = postmaster::find(data_dir, last);
    let unreadable = process
        .as_ref()
        .err()
        .map(|error| DataDirectory::Unreadable(error.to_string()));
    let asked_to_promote = match process {
        Ok(Process::Running(postmaster)) => promoting::is_marked(data_dir, postmaster),
        _ => false,
    };
    Files {
        data_directory: unreadable.unwrap_or_else(|| data_directory(data_dir)),
        major_version: std::fs::read_to_string(data_dir.join("PG_VERSION"))
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        listens: process
            .as_ref()
            .ok()
            .and_then(|process| process.postmaster())
            .and_then(|postmaster| postmaster::listens(data_dir, postmaster)),
        process: process.unwrap_or_else(|_| postmaster::as_seen(last)),
        recovery_signal: ["standby.signal", "recovery.signal"]
            .iter()
            .any(|name| data_dir.join(name).exists()),
        backup_label: data_dir.join("backup_label").exists(),
        unfinished_bootstrap: Unfinished::Bootstrap.is_marked(data_dir),
        diverged: WalMarker::Diverged.is_set(data_dir),
        former_primary: WalMarker::FormerPrimary.is_set(data_dir),
        asked_to_promote,
    }
}

/// What is in the data directory (`ha.md` §3 I).
pub(crate) fn data_directory(data_dir: &Path) -> DataDirectory {
    let unreadable = |error: io::Error| {
        DataDirectory::Unreadable(format!("cannot read {}: {error}", data_dir.display()))
    };
    let entries = match std::fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DataDirectory::Empty,
        Err(error) => return unreadable(error),
    };
    let mut empty = true;
    for entry in entries {
        match entry {
            Ok(entry) => {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                empty &= name.starts_with('.') || name == "lost+found";
            }
            Err(error) => return unreadable(error),
        }
    }
    match data_dir.join("global/pg_control").try_exists() {
        _ if empty => DataDirectory::Empty,
        Ok(true) if Unfinished::Rewind.is_marked(data_dir) => DataDirectory::HalfRewound(format!(
            "pg_rewind did not come to its end in {}, as {} says",
            data_dir.display(),
            Unfinished::Rewind.marker(data_dir).display()
        )),
        Ok(true) => DataDirectory::Valid,
        Ok(false) => DataDirectory::Foreign(format!(
            "{} holds files, but no global/pg_control",
            data_dir.display()
        )),
        Err(error) => unreadable(error),
    }
}

/// The status query: one row, one JSON document (`ha.md` §1.4).
fn status_query(major: u32, slots: bool) -> String {
    let written = if major >= 13 {
        "written_lsn"
    } else {
        "NULL::pg_lsn"
    };
    let (failover, synced) = if major >= 17 {
        ("failover", "synced")
    } else {
        ("false", "false")
    };
    let lost = if major >= 13 {
        "coalesce(wal_status = 'lost', false)"
    } else {
        "false"
    };
    let slots = if slots {
        format!(
            "(SELECT coalesce(json_agg(s), '[]') FROM (SELECT slot_name, slot_type, plugin, database, \
             active, restart_lsn::text, confirmed_flush_lsn::text, xmin IS NOT NULL AS has_xmin, \
             catalog_xmin::text, {lost} AS lost, {failover} AS failover, {synced} AS synced \
             FROM pg_replication_slots WHERE NOT temporary) s)"
        )
    } else {
        "NULL::json".into()
    };
    format!(
        "SELECT json_build_object(\
         'server_version', current_setting('server_version_num')::int, \
         'system_identifier', (SELECT system_identifier::text FROM pg_control_system()), \
         'start_text', pg_postmaster_start_time()::text, \
         'start', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
         'timeline', CASE WHEN r.recovery THEN NULL ELSE \
             ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END, \
         'flush', CASE WHEN r.recovery THEN NULL ELSE pg_current_wal_flush_lsn()::text END, \
         'replay', pg_last_wal_replay_lsn()::text, \
         'receive', pg_last_wal_receive_lsn()::text, \
         'paused', CASE WHEN r.recovery THEN pg_is_wal_replay_paused() ELSE false END, \
         'replayed_text', pg_last_xact_replay_timestamp()::text, \
         'replayed', (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint, \
         'receiver', (SELECT row_to_json(w) FROM (SELECT status, received_tli, \
             {written}::text AS written, latest_end_lsn::text, sender_host, sender_port, slot_name, \
             conninfo FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL) w), \
         'restore_command', current_setting('restore_command'), \
         'synchronous_commit', current_setting('synchronous_commit'), \
         'synchronous_standby_names', current_setting('synchronous_standby_names'), \
         'checkpoint_timeline', (SELECT timeline_id FROM pg_control_checkpoint()), \
         'senders', (SELECT coalesce(json_agg(s), '[]') FROM (SELECT pid, usename, application_name, \
             client_addr::text, state, sync_state, sync_priority, write_lsn::text, flush_lsn::text, \
             replay_lsn::text, slot_name AS slot FROM pg_stat_replication \
             LEFT JOIN pg_replication_slots ON active_pid = pid) s), \
         'slots', {slots}) \
         FROM (SELECT pg_is_in_recovery() AS recovery) r"
    )
}

pub(crate) fn parse_status(json: &Value) -> WalStatus {
    let replay_lsn = lsn(&json["replay"]).unwrap_or_default();
    let receiver = json["receiver"].is_object().then(|| &json["receiver"]);
    let written = receiver
        .and_then(|receiver| lsn(&receiver["written"]))
        .unwrap_or_default();
    WalStatus {
        server_version: json["server_version"].as_u64().unwrap_or_default() as u32,
        postmaster_start_time: time(&json["start"]),
        postmaster_start_time_text: text(&json["start_text"]),
        timeline: timeline(&json["timeline"]),
        flush_lsn: lsn(&json["flush"]).unwrap_or_default(),
        replay_lsn,
        receive_lsn: lsn(&json["receive"]).unwrap_or_default().max(written),
        replay_paused: json["paused"].as_bool().unwrap_or_default(),
        replayed_timestamp: time(&json["replayed"]),
        replayed_timestamp_text: json["replayed_text"].as_str().map(str::to_owned),
        receiver: receiver.map(parse_receiver),
        replay_timeline: None,
        restore_command: !text(&json["restore_command"]).is_empty(),
        synchronous_commit: text(&json["synchronous_commit"]),
        synchronous_standby_names: text(&json["synchronous_standby_names"]),
        checkpoint_timeline: timeline(&json["checkpoint_timeline"]),
        senders: json["senders"]
            .as_array()
            .into_iter()
            .flatten()
            .map(parse_sender)
            .collect(),
        slots: json["slots"]
            .as_array()
            .map(|slots| slots.iter().map(parse_slot).collect()),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn lsn(value: &Value) -> Option<Lsn> {
    value.as_str()?.parse().ok()
}

fn timeline(value: &Value) -> Option<Timeline> {
    Timeline::known(value.as_u64()?)
}

fn time(microseconds: &Value) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds.as_i64()?).ok()
}

fn parse_receiver(json: &Value) -> WalReceiver {
    WalReceiver {
        status: text(&json["status"]),
        timeline: timeline(&json["received_tli"]),
        latest_end_lsn: lsn(&json["latest_end_lsn"]).unwrap_or_default(),
        sender_host: optional(&json["sender_host"]),
        sender_port: json["sender_port"]
            .as_u64()
            .and_then(|port| port.try_into().ok()),
        slot_name: optional(&json["slot_name"]),
        conninfo: text(&json["conninfo"]),
    }
}

fn parse_sender(json: &Value) -> WalSender {
    WalSender {
        pid: json["pid"].as_i64().unwrap_or_default() as i32,
        user: text(&json["usename"]),
        application_name: text(&json["application_name"]),
        client_addr: optional(&json["client_addr"])
            .map(|address| address.split('/').next().unwrap_or_default().to_owned()),
        state: text(&json["state"]),
        sync_state: text(&json["sync_state"]),
        sync_priority: json["sync_priority"].as_i64().unwrap_or_default() as i32,
        write_lsn: lsn(&json["write_lsn"]),
        flush_lsn: lsn(&json["flush_lsn"]),
        replay_lsn: lsn(&json["replay_lsn"]),
        slot: optional(&json["slot"]),
    }
}

fn parse_slot(json: &Value) -> ReplicationSlot {
    ReplicationSlot {
        name: text(&json["slot_name"]),
        kind: match json["slot_type"].as_str() {
            Some("logical") => SlotKind::Logical {
                database: text(&json["database"]),
                plugin: text(&json["plugin"]),
            },
            _ => SlotKind::Physical,
        },
        active: json["active"].as_bool().unwrap_or_default(),
        restart_lsn: lsn(&json["restart_lsn"]),
        confirmed_flush_lsn: lsn(&json["confirmed_flush_lsn"]),
        has_xmin: json["has_xmin"].as_bool().unwrap_or_default(),
        catalog_xmin: json["catalog_xmin"]
            .as_str()
            .and_then(|xmin| xmin.parse().ok()),
        lost: json["lost"].as_bool().unwrap_or_default(),
        failover: json["failover"].as_bool().unwrap_or_default(),
        synced: json["synced"].as_bool().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directories() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        assert_eq!(data_directory(&data), DataDirectory::Empty);
        std::fs::create_dir_all(data.join("lost+found")).unwrap();
        std::fs::write(data.join(".hidden"), "").unwrap();
        assert_eq!(data_directory(&data), DataDirectory::Empty);
        std::fs::create_dir(data.join("global")).unwrap();
        assert!(matches!(data_directory(&data), DataDirectory::Foreign(_)));
        std::fs::write(data.join("global/pg_control"), "").unwrap();
        assert_eq!(data_directory(&data), DataDirectory::Valid);
        assert!(matches!(
            data_directory(&data.join(".hidden")),
            DataDirectory::Unreadable(_)
        ));
    }

    #[test]
    fn an_empty_answer_is_a_status_without_knowledge() {
        assert_eq!(parse_status(&Value::Null), WalStatus::default());
    }
}
