use serde_json::Value;

use crate::scalar::{parse_bool, parse_int_in, python_str};

/// A parameter that only the dynamic configuration may set, because it must not be lower on a standby than
/// on the primary, or because the agent itself decides it (`configuration.md` §1.8).
pub(crate) struct Enforced {
    pub(crate) name: &'static str,
    /// Printed as it stands; `None`: comes from elsewhere.
    pub(crate) default: Option<Default>,
    pub(crate) accepts: Accepts,
    /// First version that knows it, in the form of `server_version_num`.
    pub(crate) since: u32,
    /// Also on the postmaster's command line, where nothing can override it.
    pub(crate) on_command_line: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Default {
    Int(i64),
    Text(&'static str),
}

impl Default {
    pub(crate) fn value(self) -> Value {
        match self {
            Default::Int(number) => Value::from(number),
            Default::Text(text) => Value::from(text),
        }
    }
}

/// What the dynamic configuration may say.
#[derive(Clone, Copy)]
pub(crate) enum Accepts {
    Nothing,
    WalLevel,
    /// A boolean that is true.
    True,
    AnyBool,
    /// An integer of at least so much, in the unit.
    AtLeast(i64, Option<&'static str>),
}

impl Accepts {
    /// The value as it is taken over: integers without a unit become numbers. `None`: refused.
    pub(crate) fn check(self, value: &Value) -> Option<Value> {
        let accepted = match self {
            Accepts::Nothing => false,
            Accepts::WalLevel => ["hot_standby", "replica", "logical"]
                .contains(&python_str(value).to_lowercase().as_str()),
            Accepts::True => parse_bool(value) == Some(true),
            Accepts::AnyBool => parse_bool(value).is_some(),
            Accepts::AtLeast(least, unit) => {
                parse_int_in(value, unit).is_some_and(|number| number >= least)
            }
        };
        let number = match self {
            Accepts::AtLeast(..) => parse_int_in(value, None).map(Value::from),
            _ => None,
        };
        accepted.then(|| number.unwrap_or_else(|| value.clone()))
    }
}

/// In the order of the postmaster's command line.
pub(crate) const ENFORCED: [Enforced; 15] = [
    enforced("listen_addresses", None, Accepts::Nothing, 90100),
    enforced("port", None, Accepts::Nothing, 90100),
    enforced("cluster_name", None, Accepts::Nothing, 90500),
    enforced(
        "wal_level",
        Some(Default::Text("hot_standby")),
        Accepts::WalLevel,
        90100,
    ),
    enforced(
        "hot_standby",
        Some(Default::Text("on")),
        Accepts::True,
        90100,
    ),
    enforced(
        "max_connections",
        Some(Default::Int(100)),
        Accepts::AtLeast(25, None),
        90100,
    ),
    enforced(
        "max_wal_senders",
        Some(Default::Int(10)),
        Accepts::AtLeast(3, None),
        90100,
    ),
    Enforced {
        on_command_line: false,
        ..enforced(
            "wal_keep_segments",
            Some(Default::Int(8)),
            Accepts::AtLeast(1, None),
            90100,
        )
    },
    Enforced {
        on_command_line: false,
        ..enforced(
            "wal_keep_size",
            Some(Default::Text("128MB")),
            Accepts::AtLeast(16, Some("MB")),
            130_000,
        )
    },
    enforced(
        "max_prepared_transactions",
        Some(Default::Int(0)),
        Accepts::AtLeast(0, None),
        90100,
    ),
    enforced(
        "max_locks_per_transaction",
        Some(Default::Int(64)),
        Accepts::AtLeast(32, None),
        90100,
    ),
    enforced(
        "track_commit_timestamp",
        Some(Default::Text("off")),
        Accepts::AnyBool,
        90500,
    ),
    enforced(
        "max_replication_slots",
        Some(Default::Int(10)),
        Accepts::AtLeast(4, None),
        90400,
    ),
    enforced(
        "max_worker_processes",
        Some(Default::Int(8)),
        Accepts::AtLeast(2, None),
        90400,
    ),
    enforced(
        "wal_log_hints",
        Some(Default::Text("on")),
        Accepts::AnyBool,
        90400,
    ),
];

const fn enforced(
    name: &'static str,
    default: Option<Default>,
    accepts: Accepts,
    since: u32,
) -> Enforced {
    Enforced {
        name,
        default,
        accepts,
        since,
        on_command_line: true,
    }
}

/// The rule for a parameter, whatever the case of its name.
pub(crate) fn find(name: &str) -> Option<&'static Enforced> {
    ENFORCED
        .iter()
        .find(|enforced| enforced.name.eq_ignore_ascii_case(name))
}
