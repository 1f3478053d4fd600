use serde_json::{Value, json};

use crate::{Lsn, Timeline};

/// The `/history` key (`dcs.md` §2.8): the timelines that ended, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct History {
    /// One entry per ended timeline.
    pub entries: Vec<HistoryEntry>,
}

/// One ended timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where the next one forked off.
    pub switch_lsn: Lsn,
    /// PostgreSQL's reason, from its history file.
    pub reason: String,
    /// When, ISO 8601; versions before 1.6 wrote none.
    pub timestamp: Option<String>,
    /// Who took over; versions before 2.0 wrote none.
    pub new_leader: Option<String>,
}

impl History {
    /// Reads the key. `None` when it is not an array: the history is then not known, and with it the
    /// cluster's timeline.
    pub fn from_json(text: &str) -> Option<Self> {
        let Ok(Value::Array(lines)) = serde_json::from_str::<Value>(text) else {
            return None;
        };
        Some(History {
            entries: lines.iter().filter_map(HistoryEntry::from_json).collect(),
        })
    }

    /// The value as Patroni writes it: arrays of three to five fields.
    pub fn to_json(&self) -> String {
        Value::Array(self.entries.iter().map(HistoryEntry::to_json).collect()).to_string()
    }

    /// The timeline that the cluster is on: the last ended one and one more, or 1 when none has ended.
    pub fn cluster_timeline(&self) -> Timeline {
        self.entries
            .last()
            .map_or(Timeline(1), |last| last.timeline.next())
    }
}

impl HistoryEntry {
    fn from_json(line: &Value) -> Option<Self> {
        let fields = line.as_array()?;
        let text = |index: usize| fields.get(index).and_then(Value::as_str).map(str::to_owned);
        Some(HistoryEntry {
            timeline: Timeline::known(fields.first()?.as_u64()?)?,
            switch_lsn: Lsn(fields.get(1)?.as_u64()?),
            reason: text(2).unwrap_or_default(),
            // An empty one keeps the place of one that is not known.
            timestamp: text(3).filter(|text| !text.is_empty()),
            new_leader: text(4),
        })
    }

    fn to_json(&self) -> Value {
        let mut fields = vec![
            json!(self.timeline.0),
            json!(self.switch_lsn.0),
            json!(self.reason),
        ];
        if self.timestamp.is_some() || self.new_leader.is_some() {
            fields.push(json!(self.timestamp.as_deref().unwrap_or_default()));
        }
        if let Some(name) = &self.new_leader {
            fields.push(json!(name));
        }
        Value::Array(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cluster_timeline_follows_the_last_entry() {
        assert_eq!(
            History::from_json("[]").unwrap().cluster_timeline(),
            Timeline(1)
        );
        let two =
            History::from_json(r#"[[1,5,"r"],[2,9,"r","2026-01-01T00:00:00+00:00","b"]]"#).unwrap();
        assert_eq!(two.cluster_timeline(), Timeline(3));
        assert_eq!(two.entries[1].new_leader.as_deref(), Some("b"));
        assert_eq!(
            two.to_json(),
            r#"[[1,5,"r"],[2,9,"r","2026-01-01T00:00:00+00:00","b"]]"#
        );
        assert_eq!(History::from_json("{}"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            let _ = History::from_json(&text);
        }
    }
}
