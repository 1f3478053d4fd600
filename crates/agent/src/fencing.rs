//! The agent's fence: what the configuration wants of it, and the telling of every new deadline.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use primacy_fence::{FenceClient, FenceError, Status, Target};
use primacy_ha::{Event, FenceOrder, FenceState, Moment};
use primacy_model::PostmasterIdentity;
use serde_json::Value;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

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

/// The fence of this agent. A task of its own tells it every deadline, and starts it again when it dies.
pub(crate) struct Fencing {
    config: FencingConfig,
    orders: Option<mpsc::UnboundedSender<Order>>,
    order: Option<FenceOrder>,
    target: Option<PostmasterIdentity>,
}

/// What the task is told.
enum Order {
    /// To have the fence know this.
    Want(Wanted),
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
        let mut fencing = Fencing {
            config,
            orders: None,
            order: None,
            target: None,
        };
        if config.mode == Mode::Off {
            return Ok((fencing, None));
        }
        let required = config.mode == Mode::Required;
        let mut client = FenceClient::new(std::env::current_exe()?, data_dir);
        if required {
            client.ensure().context("fencing.mode is required")?;
        }
        let (orders, queue) = mpsc::unbounded_channel();
        fencing.orders = Some(orders);
        let keeper = Keeper {
            client,
            required,
            wanted: Wanted::Untouched,
            told: true,
            queue,
            state: FenceState::Disarmed,
        };
        Ok((fencing, Some(keeper)))
    }

    /// No member may lead without it. Fixed when the agent starts.
    pub(crate) fn is_required(&self) -> bool {
        self.config.mode == Mode::Required
    }

    /// The machine's wish.
    pub(crate) fn set(&mut self, order: FenceOrder) {
        self.order = Some(order);
        self.tell();
    }

    /// The postmaster that it is about.
    pub(crate) fn aim(&mut self, target: PostmasterIdentity) {
        if self.target != Some(target) {
            self.target = Some(target);
            self.tell();
        }
    }

    /// The agent ends in good order.
    pub(crate) async fn quit(self, deadline: Instant) {
        let (done, ended) = oneshot::channel();
        if let Some(orders) = self.orders {
            let _ = orders.send(Order::Quit(done));
            let _ = timeout_at(deadline, ended).await;
        }
    }

    fn tell(&self) {
        // A fence that was taken over keeps its deadline until there is an order.
        let (Some(orders), Some(order)) = (&self.orders, self.order) else {
            return;
        };
        let target = self.target.map(|target| Target {
            pid: target.pid,
            start_ticks: target.start_ticks,
        });
        let before = |deadline: Moment| (deadline - self.config.margin).0;
        let wanted = match (order, target) {
            (FenceOrder::Until(deadline), Some(target)) => Wanted::Armed(before(deadline), target),
            (FenceOrder::AtMost(deadline), Some(target)) => {
                Wanted::ArmedAtMost(before(deadline), target)
            }
            (FenceOrder::Disarm, _) | (_, None) => Wanted::Disarmed,
        };
        let _ = orders.send(Order::Want(wanted));
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
    required: bool,
    wanted: Wanted,
    told: bool,
    queue: mpsc::UnboundedReceiver<Order>,
    state: FenceState,
}

impl Keeper {
    /// Runs until the agent ends. A start of the fence that hangs, with the disk that its executable is on, hangs
    /// this task alone.
    pub(crate) async fn keep(mut self, events: mpsc::UnboundedSender<Event>) {
        let mut complained = None;
        loop {
            let result;
            (self, result) = self.bring_up_to_date().await;
            let state = self.look(&result);
            let complaint = result.err().map(|error| crate::jobs::chain(&error));
            if let Some(text) = complaint.as_ref().filter(|_| complaint != complained) {
                tracing::error!(
                    "{text}; should this agent be killed or frozen, nothing stops PostgreSQL"
                );
            }
            complained = complaint;
            if state != self.state {
                self.state = state;
                let _ = events.send(Event::Fence(state));
            }
            let watched = self.client.connection().map(rustix::io::dup);
            tokio::select! {
                order = self.queue.recv() => match order {
                    Some(Order::Want(wanted)) => {
                        self.wanted = wanted;
                        self.told = false;
                    }
                    Some(Order::Quit(done)) => {
                        let mut client = self.client;
                        let _ = tokio::task::spawn_blocking(move || client.quit()).await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                () = readable(watched) => {}
                () = sleep(RETRY), if state == FenceState::Failed => {}
            }
        }
    }

    /// Starts what does not run, and tells it what it does not know.
    async fn bring_up_to_date(mut self) -> (Self, Result<(), FenceError>) {
        let needed = self.required || self.wanted.target().is_some();
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
        let result = match self.wanted {
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
            Some(Status::Refused) if self.wanted.target().is_some_and(lives) => FenceState::Failed,
            Some(Status::Refused | Status::Disarmed) | None => FenceState::Disarmed,
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
