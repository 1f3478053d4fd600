//! Who reaches whom. A message that meets a broken link is lost; what is built on connections sends again.

use std::time::Duration;

use crate::world::{NodeId, World};

/// TCP sends again what nobody acknowledged after this long, then after twice as long each time, in Linux.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(200);
/// A message that is lost this often has been given up by everybody who waits for it.
const LAST_RETRANSMISSION: Duration = Duration::from_secs(30);
/// Packets that a lossy link loses, in a thousand.
const LOSS: u32 = 400;

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
    /// How many faults delay what takes a link, and how many lose of it, by the same index.
    slow: Vec<u32>,
    lossy: Vec<u32>,
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
            slow: vec![0; ends * ends],
            lossy: vec![0; ends * ends],
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
        self.slow.fill(0);
        self.lossy.fill(0);
        self.slow_store = 0;
        self.late_store.fill(0);
        self.late_requests.fill(0);
        self.silent_api.fill(0);
        self.lossy_store = 0;
    }

    /// How many faults delay what goes from one to the other.
    pub(crate) fn slow(&mut self, from: End, to: End) -> &mut u32 {
        let index = self.index(from, to);
        &mut self.slow[index]
    }

    /// How many faults lose packets of what goes from one to the other.
    pub(crate) fn lossy(&mut self, from: End, to: End) -> &mut u32 {
        let index = self.index(from, to);
        &mut self.lossy[index]
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

    /// How long it takes from one member to the other.
    pub(crate) fn delay_between(&mut self, from: NodeId, to: NodeId) -> Duration {
        let delay = self.delay();
        delay + self.held_up(End::Node(from), End::Node(to))
    }

    /// What its link adds. Every message is part of a connection: what is lost is sent again, later each time.
    fn held_up(&mut self, from: End, to: End) -> Duration {
        let mut delay = Duration::ZERO;
        if *self.network.slow(from, to) > 0 {
            delay += self.millis(50, 2_500);
        }
        if *self.network.lossy(from, to) > 0 {
            let mut again = FIRST_RETRANSMISSION;
            while again < LAST_RETRANSMISSION && self.chance(LOSS) {
                delay += again;
                again *= 2;
            }
        }
        delay
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
        let held_up = self.held_up(End::Node(node), End::Store);
        held_up
            + if self.network.late_requests[node] > 0 && self.chance(300) {
                self.millis(0, 9_000)
            } else {
                self.store_delay()
            }
    }

    /// How long a watch takes to tell a node.
    pub(crate) fn watch_delay(&mut self, node: NodeId) -> Duration {
        let delay = self.store_delay();
        delay + self.held_up(End::Store, End::Node(node))
    }

    /// How long its answer takes to a node.
    pub(crate) fn store_answer_delay(&mut self, node: NodeId) -> Duration {
        let held_up = self.held_up(End::Store, End::Node(node));
        held_up
            + if self.network.late_store[node] > 0 {
                self.millis(0, 9_000)
            } else {
                self.store_delay()
            }
    }
}
