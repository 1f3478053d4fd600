use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::Lsn;

/// The `/status` key (`dcs.md` §2.5): what the leader last said of its WAL and its slots.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// The leader's WAL position; zero when unknown, which makes every replica "not lagging".
    pub optime: Lsn,
    /// Slot name to position: confirmed flush of logical ones, restart of physical ones, and an entry
    /// under the leader's own slot name with its own position.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of members that were seen lately, sorted.
    pub retain_slots: Vec<String>,
}

impl Status {
    /// Reads the key: an object, or the bare number of old versions. What is of a wrong type is ignored.
    pub fn from_json(text: &str) -> Self {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => Status {
                optime: Lsn(map.get("optime").and_then(number).unwrap_or(0)),
                slots: map
                    .get("slots")
                    .and_then(unwrap_encoded)
                    .and_then(|value| value.as_object().cloned())
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|(name, lsn)| Some((name, Lsn(number(&lsn)?))))
                    .collect(),
                retain_slots: map
                    .get("retain_slots")
                    .and_then(unwrap_encoded)
                    .and_then(|value| value.as_array().cloned())
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|name| name.as_str().map(str::to_owned))
                    .collect(),
            },
            Ok(value) => Status {
                optime: Lsn(number(&value).unwrap_or(0)),
                ..Status::default()
            },
            Err(_) => Status::default(),
        }
    }

    /// The value as Patroni writes it; empty collections are left out.
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("optime".into(), json!(self.optime.0));
        if !self.slots.is_empty() {
            map.insert("slots".into(), json!(self.slots));
        }
        if !self.retain_slots.is_empty() {
            map.insert("retain_slots".into(), json!(self.retain_slots));
        }
        Value::Object(map).to_string()
    }
}

fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

/// On Kubernetes the collections are JSON text inside a string.
fn unwrap_encoded(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => serde_json::from_str(text).ok(),
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read() {
        assert_eq!(Status::from_json("67108864").optime, Lsn(67108864));
        let kubernetes =
            Status::from_json(r#"{"optime":"5","slots":"{\"a\":7}","retain_slots":"[\"a\"]"}"#);
        assert_eq!(kubernetes.optime, Lsn(5));
        assert_eq!(kubernetes.slots["a"], Lsn(7));
        assert_eq!(kubernetes.retain_slots, ["a"]);
        assert_eq!(
            Status::from_json(r#"{"optime":-1,"slots":3,"retain_slots":{}}"#),
            Status::default()
        );
    }

    #[test]
    fn empty_collections_are_left_out() {
        assert_eq!(
            Status {
                optime: Lsn(3),
                ..Status::default()
            }
            .to_json(),
            r#"{"optime":3}"#
        );
    }

    proptest! {
        #[test]
        fn values_round_trip(optime: u64, slots in prop::collection::btree_map("[a-z0-9_]{1,9}", any::<u64>().prop_map(Lsn), 0..4), retain_slots in prop::collection::vec("[a-z0-9_]{1,9}", 0..4)) {
            let status = Status { optime: Lsn(optime), slots, retain_slots };
            prop_assert_eq!(Status::from_json(&status.to_json()), status);
        }

        #[test]
        fn any_text_is_read(text: String) {
            let _ = Status::from_json(&text);
        }
    }
}
