//! Clients that write all the time, to every server that lets them, and what they were promised.

use std::collections::BTreeMap;

use primacy_config::SynchronousMode;

use crate::history::Branch;
use crate::invariants;
use crate::postgres::Level;
use crate::world::{NodeId, World};

/// Between two tries of one client, on average.
const PAUSE_MS: u64 = 3_000;
/// Around a change of leadership they try this often, for a while.
const EAGER_PAUSE_MS: u64 = 150;
const EAGER_TRIES: u32 = 120;

/// What the clients know.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// Commits without an answer.
    pub(crate) unknown: u64,
    /// Which were acknowledged, by node and position, where a script says who commits; nobody else does then.
    pub(crate) scripted: Option<Vec<(NodeId, u64)>>,
    /// The branch of the newest acknowledged commit.
    pub(crate) newest: Option<Branch>,
    /// Up to where commits are promised to survive, by branch.
    pub(crate) guaranteed: BTreeMap<Branch, u64>,
}

impl Clients {
    /// The operator ended synchronous mode: what was promised under it was for as long as it lasts.
    pub(crate) fn forget_guarantees(&mut self) {
        self.guaranteed.clear();
    }
}

impl World {
    pub(crate) fn history_of_commits(&mut self) -> &mut Clients {
        &mut self.clients
    }

    pub(crate) fn schedule_client(&mut self, node: NodeId) {
        let pause = self.millis(0, 2 * PAUSE_MS);
        self.after(pause, move |world| {
            world.try_commit(node);
            world.schedule_client(node);
        });
    }

    /// Clients that lost their connections come back at once.
    fn schedule_eager(&mut self, node: NodeId, left: u32) {
        if left == 0 || self.clients.scripted.is_some() {
            return;
        }
        let pause = self.millis(0, 2 * EAGER_PAUSE_MS);
        self.after(pause, move |world| {
            world.try_commit(node);
            world.schedule_eager(node, left - 1);
        });
    }

    pub(crate) fn try_commit(&mut self, node: NodeId) {
        if !self.servers[node].writable() {
            return;
        }
        let level = match self.below(10) {
            0 => Level::Off,
            1 => Level::Local,
            _ => Level::On,
        };
        let bytes = match self.below(40) {
            0 => 3_000_000,
            _ => 100 + self.below(2_000) as u64,
        };
        self.commit(node, bytes, level);
    }

    /// Whether synchronous replication is promised: the operator wants it, and `/sync` says who leads by it. A new primary
    /// is bound from its first commit on, whether `/sync` names it already or not.
    fn promises(&self) -> bool {
        self.synchronous_mode() != SynchronousMode::Off
            && self
                .store
                .sync
                .as_ref()
                .is_some_and(|sync| sync.is_active())
    }

    /// The mode that the store has.
    pub(crate) fn synchronous_mode(&self) -> SynchronousMode {
        let value = self
            .store
            .config
            .as_ref()
            .and_then(|config| config.value.get("synchronous_mode"));
        match value {
            Some(serde_json::Value::Bool(true)) => SynchronousMode::On,
            Some(serde_json::Value::String(text)) if text == "quorum" => SynchronousMode::Quorum,
            _ => SynchronousMode::Off,
        }
    }

    pub(crate) fn acknowledged(&mut self, node: NodeId, position: u64, level: Level) {
        let branch = self.branch_of(node);
        self.report.acknowledged += 1;
        if let Some(acknowledged) = &mut self.clients.scripted {
            acknowledged.push((node, position));
        }
        self.trace(
            |_| format!("{} acknowledges {position:X} ({level:?})", Self::name(node)),
            [30, node as u64, position],
        );
        invariants::single_writer::acknowledged(self, node, branch);
        // What a second primary does in pause is up to people.
        let second = self.takes_for_paused(node) && !self.store.is_led_by(node);
        if level == Level::On && self.promises() && !second {
            let end = self.clients.guaranteed.entry(branch).or_default();
            *end = position.max(*end);
            invariants::published_first::check(self);
        }
    }

    /// The wait for standbys was ended from outside. The transaction is committed and visible, and may be lost with its primary:
    /// the client was warned of that (or heard of nothing), so neither I2 nor I3 counts it. That it was answered at all does
    /// count: two primaries that do so both write.
    pub(crate) fn interrupted(&mut self, node: NodeId, position: u64, terminated: bool) {
        let branch = self.branch_of(node);
        self.trace(
            |_| {
                let how = if terminated {
                    "terminated"
                } else {
                    "cancelled"
                };
                format!("{} {how} the wait of {position:X}", Self::name(node))
            },
            [31, node as u64, position],
        );
        self.report.interrupted += 1;
        if terminated {
            self.clients.unknown += 1;
        } else {
            invariants::single_writer::acknowledged(self, node, branch);
        }
    }

    /// A server takes writes from now on.
    pub(crate) fn became_primary(&mut self, node: NodeId) {
        invariants::no_lost_commit::became_primary(self, node);
        for node in 0..self.nodes.len() {
            self.schedule_eager(node, EAGER_TRIES);
        }
    }

    /// Whether the server's WAL has everything that was promised.
    pub(crate) fn has_promised(&self, node: NodeId) -> bool {
        self.first_missing(node).is_none()
    }

    pub(crate) fn first_missing(&self, node: NodeId) -> Option<(Branch, u64)> {
        let disk = &self.servers[node].disk;
        let missing = |(branch, end): &(&Branch, &u64)| {
            !self
                .history
                .contains(disk.branch, disk.flushed, **branch, **end)
        };
        self.clients
            .guaranteed
            .iter()
            .find(missing)
            .map(|(branch, end)| (*branch, *end))
    }

    /// What was promised and would be gone from here if the other's data took the place of this node's.
    pub(crate) fn first_given_up(&self, node: NodeId, other: NodeId) -> Option<(Branch, u64)> {
        let (mine, theirs) = (&self.servers[node].disk, &self.servers[other].disk);
        let given_up = |(branch, end): (&Branch, &u64)| {
            let reach = self.history.reach(mine.branch, mine.flushed, *branch)?;
            let had = reach.min(*end);
            let kept = (self.history).contains(theirs.branch, theirs.flushed, *branch, had);
            (!kept).then_some((*branch, had))
        };
        self.clients.guaranteed.iter().find_map(given_up)
    }
}
