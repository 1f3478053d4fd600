//! PostgreSQL, as far as decisions about high availability depend on it: where WAL is written, flushed, sent and
//! confirmed; which commits wait for whom; what survives a crash; what a start, a stop and a promotion do.
//!
//! What is durable is in [`Disk`], what ends with the postmaster in [`Running`]. Positions are bytes on a branch of
//! [`crate::history::History`].

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_model::{
    ControlData, ControlState, DataDirectory, Lsn, Observation, PostmasterIdentity, Process,
    Readiness, SystemIdentifier, WalReceiver, WalSender, WalStatus,
};

use crate::history::Branch;
use crate::invariants;
use crate::network::End;
use crate::synchronous::Names;
use crate::world::{Happening, Instant, NodeId, World};

/// Where the WAL of a new cluster begins.
const FIRST_POSITION: u64 = 0x0100_0000;
/// A checkpoint's record.
const CHECKPOINT_RECORD: u64 = 120;
/// `wal_retrieve_retry_interval`.
const RETRIEVE_RETRY: Duration = Duration::from_secs(5);
/// `wal_receiver_status_interval`: a standby tells its position at least so often.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// `wal_sender_timeout` and `wal_receiver_timeout`: a connection that says nothing for so long is given up.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60);
/// From a failed write to the end of all processes but the postmaster.
const PANIC_DELAY: Duration = Duration::from_millis(30);

/// Of the commits of impatient clients so many in a thousand are not waited for any longer than a while.
const IMPATIENT: u32 = 300;
/// Interrupts are held off while WAL is flushed.
const UNINTERRUPTIBLE: Duration = Duration::from_millis(20);
/// Between two looks at whether slow recovery has come to its end.
const STILL_RECOVERING: Duration = Duration::from_secs(1);

/// A server is probed so often (`probe.rs` of the agent's PostgreSQL).
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// One data directory and the server on it, if one runs.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) disk: Disk,
    pub(crate) running: Option<Running>,
    next_pid: i32,
    lives: u64,
    /// `fsync` takes a hundred times as long.
    pub(crate) slow: u32,
    /// Nothing can be written; clients' statements fail before they write WAL.
    pub(crate) full: u32,
    /// No WAL can be written.
    pub(crate) wal_full: u32,
    /// Recovery and promotions do not come to an end.
    pub(crate) slow_start: u32,
    /// Nothing moves: SIGSTOP, or storage that hangs.
    pub(crate) hung: u32,
    hung_since: Option<Instant>,
}

/// What survives the end of the postmaster.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) valid: bool,
    pub(crate) identifier: u64,
    pub(crate) branch: Branch,
    pub(crate) flushed: u64,
    state: Option<ControlState>,
    /// How far a standby's control file knows that it must be replayed: its WAL may go further.
    min_recovery: u64,
    /// Where the record of the latest checkpoint begins.
    checkpoint: u64,
    checkpoint_timeline: u32,
    standby_signal: bool,
    /// The marker beside the data directory: what is in it is not a cluster yet.
    pub(crate) unfinished: bool,
    /// The marker in the data directory: its WAL left the leader's.
    pub(crate) diverged: bool,
    /// The marker in it: a standby was started over a primary's WAL.
    pub(crate) former_primary: bool,
    /// The marker beside it: pg_rewind began to work on it, and has not come to its end.
    pub(crate) half_rewound: bool,
    upstream: Option<NodeId>,
    /// `synchronous_standby_names` in the configuration.
    pub(crate) names: String,
}

impl Disk {
    /// By its control file.
    fn was_standby(&self) -> bool {
        matches!(
            self.state,
            Some(ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery)
        )
    }
}

/// A postmaster.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) identity: PostmasterIdentity,
    /// Its processes but the postmaster: those after a crash are others.
    pub(crate) life: u64,
    since: Instant,
    pub(crate) phase: Phase,
    pub(crate) primary: bool,
    promoting: bool,
    pub(crate) inserted: u64,
    flushing: bool,
    /// As sessions show it.
    session_names: String,
    /// As walsenders obey it.
    sender_names: String,
    /// Commits wait at all: what the checkpointer has made of the names.
    commits_wait: bool,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) senders: BTreeMap<NodeId, Sender>,
    receiver: Option<Receiver>,
    /// Number of the connection that is being tried or stands.
    connection: u64,
    shutdown: Option<Shutdown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Stopping,
}

/// A fast shutdown under way.
#[derive(Debug)]
struct Shutdown {
    /// The end of the shutdown checkpoint, once it is written.
    checkpoint: Option<u64>,
}

/// A commit that is not acknowledged yet.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) position: u64,
    pub(crate) level: Level,
    /// It must be confirmed by standbys as well; not known before it is flushed here (`SyncRepWaitForLSN`).
    pub(crate) remote: Option<bool>,
}

/// `synchronous_commit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Flushed here and where `synchronous_standby_names` says.
    On,
    /// Flushed here.
    Local,
    /// Written.
    Off,
}

/// A walsender.
#[derive(Debug)]
pub(crate) struct Sender {
    connection: u64,
    sent: u64,
    pub(crate) flushed: u64,
}

/// A walreceiver.
#[derive(Debug)]
struct Receiver {
    from: NodeId,
    connection: u64,
}

impl Server {
    /// A primary that takes writes.
    pub(crate) fn writable(&self) -> bool {
        self.hung == 0
            && self.full == 0
            && self
                .running
                .as_ref()
                .is_some_and(|running| running.primary && running.phase == Phase::Ready)
    }

    /// One more reason for it not to move, or one fewer.
    pub(crate) fn hang(&mut self, begins: bool, now: Instant) {
        self.hung = match begins {
            true => self.hung + 1,
            false => self.hung.saturating_sub(1),
        };
        self.hung_since = (self.hung > 0).then(|| self.hung_since.unwrap_or(now));
    }

    /// Whatever has to be written can be.
    pub(crate) fn has_space(&self) -> bool {
        self.full == 0 && self.wal_full == 0
    }

    /// It answers queries.
    pub(crate) fn answers(&self) -> bool {
        self.hung == 0
            && self
                .running
                .as_ref()
                .is_some_and(|running| running.phase == Phase::Ready)
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.primary)
    }

    /// The upstream that it streams from.
    pub(crate) fn streams_from(&self) -> Option<NodeId> {
        Some(self.running.as_ref()?.receiver.as_ref()?.from)
    }
}

impl World {
    fn life(&self, node: NodeId) -> u64 {
        self.servers[node]
            .running
            .as_ref()
            .map_or(0, |running| running.life)
    }

    fn fsync(&mut self, node: NodeId) -> Duration {
        let delay = match self.below(300) {
            0 => self.millis(10, 400),
            _ => self.millis(0, 3),
        };
        if self.servers[node].slow > 0 {
            delay * 100
        } else {
            delay
        }
    }

    // ---- life -----------------------------------------------------------------------------------------

    /// initdb.
    pub(crate) fn init_database(&mut self, node: NodeId) {
        let branch = self.history.found();
        self.servers[node].disk = Disk {
            valid: true,
            identifier: 7_000_000_000_000_000_000 + branch as u64,
            branch,
            flushed: FIRST_POSITION,
            state: Some(ControlState::ShutDown),
            checkpoint: FIRST_POSITION - CHECKPOINT_RECORD,
            checkpoint_timeline: 1,
            ..Disk::default()
        };
    }

    /// A copy of another server's data, consistent as of now.
    pub(crate) fn copy_database(&mut self, node: NodeId, source: NodeId) {
        let from = &self.servers[source].disk;
        let disk = Disk {
            valid: true,
            identifier: from.identifier,
            branch: from.branch,
            flushed: from.flushed,
            state: Some(ControlState::InArchiveRecovery),
            min_recovery: from.flushed,
            checkpoint: from.checkpoint,
            checkpoint_timeline: from.checkpoint_timeline,
            standby_signal: true,
            unfinished: self.servers[node].disk.unfinished,
            diverged: from.diverged,
            former_primary: from.former_primary,
            half_rewound: false,
            upstream: None,
            names: String::new(),
        };
        self.servers[node].disk = disk;
    }

    /// The data directory is deleted.
    pub(crate) fn wipe(&mut self, node: NodeId) {
        let unfinished = self.servers[node].disk.unfinished;
        self.servers[node].disk = Disk {
            unfinished,
            ..Disk::default()
        };
    }

    /// Starts the postmaster: into recovery with an upstream, or as a primary.
    pub(crate) fn start_server(&mut self, node: NodeId, standby: Option<Option<NodeId>>) {
        if self.servers[node].running.is_some() || !self.servers[node].disk.valid {
            return;
        }
        invariants::last_copy::used(self, node, "started");
        let (now, recovery) = (self.now(), self.millis(200, 3_000));
        let server = &mut self.servers[node];
        match standby {
            Some(upstream) => {
                server.disk.standby_signal = true;
                server.disk.upstream = upstream;
                server.disk.former_primary |=
                    server.disk.state.is_some_and(ControlState::is_a_primarys);
                // A standby's commits wait for nobody; the names of its time as a primary are taken out.
            }
            None => server.disk.standby_signal = false,
        }
        server.next_pid += 1;
        server.lives += 1;
        let identity = PostmasterIdentity {
            pid: server.next_pid,
            start_ticks: u64::try_from(now.as_millis()).unwrap_or(0),
        };
        server.running = Some(Running {
            identity,
            life: server.lives,
            since: now,
            phase: Phase::Starting,
            primary: false,
            promoting: false,
            inserted: server.disk.flushed,
            flushing: false,
            session_names: server.disk.names.clone(),
            sender_names: server.disk.names.clone(),
            commits_wait: !server.disk.names.is_empty(),
            waiting: Vec::new(),
            senders: BTreeMap::new(),
            receiver: None,
            connection: 0,
            shutdown: None,
        });
        self.trace(
            |_| format!("{} server starts, standby {standby:?}", Self::name(node)),
            [1, node as u64, 0],
        );
        // Connections to the postmaster before it are reset as soon as something is sent on them.
        for other in (0..self.servers.len()).filter(|other| *other != node) {
            let delay = self.millis(0, 10_000);
            self.after(delay, move |world| {
                if world.network.connects(other, node) {
                    world.receiver_lost(other, node);
                }
            });
        }
        self.server_after(node, recovery, move |world| world.server_ready(node));
    }

    /// Something that the running server does later, if it still runs; what hangs goes on when it does.
    fn server_after(
        &mut self,
        node: NodeId,
        delay: Duration,
        what: impl FnOnce(&mut World) + 'static,
    ) {
        let life = self.life(node);
        self.after(delay, move |world| {
            if world.life(node) != life {
                return;
            }
            if world.servers[node].hung > 0 {
                world.nodes[node].stalled.push((life, Box::new(what)));
                return;
            }
            what(world);
        });
    }

    /// What the server did not get to while it hung.
    pub(crate) fn unstall(&mut self, node: NodeId) {
        for (life, what) in std::mem::take(&mut self.nodes[node].stalled) {
            if self.life(node) == life {
                what(self);
            }
        }
        self.pump(node);
    }

    fn server_ready(&mut self, node: NodeId) {
        if self.servers[node].slow_start > 0 {
            return self.server_after(node, STILL_RECOVERING, move |world| {
                world.server_ready(node)
            });
        }
        let server = &mut self.servers[node];
        // A primary's recovery ends with a checkpoint. A standby writes when it receives something.
        let no_wal = server.wal_full > 0 && !server.disk.standby_signal;
        if server.full > 0 || no_wal {
            return self.kill_server(node, "no space at the start");
        }
        let Some(running) = server.running.as_mut() else {
            return;
        };
        if running.phase != Phase::Starting {
            return;
        }
        running.phase = Phase::Ready;
        if server.disk.standby_signal {
            let disk = &mut server.disk;
            if !disk.was_standby() {
                disk.min_recovery = disk.flushed;
            }
            disk.state = Some(ControlState::InArchiveRecovery);
            self.connect(node);
        } else {
            running.primary = true;
            server.disk.state = Some(ControlState::InProduction);
            server.disk.checkpoint_timeline = self.history.timeline(server.disk.branch).0;
            self.became_primary(node);
        }
    }

    /// SIGKILL, a crash: what is not flushed is gone, who waits is told nothing.
    pub(crate) fn kill_server(&mut self, node: NodeId, why: &'static str) {
        let Some(running) = self.servers[node].running.take() else {
            return;
        };
        // A standby's last restartpoint may be long ago. No dice: other things would happen with the same seed.
        let disk = &mut self.servers[node].disk;
        if disk.was_standby() && disk.flushed.is_multiple_of(3) {
            disk.min_recovery = disk.flushed;
        }
        self.trace(
            |_| format!("{} server dies: {why}", Self::name(node)),
            [2, node as u64, 0],
        );
        self.clients.unknown += running.waiting.len() as u64;
        let silently = why == "machine";
        self.hang_up(&running, node, silently);
        self.postmaster_gone(node, running.identity.pid);
    }

    /// A process of the server crashed: the postmaster ends all others and recovers (`restart_after_crash`). Commits that
    /// waited for standbys are there for everybody afterwards.
    pub(crate) fn crash_restart(&mut self, node: NodeId, why: &'static str) {
        let recovery = self.millis(200, 3_000);
        let server = &mut self.servers[node];
        let Some(running) = &mut server.running else {
            return;
        };
        if running.phase != Phase::Ready || running.promoting {
            // The startup process may not crash, and nothing is recovered when a stop is under way.
            return self.kill_server(node, why);
        }
        server.lives += 1;
        let anew = Running {
            identity: running.identity,
            life: server.lives,
            since: running.since,
            phase: Phase::Starting,
            primary: false,
            promoting: false,
            inserted: server.disk.flushed,
            flushing: false,
            session_names: server.disk.names.clone(),
            sender_names: server.disk.names.clone(),
            commits_wait: !server.disk.names.is_empty(),
            waiting: Vec::new(),
            senders: BTreeMap::new(),
            receiver: None,
            connection: running.connection + 1,
            shutdown: None,
        };
        let before = std::mem::replace(running, anew);
        self.clients.unknown += before.waiting.len() as u64;
        self.trace(
            |_| format!("{} server crashes and recovers: {why}", Self::name(node)),
            [7, node as u64, 0],
        );
        self.hang_up(&before, node, false);
        self.server_after(node, recovery, move |world| world.server_ready(node));
    }

    /// The ends of the connections of a server that is gone. A machine that is gone says nothing to anybody.
    fn hang_up(&mut self, running: &Running, node: NodeId, silently: bool) {
        for standby in running.senders.keys().copied().collect::<Vec<_>>() {
            let delay = if silently {
                STREAM_TIMEOUT
            } else {
                self.delay_between(node, standby)
            };
            self.after(delay, move |world| world.receiver_lost(standby, node));
        }
        if let Some(Receiver { from, connection }) = running.receiver {
            let delay = if silently {
                STREAM_TIMEOUT
            } else {
                self.delay_between(node, from)
            };
            self.after(delay, move |world| {
                world.sender_lost(from, node, connection)
            });
        }
    }

    /// A fast or immediate stop. Returns at once; the server is gone when it is gone.
    pub(crate) fn stop_server(&mut self, node: NodeId, fast: bool) {
        if self.servers[node].hung > 0 && self.servers[node].running.is_some() {
            // The signal is there when it goes on.
            let stop: Happening = Box::new(move |world| world.stop_server(node, fast));
            let life = self.life(node);
            self.nodes[node].stalled.push((life, stop));
            return;
        }
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        if !fast || running.phase == Phase::Starting {
            return self.kill_server(node, "immediate stop");
        }
        if running.phase == Phase::Stopping {
            return;
        }
        running.phase = Phase::Stopping;
        running.shutdown = Some(Shutdown { checkpoint: None });
        let waiting = std::mem::take(&mut running.waiting);
        self.clients.unknown += waiting.len() as u64;
        self.trace(
            |_| format!("{} server stops", Self::name(node)),
            [3, node as u64, 0],
        );
        let delay = self.millis(20, 400) + self.fsync(node);
        self.server_after(node, delay, move |world| world.shutdown_checkpoint(node));
    }

    fn shutdown_checkpoint(&mut self, node: NodeId) {
        if !self.servers[node].has_space() && self.servers[node].is_primary() {
            return self.kill_server(node, "no space for the shutdown checkpoint");
        }
        let timeline = self.history.timeline(self.servers[node].disk.branch).0;
        let server = &mut self.servers[node];
        let Some(running) = server.running.as_mut() else {
            return;
        };
        if running.primary {
            server.disk.checkpoint = running.inserted;
            running.inserted += CHECKPOINT_RECORD;
            server.disk.flushed = running.inserted;
            server.disk.state = Some(ControlState::ShutDown);
        } else {
            server.disk.state = Some(ControlState::ShutDownInRecovery);
            server.disk.min_recovery = server.disk.flushed;
        }
        // A standby's shutdown makes a restartpoint.
        server.disk.checkpoint_timeline = timeline;
        let end = server.disk.flushed;
        running.shutdown = Some(Shutdown {
            checkpoint: Some(end),
        });
        self.pump(node);
        self.end_if_sent(node);
    }

    /// A fast shutdown ends when every standby that streams has everything; each walsender ends as soon as its own has.
    fn end_if_sent(&mut self, node: NodeId) {
        let Some(running) = &mut self.servers[node].running else {
            return;
        };
        let Some(Shutdown {
            checkpoint: Some(end),
        }) = running.shutdown
        else {
            return;
        };
        let done = running
            .senders
            .extract_if(.., |_, sender| sender.flushed >= end);
        for standby in done.map(|(standby, _)| standby).collect::<Vec<_>>() {
            let delay = self.delay_between(node, standby);
            self.after(delay, move |world| world.receiver_lost(standby, node));
        }
        let server = &mut self.servers[node];
        if let Some(running) = server.running.take_if(|running| running.senders.is_empty()) {
            self.trace(
                |_| format!("{} server has stopped", Self::name(node)),
                [4, node as u64, end],
            );
            self.hang_up(&running, node, false);
            self.postmaster_gone(node, running.identity.pid);
        }
    }

    /// The end of the shutdown checkpoint, while the server may still be sending.
    pub(crate) fn shutdown_position(&self, node: NodeId) -> Option<Lsn> {
        let server = &self.servers[node];
        let written = match &server.running {
            Some(running) => running.shutdown.as_ref()?.checkpoint.is_some(),
            None => server.disk.state == Some(ControlState::ShutDown),
        };
        written.then_some(Lsn(server.disk.checkpoint))
    }

    /// `pg_ctl promote`.
    pub(crate) fn promote(&mut self, node: NodeId) {
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        if running.primary || running.promoting || running.phase != Phase::Ready {
            return;
        }
        running.promoting = true;
        let receiver = running.receiver.take();
        running.connection += 1;
        if let Some(Receiver { from, connection }) = receiver {
            self.sender_lost(from, node, connection);
        }
        let delay = self.millis(50, 1_500);
        self.server_after(node, delay, move |world| world.promoted(node));
    }

    fn promoted(&mut self, node: NodeId) {
        if self.servers[node].slow_start > 0 {
            return self.server_after(node, STILL_RECOVERING, move |world| world.promoted(node));
        }
        if !self.servers[node].has_space() {
            return self.kill_server(node, "no space for the promotion");
        }
        let disk = &self.servers[node].disk;
        let (parent, at) = (disk.branch, disk.flushed);
        let branch = self.history.fork(parent, at);
        let server = &mut self.servers[node];
        let Some(running) = server.running.as_mut() else {
            return;
        };
        if running.phase != Phase::Ready {
            return;
        }
        running.primary = true;
        running.promoting = false;
        running.inserted = at;
        server.disk.branch = branch;
        server.disk.standby_signal = false;
        server.disk.state = Some(ControlState::InProduction);
        self.end_timeline(node);
        self.report.promotions += 1;
        self.trace(
            |_| {
                format!(
                    "{} is promoted at {at:X}, branch {branch}",
                    Self::name(node)
                )
            },
            [5, node as u64, at],
        );
        self.became_primary(node);
        self.append(node, CHECKPOINT_RECORD);
    }

    /// Walsenders end a stream at the end of its timeline; the standbys ask for the next one.
    fn end_timeline(&mut self, node: NodeId) {
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        for standby in std::mem::take(&mut running.senders).into_keys() {
            let delay = self.delay_between(node, standby);
            self.after(delay, move |world| world.receiver_lost(standby, node));
        }
    }

    /// CHECKPOINT.
    pub(crate) fn checkpoint(&mut self, node: NodeId) {
        let timeline = self.history.timeline(self.servers[node].disk.branch).0;
        if self.servers[node].writable()
            && let Some(end) = self.append(node, CHECKPOINT_RECORD)
        {
            self.servers[node].disk.checkpoint = end - CHECKPOINT_RECORD;
            self.servers[node].disk.checkpoint_timeline = timeline;
        }
    }

    /// Single-user mode replays what is there and stops in good order.
    pub(crate) fn recover_single_user(&mut self, node: NodeId) -> bool {
        invariants::last_copy::used(self, node, "recovered");
        let timeline = self.history.timeline(self.servers[node].disk.branch).0;
        let server = &mut self.servers[node];
        let possible = server.running.is_none() && server.disk.valid && server.has_space();
        if possible {
            let disk = &mut server.disk;
            disk.state = Some(ControlState::ShutDown);
            disk.checkpoint = disk.flushed;
            disk.checkpoint_timeline = timeline;
            disk.flushed += CHECKPOINT_RECORD;
        }
        possible
    }

    // ---- writing --------------------------------------------------------------------------------------

    /// A client commits. What came of it is told to [`crate::clients`].
    pub(crate) fn commit(&mut self, node: NodeId, bytes: u64, level: Level) {
        let Some(position) = self.append(node, bytes) else {
            return;
        };
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        if level == Level::Off {
            return self.acknowledged(node, position, level);
        }
        running.waiting.push(Waiting {
            position,
            level,
            remote: None,
        });
        if self.plan.impatient_clients && self.chance(IMPATIENT) {
            let patience = self.millis(100, 15_000);
            let terminated = self.chance(300);
            self.server_after(node, patience, move |world| {
                world.interrupt_commit(node, position, terminated)
            });
        }
    }

    /// A client cancels its commit, or its backend is terminated. Only the wait for standbys can be interrupted; the
    /// transaction is committed here by then, and seen by everybody (`SyncRepWaitForLSN`).
    pub(crate) fn interrupt_commit(&mut self, node: NodeId, position: u64, terminated: bool) {
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        let waiting = &mut running.waiting;
        let Some(index) = waiting.iter().position(|one| one.position == position) else {
            return;
        };
        match waiting[index].remote {
            Some(true) => {
                waiting.remove(index);
                self.interrupted(node, position, terminated);
            }
            _ => self.server_after(node, UNINTERRUPTIBLE, move |world| {
                world.interrupt_commit(node, position, terminated)
            }),
        }
    }

    /// Writes WAL and has it flushed soon.
    fn append(&mut self, node: NodeId, bytes: u64) -> Option<u64> {
        let server = &mut self.servers[node];
        let full = !server.has_space();
        let running = server.running.as_mut().filter(|running| running.primary)?;
        running.inserted += bytes;
        let position = running.inserted;
        if full {
            self.server_after(node, PANIC_DELAY, move |world| {
                world.crash_restart(node, "PANIC: no space left")
            });
            return None;
        }
        if !running.flushing {
            running.flushing = true;
            let delay = self.fsync(node);
            self.server_after(node, delay, move |world| world.flushed(node));
        }
        Some(position)
    }

    fn flushed(&mut self, node: NodeId) {
        if self.servers[node].full > 0 {
            return self.kill_server(node, "PANIC: no space left");
        }
        if self.servers[node].wal_full > 0 {
            return self.crash_restart(node, "PANIC: no space left");
        }
        let server = &mut self.servers[node];
        let Some(running) = server.running.as_mut() else {
            return;
        };
        running.flushing = false;
        server.disk.flushed = running.inserted.max(server.disk.flushed);
        self.release(node);
        self.pump(node);
    }

    /// Acknowledges the commits that are flushed here and where else they must be.
    fn release(&mut self, node: NodeId) {
        let server = &mut self.servers[node];
        let flushed = server.disk.flushed;
        let Some(running) = server.running.as_mut() else {
            return;
        };
        let confirmed = Names::parse(&running.sender_names).released(
            running
                .senders
                .iter()
                .map(|(standby, sender)| (World::name(*standby), sender.flushed)),
        );
        let waits = running.commits_wait;
        for waiting in running
            .waiting
            .iter_mut()
            .filter(|waiting| waiting.position <= flushed)
        {
            waiting
                .remote
                .get_or_insert(waiting.level == Level::On && waits);
        }
        let is_done = |waiting: &Waiting| match waiting.remote {
            None => false,
            Some(false) => true,
            Some(true) => confirmed.is_some_and(|confirmed| waiting.position <= confirmed),
        };
        let done: Vec<Waiting> = running
            .waiting
            .iter()
            .filter(|waiting| is_done(waiting))
            .cloned()
            .collect();
        running.waiting.retain(|waiting| !is_done(waiting));
        for waiting in done {
            self.acknowledged(node, waiting.position, waiting.level);
        }
    }

    /// The configuration changed and the server was told to read it: sessions see it soon, walsenders a little later.
    pub(crate) fn reload(&mut self, node: NodeId) {
        if self.servers[node].running.is_none() {
            return;
        }
        let (sessions, senders) = (self.millis(5, 60), self.millis(5, 400));
        // The checkpointer is busy with fsync at times.
        let checkpointer = if self.chance(20) {
            self.millis(100, 8_000)
        } else {
            self.millis(1, 30)
        };
        self.server_after(node, sessions, move |world| {
            let server = &mut world.servers[node];
            if let Some(running) = server.running.as_mut() {
                running.session_names.clone_from(&server.disk.names);
            }
        });
        self.server_after(node, checkpointer, move |world| {
            let server = &mut world.servers[node];
            if let Some(running) = server.running.as_mut() {
                running.commits_wait = !server.disk.names.is_empty();
                if !running.commits_wait {
                    // SyncRepUpdateSyncStandbysDefined wakes whoever waits.
                    running
                        .waiting
                        .iter_mut()
                        .for_each(|waiting| waiting.remote = waiting.remote.and(Some(false)));
                }
            }
            world.release(node);
        });
        self.server_after(node, senders, move |world| {
            let server = &mut world.servers[node];
            if let Some(running) = server.running.as_mut() {
                running.sender_names.clone_from(&server.disk.names);
            }
            world.expect_replies(node);
        });
    }

    /// A walsender acts on other names, or on the end of another one, at its standby's next reply.
    fn expect_replies(&mut self, node: NodeId) {
        let Some(running) = &self.servers[node].running else {
            return;
        };
        let senders = running.senders.iter();
        let senders: Vec<(NodeId, u64)> = senders
            .map(|(standby, sender)| (*standby, sender.connection))
            .collect();
        for (standby, connection) in senders {
            let delay = self.below(STATUS_INTERVAL.as_millis() as usize) as u64;
            self.after(Duration::from_millis(delay), move |world| {
                world.replied(node, standby, connection);
            });
        }
    }

    fn replied(&mut self, node: NodeId, standby: NodeId, connection: u64) {
        if !self.is_connected(standby, node, connection) {
            return;
        }
        let passes = self.network.connects(node, standby);
        if passes && self.servers[node].hung == 0 && self.servers[standby].hung == 0 {
            return self.release(node);
        }
        self.after(STATUS_INTERVAL, move |world| {
            world.replied(node, standby, connection);
        });
    }

    /// Whether sessions already show what the configuration says, and commits obey it if they have to wait.
    pub(crate) fn names_in_force(&self, node: NodeId) -> bool {
        let server = &self.servers[node];
        server.running.as_ref().is_some_and(|running| {
            running.session_names == server.disk.names
                && (server.disk.names.is_empty()
                    || running.commits_wait && running.sender_names == server.disk.names)
        })
    }

    // ---- streaming ------------------------------------------------------------------------------------

    /// Another upstream, taken over with a reload.
    pub(crate) fn follow(&mut self, node: NodeId, upstream: Option<NodeId>) {
        let server = &mut self.servers[node];
        if server.disk.upstream == upstream && server.streams_from() == upstream {
            return;
        }
        server.disk.upstream = upstream;
        if let Some(running) = server.running.as_mut() {
            let receiver = running.receiver.take();
            if let Some(Receiver { from, connection }) = receiver {
                self.sender_lost(from, node, connection);
            }
        }
        self.connect(node);
    }

    pub(crate) fn has_standby_signal(&self, node: NodeId) -> bool {
        self.servers[node].disk.standby_signal
    }

    /// The walreceiver tries to connect, and again later if it cannot.
    fn connect(&mut self, node: NodeId) {
        let server = &mut self.servers[node];
        let upstream = server.disk.upstream;
        let Some(running) = server.running.as_mut() else {
            return;
        };
        if running.primary
            || running.promoting
            || running.phase != Phase::Ready
            || running.receiver.is_some()
        {
            return;
        }
        running.connection += 1;
        let connection = running.connection;
        let Some(upstream) = upstream else { return };
        let delay = self.delay_between(node, upstream) + self.delay_between(upstream, node);
        self.server_after(node, delay, move |world| {
            world.connected(node, upstream, connection)
        });
    }

    fn connected(&mut self, node: NodeId, upstream: NodeId, connection: u64) {
        let Some(running) = &self.servers[node].running else {
            return;
        };
        if running.connection != connection
            || running.receiver.is_some()
            || running.phase != Phase::Ready
        {
            return;
        }
        let reached = self.network.connects(node, upstream) && self.servers[upstream].answers();
        let (mine, theirs) = (&self.servers[node].disk, &self.servers[upstream].disk);
        let fits = self
            .history
            .contains(theirs.branch, theirs.flushed, mine.branch, mine.flushed);
        let same_number =
            self.history.timeline(mine.branch) == self.history.timeline(theirs.branch);
        // Nobody points it elsewhere without an agent that knows who leads: the records that come do not fit, and it says so.
        if reached
            && !fits
            && same_number
            && mine.flushed <= theirs.flushed
            && self.is_attended(node, upstream)
        {
            // PostgreSQL sees the same timeline and a position that the upstream has: it would stream what does not fit.
            let text = format!(
                "{} streams from {}, whose timeline only has the same number",
                Self::name(node),
                Self::name(upstream)
            );
            return self.violate("I6 last copy", text);
        }
        let possible = reached && fits && mine.identifier == theirs.identifier;
        if !possible {
            return self.server_after(node, RETRIEVE_RETRY, move |world| {
                let running = world.servers[node].running.as_ref();
                if running.is_some_and(|running| running.connection == connection) {
                    world.connect(node);
                }
            });
        }
        let branch = self.servers[upstream].disk.branch;
        if self.servers[node].disk.branch != branch {
            self.servers[node].disk.branch = branch;
            self.end_timeline(node);
        }
        let mine = &mut self.servers[node];
        let start = mine.disk.flushed;
        if let Some(running) = mine.running.as_mut() {
            running.receiver = Some(Receiver {
                from: upstream,
                connection,
            });
        }
        if let Some(running) = self.servers[upstream].running.as_mut() {
            running.senders.insert(
                node,
                Sender {
                    connection,
                    sent: start,
                    flushed: start,
                },
            );
        }
        self.trace(
            |_| {
                format!(
                    "{} streams from {} at {start:X}",
                    Self::name(node),
                    Self::name(upstream)
                )
            },
            [6, node as u64, upstream as u64],
        );
        self.pump(upstream);
        self.release(upstream);
    }

    /// Sends what is flushed to every standby that does not have it yet.
    pub(crate) fn pump(&mut self, node: NodeId) {
        if self.servers[node].hung > 0 {
            return;
        }
        let end = self.servers[node].disk.flushed;
        let Some(running) = self.servers[node].running.as_ref() else {
            return;
        };
        let behind: Vec<(NodeId, u64)> = running
            .senders
            .iter()
            .filter(|(_, sender)| sender.sent < end)
            .map(|(standby, sender)| (*standby, sender.connection))
            .collect();
        for (standby, connection) in behind {
            if !self.network.connects(node, standby) {
                continue;
            }
            if let Some(sender) = self.servers[node]
                .running
                .as_mut()
                .and_then(|running| running.senders.get_mut(&standby))
            {
                sender.sent = end;
            }
            let delay = self.delay_between(node, standby);
            self.after(delay, move |world| {
                world.received(standby, node, connection, end)
            });
        }
    }

    fn is_connected(&self, node: NodeId, upstream: NodeId, connection: u64) -> bool {
        let receiver = self.servers[node]
            .running
            .as_ref()
            .and_then(|running| running.receiver.as_ref());
        receiver
            .is_some_and(|receiver| receiver.from == upstream && receiver.connection == connection)
    }

    fn received(&mut self, node: NodeId, upstream: NodeId, connection: u64, end: u64) {
        if !self.is_connected(node, upstream, connection) {
            return;
        }
        let delay = self.fsync(node);
        self.server_after(node, delay, move |world| {
            if world.servers[node].full > 0 {
                return world.kill_server(node, "standby: no space left");
            }
            if world.servers[node].wal_full > 0 {
                return world.crash_restart(node, "walreceiver: PANIC, no space left");
            }
            if !world.is_connected(node, upstream, connection) {
                return;
            }
            let disk = &mut world.servers[node].disk;
            disk.flushed = disk.flushed.max(end);
            world.pump(node);
            let delay = world.delay_between(node, upstream);
            world.after(delay, move |world| {
                world.confirmed(upstream, node, connection, end)
            });
        });
    }

    fn confirmed(&mut self, node: NodeId, standby: NodeId, connection: u64, end: u64) {
        if !self.network.connects(node, standby) || self.servers[node].hung > 0 {
            // The connection repeats it once it passes again.
            return self.after(Duration::from_secs(1), move |world| {
                if world.is_connected(standby, node, connection) {
                    world.confirmed(node, standby, connection, end);
                }
            });
        }
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        let Some(sender) = running.senders.get_mut(&standby) else {
            return;
        };
        if sender.connection != connection {
            return;
        }
        sender.flushed = sender.flushed.max(end);
        self.release(node);
        self.end_if_sent(node);
    }

    /// The walsender notices that its standby is gone.
    fn sender_lost(&mut self, node: NodeId, standby: NodeId, connection: u64) {
        if let Some(running) = self.servers[node].running.as_mut()
            && running
                .senders
                .get(&standby)
                .is_some_and(|sender| sender.connection == connection)
        {
            running.senders.remove(&standby);
            self.expect_replies(node);
            self.end_if_sent(node);
        }
    }

    /// The walreceiver notices that its upstream is gone.
    fn receiver_lost(&mut self, node: NodeId, upstream: NodeId) {
        let Some(running) = self.servers[node].running.as_mut() else {
            return;
        };
        let connection = match &running.receiver {
            Some(receiver) if receiver.from == upstream => receiver.connection,
            _ => return,
        };
        // Another postmaster of the same node may have taken the connection up since.
        let alive = self.servers[upstream]
            .running
            .as_ref()
            .and_then(|running| running.senders.get(&node))
            .is_some_and(|sender| sender.connection == connection);
        if !alive && let Some(running) = self.servers[node].running.as_mut() {
            running.receiver = None;
            self.connect(node);
        }
    }

    /// A link was cut: connections over it end after their timeout if it is still cut then.
    pub(crate) fn link_cut(&mut self, one: NodeId, other: NodeId) {
        for (node, upstream) in [(one, other), (other, one)] {
            let receiver = self.servers[node]
                .running
                .as_ref()
                .and_then(|running| running.receiver.as_ref());
            let Some(connection) = receiver
                .filter(|receiver| receiver.from == upstream)
                .map(|receiver| receiver.connection)
            else {
                continue;
            };
            self.after(STREAM_TIMEOUT, move |world| {
                if world.network.connects(node, upstream)
                    || !world.is_connected(node, upstream, connection)
                {
                    return;
                }
                world.sender_lost(upstream, node, connection);
                world.receiver_lost(node, upstream);
            });
        }
    }

    /// Links were mended: what is behind is sent.
    pub(crate) fn pump_all(&mut self) {
        for node in 0..self.servers.len() {
            self.pump(node);
        }
    }

    // ---- looking --------------------------------------------------------------------------------------

    /// One look, as the agent takes it.
    pub(crate) fn observe(&self, node: NodeId) -> Observation {
        let server = &self.servers[node];
        let disk = &server.disk;
        let mut seen = Observation {
            data_directory: match disk.valid {
                true if disk.half_rewound => {
                    DataDirectory::HalfRewound("pg_rewind did not come to its end".into())
                }
                true => DataDirectory::Valid,
                false => DataDirectory::Empty,
            },
            major_version: disk.valid.then_some(15),
            system_identifier: disk
                .valid
                .then(|| SystemIdentifier::parse(&disk.identifier.to_string()))
                .flatten(),
            recovery_signal: disk.standby_signal,
            unfinished_bootstrap: disk.unfinished,
            diverged: disk.diverged,
            former_primary: disk.former_primary,
            ..Observation::default()
        };
        if let Some(running) = &server.running {
            seen.process = Process::Running(running.identity);
            seen.readiness = match running.phase {
                _ if server.hung > 0 => Readiness::NoAnswer,
                Phase::Ready => Readiness::Accepting,
                Phase::Starting | Phase::Stopping => Readiness::Rejecting,
            };
            let silent = server.hung_since.map(|since| self.now() - since);
            let noticed = silent.filter(|silent| *silent >= PROBE_INTERVAL);
            seen.probes.connection = noticed;
            seen.probes.query = noticed.filter(|_| running.phase == Phase::Ready);
            if server.answers() {
                seen.promoting = running.promoting;
                seen.wal = Some(self.wal_status(node, running));
            }
        }
        if seen.wal.is_none() && disk.valid {
            let state = disk.state.unwrap_or(ControlState::Unknown);
            let known = disk.was_standby().then(|| {
                let position = disk.min_recovery;
                (position, self.history.branch_at(disk.branch, position))
            });
            seen.control = Some(ControlData {
                state,
                system_identifier: seen.system_identifier.clone(),
                checkpoint_lsn: Lsn(disk.checkpoint),
                checkpoint_timeline: Some(primacy_model::Timeline(disk.checkpoint_timeline)),
                min_recovery_lsn: Lsn(known.map_or(0, |(position, _)| position)),
                min_recovery_timeline: known.map(|(_, branch)| self.history.timeline(branch)),
                rewindable: true,
            });
        }
        seen
    }

    fn wal_status(&self, node: NodeId, running: &Running) -> WalStatus {
        let disk = &self.servers[node].disk;
        let timeline = self.history.timeline(disk.branch);
        let mut wal = WalStatus {
            server_version: 150_000,
            postmaster_start_time_text: format!("{:?}", running.since),
            synchronous_commit: "on".into(),
            synchronous_standby_names: running.session_names.clone(),
            checkpoint_timeline: Some(primacy_model::Timeline(disk.checkpoint_timeline)),
            slots: Some(Vec::new()),
            ..WalStatus::default()
        };
        // Nobody is synchronous to a standby.
        let names = Names::parse(if running.primary {
            &running.sender_names
        } else {
            ""
        });
        let states = names.states(running.senders.keys().map(|standby| World::name(*standby)));
        for (standby, sender) in &running.senders {
            let name = World::name(*standby);
            let lsn = Some(Lsn(sender.flushed));
            wal.senders.push(WalSender {
                // A standby that is only a moment behind still streams.
                state: "streaming".into(),
                sync_state: states.get(&name).copied().unwrap_or("async").into(),
                application_name: name,
                write_lsn: lsn,
                flush_lsn: lsn,
                replay_lsn: lsn,
                ..WalSender::default()
            });
        }
        if running.primary {
            wal.timeline = Some(timeline);
            wal.flush_lsn = Lsn(disk.flushed);
        } else {
            wal.replay_lsn = Lsn(disk.flushed);
            wal.receive_lsn = Lsn(disk.flushed);
            wal.replay_timeline = Some(timeline);
            wal.receiver = running.receiver.as_ref().map(|receiver| WalReceiver {
                status: "streaming".into(),
                timeline: Some(timeline),
                sender_host: Some(World::name(receiver.from)),
                sender_port: Some(5432),
                ..WalReceiver::default()
            });
        }
        wal
    }

    /// What the comparison with the leader comes to, by the numbers that a real one has (ha.md §8.3).
    pub(crate) fn diverged(&self, node: NodeId, leader: NodeId) -> Option<bool> {
        if !self.network.connects(node, leader) || !self.servers[leader].writable() {
            return None;
        }
        let (branch, position, standby) = self.local_position(node)?;
        let (mine, theirs) = (&self.servers[node].disk, &self.servers[leader].disk);
        let (local, primary) = (
            self.history.timeline(branch),
            self.history.timeline(theirs.branch),
        );
        if local > primary {
            return Some(true);
        }
        let lines = self.history.lines(theirs.branch);
        let left_at = |timeline| {
            lines
                .iter()
                .find(|line| line.0 == timeline)
                .map(|line| line.1)
        };
        if self
            .history
            .lines(branch)
            .iter()
            .any(|(timeline, at)| left_at(*timeline) != Some(*at))
        {
            return Some(true);
        }
        let ahead = match local == primary {
            true => position > theirs.flushed,
            false => left_at(local).is_none_or(|at| match standby {
                true => position > at,
                false => mine.flushed != at,
            }),
        };
        // The bytes themselves, where timelines have the same number (`Server::has_same_wal`).
        Some(
            ahead
                || !self
                    .history
                    .contains(theirs.branch, theirs.flushed, branch, position),
        )
    }

    /// Where its WAL is known to end, and whether it was a standby (`Server::local_position`). Nothing is known of a
    /// primary that crashed.
    fn local_position(&self, node: NodeId) -> Option<(Branch, u64, bool)> {
        let server = &self.servers[node];
        let disk = &server.disk;
        if server.answers() {
            return Some((disk.branch, disk.flushed, !server.is_primary()));
        }
        match disk.state? {
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => {
                let position = disk.min_recovery;
                Some((
                    self.history.branch_at(disk.branch, position),
                    position,
                    true,
                ))
            }
            ControlState::ShutDown => Some((disk.branch, disk.checkpoint, false)),
            _ => None,
        }
    }

    /// Whether pg_rewind finds something to do. It looks for the last timeline that both histories have: one of the same
    /// number is the same to it.
    pub(crate) fn pg_rewind_finds(&self, node: NodeId, source: NodeId) -> bool {
        let (mine, theirs) = (&self.servers[node].disk, &self.servers[source].disk);
        let complete = |branch| {
            let mut lines = self.history.lines(branch);
            lines.push((self.history.timeline(branch), u64::MAX));
            lines
        };
        let (mine_lines, their_lines) = (complete(mine.branch), complete(theirs.branch));
        let common = mine_lines
            .iter()
            .zip(&their_lines)
            .take_while(|(mine, theirs)| mine.0 == theirs.0)
            .last();
        let Some((left, followed)) = common else {
            return true;
        };
        let last = *left == (self.history.timeline(mine.branch), u64::MAX);
        !last || mine.flushed > left.1.min(followed.1)
    }

    /// All of its WAL is the other one's as well.
    pub(crate) fn is_part_of(&self, node: NodeId, other: NodeId) -> bool {
        let (mine, theirs) = (&self.servers[node].disk, &self.servers[other].disk);
        self.history
            .contains(theirs.branch, theirs.flushed, mine.branch, mine.flushed)
    }

    /// Whether the node can be reached and answers queries: as the source of a copy or of a rewind.
    pub(crate) fn is_source(&self, node: NodeId, source: NodeId) -> bool {
        self.network.passes(End::Node(node), End::Node(source))
            && self.network.connects(node, source)
            && self.servers[source].answers()
    }
}
