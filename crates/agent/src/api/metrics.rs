//! GET `/metrics` (`rest-api.md` §6). Names, help texts, types and order are an interface.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;
use primacy_config::scalar::python_float;
use primacy_model::{PATRONI_VERSION, ReplicationState, Role, State};

use super::status::{Standby, Status};

/// The first server version whose receiver state can be told.
const TELLS_RECEIVER: u32 = 90_600;

/// The text.
pub(crate) fn text(status: &Status<'_>) -> String {
    let published = status.published;
    let mut page = Page {
        labels: format!(
            "{{scope=\"{}\",name=\"{}\"}}",
            label(&published.scope),
            label(published.name.as_str())
        ),
        text: String::new(),
    };
    let wal = status.wal;
    let primary = wal.filter(|wal| wal.is_primary());
    let replica = wal.filter(|wal| !wal.is_primary());
    let state = |wanted| status.replication_state == Some(wanted);
    let global = &published.global;

    page.gauge(
        "patroni_version",
        "Patroni semver without periods.",
        version(),
    );
    page.gauge(
        "patroni_postgres_running",
        "Value is 1 if Postgres is running, 0 otherwise.",
        number(status.is_running()),
    );
    page.gauge(
        "patroni_postmaster_start_time",
        "Epoch seconds since Postgres started.",
        epoch(wal.and_then(|wal| wal.postmaster_start_time)),
    );
    page.gauge(
        "patroni_primary",
        "Value is 1 if this node is the leader, 0 otherwise.",
        number(status.role == Role::Primary),
    );
    page.counter(
        "patroni_xlog_location",
        "Current location of the Postgres transaction log, 0 if this node is not the leader.",
        primary.map_or(0, |wal| wal.flush_lsn.0),
    );
    page.gauge(
        "patroni_standby_leader",
        "Value is 1 if this node is the standby_leader, 0 otherwise.",
        number(status.role == Role::StandbyLeader),
    );
    page.gauge(
        "patroni_replica",
        "Value is 1 if this node is a replica, 0 otherwise.",
        number(status.role == Role::Replica),
    );
    page.gauge(
        "patroni_sync_standby",
        "Value is 1 if this node is a sync standby, 0 otherwise.",
        number(status.standby == Some(Standby::Synchronous)),
    );
    page.gauge(
        "patroni_quorum_standby",
        "Value is 1 if this node is a quorum standby, 0 otherwise.",
        number(status.standby == Some(Standby::Quorum)),
    );
    page.counter(
        "patroni_xlog_received_location",
        "Current location of the received Postgres transaction log, 0 if this node is not a replica.",
        status.received().unwrap_or_default().0,
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.",
        status.replayed().unwrap_or_default().0,
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Current timestamp of the replayed Postgres transaction log, 0 if null.",
        epoch(replica.and_then(|wal| wal.replayed_timestamp)),
    );
    page.gauge(
        "patroni_xlog_paused",
        "Value is 1 if the Postgres xlog is paused, 0 otherwise.",
        number(replica.is_some_and(|wal| wal.replay_paused)),
    );
    if wal.is_some_and(|wal| wal.server_version >= TELLS_RECEIVER) {
        page.gauge(
            "patroni_postgres_streaming",
            "Value is 1 if Postgres is streaming, 0 otherwise.",
            number(state(ReplicationState::Streaming)),
        );
        page.gauge(
            "patroni_postgres_in_archive_recovery",
            "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
            number(state(ReplicationState::InArchiveRecovery)),
        );
    }
    page.gauge(
        "patroni_postgres_server_version",
        "Version of Postgres (if running), 0 otherwise.",
        wal.map_or(0, |wal| wal.server_version),
    );
    page.gauge(
        "patroni_cluster_unlocked",
        "Value is 1 if the cluster is unlocked, 0 if locked.",
        number(status.is_unlocked()),
    );
    page.gauge(
        "patroni_failsafe_mode_is_active",
        "Value is 1 if failsafe mode is active, 0 if inactive.",
        number(status.is_failsafe_active()),
    );
    page.gauge(
        "patroni_failsafe_mode_enabled",
        "Value is 1 if failsafe_mode is enabled, 0 otherwise.",
        number(global.failsafe_mode),
    );
    let failsafe_member = published
        .failsafe_map
        .as_ref()
        .and_then(|map| map.get(published.name.as_str()));
    page.gauge(
        "patroni_failsafe_member",
        "Value is 1 if this node is a member of failsafe, 0 otherwise.",
        number(failsafe_member.is_some()),
    );
    page.gauge(
        "patroni_postgres_timeline",
        "Postgres timeline of this node (if running), 0 otherwise.",
        status.timeline.map_or(0, |timeline| timeline.0),
    );
    page.gauge(
        "patroni_dcs_last_seen",
        "Epoch timestamp when DCS was last contacted successfully by Patroni.",
        published.dcs_last_seen,
    );
    page.gauge(
        "patroni_pending_restart",
        "Value is 1 if the node needs a restart, 0 otherwise.",
        number(published.pending_restart.is_some()),
    );
    page.gauge(
        "patroni_is_paused",
        "Value is 1 if auto failover is disabled, 0 otherwise.",
        number(global.pause),
    );
    page.metric(
        "patroni_postgres_state",
        "Numeric representation of Postgres state.",
        Some(&values()),
        "gauge",
        State::parse(status.state).map_or(-1, |state| i32::from(state.number())),
    );
    page.gauge(
        "patroni_failover_priority",
        "Failover priority of this node.",
        status.tags.failover_priority(),
    );
    page.hangs(status);
    page.text
}

struct Page {
    labels: String,
    text: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, help, None, "gauge", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, help, None, "counter", value);
    }

    /// Ours.
    fn hangs(&mut self, status: &Status<'_>) {
        const NAME: &str = "primacy_postgres_hang_seconds";
        let _ = write!(
            self.text,
            "# HELP {NAME} For how long Postgres has not answered a probe, 0 if it does.\n# TYPE {NAME} gauge\n"
        );
        let labels = self.labels.trim_end_matches('}').to_owned();
        for (probe, since) in status.probes.all() {
            let seconds = since.unwrap_or_default().as_secs();
            let _ = writeln!(self.text, "{NAME}{labels},probe=\"{probe}\"}} {seconds}");
        }
    }

    fn metric(
        &mut self,
        name: &str,
        help: &str,
        comment: Option<&str>,
        kind: &str,
        value: impl Display,
    ) {
        let labels = &self.labels;
        let comment = comment
            .map(|comment| format!("# {comment}\n"))
            .unwrap_or_default();
        let _ = write!(
            self.text,
            "# HELP {name} {help}\n{comment}# TYPE {name} {kind}\n{name}{labels} {value}\n"
        );
    }
}

/// A label's value in the text format; Patroni writes it as it is, which nobody can read then.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn number(flag: bool) -> u8 {
    u8::from(flag)
}

/// `4.1.5` is `040105`.
fn version() -> String {
    PATRONI_VERSION
        .split('.')
        .map(|part| format!("{part:0>2}"))
        .collect()
}

/// Seconds since the epoch with their fraction; `0` when not known.
fn epoch(time: Option<Timestamp>) -> String {
    time.map_or_else(
        || "0".to_owned(),
        |time| python_float(time.as_microsecond() as f64 / 1e6),
    )
}

fn values() -> String {
    let names: Vec<_> = State::ALL
        .iter()
        .map(|state| format!("{}={}", state.number(), state.metric_name()))
        .collect();
    format!("Values: {}", names.join(", "))
}
