//! The agent's fence: what the configuration wants of it, and the telling of every new deadline.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use primacy_fence::{FenceClient, Status, Target};
use primacy_ha::Moment;
use primacy_model::PostmasterIdentity;
use serde_json::Value;

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

/// The fence of this agent.
pub(crate) struct Fencing {
    config: FencingConfig,
    client: Option<FenceClient>,
    deadline: Option<Moment>,
    target: Option<PostmasterIdentity>,
    warned: bool,
}

impl Fencing {
    /// Takes over the fence that an agent before this one left, if there is one.
    pub(crate) fn new(config: FencingConfig, data_dir: &Path) -> anyhow::Result<Self> {
        let client = match config.mode {
            Mode::Off => None,
            Mode::Automatic => Some(FenceClient::new(std::env::current_exe()?, data_dir)),
            Mode::Required => {
                let mut client = FenceClient::new(std::env::current_exe()?, data_dir);
                client.ensure().context("fencing.mode is required")?;
                Some(client)
            }
        };
        Ok(Fencing {
            config,
            client,
            deadline: None,
            target: None,
            warned: false,
        })
    }

    /// The machine's wish.
    pub(crate) fn set(&mut self, deadline: Option<Moment>) {
        self.deadline = deadline;
        self.tell();
    }

    /// The postmaster that it is about.
    pub(crate) fn aim(&mut self, target: PostmasterIdentity) {
        if self.target != Some(target) {
            self.target = Some(target);
            // A fence that was taken over keeps its deadline until this agent has one of its own.
            if self.deadline.is_some() {
                self.tell();
            }
        }
    }

    /// What it says of itself, when there is something to say: `armed`, `fired`, `failed`.
    pub(crate) fn status(&mut self) -> Option<&'static str> {
        let client = self.client.as_mut()?;
        match client.status() {
            _ if self.warned => Some("failed"),
            Some(Status::Armed) => Some("armed"),
            Some(Status::Fired) => Some("fired"),
            Some(Status::Refused) => Some("failed"),
            Some(Status::Disarmed) | None => None,
        }
    }

    /// The agent ends in good order.
    pub(crate) fn quit(mut self) {
        if let Some(client) = &mut self.client {
            client.quit();
        }
    }

    fn tell(&mut self) {
        let Some(client) = &mut self.client else {
            return;
        };
        let (Some(deadline), Some(target)) = (self.deadline, self.target) else {
            client.disarm();
            return;
        };
        let at = deadline - self.config.margin;
        let target = Target {
            pid: target.pid,
            start_ticks: target.start_ticks,
        };
        match client.arm(at.0, target) {
            Ok(()) => self.warned = false,
            Err(error) => {
                if !self.warned {
                    tracing::error!(
                        "{}; PostgreSQL goes on unfenced should this agent be killed or frozen",
                        crate::jobs::chain(&error)
                    );
                }
                self.warned = true;
            }
        }
    }
}
