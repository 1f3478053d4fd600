//! How far a member's WAL goes, compared with another's.

use primacy_model::{Lsn, Timeline, WalStatus};

use crate::situation::PeerReport;

/// Where WAL ends. A position alone says little of it: who was primary for a moment and lost the lock has WAL that
/// nobody else has, however long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    timeline: Option<Timeline>,
    pub(super) position: Lsn,
}

impl Reach {
    pub(super) fn of(wal: &WalStatus) -> Self {
        Reach {
            timeline: wal.timeline_in_use(),
            position: wal.position(),
        }
    }

    pub(super) fn of_peer(peer: &PeerReport) -> Self {
        Reach {
            timeline: peer.timeline,
            position: peer.position,
        }
    }

    pub(super) fn new(timeline: Option<Timeline>, position: Lsn) -> Self {
        Reach { timeline, position }
    }

    /// A new timeline begins with what a leader had when it took over, so the later timeline is further, as the later
    /// term is in Raft; on one timeline, or when one is not known, the position decides (`ha.md` §10.2.4).
    pub(super) fn is_ahead_of(self, other: Reach) -> bool {
        match (self.timeline, other.timeline) {
            (Some(mine), Some(theirs)) if mine != theirs => mine > theirs,
            _ => self.position > other.position,
        }
    }

    /// Neither is ahead of the other.
    pub(super) fn equals(self, other: Reach) -> bool {
        !self.is_ahead_of(other) && !other.is_ahead_of(self)
    }

    /// For people; the timelines when it is them that decide.
    pub(super) fn compared_with(self, other: Reach) -> String {
        let relation = match self.is_ahead_of(other) {
            true => ">",
            false => "<=",
        };
        match (self.timeline, other.timeline) {
            (Some(mine), Some(theirs)) if mine != theirs => {
                format!("timeline {mine} {relation} {theirs}")
            }
            _ => format!("{} {relation} {}", self.position, other.position),
        }
    }
}
