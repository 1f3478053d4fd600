//! `ha.md` §13, §14: from every mode and count to every other one on a live cluster, with standbys that come and go, step by
//! step. After each step, whoever `/sync` lets lead has every commit that was acknowledged, whenever it was.

use std::collections::BTreeSet;

use primacy_config::SynchronousMode;
use primacy_ha::Step;
use primacy_model::{MemberName, SyncState, Version};
use proptest::prelude::*;

use crate::world::{World, member};

const STANDBYS: [&str; 3] = ["pg2", "pg3", "pg4"];

type Names = BTreeSet<String>;

/// What is asked of the primary, and who streams from it.
#[derive(Clone, Debug)]
struct Setting {
    mode: SynchronousMode,
    count: u32,
    strict: bool,
    streaming: Names,
}

impl Setting {
    fn of(mode: SynchronousMode, count: u32) -> Setting {
        Setting {
            mode,
            count,
            strict: false,
            streaming: STANDBYS.map(str::to_owned).into(),
        }
    }
}

/// A primary whose steps are carried out, and where its commits may be.
struct Live {
    world: World,
    streaming: Names,
    /// One set for each commit that may have been acknowledged: the standbys that had it then, and those that caught up
    /// since.
    commits: Vec<Names>,
    /// What was done, for the reader of a failure.
    told: Vec<String>,
}

impl Live {
    /// Asynchronous so far.
    fn new() -> Live {
        let world = World::of("pg1").with(|w| {
            w.cluster.members.truncate(1);
            w.cluster.members.extend(STANDBYS.map(member));
        });
        let mut live = Live {
            world,
            streaming: Names::new(),
            commits: Vec::new(),
            told: Vec::new(),
        };
        live.names("");
        live.world.memory.sync.managed = None;
        live
    }

    /// PostgreSQL obeys these names from now on, and acknowledges commits by them.
    fn names(&mut self, names: &str) {
        self.senders(names);
        self.world.memory.sync.confirmed.clear();
        let listed = listed(names);
        let count = match names.strip_prefix("ANY ") {
            Some(rest) => rest[..1].parse().expect("a count"),
            None => listed.len(),
        };
        self.commits.extend(subsets(&listed, count));
    }

    fn senders(&mut self, names: &str) {
        let listed = listed(names);
        let state = if names.starts_with("ANY") {
            "quorum"
        } else {
            "sync"
        };
        let senders = self.streaming.iter().map(|name| {
            let state = if listed.contains(name) {
                state
            } else {
                "async"
            };
            (name.as_str(), state)
        });
        let senders: Vec<_> = senders.collect();
        let world = std::mem::replace(&mut self.world, World::of("pg1"));
        self.world = world.names(names, &senders);
    }

    /// Goes on until there is nothing left to do, or for so many steps. Whether it came to rest.
    fn settle(&mut self, setting: &Setting, steps: usize) -> bool {
        self.told.push(format!("--- {setting:?}"));
        self.world.global.synchronous_mode = setting.mode;
        self.world.global.synchronous_node_count = setting.count;
        self.world.global.synchronous_mode_strict = setting.strict;
        self.streaming = setting.streaming.clone();
        let managed = self.world.memory.sync.managed.clone();
        let names = self.world.wal().synchronous_standby_names.clone();
        self.senders(&names);
        self.world.memory.sync.managed = managed;
        for _ in 0..steps {
            let step = self.world.step();
            self.told.push(format!("{step:?}"));
            match step {
                Step::WriteSync(sync) => {
                    let version = self.world.cluster.sync.version;
                    self.world.cluster.sync = SyncState {
                        version: Some(Version(version.map_or(1, |version| version.0 + 1))),
                        ..sync
                    };
                }
                Step::DeleteSync(_) => self.world.cluster.sync = SyncState::default(),
                Step::SetSynchronousStandbyNames(names) => {
                    self.names(names.as_deref().unwrap_or_default());
                    if names.is_none() {
                        self.world.memory.sync.managed = None;
                    }
                }
                Step::WaitUntil(_) if self.confirm() => {}
                Step::WaitUntil(_) | Step::Wait => return true,
                other => panic!("{other:?} after {:#?}", self.told),
            }
            self.check();
        }
        false
    }

    /// One more standby has everything that was committed up to now, if there is one that had not.
    fn confirm(&mut self) -> bool {
        let listed = listed(&self.world.wal().synchronous_standby_names);
        let confirmed = &mut self.world.memory.sync.confirmed;
        let mut streaming = self.streaming.intersection(&listed);
        let Some(next) = streaming.find(|name| !confirmed.contains(name.as_str())) else {
            return false;
        };
        confirmed.insert(MemberName::new(next.clone()));
        for commit in &mut self.commits {
            commit.insert(next.clone());
        }
        true
    }

    /// The primary is lost now: a candidate and the voters that are not ahead of it are so many of those in `/sync`.
    fn check(&self) {
        let sync = &self.world.cluster.sync;
        let voters: Names = sync.standbys.iter().map(ToString::to_string).collect();
        for elected in subsets(&voters, sync.quorum as usize + 1) {
            for commit in &self.commits {
                assert!(
                    !commit.is_disjoint(&elected),
                    "{elected:?} may lack a commit of {commit:?} after {:#?}",
                    self.told
                );
            }
        }
    }
}

/// The names in any form that is written.
fn listed(names: &str) -> Names {
    let list = names.split_once('(').map_or(names, |(_, list)| list);
    let names = list.trim_end_matches(')').split(',');
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// All of that size.
fn subsets(of: &Names, size: usize) -> Vec<Names> {
    let of: Vec<&String> = of.iter().collect();
    (0u32..1 << of.len())
        .filter(|bits| bits.count_ones() as usize == size)
        .map(|bits| {
            let chosen = (0..of.len()).filter(|i| bits >> i & 1 == 1);
            chosen.map(|i| of[i].clone()).collect()
        })
        .collect()
}

/// What `/sync` has at rest: how many voters, and how many of them a candidate needs.
fn at_rest(setting: &Setting) -> (usize, usize) {
    let count = setting.count as usize;
    match setting.mode {
        SynchronousMode::Off => (0, 0),
        SynchronousMode::On => (count, 0),
        SynchronousMode::Quorum => (3, 3 - count),
    }
}

#[test]
fn every_switch_keeps_every_commit_electable_and_comes_to_rest() {
    use SynchronousMode::{Off, On, Quorum};
    let counts = [On, Quorum].map(|mode| (1..=3).map(move |count| Setting::of(mode, count)));
    let settings: Vec<_> = counts
        .into_iter()
        .flatten()
        .chain([Setting::of(Off, 1)])
        .collect();
    for from in &settings {
        for over in &settings {
            // Interrupted by another switch after each of its steps.
            for steps in 0..8 {
                for to in &settings {
                    let mut live = Live::new();
                    assert!(live.settle(from, 40), "no rest: {:#?}", live.told);
                    live.settle(over, steps);
                    assert!(live.settle(to, 40), "no rest: {:#?}", live.told);
                    let sync = &live.world.cluster.sync;
                    let found = (sync.standbys.len(), sync.quorum as usize);
                    assert_eq!(found, at_rest(to), "{:#?}", live.told);
                }
            }
        }
    }
}

fn settings() -> impl Strategy<Value = (Setting, usize)> {
    let mode = prop_oneof![
        1 => Just(SynchronousMode::Off),
        3 => Just(SynchronousMode::On),
        3 => Just(SynchronousMode::Quorum),
    ];
    let streaming = prop::sample::subsequence(STANDBYS.to_vec(), 0..=3);
    (mode, 1u32..=3, any::<bool>(), streaming, 0usize..12).prop_map(
        |(mode, count, strict, streaming, steps)| {
            let streaming = streaming.into_iter().map(str::to_owned).collect();
            let setting = Setting {
                mode,
                count,
                strict,
                streaming,
            };
            (setting, steps)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Standbys come and go at any moment, too, and strictness is asked for and given up.
    #[test]
    fn no_history_loses_a_commit(history in prop::collection::vec(settings(), 1..8)) {
        let mut live = Live::new();
        for (setting, steps) in history {
            live.settle(&setting, steps);
        }
    }
}
