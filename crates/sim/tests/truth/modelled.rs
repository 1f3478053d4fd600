//! The scripts on modelled servers.

use std::collections::{BTreeMap, BTreeSet};

use primacy_sim::{ClientAnswer, Level, ModelledServers};

use crate::scripts;
use crate::trace::{Facts, Look, Step, parse};

const COUNT: usize = 3;
/// Delays differ by seed; what is seen in the end must not.
const SEEDS: u64 = 20;

#[test]
fn the_model_shows_what_real_servers_showed() {
    for script in scripts::all() {
        let name = script.name;
        let stored = parse(script.stored);
        let steps: Vec<&Step> = stored.iter().map(|entry| &entry.step).collect();
        assert_eq!(
            steps,
            script.steps.iter().collect::<Vec<_>>(),
            "{name} has changed since it was recorded"
        );
        for seed in 0..SEEDS {
            let mut servers = Servers::new(seed);
            for (number, entry) in stored.iter().enumerate() {
                let seen = servers.perform(&entry.step);
                assert_eq!(
                    seen,
                    entry.seen,
                    "the model (left) is not as it was (right) after step {} of {name}, {:?}, with seed {seed}",
                    number + 1,
                    entry.step
                );
            }
        }
    }
}

struct Servers {
    model: ModelledServers,
    frozen: BTreeSet<usize>,
}

fn number(name: &str) -> usize {
    name.strip_prefix('n').unwrap().parse::<usize>().unwrap() - 1
}

fn name(number: usize) -> String {
    format!("n{}", number + 1)
}

impl Servers {
    fn new(seed: u64) -> Self {
        let mut model = ModelledServers::new(seed, COUNT);
        model.init(0);
        model.start(0, None);
        for standby in 1..COUNT {
            model.copy(standby, 0);
            model.start(standby, Some(0));
        }
        Servers {
            model,
            frozen: BTreeSet::new(),
        }
    }

    fn perform(&mut self, step: &Step) -> Look {
        let model = &mut self.model;
        let mut found = None;
        match step {
            Step::Start(server, upstream) => {
                model.start(number(server), upstream.as_deref().map(number));
            }
            Step::Follow(server, upstream) => model.follow(number(server), number(upstream)),
            Step::StopFast(server) => model.stop(number(server), true),
            Step::StopImmediate(server) => model.stop(number(server), false),
            Step::Freeze(server) => {
                self.frozen.insert(number(server));
                model.freeze(number(server));
            }
            Step::Thaw(server) => {
                self.frozen.remove(&number(server));
                model.thaw(number(server));
            }
            Step::Names(server, names) => model.set_names(number(server), names),
            Step::Commit(server, name, level) => {
                let level = match level.as_str() {
                    "on" => Level::On,
                    "local" => Level::Local,
                    "off" => Level::Off,
                    other => panic!("synchronous_commit = {other}"),
                };
                model.commit(number(server), name, level);
            }
            Step::Promote(server) => model.promote(number(server)),
            Step::Recover(server) => model.recover(number(server)),
            Step::Compare(server, primary) => {
                let diverged = model.diverged(number(server), number(primary));
                let text = match diverged {
                    Some(true) => "diverged",
                    Some(false) => "same",
                    None => "undecided",
                };
                found = Some(text.to_owned());
            }
            Step::Rewind(server, source) => {
                model.checkpoint(number(source));
                let needed = model.needs_rewind(number(server), number(source));
                let text = if needed { "rewinds" } else { "nothing to do" };
                found = Some(text.to_owned());
            }
        }
        self.look(found)
    }

    fn look(&self, found: Option<String>) -> Look {
        let answers = self.model.answers().map(|(name, answer)| {
            let text = match answer {
                ClientAnswer::Acknowledged => "acknowledged",
                ClientAnswer::Waits => "waits",
                ClientAnswer::Unanswered => "unanswered",
            };
            (name.to_owned(), text.to_owned())
        });
        let facts: BTreeMap<String, Facts> = (0..COUNT)
            .filter(|server| !self.frozen.contains(server))
            .map(|server| (name(server), self.facts(server)))
            .collect();
        Look::new(answers.collect(), &facts, found)
    }

    fn facts(&self, server: usize) -> Facts {
        let observation = self.model.observe(server);
        let wal = observation.wal.as_ref();
        let receiver = wal.and_then(|wal| wal.receiver.as_ref());
        Facts {
            streams_from: receiver.and_then(|receiver| receiver.sender_host.clone()),
            timeline: self.model.timeline(server).0,
            history: self
                .model
                .history(server)
                .into_iter()
                .map(|(timeline, lsn)| (timeline.0, lsn))
                .collect(),
            visible: self.model.visible(server),
            observation,
        }
    }
}
