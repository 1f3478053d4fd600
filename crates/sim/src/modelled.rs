//! The modelled PostgreSQL by itself, without agents, store and faults: what is compared with real servers.

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_model::{Lsn, Observation, Timeline};
use serde_json::Map;

use crate::faults::Plan;
use crate::history::Branch;
use crate::postgres::{Level, Phase};
use crate::world::{NodeId, World};

/// Longer than anything takes that is going to happen by itself.
const SETTLED: Duration = Duration::from_secs(30);

/// Servers that do what they are told, numbered from zero and called `n1` and so on.
pub struct ModelledServers {
    world: World,
    commits: BTreeMap<String, Commit>,
}

struct Commit {
    node: NodeId,
    branch: Branch,
    position: u64,
    answer: ClientAnswer,
}

/// What a client knows of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAnswer {
    /// It was told that it is done.
    Acknowledged,
    /// It still waits.
    Waits,
    /// Its connection ended before it was told anything.
    Unanswered,
}

impl ModelledServers {
    /// `count` empty data directories. The same seed gives the same delays.
    pub fn new(seed: u64, count: usize) -> Self {
        let plan = Plan {
            seed,
            nodes: count,
            length: Duration::ZERO,
            dynamic: Map::new(),
            remove_diverged: false,
            without_rewind: false,
            fence_required: false,
            rewinds_break: false,
            impatient_clients: false,
            tags: None,
            faults: Vec::new(),
        };
        let mut world = World::new(plan, false);
        world.clients.scripted = Some(Vec::new());
        ModelledServers {
            world,
            commits: BTreeMap::new(),
        }
    }

    /// initdb.
    pub fn init(&mut self, node: usize) {
        self.world.init_database(node);
    }

    /// A base backup.
    pub fn copy(&mut self, node: usize, source: usize) {
        self.world.copy_database(node, source);
    }

    /// Starts as a primary, or as a standby of an upstream.
    pub fn start(&mut self, node: usize, upstream: Option<usize>) {
        self.world.start_server(node, upstream.map(Some));
        self.settle();
    }

    /// Another upstream, with a reload.
    pub fn follow(&mut self, node: usize, upstream: usize) {
        self.world.follow(node, Some(upstream));
        self.settle();
    }

    /// A fast stop, or an immediate one. A fast one may not have ended when this returns.
    pub fn stop(&mut self, node: usize, fast: bool) {
        self.world.stop_server(node, fast);
        self.settle();
    }

    /// SIGSTOP to every process of the server.
    pub fn freeze(&mut self, node: usize) {
        let now = self.world.now();
        self.world.servers[node].hang(true, now);
        self.settle();
    }

    /// SIGCONT.
    pub fn thaw(&mut self, node: usize) {
        let now = self.world.now();
        self.world.servers[node].hang(false, now);
        self.world.unstall(node);
        self.settle();
    }

    /// `synchronous_standby_names`, with a reload.
    pub fn set_names(&mut self, node: usize, names: &str) {
        self.world.servers[node].disk.names = names.to_owned();
        self.world.reload(node);
        self.settle();
    }

    /// A transaction of that name.
    pub fn commit(&mut self, node: usize, name: &str, level: Level) {
        self.world.commit(node, 200, level);
        let position = self.world.servers[node]
            .running
            .as_ref()
            .map_or(0, |running| running.inserted);
        let commit = Commit {
            node,
            branch: self.world.branch_of(node),
            position,
            answer: ClientAnswer::Waits,
        };
        self.commits.insert(name.to_owned(), commit);
        self.settle();
    }

    /// `pg_ctl promote`.
    pub fn promote(&mut self, node: usize) {
        self.world.promote(node);
        self.settle();
    }

    /// CHECKPOINT.
    pub fn checkpoint(&mut self, node: usize) {
        self.world.checkpoint(node);
        self.settle();
    }

    /// Crash recovery in single-user mode.
    pub fn recover(&mut self, node: usize) {
        self.world.recover_single_user(node);
    }

    /// Lets everything happen that happens by itself.
    fn settle(&mut self) {
        self.world.let_pass(SETTLED);
        let acknowledged = self.world.clients.scripted.replace(Vec::new());
        let acknowledged = acknowledged.unwrap_or_default();
        for commit in self.commits.values_mut() {
            let waits = self.world.servers[commit.node]
                .running
                .as_ref()
                .is_some_and(|running| {
                    let mut waiting = running.waiting.iter();
                    waiting.any(|waiting| waiting.position == commit.position)
                });
            commit.answer = match commit.answer {
                ClientAnswer::Waits if acknowledged.contains(&(commit.node, commit.position)) => {
                    ClientAnswer::Acknowledged
                }
                ClientAnswer::Waits if !waits => ClientAnswer::Unanswered,
                answer => answer,
            };
        }
    }

    /// One look, as an agent takes it.
    pub fn observe(&self, node: usize) -> Observation {
        self.world.observe(node)
    }

    /// What came of each commit.
    pub fn answers(&self) -> impl Iterator<Item = (&str, ClientAnswer)> {
        let commits = self.commits.iter();
        commits.map(|(name, commit)| (name.as_str(), commit.answer))
    }

    /// The transactions that a query on a server that answers sees: those that wait for standbys are not among them.
    pub fn visible(&self, node: usize) -> Vec<String> {
        let server = &self.world.servers[node];
        let Some(running) = &server.running else {
            return Vec::new();
        };
        if running.phase != Phase::Ready {
            return Vec::new();
        }
        let visible = |commit: &Commit| {
            let waits = commit.node == node && commit.answer == ClientAnswer::Waits;
            !waits
                && self.world.history.contains(
                    server.disk.branch,
                    server.disk.flushed,
                    commit.branch,
                    commit.position,
                )
        };
        let commits = self.commits.iter();
        commits
            .filter(|(_, commit)| visible(commit))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The timeline that the server's WAL is on.
    pub fn timeline(&self, node: usize) -> Timeline {
        self.world.history.timeline(self.world.branch_of(node))
    }

    /// The lines of the history file of that timeline.
    pub fn history(&self, node: usize) -> Vec<(Timeline, Lsn)> {
        let lines = self.world.history.lines(self.world.branch_of(node));
        lines
            .into_iter()
            .map(|(timeline, at)| (timeline, Lsn(at)))
            .collect()
    }

    /// Whether a server's WAL left a primary's; `None`: that cannot be told now.
    pub fn diverged(&self, node: usize, primary: usize) -> Option<bool> {
        self.world.diverged(node, primary)
    }

    /// Whether pg_rewind finds something to do.
    pub fn needs_rewind(&self, node: usize, source: usize) -> bool {
        self.world.pg_rewind_finds(node, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A primary whose commit waits for a standby that is not there.
    fn waiting() -> ModelledServers {
        let mut servers = ModelledServers::new(1, 2);
        servers.init(0);
        servers.start(0, None);
        servers.set_names(0, "n2");
        servers.commit(0, "waits", Level::On);
        assert_eq!(servers.commits["waits"].answer, ClientAnswer::Waits);
        assert_eq!(servers.visible(0), Vec::<String>::new());
        servers
    }

    #[test]
    fn a_cancelled_wait_is_no_promise_and_yet_a_commit() {
        let mut servers = waiting();
        let position = servers.commits["waits"].position;
        servers.world.interrupt_commit(0, position, false);
        servers.settle();
        assert_eq!(servers.visible(0), ["waits"]);
        assert_eq!(servers.commits["waits"].answer, ClientAnswer::Unanswered);
        assert_eq!(servers.world.report.interrupted, 1);
        assert_eq!(servers.world.report.acknowledged, 0);
        assert!(servers.world.clients.guaranteed.is_empty());
        // It is an answer nevertheless: nobody may give one on an earlier branch.
        assert!(servers.world.clients.newest.is_some());
    }

    #[test]
    fn a_crash_shows_what_waited_and_keeps_the_postmaster() {
        let mut servers = waiting();
        let before = servers.observe(0).process;
        servers.world.crash_restart(0, "test");
        assert!(!servers.world.servers[0].answers());
        servers.settle();
        assert_eq!(servers.visible(0), ["waits"]);
        assert_eq!(servers.commits["waits"].answer, ClientAnswer::Unanswered);
        assert_eq!(servers.observe(0).process, before);
        assert!(servers.world.servers[0].is_primary());
    }

    #[test]
    fn a_full_disk_of_wal_is_read_from_until_somebody_writes() {
        let mut servers = ModelledServers::new(1, 1);
        servers.init(0);
        servers.start(0, None);
        servers.commit(0, "first", Level::On);
        servers.world.servers[0].wal_full = 1;
        servers.settle();
        assert_eq!(servers.visible(0), ["first"]);
        servers.commit(0, "second", Level::On);
        assert!(servers.world.servers[0].running.is_none());
        // Recovery cannot end without space either.
        servers.start(0, None);
        assert!(servers.world.servers[0].running.is_none());
        servers.world.servers[0].wal_full = 0;
        servers.start(0, None);
        assert_eq!(servers.visible(0), ["first"]);
    }

    #[test]
    fn a_slow_start_ends_when_what_slows_it_does() {
        let mut servers = ModelledServers::new(1, 1);
        servers.init(0);
        servers.world.servers[0].slow_start = 1;
        servers.start(0, None);
        assert!(!servers.world.servers[0].answers());
        servers.world.servers[0].slow_start = 0;
        servers.settle();
        assert!(servers.world.servers[0].writable());
    }
}
