//! The shell around the machine: waits for events, hands them to [`Machine::step`], performs the actions, and
//! publishes what came of them. It never waits for an action: every one runs in a task of its own and reports
//! through the event channel, so the machine is stepped within microseconds of every event, whatever a disk or
//! a network does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use primacy_config::ConfigError;
use primacy_config::parameters::Managed;
use primacy_dcs::{ClusterStore, Renewal, Subject, WatchEvent};
use primacy_ha::citus::CitusEvent;
use primacy_ha::{
    Action, Answer, CallbackEvent, Event, Exit, FailsafeAnswer, Job, JobProgress, JobReport, Lease,
    LogLevel, Machine, Moment, OperatorRequest, PeerReport, RenewalResult, Step, StepOutcome,
    StoreKey, Upstream,
};
use primacy_model::{
    JournalKind, MemberData, MemberName, Observation, PostmasterIdentity, Process, Role, State,
};
use primacy_net::HttpClient;
use primacy_postgres::{
    Callback, CallbackRunner, ObserveOptions, Server, StopMode, StopRequest, WalMarker, kill_now,
    postmaster_death,
};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::ApiServer;
use crate::citus::CoordinatorClient;
use crate::configuration::{Configuration, admit, apply_deadline, apply_to_running, cache};
use crate::fencing::{Fencing, Keeper};
use crate::jobs::{self, JobContext, RecoveryContext, chain};
use crate::journal::Journal;
use crate::leases::{Leases, Sight};
use crate::logging::{Logging, OUTCOME};
use crate::peers::ask_members;
use crate::published::Published;
use crate::request::{NotScheduled, Request, RestartAnswer};
use crate::steps::{self, StepContext};
use crate::supervisor::Supervisor;
use crate::watchdog::{self, WatchdogThread};
use crate::{clock, failsafe, reconfigure, settings, slots, stores};

/// The one parameter that the agent manages itself.
const SYNCHRONOUS_STANDBY_NAMES: &str = "synchronous_standby_names";
/// A look that an API request asked for.
const LOOK_BUDGET: Duration = Duration::from_secs(2);
/// The member key and `/status` are not worth waiting for longer.
const PUBLISH_BUDGET: Duration = Duration::from_secs(5);
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// Everything that the shell holds.
pub(crate) struct Shell {
    machine: Machine,
    configuration: Configuration,
    store: ClusterStore,
    /// In a worker group of a Citus cluster.
    coordinator_group: Option<ClusterStore>,
    leases: Arc<Leases>,
    server: Server,
    version: u32,
    callbacks: CallbackRunner,
    peers: HttpClient,
    journal: Arc<Journal>,
    logging: Logging,
    /// For log and API, which are reconfigured beside the loop.
    reconfigure: mpsc::UnboundedSender<reconfigure::Order>,
    /// Where a reload tells what it read, and where that arrives.
    rereads: mpsc::UnboundedSender<Reread>,
    reread: mpsc::UnboundedReceiver<Reread>,
    published: watch::Sender<Arc<Published>>,
    lease: watch::Sender<Lease>,
    events: mpsc::UnboundedSender<Event>,
    /// Writes to the store, in order: one task performs them.
    writes: mpsc::UnboundedSender<StoreWrite>,
    /// Goes with the member key, if that follows in the same step.
    status: Option<primacy_model::Status>,
    cancel_job: CancellationToken,
    watched: Option<PostmasterIdentity>,
    replies: HashMap<u64, Reply>,
    next_reply: u64,
    /// Who waits for the next look that ends: none was under way when they asked.
    looks: Vec<oneshot::Sender<Arc<Observation>>>,
    /// Who waits for a look that begins when those under way have ended, since it has to begin after the question.
    later_looks: Vec<oneshot::Sender<Arc<Observation>>>,
    looking: u32,
    dcs_last_seen: i64,
    observation: Arc<Observation>,
    fencing: Fencing,
    watchdog: WatchdogThread,
    supervisor: Supervisor,
    /// The role after the last step.
    role: Role,
    /// The configuration, or which part of it holds, changed since it was last brought to the server.
    settings_changed: bool,
    /// The access rules in the server's files may be older than the configuration.
    rules_changed: bool,
    /// The server is to read its files again even if none changes.
    reload_wanted: bool,
    /// The address of PostgreSQL that the machine was told last, and whether another one waits for a restart.
    conn_url: String,
    address_waits: bool,
    exit: Option<Exit>,
}

/// What the shell is made of, and the other ends of its channels.
pub(crate) struct Parts {
    pub(crate) machine: Machine,
    pub(crate) configuration: Configuration,
    pub(crate) store: ClusterStore,
    pub(crate) coordinator_group: Option<ClusterStore>,
    pub(crate) server: Server,
    pub(crate) version: u32,
    pub(crate) peers: HttpClient,
    pub(crate) journal: Arc<Journal>,
    pub(crate) logging: Logging,
    pub(crate) published: watch::Sender<Arc<Published>>,
    pub(crate) fencing: Fencing,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) watchdog: WatchdogThread,
    pub(crate) supervisor: Supervisor,
}

/// The signals that the process listens to.
pub(crate) struct Signals {
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
    pub(crate) hangup: Signal,
}

/// The local configuration, as a reload found it.
type Reread = Result<serde_json::Value, ConfigError>;

/// A write to the store that must not be overtaken by a later one. Bounded by the machine: one step, one
/// member key and one status per pass.
enum StoreWrite {
    Step(Box<(Step, StepContext)>, Instant),
    Member {
        data: Box<MemberData>,
        ttl: Duration,
        leads: bool,
        /// As [`Self::Status`], of who leads.
        status: Option<primacy_model::Status>,
        /// To be told when the key first shows a primary that accepts writes.
        coordinator: Option<CoordinatorClient>,
    },
    Status(primacy_model::Status),
    Failsafe(std::collections::BTreeMap<primacy_model::MemberName, String>),
    /// Answer when everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// Who waits for an answer.
enum Reply {
    Restart(oneshot::Sender<RestartAnswer>),
    Reinitialize(oneshot::Sender<Result<(), String>>),
    Schedule(oneshot::Sender<Result<(), NotScheduled>>),
    Unschedule(oneshot::Sender<bool>),
    Failsafe(oneshot::Sender<FailsafeAnswer>),
}

impl Shell {
    pub(crate) fn new(parts: Parts) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let (writes, queue) = mpsc::unbounded_channel();
        let (rereads, reread) = mpsc::unbounded_channel();
        let name = parts.configuration.effective().local.name.clone();
        let leases = Arc::new(Leases::new(parts.store.clone(), name.clone()));
        tokio::spawn(write_in_order(
            queue,
            parts.store.clone(),
            Arc::clone(&leases),
            name,
            events.clone(),
        ));
        if let Some(keeper) = parts.keeper {
            tokio::spawn(keeper.keep(events.clone()));
        }
        let conn_url = settings::local(parts.configuration.effective(), false).conn_url;
        let shell = Shell {
            role: parts.machine.memory().role,
            machine: parts.machine,
            configuration: parts.configuration,
            store: parts.store,
            coordinator_group: parts.coordinator_group,
            leases,
            server: parts.server,
            version: parts.version,
            callbacks: CallbackRunner::new(),
            peers: parts.peers,
            journal: parts.journal,
            logging: parts.logging,
            reconfigure: mpsc::unbounded_channel().0,
            rereads,
            reread,
            published: parts.published,
            lease: watch::Sender::new(Lease::None),
            events,
            writes,
            status: None,
            cancel_job: CancellationToken::new(),
            watched: None,
            replies: HashMap::new(),
            next_reply: 0,
            looks: Vec::new(),
            later_looks: Vec::new(),
            looking: 0,
            dcs_last_seen: 0,
            observation: Arc::default(),
            fencing: parts.fencing,
            watchdog: parts.watchdog,
            supervisor: parts.supervisor,
            settings_changed: true,
            rules_changed: true,
            reload_wanted: false,
            conn_url,
            address_waits: false,
            exit: None,
        };
        (shell, receiver)
    }

    /// The API is served from now on.
    pub(crate) fn serve(&mut self, api: ApiServer) {
        let (reconfigure, orders) = mpsc::unbounded_channel();
        self.reconfigure = reconfigure;
        tokio::spawn(reconfigure::obey(orders, api, self.logging.handle()));
    }

    /// Runs until the machine says exit.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut requests: mpsc::Receiver<Request>,
        mut signals: Signals,
    ) -> (Exit, Logging) {
        let mut watch = self.store.watch();
        let mut reloads = self.server.reloads();
        let (server, changed) = (self.server.clone(), self.events.clone());
        tokio::spawn(async move {
            server
                .probe(move || drop(changed.send(Event::PostmasterChanged)))
                .await;
        });
        self.supervisor.ready();
        loop {
            let ping = self.supervisor.due();
            let wake = self.machine.wake_at().map(clock::instant);
            let event = tokio::select! {
                Some(event) = events.recv() => Some(event),
                Some(request) = requests.recv() => self.take_request(request),
                Some(event) = watch.recv() => self.take_watch(event),
                Ok(()) = reloads.changed() => { self.reloaded(); None }
                () = until(wake) => Some(Event::Tick),
                Some(tree) = self.reread.recv() => { self.take_reread(tree); None }
                () = until(ping) => { self.supervisor.tick(self.is_on_time()); None }
                _ = signals.terminate.recv() => Some(Event::Terminate),
                _ = signals.interrupt.recv() => Some(Event::Terminate),
                _ = signals.hangup.recv() => { self.reload(); None }
            };
            if let Some(event) = event {
                if matches!(event, Event::Terminate) {
                    self.supervisor.stopping();
                }
                self.step(event);
            }
            if let Some(exit) = self.exit.take() {
                self.supervisor.stopping();
                let (done, flushed) = oneshot::channel();
                let _ = self.writes.send(StoreWrite::Flush(done));
                let _ = tokio::time::timeout(FAREWELL, flushed).await;
                let journal = Arc::clone(&self.journal);
                let _ = tokio::task::spawn_blocking(move || journal.flush(FAREWELL)).await;
                self.watchdog.flush(Instant::now() + FAREWELL).await;
                let (done, stopped) = oneshot::channel();
                let _ = self.reconfigure.send(reconfigure::Order::Stop(done));
                let _ = tokio::time::timeout(FAREWELL, stopped).await;
                // A server that runs on as a primary keeps its fence.
                if self.machine.global().pause || !self.observation.process.is_alive() {
                    self.fencing.quit(Instant::now() + FAREWELL).await;
                }
                return (exit, self.logging);
            }
        }
    }

    /// Whether passes are made: every wait in one has a deadline, and there are fewer than three that take
    /// `retry_timeout`.
    fn is_on_time(&self) -> bool {
        const SLACK: Duration = Duration::from_secs(30);
        let longest = 3 * self.machine.global().retry_timeout + SLACK;
        clock::now() < self.machine.next_regular_pass() + longest
    }

    fn step(&mut self, event: Event) {
        match &event {
            Event::Observed { observation, .. } => {
                self.saw(observation);
                self.follow_address();
            }
            Event::JobProgress(JobProgress::Spawned(identity)) => self.watch(*identity),
            Event::ClusterRead(Ok(_)) | Event::ClusterFollowed(_) | Event::ClusterUnchanged => {
                self.dcs_last_seen = Timestamp::now().as_second();
            }
            _ => {}
        }
        let looked = matches!(event, Event::Observed { .. });
        let actions = self.machine.step(event, clock::now(), Timestamp::now());
        self.lease.send_replace(self.machine.lease());
        self.follow_role();
        for action in actions {
            self.perform(action);
        }
        if let Some(status) = self.status.take() {
            let _ = self.writes.send(StoreWrite::Status(status));
        }
        self.publish();
        if looked {
            // Before the cluster was seen nobody knows what the agent must set: a standby that stopped telling its
            // primary what it reads would lose it.
            let behind = match self.observation.wal {
                Some(_) => self.settings_changed,
                None => self.rules_changed && self.keeps_out(),
            };
            if behind && self.machine.memory().store_seen && self.machine.job().is_none() {
                self.apply_configuration();
            }
            self.looking -= 1;
            for reply in std::mem::take(&mut self.looks) {
                let _ = reply.send(Arc::clone(&self.observation));
            }
            if self.looking == 0 && !self.later_looks.is_empty() {
                self.looks = std::mem::take(&mut self.later_looks);
                self.look(clock::now(), Instant::now() + LOOK_BUDGET, true);
            }
        }
    }

    /// What the configuration says for one role alone takes the place of what it says for another (`configuration.md` §1.10).
    fn follow_role(&mut self) {
        let now = self.machine.memory().role;
        let before = std::mem::replace(&mut self.role, now);
        let section = &self.configuration.effective().local.postgresql;
        let changed = section.overrides(now) != section.overrides(before);
        self.settings_changed |= changed;
        self.rules_changed |= changed;
    }

    /// Remembers the look, and has the postmaster's death reported.
    fn saw(&mut self, observation: &Observation) {
        self.observation = Arc::new(observation.clone());
        if let Some(wal) = &observation.wal {
            self.version = wal.server_version;
        }
        if let Process::Running(identity) = observation.process {
            self.watch(identity);
        }
    }

    /// From now on this is the postmaster: to be killed, also by the fence, and whose death is reported.
    fn watch(&mut self, identity: PostmasterIdentity) {
        if self.watched == Some(identity) {
            return;
        }
        self.watched = Some(identity);
        self.fencing.aim(identity);
        let events = self.events.clone();
        tokio::spawn(async move {
            postmaster_death(identity).await;
            let _ = events.send(Event::PostmasterChanged);
        });
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::ReadCluster {
                deadline,
                followed_within,
            } => {
                let leases = Arc::clone(&self.leases);
                self.report(async move {
                    let by = clock::instant(deadline);
                    match leases.look_at_cluster(followed_within, by).await {
                        Ok(Sight::Read(cluster)) => Event::ClusterRead(Ok(cluster)),
                        Ok(Sight::Followed(cluster)) => Event::ClusterFollowed(cluster),
                        Ok(Sight::Unchanged) => Event::ClusterUnchanged,
                        Err(error) => Event::ClusterRead(Err(chain(&error))),
                    }
                });
            }
            Action::Observe {
                sent,
                deadline,
                slots,
            } => self.look(sent, clock::instant(deadline), slots),
            Action::AskPeers { members } => {
                let client = self.peers.clone();
                self.report(async move {
                    let answers = ask_members(&client, members).await;
                    let report = |status: crate::peers::PeerStatus| PeerReport {
                        in_recovery: status.in_recovery,
                        position: status.position,
                        timeline: status.timeline,
                        tags: status.tags,
                        watchdog_failed: status.watchdog_failed,
                        failsafe_active: status.failsafe_active,
                    };
                    Event::PeersAnswered(
                        answers
                            .into_iter()
                            .map(|(name, status)| (name, status.map(report)))
                            .collect(),
                    )
                });
            }
            Action::AskFailsafe {
                sent,
                deadline,
                members,
                leader,
            } => {
                let client = self.peers.clone();
                self.report(async move {
                    let by = clock::instant(deadline);
                    let answers = failsafe::ask(&client, members, &leader, by).await;
                    Event::FailsafeAnswered { sent, answers }
                });
            }
            Action::AnswerFailsafe { id, answer } => {
                if let Some(Reply::Failsafe(reply)) = self.replies.remove(&id) {
                    let _ = reply.send(answer);
                }
            }
            Action::Renew {
                adopting,
                sent,
                deadline,
            } => {
                let leases = Arc::clone(&self.leases);
                let ttl = self.machine.global().ttl;
                self.report(async move {
                    let by = clock::instant(deadline);
                    let renewal = match adopting {
                        true => leases.adopt(ttl, by).await,
                        false => leases.renew(ttl, by).await,
                    };
                    let result = match renewal {
                        Ok(Renewal::Renewed { .. }) => RenewalResult::Renewed,
                        Ok(Renewal::Lapsed) => RenewalResult::Lapsed,
                        Err(error) => RenewalResult::Failed(chain(&error)),
                    };
                    Event::Renewed { sent, result }
                });
            }
            Action::Perform { step, deadline } => self.perform_step(step, clock::instant(deadline)),
            Action::StartJob(job) => self.start_job(job),
            Action::CancelJob => self.cancel_job.cancel(),
            Action::KillNow => self.kill(),
            Action::SetFence(order) => self.fencing.set(order, self.machine.global()),
            Action::PingWatchdog { timeout, until } => self.watchdog.ping(timeout, until),
            Action::DisableWatchdog => self.watchdog.disable(),
            Action::ForgetDivergence => self.unmark_wal(WalMarker::Diverged),
            Action::ForgetFormerPrimary => self.unmark_wal(WalMarker::FormerPrimary),
            Action::PublishMember(data) => {
                let ttl = self.machine.global().ttl;
                let leads = self.machine.lease() != Lease::None;
                let coordinator = self.coordinator();
                let write = StoreWrite::Member {
                    data,
                    ttl,
                    leads,
                    status: self.status.take_if(|_| leads),
                    coordinator,
                };
                let _ = self.writes.send(write);
            }
            Action::WriteStatus(status) => self.status = Some(status),
            Action::WriteFailsafe(map) => {
                let _ = self.writes.send(StoreWrite::Failsafe(map));
            }
            Action::ApplyDynamic(dynamic) => {
                if let Err(error) = self.configuration.take_dynamic(&dynamic) {
                    tracing::error!(
                        "the dynamic configuration cannot be used: {}",
                        chain(&error)
                    );
                    return;
                }
                self.settings_changed = true;
                self.rules_changed = true;
            }
            // The settings ask the machine.
            Action::ForceHotStandbyFeedback(_) => self.settings_changed = true,
            Action::Callback(event, role) => self.call_back(event, role),
            Action::Reply { id, answer } => self.reply(id, answer),
            Action::Journal(entry) => {
                for reason in &entry.reasons {
                    tracing::debug!(rule = reason.rule, "{}", reason.text);
                }
                if entry.kind == JournalKind::Step {
                    let leader = entry.leader.as_ref().map(MemberName::as_str);
                    tracing::info!(
                        detail.step = entry.step,
                        detail.leader = leader,
                        "{}",
                        describe(&entry)
                    );
                }
                let name = self.configuration.effective().local.name.clone();
                self.journal.keep(&entry.record(name));
            }
            Action::Log(level, text) => match level {
                LogLevel::Error => tracing::error!("{text}"),
                LogLevel::Warning => tracing::warn!("{text}"),
                LogLevel::Info if text == self.machine.outcome() => {
                    tracing::info!(target: OUTCOME, "{text}");
                }
                LogLevel::Info => tracing::info!("{text}"),
                LogLevel::Debug => tracing::debug!("{text}"),
            },
            Action::Exit(exit) => self.exit = Some(exit),
        }
    }

    fn report(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = events.send(work.await);
        });
    }

    fn look(&mut self, sent: Moment, deadline: Instant, slots: bool) {
        self.looking += 1;
        let server = self.server.clone();
        let watchdog = self.configuration.effective().local.watchdog.clone();
        self.report(async move {
            let (observation, usable) = tokio::join!(
                server.observe(ObserveOptions { slots }, deadline),
                watchdog::usable(&watchdog, deadline)
            );
            Event::Observed {
                sent,
                observation: Observation {
                    watchdog_usable: usable,
                    ..observation
                },
            }
        });
    }

    fn perform_step(&mut self, mut step: Step, deadline: Instant) {
        if let Step::SetSynchronousStandbyNames(value @ None) = &mut step {
            // The user's own value, if there is one, is what an unmanaged configuration says.
            let role = self.machine.memory().role;
            let unmanaged =
                self.configuration
                    .server_settings(Some(self.version), role, Managed::default());
            *value = unmanaged.parameters.get(SYNCHRONOUS_STANDBY_NAMES).cloned();
        }
        let context = self.step_context();
        if step == Step::Checkpoint {
            let server = self.server.clone();
            self.report(async move {
                let result = server.checkpoint(deadline).await;
                Event::CheckpointDone(result.map_err(|error| chain(&error)))
            });
        } else if let Step::ChangeLogicalSlots { database, changes } = step {
            let server = self.server.clone();
            self.report(async move { slots::change(&server, database, changes, deadline).await });
        } else if let Step::CompareLogicalSlots {
            source,
            physical,
            logical,
        } = step
        {
            let server = self.server.clone();
            self.report(async move {
                slots::compare(&server, &source, physical, logical, deadline).await
            });
        } else if step == Step::CancelBootstrap {
            let server = self.server.clone();
            let writes = self.writes.clone();
            tokio::spawn(async move {
                if let Err(error) = abandon(&server, deadline).await {
                    tracing::error!(
                        "the data directory could not be moved aside: {}",
                        chain(&error)
                    );
                }
                let _ = writes.send(StoreWrite::Step(
                    Box::new((Step::CancelBootstrap, context)),
                    deadline,
                ));
            });
        } else if let Step::ActivateWatchdog { timeout } = step {
            let thread = self.watchdog.clone();
            let config = self.configuration.effective().local.watchdog.clone();
            let least = self.machine.global().loop_wait;
            self.report(async move {
                Event::StepDone(thread.activate(config, timeout, least, deadline).await)
            });
        } else if step == Step::AbandonBootstrap {
            let server = self.server.clone();
            self.report(async move {
                Event::StepDone(match abandon(&server, deadline).await {
                    Ok(()) => StepOutcome::Done,
                    Err(error) => StepOutcome::Failed(chain(&error)),
                })
            });
        } else if steps::writes_to_store(&step) {
            let _ = self
                .writes
                .send(StoreWrite::Step(Box::new((step, context)), deadline));
        } else {
            self.report(
                async move { Event::StepDone(steps::perform(step, &context, deadline).await) },
            );
        }
    }

    fn step_context(&self) -> StepContext {
        let global = self.machine.global();
        StepContext {
            store: self.store.clone(),
            leases: Arc::clone(&self.leases),
            server: self.server.clone(),
            name: self.configuration.effective().local.name.clone(),
            ttl: global.ttl,
            recovery: self.recovery_context(),
            keep_timelines: global.max_timelines_history,
            in_recovery: self
                .observation
                .wal
                .as_ref()
                .is_some_and(|wal| !wal.is_primary()),
            dynamic: self.configuration.dynamic().clone(),
        }
    }

    /// Whom a worker of a Citus cluster tells what it does.
    fn coordinator(&self) -> Option<CoordinatorClient> {
        let local = &self.configuration.effective().local;
        let global = self.machine.global();
        Some(CoordinatorClient {
            store: self.coordinator_group.clone()?,
            client: self.peers.clone(),
            group: local.citus.as_ref()?.group,
            name: local.name.clone(),
            ttl: global.ttl,
            retry_timeout: global.retry_timeout,
        })
    }

    fn recovery_context(&self) -> RecoveryContext {
        let global = self.machine.global();
        RecoveryContext {
            member: self.configuration.effective().local.name.to_string(),
            use_slots: global.use_slots,
            standby_cluster: global.standby_cluster.clone(),
        }
    }

    fn unmark_wal(&self, marker: WalMarker) {
        let server = self.server.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + LOOK_BUDGET;
            if let Err(error) = server.unmark_wal(marker, deadline).await {
                tracing::warn!("{}", chain(&error));
            }
        });
    }

    fn start_job(&mut self, job: Job) {
        self.cancel_job = CancellationToken::new();
        let (progress, mut news) = mpsc::unbounded_channel();
        let effective = self.configuration.effective();
        let bootstrap = effective.local.bootstrap.as_ref();
        let context = JobContext {
            server: self.server.clone(),
            cancel: self.cancel_job.clone(),
            progress,
            lease: self.lease.subscribe(),
            recovery: self.recovery_context(),
            retry_timeout: self.machine.global().retry_timeout,
            custom_bootstrap: settings::custom_bootstrap(effective),
            bootstrap_pg_hba: bootstrap
                .map(|section| section.pg_hba.clone())
                .unwrap_or_default(),
            post_bootstrap: bootstrap.and_then(|section| section.post_bootstrap.clone()),
            coordinator: self.coordinator(),
            fence: self.fencing.aimer(),
        };
        self.take_settings(self.settings(job_role(&job)));
        let events = self.events.clone();
        tokio::spawn(async move {
            let run = jobs::run(job, context);
            tokio::pin!(run);
            let report: JobReport = loop {
                tokio::select! {
                    Some(progress) = news.recv() => {
                        let _ = events.send(Event::JobProgress(progress));
                    }
                    report = &mut run => break report,
                }
            };
            let _ = events.send(Event::JobDone(report));
        });
    }

    /// What the configuration says of `synchronous_standby_names` takes the place of what was set last.
    fn take_settings(&self, settings: primacy_postgres::Settings) {
        let names = settings.parameters.get(SYNCHRONOUS_STANDBY_NAMES).cloned();
        self.server.replace_settings(settings);
        self.server
            .remember_synchronous_standby_names(names.as_deref());
    }

    fn settings(&self, role: Option<Role>) -> primacy_postgres::Settings {
        let memory = self.machine.memory();
        let role = role.unwrap_or(memory.role);
        let managed = Managed {
            synchronous_standby_names: memory.sync.managed.as_deref(),
            force_hot_standby_feedback: memory.slots.hot_standby_feedback,
            ..Managed::default()
        };
        self.configuration
            .server_settings(Some(self.version), role, managed)
    }

    /// The fence: nothing is waited for, nothing is read from a disk.
    fn kill(&self) {
        if let Some(identity) = self.watched
            && let Err(error) = kill_now(identity)
        {
            tracing::error!(
                "PostgreSQL (process {}) could not be killed: {error}",
                identity.pid
            );
        }
    }

    fn call_back(&self, event: CallbackEvent, role: Role) {
        let callback = match event {
            CallbackEvent::OnStart => Callback::OnStart,
            CallbackEvent::OnStop => Callback::OnStop,
            CallbackEvent::OnRestart => Callback::OnRestart,
            CallbackEvent::OnRoleChange => Callback::OnRoleChange,
        };
        self.callbacks.call(&self.server, callback, role.as_str());
    }

    /// Nobody is called while a new cluster is being made.
    fn reloaded(&self) {
        let memory = self.machine.memory();
        if memory.bootstrapping.is_none() {
            let role = memory.role.for_callbacks();
            self.callbacks
                .call(&self.server, Callback::OnReload, role.as_str());
        }
    }

    // ---- configuration ---------------------------------------------------------------------------------

    /// SIGHUP, `POST /reload`: the local configuration is read again, on a thread that may hang.
    fn reload(&self) {
        self.supervisor.reloading();
        let read = self.configuration.reader();
        let rereads = self.rereads.clone();
        tokio::task::spawn_blocking(move || rereads.send(read()));
    }

    /// The files of PostgreSQL are written also when nothing changed.
    fn take_reread(&mut self, tree: Reread) {
        self.reconfigured(tree);
        self.supervisor.reloaded();
    }

    fn reconfigured(&mut self, tree: Reread) {
        match tree.and_then(|tree| self.configuration.take_local(tree)) {
            Ok(true) => {
                tracing::info!("the local configuration changed");
                let local = &self.configuration.effective().local;
                self.peers = settings::peer_client(local);
                self.store.store().authenticate_as(stores::user(&local.dcs));
                // First, since it decides where PostgreSQL is found meanwhile.
                self.take_settings(self.settings(None));
                self.tell_machine();
            }
            Ok(false) => tracing::info!("No local configuration items changed."),
            Err(error) => {
                // All the rest is done as if it had not changed.
                tracing::error!(
                    "the configuration cannot be reloaded, the old one stays: {}",
                    chain(&error)
                );
            }
        }
        let local = &self.configuration.effective().local;
        let _ = self.reconfigure.send(reconfigure::Order::Settings {
            log: Box::new(local.log.clone()),
            restapi: Box::new(local.restapi.clone()),
            peers: self.peers.clone(),
        });
        self.settings_changed = true;
        self.rules_changed = true;
        self.reload_wanted = true;
        self.apply_configuration();
    }

    /// Tells the machine of this member's own settings. The others are sent to where PostgreSQL is found now, which may
    /// change with its next start only.
    fn tell_machine(&mut self) {
        let effective = self.configuration.effective();
        let mut local = settings::local(effective, self.fencing.is_required());
        self.address_waits = self.server.listens_elsewhere();
        if self.address_waits {
            local.conn_url.clone_from(&self.conn_url);
        } else {
            self.conn_url.clone_from(&local.conn_url);
        }
        self.step(Event::Configured(Box::new(local)));
    }

    /// The server may have begun to listen where it is configured to, or turn out to listen elsewhere: its files were
    /// changed while no agent ran, or somebody else started it.
    fn follow_address(&mut self) {
        let elsewhere = self.server.listens_elsewhere();
        if elsewhere == self.address_waits {
            return;
        }
        if elsewhere {
            let config = &self.configuration.effective().local;
            let found = self.server.settings();
            self.conn_url = settings::found_at(config, &found.listen_addresses, found.port);
        }
        self.tell_machine();
    }

    /// The server runs and does not answer: perhaps its rules do not let the agent in.
    fn keeps_out(&self) -> bool {
        self.observation.wal.is_none() && matches!(self.observation.process, Process::Running(_))
    }

    /// Brings PostgreSQL's files up to the configuration, reloads it where it runs, and finds out which
    /// parameters wait for a restart. What cannot be done now is done after the next look at a server that answers; a
    /// server that runs and does not gets its access rules at once.
    fn apply_configuration(&mut self) {
        self.take_settings(self.settings(None));
        let running = self.observation.wal.is_some();
        let initialized = self.observation.data_directory == primacy_model::DataDirectory::Valid;
        if self.machine.job().is_some() || !initialized {
            return;
        }
        self.settings_changed = !running;
        let keeps_out = self.keeps_out() && self.machine.memory().store_seen;
        let reads = running || keeps_out;
        self.rules_changed = !reads;
        let always_reload = reads && std::mem::take(&mut self.reload_wanted);
        let server = self.server.clone();
        let events = self.events.clone();
        let configuration = self.configuration.dynamic().clone();
        tokio::spawn(async move {
            let deadline = apply_deadline();
            if let Err(error) = cache(&server, &configuration, deadline).await {
                tracing::warn!(
                    "the dynamic configuration could not be cached: {}",
                    chain(&error)
                );
            }
            if !running {
                if keeps_out && let Err(error) = admit(&server, always_reload, deadline).await {
                    tracing::warn!("the new access rules are not in force: {}", chain(&error));
                }
                return;
            }
            match apply_to_running(&server, always_reload, deadline).await {
                Ok(pending) => {
                    let pending = (!pending.is_empty())
                        .then_some(primacy_model::PendingRestart { reasons: pending });
                    let _ = events.send(Event::PendingRestart(pending));
                }
                Err(error) => {
                    tracing::warn!("the new settings are not in force: {}", chain(&error))
                }
            }
        });
    }

    // ---- requests --------------------------------------------------------------------------------------

    fn take_request(&mut self, request: Request) -> Option<Event> {
        let operator = match request {
            Request::WakeUp => OperatorRequest::WakeUp,
            Request::StoreRead => {
                self.dcs_last_seen = Timestamp::now().as_second();
                self.publish();
                return None;
            }
            Request::Observe { reply } => {
                if self.looking > 0 {
                    self.later_looks.push(reply);
                } else {
                    self.looks.push(reply);
                    self.look(clock::now(), Instant::now() + LOOK_BUDGET, true);
                }
                return None;
            }
            Request::Restart {
                filters,
                timeout,
                reply,
            } => OperatorRequest::Restart {
                id: self.expect(Reply::Restart(reply)),
                role: filters.role,
                below_version: filters.below_version,
                pending: filters.pending,
                timeout,
            },
            Request::ScheduleRestart { restart, reply } => OperatorRequest::ScheduleRestart {
                id: self.expect(Reply::Schedule(reply)),
                restart,
            },
            Request::DeleteScheduledRestart { reply } => OperatorRequest::DeleteScheduledRestart {
                id: self.expect(Reply::Unschedule(reply)),
            },
            Request::Reinitialize {
                force,
                from_leader,
                reply,
            } => OperatorRequest::Reinitialize {
                id: self.expect(Reply::Reinitialize(reply)),
                force,
                from_leader,
            },
            Request::Reload => {
                self.reload();
                return None;
            }
            Request::Failsafe { leader, reply } => {
                let id = self.expect(Reply::Failsafe(reply));
                return Some(Event::FailsafeAsked { id, leader });
            }
        };
        Some(Event::Operator(operator))
    }

    fn expect(&mut self, reply: Reply) -> u64 {
        self.next_reply += 1;
        self.replies.insert(self.next_reply, reply);
        self.next_reply
    }

    fn reply(&mut self, id: u64, answer: Answer) {
        match self.replies.remove(&id) {
            None => {}
            Some(Reply::Restart(reply)) => {
                let _ = reply.send(match answer {
                    Answer::Done => RestartAnswer::Restarted,
                    Answer::NotMet => RestartAnswer::ConditionsNotMet,
                    Answer::Busy(what) => RestartAnswer::Busy(what),
                    Answer::TimedOut => RestartAnswer::StillStarting,
                    Answer::Refused(_) | Answer::Failed => RestartAnswer::Failed,
                });
            }
            Some(Reply::Reinitialize(reply)) => {
                let _ = reply.send(match answer {
                    Answer::Done => Ok(()),
                    Answer::Busy(what) => Err(format!("{what} already in progress")),
                    Answer::Refused(why) => Err(why),
                    other => Err(format!("{other:?}")),
                });
            }
            Some(Reply::Schedule(reply)) => {
                let _ = reply.send(match answer {
                    Answer::Done => Ok(()),
                    Answer::NotMet => Err(NotScheduled::Already),
                    _ => Err(NotScheduled::NoAnswer),
                });
            }
            Some(Reply::Unschedule(reply)) => {
                let _ = reply.send(answer == Answer::Done);
            }
            // Answered by an action of its own.
            Some(Reply::Failsafe(_)) => {}
        }
    }

    fn take_watch(&self, event: WatchEvent) -> Option<Event> {
        let value = match &event {
            WatchEvent::Put(entry) => Some(String::from_utf8_lossy(&entry.value).into_owned()),
            WatchEvent::Delete { .. } | WatchEvent::Reached(_) | WatchEvent::Resync => None,
        };
        let subject = self.store.subject(&event);
        self.leases.watched(event);
        let key = match subject {
            Subject::Leader => StoreKey::Leader(value),
            Subject::Config => StoreKey::Config,
            Subject::Failover => StoreKey::Failover,
            Subject::Sync => StoreKey::Sync,
            Subject::Initialize => StoreKey::Initialize,
            Subject::Member(name) => {
                if value.is_none() && name == self.configuration.effective().local.name {
                    let leases = Arc::clone(&self.leases);
                    tokio::spawn(async move { leases.forget_member().await });
                }
                let data = value.map(|text| Box::new(MemberData::from_json(&text)));
                StoreKey::Member(name.to_string(), data)
            }
            Subject::Everything => StoreKey::Unknown,
            _ => return None,
        };
        Some(Event::StoreChanged(key))
    }

    // ---- what others see -------------------------------------------------------------------------------

    fn publish(&mut self) {
        let machine = &self.machine;
        let memory = machine.memory();
        let effective = self.configuration.effective();
        let global = machine.global();
        let (view, view_until) = match machine.view() {
            Some((view, at)) => (
                Some(Arc::new(view.clone())),
                clock::instant(at + global.ttl),
            ),
            None => (None, Instant::now()),
        };
        let failsafe_map = machine
            .failsafe_map()
            .and_then(|map| serde_json::to_value(map).ok());
        let (_, observed_at) = machine.server();
        self.published.send_replace(Arc::new(Published {
            scope: effective.local.scope.clone(),
            name: effective.local.name.clone(),
            view,
            view_until,
            dynamic: Arc::new(effective.dynamic.clone()),
            global: Arc::new(global.clone()),
            failsafe_map,
            state: memory.state,
            role: memory.role,
            observation: Arc::clone(&self.observation),
            observed_at: clock::instant(observed_at),
            lease_until: match machine.lease() {
                Lease::Held { until, .. } => Some(clock::instant(until)),
                Lease::None => None,
            },
            failsafe_until: machine.failsafe_until().map(clock::instant),
            tags: machine.effective_tags(),
            configured_tags: effective.local.tags.published(),
            dcs_last_seen: self.dcs_last_seen,
            pending_restart: memory.pending_restart.clone(),
            scheduled_restart: memory.scheduled_restart.clone(),
            job: machine.job().map(|job| job.job.name()),
            job_progress: machine.job().and_then(|job| job.progress.clone()),
            watchdog_failed: machine.watchdog_failed(clock::now()),
            fence: memory.fence.told(),
            next_pass: clock::instant(machine.next_regular_pass()),
            postmaster_alive: self.observation.process.is_alive(),
            outcome: machine.outcome().to_owned(),
        }));
        self.supervisor.status(self.machine.outcome());
    }
}

/// For ever where there is no such moment.
pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The role whose overrides hold for what the job starts.
fn job_role(job: &Job) -> Option<Role> {
    match job {
        Job::Bootstrap | Job::StartPrimary { .. } | Job::Restart { upstream: None, .. } => {
            Some(Role::Primary)
        }
        Job::BootstrapStandbyLeader { .. }
        | Job::Start {
            upstream: Upstream::Remote(_),
        } => Some(Role::StandbyLeader),
        Job::CreateReplica { .. }
        | Job::Start { .. }
        | Job::CopyLogicalSlots { .. }
        | Job::Restart {
            upstream: Some(_), ..
        } => Some(Role::Replica),
        _ => None,
    }
}

/// A decision in one line, with the reasons that led to it.
fn describe(entry: &primacy_ha::JournalEntry) -> String {
    let reasons: Vec<&str> = entry
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect();
    if reasons.is_empty() {
        entry.outcome.clone()
    } else {
        format!("{} ({})", entry.outcome, reasons.join("; "))
    }
}

/// A bootstrap that failed: nothing of it may be taken for a cluster later.
async fn abandon(server: &Server, deadline: Instant) -> Result<(), primacy_postgres::Error> {
    let timeout = Some(deadline.saturating_duration_since(Instant::now()));
    let mode = StopMode::Immediate;
    server
        .stop(StopRequest {
            mode,
            checkpoint: false,
            timeout,
            events: None,
        })
        .await?;
    let deadline = deadline + LOOK_BUDGET;
    server.move_data_directory_aside(deadline).await?;
    server.mark_bootstrap_finished(deadline).await
}

async fn write_in_order(
    mut queue: mpsc::UnboundedReceiver<StoreWrite>,
    store: ClusterStore,
    leases: Arc<Leases>,
    name: primacy_model::MemberName,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut accepts_writes = false;
    while let Some(write) = queue.recv().await {
        let by = Instant::now() + PUBLISH_BUDGET;
        let (what, result) = match write {
            StoreWrite::Step(step, deadline) => {
                let (step, context) = *step;
                let outcome: StepOutcome = steps::perform(step, &context, deadline).await;
                let _ = events.send(Event::StepDone(outcome));
                continue;
            }
            StoreWrite::Flush(done) => {
                let _ = done.send(());
                continue;
            }
            StoreWrite::Member {
                data,
                ttl,
                leads,
                status,
                coordinator,
            } => {
                let primary = data.role == Some(Role::Primary);
                let accepts = primary && data.state == Some(State::Running);
                let result = match status {
                    Some(status) => leases.publish_with_status(status, *data, ttl, by).await,
                    None => leases.publish(*data, ttl, leads, by).await,
                };
                if result.is_ok()
                    && !std::mem::replace(&mut accepts_writes, accepts)
                    && accepts
                    && let Some(coordinator) = coordinator
                {
                    tokio::spawn(async move { coordinator.tell(CitusEvent::AfterPromote).await });
                }
                ("the member key", result)
            }
            StoreWrite::Status(status) => ("/status", leases.write_status(status, by).await),
            StoreWrite::Failsafe(map) => (
                "/failsafe",
                store.write_failsafe(&name, &map, by).await.map(drop),
            ),
        };
        if let Err(error) = result {
            tracing::warn!("{what} could not be written: {}", chain(&error));
        }
    }
}
