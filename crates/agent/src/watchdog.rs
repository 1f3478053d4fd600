//! The thread that owns the watchdog device. A device that does not answer hangs this thread alone, is pinged no more,
//! and resets the machine.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use primacy_config::{Watchdog as Config, WatchdogMode};
use primacy_ha::StepOutcome;
use primacy_watchdog::{Driver, Watchdog, WatchdogError, is_usable};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::jobs::chain;

/// What the thread is told, in order.
enum Order {
    Activate {
        config: Config,
        timeout: Duration,
        least: Duration,
        reply: oneshot::Sender<StepOutcome>,
    },
    Ping(Duration),
    Disable,
    Flush(oneshot::Sender<()>),
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct WatchdogThread(mpsc::Sender<Order>);

impl WatchdogThread {
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || Owner::default().obey(&queue))?;
        Ok(WatchdogThread(orders))
    }

    /// Opens the device. One that answers too late is closed again.
    pub(crate) async fn activate(
        &self,
        config: Config,
        timeout: Duration,
        least: Duration,
        deadline: Instant,
    ) -> StepOutcome {
        let (reply, answer) = oneshot::channel();
        self.tell(Order::Activate {
            config,
            timeout,
            least,
            reply,
        });
        match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => StepOutcome::Failed("the watchdog's thread has ended".into()),
            Err(_) => {
                self.tell(Order::Disable);
                StepOutcome::Failed("the watchdog device did not answer in time".into())
            }
        }
    }

    pub(crate) fn ping(&self, timeout: Duration) {
        self.tell(Order::Ping(timeout));
    }

    pub(crate) fn disable(&self) {
        self.tell(Order::Disable);
    }

    /// Returns when the device has heard everything before this, or at the deadline.
    pub(crate) async fn flush(&self, deadline: Instant) {
        let (done, flushed) = oneshot::channel();
        self.tell(Order::Flush(done));
        let _ = timeout_at(deadline, flushed).await;
    }

    fn tell(&self, order: Order) {
        let _ = self.0.send(order);
    }
}

/// Whether the device could be opened, as far as can be seen without doing so.
pub(crate) async fn usable(config: &Config, deadline: Instant) -> bool {
    if config.mode == WatchdogMode::Off {
        return false;
    }
    let path = config.device.clone();
    let look = tokio::task::spawn_blocking(move || is_usable(Path::new(&path)));
    matches!(timeout_at(deadline, look).await, Ok(Ok(true)))
}

/// The driver of that name.
pub(crate) fn driver(name: &str) -> Driver {
    match name {
        "testing" => Driver::Testing,
        _ => Driver::Linux,
    }
}

/// What the thread has.
#[derive(Default)]
struct Owner {
    device: Option<Watchdog>,
    /// The last complaint: it is made once.
    complained: Option<String>,
}

impl Owner {
    fn obey(mut self, queue: &mpsc::Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            match order {
                Order::Activate {
                    config,
                    timeout,
                    least,
                    reply,
                } => {
                    let outcome = self.activate(&config, timeout, least);
                    let _ = reply.send(outcome);
                }
                Order::Ping(timeout) => {
                    let result = self.device.as_mut().map(|device| device.ping(timeout));
                    self.told(result.unwrap_or(Ok(())));
                }
                Order::Disable => self.disable(),
                Order::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn activate(&mut self, config: &Config, timeout: Duration, least: Duration) -> StepOutcome {
        self.disable();
        let mut device = Watchdog::new(&config.device, driver(&config.driver));
        let activated = match device.activate(timeout, least) {
            Ok(activated) => activated,
            Err(error) => return StepOutcome::Failed(chain(&error)),
        };
        self.device = Some(device);
        let seconds = activated.timeout.as_secs();
        match activated.unsafe_because {
            None => tracing::info!("{} activated with {seconds} s", config.device),
            Some(error) if config.mode == WatchdogMode::Required => {
                self.disable();
                return StepOutcome::Failed(chain(&error));
            }
            Some(error) => tracing::warn!(
                "{} is active and does not protect: {}",
                config.device,
                chain(&error)
            ),
        }
        StepOutcome::Done
    }

    fn disable(&mut self) {
        let Some(mut device) = self.device.take() else {
            return;
        };
        match device.disable() {
            Ok(true) => self.told(Ok(())),
            Ok(false) => {
                tracing::warn!("the watchdog device cannot be stopped: it will reset this machine");
            }
            Err(error) => self.told(Err(error)),
        }
    }

    fn told(&mut self, result: Result<(), WatchdogError>) {
        let complaint = result.err().map(|error| chain(&error));
        if let Some(text) = complaint.as_ref().filter(|_| complaint != self.complained) {
            tracing::error!("{text}; it will reset this machine unless it hears the next one");
        }
        self.complained = complaint;
    }
}
