//! What was decided and why, newest last. `GET /journal` serves it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use primacy_ha::JournalEntry;
use serde_json::{Value, json};

/// As many decisions as fit a few days of ordinary life, or a very bad hour.
const ENTRIES_MAX: usize = 1000;

/// The decisions of this process.
#[derive(Default)]
pub struct Journal {
    entries: Mutex<VecDeque<JournalEntry>>,
}

impl Journal {
    pub(crate) fn keep(&self, entry: JournalEntry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Oldest first: `at` (RFC 3339), `member`, `text`, `step`, `reasons` of `{rule, text}`.
    pub fn to_json(&self, member: &str) -> Value {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|entry| {
                let reasons: Vec<Value> = entry
                    .reasons
                    .iter()
                    .map(|reason| json!({"rule": reason.rule, "text": reason.text}))
                    .collect();
                json!({
                    "at": entry.at.to_string(),
                    "member": member,
                    "text": entry.outcome,
                    "step": entry.step,
                    "reasons": reasons,
                })
            })
            .collect()
    }
}
