//! Every pair of `synchronous_standby_names` and `/sync` that a quorum cluster can get to, whatever happens after every single
//! change: standbys come, go and confirm in any order, the wanted count is another one, a write has no answer, and any
//! member takes over. In each of them any set of nodes that may elect a leader meets any set that may have acknowledged a
//! commit, now or ever before.
//!
//! Nodes are bits. The last one is the primary; the others are interchangeable, so of all states that differ in their
//! numbers alone one is looked at. The resolver picks by name where it needs some of several, so it is asked under every
//! order of the names that can matter.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::{Goal, Names, State as Resolved, Transition, transitions};

/// Nodes, a bit each.
type Set = u8;
/// Sets of nodes besides the primary, a bit each, with every set that contains one of them.
type Holders = u32;

/// A cluster of so many nodes.
struct Nodes {
    /// How many there are besides the primary, which is the node of this number.
    others: usize,
    /// For every order of the others, what becomes of a set.
    orders: Vec<Vec<Set>>,
    /// The sets that contain a node.
    containing: Vec<Holders>,
    /// What the resolver may do first, by what it looks at.
    known: HashMap<Question, Vec<Change>>,
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Cluster {
    leader: usize,
    quorum: usize,
    voters: Set,
    count: usize,
    standbys: Set,
    /// Those that have everything from before the names took effect.
    confirmed: Set,
    /// Who may be all that have a commit from before the names took effect, besides the primary.
    past: Holders,
}

/// What the resolver is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    leader: usize,
    quorum: usize,
    voters: Set,
    count: usize,
    standbys: Set,
    active: Set,
    confirmed: usize,
    wanted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Change {
    Names { count: usize, standbys: Set },
    Sync { quorum: usize, voters: Set },
}

fn size(set: Set) -> usize {
    set.count_ones() as usize
}

fn has(set: Set, node: usize) -> bool {
    set >> node & 1 == 1
}

fn orders_of(nodes: &[usize]) -> Vec<Vec<usize>> {
    if nodes.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for (at, first) in nodes.iter().enumerate() {
        let rest = [&nodes[..at], &nodes[at + 1..]].concat();
        for mut order in orders_of(&rest) {
            order.insert(0, *first);
            orders.push(order);
        }
    }
    orders
}

impl Nodes {
    fn new(all: usize) -> Nodes {
        let others = all - 1;
        let sets = 1u8 << others;
        let numbers: Vec<usize> = (0..others).collect();
        let moved = |order: &Vec<usize>| {
            let all = 0..(sets << 1);
            all.map(|set| {
                let primary = set & sets;
                let nodes = numbers.iter().filter(|node| has(set, **node));
                nodes.fold(primary, |moved, node| moved | 1 << order[*node])
            })
            .collect()
        };
        let containing = |node: &usize| {
            let sets = (0..sets).filter(|set| has(*set, *node));
            sets.fold(0, |all, set| all | 1 << set)
        };
        Nodes {
            others,
            orders: orders_of(&numbers).iter().map(moved).collect(),
            containing: numbers.iter().map(containing).collect(),
            known: HashMap::new(),
        }
    }

    fn primary(&self) -> Set {
        1 << self.others
    }

    fn sets(&self) -> impl Iterator<Item = Set> + use<> {
        0..1u8 << self.others
    }

    /// Who may be all that have a commit of these names, besides the primary.
    fn acknowledging(&self, count: usize, standbys: Set) -> Holders {
        let enough = self
            .sets()
            .filter(|set| size(set & standbys) >= count.min(size(standbys)));
        enough.fold(0, |all, set| all | 1 << set)
    }

    /// Whether one number more than `quorum` of `/sync`'s members always have every commit among them.
    fn is_safe(&self, s: &Cluster) -> bool {
        let electing = (s.voters | 1 << s.leader) & !self.primary();
        let holders = s.past | self.acknowledging(s.count, s.standbys);
        self.sets()
            .filter(|set| holders >> set & 1 == 1)
            .all(|set| size(electing & !set) <= s.quorum)
    }

    /// The one of all states that differ in the numbers of nodes alone.
    fn canonical(&self, s: Cluster) -> Cluster {
        let renumbered = self.orders.iter().map(|order| {
            let past = self.sets().filter(|set| s.past >> set & 1 == 1);
            Cluster {
                leader: order[1 << s.leader].trailing_zeros() as usize,
                voters: order[s.voters as usize],
                standbys: order[s.standbys as usize],
                confirmed: order[s.confirmed as usize],
                past: past.fold(0, |all, set| all | 1 << order[set as usize]),
                ..s
            }
        });
        renumbered.min().unwrap_or(s)
    }

    /// The first change that the resolver makes, under any names of the nodes.
    fn first_changes(&mut self, question: Question) -> Vec<Change> {
        // Nodes that are alike are interchangeable here as well.
        let class = |node: usize| {
            let sets = [question.voters, question.standbys, question.active];
            (sets.map(|set| has(set, node)), question.leader == node)
        };
        let mut numbers: Vec<usize> = (0..self.others).collect();
        numbers.sort_by_key(|node| class(*node));
        let sorted = |set: Set| {
            let places = (0..self.others).filter(|place| has(set, numbers[*place]));
            places.fold(set & self.primary(), |all, place| all | 1 << place)
        };
        let leader = numbers.iter().position(|node| *node == question.leader);
        let asked = Question {
            leader: leader.unwrap_or(self.others),
            voters: sorted(question.voters),
            standbys: sorted(question.standbys),
            active: sorted(question.active),
            ..question
        };
        let (others, primary) = (self.others, self.primary());
        let back = |set: Set| {
            let nodes = (0..others).filter(|place| has(set, *place));
            nodes.fold(set & primary, |all, place| all | 1 << numbers[place])
        };
        if !self.known.contains_key(&asked) {
            let changes = self.ask(asked);
            self.known.insert(asked, changes);
        }
        let changes = self.known[&asked].iter();
        changes
            .map(|change| match *change {
                Change::Names { count, standbys } => Change::Names {
                    count,
                    standbys: back(standbys),
                },
                Change::Sync { quorum, voters } => Change::Sync {
                    quorum,
                    voters: back(voters),
                },
            })
            .collect()
    }

    fn ask(&self, asked: Question) -> Vec<Change> {
        let among = |set: Set| (0..self.others).filter(|node| has(set, *node)).collect();
        let gone: Vec<usize> = among(asked.standbys & !asked.active);
        let new: Vec<usize> = among(asked.active & !asked.standbys);
        let mut changes = BTreeSet::new();
        for gone_order in orders_of(&gone) {
            for new_order in orders_of(&new) {
                // The others' order does not matter: some of them are never picked.
                let mut names = vec!["p".to_owned(); self.others + 1];
                let ordered = gone_order.iter().chain(&new_order);
                let rest =
                    (0..self.others).filter(|node| !gone.contains(node) && !new.contains(node));
                for (letter, node) in ordered.copied().chain(rest).enumerate() {
                    names[node] = char::from(b'a' + letter as u8).to_string();
                }
                let spelled = |set: Set| -> Names {
                    let nodes = (0..=self.others).filter(|node| has(set, *node));
                    nodes.map(|node| names[node].clone()).collect()
                };
                let set = |spelled: &Names| {
                    let nodes = (0..=self.others).filter(|node| spelled.contains(&names[*node]));
                    nodes.fold(0, |all, node| all | 1 << node)
                };
                let state = Resolved {
                    leader: names[asked.leader].clone(),
                    quorum: asked.quorum,
                    voters: spelled(asked.voters),
                    count: asked.count,
                    standbys: spelled(asked.standbys),
                };
                let goal = Goal {
                    me: names[self.others].clone(),
                    active: spelled(asked.active),
                    confirmed: asked.confirmed,
                    wanted: asked.wanted,
                };
                match transitions(state, &goal).into_iter().next() {
                    Some(Transition::Sync { count, standbys }) => {
                        let standbys = set(&standbys);
                        changes.insert(Change::Names { count, standbys });
                    }
                    Some(Transition::Quorum {
                        leader,
                        quorum,
                        voters,
                    }) => {
                        // The driver writes its own name.
                        assert_eq!(leader, goal.me, "{asked:?}");
                        let voters = set(&voters);
                        changes.insert(Change::Sync { quorum, voters });
                    }
                    Some(Transition::Restart) | None => {}
                }
            }
        }
        changes.into_iter().collect()
    }

    /// What may come next.
    fn after(&mut self, s: &Cluster, next: &mut Vec<Cluster>) {
        let acknowledged = s.past | self.acknowledging(s.count, s.standbys);
        let mut changes = HashSet::new();
        for active in self.sets() {
            for confirmed in 0..=size(s.confirmed & active) {
                for wanted in 1..=self.others {
                    changes.extend(self.first_changes(Question {
                        leader: s.leader,
                        quorum: s.quorum,
                        voters: s.voters,
                        count: s.count,
                        standbys: s.standbys,
                        active,
                        confirmed,
                        wanted,
                    }));
                }
            }
        }
        // Strict mode, and nobody is left (`ha.md` §13.4).
        if s.leader == self.others && s.voters != 0 {
            let count = (size(s.voters).saturating_sub(s.quorum)).max(1);
            let standbys = s.voters;
            changes.insert(Change::Names { count, standbys });
        }
        for change in changes {
            match change {
                Change::Names { count, standbys } => {
                    next.push(Cluster {
                        count,
                        standbys,
                        confirmed: 0,
                        past: acknowledged,
                        ..*s
                    });
                    // Without an answer: some sessions obeyed the new names before the old ones were set again.
                    next.push(Cluster {
                        confirmed: 0,
                        past: acknowledged | self.acknowledging(count, standbys),
                        ..*s
                    });
                }
                // Without an answer it is done, or not, before the next one is made.
                Change::Sync { quorum, voters } => next.push(Cluster {
                    leader: self.others,
                    quorum,
                    voters,
                    ..*s
                }),
            }
        }
        for node in (0..self.others).filter(|node| has(s.standbys & !s.confirmed, *node)) {
            next.push(Cluster {
                confirmed: s.confirmed | 1 << node,
                past: s.past & self.containing[node],
                ..*s
            });
        }
        let members = s.voters | 1 << s.leader;
        for winner in 0..=self.others {
            if size(members) <= s.quorum && winner != s.leader {
                continue;
            }
            // Whoever wins has what any of its voters has. It takes the primary's number, and the primary its.
            let swapped = |set: Set| match has(set, winner) == has(set, self.others) {
                true => set,
                false => set ^ (1 << winner | self.primary()),
            };
            let past = match winner == self.others {
                true => acknowledged,
                false => acknowledged & self.containing[winner],
            };
            let members = swapped(members);
            let voters = members & !self.primary();
            for strict in [0, 1] {
                let promoted = |leader, voters: Set, others: Set, all: usize| Cluster {
                    leader,
                    quorum: s.quorum,
                    voters,
                    count: all
                        .saturating_sub(s.quorum + 1)
                        .max(strict)
                        .min(size(others)),
                    standbys: others,
                    confirmed: 0,
                    past,
                };
                next.push(promoted(self.others, voters, voters, size(voters) + 1));
                // Patroni's members leave /sync as it is until they are promoted (`ha.md` §14.5).
                let leader = match s.leader {
                    leader if leader == winner => self.others,
                    leader if leader == self.others => winner,
                    leader => leader,
                };
                let all = size(voters) + 1;
                next.push(promoted(leader, swapped(s.voters), voters, all));
            }
        }
    }
}

/// All that a cluster of so many nodes can get to from its beginning. How many states that are.
fn walk(all: usize) -> usize {
    let mut nodes = Nodes::new(all);
    let begin = Cluster {
        leader: nodes.others,
        quorum: 0,
        voters: 0,
        count: 0,
        standbys: 0,
        confirmed: 0,
        past: nodes.acknowledging(0, 0),
    };
    let mut seen = HashMap::from([(begin, begin)]);
    let mut queue = VecDeque::from([begin]);
    let mut next = Vec::new();
    while let Some(before) = queue.pop_front() {
        nodes.after(&before, &mut next);
        for state in next.drain(..) {
            let state = nodes.canonical(state);
            if seen.contains_key(&state) {
                continue;
            }
            seen.insert(state, before);
            queue.push_back(state);
            if !nodes.is_safe(&state) {
                let mut path = vec![state];
                while let Some(earlier) = path.last().map(|state| seen[state])
                    && earlier != begin
                {
                    path.push(earlier);
                }
                path.reverse();
                panic!("{path:#?}");
            }
        }
    }
    seen.len()
}

#[test]
fn any_election_meets_any_commit_in_all_that_five_nodes_can_get_to() {
    let states: Vec<usize> = (2..=5).map(walk).collect();
    assert!(states.is_sorted() && states[3] > 1_000, "{states:?}");
}

mod long {
    #[test]
    #[ignore = "long: minutes"]
    fn any_election_meets_any_commit_in_all_that_six_nodes_can_get_to() {
        assert!(super::walk(6) > 50_000);
    }
}
