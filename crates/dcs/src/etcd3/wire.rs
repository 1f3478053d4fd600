//! The gateway's JSON: keys and values are base64, 64-bit numbers are texts, and what is false, zero or
//! empty is left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use primacy_model::{Session, Version};
use serde_json::{Value, json};

use crate::{Change, Condition, Entry, Write};

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn decode(value: &Value) -> Vec<u8> {
    value
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .unwrap_or_default()
}

pub(super) fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    }
}

/// A 64-bit number as text, without going through a number.
pub(super) fn text_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text != "0" => Some(text.clone()),
        Value::Number(number) if number.as_u64() != Some(0) => Some(number.to_string()),
        _ => None,
    }
}

/// What every answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster: u64,
    pub(super) revision: u64,
    pub(super) term: u64,
}

pub(super) fn header(answer: &Value) -> Header {
    let header = &answer["header"];
    Header {
        cluster: number(&header["cluster_id"]),
        revision: number(&header["revision"]),
        term: number(&header["raft_term"]),
    }
}

/// The keys below a prefix, as `key` and `range_end`. An empty prefix is everything.
pub(super) fn range(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    // A zero byte: to the end of the key space, or, as the key, from its beginning.
    let open = |bytes: &[u8]| {
        if bytes.is_empty() {
            encode(&[0])
        } else {
            encode(bytes)
        }
    };
    json!({"key": open(prefix.as_bytes()), "range_end": open(&end)})
}

pub(super) fn entry(pair: &Value) -> Entry {
    Entry {
        key: key(pair),
        value: decode(&pair["value"]),
        version: Version(number(&pair["mod_revision"])),
        lease: text_number(&pair["lease"]).map(Session),
    }
}

pub(super) fn key(pair: &Value) -> String {
    String::from_utf8_lossy(&decode(&pair["key"])).into_owned()
}

pub(super) fn transaction(write: &Write) -> Value {
    json!({"compare": compare(write), "success": [request(write)]})
}

/// `always` is written whether the condition of the other holds or not.
pub(super) fn transaction_of_both(conditional: &Write, always: &Write) -> Value {
    let (first, second) = (request(conditional), request(always));
    json!({"compare": compare(conditional), "success": [first, second], "failure": [second]})
}

fn compare(write: &Write) -> Value {
    let own = encode(write.key.as_bytes());
    match &write.condition {
        Condition::Always => json!([]),
        Condition::Absent => {
            json!([{"key": own, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}])
        }
        Condition::Version(Version(revision)) => {
            json!([{"key": own, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string()}])
        }
        Condition::Value(value) => {
            json!([{"key": own, "target": "VALUE", "result": "EQUAL", "value": encode(value)}])
        }
        Condition::Holds { key, value } => {
            let key = encode(key.as_bytes());
            json!([{"key": key, "target": "VALUE", "result": "EQUAL", "value": encode(value)}])
        }
    }
}

fn request(write: &Write) -> Value {
    let own = encode(write.key.as_bytes());
    match &write.change {
        Change::Delete => json!({"request_delete_range": {"key": own}}),
        Change::Put { value, lease } => {
            let mut put = json!({"key": own, "value": encode(value)});
            if let Some(Session(lease)) = lease {
                put["lease"] = json!(lease);
            }
            json!({"request_put": put})
        }
    }
}

/// An error in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerError {
    /// The gRPC code.
    pub(super) code: u64,
    pub(super) message: String,
}

impl ServerError {
    /// Reads the forms that the gateways of the various releases have: flat, and nested in streams.
    pub(super) fn from_answer(answer: &Value) -> Option<Self> {
        let (code, message) = match &answer["error"] {
            Value::Object(nested) => {
                let code = nested.get("grpc_code").or_else(|| nested.get("code"));
                (
                    code.cloned().unwrap_or(Value::Null),
                    nested.get("message").cloned(),
                )
            }
            Value::String(text) => (answer["code"].clone(), Some(json!(text))),
            _ if answer["code"].is_number() => {
                (answer["code"].clone(), answer.get("message").cloned())
            }
            _ => return None,
        };
        let message = message.as_ref().and_then(Value::as_str).unwrap_or_default();
        Some(ServerError {
            code: number(&code),
            message: message.to_owned(),
        })
    }

    /// What it means for the request that met it.
    pub(super) fn meaning(&self) -> Meaning {
        let says = |text: &str| self.message.contains(text);
        match self.code {
            5 if says("requested lease not found") => Meaning::NoLease,
            9 if says("authentication is not enabled") => Meaning::NoAuthentication,
            _ if says("invalid auth token")
                || says("user name is empty")
                || says("revision in header is old")
                || says("permission denied") =>
            {
                Meaning::NotAuthenticated
            }
            // Said before anything was proposed.
            _ if says("no leader")
                || says("raft proposal dropped")
                || says("too many requests")
                || says("not capable") =>
            {
                Meaning::NotDone
            }
            9 => Meaning::NotDone,
            // Canceled, Unknown, DeadlineExceeded, Aborted, Internal, Unavailable: the proposal may be on its way.
            1 | 2 | 4 | 10 | 13 | 14 => Meaning::MaybeDone,
            _ => Meaning::Refused,
        }
    }
}

/// What an error means for the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing was done; another member, or the same one later, may do it.
    NotDone,
    /// It may have been done.
    MaybeDone,
    /// Nothing was done; log in anew.
    NotAuthenticated,
    /// Nothing was done; there is nothing to log in to.
    NoAuthentication,
    /// Nothing was done; the lease is gone.
    NoLease,
    /// Nothing was done, and never will be.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_what_begins_with_the_prefix() {
        let ends = |prefix| {
            let range = range(prefix);
            (decode(&range["key"]), decode(&range["range_end"]))
        };
        assert_eq!(ends("/a/"), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(ends(""), (vec![0], vec![0]));
    }

    #[test]
    fn numbers_come_as_texts_or_not_at_all() {
        assert_eq!(
            number(&json!("9223372036854775807")),
            9_223_372_036_854_775_807
        );
        assert_eq!(number(&json!(7)), 7);
        assert_eq!(number(&Value::Null), 0);
        assert_eq!(text_number(&json!("0")), None);
        assert_eq!(text_number(&json!(12)), Some("12".into()));
    }

    #[test]
    fn errors_of_every_release_are_read() {
        use Meaning::*;
        for (text, code, meaning) in [
            (
                r#"{"error":"etcdserver: requested lease not found","code":5}"#,
                5,
                NoLease,
            ),
            (
                r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
                14,
                NotDone,
            ),
            (
                r#"{"error":{"code":14,"message":"etcdserver: request timed out"}}"#,
                14,
                MaybeDone,
            ),
            (
                r#"{"code":16,"message":"etcdserver: invalid auth token","details":[]}"#,
                16,
                NotAuthenticated,
            ),
            (
                r#"{"error":"context deadline exceeded","message":"context deadline exceeded","code":4}"#,
                4,
                MaybeDone,
            ),
            (
                r#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#,
                8,
                Refused,
            ),
            (
                r#"{"error":"etcdserver: authentication is not enabled","code":9}"#,
                9,
                NoAuthentication,
            ),
        ] {
            let error = ServerError::from_answer(&serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!((error.code, error.meaning()), (code, meaning), "{text}");
        }
        assert_eq!(ServerError::from_answer(&json!({"header": {}})), None);
    }
}
