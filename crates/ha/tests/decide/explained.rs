//! I7: whoever does not fail over, hand over or repair says by which rule, and the values that it compared.

use std::time::Duration;

use primacy_config::SynchronousMode;
use primacy_ha::{PeerReport, RewindState, Upstream};
use primacy_model::{History, Initialize, Lsn, MemberName, Role, State, Tags, Timeline};
use serde_json::json;

use crate::world::{NOW, POSITION, POSTMASTER, World, member, primary_wal, sender};

const HERE: u64 = POSITION.0;

fn as_primary(mut world: World) -> World {
    world.server.wal = Some(primary_wal());
    world.memory.role = Role::Primary;
    world
}

/// A race, with answers of both others.
fn race(answers: &[(&str, Option<u64>)]) -> World {
    World::unlocked("pg2").peers(answers)
}

fn answering(mut world: World, name: &str, change: impl FnOnce(&mut PeerReport)) -> World {
    let peers = world.peers.as_mut().expect("answers");
    let report = peers.get_mut(name).and_then(Option::as_mut);
    change(report.expect("an answer"));
    world
}

fn switchover(answers: &[(&str, Option<u64>)]) -> World {
    World::of("pg1").failover(Some("pg1"), None).peers(answers)
}

#[test]
fn i7_every_refusal_in_a_race_has_its_values() {
    let mode = |world: World, mode| world.with(|w: &mut World| w.global.synchronous_mode = mode);
    for (world, rule, text) in [
        (
            World::unlocked("pg2")
                .silence()
                .with(|w| w.memory.pre_promote_failed_at = Some(NOW - Duration::from_secs(9))),
            "ha.md §10.1 row 1",
            "pre_promote failed here 9s ago, less than ttl 30s",
        ),
        (
            as_primary(World::unlocked("pg2")).with(|w| {
                w.global.pause = true;
                w.cluster.initialize = Initialize::parse("7710395762296189625");
            }),
            "ha.md §10.1 row 4",
            "7710395762296189624 is not the cluster's, 7710395762296189625",
        ),
        (
            as_primary(World::unlocked("pg1"))
                .with(|w| w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg2"]]"#)),
            "ha.md §10.1 row 5",
            "I am a primary on timeline 1, the cluster got to 2",
        ),
        (
            as_primary(World::unlocked("pg1")).sync("pg2", &["pg3"]),
            "ha.md W1",
            "the one in /sync is pg2, pg3",
        ),
        (
            World::unlocked("pg2")
                .sync("pg1", &["pg3"])
                .failover(Some("pg1"), Some("pg2")),
            "ha.md §10.1 row 8",
            "I am not in /sync: pg1, pg3",
        ),
        (
            World::unlocked("pg2").silence().with(|w| {
                w.global.failsafe_mode = true;
                w.cluster.failsafe = [(MemberName::from("pg9"), "http://pg9".to_owned())].into();
            }),
            "ha.md §10.1 row 11",
            "neither lead nor promised: pg9",
        ),
        (
            World::unlocked("pg2").silence().sync("pg1", &["pg3"]),
            "ha.md §10.1 row 12",
            "I am not in /sync: pg1, pg3",
        ),
        (
            World::unlocked("pg2")
                .silence()
                .with(|w| w.cluster.status.optime = Lsn(HERE + 2_097_152)),
            "ha.md §10.2.1",
            "lag 2097152 > maximum_lag_on_failover 1048576",
        ),
        (
            World::unlocked("pg2").silence().with(|w| {
                w.global.check_timeline = true;
                w.memory.last_timeline = Some(Timeline(1));
                w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg2"]]"#);
            }),
            "ha.md §10.2.2",
            "check_timeline: my timeline 1 < the cluster's 2",
        ),
        (
            race(&[("pg1", Some(HERE)), ("pg3", Some(HERE + 16))]),
            "ha.md §10.2.4",
            "Wal position of pg3 is ahead of my wal position (0/5000010 > 0/5000000)",
        ),
        (
            race(&[("pg3", None)]),
            "ha.md §10.2.3",
            "pg1 does not answer: it does not count",
        ),
        (
            race(&[("pg3", None)]),
            "ha.md §10.2.4",
            "pg3 is a primary and still alive",
        ),
        (
            answering(race(&[("pg3", Some(HERE))]), "pg3", |peer| {
                peer.tags = Tags::from_json(&json!({"failover_priority": 7}));
            }),
            "ha.md §10.2.4",
            "priority 7, while this node has priority 1",
        ),
        (
            mode(
                race(&[("pg3", Some(HERE - 8))]).sync("pg1", &["pg2", "pg3"]),
                SynchronousMode::Quorum,
            )
            .with(|w| w.cluster.sync.quorum = 2),
            "ha.md §10.2.5",
            "1 votes < quorum 2",
        ),
        (
            race(&[("pg3", Some(HERE))]).failover(None, Some("pg3")),
            "ha.md §10.3.1d",
            "an operator chose pg3, and it can take over",
        ),
    ] {
        refused(&world, rule, text);
    }
}

#[test]
fn i7_every_refusal_to_hand_over_has_its_values() {
    for (world, text) in [
        (
            switchover(&[
                ("pg2", Some(HERE - 2_097_152)),
                ("pg3", Some(HERE - 2_097_153)),
            ]),
            "pg3 lags 2097153 > maximum_lag_on_failover 1048576",
        ),
        (
            switchover(&[("pg2", Some(HERE - 2_097_152))]),
            "pg3 does not answer: it does not count",
        ),
        (
            answering(switchover(&[("pg3", Some(HERE))]), "pg3", |peer| {
                peer.watchdog_failed = true;
            }),
            "pg3 is not watchdog capable",
        ),
        (
            World::of("pg1").failover(Some("pg1"), None).with(|w| {
                w.cluster.members[1].data.tags = Tags::from_json(&json!({"nofailover": true}));
                w.cluster.members[2].data.api_url = None;
            }),
            "there is no candidate: pg2 is tagged nofailover, pg3 publishes no api_url",
        ),
        (
            World::of("pg1")
                .sync("pg1", &[])
                .failover(Some("pg1"), Some("pg2")),
            "there is no candidate: pg2 is not in /sync, pg3 is not the one to take over",
        ),
        (
            switchover(&[("pg2", Some(HERE)), ("pg3", Some(HERE))]).with(|w| {
                w.global.check_timeline = true;
                w.cluster.history = History::from_json(r#"[[1,5,"r","t","pg1"]]"#);
            }),
            "check_timeline: pg3 is on timeline 1 < the cluster's 2",
        ),
    ] {
        refused(&world, "ha.md §11.4", text);
    }
}

#[test]
fn i7_what_cannot_be_repaired_is_told() {
    let diverged = World::of("pg2").with(|w| {
        w.memory.rewind = RewindState::Needed;
        w.memory.following = Some((Upstream::Nobody, POSTMASTER));
    });
    let told = "neither use_pg_rewind nor remove_data_directory_on_diverged_timelines is on";
    refused(
        &diverged.with(|w| w.local.use_pg_rewind = false),
        "ha.md §8.4",
        told,
    );
    let failed = World::of("pg2").with(|w| {
        w.memory.rewind = RewindState::Failed;
        w.memory.following = Some((Upstream::Nobody, POSTMASTER));
    });
    refused(
        &failed,
        "ha.md §8.5.6",
        "remove_data_directory_on_rewind_failure is off",
    );
}

#[test]
fn i7_a_standby_that_is_synchronous_no_longer_is_told_with_the_reason() {
    let primary = || World::of("pg1").sync("pg1", &["pg2"]);
    for (world, text) in [
        (
            primary().names("pg2", &[]),
            "pg2 receives nothing from here",
        ),
        (
            primary().names("pg2", &[("pg2", "sync")]).with(|w| {
                w.cluster.members[1].data.tags = Tags::from_json(&json!({"nosync": true}))
            }),
            "pg2 does not want to be synchronous",
        ),
        (
            primary()
                .names("pg2", &[("pg2", "sync")])
                .with(|w| w.cluster.members[1].data.state = Some(State::Stopping)),
            "pg2 is stopping",
        ),
        (
            primary().names("pg2", &[]).with(|w| {
                let mut catching_up = sender("pg2", "async");
                catching_up.state = "catchup".into();
                w.wal().senders = vec![catching_up];
            }),
            "pg2 does not stream: catchup",
        ),
        (
            primary()
                .names("pg2", &[("pg2", "sync")])
                .with(|w| w.cluster.members = vec![member("pg1")]),
            "pg2 publishes nothing any more",
        ),
    ] {
        refused(&world, "ha.md §13.3.6", text);
    }
}

#[track_caller]
fn refused(world: &World, rule: &str, text: &str) {
    let decision = world.decide();
    assert!(
        decision
            .reasons
            .iter()
            .any(|reason| reason.rule == rule && reason.text.contains(text)),
        "[{rule}] {text:?} is not in {decision:#?}"
    );
}
