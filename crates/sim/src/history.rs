//! The WAL that was ever written, as a tree: each promotion begins a branch. Branches have numbers of their own, since
//! two servers that are promoted apart give their timelines the same number.

use primacy_model::Timeline;

/// The number of a branch.
pub(crate) type Branch = usize;

#[derive(Debug)]
struct Begun {
    parent: Option<(Branch, u64)>,
    timeline: u32,
}

/// All branches.
#[derive(Debug, Default)]
pub(crate) struct History {
    branches: Vec<Begun>,
}

impl History {
    /// The first branch of a new cluster.
    pub(crate) fn found(&mut self) -> Branch {
        self.branches.push(Begun {
            parent: None,
            timeline: 1,
        });
        self.branches.len() - 1
    }

    /// A promotion at this position: the next timeline of its parent.
    pub(crate) fn fork(&mut self, parent: Branch, at: u64) -> Branch {
        let timeline = self.branches[parent].timeline + 1;
        self.branches.push(Begun {
            parent: Some((parent, at)),
            timeline,
        });
        self.branches.len() - 1
    }

    /// The timeline that PostgreSQL calls it.
    pub(crate) fn timeline(&self, branch: Branch) -> Timeline {
        Timeline(self.branches[branch].timeline)
    }

    /// The branch that has this position in the WAL of another.
    pub(crate) fn branch_at(&self, mut branch: Branch, position: u64) -> Branch {
        while let Some((parent, fork)) = self.branches[branch].parent
            && position <= fork
        {
            branch = parent;
        }
        branch
    }

    /// Whether WAL that ends at `end` on `branch` has what was written up to `position` on `of`.
    pub(crate) fn contains(&self, branch: Branch, end: u64, of: Branch, position: u64) -> bool {
        let reach = self.reach(branch, end, of);
        reach.is_some_and(|reach| position <= reach)
    }

    /// How far WAL that ends there goes on another branch; `None`: it was never on that one.
    pub(crate) fn reach(&self, branch: Branch, end: u64, of: Branch) -> Option<u64> {
        let (mut branch, mut end) = (branch, end);
        while branch != of {
            let (parent, fork) = self.branches[branch].parent?;
            (branch, end) = (parent, fork.min(end));
        }
        Some(end)
    }

    /// The branch that this WAL has of a timeline, as PostgreSQL numbers it, and how far it goes on that one.
    pub(crate) fn on_timeline(
        &self,
        (mut branch, mut end): (Branch, u64),
        timeline: Timeline,
    ) -> Option<(Branch, u64)> {
        while self.timeline(branch) != timeline {
            let (parent, fork) = self.branches[branch].parent?;
            (branch, end) = (parent, fork.min(end));
        }
        Some((branch, end))
    }

    /// Up to where two pieces of WAL are the same, by branch and end of each.
    pub(crate) fn shared(&self, one: (Branch, u64), other: (Branch, u64)) -> u64 {
        let (mut branch, mut end) = other;
        loop {
            if let Some(reach) = self.reach(one.0, one.1, branch) {
                return reach.min(end);
            }
            let Some((parent, fork)) = self.branches[branch].parent else {
                return 0;
            };
            (branch, end) = (parent, fork.min(end));
        }
    }

    /// The lines of the history file of a branch: timeline and where it was left.
    pub(crate) fn lines(&self, branch: Branch) -> Vec<(Timeline, u64)> {
        let mut lines = Vec::new();
        let mut at = branch;
        while let Some((parent, fork)) = self.branches[at].parent {
            lines.push((self.timeline(parent), fork));
            at = parent;
        }
        lines.reverse();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_before_a_fork_is_shared_and_wal_after_it_is_not() {
        let mut history = History::default();
        let first = history.found();
        let second = history.fork(first, 100);
        let other = history.fork(first, 150);
        assert!(history.contains(second, 200, first, 100));
        assert!(!history.contains(second, 200, first, 101));
        assert!(history.contains(other, 160, first, 150));
        assert!(!history.contains(other, 160, second, 1));
        assert_eq!(history.shared((second, 200), (other, 160)), 100);
        assert_eq!(history.shared((first, 120), (other, 160)), 120);
        assert_eq!(history.timeline(second), history.timeline(other));
        assert_eq!(history.lines(second), [(Timeline(1), 100)]);
        let third = history.fork(other, 170);
        let on = |timeline| history.on_timeline((third, 200), Timeline(timeline));
        assert_eq!(on(3), Some((third, 200)));
        assert_eq!(on(2), Some((other, 170)));
        assert_eq!(on(1), Some((first, 150)));
        assert_eq!(on(4), None);
    }
}
