//! `ha.md` §26: known weaknesses of the algorithm, closed by the decision. More of them are where their subject is.

use std::time::Duration;

use primacy_config::SynchronousMode;
use primacy_ha::{Lease, Step};
use primacy_model::{Lsn, Role, ScheduledAt, State, Timeline, Version};
use serde_json::json;

use crate::world::{NOW, POSITION, World, primary_wal};

const HERE: u64 = POSITION.0;

fn acquires(step: &Step) -> bool {
    matches!(step, Step::AcquireLeader { .. })
}

#[test]
fn w1_an_old_primary_leaves_the_lock_to_those_on_a_newer_timeline() {
    let old = |theirs: Timeline| {
        World::unlocked("pg1").with(|w| {
            w.server.wal = Some(primary_wal());
            w.memory.role = Role::Primary;
            w.cluster.members[2].data.timeline = Some(theirs);
        })
    };
    assert!(!acquires(&old(Timeline(2)).because("ha.md W1")));
    assert!(acquires(&old(Timeline(1)).step()));
}

/// The wall clock of these worlds says 1970-01-01T00:00:00Z.
fn scheduled(world: World, at: &str) -> World {
    world.failover(Some("pg1"), Some("pg2")).with(|w| {
        let request = w.cluster.failover.as_mut().expect("a request");
        request.scheduled_at = Some(ScheduledAt::parse(at, &jiff::tz::TimeZone::UTC));
    })
}

#[test]
fn w10_a_switchover_scheduled_for_later_has_no_say_when_the_leader_dies_before() {
    for me in ["pg2", "pg3"] {
        let later = scheduled(World::unlocked(me), "1970-01-01T01:00:00+00:00");
        assert_eq!(later.because("ha.md W10"), Step::ClearFailover(Version(9)));
    }
    // The candidate then races like everybody: a lag, or a member ahead, keeps it from winning.
    let raced = World::unlocked("pg2").peers(&[("pg3", Some(HERE + 1))]);
    assert!(!acquires(&raced.step()));
    let due = scheduled(World::unlocked("pg2"), "1970-01-01T00:00:00+00:00");
    assert!(acquires(&due.because("ha.md §10.3.1a")));
    // A primary that only lost its lock takes it again, and the request goes with that.
    let primary = scheduled(World::unlocked("pg1"), "1970-01-01T01:00:00+00:00").with(|w| {
        w.server.wal = Some(primary_wal());
        w.memory.role = Role::Primary;
    });
    assert_eq!(
        primary.step(),
        Step::AcquireLeader {
            failover: Some((Version(9), "{}".into()))
        }
    );
    let paused = scheduled(World::unlocked("pg2"), "1970-01-01T01:00:00+00:00")
        .with(|w| w.global.pause = true);
    assert_eq!(paused.step(), Step::Wait);
}

#[test]
fn w17_a_standby_that_does_not_answer_counts_by_its_fresh_key() {
    let silent = |position: u64| {
        World::unlocked("pg2").silence().with(|w| {
            let data = &mut w.cluster.members[2].data;
            data.xlog_location = Some(Lsn(position));
            w.memory.unlocked_since = Some(NOW - Duration::from_secs(5));
        })
    };
    assert!(!acquires(&silent(HERE + 1).because("ha.md W17")));
    assert!(acquires(&silent(HERE).step()));
    // It had its time.
    let late = silent(HERE + 1).with(|w| w.memory.unlocked_since = Some(NOW - w.global.ttl));
    assert!(acquires(&late.step()));
    // It may not, or cannot, take the lock.
    let tagged = silent(HERE + 1).with(|w| {
        w.cluster.members[2].data.tags =
            primacy_model::Tags::from_json(&json!({"nofailover": true}));
    });
    assert!(acquires(&tagged.step()));
    let down = silent(HERE + 1).with(|w| w.cluster.members[2].data.state = Some(State::Stopped));
    assert!(acquires(&down.step()));
    // The key is gone: that was the leader's time to live, too.
    let gone = silent(HERE + 1).with(|w| {
        w.cluster.members.remove(2);
    });
    assert!(acquires(&gone.step()));
    // The old leader's own key says that it was ahead, of course.
    let old_leader = silent(HERE).with(|w| {
        w.cluster.members[0].data.xlog_location = Some(Lsn(HERE + 5));
    });
    assert!(acquires(&old_leader.step()));
}

#[test]
fn w19_every_change_is_of_the_version_that_was_seen() {
    let owner = || World::of("pg1");
    let missing = owner().with(|w| w.cluster.config = None);
    assert_eq!(missing.step(), Step::WriteConfig(None), "create only");
    let unreadable = owner().with(|w| {
        w.cluster.config = None;
        w.cluster.unreadable_config = Some(Version(44));
    });
    assert_eq!(unreadable.step(), Step::WriteConfig(Some(Version(44))));
    let won = World::unlocked("pg2").failover(None, Some("pg2"));
    assert_eq!(
        won.step(),
        Step::AcquireLeader {
            failover: Some((Version(9), "{}".into()))
        }
    );
    let published = owner()
        .sync("pg3", &[])
        .with(|w| w.cluster.sync.version = None);
    assert!(
        matches!(published.step(), Step::WriteSync(sync) if sync.version.is_none()),
        "create only"
    );
    assert_eq!(published.lease, owner().lease);
    assert_ne!(published.lease, Lease::None);
}

/// W25: PostgreSQL knows standbys by their name alone, and a member of another site may have the same one.
#[test]
fn w25_a_name_that_two_servers_stream_by_is_not_synchronous() {
    let primary =
        |senders: &[(&str, &str)]| World::of("pg1").sync("pg1", &["pg2"]).names("pg2", senders);
    let sync_becomes = |world: &World, expected: &[&str]| match world.step() {
        Step::WriteSync(sync) => {
            let standbys: Vec<&str> = sync.standbys.iter().map(|name| name.as_str()).collect();
            assert_eq!(standbys, expected);
        }
        other => panic!("{other:?}"),
    };
    let alone = primary(&[("pg2", "sync")]);
    assert_eq!(alone.step(), Step::Wait);
    // The other site's pg2 streams, too; it may be the one whose acknowledgement released a commit.
    let twice = primary(&[("pg2", "sync"), ("PG2", "potential")]);
    sync_becomes(&twice, &[]);
    // The member is away, the other site's streams through a slot of its own.
    let foreign = |slots: bool| {
        primary(&[("pg2", "sync")]).with(|w| {
            w.global.use_slots = slots;
            w.wal().slots = None;
            w.wal().senders[0].slot = Some("site_b".into());
        })
    };
    sync_becomes(&foreign(true), &[]);
    assert_eq!(foreign(false).step(), Step::Wait);
    let own = foreign(true).with(|w| w.wal().senders[0].slot = Some("pg2".into()));
    assert_eq!(own.step(), Step::Wait);
    // Strictly: out of /sync first, then commits wait for a name that nobody has.
    let strict = |voters: &[&str]| {
        World::of("pg1")
            .sync("pg1", voters)
            .names("pg2", &[("pg2", "sync"), ("pg2", "potential")])
            .with(|w| w.global.synchronous_mode_strict = true)
    };
    sync_becomes(&strict(&["pg2", "pg3"]), &["pg3"]);
    let Step::SetSynchronousStandbyNames(Some(names)) = strict(&[]).step() else {
        panic!("commits do not wait")
    };
    assert!(names.contains("placeholder"), "{names}");
    // In quorum mode it is no active standby, and what it confirmed does not count.
    let quorum = primary(&[("pg2", "quorum"), ("pg2", "quorum")])
        .names("ANY 1 (pg2)", &[("pg2", "quorum"), ("pg2", "quorum")])
        .with(|w| {
            w.global.synchronous_mode = SynchronousMode::Quorum;
            w.memory.sync.confirmed = ["pg2".into()].into();
        });
    sync_becomes(&quorum, &[]);
}

/// Of what the primary acknowledged alone nobody else may have anything: by itself the lead goes to nobody but it.
#[test]
fn w13_once_all_synchronous_standbys_left_the_primary_alone_may_lead() {
    let left = |me: &str| World::unlocked(me).sync("pg1", &[]).silence();
    for me in ["pg2", "pg3"] {
        assert!(!acquires(&left(me).because("ha.md §10.1 row 12")));
    }
    assert!(acquires(&left("pg1").step()));
    // An operator may give that up.
    let chosen = left("pg2").failover(None, Some("pg2"));
    assert!(acquires(&chosen.because("ha.md §10.3.1a")));
    // Strictly, they stay in /sync, and nothing is acknowledged without them.
    let strict = World::of("pg1")
        .sync("pg1", &["pg2"])
        .names("pg2", &[])
        .with(|w| w.global.synchronous_mode_strict = true);
    assert_eq!(strict.because("ha.md §13.4"), Step::Wait);
}
