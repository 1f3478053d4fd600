//! What the demo itself did and saw, to be shown as it happens and told again after a fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// Enough for hours of faults.
const KEPT: usize = 1000;

/// Who says what the demo does; members say the rest.
pub(crate) const DEMO: &str = "demo";
/// Who says what the writing client sees.
pub(crate) const WRITER: &str = "writer";

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    /// A member's name, [`DEMO`] or [`WRITER`].
    pub(crate) member: String,
    pub(crate) text: String,
}

/// The last events, oldest first. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<VecDeque<Event>>>);

impl Events {
    pub(crate) fn add(&self, member: &str, text: impl Into<String>) {
        let event = Event {
            at: Timestamp::now(),
            member: member.to_owned(),
            text: text.into(),
        };
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A client that tries again and again says the same again and again.
        let same = |last: &&Event| last.member == event.member;
        if events
            .iter()
            .rev()
            .find(same)
            .is_some_and(|last| last.text == event.text)
        {
            return;
        }
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    pub(crate) fn since(&self, at: Timestamp) -> Vec<Event> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events
            .iter()
            .filter(|event| event.at >= at)
            .cloned()
            .collect()
    }

    pub(crate) fn last(&self, count: usize) -> Vec<Event> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events
            .iter()
            .skip(events.len().saturating_sub(count))
            .cloned()
            .collect()
    }
}
