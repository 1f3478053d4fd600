//! The replicated state: a pure function of the log.
//!
//! No clock, no randomness and no hash order in here: two members that applied the same entries are equal,
//! byte for byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{Action, Answer, Blob, Command, Condition, Millis, Op, RequestId};

/// What one key and its value may take. Frames are bounded by it.
pub(crate) const MAX_ITEM_BYTES: usize = 1 << 20;

/// What all keys and values may take together: a snapshot travels in one frame.
pub(crate) const MAX_TOTAL_BYTES: usize = 16 << 20;

/// How many answers are kept for one client that leaves requests open.
const MAX_OPEN_ANSWERS: usize = 1024;

/// How long a silent client is remembered, in group time. Much longer than any request lives, so that none
/// of its copies can come after it was forgotten.
const CLIENT_MEMORY: Millis = 3_600_000;

/// Everything that the members agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The group's name: made once, by its first leader.
    pub(crate) group: Option<String>,
    /// The log index of the entry that began the present reign.
    pub(crate) reign: u64,
    /// The latest time that a leader proposed.
    pub(crate) now: Millis,
    pub(crate) keys: BTreeMap<String, Item>,
    pub(crate) leases: BTreeMap<String, Lease>,
    clients: BTreeMap<String, Client>,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) value: Blob,
    /// The log index of the write.
    pub(crate) version: u64,
    pub(crate) lease: Option<String>,
}

/// A lease; it is gone once the group's time is past its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) ttl: Millis,
    pub(crate) deadline: Millis,
}

/// What is remembered of a client, so that no request of it is applied twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Client {
    settled: u64,
    seen: Millis,
    answers: BTreeMap<u64, Answer>,
}

/// A change that a command made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Put(String, Item),
    Delete(String),
}

impl State {
    /// Applies the command at this index of the log, and tells what changed.
    pub(crate) fn apply(
        &mut self,
        index: u64,
        command: Command,
        events: &mut Vec<Event>,
    ) -> Answer {
        if let Action::Lead { group } = command.action {
            return self.begin_reign(index, group);
        }
        if command.reign != self.reign {
            return Answer::Superseded;
        }
        self.pass_time(command.at, events);
        match command.action {
            Action::Lead { .. } | Action::Tick => Answer::Noted,
            Action::Serve { id, op } => self.serve_once(index, id, op, events),
        }
    }

    /// The next moment at which a lease lapses unless it is renewed.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    /// Time stands still between two reigns, and every lease starts anew: whoever renewed it lately cannot
    /// be known to the new leader's clock.
    fn begin_reign(&mut self, index: u64, group: String) -> Answer {
        self.group.get_or_insert(group);
        self.reign = index;
        for lease in self.leases.values_mut() {
            lease.deadline = self.now.saturating_add(lease.ttl);
        }
        Answer::Led {
            reign: index,
            now: self.now,
        }
    }

    /// Moves the time on, and removes what has lapsed. Strictly later: times are rounded down, so a lease
    /// whose deadline is *now* may have up to a millisecond left.
    fn pass_time(&mut self, at: Millis, events: &mut Vec<Event>) {
        self.now = self.now.max(at);
        let now = self.now;
        let lapsed: Vec<String> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.deadline < now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in lapsed {
            self.end_lease(&id, events);
        }
        self.clients
            .retain(|_, client| client.seen.saturating_add(CLIENT_MEMORY) >= now);
    }

    fn end_lease(&mut self, id: &str, events: &mut Vec<Event>) {
        self.leases.remove(id);
        self.remove_keys(events, |_, item| item.lease.as_deref() == Some(id));
    }

    fn remove_keys(&mut self, events: &mut Vec<Event>, doomed: impl Fn(&str, &Item) -> bool) {
        self.keys.retain(|key, item| {
            let goes = doomed(key, item);
            if goes {
                events.push(Event::Delete(key.clone()));
            }
            !goes
        });
    }

    fn serve_once(&mut self, index: u64, id: RequestId, op: Op, events: &mut Vec<Event>) -> Answer {
        let client = self.clients.entry(id.client.clone()).or_default();
        client.seen = self.now;
        if id.seq < client.settled {
            return Answer::Forgotten;
        }
        if let Some(answer) = client.answers.get(&id.seq) {
            return answer.clone();
        }
        if id.settled > client.settled {
            client.settled = id.settled;
            client.answers = client.answers.split_off(&id.settled);
        }
        if client.answers.len() >= MAX_OPEN_ANSWERS {
            return Answer::Refused {
                reason: format!("{MAX_OPEN_ANSWERS} requests of one client are open"),
            };
        }
        let answer = self.serve(index, op, events);
        if let Some(client) = self.clients.get_mut(&id.client) {
            client.answers.insert(id.seq, answer.clone());
        }
        answer
    }

    fn serve(&mut self, index: u64, op: Op, events: &mut Vec<Event>) -> Answer {
        match op {
            Op::Put {
                key,
                value,
                lease,
                condition,
            } => {
                if !self.holds(&key, &condition) {
                    return Answer::ConditionFailed;
                }
                if lease
                    .as_ref()
                    .is_some_and(|id| !self.leases.contains_key(id))
                {
                    return Answer::NoSuchLease;
                }
                if let Some(reason) = self.too_big(&key, &value) {
                    return Answer::Refused { reason };
                }
                let item = Item {
                    value,
                    version: index,
                    lease,
                };
                events.push(Event::Put(key.clone(), item.clone()));
                self.keys.insert(key, item);
                Answer::Done { version: index }
            }
            Op::Delete { key, condition } => {
                if !self.holds(&key, &condition) {
                    return Answer::ConditionFailed;
                }
                if self.keys.remove(&key).is_some() {
                    events.push(Event::Delete(key));
                }
                Answer::Done { version: index }
            }
            Op::GrantLease { ttl } => {
                let lease = format!("{index:016x}");
                self.leases.insert(
                    lease.clone(),
                    Lease {
                        ttl,
                        deadline: self.now.saturating_add(ttl),
                    },
                );
                Answer::Granted { lease }
            }
            Op::RenewLease { lease } => match self.leases.get_mut(&lease) {
                Some(lease) => {
                    lease.deadline = self.now.saturating_add(lease.ttl);
                    Answer::Renewed
                }
                None => Answer::Lapsed,
            },
            Op::RevokeLease { lease } => {
                self.end_lease(&lease, events);
                Answer::Done { version: index }
            }
            Op::DeletePrefix { prefix } => {
                self.remove_keys(events, |key, _| key.starts_with(&prefix));
                Answer::Done { version: index }
            }
        }
    }

    fn holds(&self, key: &str, condition: &Condition) -> bool {
        let value_of = |key: &str| self.keys.get(key).map(|item| &item.value);
        match condition {
            Condition::Always => true,
            Condition::Absent => !self.keys.contains_key(key),
            Condition::Version(version) => self
                .keys
                .get(key)
                .is_some_and(|item| item.version == *version),
            Condition::Value(value) => value_of(key) == Some(value),
            Condition::Holds { key, value } => value_of(key) == Some(value),
        }
    }

    fn too_big(&self, key: &str, value: &Blob) -> Option<String> {
        let size = key.len() + value.0.len();
        if size > MAX_ITEM_BYTES {
            return Some(format!(
                "{key} with its value has {size} bytes, more than {MAX_ITEM_BYTES}"
            ));
        }
        let others: usize = self
            .keys
            .iter()
            .filter(|(other, _)| *other != key)
            .map(|(other, item)| other.len() + item.value.0.len())
            .sum();
        (others + size > MAX_TOTAL_BYTES).then(|| {
            format!("the store is full: all keys and values may have {MAX_TOTAL_BYTES} bytes")
        })
    }
}
