//! What the machine remembers of replication slots (`ha.md` §18).

use std::collections::BTreeMap;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, TimingLimits};
use primacy_ha::{Action, Event, Machine, Moment, PrimarySlots, RenewalResult, SlotChange, Step};
use primacy_model::{Cluster, Lsn, Observation, Process, ReplicationSlot, SlotKind};
use serde_json::json;

use crate::world::{self, World};

struct Driver {
    machine: Machine,
    now: Moment,
    cluster: Cluster,
    server: Observation,
    /// The watch of the store tells everything.
    follows: bool,
}

impl Driver {
    /// The replica `pg2` with a copy of the permanent logical slot `cdc`, and all slots of members.
    fn new() -> Driver {
        let mut world = World::of("pg2");
        let config = world.cluster.config.as_mut().expect("a configuration");
        let slots = json!({"cdc": {"type": "logical", "database": "app", "plugin": "pgoutput"}});
        config.value.insert("slots".into(), slots);
        let physical = |name: &str| ReplicationSlot {
            name: name.into(),
            kind: SlotKind::Physical,
            active: false,
            restart_lsn: Some(Lsn(1)),
            confirmed_flush_lsn: None,
            has_xmin: false,
            catalog_xmin: None,
            lost: false,
            failover: false,
            synced: false,
        };
        let logical = ReplicationSlot {
            kind: SlotKind::Logical {
                database: "app".into(),
                plugin: "pgoutput".into(),
            },
            confirmed_flush_lsn: Some(Lsn(1)),
            catalog_xmin: Some(750),
            ..physical("cdc")
        };
        world.wal().slots = Some(vec![physical("pg1"), physical("pg3"), logical]);
        let now = world::NOW;
        Driver {
            machine: Machine::new(
                world.local,
                GlobalConfig::default(),
                TimingLimits::PATRONI,
                now,
            ),
            now,
            cluster: world.cluster,
            server: world.server,
            follows: false,
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.machine.step(event, self.now, Timestamp::UNIX_EPOCH)
    }

    /// Passes until there is nothing to do; work in the background does not end. All that was asked for.
    fn rest(&mut self) -> Vec<Action> {
        let mut queue = self.step(Event::Tick);
        let mut seen = Vec::new();
        while !queue.is_empty() {
            let action = queue.remove(0);
            let answer = match &action {
                Action::ReadCluster {
                    followed_within: Some(_),
                    ..
                } if self.follows => Some(Event::ClusterFollowed(self.cluster.clone())),
                Action::ReadCluster { .. } => Some(Event::ClusterRead(Ok(self.cluster.clone()))),
                Action::Observe { sent, .. } => Some(Event::Observed {
                    sent: *sent,
                    observation: self.server.clone(),
                }),
                Action::Perform {
                    step: Step::ChangeLogicalSlots { .. } | Step::CompareLogicalSlots { .. },
                    ..
                } => None,
                Action::Renew { sent, .. } => Some(Event::Renewed {
                    sent: *sent,
                    result: RenewalResult::Renewed,
                }),
                Action::Perform { step, .. } => {
                    self.move_slots(step);
                    Some(Event::StepDone(primacy_ha::StepOutcome::Done))
                }
                _ => None,
            };
            seen.push(action);
            if let Some(event) = answer {
                queue.extend(self.step(event));
            }
        }
        seen
    }

    fn slots(&mut self) -> &mut Vec<ReplicationSlot> {
        let wal = self.server.wal.as_mut().expect("the server answers");
        wal.slots.as_mut().expect("slots were looked at")
    }

    fn move_slots(&mut self, step: &Step) {
        let Step::ChangeSlots(changes) = step else {
            return;
        };
        for change in changes {
            if let SlotChange::Advance { name, to } = change
                && let Some(slot) = self.slots().iter_mut().find(|slot| slot.name == *name)
            {
                slot.restart_lsn = Some(*to);
            }
        }
    }

    fn another_loop(&mut self) -> Vec<Action> {
        self.now = self.machine.next_regular_pass();
        self.rest()
    }

    fn unready(&self) -> bool {
        self.machine.memory().slots.unready.contains_key("cdc")
    }

    fn compared(&mut self, physical: Option<u64>, logical: Option<u64>) {
        let primary = PrimarySlots {
            physical,
            logical: [("cdc".to_owned(), logical)].into(),
        };
        self.step(Event::LogicalSlotsCompared(Ok(primary)));
    }
}

fn asks(actions: &[Action]) -> bool {
    actions.iter().any(|action| {
        let Action::Perform { step, .. } = action else {
            return false;
        };
        matches!(step, Step::CompareLogicalSlots { .. })
    })
}

#[test]
fn s18_6_a_copied_slot_is_good_once_its_catalog_rows_are_held_back() {
    for (what, answers, ready) in [
        (
            "the primary holds nothing back for this standby yet",
            vec![(None, Some(700))],
            false,
        ),
        (
            "less is held back than the primary's slot holds",
            vec![(Some(690), Some(700))],
            false,
        ),
        (
            "more is held back than the copy says that it needs",
            vec![(Some(760), Some(700))],
            false,
        ),
        (
            "the primary has no such slot",
            vec![(Some(720), None)],
            false,
        ),
        (
            "held back, between both",
            vec![(Some(720), Some(700))],
            true,
        ),
        (
            "what counts is the primary's slot when holding back began, not where it went since",
            vec![(Some(690), Some(700)), (Some(700), Some(745))],
            true,
        ),
        (
            "transaction numbers went round",
            vec![(Some(4_294_967_290), Some(4_294_967_200))],
            true,
        ),
    ] {
        let mut driver = Driver::new();
        let actions = driver.rest();
        assert!(asks(&actions), "{what}");
        assert!(driver.unready(), "{what}");
        for (physical, logical) in answers {
            driver.compared(physical, logical);
        }
        assert_eq!(!driver.unready(), ready, "{what}");
    }
}

#[test]
fn s18_6_the_primary_is_asked_once_a_loop_and_again_after_a_restart() {
    let mut driver = Driver::new();
    assert!(asks(&driver.rest()));
    assert!(!asks(&driver.another_loop()), "it has not answered yet");
    driver.step(Event::LogicalSlotsCompared(Err("no connection".into())));
    assert!(asks(&driver.another_loop()));
    driver.compared(Some(720), Some(700));
    assert!(!asks(&driver.another_loop()), "all is known");
    let Process::Running(mut postmaster) = driver.server.process else {
        panic!("it runs");
    };
    postmaster.pid += 1;
    driver.server.process = Process::Running(postmaster);
    assert!(
        asks(&driver.another_loop()),
        "while it was down nothing was held back"
    );
}

#[test]
fn s18_6_w23_slots_that_may_lack_something_are_told_of_at_a_promotion() {
    let mut driver = Driver::new();
    driver.rest();
    driver.cluster.leader = Some(world::leader("pg2"));
    // W23: made here after its member went away, so it begins later than the former leader's.
    driver
        .cluster
        .members
        .retain(|member| member.name != *"pg3");
    driver.cluster.status.retain_slots = vec!["pg3".into()];
    driver.cluster.status.slots = [("pg3".to_owned(), Lsn(0))].into();
    let queue = driver.another_loop();
    let promotes = queue
        .iter()
        .any(|action| matches!(action, Action::StartJob(primacy_ha::Job::Promote)));
    let warns = |words: &str| {
        queue
            .iter()
            .any(|action| matches!(action, Action::Log(_, text) if text.contains(words)))
    };
    assert!(promotes, "{queue:#?}");
    assert!(
        warns("might be unsafe to use after promote: cdc"),
        "{queue:#?}"
    );
    assert!(
        warns("begin after where the former leader had them: pg3"),
        "{queue:#?}"
    );
}

#[test]
fn s18_7_hot_standby_feedback_is_forced_where_logical_slots_are_or_pass() {
    let forced = |change: fn(&mut Driver)| {
        let mut driver = Driver::new();
        change(&mut driver);
        driver.rest();
        driver.machine.memory().slots.hot_standby_feedback
    };
    fn tags(driver: &mut Driver, member: usize, tags: serde_json::Value) {
        driver.cluster.members[member].data.tags = primacy_model::Tags::from_json(&tags);
    }
    fn dynamic(driver: &mut Driver, key: &str, value: serde_json::Value) {
        let config = driver.cluster.config.as_mut().expect("a configuration");
        config.value.insert(key.into(), value);
    }
    for (what, change, expected) in [
        (
            "a permanent logical slot",
            (|_| {}) as fn(&mut Driver),
            true,
        ),
        ("none", |d| dynamic(d, "slots", json!({})), false),
        (
            "only a physical one",
            |d| dynamic(d, "slots", json!({"backup": {"type": "physical"}})),
            false,
        ),
        (
            "no slots are used",
            |d| dynamic(d, "postgresql", json!({"use_slots": false})),
            false,
        ),
        (
            "a standby cluster has none",
            |d| dynamic(d, "standby_cluster", json!({"host": "remote"})),
            false,
        ),
    ] {
        assert_eq!(forced(change), expected, "{what}");
    }
    let with_tags = |own: serde_json::Value, third: serde_json::Value| {
        let mut driver = Driver::new();
        let mut world = World::of("pg2");
        world.local.tags = primacy_model::Tags::from_json(&own);
        driver.machine = Machine::new(
            world.local,
            GlobalConfig::default(),
            TimingLimits::PATRONI,
            driver.now,
        );
        tags(&mut driver, 2, third);
        driver.rest();
        driver.machine.memory().slots.hot_standby_feedback
    };
    for (what, own, third, expected) in [
        (
            "a member that may not lead has none",
            json!({"nofailover": true}),
            json!({}),
            false,
        ),
        (
            "but passes on for one that cascades from it",
            json!({"nofailover": true}),
            json!({"replicatefrom": "pg2"}),
            true,
        ),
        (
            "nothing streams here",
            json!({"nostream": true}),
            json!({}),
            false,
        ),
        (
            "its source does not stream",
            json!({"replicatefrom": "pg3"}),
            json!({"nostream": true}),
            false,
        ),
        (
            "members that follow each other reach nobody",
            json!({"replicatefrom": "pg3"}),
            json!({"replicatefrom": "pg2"}),
            false,
        ),
    ] {
        assert_eq!(with_tags(own, third), expected, "{what}");
    }
}

#[test]
fn s18_1_names_that_collide_are_told_once() {
    let mut driver = Driver::new();
    driver.cluster.members.push(world::member("pg-3"));
    driver.cluster.members.push(world::member("pg.3"));
    driver.cluster.members.push(world::member("cdc"));
    let told = |actions: Vec<Action>| {
        let texts = actions.into_iter().filter_map(|action| match action {
            Action::Log(primacy_ha::LogLevel::Error, text) => Some(text),
            _ => None,
        });
        texts.collect::<Vec<_>>()
    };
    let texts = told(driver.rest());
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains("share a replication slot name: pg-3, pg.3"),
        "{texts:?}"
    );
    assert!(texts[1].contains("'cdc' is conflicting"), "{texts:?}");
    assert_eq!(told(driver.another_loop()), Vec::<String>::new());
}

/// Slots are moved forward by what the watch told, in every loop; to make or to drop one the cluster is read.
#[test]
fn s18_4_slots_are_moved_without_reading_the_cluster() {
    let mut driver = Driver::new();
    let config = driver.cluster.config.as_mut().expect("a configuration");
    config.value.remove("slots");
    driver
        .slots()
        .retain(|slot| slot.kind == SlotKind::Physical);
    driver.rest();
    driver.follows = true;
    let read = |action: &Action| {
        matches!(
            action,
            Action::ReadCluster {
                followed_within: None,
                ..
            }
        )
    };
    for position in 2..6 {
        let position = Lsn(position);
        driver.cluster.status.slots = BTreeMap::from([("pg3".to_owned(), position)]);
        let seen = driver.another_loop();
        assert!(!seen.iter().any(read), "{seen:#?}");
        let slot = driver.slots().iter().find(|slot| slot.name == "pg3");
        assert_eq!(slot.and_then(|slot| slot.restart_lsn), Some(position));
    }

    driver.slots().retain(|slot| slot.name != "pg3");
    let seen = driver.another_loop();
    let made = seen.iter().position(|action| {
        matches!(action, Action::Perform { step: Step::ChangeSlots(changes), .. }
            if matches!(changes[..], [SlotChange::CreatePhysical { .. }]))
    });
    let first_read = seen.iter().position(read);
    assert!(first_read.is_some() && first_read < made, "{seen:#?}");
}
