//! The status document (`rest-api.md` §5): what `/patroni` and every health check tell of this member.

use jiff::Timestamp;
use primacy_config::SynchronousMode;
use primacy_model::{
    Lsn, Observation, PATRONI_VERSION, Probes, ReplicationState, Role, State, Tags, Timeline,
    WalSender, WalStatus,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::logging::QueueStatus;
use crate::published::Published;

/// Everything that the status document tells, before it is text.
///
/// What comes from PostgreSQL is from an observation that was taken for this request, or it is missing:
/// members compare WAL positions by this document when they race for the leadership, and an old position
/// would let the wrong one win.
#[derive(Clone, Debug)]
pub(crate) struct Status<'a> {
    pub(crate) published: &'a Published,
    pub(crate) now: Instant,
    /// A [`State`], or `unknown`.
    pub(crate) state: &'static str,
    pub(crate) role: Role,
    /// The answer to the status query.
    pub(crate) wal: Option<&'a WalStatus>,
    /// What the probes found.
    pub(crate) probes: Probes,
    pub(crate) standby: Option<Standby>,
    pub(crate) timeline: Option<Timeline>,
    pub(crate) replication_state: Option<ReplicationState>,
    pub(crate) tags: Tags,
    pub(crate) log: QueueStatus,
}

/// A replica that commits wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    Synchronous,
    Quorum,
}

impl<'a> Status<'a> {
    /// `fresh` is the observation taken for this request, if one came in time.
    pub(crate) fn new(
        published: &'a Published,
        fresh: Option<&'a Observation>,
        log: QueueStatus,
        now: Instant,
    ) -> Self {
        let asked = matches!(
            published.state,
            State::Running | State::Restarting | State::Starting
        );
        let probes = fresh.unwrap_or(&published.observation).probes;
        let wal = fresh
            .filter(|_| asked)
            .and_then(|observation| observation.wal.as_ref())
            // A replica that hangs could not be promoted: whoever asks shall not count on it (W6).
            .filter(|wal| wal.is_primary() || probes.is_answered());
        let state = match published.state {
            State::Running if wal.is_none() => "unknown",
            state => state.as_str(),
        };
        let role = match wal {
            None => published.role,
            Some(wal) if wal.is_primary() => Role::Primary,
            Some(_) if published.global.standby_cluster.is_some() => published.role,
            Some(_) => Role::Replica,
        };
        Status {
            published,
            now,
            state,
            role,
            wal,
            probes,
            standby: standby(published, role, now),
            timeline: wal.and_then(WalStatus::timeline_in_use),
            replication_state: wal.and_then(WalStatus::replication_state),
            tags: published.tags.clone(),
            log,
        }
    }

    /// Whether the server accepts connections and answered.
    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running.as_str()
    }

    /// Nobody leads, as far as is known.
    pub(crate) fn is_unlocked(&self) -> bool {
        self.published
            .view(self.now)
            .is_none_or(|view| view.is_unlocked())
    }

    /// Failsafe mode keeps the primary.
    pub(crate) fn is_failsafe_active(&self) -> bool {
        self.published
            .failsafe_until
            .is_some_and(|until| self.now < until)
    }

    /// In recovery: how far WAL was received.
    pub(crate) fn received(&self) -> Option<Lsn> {
        let wal = self.wal.filter(|wal| !wal.is_primary())?;
        wal.receive_lsn.known().or(wal.replay_lsn.known())
    }

    /// In recovery: how far WAL was replayed.
    pub(crate) fn replayed(&self) -> Option<Lsn> {
        self.wal.filter(|wal| !wal.is_primary())?.replay_lsn.known()
    }

    /// How far the leader's WAL is known to go; zero when it is not known at all.
    pub(crate) fn leader_position(&self) -> Lsn {
        let published = self
            .published
            .view(self.now)
            .map_or(Lsn::ZERO, |view| view.status.optime);
        published.max(self.receiver_end().unwrap_or_default())
    }

    /// The end of WAL that the upstream last reported.
    pub(crate) fn receiver_end(&self) -> Option<Lsn> {
        self.wal?.receiver.as_ref()?.latest_end_lsn.known()
    }

    /// The document.
    pub(crate) fn to_json(&self) -> Value {
        let published = self.published;
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        let flag = |set: bool| set.then_some(Value::Bool(true));

        put("state", Some(json!(self.state)));
        put(
            "postmaster_start_time",
            self.wal.and_then(start_time).map(Value::String),
        );
        put("role", Some(json!(self.role.as_str())));
        put(
            "server_version",
            self.wal.map(|wal| json!(wal.server_version)),
        );
        put("xlog", self.wal.map(|wal| self.positions(wal)));
        put(
            "quorum_standby",
            flag(self.standby == Some(Standby::Quorum)),
        );
        put(
            "sync_standby",
            flag(self.standby == Some(Standby::Synchronous)),
        );
        put("timeline", self.wal.map(|_| json!(self.timeline)));
        put(
            "replication_state",
            self.replication_state.map(|state| json!(state.as_str())),
        );
        put(
            "replication",
            self.wal.and_then(|wal| senders(&wal.senders)),
        );
        put("pause", flag(published.global.pause));
        put("cluster_unlocked", flag(self.is_unlocked()));
        put("failsafe_mode_is_active", flag(self.is_failsafe_active()));
        put("dcs_last_seen", Some(json!(published.dcs_last_seen)));
        put("tags", (!self.tags.is_empty()).then(|| self.tags.to_json()));
        put(
            "database_system_identifier",
            self.system_identifier().map(|id| json!(id)),
        );
        put("pending_restart", flag(published.pending_restart.is_some()));
        put(
            "pending_restart_reason",
            published
                .pending_restart
                .as_ref()
                .map(|pending| pending.to_json()),
        );
        put(
            "patroni",
            Some(json!({
                "version": PATRONI_VERSION,
                "scope": published.scope,
                "name": published.name,
            })),
        );
        put(
            "scheduled_restart",
            published.scheduled_restart.as_ref().map(|restart| {
                let mut restart = restart.clone();
                restart.postmaster_start_time = None;
                restart.to_json()
            }),
        );
        put("watchdog_failed", flag(published.watchdog_failed));
        // Ours: Patroni's members and clients overlook it.
        put("hang", hang(&self.probes));
        put("fence", published.fence.map(|fence| json!(fence)));
        if self.log.queued > 2 {
            put("logger_queue_size", Some(json!(self.log.queued)));
            put(
                "logger_records_lost",
                (self.log.lost > 0).then(|| json!(self.log.lost)),
            );
        }
        Value::Object(map)
    }

    fn positions(&self, wal: &WalStatus) -> Value {
        if wal.is_primary() {
            return json!({ "location": wal.flush_lsn });
        }
        json!({
            "received_location": self.received().unwrap_or_default(),
            "replayed_location": self.replayed(),
            "replayed_timestamp": replayed_time(wal),
            "paused": wal.replay_paused,
        })
    }

    /// Not told before there is a cluster, or while it is being made.
    fn system_identifier(&self) -> Option<&str> {
        if self.published.role == Role::Uninitialized && self.wal.is_none() {
            return None;
        }
        self.published
            .observation
            .system_identifier
            .as_ref()
            .map(|identifier| identifier.as_str())
    }
}

/// The probes without an answer, and for how many seconds.
fn hang(probes: &Probes) -> Option<Value> {
    let seconds =
        |(name, since): (&str, std::time::Duration)| (name.to_owned(), json!(since.as_secs()));
    (!probes.is_answered()).then(|| Value::Object(probes.unanswered().map(seconds).collect()))
}

fn standby(published: &Published, role: Role, now: Instant) -> Option<Standby> {
    let listed = role == Role::Replica
        && published
            .view(now)
            .is_some_and(|view| view.sync.has_standby(&published.name));
    match published.global.synchronous_mode {
        SynchronousMode::On if listed => Some(Standby::Synchronous),
        SynchronousMode::Quorum if listed => Some(Standby::Quorum),
        _ => None,
    }
}

fn senders(senders: &[WalSender]) -> Option<Value> {
    let rows = senders.iter().map(|sender| {
        json!({
            "usename": sender.user,
            "application_name": sender.application_name,
            "client_addr": sender.client_addr,
            "state": sender.state,
            "sync_state": sender.sync_state,
            "sync_priority": sender.sync_priority,
        })
    });
    (!senders.is_empty()).then(|| rows.collect())
}

fn start_time(wal: &WalStatus) -> Option<String> {
    time_text(
        Some(&wal.postmaster_start_time_text),
        wal.postmaster_start_time,
    )
}

fn replayed_time(wal: &WalStatus) -> Option<String> {
    time_text(
        wal.replayed_timestamp_text.as_deref(),
        wal.replayed_timestamp,
    )
}

/// PostgreSQL's `2026-11-20 23:13:29.13+00` in the form `2026-11-20 23:13:29.130000+00:00`. A text in another
/// `DateStyle` is told from the instant, in UTC.
fn time_text(text: Option<&str>, instant: Option<Timestamp>) -> Option<String> {
    text.and_then(isoformat).or_else(|| {
        let instant = instant?.to_zoned(jiff::tz::TimeZone::UTC);
        isoformat(&instant.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string())
    })
}

fn isoformat(text: &str) -> Option<String> {
    const SHAPE: &str = "0000-00-00 00:00:00";
    let (time, rest) = text.split_at_checked(SHAPE.len())?;
    let fits = time
        .bytes()
        .zip(SHAPE.bytes())
        .all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            separator => byte == separator,
        });
    let (fraction, offset) = rest.split_at(rest.find(['+', '-'])?);
    let fraction = fraction.trim_start_matches('.');
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !fits || fraction.len() > 6 || !digits(fraction) || offset.len() < 3 {
        return None;
    }
    let minutes = if offset.len() == 3 { ":00" } else { "" };
    Some(match fraction.bytes().all(|digit| digit == b'0') {
        true => format!("{time}{offset}{minutes}"),
        false => format!("{time}.{fraction:0<6}{offset}{minutes}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_as_python_does() {
        let cases = [
            (
                "2026-11-20 23:13:29.134102+00",
                "2026-11-20 23:13:29.134102+00:00",
            ),
            (
                "2026-11-20 23:13:29.13+05:30",
                "2026-11-20 23:13:29.130000+05:30",
            ),
            ("2026-11-20 23:13:29-08", "2026-11-20 23:13:29-08:00"),
            ("2026-11-20 23:13:29.000000+00", "2026-11-20 23:13:29+00:00"),
        ];
        for (text, expected) in cases {
            assert_eq!(isoformat(text).as_deref(), Some(expected));
        }
        assert_eq!(isoformat("Fri Nov 20 23:13:29 2026 UTC"), None);
        let instant = "2026-11-20T23:13:29.5Z".parse().unwrap();
        assert_eq!(
            time_text(Some("20/11/2026 23:13:29.5 UTC"), Some(instant)).as_deref(),
            Some("2026-11-20 23:13:29.500000+00:00")
        );
        assert_eq!(time_text(None, None), None);
    }

    proptest! {
        #[test]
        fn any_time_is_told_or_not(text in "\\PC{0,40}|2026-11-20 23:13:29[0-9.+:-]{0,12}") {
            let _ = isoformat(&text);
        }
    }
}
