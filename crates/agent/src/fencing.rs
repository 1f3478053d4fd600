//! The agent's fence: what the configuration wants of it, and the telling of every new deadline.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use primacy_config::GlobalConfig;
use primacy_fence::{FenceClient, FenceError, Status, Target};
use primacy_ha::{Event, FenceOrder, FenceState};
use primacy_model::PostmasterIdentity;
use serde_json::Value;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// So long before the lease's deadline the fence acts. The agent itself acts earlier, if it can; SIGKILL takes
/// milliseconds.
const SAFETY_MARGIN: Duration = Duration::from_millis(250);

/// The `fencing` section of the local configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FencingConfig {
    mode: Mode,
    margin: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Automatic,
    Required,
    Off,
}

impl FencingConfig {
    /// `{mode: automatic|required|off, safety_margin: SECONDS}`; automatic when absent.
    pub(crate) fn parse(section: Option<&Value>) -> anyhow::Result<Self> {
        let field = |name: &str| section.and_then(|section| section.get(name));
        let mode = match field("mode") {
            None | Some(Value::Null) => Mode::Automatic,
            Some(Value::Bool(false)) => Mode::Off,
            Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
                "automatic" => Mode::Automatic,
                "required" => Mode::Required,
                "off" => Mode::Off,
                _ => {
                    anyhow::bail!("fencing.mode is {text:?}: set it to automatic, required or off")
                }
            },
            Some(other) => {
                anyhow::bail!("fencing.mode is {other}: set it to automatic, required or off")
            }
        };
        let margin = match field("safety_margin") {
            None | Some(Value::Null) => SAFETY_MARGIN,
            Some(value) => value
                .as_f64()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .ok_or_else(|| {
                    anyhow::anyhow!("fencing.safety_margin is {value}: set it to seconds")
                })?,
        };
        Ok(FencingConfig { mode, margin })
    }
}

/// Between two tries to start a fence.
const RETRY: Duration = Duration::from_secs(1);

/// A new fence is told within it, unless the disk with its executable does not answer.
const AIMING: Duration = Duration::from_secs(10);

/// The fence of this agent. A task of its own tells it every deadline, and starts it again when it dies.
pub(crate) struct Fencing {
    config: FencingConfig,
    orders: Option<mpsc::UnboundedSender<Order>>,
}

/// What the task is told.
enum Order {
    /// The deadline, by which the target is killed.
    Tell(FenceOrder),
    /// The target. Answered once the fence knows it; not at all where it must, and cannot.
    Aim(Target, Option<oneshot::Sender<()>>),
    /// End the fence, in good order.
    Quit(oneshot::Sender<()>),
}

impl Fencing {
    /// Takes over the fence that an agent before this one left, if there is one. What becomes of it is reported as
    /// [`Event::Fence`].
    ///
    /// # Errors
    /// It is required and cannot be started.
    pub(crate) fn new(
        config: FencingConfig,
        data_dir: &Path,
    ) -> anyhow::Result<(Self, Option<Keeper>)> {
        let mut client = FenceClient::new(std::env::current_exe()?, data_dir);
        if config.mode == Mode::Required {
            client.ensure().context("fencing.mode is required")?;
        }
        // One that is not wanted any more holds its deadline until there is a lease here, or no server.
        if config.mode == Mode::Off && !client.is_connected() {
            let orders = None;
            return Ok((Fencing { config, orders }, None));
        }
        let (orders, queue) = mpsc::unbounded_channel();
        let keeper = Keeper::new(client, config.mode, queue);
        let orders = Some(orders);
        Ok((Fencing { config, orders }, Some(keeper)))
    }

    /// No member may lead without it. Fixed when the agent starts.
    pub(crate) fn is_required(&self) -> bool {
        self.config.mode == Mode::Required
    }

    /// The machine's wish.
    pub(crate) fn set(&self, order: FenceOrder, global: &GlobalConfig) {
        let margin = self.config.margin.min(global.longest_fencing_margin());
        self.send(Order::Tell(match order {
            FenceOrder::Until(deadline) => FenceOrder::Until(deadline - margin),
            FenceOrder::AtMost(deadline) => FenceOrder::AtMost(deadline - margin),
            FenceOrder::Disarm => FenceOrder::Disarm,
        }));
    }

    /// The postmaster that it is about.
    pub(crate) fn aim(&self, target: PostmasterIdentity) {
        self.send(Order::Aim(as_target(target), None));
    }

    /// For what starts a postmaster.
    pub(crate) fn aimer(&self) -> Aimer {
        // One that is about to be ended need not know.
        let needed = self.config.mode != Mode::Off;
        Aimer(self.orders.clone().filter(|_| needed))
    }

    /// The agent ends in good order.
    pub(crate) async fn quit(self, deadline: Instant) {
        let (done, ended) = oneshot::channel();
        self.send(Order::Quit(done));
        let _ = timeout_at(deadline, ended).await;
    }

    fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

/// Tells the fence of a postmaster before that begins.
pub(crate) struct Aimer(Option<mpsc::UnboundedSender<Order>>);

impl Aimer {
    /// There is no fence.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Aimer(None)
    }

    /// Whether this postmaster may begin: the fence knows it, or there is none and none is required.
    pub(crate) async fn aim(&self, target: PostmasterIdentity) -> bool {
        let (done, told) = oneshot::channel();
        let order = Order::Aim(as_target(target), Some(done));
        match &self.0 {
            Some(orders) if orders.send(order).is_ok() => {
                matches!(timeout(AIMING, told).await, Ok(Ok(())))
            }
            _ => true,
        }
    }
}

fn as_target(postmaster: PostmasterIdentity) -> Target {
    Target {
        pid: postmaster.pid,
        start_ticks: postmaster.start_ticks,
    }
}

/// What the fence is to know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Whatever an agent before this one told it.
    Untouched,
    /// Kill nobody.
    Disarmed,
    /// Kill this one then.
    Armed(Duration, Target),
    /// Kill this one then, or earlier if it was told so before.
    ArmedAtMost(Duration, Target),
}

impl Wanted {
    /// Whom to kill.
    fn target(self) -> Option<Target> {
        match self {
            Wanted::Armed(_, target) | Wanted::ArmedAtMost(_, target) => Some(target),
            Wanted::Untouched | Wanted::Disarmed => None,
        }
    }
}

/// The task that keeps the fence.
pub(crate) struct Keeper {
    client: FenceClient,
    mode: Mode,
    order: Option<FenceOrder>,
    target: Option<Target>,
    told: bool,
    queue: mpsc::UnboundedReceiver<Order>,
    state: FenceState,
}

impl Keeper {
    fn new(client: FenceClient, mode: Mode, queue: mpsc::UnboundedReceiver<Order>) -> Self {
        Keeper {
            client,
            mode,
            order: None,
            target: None,
            told: true,
            queue,
            state: FenceState::Disarmed,
        }
    }

    /// What the fence is to know by now.
    fn wanted(&self) -> Wanted {
        match (self.order, self.target) {
            // One that was taken over keeps its deadline until there is an order.
            (None, _) => Wanted::Untouched,
            (Some(FenceOrder::Until(deadline)), Some(target)) => Wanted::Armed(deadline.0, target),
            (Some(FenceOrder::AtMost(deadline)), Some(target)) => {
                Wanted::ArmedAtMost(deadline.0, target)
            }
            (Some(FenceOrder::Disarm), _) | (_, None) => Wanted::Disarmed,
        }
    }

    /// Runs until the agent ends. A start of the fence that hangs, with the disk that its executable is on, hangs
    /// this task alone.
    pub(crate) async fn keep(mut self, events: mpsc::UnboundedSender<Event>) {
        let (mut complained, mut aimed) = (None, None::<oneshot::Sender<()>>);
        let mut locked = true;
        loop {
            let result;
            (self, result) = self.bring_up_to_date().await;
            let state = self.look(&result);
            if let Some(aimed) = aimed.take()
                && (result.is_ok() || !self.must_hold())
            {
                let _ = aimed.send(());
            }
            let complaint = result.err().map(|error| crate::jobs::chain(&error));
            if let Some(text) = complaint.as_ref().filter(|_| complaint != complained) {
                tracing::error!(
                    "{text}; should this agent be killed or frozen, nothing stops PostgreSQL"
                );
            }
            complained = complaint;
            if std::mem::replace(&mut locked, self.client.is_locked()) && !locked {
                tracing::warn!(
                    "the fence may not lock itself into memory: on a machine that is short of it, the fence may act late. Give \
                     the agent a higher limit of locked memory (LimitMEMLOCK=infinity in its service, or ulimit -l)"
                );
            }
            if state != self.state {
                self.state = state;
                let _ = events.send(Event::Fence(state));
            }
            let watched = self.client.connection().map(rustix::io::dup);
            let order = tokio::select! {
                order = self.queue.recv() => match order {
                    Some(order) => order,
                    None => return,
                },
                () = readable(watched) => continue,
                () = sleep(RETRY), if state == FenceState::Failed => continue,
            };
            let done = match order {
                Order::Tell(FenceOrder::AtMost(_)) if self.mode == Mode::Off => continue,
                Order::Tell(_) if self.mode == Mode::Off => None,
                Order::Tell(order) => {
                    self.order = Some(order);
                    self.told = false;
                    continue;
                }
                Order::Aim(target, done) => {
                    self.told &= self.target == Some(target);
                    self.target = Some(target);
                    aimed = done;
                    continue;
                }
                Order::Quit(done) => Some(done),
            };
            let mut client = self.client;
            let _ = tokio::task::spawn_blocking(move || client.quit()).await;
            let _ = events.send(Event::Fence(FenceState::Disarmed));
            if let Some(done) = done {
                let _ = done.send(());
            }
            return;
        }
    }

    /// Nothing may be started that it does not hold.
    fn must_hold(&self) -> bool {
        self.mode == Mode::Required && self.wanted().target().is_some()
    }

    /// Starts what does not run, and tells it what it does not know.
    async fn bring_up_to_date(mut self) -> (Self, Result<(), FenceError>) {
        let wanted = self.wanted();
        let needed = self.mode == Mode::Required || wanted.target().is_some();
        if !self.client.is_connected() && needed {
            let (client, result) = start(self.client).await;
            self.client = client;
            if let Err(error) = result {
                return (self, Err(error));
            }
            // A new one knows nothing.
            self.told = false;
        }
        if self.told {
            return (self, Ok(()));
        }
        let result = match wanted {
            Wanted::Armed(deadline, target) => self.client.arm(deadline, target),
            Wanted::ArmedAtMost(deadline, target) => self.client.arm_at_most(deadline, target),
            Wanted::Disarmed => {
                self.client.disarm();
                Ok(())
            }
            Wanted::Untouched => Ok(()),
        };
        self.told = result.is_ok();
        (self, result)
    }

    fn look(&mut self, result: &Result<(), FenceError>) -> FenceState {
        match self.client.status() {
            _ if result.is_err() => FenceState::Failed,
            Some(Status::Armed) => FenceState::Armed,
            Some(Status::Fired) => FenceState::Fired,
            // One that has no target any more has nothing to do.
            Some(Status::Refused) if self.wanted().target().is_some_and(lives) => {
                FenceState::Failed
            }
            Some(Status::Refused | Status::Disarmed | Status::NotLocked) | None => {
                FenceState::Disarmed
            }
        }
    }
}

async fn start(mut client: FenceClient) -> (FenceClient, Result<(), FenceError>) {
    let started = tokio::task::spawn_blocking(move || {
        let result = client.ensure();
        (client, result)
    });
    match started.await {
        Ok(started) => started,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Something was said, or the other end is gone.
async fn readable(connection: Option<rustix::io::Result<OwnedFd>>) {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe; an OwnedFd keeps what that asks for"
    )]
    let watch = |fd| AsyncFd::with_interest(fd, Interest::READABLE).ok();
    match connection.and_then(Result::ok).and_then(watch) {
        Some(connection) => drop(connection.readable().await),
        // It cannot be watched: it is looked at with every order.
        None => std::future::pending().await,
    }
}

fn lives(target: Target) -> bool {
    Path::new(&format!("/proc/{}", target.pid)).exists()
}

#[cfg(test)]
mod tests {
    use primacy_config::TimingLimits;
    use primacy_ha::Moment;
    use serde_json::{Map, json};

    use super::*;

    const SERVER: PostmasterIdentity = PostmasterIdentity {
        pid: i32::MAX,
        start_ticks: 1,
    };

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn the_margin_leaves_time_to_renew() {
        let embedded = json!({"ttl": 4, "loop_wait": 1, "retry_timeout": 1});
        for (section, dynamic, until) in [
            (json!({"safety_margin": 5}), embedded.clone(), 100 - 2),
            (json!({"safety_margin": 1}), embedded, 100 - 1),
            (json!({"safety_margin": 5}), json!({}), 100 - 5),
            (json!({"safety_margin": 1000}), json!({}), 100 - 10),
        ] {
            let dynamic: Map<_, _> = dynamic.as_object().cloned().unwrap();
            let (global, _) = GlobalConfig::from_dynamic(&dynamic, TimingLimits::EMBEDDED);
            let (orders, mut queue) = mpsc::unbounded_channel();
            let fencing = Fencing {
                config: FencingConfig::parse(Some(&section)).unwrap(),
                orders: Some(orders),
            };
            fencing.set(FenceOrder::Until(at(100)), &global);
            let Ok(Order::Tell(FenceOrder::Until(deadline))) = queue.try_recv() else {
                panic!("the deadline is told");
            };
            assert_eq!(deadline, at(until), "{section}");
        }
    }

    #[tokio::test]
    async fn a_server_that_needs_a_fence_does_not_begin_without_one() {
        let scratch = tempfile::tempdir().unwrap();
        for (mode, order, may_begin) in [
            (Mode::Required, FenceOrder::Until(at(1)), false),
            (Mode::Required, FenceOrder::Disarm, true),
            (Mode::Automatic, FenceOrder::Until(at(1)), true),
        ] {
            let client = FenceClient::new("/no/such/executable".into(), scratch.path());
            let (orders, queue) = mpsc::unbounded_channel();
            let (events, _seen) = mpsc::unbounded_channel();
            tokio::spawn(Keeper::new(client, mode, queue).keep(events));
            orders.send(Order::Tell(order)).unwrap();
            let aimer = Aimer(Some(orders));
            assert_eq!(aimer.aim(SERVER).await, may_begin, "{mode:?}");
        }
        assert!(Aimer::nobody().aim(SERVER).await, "there is no fence");
    }
}
