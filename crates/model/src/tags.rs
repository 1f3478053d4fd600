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
        if self.nofailover() {
            0
        } else {
            self.priority("failover_priority")
        }
    }

    /// Never a synchronous standby.
    pub fn nosync(&self) -> bool {
        self.forbidden("nosync", "sync_priority")
    }

    /// Orders the candidates for synchronous standby.
    pub fn sync_priority(&self) -> i64 {
        if self.nosync() {
            0
        } else {
            self.priority("sync_priority")
        }
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

    #[test]
    fn boolean_tag_beats_the_priority() {
        assert!(tags(json!({"nofailover": true, "failover_priority": 5})).nofailover());
        assert!(!tags(json!({"nofailover": false, "failover_priority": 0})).nofailover());
        assert!(tags(json!({"failover_priority": 0})).nofailover());
        assert_eq!(
            tags(json!({"failover_priority": "3"})).failover_priority(),
            3
        );
        assert_eq!(
            tags(json!({"failover_priority": "x"})).failover_priority(),
            1
        );
        assert_eq!(tags(json!({})).failover_priority(), 1);
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

    #[test]
    fn nostream_is_parsed_where_the_others_are_truthy() {
        assert!(!tags(json!({"nostream": "false"})).nostream());
        assert!(tags(json!({"noloadbalance": "false"})).noloadbalance());
    }
}
