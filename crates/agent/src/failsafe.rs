//! `POST /failsafe` as it travels (`ha.md` §15, `rest-api.md` §7.4): the body, and asking the members with it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use primacy_ha::{FailsafeLeader, FailsafeReply};
use primacy_model::{Lsn, MemberName};
use primacy_net::{Bytes, HeaderMap, HttpAnswer, HttpClient, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// For one try; there are two.
const TRY: Duration = Duration::from_secs(2);
/// The body of an acceptance, to the letter.
pub(crate) const ACCEPTED: &str = "Accepted";
/// The header with the accepting member's WAL position, as a decimal number.
pub(crate) const LSN: &str = "lsn";

/// The body. Patroni reads the first four fields and ignores the last.
pub(crate) fn body(leader: &FailsafeLeader) -> Value {
    let mut body = json!({
        "name": leader.name,
        "conn_url": leader.conn_url,
        "api_url": leader.api_url,
    });
    if let Some(slots) = &leader.slots {
        let slots = slots
            .iter()
            .map(|(name, position)| (name.clone(), json!(position.0)));
        body["slots"] = Value::Object(slots.collect());
    }
    if let Some(ttl) = leader.ttl {
        body["ttl"] = json!(ttl.as_secs());
    }
    body
}

/// Reads the body. `None` without the fields that it must have.
pub(crate) fn leader(body: &Map<String, Value>) -> Option<FailsafeLeader> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let slots = body.get("slots").and_then(Value::as_object).map(|slots| {
        slots
            .iter()
            .filter_map(|(name, position)| Some((name.clone(), Lsn(position.as_u64()?))))
            .collect()
    });
    Some(FailsafeLeader {
        name: text("name")?.into(),
        conn_url: text("conn_url")?.to_owned(),
        api_url: text("api_url")?.to_owned(),
        slots,
        ttl: body
            .get("ttl")
            .and_then(Value::as_u64)
            .map(Duration::from_secs),
    })
}

/// Asks all members at once, each by its `api_url`, until `deadline`.
pub(crate) async fn ask(
    client: &HttpClient,
    members: BTreeMap<MemberName, String>,
    leader: &FailsafeLeader,
    deadline: Instant,
) -> BTreeMap<MemberName, FailsafeReply> {
    let body = Bytes::from(body(leader).to_string());
    join_all(members.into_iter().map(|(name, api_url)| {
        let body = body.clone();
        async move {
            let reply = ask_one(client, &name, &api_url, body, deadline).await;
            (name, reply)
        }
    }))
    .await
    .into_iter()
    .collect()
}

async fn ask_one(
    client: &HttpClient,
    name: &str,
    api_url: &str,
    body: Bytes,
    deadline: Instant,
) -> FailsafeReply {
    let Some((base, _)) = api_url.rsplit_once('/') else {
        return FailsafeReply::Silent(format!("its api_url {api_url:?} is no URL"));
    };
    let url = format!("{base}/failsafe");
    let mut last = None;
    for _ in 0..2 {
        let by = deadline.min(Instant::now() + TRY);
        match client
            .request(Method::POST, &url, HeaderMap::new(), body.clone(), by)
            .await
        {
            Ok(answer) => {
                let reply = read(&answer);
                tracing::info!("Got response from {name} {url}: {reply:?}");
                return reply;
            }
            Err(error) => {
                tracing::warn!("Request failed to {name}: POST {url} ({error})");
                last = Some(error.to_string());
            }
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    FailsafeReply::Silent(last.unwrap_or_default())
}

fn read(answer: &HttpAnswer) -> FailsafeReply {
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status.as_u16() != 200 || text != ACCEPTED {
        let text: String = text
            .lines()
            .next()
            .unwrap_or("")
            .chars()
            .take(100)
            .collect();
        return FailsafeReply::Refused(format!("{} {text}", answer.status.as_u16()));
    }
    let position = answer
        .headers
        .get(LSN)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Lsn);
    FailsafeReply::Accepted(position)
}

#[cfg(test)]
mod tests {
    use primacy_net::StatusCode;

    use super::*;

    /// `rest-api.md` §10: whatever else answers at that address has promised nothing.
    #[test]
    fn only_the_word_itself_is_an_acceptance() {
        let read = |status, body: &str, lsn: Option<&str>| {
            let lsn = lsn.map(|lsn| (LSN.parse().unwrap(), lsn.parse().unwrap()));
            read(&HttpAnswer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: lsn.into_iter().collect(),
                body: Bytes::from(body.to_owned()),
            })
        };
        let accepted = |lsn: Option<u64>| FailsafeReply::Accepted(lsn.map(Lsn));
        assert_eq!(read(200, "Accepted", None), accepted(None));
        assert_eq!(read(200, "Accepted", Some("77")), accepted(Some(77)));
        assert_eq!(read(200, "Accepted", Some("0/4D")), accepted(None));
        for (status, body) in [
            (200, ""),
            (200, "OK"),
            (200, "accepted"),
            (200, "Accepted\n"),
            (202, "Accepted"),
            (500, "Accepted"),
            (500, "Running as a leader"),
        ] {
            let refused = FailsafeReply::Refused(format!("{status} {}", body.trim_end()));
            assert_eq!(read(status, body, Some("77")), refused);
        }
    }

    #[test]
    fn the_body_is_the_documented_one_and_its_own_inverse() {
        let mut asking = FailsafeLeader {
            name: "pg0".into(),
            conn_url: "postgres://10.0.0.11:5432/postgres".into(),
            api_url: "http://10.0.0.11:8008/patroni".into(),
            slots: Some([("pg1".to_owned(), Lsn(7))].into()),
            ttl: None,
        };
        assert_eq!(
            body(&asking),
            json!({"name": "pg0", "conn_url": "postgres://10.0.0.11:5432/postgres",
                   "api_url": "http://10.0.0.11:8008/patroni", "slots": {"pg1": 7}})
        );
        assert_eq!(
            leader(body(&asking).as_object().unwrap()),
            Some(asking.clone())
        );
        asking.slots = None;
        asking.ttl = Some(Duration::from_secs(30));
        assert_eq!(leader(body(&asking).as_object().unwrap()), Some(asking));
        assert_eq!(leader(json!({"name": "pg0"}).as_object().unwrap()), None);
    }
}
