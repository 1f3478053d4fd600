//! The long actions (`jobs.rs` of the agent).

use std::time::Duration;

use primacy_ha::{Event, Job, JobProgress, JobReport, StopMode};

use crate::invariants;
use crate::node::{AgentTask, upstream_of};
use crate::postgres::Phase;
use crate::world::{Instant, NodeId, World};

/// Between two looks at what a job waits for.
const POLL: Duration = Duration::from_millis(100);
/// A start without a deadline of its own is given so long (`pg_ctl_timeout`).
const START_LIMIT: Duration = Duration::from_secs(60);

/// A job under way: its agent, and its number there.
#[derive(Clone, Copy)]
struct Run {
    task: AgentTask,
    number: u64,
}

/// What a base backup or a rewind is taken from. It breaks off with that server's processes, and when a standby is promoted meanwhile.
#[derive(Clone, Copy, PartialEq)]
struct Source {
    node: NodeId,
    life: u64,
    primary: bool,
}

impl Run {
    fn node(self) -> NodeId {
        self.task.node
    }
}

impl World {
    pub(crate) fn start_job(&mut self, task: AgentTask, job: Job) {
        let Some(agent) = self.nodes[task.node].agent.as_mut() else {
            return;
        };
        agent.cancelled = false;
        agent.job_number += 1;
        let run = Run {
            task,
            number: agent.job_number,
        };
        let node = task.node;
        match job {
            // Standby clusters are not modelled: no plan has one.
            Job::BootstrapStandbyLeader { .. } => {
                let failed = JobReport::Failed("there is no other cluster".into());
                self.later(run, Duration::ZERO, move |world| world.done(run, failed));
            }
            Job::Bootstrap => {
                self.servers[node].disk.unfinished = true;
                let delay = self.millis(1_000, 5_000);
                self.later(run, delay, move |world| {
                    if world.servers[node].disk.valid {
                        return world.done(
                            run,
                            JobReport::Failed("the data directory is not empty".into()),
                        );
                    }
                    world.init_database(node);
                    world.start_with_names(node, None);
                    world.await_start(run, START_LIMIT);
                });
            }
            Job::PostBootstrap => {
                let delay = self.millis(50, 500);
                self.later(run, delay, move |world| {
                    let report = if world.servers[node].writable() {
                        JobReport::Done
                    } else {
                        JobReport::Failed("the server is gone".into())
                    };
                    world.done(run, report);
                });
            }
            Job::CreateReplica {
                source,
                reinitialize,
                ..
            } => {
                let source = source.and_then(|source| World::node_of(&source.connection.host));
                if reinitialize {
                    self.stop_server(node, false);
                    return self.wipe_when_stopped(run, source);
                }
                self.copy(run, source);
            }
            Job::CopyLogicalSlots { .. } => self.later(run, Duration::ZERO, move |world| {
                world.done(run, JobReport::Failed("the model has no slots".into()));
            }),
            Job::Start { upstream } => {
                self.start_with_names(node, Some(upstream_of(&upstream)));
                self.await_start(run, START_LIMIT);
            }
            Job::StartPrimary { timeout } => {
                self.start_with_names(node, None);
                self.await_start(run, timeout);
            }
            Job::Restart { upstream, timeout } => {
                self.stop_server(node, true);
                let standby = upstream.as_ref().map(upstream_of);
                self.restart_when_stopped(run, standby, timeout);
            }
            Job::CrashRecovery => {
                let delay = self.millis(500, 4_000);
                self.later(run, delay, move |world| world.recover_when_read(run));
            }
            Job::CheckDivergence { source, .. } => {
                let delay = self.millis(10, 200);
                self.later(run, delay, move |world| {
                    let found = World::node_of(&source.connection.host)
                        .and_then(|leader| world.diverged(node, leader));
                    let server = &mut world.servers[node];
                    if found == Some(true) && server.full == 0 {
                        server.disk.diverged = true;
                    }
                    world.done(run, JobReport::Compared(found));
                });
            }
            Job::Rewind { source, .. } => {
                self.stop_server(node, true);
                self.rewind_when_stopped(run, World::node_of(&source.connection.host));
            }
            Job::Promote => {
                let delay = self.millis(5, 60);
                self.later(run, delay, move |world| {
                    if world.is_cancelled(run) {
                        return world.done(run, JobReport::Cancelled);
                    }
                    let possible =
                        world.servers[node].answers() && !world.servers[node].is_primary();
                    world.promote(node);
                    let report = if possible {
                        JobReport::Done
                    } else {
                        JobReport::Failed("no standby runs".into())
                    };
                    world.done(run, report);
                });
            }
            Job::Stop {
                mode,
                checkpoint,
                timeout,
                ..
            } => self.stop(run, mode, checkpoint, timeout),
        }
    }

    /// `Shell::start_job` has the files written anew: with the names that the agent manages, or the user's own, none.
    fn start_with_names(&mut self, node: NodeId, standby: Option<Option<NodeId>>) {
        let managed = self
            .machine(node)
            .and_then(|machine| machine.memory().sync.managed.clone());
        self.servers[node].disk.names = managed.unwrap_or_default();
        self.start_server(node, standby);
        self.spawned(node);
    }

    /// Goes on with the job later, unless its agent is gone.
    fn later(&mut self, run: Run, delay: Duration, what: impl FnOnce(&mut World) + 'static) {
        self.agent_after(run.task, delay, what);
    }

    fn is_cancelled(&self, run: Run) -> bool {
        self.nodes[run.node()]
            .agent
            .as_ref()
            .is_some_and(|agent| agent.job_number == run.number && agent.cancelled)
    }

    fn done(&mut self, run: Run, report: JobReport) {
        self.step(run.task, Event::JobDone(report));
    }

    fn copied(&mut self, run: Run, begun: Option<Source>) {
        let node = run.node();
        if self.is_cancelled(run) {
            return self.done(run, JobReport::Cancelled);
        }
        match begun {
            Some(source)
                if self.source(node, source.node) == begun && self.servers[node].has_space() =>
            {
                self.copy_database(node, source.node);
                self.done(run, JobReport::Done);
            }
            _ => self.done(run, JobReport::Failed("the copy broke off".into())),
        }
    }

    fn await_start(&mut self, run: Run, timeout: Duration) {
        let until = self.now() + timeout;
        self.poll_start(run, until);
    }

    fn poll_start(&mut self, run: Run, until: Instant) {
        let node = run.node();
        let phase = self.servers[node]
            .running
            .as_ref()
            .map(|running| running.phase);
        match phase {
            None => self.done(run, JobReport::Failed("the server ended".into())),
            Some(Phase::Ready) => self.done(
                run,
                JobReport::Started {
                    ready: true,
                    pending_restart: None,
                },
            ),
            _ if self.is_cancelled(run) => {
                self.stop_server(node, false);
                self.done(run, JobReport::Cancelled);
            }
            _ if self.now() >= until => self.done(
                run,
                JobReport::Started {
                    ready: false,
                    pending_restart: None,
                },
            ),
            _ => self.later(run, POLL, move |world| world.poll_start(run, until)),
        }
    }

    /// The end of crash recovery in single-user mode.
    fn recover_when_read(&mut self, run: Run) {
        let node = run.node();
        if self.servers[node].slow_start > 0 {
            return self.later(run, POLL, move |world| world.recover_when_read(run));
        }
        let report = if self.recover_single_user(node) {
            JobReport::Done
        } else {
            JobReport::Failed("single-user mode failed".into())
        };
        self.done(run, report);
    }

    fn restart_when_stopped(
        &mut self,
        run: Run,
        standby: Option<Option<NodeId>>,
        timeout: Duration,
    ) {
        let node = run.node();
        if self.servers[node].running.is_some() {
            if self.is_cancelled(run) {
                self.stop_server(node, false);
            }
            return self.later(run, POLL, move |world| {
                world.restart_when_stopped(run, standby, timeout)
            });
        }
        if self.is_cancelled(run) {
            return self.done(run, JobReport::Cancelled);
        }
        self.start_with_names(node, standby);
        self.await_start(run, timeout);
    }

    fn wipe_when_stopped(&mut self, run: Run, source: Option<NodeId>) {
        let node = run.node();
        if self.servers[node].running.is_some() {
            return self.later(run, POLL, move |world| world.wipe_when_stopped(run, source));
        }
        invariants::last_copy::wiped(self, node, source);
        self.wipe(node);
        self.copy(run, source);
    }

    fn copy(&mut self, run: Run, source: Option<NodeId>) {
        let delay = self.millis(2_000, 30_000);
        let begun = source.and_then(|source| self.source(run.node(), source));
        self.later(run, delay, move |world| world.copied(run, begun));
    }

    fn source(&self, node: NodeId, source: NodeId) -> Option<Source> {
        if source == node || !self.is_source(node, source) {
            return None;
        }
        let running = self.servers[source].running.as_ref()?;
        Some(Source {
            node: source,
            life: running.life,
            primary: running.primary,
        })
    }

    fn rewind_when_stopped(&mut self, run: Run, source: Option<NodeId>) {
        let node = run.node();
        if self.servers[node].running.is_some() {
            return self.later(run, POLL, move |world| {
                world.rewind_when_stopped(run, source)
            });
        }
        let delay = self.millis(500, 10_000);
        if self.plan.rewinds_break {
            return self.rewind(run, source, delay);
        }
        self.later(run, delay, move |world| {
            let possible = source.filter(|source| {
                world.is_source(node, *source) && world.servers[*source].is_primary()
            });
            match possible {
                _ if world.servers[node].running.is_some() => {
                    world.done(run, JobReport::RewindLater("a server runs".into()));
                }
                Some(source) if !world.pg_rewind_finds(node, source) => {
                    let report = if world.is_part_of(node, source) {
                        JobReport::Done
                    } else {
                        let text = "no rewind required, and yet the WAL differs";
                        JobReport::RewindFailed(text.into())
                    };
                    world.done(run, report);
                }
                Some(source) => {
                    invariants::last_copy::rewound(world, node, source);
                    world.copy_database(node, source);
                    world.done(run, JobReport::Done);
                }
                None => world.done(
                    run,
                    JobReport::RewindLater("the source cannot be reached".into()),
                ),
            }
        });
    }

    /// pg_rewind as a process that something may happen to: first it looks for what differs, then it writes. The marker is
    /// there from before it begins until it has ended well, or has written nothing (`Server::rewind` of the agent's PostgreSQL).
    fn rewind(&mut self, run: Run, source: Option<NodeId>, takes: Duration) {
        let node = run.node();
        let begun = source.and_then(|source| self.source(node, source));
        let Some(source) = begun.filter(|source| source.primary) else {
            let later = JobReport::RewindLater("the source cannot be reached".into());
            return self.later(run, Duration::ZERO, move |world| world.done(run, later));
        };
        invariants::last_copy::used(self, node, "rewound again");
        self.servers[node].disk.half_rewound = true;
        self.later(run, takes / 2, move |world| {
            let differs = world.pg_rewind_finds(node, source.node);
            if world.source(node, source.node) == Some(source) && differs {
                invariants::last_copy::rewound(world, node, source.node);
                return world.later(run, takes / 2, move |world| world.rewound(run, source));
            }
            world.servers[node].disk.half_rewound = false;
            let report = match differs {
                true => JobReport::RewindLater("the source cannot be reached".into()),
                false if world.is_part_of(node, source.node) => JobReport::Done,
                false => {
                    let text = "no rewind required, and yet the WAL differs";
                    JobReport::RewindFailed(text.into())
                }
            };
            world.done(run, report);
        });
    }

    fn rewound(&mut self, run: Run, source: Source) {
        let node = run.node();
        if self.source(node, source.node) == Some(source) && self.servers[node].has_space() {
            self.copy_database(node, source.node);
            return self.done(run, JobReport::Done);
        }
        self.trace(
            |_| format!("{} rewind breaks off", Self::name(node)),
            [9, node as u64, source.node as u64],
        );
        let text = "it was interrupted while it wrote";
        self.done(run, JobReport::RewindFailed(text.into()));
    }

    /// `jobs::stop`: rougher after the timeout.
    fn stop(&mut self, run: Run, mode: StopMode, checkpoint: bool, timeout: Option<Duration>) {
        let node = run.node();
        if checkpoint && self.servers[node].writable() {
            self.checkpoint(node);
        }
        let until = timeout.map(|timeout| self.now() + timeout);
        // The checkpoint before the stop takes a while, in which clients go on.
        let delay = if checkpoint {
            self.millis(20, 2_000)
        } else {
            Duration::ZERO
        };
        self.later(run, delay, move |world| {
            world.stop_server(node, mode == StopMode::Fast);
            world.poll_stop(run, until, false);
        });
    }

    fn poll_stop(&mut self, run: Run, until: Option<Instant>, told: bool) {
        let node = run.node();
        let position = self.shutdown_position(node);
        if self.servers[node].running.is_none() {
            return self.done(
                run,
                JobReport::Stopped {
                    shutdown_lsn: position,
                },
            );
        }
        if let Some(position) = position
            && !told
        {
            self.step(
                run.task,
                Event::JobProgress(JobProgress::ShutdownCheckpoint(position)),
            );
        }
        if until.is_some_and(|until| self.now() >= until) {
            self.kill_server(node, "stop took too long");
        }
        let told = told || position.is_some();
        self.later(run, POLL, move |world| world.poll_stop(run, until, told));
    }
}
