//! Health checks (`rest-api.md` §4): what load balancers and supervisors ask. Nothing here does I/O.

use primacy_config::scalar;
use primacy_model::{Lsn, ReplicationState, Role, State};
use serde_json::Value;
use tokio::time::Instant;

use super::route::{Query, collapse};
use super::status::{Standby, Status};
use crate::published::Published;

/// The code that a health check is answered with: 200 or 503 (§4.2).
pub(crate) fn check(path: &str, query: &Query, status: &Status<'_>) -> u16 {
    let path = collapse(path);
    if passes(&path, query, status) {
        200
    } else {
        503
    }
}

fn passes(path: &str, query: &Query, status: &Status<'_>) -> bool {
    let contains = |words: &[&str]| words.iter().any(|word| path.contains(word));
    let base = Base::new(query, status);
    // Rules 0 to 3 do not look at tags.
    if path == "/" {
        return base.primary;
    } else if contains(&["standby_leader", "standby-leader"]) {
        return base.standby;
    } else if contains(&["leader"]) {
        return base.leader;
    } else if contains(&["master", "primary", "read-write"]) {
        return base.primary;
    }
    let synchronous = status.standby == Some(Standby::Synchronous);
    let quorum = status.standby == Some(Standby::Quorum);
    let leads = base.primary || base.standby;
    let passes = if contains(&["replica"]) {
        base.replica
    } else if contains(&["read-only"]) && !contains(&["sync", "quorum"]) {
        leads || base.replica
    } else if contains(&["health"]) {
        status.is_running()
    } else if status.published.view(status.now).is_none() {
        false
    } else {
        match path {
            "/sync" | "/synchronous" => base.replica && synchronous,
            "/quorum" => base.replica && quorum,
            "/async" | "/asynchronous" => base.replica && status.standby.is_none(),
            "/read-only-quorum" => leads || (base.replica && quorum),
            "/read-only-sync" | "/read-only-synchronous" => leads || (base.replica && synchronous),
            _ => false,
        }
    };
    passes && tags_match(query, status)
}

/// The four answers that everything else is made of (§4.1).
struct Base {
    leader: bool,
    primary: bool,
    standby: bool,
    replica: bool,
}

impl Base {
    fn new(query: &Query, status: &Status<'_>) -> Self {
        let published = status.published;
        let replica = replica_passes(query, status);
        let role = status.role;
        if published.view(status.now).is_none() && published.global.pause {
            let primary = role == Role::Primary;
            let standby = role == Role::StandbyLeader;
            return Base {
                leader: primary || standby,
                primary,
                standby,
                replica,
            };
        }
        // The lease's own deadline decides, at the moment of the answer: an agent that was frozen must not
        // claim a lock that may have passed to another.
        match (
            published.holds_lock(status.now),
            published.global.standby_cluster.is_some(),
        ) {
            (true, true) => Base {
                leader: true,
                primary: false,
                standby: matches!(role, Role::Replica | Role::StandbyLeader),
                replica: false,
            },
            (true, false) => Base {
                leader: true,
                primary: true,
                standby: false,
                replica,
            },
            (false, _) => Base {
                leader: false,
                primary: false,
                standby: false,
                replica,
            },
        }
    }
}

fn replica_passes(query: &Query, status: &Status<'_>) -> bool {
    let lagging = query
        .get("lag")
        .and_then(bytes)
        .is_some_and(|limit| exceeds(status, status.replayed(), limit));
    let state_fits = query.get("replication_state").is_none_or(|wanted| {
        status
            .replication_state
            .is_some_and(|state| state.as_str() == wanted)
    });
    !status.tags.noloadbalance()
        && !lagging
        && status.role == Role::Replica
        && status.is_running()
        && state_fits
}

/// Whether the position is further than `limit` bytes behind the leader, as far as that is known.
fn exceeds(status: &Status<'_>, position: Option<Lsn>, limit: i128) -> bool {
    let leader = i128::from(status.leader_position().0);
    leader > 0 && leader > i128::from(position.unwrap_or_default().0) + limit
}

/// `None` for a text that is not a size; on health checks that means no limit (§4.3, A9).
fn bytes(text: &str) -> Option<i128> {
    scalar::parse_int_in(&Value::from(text), Some("B")).map(i128::from)
}

/// Every tag that is asked for is configured and has that value. A falsy predefined tag is not there.
fn tags_match(query: &Query, status: &Status<'_>) -> bool {
    let tags = &status.published.configured_tags;
    query.tags().all(|(name, wanted)| match tags.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(value)) => value == wanted,
        Some(value) => scalar::python_str(value).to_lowercase() == wanted,
    })
}

/// The code of GET `/liveness` (§4.5): whether the loop still turns.
pub(crate) fn liveness(published: &Published, now: Instant) -> u16 {
    let primary = published.role == Role::Primary && published.postmaster_alive;
    let patience = published.global.ttl * if primary { 1 } else { 2 };
    if published.global.pause || published.next_pass + patience > now {
        200
    } else {
        503
    }
}

/// Why a member is not ready (§4.6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    #[error("PostgreSQL is not running")]
    NotRunning,
    #[error("PostgreSQL replication state is not streaming")]
    NotStreaming,
    #[error("DCS is not accessible")]
    NoDcs,
    #[error("Replication {mode} lag {lag} exceeds maximum allowable {limit}")]
    Lagging {
        mode: &'static str,
        lag: i128,
        limit: i128,
    },
}

/// Whether the first rows of §4.6 decide without asking the server.
pub(crate) fn readiness_needs_status(published: &Published, now: Instant) -> bool {
    !published.holds_lock(now) && published.state == State::Running
}

/// GET `/readiness` (§4.6).
pub(crate) fn readiness(query: &Query, status: &Status<'_>) -> Result<(), NotReady> {
    let published = status.published;
    if published.holds_lock(status.now) {
        return Ok(());
    }
    if published.state != State::Running {
        return Err(NotReady::NotRunning);
    }
    if status.replication_state != Some(ReplicationState::Streaming) {
        return Err(NotReady::NotStreaming);
    }
    if published.view(status.now).is_none() && status.receiver_end().is_none() {
        return if status.is_failsafe_active() {
            Ok(())
        } else {
            Err(NotReady::NoDcs)
        };
    }
    let (mode, position) = match query.get("mode") {
        Some("write") => ("write", status.received()),
        _ => ("apply", status.replayed()),
    };
    let limit = query
        .get("lag")
        .and_then(bytes)
        .unwrap_or_else(|| i128::from(published.global.maximum_lag_on_failover));
    let position = position.unwrap_or_default();
    // Less than nothing where it is ahead of what the leader last told.
    let lag = i128::from(status.leader_position().0) - i128::from(position.0);
    if lag > limit {
        Err(NotReady::Lagging { mode, lag, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rest-api.md` §4.3, the table of sizes.
    #[test]
    fn lags_are_sizes() {
        const MB: i128 = 1024 * 1024;
        let cases = [
            ("1048576", Some(MB)),
            ("16kB", Some(16_384)),
            ("1024kB", Some(MB)),
            ("10MB", Some(10 * MB)),
            ("10 MB", Some(10 * MB)),
            ("+10MB", Some(10 * MB)),
            ("1.5MB", Some(MB + MB / 2)),
            ("1GB", Some(1024 * MB)),
            ("1TB", Some(1024 * 1024 * MB)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("1e3", Some(1000)),
            ("-1", Some(-1)),
            ("1M", None),
            ("1mb", None),
            ("1kb", None),
            ("08", None),
            ("abc", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
