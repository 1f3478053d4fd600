//! Asking other members how they are (`rest-api.md` §10).

use std::time::Duration;

use futures_util::future::join_all;
use primacy_model::{Lsn, MemberName, Role, Tags, Timeline};
use primacy_net::{Bytes, HeaderMap, HttpClient, Method};
use serde_json::Value;
use tokio::time::Instant;

/// For the whole answer of a member; all are asked at once, and the dead one is not waited for any longer.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a member tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// A standby; otherwise it is out of recovery, and so a primary.
    pub in_recovery: bool,
    /// A standby: the further of received and replayed. A primary: flushed.
    pub position: Lsn,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Its effective tags.
    pub tags: Tags,
    /// It needs a watchdog and has none: it must not be promoted.
    pub watchdog_failed: bool,
    /// It promised somebody not to take over, or stays primary by such promises.
    pub failsafe_active: bool,
    /// Its role, by its own account.
    pub role: Option<Role>,
    /// Its state, by its own account; may be `unknown`, which is no [`primacy_model::State`].
    pub state: Option<String>,
}

impl PeerStatus {
    /// Reads a status document. `None` without a WAL position: such a member counts as not reachable.
    pub fn from_json(document: &Value) -> Option<Self> {
        let wal = ["wal", "xlog"]
            .iter()
            .find_map(|key| document.get(key)?.as_object())?;
        let location = |key: &str| Lsn(wal.get(key).and_then(Value::as_u64).unwrap_or(0));
        let role = document
            .get("role")
            .and_then(Value::as_str)
            .and_then(Role::parse);
        let in_recovery = location("location") == Lsn::ZERO && role != Some(Role::Primary);
        let position = match in_recovery {
            true => location("received_location").max(location("replayed_location")),
            false => location("location"),
        };
        Some(PeerStatus {
            in_recovery,
            position,
            timeline: document
                .get("timeline")
                .and_then(Value::as_u64)
                .and_then(Timeline::known),
            tags: document
                .get("tags")
                .map(Tags::from_json)
                .unwrap_or_default(),
            watchdog_failed: document
                .get("watchdog_failed")
                .is_some_and(primacy_config::scalar::truthy),
            failsafe_active: document
                .get("failsafe_mode_is_active")
                .is_some_and(primacy_config::scalar::truthy),
            role,
            state: document
                .get("state")
                .and_then(Value::as_str)
                .map(str::to_owned),
        })
    }
}

/// Asks all of them at once, each by its `api_url`. `None`: no answer within [`ASK_TIMEOUT`], or none that
/// tells a WAL position. The HTTP status does not matter: a replica answers its status URL with 503 to those
/// who look for a primary.
pub async fn ask_members(
    client: &HttpClient,
    members: impl IntoIterator<Item = (MemberName, String)>,
) -> Vec<(MemberName, Option<PeerStatus>)> {
    let deadline = Instant::now() + ASK_TIMEOUT;
    join_all(members.into_iter().map(|(name, url)| async move {
        let status = ask(client, &name, &url, deadline).await;
        (name, status)
    }))
    .await
}

async fn ask(client: &HttpClient, name: &str, url: &str, deadline: Instant) -> Option<PeerStatus> {
    let answer = match client
        .request(Method::GET, url, HeaderMap::new(), Bytes::new(), deadline)
        .await
    {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!("Request failed to {name}: GET {url} ({error})");
            return None;
        }
    };
    tracing::info!(
        "Got response from {name} {url}: {}",
        String::from_utf8_lossy(&answer.body)
    );
    let status = serde_json::from_slice(&answer.body)
        .ok()
        .and_then(|document| PeerStatus::from_json(&document));
    if status.is_none() {
        tracing::debug!("{name} tells no WAL position");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_of_every_kind_are_read() {
        let read = |document: Value| {
            PeerStatus::from_json(&document).map(|status| (status.in_recovery, status.position.0))
        };
        let replica =
            json!({"role": "replica", "xlog": {"received_location": 5, "replayed_location": 7}});
        let cases = [
            (replica, Some((true, 7))),
            (
                json!({"role": "replica", "wal": {"received_location": 9, "replayed_location": null}}),
                Some((true, 9)),
            ),
            (
                json!({"role": "primary", "xlog": {"location": 8}}),
                Some((false, 8)),
            ),
            (
                json!({"role": "master", "xlog": {"received_location": 3}}),
                Some((false, 0)),
            ),
            (
                json!({"role": "replica", "xlog": {"location": 8}}),
                Some((false, 8)),
            ),
            (json!({"role": "replica", "state": "unknown"}), None),
            (json!({"role": "replica", "xlog": null}), None),
            (json!([1]), None),
        ];
        for (document, expected) in cases {
            assert_eq!(read(document.clone()), expected, "{document}");
        }
    }

    #[test]
    fn everything_that_a_race_needs_is_read() {
        let status = PeerStatus::from_json(&json!({
            "state": "running", "role": "replica", "xlog": {"received_location": 5}, "timeline": 3,
            "tags": {"failover_priority": 2}, "watchdog_failed": true,
        }))
        .unwrap();
        assert_eq!(status.timeline, Some(Timeline(3)));
        assert_eq!(status.tags.failover_priority(), 2);
        assert!(status.watchdog_failed);
        assert_eq!(status.state.as_deref(), Some("running"));
    }
}
