//! Situations, built in a line or two each.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::{GlobalConfig, SynchronousMode};
use primacy_ha::{
    Decision, Job, JobInFlight, Lease, Local, Memory, Moment, PeerReport, Peers, Situation, Step,
    StoreView, decide,
};
use primacy_model::{
    Cluster, ControlData, ControlState, DataDirectory, DynamicConfig, FailoverRequest, History,
    Initialize, Leader, Lsn, Member, MemberData, Observation, PostmasterIdentity, Process,
    Readiness, Role, State, Status, SyncState, SystemIdentifier, Tags, Timeline, Version,
    WalReceiver, WalSender, WalStatus,
};
use serde_json::{Map, Value, json};

pub(crate) const NOW: Moment = Moment(Duration::from_secs(1_000));
pub(crate) const POSITION: Lsn = Lsn(0x500_0000);
const SYSTEM: &str = "7710395762296189624";

pub(crate) struct World {
    pub(crate) local: Local,
    pub(crate) global: GlobalConfig,
    pub(crate) cluster: Cluster,
    pub(crate) reachable: bool,
    pub(crate) last_healthy: Option<Cluster>,
    pub(crate) lease: Lease,
    pub(crate) server: Observation,
    pub(crate) memory: Memory,
    pub(crate) job: Option<JobInFlight>,
    pub(crate) peers: Option<Peers>,
}

impl World {
    /// `pg1`, `pg2`, `pg3`; `pg1` leads and is the primary; this member is `me`, healthy and at rest.
    pub(crate) fn of(me: &str) -> World {
        let cluster = Cluster {
            initialize: Initialize::Done(system()),
            config: Some(DynamicConfig {
                value: Map::from_iter([("ttl".to_owned(), json!(30))]),
                version: Version(1),
            }),
            leader: Some(leader("pg1")),
            members: ["pg1", "pg2", "pg3"].map(member).into(),
            status: Status {
                optime: POSITION,
                ..Status::default()
            },
            history: Some(History::default()),
            ..Cluster::default()
        };
        let primary = me == "pg1";
        World {
            local: Local {
                name: me.into(),
                tags: Tags::default(),
                conn_url: format!("postgres://{me}:5432/postgres"),
                api_url: url(me),
                proxy_url: None,
                may_bootstrap: true,
                custom_bootstrap: false,
                replica_methods: vec!["basebackup".into()],
                methods_without_source: Default::default(),
                use_pg_rewind: true,
                remove_on_rewind_failure: false,
                remove_on_divergence: false,
                watchdog: Default::default(),
                fence_required: false,
                citus_database: None,
            },
            global: GlobalConfig {
                use_slots: false,
                ..GlobalConfig::default()
            },
            last_healthy: Some(cluster.clone()),
            cluster,
            reachable: true,
            lease: if primary { held() } else { Lease::None },
            server: running(if primary {
                primary_wal()
            } else {
                replica_wal()
            }),
            memory: Memory {
                store_seen: true,
                joined: true,
                role: if primary {
                    Role::Primary
                } else {
                    Role::Replica
                },
                state: State::Running,
                checkpoint_done: Some(Timeline(1)),
                following: (!primary).then(|| {
                    let upstream = primacy_ha::Upstream::Member {
                        name: "pg1".into(),
                        connection: primacy_model::ConnUrl::parse("postgres://pg1:5432/postgres")
                            .expect("a URL"),
                    };
                    (upstream, POSTMASTER)
                }),
                ..Memory::default()
            },
            job: None,
            peers: None,
        }
    }

    /// Nobody holds the lock; this member is a replica.
    pub(crate) fn unlocked(me: &str) -> World {
        let mut world = World::of(me);
        world.cluster.leader = None;
        world.lease = Lease::None;
        world
    }

    /// PostgreSQL of this member does not run.
    pub(crate) fn stopped(mut self, state: ControlState) -> World {
        self.server.process = Process::Absent;
        self.server.readiness = Readiness::NoAnswer;
        self.server.wal = None;
        self.server.control = Some(control(state));
        self.memory.state = State::Stopped;
        self.memory.following = None;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut World)) -> World {
        change(&mut self);
        self
    }

    /// Every member answered: name, position; a primary has none.
    pub(crate) fn peers(mut self, answers: &[(&str, Option<u64>)]) -> World {
        let report = |position: Option<u64>| PeerReport {
            in_recovery: position.is_some(),
            position: Lsn(position.unwrap_or(0)),
            timeline: Some(Timeline(1)),
            tags: Tags::default(),
            watchdog_failed: false,
            failsafe_active: false,
        };
        let answers = answers
            .iter()
            .map(|(name, position)| ((*name).into(), Some(report(*position))));
        self.peers = Some(answers.collect());
        self
    }

    /// Nobody answered.
    pub(crate) fn silence(mut self) -> World {
        self.peers = Some(BTreeMap::new());
        self
    }

    pub(crate) fn failover(mut self, leader: Option<&str>, candidate: Option<&str>) -> World {
        self.cluster.failover = Some(FailoverRequest {
            leader: leader.map(Into::into),
            candidate: candidate.map(Into::into),
            scheduled_at: None,
            version: Version(9),
        });
        self
    }

    /// Synchronous mode, with this in `/sync`.
    pub(crate) fn sync(mut self, leader: &str, standbys: &[&str]) -> World {
        self.global.synchronous_mode = SynchronousMode::On;
        self.cluster.sync = SyncState {
            leader: Some(leader.into()),
            standbys: standbys.iter().map(|name| (*name).into()).collect(),
            quorum: 0,
            version: Some(Version(5)),
        };
        self
    }

    /// The primary's `synchronous_standby_names`, and its walsenders: name, sync state.
    pub(crate) fn names(mut self, names: &str, senders: &[(&str, &str)]) -> World {
        let wal = self.server.wal.as_mut().expect("a running server");
        wal.synchronous_standby_names = names.into();
        wal.senders = senders
            .iter()
            .map(|(name, state)| sender(name, state))
            .collect();
        self.memory.sync.managed = Some(names.into());
        self.memory.sync.obeyed = Some(names.into());
        self.memory.sync.names = Some(names.into());
        self.memory.sync.position = Some(POSITION);
        self
    }

    pub(crate) fn job(mut self, job: Job) -> World {
        self.job = Some(JobInFlight {
            job,
            since: NOW - Duration::from_secs(5),
            cancelling: false,
            no_backends: false,
            shutdown_lsn: None,
            progress: None,
        });
        self
    }

    pub(crate) fn tags(mut self, tags: Value) -> World {
        self.local.tags = Tags::from_json(&tags);
        self
    }

    pub(crate) fn decide(&self) -> Decision {
        let decision = decide(&Situation {
            now: NOW,
            wall: Timestamp::UNIX_EPOCH,
            local: &self.local,
            global: &self.global,
            store: match self.reachable {
                true => StoreView::Seen(&self.cluster),
                false => StoreView::Unreachable,
            },
            last_healthy: self.last_healthy.as_ref(),
            lease: self.lease,
            server: &self.server,
            memory: &self.memory,
            job: self.job.as_ref(),
            peers: self.peers.as_ref(),
        });
        // I7: whoever does something says by which rule.
        let rests = matches!(
            decision.step,
            Step::Wait | Step::WaitUntil(_) | Step::AskPeers(_)
        );
        assert!(rests || !decision.reasons.is_empty(), "{decision:#?}");
        decision
    }

    pub(crate) fn step(&self) -> Step {
        self.decide().step
    }

    /// Whether the decision names this rule among its reasons.
    #[track_caller]
    pub(crate) fn because(&self, rule: &str) -> Step {
        let decision = self.decide();
        assert!(
            decision.reasons.iter().any(|reason| reason.rule == rule),
            "{rule} is not among {decision:#?}"
        );
        decision.step
    }

    pub(crate) fn wal(&mut self) -> &mut WalStatus {
        self.server.wal.as_mut().expect("a running server")
    }
}

pub(crate) const POSTMASTER: PostmasterIdentity = PostmasterIdentity {
    pid: 4711,
    start_ticks: 99,
};

pub(crate) fn held() -> Lease {
    Lease::Held {
        until: NOW + Duration::from_secs(25),
        failing_since: None,
    }
}

pub(crate) fn leader(name: &str) -> Leader {
    Leader {
        name: name.into(),
        version: Version(3),
        session: None,
    }
}

pub(crate) fn system() -> SystemIdentifier {
    SystemIdentifier::parse(SYSTEM).expect("an identifier")
}

fn url(name: &str) -> String {
    format!("http://{name}:8008/patroni")
}

pub(crate) fn member(name: &str) -> Member {
    Member {
        name: name.into(),
        version: Version(2),
        session: None,
        data: MemberData {
            conn_url: Some(format!("postgres://{name}:5432/postgres")),
            api_url: Some(url(name)),
            state: Some(State::Running),
            role: Some(if name == "pg1" {
                Role::Primary
            } else {
                Role::Replica
            }),
            version: Some("4.1.5".into()),
            timeline: Some(Timeline(1)),
            ..MemberData::default()
        },
    }
}

fn running(wal: WalStatus) -> Observation {
    Observation {
        data_directory: DataDirectory::Valid,
        major_version: Some(15),
        system_identifier: Some(system()),
        process: Process::Running(POSTMASTER),
        readiness: Readiness::Accepting,
        wal: Some(wal),
        ..Observation::default()
    }
}

pub(crate) fn primary_wal() -> WalStatus {
    WalStatus {
        server_version: 150_018,
        timeline: Some(Timeline(1)),
        checkpoint_timeline: Some(Timeline(1)),
        flush_lsn: POSITION,
        synchronous_commit: "on".into(),
        slots: Some(Vec::new()),
        ..WalStatus::default()
    }
}

pub(crate) fn replica_wal() -> WalStatus {
    WalStatus {
        timeline: None,
        flush_lsn: Lsn::ZERO,
        receive_lsn: POSITION,
        replay_lsn: POSITION,
        receiver: Some(WalReceiver {
            status: "streaming".into(),
            timeline: Some(Timeline(1)),
            ..WalReceiver::default()
        }),
        ..primary_wal()
    }
}

pub(crate) fn sender(name: &str, sync_state: &str) -> WalSender {
    WalSender {
        application_name: name.into(),
        state: "streaming".into(),
        sync_state: sync_state.into(),
        write_lsn: Some(POSITION),
        flush_lsn: Some(POSITION),
        replay_lsn: Some(POSITION),
        ..WalSender::default()
    }
}

pub(crate) fn control(state: ControlState) -> ControlData {
    ControlData {
        state,
        system_identifier: Some(system()),
        checkpoint_lsn: POSITION,
        checkpoint_timeline: Some(Timeline(1)),
        min_recovery_lsn: Lsn::ZERO,
        min_recovery_timeline: None,
        rewindable: true,
    }
}
