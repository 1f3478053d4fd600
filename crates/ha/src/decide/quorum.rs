//! Quorum commit (`ha.md` §14): a commit waits for any `n` of the set S, and a candidate must find itself not
//! behind `q` of the voters V. Which of them changes first, and by how much, is the whole art.
//!
//! With L the published leader and P the wanted one, and whenever V is not empty:
//!
//! 1. |V ∪ {L} ∪ S ∪ {P}| ≤ q + n + 1, so that any set of nodes that may elect a leader meets any set that may
//!    have acknowledged a commit;
//! 2. one of V ∪ {L} and S ∪ {P} contains the other.
//!
//! Whichever of `n` and `q` grows is written first, whichever shrinks is written last.

use std::collections::BTreeSet;

/// Names, lower case: PostgreSQL ignores case in them.
pub(super) type Names = BTreeSet<String>;

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The leader that `/sync` names.
    pub(super) leader: String,
    /// `quorum` in `/sync`.
    pub(super) quorum: usize,
    /// `sync_standby` in `/sync`.
    pub(super) voters: Names,
    /// How many standbys a commit waits for.
    pub(super) count: usize,
    /// Out of whom.
    pub(super) standbys: Names,
}

/// What is wanted, and what is known.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    /// The primary.
    pub(super) me: String,
    /// Who should be synchronous.
    pub(super) active: Names,
    /// How many of the standbys have confirmed everything from before the last change.
    pub(super) confirmed: usize,
    /// How many standbys a commit should wait for.
    pub(super) wanted: usize,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Set `synchronous_standby_names` to `ANY count (standbys)`.
    Sync { count: usize, standbys: Names },
    /// Write `/sync`.
    Quorum {
        leader: String,
        quorum: usize,
        voters: Names,
    },
    /// Look again: the confirmations must be counted anew.
    Restart,
}

/// The changes that lead from the state to the goal, in their order (`ha.md` §14.3).
pub(super) fn transitions(state: State, goal: &Goal) -> Vec<Transition> {
    let mut resolver = Resolver {
        confirmed: goal.confirmed,
        state,
        goal,
        transitions: Vec::new(),
    };
    // A rejected value ends the attempt; what was found before it stands.
    let _ = resolver.resolve();
    merged(resolver.transitions)
}

/// A value that would break the invariant, or makes no sense.
struct Rejected;

struct Resolver<'a> {
    state: State,
    goal: &'a Goal,
    confirmed: usize,
    transitions: Vec<Transition>,
}

impl Resolver<'_> {
    fn resolve(&mut self) -> Result<(), Rejected> {
        if !self.take_over()? {
            return Ok(());
        }
        let listed = self.state.standbys.intersection(&self.goal.active);
        self.confirmed = self.known_complete(&listed.cloned().collect());
        self.finish_changes()?;
        self.remove_gone()?;
        self.add_new()?;
        self.change_count()
    }

    /// Step 1. `false`: nothing more can be done in this pass.
    fn take_over(&mut self) -> Result<bool, Rejected> {
        let me = &self.goal.me;
        if self.state.leader == *me {
            if !self.state.holds(me) {
                let (quorum, voters) = (
                    self.minus(self.state.standbys.len(), self.state.count)?,
                    self.state.standbys.clone(),
                );
                self.quorum(quorum, voters, true)?;
            }
            return Ok(true);
        }
        let mut voters = self.state.voters.clone();
        voters.remove(me);
        voters.insert(self.state.leader.clone());
        if self.state.standbys.is_empty() {
            let count = self.minus(voters.len(), self.state.quorum)?;
            self.sync(count, voters.clone())?;
        }
        let quorum = self.state.quorum;
        if quorum > 0 && quorum >= voters.len() {
            return Err(Rejected);
        }
        self.state.leader.clone_from(me);
        self.state.voters = voters.clone();
        self.emit(Transition::Quorum {
            leader: me.clone(),
            quorum,
            voters,
        })?;
        Ok(!self.state.standbys.is_disjoint(&self.goal.active))
    }

    /// How many of these members have every commit: those that confirmed it, and by what `/sync` says all of its voters but
    /// `quorum`, who may be those that are left out here. (The algorithm takes standbys for complete that were so
    /// under other names, and loses the commits that only the one confirmed which goes: W3.)
    fn known_complete(&self, members: &Names) -> usize {
        let listed = self.state.standbys.intersection(&self.goal.active);
        let elsewhere = listed.filter(|name| !members.contains(*name)).count();
        let voters = self.state.voters.intersection(members).count();
        let by_sync = voters.saturating_sub(self.state.quorum);
        self.confirmed.saturating_sub(elsewhere).max(by_sync)
    }

    /// Step 3: a change that was begun is brought to its end first.
    fn finish_changes(&mut self) -> Result<(), Rejected> {
        let active = &self.goal.active;
        let (voters, standbys) = (self.state.voters.clone(), self.state.standbys.clone());
        if standbys.is_subset(&voters) && standbys != voters {
            let removed: Names = voters
                .iter()
                .filter(|name| !standbys.contains(*name) && !active.contains(*name))
                .cloned()
                .collect();
            if !removed.is_empty() {
                let left: Names = voters.difference(&removed).cloned().collect();
                let quorum = self.minus(left.len(), self.state.count)?;
                self.quorum(quorum, left, standbys.is_subset(active))?;
            }
            let added: Names = self
                .state
                .voters
                .intersection(active)
                .filter(|name| !self.state.standbys.contains(*name))
                .cloned()
                .collect();
            if !added.is_empty() {
                let all = self.state.standbys.union(&added).cloned().collect();
                self.sync(self.state.count, all)?;
            }
        } else if voters.is_subset(&standbys) && standbys != voters {
            let gone: Names = standbys.difference(active).cloned().collect();
            let left: Names = standbys.difference(&gone).cloned().collect();
            if !gone.is_empty()
                && !left.is_empty()
                && (voters.is_empty() || !left.is_disjoint(&voters))
            {
                self.sync(self.state.count.min(left.len()), left)?;
            }
            let added: Names = self
                .state
                .standbys
                .difference(&self.state.voters)
                .filter(|name| active.contains(*name))
                .cloned()
                .collect();
            if !added.is_empty() {
                let all: Names = self.state.voters.union(&added).cloned().collect();
                let quorum = self.minus(all.len(), self.state.count)?;
                self.quorum(quorum, all, true)?;
            }
            let rest: Names = self
                .state
                .standbys
                .difference(&self.state.voters)
                .cloned()
                .collect();
            if !rest.is_empty() {
                let left: Names = self.state.standbys.difference(&rest).cloned().collect();
                self.sync(self.state.count.min(left.len()), left)?;
            }
        }
        let State {
            quorum,
            voters,
            count,
            standbys,
            ..
        } = self.state.clone();
        let reached = quorum + count.min(self.confirmed);
        if reached > voters.len() {
            if count > self.goal.wanted {
                let count = self.goal.wanted.max(voters.len().saturating_sub(quorum));
                self.sync(count, standbys)?;
            } else {
                let quorum = self.minus(standbys.len(), count)?;
                self.quorum(quorum, voters, true)?;
            }
        } else if count == self.goal.wanted
            && quorum + count > voters.len()
            && count > self.confirmed
        {
            let quorum = self.minus(standbys.len(), count)?;
            self.quorum(quorum, voters, true)?;
        }
        Ok(())
    }

    /// Step 4.
    fn remove_gone(&mut self) -> Result<(), Rejected> {
        let active = &self.goal.active;
        let mut gone: Names = self.state.standbys.difference(active).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        if gone == self.state.standbys {
            self.quorum(0, Names::new(), false)?;
            return self.sync(0, Names::new());
        }
        if self.state.quorum > 0 {
            let removed: Names = gone.iter().rev().take(self.state.quorum).cloned().collect();
            let standbys: Names = self.state.standbys.difference(&removed).cloned().collect();
            let count = self.goal.wanted.max(self.state.count).min(standbys.len());
            self.sync(count, standbys)?;
            gone = gone.difference(&removed).cloned().collect();
            let voters: Names = self.state.voters.difference(&removed).cloned().collect();
            let quorum = self.minus(voters.len(), self.state.count)?;
            self.quorum(quorum, voters, gone.is_empty())?;
            gone = gone.intersection(&self.state.standbys).cloned().collect();
        }
        if gone.is_empty() {
            return Ok(());
        }
        let count = self.minus(self.state.count, gone.len())?;
        let standbys: Names = self.state.standbys.difference(&gone).cloned().collect();
        let voters: Names = self.state.voters.difference(&gone).cloned().collect();
        let excess = count.saturating_sub(self.goal.wanted.min(standbys.len()));
        let quorum = if excess > 0 {
            excess.min(voters.len().saturating_sub(1))
        } else {
            0
        };
        self.quorum(quorum, voters, false)?;
        self.sync(count, standbys)
    }

    /// Step 5.
    fn add_new(&mut self) -> Result<(), Rejected> {
        let mut new: Names = self
            .goal
            .active
            .difference(&self.state.standbys)
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let all = self.state.standbys.len() + new.len();
        let wanted = self.goal.wanted.min(all);
        if wanted > self.state.count {
            let mut more = wanted - self.state.count;
            let add: Names = if self.state.standbys.is_empty() {
                new.clone()
            } else {
                let add: Names = new.iter().take(more).cloned().collect();
                more = add.len();
                add
            };
            let standbys = self.state.standbys.union(&add).cloned().collect();
            self.sync(self.state.count + more, standbys)?;
            let voters: Names = self.state.voters.union(&add).cloned().collect();
            let quorum = self.minus(voters.len(), wanted)?;
            self.quorum(quorum, voters, true)?;
        }
        new = new.difference(&self.state.standbys).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let voters: Names = self.state.voters.union(&new).cloned().collect();
        let quorum = self.minus(voters.len(), wanted)?;
        self.quorum(quorum, voters, wanted > self.confirmed)?;
        let standbys = self.state.standbys.union(&new).cloned().collect();
        self.sync(wanted, standbys)
    }

    /// Step 6.
    fn change_count(&mut self) -> Result<(), Rejected> {
        let State {
            quorum,
            voters,
            count,
            standbys,
            ..
        } = self.state.clone();
        let wanted = self.goal.wanted.min(standbys.len());
        if wanted > count {
            self.sync(wanted, standbys)?;
            let quorum = self.minus(voters.len(), self.state.count)?;
            self.quorum(quorum, voters, true)
        } else if wanted < count {
            let fewer = count - wanted;
            if quorum + fewer < voters.len() {
                let quorum = self.minus(voters.len(), count)? + fewer;
                self.quorum(quorum, voters, self.goal.wanted > self.confirmed)?;
            }
            self.sync(wanted, standbys)
        } else {
            Ok(())
        }
    }

    /// The write of `/sync`. When it must count on standbys that have not confirmed yet, the quorum is larger
    /// by as many (`adjust`).
    fn quorum(&mut self, quorum: usize, voters: Names, adjust: bool) -> Result<(), Rejected> {
        if quorum > 0 && quorum >= voters.len() {
            return Err(Rejected);
        }
        let (quorum, voters) = if self.confirmed == 0 && self.state.voters.is_empty() {
            (0, Names::new())
        } else if adjust {
            (
                quorum + self.state.count.saturating_sub(self.confirmed),
                voters,
            )
        } else {
            (quorum, voters)
        };
        let quorum = quorum.max(voters.len() - self.known_complete(&voters).min(voters.len()));
        if self.state.is_winnable() && !voters.is_empty() && quorum >= voters.len() {
            // Who is left has yet to confirm. Until then, the vote of who goes may be all that is to be had.
            return Ok(());
        }
        if quorum == self.state.quorum && voters == self.state.voters {
            if voters.is_empty() {
                self.transitions.push(Transition::Restart);
            }
            return Ok(());
        }
        self.state.quorum = quorum;
        self.state.voters = voters.clone();
        self.emit(Transition::Quorum {
            leader: self.state.leader.clone(),
            quorum,
            voters,
        })
    }

    /// The change of `synchronous_standby_names`.
    fn sync(&mut self, count: usize, standbys: Names) -> Result<(), Rejected> {
        if count > standbys.len() {
            return Err(Rejected);
        }
        if count == self.state.count && standbys == self.state.standbys {
            return Ok(());
        }
        self.state.count = count;
        self.state.standbys = standbys.clone();
        self.emit(Transition::Sync { count, standbys })
    }

    fn emit(&mut self, transition: Transition) -> Result<(), Rejected> {
        if !self.state.holds(&self.goal.me) {
            return Err(Rejected);
        }
        self.transitions.push(transition);
        Ok(())
    }

    /// A difference that must not be negative.
    fn minus(&self, a: usize, b: usize) -> Result<usize, Rejected> {
        a.checked_sub(b).ok_or(Rejected)
    }
}

impl State {
    /// Whether a voter may be elected without the leader's vote.
    fn is_winnable(&self) -> bool {
        self.quorum < self.voters.len()
    }

    /// The invariant, for the wanted primary `me`.
    pub(super) fn holds(&self, me: &str) -> bool {
        if self.voters.is_empty() {
            return true;
        }
        let mut electing = self.voters.clone();
        electing.insert(self.leader.clone());
        let mut acknowledging = self.standbys.clone();
        acknowledging.insert(me.to_owned());
        electing.union(&acknowledging).count() <= self.quorum + self.count + 1
            && (electing.is_subset(&acknowledging) || acknowledging.is_subset(&electing))
    }
}

/// Adjacent changes of one kind become the last of them; nothing follows a restart.
fn merged(transitions: Vec<Transition>) -> Vec<Transition> {
    let mut merged: Vec<Transition> = Vec::new();
    for transition in transitions {
        let restart = transition == Transition::Restart;
        match merged.last_mut() {
            Some(last) if std::mem::discriminant(last) == std::mem::discriminant(&transition) => {
                *last = transition;
            }
            _ => merged.push(transition),
        }
        if restart {
            break;
        }
    }
    merged
}

#[cfg(test)]
mod reachable;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Names {
        text.chars().map(String::from).collect()
    }

    /// `sync 1 bc; quorum 1 bc`, with `quorum b 1 ac` where the leader changes.
    fn told(transitions: &[Transition], leader: &str) -> String {
        let list = |names: &Names| names.iter().cloned().collect::<String>();
        let words: Vec<String> = transitions
            .iter()
            .map(|transition| match transition {
                Transition::Sync { count, standbys } => format!("sync {count} {}", list(standbys)),
                Transition::Quorum {
                    leader: new,
                    quorum,
                    voters,
                } if new == leader => {
                    format!("quorum {quorum} {}", list(voters))
                }
                Transition::Quorum {
                    leader,
                    quorum,
                    voters,
                } => {
                    format!("quorum {leader} {quorum} {}", list(voters))
                }
                Transition::Restart => "restart".into(),
            })
            .map(|words| words.trim_end().to_owned())
            .collect();
        words.join("; ")
    }

    #[test]
    fn test_vectors_14_6() {
        /// q, V, n, S, c, active, wanted, me, result.
        type Vector = (
            usize,
            &'static str,
            usize,
            &'static str,
            usize,
            &'static str,
            usize,
            &'static str,
            &'static str,
        );
        let vectors: [Vector; 22] = [
            (0, "", 0, "", 0, "b", 1, "a", "sync 1 b; restart"),
            (0, "", 1, "b", 1, "b", 1, "a", "quorum 0 b"),
            (0, "", 2, "bcd", 1, "bcd", 2, "a", "quorum 2 bcd"),
            (2, "bcd", 2, "bcd", 2, "bcd", 2, "a", "quorum 1 bcd"),
            (0, "b", 1, "b", 1, "bc", 1, "a", "quorum 1 bc; sync 1 bc"),
            (0, "b", 1, "b", 1, "bc", 2, "a", "sync 2 bc; quorum 1 bc"),
            (
                0,
                "b",
                1,
                "b",
                1,
                "bcd",
                2,
                "a",
                "sync 2 bc; quorum 2 bcd; sync 2 bcd",
            ),
            (
                2,
                "bcd",
                1,
                "bcd",
                2,
                "bc",
                1,
                "a",
                "sync 1 bc; quorum 1 bc",
            ),
            (
                1,
                "bcd",
                2,
                "bcd",
                1,
                "b",
                2,
                "a",
                "sync 2 bc; quorum 0 b; sync 1 b",
            ),
            (0, "bc", 2, "bc", 1, "b", 2, "a", "quorum 0 b; sync 1 b"),
            (1, "bc", 1, "bc", 0, "", 1, "a", "quorum 0; sync 0"),
            (
                1,
                "bc",
                1,
                "bc",
                1,
                "bd",
                1,
                "a",
                "sync 1 b; quorum 1 bd; sync 1 bd",
            ),
            (
                2,
                "bcd",
                1,
                "bcd",
                3,
                "bcd",
                2,
                "a",
                "sync 2 bcd; quorum 1 bcd",
            ),
            (
                1,
                "bcd",
                2,
                "bcd",
                3,
                "bcd",
                1,
                "a",
                "quorum 2 bcd; sync 1 bcd",
            ),
            (1, "bc", 1, "b", 1, "bc", 1, "a", "sync 1 bc"),
            (1, "bc", 1, "ac", 0, "", 1, "b", "quorum b 1 ac"),
            (
                1,
                "bc",
                1,
                "ac",
                0,
                "c",
                1,
                "b",
                // The algorithm's own table ends in `quorum b 0 c`: c is elected by itself though it has confirmed
                // nothing, when the commits of before may be a's alone. Until it has, a's vote may help it.
                "quorum b 1 ac; sync 1 c",
            ),
            (1, "bc", 0, "", 0, "", 1, "b", "sync 1 ac; quorum b 1 ac"),
            (1, "bc", 1, "de", 1, "de", 1, "a", "quorum 1 de"),
            // Not in that table, which has `quorum 1 c` in between: by its own vote c cannot be elected, by b's it can.
            (1, "bc", 1, "bc", 0, "c", 1, "a", "sync 1 c"),
            (1, "bc", 1, "c", 0, "c", 1, "a", ""),
            (1, "bc", 1, "c", 1, "c", 1, "a", "quorum 0 c"),
        ];
        for (q, v, n, s, c, active, wanted, me, expected) in vectors {
            let state = State {
                leader: "a".into(),
                quorum: q,
                voters: names(v),
                count: n,
                standbys: names(s),
            };
            let goal = Goal {
                me: me.into(),
                active: names(active),
                confirmed: c,
                wanted,
            };
            let result = transitions(state.clone(), &goal);
            assert_eq!(told(&result, "a"), expected, "{state:?} {goal:?}");
        }
    }

    /// Any set of nodes that may elect a leader meets any set that may have acknowledged a commit: a winner
    /// counts `quorum` voters besides itself that are not ahead of it, out of V ∪ {L}; a commit is on the
    /// primary and on `count` of S.
    fn every_election_meets_every_commit(state: &State, primary: &str) -> bool {
        if state.voters.is_empty() {
            return true;
        }
        let mut voting: Vec<&String> = state.voters.iter().chain([&state.leader]).collect();
        voting.sort();
        voting.dedup();
        let standbys: Vec<&String> = state.standbys.iter().collect();
        let subsets = |items: &[&String], size: usize| -> Vec<BTreeSet<String>> {
            (0u32..1 << items.len())
                .filter(|bits| bits.count_ones() as usize == size)
                .map(|bits| {
                    (0..items.len())
                        .filter(|i| bits >> i & 1 == 1)
                        .map(|i| items[i].clone())
                        .collect()
                })
                .collect()
        };
        let commits = subsets(&standbys, state.count.min(standbys.len()));
        let elections = subsets(&voting, (state.quorum + 1).min(voting.len()));
        elections.iter().all(|election| {
            commits
                .iter()
                .all(|commit| election.contains(primary) || !election.is_disjoint(commit))
        })
    }

    fn subset(bits: u32) -> Names {
        let everybody = ["b", "c", "d", "e", "f"];
        (0..everybody.len())
            .filter(|i| bits >> i & 1 == 1)
            .map(|i| everybody[i].to_owned())
            .collect()
    }

    /// From every steady state of up to six nodes, towards every set of active nodes and every wanted count:
    /// the invariant holds after each change, elections meet commits throughout, and applying the changes
    /// again and again comes to rest at n = min(wanted, |active|), V = S = active, q = |active| - n.
    #[test]
    fn every_change_of_membership_is_safe_and_comes_to_rest() {
        for from in 0u32..32 {
            for count in 1..=from.count_ones() as usize {
                for to in 0u32..32 {
                    for wanted in 1usize..=3 {
                        let standbys = subset(from);
                        let mut state = State {
                            leader: "a".into(),
                            quorum: standbys.len() - count,
                            voters: standbys.clone(),
                            count,
                            standbys,
                        };
                        let active = subset(to);
                        let mut rounds = 0;
                        loop {
                            // Whoever is listed and active has confirmed.
                            let confirmed = state.standbys.intersection(&active).count();
                            let goal = Goal {
                                me: "a".into(),
                                active: active.clone(),
                                confirmed,
                                wanted,
                            };
                            let changes = transitions(state.clone(), &goal);
                            if changes.is_empty() {
                                break;
                            }
                            for change in changes {
                                apply(&mut state, change);
                                assert!(state.holds("a"), "{state:?} towards {goal:?}");
                                assert!(
                                    every_election_meets_every_commit(&state, "a"),
                                    "{state:?} towards {goal:?}"
                                );
                            }
                            rounds += 1;
                            assert!(
                                rounds < 20,
                                "{state:?} towards {goal:?} does not come to rest"
                            );
                        }
                        let n = wanted.min(active.len());
                        assert_eq!(
                            (state.count, state.quorum),
                            (n, active.len() - n),
                            "{state:?} {active:?}"
                        );
                        assert_eq!((&state.voters, &state.standbys), (&active, &active));
                    }
                }
            }
        }
    }

    fn apply(state: &mut State, transition: Transition) {
        match transition {
            Transition::Sync { count, standbys } => {
                state.count = count;
                state.standbys = standbys;
            }
            Transition::Quorum {
                leader,
                quorum,
                voters,
            } => {
                state.leader = leader;
                state.quorum = quorum;
                state.voters = voters;
            }
            Transition::Restart => {}
        }
    }
}
