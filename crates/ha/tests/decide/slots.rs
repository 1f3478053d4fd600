//! Replication slots (`ha.md` §18).

use std::time::Duration;

use primacy_config::{ClusterType, PermanentSlot, SlotMatcher, StandbyCluster};
use primacy_ha::{Job, LogicalSlotChange, SlotChange, Step};
use primacy_model::{Lsn, ReplicationSlot, SlotKind, Tags, slot_name};
use serde_json::json;

use crate::world::{NOW, POSITION, World, member};

fn standby_cluster() -> StandbyCluster {
    StandbyCluster {
        host: Some("remote".into()),
        port: None,
        primary_slot_name: None,
        create_replica_methods: Vec::new(),
        restore_command: None,
        archive_cleanup_command: None,
        recovery_min_apply_delay: None,
    }
}

/// `me` with slots in use, its server having these.
fn world(me: &str, slots: &[ReplicationSlot]) -> World {
    World::of(me).with(|w| {
        w.global.use_slots = true;
        w.wal().slots = Some(slots.to_vec());
    })
}

fn slot(name: &str, active: bool) -> ReplicationSlot {
    ReplicationSlot {
        name: name.into(),
        kind: SlotKind::Physical,
        active,
        restart_lsn: Some(Lsn(0x100)),
        confirmed_flush_lsn: None,
        has_xmin: false,
        catalog_xmin: None,
        lost: false,
        failover: false,
        synced: false,
    }
}

fn with(slot: ReplicationSlot, change: impl FnOnce(&mut ReplicationSlot)) -> ReplicationSlot {
    let mut slot = slot;
    change(&mut slot);
    slot
}

fn logical_kind() -> SlotKind {
    SlotKind::Logical {
        database: "app".into(),
        plugin: "pgoutput".into(),
    }
}

fn logical(name: &str) -> ReplicationSlot {
    with(slot(name, false), |slot| {
        slot.kind = logical_kind();
        slot.confirmed_flush_lsn = Some(Lsn(0x200));
    })
}

fn permanent(world: &mut World, name: &str, kind: SlotKind) {
    let slot = PermanentSlot {
        kind,
        cluster_type: None,
    };
    world.global.permanent_slots.insert(name.into(), slot);
}

fn tag(world: &mut World, name: &str, tags: serde_json::Value) {
    for member in &mut world.cluster.members {
        if member.name == *name {
            member.data.tags = Tags::from_json(&tags);
        }
    }
    if world.local.name == *name {
        world.local.tags = Tags::from_json(&tags);
    }
}

/// The changes, in words: `+name`, `-name`, `name>lsn`.
fn changes(world: &World) -> Vec<String> {
    match world.step() {
        Step::ChangeSlots(changes) => changes
            .into_iter()
            .map(|change| match change {
                SlotChange::CreatePhysical { name } => format!("+{name}"),
                SlotChange::Drop { name } => format!("-{name}"),
                SlotChange::Advance { name, to } => format!("{name}>{:x}", to.0),
            })
            .collect(),
        Step::Wait | Step::WaitUntil(_) => Vec::new(),
        step => panic!("{step:?}"),
    }
}

#[test]
fn s18_2_member_slots() {
    type Setup = fn(&mut World);
    let rows: [(&str, &str, Setup, &[&str]); 13] = [
        (
            "the leader has one for everybody",
            "pg1",
            |_| {},
            &["+pg2", "+pg3"],
        ),
        (
            "so does a replica, which may lead",
            "pg2",
            |_| {},
            &["+pg1", "+pg3"],
        ),
        (
            "nobody without use_slots",
            "pg1",
            |w| w.global.use_slots = false,
            &[],
        ),
        (
            "none for a member that does not stream",
            "pg1",
            |w| tag(w, "pg3", json!({"nostream": true})),
            &["+pg2"],
        ),
        (
            "one that may not lead has them for those who cascade from it",
            "pg2",
            |w| {
                tag(w, "pg2", json!({"nofailover": true}));
                tag(w, "pg3", json!({"replicatefrom": "pg2"}));
            },
            &["+pg3"],
        ),
        (
            "member_slots_ttl 0: the leader has them for those who stream from it",
            "pg1",
            |w| {
                w.global.member_slots_ttl = None;
                tag(w, "pg3", json!({"replicatefrom": "pg2"}));
            },
            &["+pg2"],
        ),
        (
            "or whose source is away",
            "pg1",
            |w| {
                w.global.member_slots_ttl = None;
                tag(w, "pg3", json!({"replicatefrom": "pg9"}));
            },
            &["+pg2", "+pg3"],
        ),
        (
            "or who name themselves as their source",
            "pg1",
            |w| {
                w.global.member_slots_ttl = None;
                tag(w, "pg3", json!({"replicatefrom": "pg3"}));
            },
            &["+pg2", "+pg3"],
        ),
        (
            "a replica for those who cascade from it",
            "pg2",
            |w| {
                w.global.member_slots_ttl = None;
                tag(w, "pg3", json!({"replicatefrom": "pg2"}));
            },
            &["+pg3"],
        ),
        (
            "but not for the leader",
            "pg2",
            |w| {
                w.global.member_slots_ttl = None;
                tag(w, "pg1", json!({"replicatefrom": "pg2"}));
            },
            &[],
        ),
        (
            "those of absent members, not its own",
            "pg1",
            |w| {
                w.cluster.members.truncate(1);
                w.cluster.status.retain_slots = vec!["pg1".into(), "pg7".into()];
            },
            &["+pg7"],
        ),
        (
            "no absent ones on a member that may not lead",
            "pg2",
            |w| {
                tag(w, "pg2", json!({"nofailover": true}));
                w.cluster.status.retain_slots = vec!["pg7".into()];
            },
            &[],
        ),
        (
            "names that become one slot share it",
            "pg1",
            |w| w.cluster.members.extend([member("x-y"), member("x.y")]),
            &["+pg2", "+pg3", "+x_y"],
        ),
    ];
    for (what, me, setup, expected) in rows {
        let world = world(me, &[]).with(setup);
        assert_eq!(changes(&world), expected, "{what}");
    }
    assert_eq!(slot_name("x-y"), "x_y");
}

#[test]
fn s18_3_permanent_physical_slots() {
    type Setup = fn(&mut World);
    let rows: [(&str, &str, Setup, &[&str]); 5] = [
        ("on the leader", "pg1", |_| {}, &["+backup"]),
        ("on every replica", "pg2", |_| {}, &["+backup"]),
        (
            "not on one that may not lead",
            "pg2",
            |w| tag(w, "pg2", json!({"nofailover": true})),
            &[],
        ),
        (
            "not without use_slots",
            "pg1",
            |w| w.global.use_slots = false,
            &[],
        ),
        (
            "never for oneself",
            "pg1",
            |w| permanent(w, "pg1", SlotKind::Physical),
            &["+backup"],
        ),
    ];
    for (what, me, setup, expected) in rows {
        let world = world(me, &[]).with(|w| {
            w.cluster
                .members
                .retain(|member| member.name == *me || member.name == *"pg1");
            w.global.member_slots_ttl = None;
            permanent(w, "backup", SlotKind::Physical);
            setup(w);
        });
        let told: Vec<String> = changes(&world)
            .into_iter()
            .filter(|change| !change.contains("pg2"))
            .collect();
        assert_eq!(told, expected, "{what}");
    }
}

#[test]
fn s18_3_cluster_type_counts_without_a_stream_from_the_primary() {
    for (cluster_type, nostream, expected) in [
        (Some(ClusterType::Standby), false, true),
        (Some(ClusterType::Standby), true, false),
        (Some(ClusterType::Primary), true, true),
        (None, true, true),
    ] {
        let world = world("pg2", &[slot("pg1", false), slot("pg3", false)]).with(|w| {
            permanent(w, "backup", SlotKind::Physical);
            permanent(w, "cdc", logical_kind());
            w.global.permanent_slots["backup"].cluster_type = cluster_type;
            tag(w, "pg2", json!({"nostream": nostream}));
            if nostream {
                w.memory.following = Some((primacy_ha::Upstream::Nobody, crate::world::POSTMASTER));
            }
        });
        let step = world.step();
        let told = format!("{step:?}");
        assert_eq!(
            told.contains("backup"),
            expected,
            "{cluster_type:?}, {nostream}: {told}"
        );
        assert!(!told.contains("cdc"), "{told}");
    }
}

#[test]
fn s16_a_standby_cluster_has_physical_slots_only() {
    for (cluster_type, expected) in [
        (None, true),
        (Some(ClusterType::Standby), true),
        (Some(ClusterType::Primary), false),
    ] {
        // The standby leader, a server in recovery that owns the lock.
        let world = world("pg2", &[slot("pg1", true), slot("pg3", true)]).with(|w| {
            w.global.standby_cluster = Some(standby_cluster());
            w.cluster.leader = Some(crate::world::leader("pg2"));
            w.lease = crate::world::held();
            w.memory.role = primacy_model::Role::StandbyLeader;
            let upstream = primacy_ha::Upstream::Remote(primacy_ha::Remote {
                connection: primacy_model::ConnUrl::parse("postgres://remote:5432").map(Into::into),
                ..primacy_ha::Remote::default()
            });
            w.memory.following = Some((upstream, crate::world::POSTMASTER));
            permanent(w, "backup", SlotKind::Physical);
            permanent(w, "cdc", logical_kind());
            w.global.permanent_slots["backup"].cluster_type = cluster_type;
            w.cluster.status.slots.insert("cdc".into(), POSITION);
        });
        let expected: &[&str] = if expected { &["+backup"] } else { &[] };
        assert_eq!(changes(&world), expected, "{cluster_type:?}");
    }
}

#[test]
fn s18_4_what_must_go() {
    type Setup = fn(&mut World);
    let there =
        |slots: &[ReplicationSlot]| [&[slot("pg2", true), slot("pg3", true)], slots].concat();
    let rows: [(&str, Vec<ReplicationSlot>, Setup, &[&str]); 14] = [
        (
            "one that nobody knows",
            vec![slot("stranger", false)],
            |_| {},
            &["-stranger"],
        ),
        (
            "a logical one as well",
            vec![logical("stranger")],
            |_| {},
            &["-stranger"],
        ),
        (
            "not while it is used",
            vec![slot("stranger", true)],
            |_| {},
            &[],
        ),
        (
            "not in pause",
            vec![slot("stranger", false)],
            |w| w.global.pause = true,
            &[],
        ),
        (
            "not when ignored by name",
            vec![slot("stranger", false), slot("other", false)],
            |w| {
                w.global.ignore_slots = vec![SlotMatcher {
                    name: Some("stranger".into()),
                    ..SlotMatcher::default()
                }];
            },
            &["-other"],
        ),
        (
            "not when ignored by type and plugin",
            vec![logical("stranger"), slot("other", false)],
            |w| {
                w.global.ignore_slots = vec![SlotMatcher {
                    kind: Some("logical".into()),
                    plugin: Some("pgoutput".into()),
                    ..SlotMatcher::default()
                }];
            },
            &["-other"],
        ),
        (
            "not those that Citus made in its database",
            vec![logical("citus_shard_move_slot_1_2"), logical("citus_mine")],
            |w| w.local.citus_database = Some("app".into()),
            &["-citus_mine"],
        ),
        (
            "ignored means every attribute given",
            vec![logical("stranger")],
            |w| {
                w.global.ignore_slots = vec![SlotMatcher {
                    name: Some("stranger".into()),
                    database: Some("other".into()),
                    ..SlotMatcher::default()
                }];
            },
            &["-stranger"],
        ),
        (
            "one that lost its WAL, to be made again",
            vec![with(slot("backup", false), |slot| slot.lost = true)],
            |w| permanent(w, "backup", SlotKind::Physical),
            &["-backup"],
        ),
        (
            "not in pause, though lost",
            vec![with(slot("backup", false), |slot| slot.lost = true)],
            |w| {
                permanent(w, "backup", SlotKind::Physical);
                w.global.pause = true;
            },
            &[],
        ),
        (
            "one of another type than wanted, also in pause",
            vec![slot("cdc", false)],
            |w| {
                permanent(w, "cdc", logical_kind());
                w.global.pause = true;
            },
            &["-cdc"],
        ),
        (
            "a permanent one stays on a primary that may not lead",
            vec![slot("backup", false)],
            |w| {
                permanent(w, "backup", SlotKind::Physical);
                tag(w, "pg1", json!({"nofailover": true}));
                w.global.member_slots_ttl = None;
            },
            &[],
        ),
        (
            "one without WAL reserved is made again",
            vec![with(slot("backup", false), |slot| slot.restart_lsn = None)],
            |w| permanent(w, "backup", SlotKind::Physical),
            &["-backup"],
        ),
        (
            "failover slots of PostgreSQL 17 are the server's and their owners'",
            vec![with(logical("native"), |slot| slot.failover = true)],
            |_| {},
            &[],
        ),
    ];
    for (what, slots, setup, expected) in rows {
        let world = world("pg1", &there(&slots)).with(setup);
        assert_eq!(changes(&world), expected, "{what}");
    }
    let world = world("pg1", &there(&[slot("stranger", false)])).with(|w| w.cluster.config = None);
    assert_eq!(
        world.step(),
        Step::WriteConfig(None),
        "without /config nobody knows what is wanted"
    );
}

#[test]
fn s27_failover_slots_on_standbys_of_17() {
    let unsynced = with(logical("native"), |slot| slot.failover = true);
    let synced = with(unsynced.clone(), |slot| slot.synced = true);
    for (what, slot, pause, leader, expected) in [
        (
            "one that stands in the way of synchronization",
            &unsynced,
            false,
            true,
            vec!["-native"],
        ),
        ("one that the server keeps", &synced, false, true, vec![]),
        ("nothing goes in pause", &unsynced, true, true, vec![]),
        (
            "nothing goes while nobody leads",
            &unsynced,
            false,
            false,
            vec![],
        ),
    ] {
        let there = [super_slot("pg1"), super_slot("pg3"), slot.clone()];
        let world = world("pg2", &there).with(|w| {
            w.global.pause = pause;
            if !leader {
                w.cluster.leader = None;
                w.global.pause = true;
            }
        });
        assert_eq!(changes(&world), expected, "{what}");
    }
    // A permanent one that the server synchronizes is not copied, moved or replaced.
    let world = world("pg2", &[super_slot("pg1"), super_slot("pg3"), synced]).with(|w| {
        permanent(w, "native", logical_kind());
        w.cluster.status.slots.insert("native".into(), POSITION);
    });
    assert_eq!(world.step(), Step::Wait);
}

fn super_slot(name: &str) -> ReplicationSlot {
    slot(name, false)
}

#[test]
fn s18_4_physical_slots_that_nobody_streams_through_are_moved() {
    type Setup = fn(&mut World);
    let rows: [(&str, &str, Setup, &[&str]); 8] = [
        (
            "to where the leader has them",
            "pg2",
            |w| {
                w.cluster.status.slots.insert("pg3".into(), Lsn(0x300));
            },
            &["pg3>300"],
        ),
        (
            "never back",
            "pg2",
            |w| {
                w.cluster.status.slots.insert("pg3".into(), Lsn(0x80));
            },
            &[],
        ),
        (
            "no further than this server is",
            "pg2",
            |w| {
                w.cluster
                    .status
                    .slots
                    .insert("pg3".into(), Lsn(0x9000_0000));
            },
            &["pg3>5000000"],
        ),
        ("nowhere while nothing is known", "pg2", |_| {}, &[]),
        (
            "for a member that cascades elsewhere, to where it says it is",
            "pg1",
            |w| {
                tag(w, "pg3", json!({"replicatefrom": "pg2"}));
                w.cluster.members[2].data.xlog_location = Some(Lsn(0x400));
                w.cluster.status.slots.insert("pg3".into(), Lsn(0x300));
            },
            &["pg3>400"],
        ),
        (
            "likewise under a leader that does not publish positions",
            "pg2",
            |w| {
                w.cluster.members[0].data.version = Some("3.3.2".into());
                w.cluster.members[2].data.xlog_location = Some(Lsn(0x400));
            },
            &["pg3>400"],
        ),
        (
            "not the one of a member that should be streaming",
            "pg1",
            |w| {
                w.cluster.status.slots.insert("pg3".into(), Lsn(0x300));
            },
            &[],
        ),
        (
            "permanent ones too",
            "pg2",
            |w| {
                permanent(w, "backup", SlotKind::Physical);
                w.wal().slots.as_mut().unwrap().push(slot("backup", false));
                w.cluster.status.slots.insert("backup".into(), Lsn(0x300));
            },
            &["backup>300"],
        ),
    ];
    for (what, me, setup, expected) in rows {
        let others: Vec<_> = ["pg1", "pg2", "pg3"]
            .into_iter()
            .filter(|name| *name != me)
            .map(super_slot)
            .collect();
        let world = world(me, &others).with(setup);
        assert_eq!(changes(&world), expected, "{what}");
    }
}

#[test]
fn s18_4_an_xmin_that_nobody_moves_goes_with_its_slot() {
    type Setup = fn(&mut World);
    let cascading: Setup = |w| tag(w, "pg3", json!({"replicatefrom": "pg2"}));
    let rows: [(&str, &str, &str, Setup, &[&str]); 6] = [
        (
            "of a member that streams from another one",
            "pg1",
            "pg3",
            cascading,
            &["-pg3"],
        ),
        ("of a member, on a replica", "pg2", "pg3", |_| {}, &["-pg3"]),
        (
            "not while nobody leads: it may be the next primary's",
            "pg2",
            "pg3",
            |w| {
                w.cluster.leader = None;
                w.global.pause = true;
            },
            &[],
        ),
        (
            "not of a member that is away: that is what member_slots_ttl is for",
            "pg1",
            "pg7",
            |w| w.cluster.status.retain_slots = vec!["pg7".into()],
            &[],
        ),
        (
            "not of a permanent one on the primary",
            "pg1",
            "backup",
            |w| permanent(w, "backup", SlotKind::Physical),
            &[],
        ),
        (
            "of a permanent one on a replica",
            "pg2",
            "backup",
            |w| permanent(w, "backup", SlotKind::Physical),
            &["-backup"],
        ),
    ];
    for (what, me, name, setup, expected) in rows {
        let mut slots: Vec<_> = ["pg1", "pg2", "pg3"]
            .into_iter()
            .filter(|other| *other != me && *other != name)
            .map(super_slot)
            .collect();
        slots.push(with(super_slot(name), |slot| slot.has_xmin = true));
        let world = world(me, &slots).with(setup);
        assert_eq!(changes(&world), expected, "{what}");
    }
}

#[test]
fn s18_4_after_a_failure_slots_wait_a_loop() {
    let world =
        world("pg1", &[]).with(|w| w.memory.slots.retry_at = Some(NOW + Duration::from_secs(1)));
    assert_eq!(world.step(), Step::Wait);
}

// ---- logical slots ----------------------------------------------------------------------------------------

/// `me` with the permanent logical slot `cdc`, the members' slots in place.
fn with_logical(me: &str, existing: &[ReplicationSlot]) -> World {
    let others = ["pg1", "pg2", "pg3"].into_iter().filter(|name| *name != me);
    let mut slots: Vec<_> = others.map(super_slot).collect();
    slots.extend_from_slice(existing);
    world(me, &slots).with(|w| permanent(w, "cdc", logical_kind()))
}

fn work(change: LogicalSlotChange) -> Step {
    Step::ChangeLogicalSlots {
        database: "app".into(),
        changes: vec![change],
    }
}

#[test]
fn s18_4_logical_slots_are_created_on_the_primary_in_the_background() {
    let create = work(LogicalSlotChange::Create {
        name: "cdc".into(),
        plugin: "pgoutput".into(),
    });
    let missing = with_logical("pg1", &[]);
    assert_eq!(missing.because("ha.md §18.4"), create);
    let working = with_logical("pg1", &[]).with(|w| {
        w.memory.slots.working_in.insert("app".into());
    });
    assert_eq!(working.step(), Step::Wait, "one at a time in a database");
    let failed = with_logical("pg1", &[]).with(|w| {
        let later = NOW + Duration::from_secs(1);
        w.memory.slots.failed_in.insert("app".into(), later);
    });
    assert_eq!(failed.step(), Step::Wait, "and not at once again");
    assert_eq!(with_logical("pg1", &[logical("cdc")]).step(), Step::Wait);
}

#[test]
fn s18_4_logical_slots_of_replicas_follow_the_primary() {
    for (what, published, replayed, expected) in [
        ("to where the primary's is", Some(0x300), 0x500, Some(0x300)),
        (
            "no further than is replayed",
            Some(0x300),
            0x280,
            Some(0x280),
        ),
        ("never back", Some(0x100), 0x500, None),
        ("nowhere while nothing is known", None, 0x500, None),
    ] {
        let world = with_logical("pg2", &[logical("cdc")]).with(|w| {
            w.wal().replay_lsn = Lsn(replayed);
            if let Some(lsn) = published {
                w.cluster.status.slots.insert("cdc".into(), Lsn(lsn));
            }
        });
        let step = expected.map_or(Step::Wait, |lsn| {
            work(LogicalSlotChange::Advance {
                name: "cdc".into(),
                to: Lsn(lsn),
            })
        });
        assert_eq!(world.step(), step, "{what}");
    }
}

#[test]
fn s18_6_logical_slots_that_a_replica_lacks_are_copied() {
    type Setup = fn(&mut World);
    let rows: [(&str, Setup, bool); 10] = [
        ("missing", |_| {}, true),
        (
            "its WAL is gone",
            |w| {
                w.wal().slots.as_mut().unwrap().push(logical("cdc"));
                w.memory.slots.stuck.insert("cdc".into());
            },
            true,
        ),
        (
            "the primary does not have it either",
            |w| w.cluster.status.slots.clear(),
            false,
        ),
        (
            "nobody leads",
            |w| {
                w.cluster.leader = None;
                w.global.pause = true;
            },
            false,
        ),
        (
            "nor while a primary without a store relies on this member",
            |w| {
                let leader = primacy_ha::FailsafeLeader {
                    name: "pg1".into(),
                    conn_url: "postgres://pg1:5432/postgres".into(),
                    api_url: "http://pg1:8008/patroni".into(),
                    slots: None,
                    ttl: None,
                };
                let until = NOW + Duration::from_secs(9);
                w.memory.failsafe.promise = Some(primacy_ha::FailsafePromise { leader, until });
            },
            false,
        ),
        (
            "in pause nothing is restarted",
            |w| w.global.pause = true,
            false,
        ),
        (
            "copied a moment ago",
            |w| {
                w.memory
                    .slots
                    .copy_at
                    .insert("cdc".into(), NOW + Duration::from_secs(9));
            },
            false,
        ),
        (
            "the leader is not a primary yet",
            |w| w.cluster.members[0].data.role = Some(primacy_model::Role::Replica),
            false,
        ),
        (
            "a member that may not lead",
            |w| tag(w, "pg2", json!({"nofailover": true})),
            false,
        ),
        (
            "named like a member: the physical one wins",
            |w| {
                w.global.permanent_slots.clear();
                permanent(w, "pg3", logical_kind());
                w.cluster.status.slots.insert("pg3".into(), Lsn(0x80));
            },
            false,
        ),
    ];
    for (what, setup, copied) in rows {
        let world = with_logical("pg2", &[]).with(|w| {
            w.cluster.status.slots.insert("cdc".into(), Lsn(0x300));
            setup(w);
        });
        let step = world.step();
        let stuck = !world.memory.slots.stuck.is_empty();
        let copies = matches!(
            &step,
            Step::StartJob(Job::CopyLogicalSlots { slots, .. }) if slots[0].name == "cdc" && slots[0].stuck == stuck
        );
        assert_eq!(copies, copied, "{what}: {step:?}");
    }
}

#[test]
fn s18_6_a_synchronous_standby_leaves_before_it_copies() {
    let world = with_logical("pg2", &[]).sync("pg1", &["pg2"]).with(|w| {
        w.cluster.status.slots.insert("cdc".into(), Lsn(0x300));
    });
    assert_eq!(world.because("ha.md §13.6"), Step::WithdrawFromSync);
}

#[test]
fn s18_6_the_primary_is_asked_until_a_copy_is_known_to_be_good() {
    let unready = |change: fn(&mut World)| {
        with_logical("pg3", &[logical("cdc")]).with(|w| {
            tag(w, "pg3", json!({"replicatefrom": "pg2"}));
            w.memory.following = Some((
                primacy_ha::Upstream::Member {
                    name: "pg2".into(),
                    connection: primacy_model::ConnUrl::parse("postgres://pg2:5432/postgres")
                        .unwrap(),
                },
                crate::world::POSTMASTER,
            ));
            w.memory.slots.unready.insert("cdc".into(), None);
            change(w);
        })
    };
    let Step::CompareLogicalSlots {
        source,
        physical,
        logical,
    } = unready(|_| {}).because("ha.md §18.6")
    else {
        panic!("{:?}", unready(|_| {}).step());
    };
    assert_eq!(source.connection.host, "pg1");
    assert_eq!(physical, "pg2", "its WAL comes through that member's slot");
    assert_eq!(logical, ["cdc"]);
    assert_eq!(
        unready(|w| w.memory.slots.comparing = true).step(),
        Step::Wait
    );
    assert_eq!(
        unready(|w| w.memory.slots.compared_at = Some(NOW)).step(),
        Step::Wait
    );
}

#[test]
fn w23_a_member_whose_slots_lack_something_leaves_the_lock_to_one_that_is_as_far() {
    let acquires = |world: World| matches!(world.step(), Step::AcquireLeader { .. });
    let unready = |w: &mut World| {
        w.memory.slots.unready.insert("cdc".into(), None);
    };
    let missing = |w: &mut World| {
        permanent(w, "cdc", logical_kind());
        w.cluster.status.slots.insert("cdc".into(), Lsn(1));
    };
    let fresh = |w: &mut World| {
        w.cluster.status.retain_slots = vec!["pg4".into()];
        w.cluster.status.slots.insert("pg4".into(), Lsn(1));
        w.server.wal.as_mut().expect("it runs").slots = Some(vec![slot("pg4", false)]);
    };
    let lacking: [&dyn Fn(&mut World); 3] = [&unready, &missing, &fresh];
    for change in lacking {
        let race = |theirs: u64, seconds: u64| {
            World::unlocked("pg2")
                .peers(&[("pg3", Some(theirs))])
                .with(|w| {
                    w.server.wal.as_mut().expect("it runs").slots = Some(Vec::new());
                    w.memory.unlocked_since = Some(NOW - Duration::from_secs(seconds));
                    change(w);
                })
        };
        let until = NOW + Duration::from_secs(2);
        assert_eq!(
            race(POSITION.0, 1).because("ha.md W23"),
            Step::WaitUntil(until)
        );
        // It had its time; or nobody else would win.
        assert!(acquires(race(POSITION.0, 3)));
        assert!(acquires(race(POSITION.0 - 1, 1)));
        assert!(acquires(race(POSITION.0, 1).silence()));
        let preferred = race(POSITION.0, 1).with(|w| {
            w.local.tags = Tags::from_json(&json!({"failover_priority": 2}));
        });
        assert!(acquires(preferred));
        let alone_in_sync = race(POSITION.0, 1).sync("pg1", &["pg2"]);
        assert!(acquires(alone_in_sync));
        let incapable = race(POSITION.0, 1).with(|w| {
            let answers = w.peers.as_mut().expect("answers");
            let answer = answers.get_mut("pg3").and_then(Option::as_mut);
            answer.expect("an answer").watchdog_failed = true;
        });
        assert!(acquires(incapable));
        // An operator's choice waits for nobody.
        assert!(acquires(race(POSITION.0, 1).failover(None, Some("pg2"))));
        // A server that accepts writes already has what its consumers were told.
        let primary = World::unlocked("pg1")
            .peers(&[("pg2", Some(POSITION.0)), ("pg3", Some(POSITION.0))])
            .with(|w| {
                w.server.wal.as_mut().expect("it runs").slots = Some(Vec::new());
                w.memory.unlocked_since = Some(NOW - Duration::from_secs(1));
                change(w);
            });
        assert!(acquires(primary));
        // A standby cluster has no logical ones, and its physical ones are the remote primary's affair.
        let standby_leader = race(POSITION.0, 1).with(|w| {
            w.global.standby_cluster = Some(standby_cluster());
        });
        assert!(acquires(standby_leader));
    }
}

#[test]
fn w23_a_member_whose_slots_lack_nothing_takes_the_lock_at_once() {
    let here = |w: &mut World, slots: &[ReplicationSlot]| {
        w.server.wal.as_mut().expect("it runs").slots = Some(slots.to_vec());
    };
    let all_here = |w: &mut World| {
        permanent(w, "cdc", logical_kind());
        w.cluster.status.slots.insert("cdc".into(), Lsn(1));
        here(w, &[logical("cdc")]);
    };
    // The former leader had none, either.
    let not_made_yet = |w: &mut World| {
        permanent(w, "cdc", logical_kind());
        here(w, &[]);
    };
    // A physical one can be made anywhere.
    let physical = |w: &mut World| {
        permanent(w, "backup", SlotKind::Physical);
        w.cluster.status.slots.insert("backup".into(), Lsn(1));
        here(w, &[]);
    };
    let setups: [&dyn Fn(&mut World); 3] = [&all_here, &not_made_yet, &physical];
    for setup in setups {
        let world = World::unlocked("pg2")
            .peers(&[("pg3", Some(POSITION.0))])
            .with(|w| {
                w.memory.unlocked_since = Some(NOW);
                setup(w);
            });
        assert!(
            matches!(world.step(), Step::AcquireLeader { .. }),
            "{:?}",
            world.decide()
        );
    }
}
