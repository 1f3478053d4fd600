use jiff::Timestamp;

use crate::{Lsn, Probes, ReplicationState, SystemIdentifier, Timeline};

/// One look at the local server: its files, its process, and what it answered. Everything in it was
/// observed; what could not be observed is absent, never guessed.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Observation {
    /// The data directory.
    pub data_directory: DataDirectory,
    /// The major version that the data directory was made by, as in `PG_VERSION`: 15, 17.
    pub major_version: Option<u32>,
    /// From the control file.
    pub system_identifier: Option<SystemIdentifier>,
    /// The postmaster.
    pub process: Process,
    /// What the server says to a connection attempt. Means something only beside a live process.
    pub readiness: Readiness,
    /// The answer to the status query, `None` when there was none.
    pub wal: Option<WalStatus>,
    /// The control file, read when the process is absent or when the server did not answer.
    pub control: Option<ControlData>,
    /// `standby.signal` or `recovery.signal` is there: a start would be a start into recovery.
    pub recovery_signal: bool,
    /// `backup_label` is there: a base backup that has not reached consistency.
    pub backup_label: bool,
    /// An agent of this member began to make a new cluster here and did not say that it was finished.
    pub unfinished_bootstrap: bool,
    /// An agent found that the WAL here left its leader's, and none has found since that it did not.
    pub diverged: bool,
    /// A standby that was started over a primary's WAL, which nothing told the agent to be part of a later primary's since.
    pub former_primary: bool,
    /// It is a standby still, and an agent has asked this very postmaster to promote.
    pub promoting: bool,
    /// The watchdog device is there and writable.
    pub watchdog_usable: bool,
    /// Whether the server answers those who ask, besides this look.
    pub probes: Probes,
}

/// The data directory (`ha.md` §3 I).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DataDirectory {
    /// Missing, or nothing in it but dot entries and `lost+found`.
    #[default]
    Empty,
    /// Holds a cluster: `global/pg_control` is there.
    Valid,
    /// Holds a cluster in which pg_rewind began to write and did not come to its end, which PostgreSQL does not recover
    /// from. The text says where that is noted.
    HalfRewound(String),
    /// Holds files, but no control file: somebody's data, or a copy that broke off. Never touched
    /// without being asked.
    Foreign(String),
    /// Could not be read; the text says why.
    Unreadable(String),
    /// The disk did not answer in time; the text says what was tried. Nothing is known of what is there.
    Hanging(String),
}

/// The postmaster of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Process {
    /// None is alive.
    #[default]
    Absent,
    /// Alive.
    Running(PostmasterIdentity),
    /// A backend in single-user mode holds the directory.
    SingleUser(PostmasterIdentity),
    /// Killed together with everything below it, and still held by the kernel, in a disk operation that does not
    /// end. Nothing of it ever runs again, and nothing may be started before it is gone.
    Dying(PostmasterIdentity),
}

impl Process {
    /// Whether something lives.
    pub fn is_alive(self) -> bool {
        !matches!(self, Process::Absent | Process::Dying(_))
    }

    /// The postmaster, also while it is dying.
    pub fn postmaster(self) -> Option<PostmasterIdentity> {
        match self {
            Process::Running(identity) | Process::Dying(identity) => Some(identity),
            Process::Absent | Process::SingleUser(_) => None,
        }
    }
}

/// A process that cannot be confused with another one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostmasterIdentity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// The answer to a connection attempt, as `pg_isready` classifies it (`ha.md` §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Readiness {
    /// Accepts connections.
    Accepting,
    /// Answers, but rejects: starting up, shutting down.
    Rejecting,
    /// No answer.
    #[default]
    NoAnswer,
}

/// The answer to the status query (`rest-api.md` §3.2).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct WalStatus {
    /// `server_version_num`: 150018.
    pub server_version: u32,
    /// When the postmaster started.
    pub postmaster_start_time: Option<Timestamp>,
    /// That time as the session printed it, in the session's time zone.
    pub postmaster_start_time_text: String,
    /// The current timeline; `None` in recovery. A server is a primary exactly when this is known.
    pub timeline: Option<Timeline>,
    /// Primary: flushed.
    pub flush_lsn: Lsn,
    /// Recovery: replayed.
    pub replay_lsn: Lsn,
    /// Recovery: received and flushed, or written where that is further.
    pub receive_lsn: Lsn,
    /// Recovery: replay is paused.
    pub replay_paused: bool,
    /// Recovery: commit time of the last replayed transaction.
    pub replayed_timestamp: Option<Timestamp>,
    /// That time as the session printed it.
    pub replayed_timestamp_text: Option<String>,
    /// Recovery: the walreceiver, when it runs.
    pub receiver: Option<WalReceiver>,
    /// Recovery without a walreceiver: the timeline that is replayed.
    pub replay_timeline: Option<Timeline>,
    /// `restore_command` is set.
    pub restore_command: bool,
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `synchronous_standby_names` in effect for this session.
    pub synchronous_standby_names: String,
    /// The timeline that the control file names: behind `timeline` until the first checkpoint after a
    /// promotion.
    pub checkpoint_timeline: Option<Timeline>,
    /// Every walsender.
    pub senders: Vec<WalSender>,
    /// Replication slots, temporary ones left out. `None` when they were not asked for.
    pub slots: Option<Vec<ReplicationSlot>>,
}

impl WalStatus {
    /// Whether the server is out of recovery.
    pub fn is_primary(&self) -> bool {
        self.timeline.is_some()
    }

    /// The timeline that [`WalStatus::position`] is on. The control file's may be an older one.
    pub fn timeline_in_use(&self) -> Option<Timeline> {
        let received = self
            .receiver
            .as_ref()
            .and_then(|receiver| receiver.timeline);
        self.timeline.or(received).or(self.replay_timeline)
    }

    /// The member's WAL position (`ha.md` §1.4): flushed on a primary, else the further of received and
    /// replayed.
    pub fn position(&self) -> Lsn {
        if self.is_primary() {
            self.flush_lsn
        } else {
            self.receive_lsn.max(self.replay_lsn)
        }
    }

    /// How WAL arrives (`rest-api.md` §5); `None` on a primary and where it does not arrive at all.
    pub fn replication_state(&self) -> Option<ReplicationState> {
        if self.is_primary() {
            None
        } else if self
            .receiver
            .as_ref()
            .is_some_and(|receiver| receiver.status == "streaming")
        {
            Some(ReplicationState::Streaming)
        } else {
            self.restore_command
                .then_some(ReplicationState::InArchiveRecovery)
        }
    }
}

/// `pg_stat_wal_receiver`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WalReceiver {
    /// `streaming`, `starting`, …
    pub status: String,
    /// Timeline being received.
    pub timeline: Option<Timeline>,
    /// The sender's position as last reported.
    pub latest_end_lsn: Lsn,
    /// Where it connects to.
    pub sender_host: Option<String>,
    /// Port of that.
    pub sender_port: Option<u16>,
    /// Slot in use.
    pub slot_name: Option<String>,
    /// The connection string, password hidden by PostgreSQL.
    pub conninfo: String,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WalSender {
    /// Process id of the walsender.
    pub pid: i32,
    /// `usename`.
    pub user: String,
    /// `application_name`: a member's name, for members.
    pub application_name: String,
    /// `client_addr`.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `backup`, …
    pub state: String,
    /// `async`, `potential`, `sync`, `quorum`.
    pub sync_state: String,
    /// `sync_priority`.
    pub sync_priority: i32,
    /// Written by the standby.
    pub write_lsn: Option<Lsn>,
    /// Flushed by the standby.
    pub flush_lsn: Option<Lsn>,
    /// Replayed by the standby.
    pub replay_lsn: Option<Lsn>,
    /// The replication slot that it streams through.
    pub slot: Option<String>,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSlot {
    /// `slot_name`.
    pub name: String,
    /// Physical, or logical with database and plugin.
    pub kind: SlotKind,
    /// Somebody streams through it.
    pub active: bool,
    /// `restart_lsn`.
    pub restart_lsn: Option<Lsn>,
    /// `confirmed_flush_lsn`.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `xmin` is set: a physical slot that holds back vacuum.
    pub has_xmin: bool,
    /// `catalog_xmin`.
    pub catalog_xmin: Option<u64>,
    /// `wal_status` is `lost`.
    pub lost: bool,
    /// `failover` (17 and later).
    pub failover: bool,
    /// `synced` (17 and later).
    pub synced: bool,
}

/// What a slot is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// For a standby.
    Physical,
    /// For decoding.
    Logical {
        /// Database that it decodes.
        database: String,
        /// Output plugin.
        plugin: String,
    },
}

/// `pg_controldata`, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// `Database cluster state`.
    pub state: ControlState,
    /// `Database system identifier`.
    pub system_identifier: Option<SystemIdentifier>,
    /// `Latest checkpoint location`.
    pub checkpoint_lsn: Lsn,
    /// `Latest checkpoint's TimeLineID`.
    pub checkpoint_timeline: Option<Timeline>,
    /// `Minimum recovery ending location`.
    pub min_recovery_lsn: Lsn,
    /// `Min recovery ending loc's timeline`.
    pub min_recovery_timeline: Option<Timeline>,
    /// `wal_log_hints setting: on`, or a data page checksum version other than 0: pg_rewind can work.
    pub rewindable: bool,
}

/// `Database cluster state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    /// `starting up`
    StartingUp,
    /// `shut down`
    ShutDown,
    /// `shut down in recovery`
    ShutDownInRecovery,
    /// `shutting down`
    ShuttingDown,
    /// `in crash recovery`
    InCrashRecovery,
    /// `in archive recovery`
    InArchiveRecovery,
    /// `in production`
    InProduction,
    /// Anything else.
    Unknown,
}

impl ControlState {
    /// Whether the server ran as a primary last, or runs as one.
    pub fn is_a_primarys(self) -> bool {
        matches!(
            self,
            ControlState::InProduction
                | ControlState::InCrashRecovery
                | ControlState::ShuttingDown
                | ControlState::ShutDown
        )
    }
}
