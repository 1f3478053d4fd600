//! What is written in the log, and what comes of it.
//!
//! These types are stored on disk and cross the wire between releases: fields are added with a default,
//! never renamed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use primacy_dcs as dcs;
use primacy_model::{Session, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point of the group's own time, in milliseconds; see the head of the crate.
pub(crate) type Millis = u64;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// Under which reign it was proposed. A command of a reign that is over does nothing.
    pub(crate) reign: u64,
    /// The leader's clock when it proposed.
    pub(crate) at: Millis,
    /// What to do.
    pub(crate) action: Action,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    /// A leader takes over: begins a reign. `group` names the group if it has no name yet.
    Lead { group: String },
    /// Time has passed.
    Tick,
    /// Somebody's request.
    Serve { id: RequestId, op: Op },
}

/// Tells a request from its own repetition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestId {
    /// One per store handle, random.
    pub(crate) client: String,
    /// Counts the client's requests.
    pub(crate) seq: u64,
    /// Every request of the client below this one has ended, whichever way: its answer may be forgotten,
    /// and a straggling copy of it must not be applied any more.
    pub(crate) settled: u64,
}

/// A request that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    Put {
        key: String,
        value: Blob,
        lease: Option<String>,
        condition: Condition,
    },
    Delete {
        key: String,
        condition: Condition,
    },
    GrantLease {
        ttl: Millis,
    },
    RenewLease {
        lease: String,
    },
    RevokeLease {
        lease: String,
    },
    DeletePrefix {
        prefix: String,
    },
}

/// [`dcs::Condition`] on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    Always,
    Absent,
    Version(u64),
    Value(Blob),
    Holds { key: String, value: Blob },
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Nothing to say.
    Noted,
    /// The reign has begun, at this time.
    Led {
        reign: u64,
        now: Millis,
    },
    /// Not applied: another reign has begun since it was proposed.
    Superseded,
    /// Not applied now: the client gave it up. It may have been applied before.
    Forgotten,
    Done {
        version: u64,
    },
    ConditionFailed,
    Granted {
        lease: String,
    },
    Renewed,
    Lapsed,
    /// A put names a lease that is gone.
    NoSuchLease,
    /// Refused for good.
    Refused {
        reason: String,
    },
}

/// Bytes, as base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD
            .decode(text)
            .map(Blob)
            .map_err(serde::de::Error::custom)
    }
}

impl From<dcs::Condition> for Condition {
    fn from(condition: dcs::Condition) -> Self {
        match condition {
            dcs::Condition::Always => Condition::Always,
            dcs::Condition::Absent => Condition::Absent,
            dcs::Condition::Version(Version(version)) => Condition::Version(version),
            dcs::Condition::Value(value) => Condition::Value(Blob(value)),
            dcs::Condition::Holds { key, value } => Condition::Holds {
                key,
                value: Blob(value),
            },
        }
    }
}

impl From<dcs::Write> for Op {
    fn from(write: dcs::Write) -> Self {
        let dcs::Write {
            key,
            change,
            condition,
        } = write;
        let condition = condition.into();
        match change {
            dcs::Change::Put { value, lease } => Op::Put {
                key,
                value: Blob(value),
                lease: lease.map(|Session(id)| id),
                condition,
            },
            dcs::Change::Delete => Op::Delete { key, condition },
        }
    }
}
