//! Who reaches whom. A message that meets a broken link is lost; what is built on connections sends again.

use std::time::Duration;

use crate::world::{NodeId, World};

/// One end of a message: a node, or the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Node(NodeId),
    Store,
}

/// The links, each in both directions apart.
#[derive(Debug)]
pub(crate) struct Network {
    ends: usize,
    /// How many faults cut it, from row to column.
    cut: Vec<u32>,
    /// The store answers slowly.
    pub(crate) slow_store: u32,
    /// How many faults make its answers to a node late, by node.
    pub(crate) late_store: Vec<u32>,
    /// How many faults make its requests to the store late, by node.
    pub(crate) late_requests: Vec<u32>,
    /// How many faults keep its API from answering members, by node.
    pub(crate) silent_api: Vec<u32>,
    /// Answers of the store get lost, in a thousand.
    pub(crate) lossy_store: u32,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Self {
        let ends = nodes + 1;
        Network {
            ends,
            cut: vec![0; ends * ends],
            slow_store: 0,
            late_store: vec![0; nodes],
            late_requests: vec![0; nodes],
            silent_api: vec![0; nodes],
            lossy_store: 0,
        }
    }

    fn index(&self, from: End, to: End) -> usize {
        let number = |end| match end {
            End::Node(node) => node,
            End::Store => self.ends - 1,
        };
        number(from) * self.ends + number(to)
    }

    /// Messages from one to the other are lost from now on.
    pub(crate) fn cut(&mut self, from: End, to: End) {
        let index = self.index(from, to);
        self.cut[index] += 1;
    }

    /// One fault less cuts it.
    pub(crate) fn mend(&mut self, from: End, to: End) {
        let index = self.index(from, to);
        self.cut[index] = self.cut[index].saturating_sub(1);
    }

    pub(crate) fn mend_all(&mut self) {
        self.cut.fill(0);
        self.slow_store = 0;
        self.late_store.fill(0);
        self.late_requests.fill(0);
        self.silent_api.fill(0);
        self.lossy_store = 0;
    }

    pub(crate) fn passes(&self, from: End, to: End) -> bool {
        self.cut[self.index(from, to)] == 0
    }

    /// A member's question to another one's API gets there.
    pub(crate) fn reaches_api(&self, from: NodeId, of: NodeId) -> bool {
        self.silent_api[of] == 0 && self.passes(End::Node(from), End::Node(of))
    }

    /// Both directions.
    pub(crate) fn connects(&self, one: NodeId, other: NodeId) -> bool {
        self.passes(End::Node(one), End::Node(other))
            && self.passes(End::Node(other), End::Node(one))
    }
}

impl World {
    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> Duration {
        match self.below(200) {
            0 => self.millis(20, 300),
            _ => self.millis(0, 2),
        }
    }

    /// How long the store takes for its part, one way.
    pub(crate) fn store_delay(&mut self) -> Duration {
        if self.network.slow_store > 0 {
            self.millis(100, 4_000)
        } else {
            self.delay()
        }
    }

    /// How long a node's request takes to it: one that was lost is sent again, long after it was given up perhaps, and later
    /// ones on other connections overtake it.
    pub(crate) fn store_request_delay(&mut self, node: NodeId) -> Duration {
        if self.network.late_requests[node] > 0 && self.chance(300) {
            self.millis(0, 9_000)
        } else {
            self.store_delay()
        }
    }

    /// How long its answer takes to a node.
    pub(crate) fn store_answer_delay(&mut self, node: NodeId) -> Duration {
        if self.network.late_store[node] > 0 {
            self.millis(0, 9_000)
        } else {
            self.store_delay()
        }
    }
}
