//! From the nodes of a group that `pg_dist_node` has to those that it should have, in an order that Citus accepts:
//!
//! * the primary's row keeps its `nodeid` for as long as the group is there: shards refer to it;
//! * host and port are unique among all rows, at every moment in between;
//! * rows can always be changed, but only be added or removed while the metadata of all primaries is in step, which it
//!   is not in a transaction that changed a primary's row, nor for a moment after it.

use std::collections::{BTreeMap, BTreeSet};

use primacy_model::ConnUrl;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl NodeAddress {
    /// The address in a member's `conn_url`.
    pub fn of_url(url: &str) -> Option<Self> {
        let ConnUrl { host, port, .. } = ConnUrl::parse(url)?;
        Some(NodeAddress { host, port })
    }
}

/// What a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Reads and writes of a group go there.
    Primary,
    /// A standby that may be read from.
    Secondary,
}

impl NodeRole {
    /// `noderole` of `pg_dist_node`.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeRole::Primary => "primary",
            NodeRole::Secondary => "secondary",
        }
    }
}

/// The primary's row of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `nodeid`.
    pub id: i32,
    /// Where it points.
    pub address: NodeAddress,
    /// Its host has a suffix by which nobody is reached: clients wait for the transaction that gave it.
    pub paused: bool,
}

/// The rows of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// At most one.
    pub primary: Option<Row>,
    /// With their `nodeid`.
    pub secondaries: BTreeMap<NodeAddress, i32>,
}

/// What the rows of a group should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The leader.
    pub primary: NodeAddress,
    /// It is about to go down: clients are to wait.
    pub paused: bool,
    /// The standbys that may be read from.
    pub secondaries: BTreeSet<NodeAddress>,
}

/// One call of Citus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `citus_update_node`: the row points there from now on.
    Update {
        /// Which row.
        id: i32,
        /// Where to.
        address: NodeAddress,
        /// With the suffix by which nobody is reached.
        paused: bool,
    },
    /// `citus_add_node`.
    Add {
        /// Where it is.
        address: NodeAddress,
        /// What it is.
        role: NodeRole,
    },
    /// `citus_remove_node`.
    Remove(NodeAddress),
}

/// What brings a group from what is registered to what is wanted, as far as that can be done in one transaction; what
/// is left is found the next time. `in_step`: this transaction has not changed a primary's row yet.
pub fn transition(registered: &Registered, wanted: &Wanted, in_step: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut added: BTreeSet<&NodeAddress> = wanted
        .secondaries
        .iter()
        .filter(|address| !registered.secondaries.contains_key(address))
        .filter(|address| **address != wanted.primary)
        .collect();
    let mut gone: Vec<(&NodeAddress, i32)> = registered
        .secondaries
        .iter()
        .filter(|(address, _)| !wanted.secondaries.contains(address))
        .filter(|(address, _)| **address != wanted.primary)
        .map(|(address, id)| (address, *id))
        .collect();
    let mut in_step = in_step;
    match &registered.primary {
        // Nobody waits for a group that nobody knows.
        None if wanted.paused => return changes,
        None => changes.push(Change::Add {
            address: wanted.primary.clone(),
            role: NodeRole::Primary,
        }),
        Some(old) => {
            let moves = old.address != wanted.primary;
            if moves && let Some(id) = registered.secondaries.get(&wanted.primary) {
                // Its row must point elsewhere before the primary's can point to it, and cannot be removed now.
                let successor = match wanted.secondaries.contains(&old.address) {
                    true => &old.address,
                    false => added.first().copied().unwrap_or(&old.address),
                };
                if successor == &old.address && !old.paused {
                    changes.push(update(old.id, &old.address, true));
                }
                changes.push(update(*id, successor, false));
                added.remove(successor);
            }
            if moves || old.paused != wanted.paused {
                changes.push(update(old.id, &wanted.primary, wanted.paused));
                in_step = false;
            }
        }
    }
    while let (Some((_, id)), Some(address)) = (gone.last(), added.first()) {
        changes.push(update(*id, address, false));
        gone.pop();
        added.pop_first();
    }
    if in_step {
        changes.extend(
            gone.into_iter()
                .map(|(address, _)| Change::Remove(address.clone())),
        );
        changes.extend(added.into_iter().map(|address| Change::Add {
            address: address.clone(),
            role: NodeRole::Secondary,
        }));
    }
    changes
}

fn update(id: i32, address: &NodeAddress, paused: bool) -> Change {
    Change::Update {
        id,
        address: address.clone(),
        paused,
    }
}

impl Registered {
    /// What the rows are after a change; `added` is the `nodeid` that a new row got.
    pub fn apply(&mut self, change: &Change, added: Option<i32>) {
        match change {
            Change::Update {
                id,
                address,
                paused,
            } => match &mut self.primary {
                Some(primary) if primary.id == *id => {
                    primary.address.clone_from(address);
                    primary.paused = *paused;
                }
                _ => {
                    self.secondaries.retain(|_, other| other != id);
                    self.secondaries.insert(address.clone(), *id);
                }
            },
            Change::Add { address, role } => {
                let (Some(id), address) = (added, address.clone()) else {
                    return;
                };
                match role {
                    NodeRole::Primary => {
                        self.primary = Some(Row {
                            id,
                            address,
                            paused: false,
                        });
                    }
                    NodeRole::Secondary => {
                        self.secondaries.insert(address, id);
                    }
                }
            }
            Change::Remove(address) => {
                self.secondaries.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a`, or `a:5433`.
    fn at(text: &str) -> NodeAddress {
        let (host, port) = text.split_once(':').unwrap_or((text, "5432"));
        NodeAddress {
            host: host.into(),
            port: port.parse().expect("a port"),
        }
    }

    fn named(address: &NodeAddress) -> String {
        match address.port {
            5432 => address.host.clone(),
            port => format!("{}:{port}", address.host),
        }
    }

    /// `a!` is a paused primary; secondaries get the ids 11, 12, ….
    fn registered(primary: &str, secondaries: &[&str]) -> Registered {
        Registered {
            primary: (!primary.is_empty()).then(|| Row {
                id: 1,
                address: at(primary.trim_end_matches('!')),
                paused: primary.ends_with('!'),
            }),
            secondaries: secondaries.iter().map(|host| at(host)).zip(11..).collect(),
        }
    }

    fn wanted(primary: &str, secondaries: &[&str]) -> Wanted {
        Wanted {
            primary: at(primary.trim_end_matches('!')),
            paused: primary.ends_with('!'),
            secondaries: secondaries.iter().map(|host| at(host)).collect(),
        }
    }

    /// `1=b` changes a row, `+b` adds a secondary, `++b` a primary, `-b` removes.
    fn short(changes: &[Change]) -> String {
        let words: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Update {
                    id,
                    address,
                    paused,
                } => {
                    format!("{id}={}{}", named(address), if *paused { "!" } else { "" })
                }
                Change::Add { address, role } => match role {
                    NodeRole::Primary => format!("++{}", named(address)),
                    NodeRole::Secondary => format!("+{}", named(address)),
                },
                Change::Remove(address) => format!("-{}", named(address)),
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn s16_1_what_is_told_to_citus_in_which_order() {
        type Side<'a> = (&'a str, &'a [&'a str]);
        let rows: [(Side, Side, bool, &str); 26] = [
            // A group that is not there yet.
            (("", &[]), ("a", &[]), true, "++a"),
            (("", &[]), ("a", &["b"]), true, "++a +b"),
            (("", &[]), ("a", &["b"]), false, "++a"),
            (("", &[]), ("a!", &["b"]), true, ""),
            // Nothing to do.
            (("a", &["b"]), ("a", &["b"]), true, ""),
            (("a!", &["b"]), ("a!", &["b"]), true, ""),
            // Clients wait, and go on, on the same primary or on another one.
            (("a", &["b"]), ("a!", &["b"]), true, "1=a!"),
            (("a!", &["b"]), ("a", &["b"]), true, "1=a"),
            (("a!", &["b"]), ("b", &[]), true, "11=a 1=b"),
            // The addresses of primary and standby change places: unique at each moment.
            (("a", &["b"]), ("b", &["a"]), true, "1=a! 11=a 1=b"),
            // also when a new standby comes with it,
            (("b", &["c"]), ("c", &["a", "b"]), true, "1=b! 11=b 1=c"),
            // or when they are two servers of one host.
            (
                ("a", &["a:5433"]),
                ("a:5433", &["a"]),
                true,
                "1=a! 11=a 1=a:5433",
            ),
            (("a", &[]), ("a:5433", &[]), true, "1=a:5433"),
            (("a", &["b"]), ("a", &["b:5433"]), true, "11=b:5433"),
            // The former primary is gone. Its row cannot be removed now; it takes the place of the promoted one,
            (("a", &["b"]), ("b", &[]), true, "1=a! 11=a 1=b"),
            // unless a new standby can.
            (("a", &["b"]), ("b", &["c"]), true, "11=c 1=b"),
            (("a", &["b"]), ("b", &["c", "d"]), true, "11=c 1=b"),
            (("a", &["b", "c"]), ("b", &["c", "d"]), true, "11=d 1=b"),
            // The new primary was not known.
            (("a", &[]), ("b", &[]), true, "1=b"),
            (("a", &["c"]), ("b", &["a"]), true, "1=b 11=a"),
            (("a", &["c"]), ("b", &["c", "a"]), true, "1=b"),
            // Standbys come and go.
            (("a", &["b"]), ("a", &["c"]), true, "11=c"),
            (("a", &["b", "c"]), ("a", &["d"]), true, "12=d -b"),
            (("a", &["b"]), ("a", &["b", "c"]), true, "+c"),
            // Not when the metadata may be out of step; another row can be changed even then.
            (("a", &["b"]), ("a", &["b", "c"]), false, ""),
            (("a", &["b", "d"]), ("a!", &["c"]), true, "1=a! 12=c"),
        ];
        for (from, to, in_step, expected) in rows {
            let changes = transition(&registered(from.0, from.1), &wanted(to.0, to.1), in_step);
            assert_eq!(short(&changes), expected, "{from:?} to {to:?}");
        }
    }

    /// The table as Citus keeps it.
    fn perform(registered: &mut Registered, changes: &[Change], next: &mut i32) {
        let mut touched_primary = false;
        for change in changes {
            let named = |address: &NodeAddress, paused: bool| {
                let suffix = if paused { "-demoted" } else { "" };
                (format!("{}{suffix}", address.host), address.port)
            };
            let mut rows: BTreeMap<i32, (String, u16)> = registered
                .secondaries
                .iter()
                .map(|(address, id)| (*id, named(address, false)))
                .collect();
            assert_eq!(
                rows.len(),
                registered.secondaries.len(),
                "two rows with one id"
            );
            let primary = registered.primary.as_ref().map(|row| row.id);
            if let Some(row) = &registered.primary {
                rows.insert(row.id, named(&row.address, row.paused));
            }
            let mut added = None;
            match change {
                Change::Update {
                    id,
                    address,
                    paused,
                } => {
                    assert!(rows.contains_key(id), "no row {id}");
                    assert!(!paused || primary == Some(*id), "only a primary is paused");
                    touched_primary |= primary == Some(*id);
                    rows.insert(*id, named(address, *paused));
                }
                Change::Add { address, role } => {
                    assert!(!touched_primary, "added out of step");
                    assert!(primary.is_none() || *role == NodeRole::Secondary);
                    *next += 1;
                    added = Some(*next);
                    rows.insert(*next, named(address, false));
                }
                Change::Remove(address) => {
                    assert!(!touched_primary, "removed out of step");
                    let id = registered.secondaries[address];
                    rows.remove(&id);
                }
            }
            let unique: BTreeSet<_> = rows.values().collect();
            assert_eq!(
                unique.len(),
                rows.len(),
                "{change:?} makes two rows of one address: {rows:?}"
            );
            registered.apply(change, added);
        }
    }

    fn any_wanted() -> impl Strategy<Value = Wanted> {
        let hosts = prop::sample::select(vec!["a", "b", "c", "d", "e"]);
        let secondaries = prop::collection::vec(hosts.clone(), 0..4);
        (hosts, any::<bool>(), secondaries).prop_map(|(primary, paused, secondaries)| {
            let mut wanted = wanted(primary, &secondaries);
            wanted.secondaries.remove(&wanted.primary);
            wanted.paused = paused;
            wanted
        })
    }

    proptest! {
        /// Whatever happens to a group: no two rows have one address, the primary's row stays, nothing is added or
        /// removed out of step, and when nothing happens any more, the table is what was wanted after two turns.
        #[test]
        fn every_history_ends_in_what_was_wanted(mut history in prop::collection::vec(any_wanted(), 1..8)) {
            let mut last = history[history.len() - 1].clone();
            last.paused = false;
            history.extend([last.clone(), last.clone()]);
            let mut registered = Registered::default();
            let (mut next, mut id) = (10, None);
            for wanted in &history {
                let changes = transition(&registered, wanted, true);
                perform(&mut registered, &changes, &mut next);
                let now = registered.primary.as_ref().map(|row| row.id);
                prop_assert!(id.is_none() || id == now);
                id = now;
            }
            let primary = registered.primary.as_ref().map(|row| (row.address.clone(), row.paused));
            prop_assert_eq!(primary, Some((last.primary.clone(), false)));
            let secondaries: BTreeSet<_> = registered.secondaries.keys().cloned().collect();
            prop_assert_eq!(secondaries, last.secondaries);
        }
    }
}
