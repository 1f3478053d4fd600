use indexmap::IndexMap;
use serde_json::Value;

/// A member's tags (`ha.md` §17, `configuration.md` §4): any names and values, a few of which steer the
/// cluster. Values keep the type they were written with.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tags(IndexMap<String, Value>);

/// Published only when truthy; see [`Tags::published`].
const BOOLEAN_TAGS: [&str; 5] = [
    "clonefrom",
    "nofailover",
    "noloadbalance",
    "nosync",
    "nostream",
];

impl Tags {
    /// Tags as they stand in a configuration file or a member key.
    pub fn new(tags: IndexMap<String, Value>) -> Self {
        Tags(tags)
    }

    /// Reads a JSON object; anything else is no tags.
    pub fn from_json(value: &Value) -> Self {
        match value.as_object() {
            Some(object) => Tags(object.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
            None => Tags::default(),
        }
    }

    /// As a JSON object.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A tag's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The subset that leaves the process (`configuration.md` §4): the boolean tags only when truthy, but
    /// `nofailover` and `nosync` also beside the priority tag that they belong to.
    pub fn published(&self) -> Tags {
        let beside = |name: &str| match name {
            "nofailover" => self.0.contains_key("failover_priority"),
            "nosync" => self.0.contains_key("sync_priority"),
            _ => false,
        };
        Tags(
            self.0
                .iter()
                .filter(|(name, value)| {
                    !BOOLEAN_TAGS.contains(&name.as_str()) || truthy(value) || beside(name)
                })
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// These tags with the member withdrawn from synchronous replication for a while (`ha.md` §13.6).
    pub fn without_sync(&self) -> Tags {
        let mut tags = self.0.clone();
        tags.insert("nosync".into(), Value::Bool(true));
        tags.insert("sync_priority".into(), Value::from(0));
        Tags(tags)
    }

    /// These tags with the member withdrawn from the candidates for a while: `nofailover` is what every peer, of
    /// any version, understands.
    pub fn without_failover(&self) -> Tags {
        let mut tags = self.0.clone();
        tags.insert("nofailover".into(), Value::Bool(true));
        tags.insert("failover_priority".into(), Value::from(0));
        Tags(tags)
    }

    /// Never races, never counts as a candidate.
    pub fn nofailover(&self) -> bool {
        self.forbidden("nofailover", "failover_priority")
    }

    /// The higher one wins at equal WAL positions.
    pub fn failover_priority(&self) -> i64 {
        self.priority_beside("nofailover", "failover_priority")
    }

    /// Never a synchronous standby.
    pub fn nosync(&self) -> bool {
        self.forbidden("nosync", "sync_priority")
    }

    /// Orders the candidates for synchronous standby.
    pub fn sync_priority(&self) -> i64 {
        self.priority_beside("nosync", "sync_priority")
    }

    /// May be the source of a base backup.
    pub fn clonefrom(&self) -> bool {
        self.0.get("clonefrom").is_some_and(truthy)
    }

    /// Replica health checks fail.
    pub fn noloadbalance(&self) -> bool {
        self.0.get("noloadbalance").is_some_and(truthy)
    }

    /// Follows from the archive only.
    pub fn nostream(&self) -> bool {
        match self.0.get("nostream") {
            Some(Value::Bool(value)) => *value,
            Some(Value::String(text)) => {
                matches!(
                    text.to_ascii_lowercase().as_str(),
                    "on" | "true" | "yes" | "1"
                )
            }
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            _ => false,
        }
    }

    /// The member to follow in place of the leader.
    pub fn replicatefrom(&self) -> Option<&str> {
        self.0
            .get("replicatefrom")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The boolean decides when it is there; otherwise a priority of zero or less forbids.
    fn forbidden(&self, boolean: &str, priority: &str) -> bool {
        match self.0.get(boolean) {
            Some(value) if !value.is_null() => truthy(value),
            _ => self.priority(priority) <= 0,
        }
    }

    /// 0 where the boolean says no.
    fn priority_beside(&self, boolean: &str, priority: &str) -> i64 {
        match self.0.get(boolean).is_some_and(truthy) {
            true => 0,
            false => self.priority(priority),
        }
    }

    /// 1 when absent or not a number.
    fn priority(&self, name: &str) -> i64 {
        match self.0.get(name) {
            Some(Value::Number(number)) => number
                .as_i64()
                .or_else(|| number.as_f64().map(|f| f.round_ties_even() as i64)),
            Some(Value::String(text)) => text.trim().parse().ok(),
            _ => None,
        }
        .unwrap_or(1)
    }
}

/// Python's notion of truth, which the tags were defined by: the string `"false"` is true.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(value: Value) -> Tags {
        Tags::from_json(&value)
    }

    /// `configuration.md` §4; every row was compared with Patroni's.
    #[test]
    fn boolean_tag_beats_the_priority() {
        for (given, nofailover, failover_priority, nosync, sync_priority) in [
            (json!({}), false, 1, false, 1),
            (json!({"nofailover": true}), true, 0, false, 1),
            (json!({"nofailover": "false"}), true, 0, false, 1),
            // The boolean decides where there is one.
            (
                json!({"nofailover": true, "failover_priority": 3}),
                true,
                0,
                false,
                1,
            ),
            (
                json!({"nofailover": false, "failover_priority": 0}),
                false,
                0,
                false,
                1,
            ),
            (
                json!({"nofailover": "", "failover_priority": 0}),
                false,
                0,
                false,
                1,
            ),
            (
                json!({"nofailover": 0, "failover_priority": 3}),
                false,
                3,
                false,
                1,
            ),
            (
                json!({"nofailover": null, "failover_priority": 0}),
                true,
                0,
                false,
                1,
            ),
            (json!({"failover_priority": "2"}), false, 2, false, 1),
            (json!({"failover_priority": " 2 "}), false, 2, false, 1),
            (json!({"failover_priority": 1.5}), false, 2, false, 1),
            (json!({"failover_priority": 2.5}), false, 2, false, 1),
            (json!({"failover_priority": -1}), true, -1, false, 1),
            (json!({"failover_priority": "x"}), false, 1, false, 1),
            (json!({"failover_priority": "0kB"}), false, 1, false, 1),
            (json!({"failover_priority": true}), false, 1, false, 1),
            (json!({"nosync": true}), false, 1, true, 0),
            (json!({"nosync": []}), false, 1, false, 1),
            (
                json!({"nosync": false, "sync_priority": 0}),
                false,
                1,
                false,
                0,
            ),
            (json!({"sync_priority": 0}), false, 1, true, 0),
            (json!({"sync_priority": -3}), false, 1, true, -3),
        ] {
            let tags = tags(given.clone());
            let read = (
                tags.nofailover(),
                tags.failover_priority(),
                tags.nosync(),
                tags.sync_priority(),
            );
            let expected = (nofailover, failover_priority, nosync, sync_priority);
            assert_eq!(read, expected, "{given}");
        }
    }

    /// The same.
    #[test]
    fn nostream_is_parsed_where_the_others_are_truthy() {
        for (name, value, expected) in [
            ("noloadbalance", json!("off"), true),
            ("noloadbalance", json!(0), false),
            ("clonefrom", json!("x"), true),
            ("clonefrom", json!({}), false),
            ("nostream", json!("on"), true),
            ("nostream", json!("YES"), true),
            ("nostream", json!(1), true),
            ("nostream", json!(2), false),
            ("nostream", json!("t"), false),
            ("nostream", json!("false"), false),
        ] {
            let tags = tags(json!({ name: value }));
            let read = match name {
                "noloadbalance" => tags.noloadbalance(),
                "clonefrom" => tags.clonefrom(),
                _ => tags.nostream(),
            };
            assert_eq!(read, expected, "{name}: {value}");
        }
    }

    #[test]
    fn false_booleans_are_not_published() {
        let all =
            tags(json!({"nofailover": false, "nosync": false, "sync_priority": 2, "x": null}));
        assert_eq!(
            all.published().to_json(),
            json!({"nosync": false, "sync_priority": 2, "x": null})
        );
    }
}
