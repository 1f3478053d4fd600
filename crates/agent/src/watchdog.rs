//! The thread that owns the watchdog device. A device that does not answer hangs this thread alone, is pinged no more,
//! and resets the machine.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::bail;
use primacy_config::{Watchdog as Config, WatchdogMode};
use primacy_ha::{Moment, StepOutcome};
use primacy_watchdog::{Driver, Watchdog, WatchdogError, is_usable};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::jobs::chain;

/// What the thread is told, in order.
enum Order {
    Activate {
        config: Config,
        timeout: Duration,
        least: Duration,
        reply: oneshot::Sender<StepOutcome>,
    },
    Ping {
        timeout: Duration,
        until: Moment,
    },
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

    /// Nothing is told that would be heard after `until`, or make the device count beyond it.
    pub(crate) fn ping(&self, timeout: Duration, until: Moment) {
        self.tell(Order::Ping { timeout, until });
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

/// Devices count whole seconds; what one makes of none is its own affair.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the device could be opened, as far as can be seen without doing so.
pub(crate) async fn usable(config: &Config, deadline: Instant) -> bool {
    if config.mode == WatchdogMode::Off || driver(&config.driver).is_none() {
        return false;
    }
    let path = config.device.clone();
    let look = tokio::task::spawn_blocking(move || is_usable(Path::new(&path)));
    matches!(timeout_at(deadline, look).await, Ok(Ok(true)))
}

/// The driver of that name (`configuration.md` §2.12).
pub(crate) fn driver(name: &str) -> Option<Driver> {
    match name {
        "default" => Some(Driver::Linux),
        "testing" => Some(Driver::Testing),
        _ => None,
    }
}

/// A watchdog is required where there cannot be one (`ha.md` §1.1.4).
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    if config.mode == WatchdogMode::Required && driver(&config.driver).is_none() {
        bail!(
            "Configuration requires a watchdog, but watchdog is not supported on this platform: there is no \
             watchdog.driver {}; leave it out, or set watchdog.mode to automatic",
            config.driver
        );
    }
    Ok(())
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
                Order::Ping { timeout, until } => self.ping(timeout, until),
                Order::Disable => self.disable(),
                Order::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn activate(&mut self, config: &Config, timeout: Duration, least: Duration) -> StepOutcome {
        self.disable();
        let Some(driver) = driver(&config.driver) else {
            return StepOutcome::Failed(format!("watchdog.driver {} is unknown", config.driver));
        };
        let mut device = Watchdog::new(&config.device, driver);
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

    /// A thread that starved, or whose device answered the ping before late, may come to this late itself.
    fn ping(&mut self, timeout: Duration, until: Moment) {
        let timeout = timeout.min(until.since(clock::now()));
        if timeout >= LEAST_TIMEOUT
            && let Some(device) = &mut self.device
        {
            let result = device.ping(timeout);
            self.told(result);
        }
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
            tracing::error!("{text}");
        }
        self.complained = complaint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s19_a_ping_that_is_heard_late_tells_what_is_left_of_the_lease() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device");
        std::fs::write(&path, "").unwrap();
        let config = Config {
            mode: WatchdogMode::Required,
            device: path.to_str().unwrap().into(),
            safety_margin: 5,
            driver: "testing".into(),
        };
        let timeout = Duration::from_secs(300);
        let mut owner = Owner::default();
        let activated = owner.activate(&config, timeout, Duration::from_secs(10));
        assert!(matches!(activated, StepOutcome::Done), "{activated:?}");
        // What the device is told by a ping when this is left.
        let mut ping = |left: Duration| {
            let before = std::fs::read_to_string(&path).unwrap();
            owner.ping(timeout, clock::now() + left);
            let told = std::fs::read_to_string(&path).unwrap();
            told.strip_prefix(&before).unwrap().to_owned()
        };
        assert_eq!(ping(Duration::from_secs(400)), "1");
        let late = ping(Duration::from_secs(200));
        let seconds = late
            .strip_prefix("Ctimeout=")
            .and_then(|told| told.strip_suffix("\n1")?.parse::<u64>().ok());
        assert!(
            seconds.is_some_and(|seconds| (1..=200).contains(&seconds)),
            "{late}"
        );
        // Less than a device counts: it goes on counting from the ping before.
        assert_eq!(ping(Duration::from_millis(999)), "");
        assert_eq!(ping(Duration::ZERO), "");
    }
}
