//! The specification's tables over made-up snapshots, and the API over real sockets.

mod bench;
mod contract;
mod documents;
mod fuzz;
mod gated;
mod http;
mod situations;
mod tls;
mod wire;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use primacy_config::GlobalConfig;
use primacy_model::{
    Cluster, DataDirectory, Leader, Lsn, Member, MemberData, MemberName, Observation, Readiness,
    Role, Session, State, Status, SyncState, SystemIdentifier, Timeline, Version, WalReceiver,
    WalSender, WalStatus,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::published::Published;

/// The member `pg1` of a cluster that `pg0` leads, everything well: a streaming replica.
fn replica() -> Published {
    let now = Instant::now();
    let later = now + Duration::from_secs(30);
    Published {
        scope: "demo".into(),
        name: "pg1".into(),
        view: Some(Arc::new(cluster())),
        view_until: later,
        dynamic: Arc::new(Map::new()),
        global: Arc::new(GlobalConfig::default()),
        failsafe_map: None,
        state: State::Running,
        role: Role::Replica,
        observation: Arc::new(observation(replica_wal())),
        observed_at: now,
        lease_until: None,
        failsafe_until: None,
        tags: Default::default(),
        configured_tags: Default::default(),
        dcs_last_seen: 1_795_216_450,
        pending_restart: None,
        scheduled_restart: None,
        job: None,
        job_progress: None,
        watchdog_failed: false,
        fence: None,
        next_pass: later,
        postmaster_alive: true,
        outcome: String::new(),
    }
}

/// The leader `pg0` of the same cluster.
fn primary() -> Published {
    let replica = replica();
    Published {
        name: "pg0".into(),
        role: Role::Primary,
        observation: Arc::new(observation(primary_wal())),
        lease_until: Some(replica.view_until),
        dcs_last_seen: 1_795_216_449,
        ..replica
    }
}

fn cluster() -> Cluster {
    let member = |name: &str, number: u8| Member {
        name: name.into(),
        version: Version(1),
        session: None,
        data: MemberData {
            conn_url: Some(format!("postgres://10.0.0.1{number}:5432/postgres")),
            api_url: Some(format!("http://10.0.0.1{number}:8008/patroni")),
            state: Some(State::Running),
            ..MemberData::default()
        },
    };
    Cluster {
        leader: Some(Leader {
            name: "pg0".into(),
            version: Version(1),
            session: Some(Session("1".into())),
        }),
        members: vec![member("pg0", 1), member("pg1", 2), member("pg2", 3)],
        status: Status {
            optime: Lsn(50_331_744),
            ..Status::default()
        },
        ..Cluster::default()
    }
}

fn observation(wal: WalStatus) -> Observation {
    Observation {
        data_directory: DataDirectory::Valid,
        major_version: Some(15),
        system_identifier: SystemIdentifier::parse("7710395762296189624"),
        readiness: Readiness::Accepting,
        wal: Some(wal),
        ..Observation::default()
    }
}

fn primary_wal() -> WalStatus {
    WalStatus {
        server_version: 150_018,
        postmaster_start_time: Some("2026-11-20T23:13:29.134102Z".parse().unwrap()),
        postmaster_start_time_text: "2026-11-20 23:13:29.134102+00".into(),
        timeline: Some(Timeline(1)),
        flush_lsn: Lsn(50_331_744),
        senders: vec![WalSender {
            user: "replicator".into(),
            application_name: "pg1".into(),
            client_addr: Some("10.0.0.12".into()),
            state: "streaming".into(),
            sync_state: "async".into(),
            ..WalSender::default()
        }],
        ..WalStatus::default()
    }
}

fn replica_wal() -> WalStatus {
    WalStatus {
        server_version: 150_018,
        postmaster_start_time: Some("2026-11-20T23:13:38.535128Z".parse().unwrap()),
        postmaster_start_time_text: "2026-11-20 23:13:38.535128+00".into(),
        receive_lsn: Lsn(50_331_744),
        replay_lsn: Lsn(50_331_744),
        receiver: Some(WalReceiver {
            status: "streaming".into(),
            timeline: Some(Timeline(1)),
            latest_end_lsn: Lsn(50_331_744),
            ..WalReceiver::default()
        }),
        ..WalStatus::default()
    }
}

/// Changes a snapshot's parts that are shared.
trait With: Sized {
    fn with(self, change: impl FnOnce(&mut Self)) -> Self;
    fn with_global(self, change: impl FnOnce(&mut GlobalConfig)) -> Self;
    fn with_view(self, change: impl FnOnce(&mut Cluster)) -> Self;
    fn with_wal(self, change: impl FnOnce(&mut WalStatus)) -> Self;
    fn without_answer(self) -> Self;
    fn without_view(self) -> Self;
}

impl With for Published {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with_global(mut self, change: impl FnOnce(&mut GlobalConfig)) -> Self {
        change(Arc::make_mut(&mut self.global));
        self
    }

    fn with_view(mut self, change: impl FnOnce(&mut Cluster)) -> Self {
        let mut view = (**self.view.as_ref().unwrap()).clone();
        change(&mut view);
        self.view = Some(Arc::new(view));
        self
    }

    fn with_wal(mut self, change: impl FnOnce(&mut WalStatus)) -> Self {
        change(Arc::make_mut(&mut self.observation).wal.as_mut().unwrap());
        self
    }

    fn without_answer(mut self) -> Self {
        Arc::make_mut(&mut self.observation).wal = None;
        self
    }

    fn without_view(mut self) -> Self {
        self.view = None;
        self
    }
}

fn listed_in_sync(cluster: &mut Cluster) {
    cluster.sync = SyncState {
        leader: Some("pg0".into()),
        standbys: vec![MemberName::from("PG1")],
        quorum: 0,
        version: Some(Version(1)),
    };
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}
