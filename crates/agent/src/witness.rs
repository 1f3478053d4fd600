//! The witness: a member of the embedded store without PostgreSQL, so that two agents can lose any one machine
//! (`configuration.md` §7.5).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use primacy_config::{WitnessConfig, layers};
use primacy_raft::RaftNode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::jobs::chain;
use crate::logging::{self, LogHandle, Logging};
use crate::startup::{environment, must_exist, umask};
use crate::supervisor::Supervisor;

/// How often it looks at what it tells of itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs the witness with the configuration at `path` and in the environment, until it is told to end.
pub async fn run(path: Option<PathBuf>) -> ExitCode {
    match witness(path).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The log may not be there yet, and this must be seen.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn witness(path: Option<PathBuf>) -> anyhow::Result<u8> {
    let (environment, umask) = (environment(), umask());
    must_exist(path.as_deref(), &environment)?;
    let read = move || WitnessConfig::from_local(layers::load(path.as_deref(), &environment)?);
    let mut config = read().context("the configuration cannot be used")?;
    let logging = Logging::install(&config.log, umask)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let node = RaftNode::start((&config.raft).into()).await?;
    let mut supervisor = Supervisor::of_process();
    supervisor.ready();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        let ping = supervisor.due();
        tokio::select! {
            _ = look.tick() => {
                let state = state(&node);
                if told != state {
                    tracing::info!("{state}");
                    supervisor.status(&state);
                    told = state;
                }
            }
            () = crate::shell::until(ping) => supervisor.tick(true),
            _ = hangup.recv() => {
                supervisor.reloading();
                // Files that hang do not keep it from its part in the store.
                let (read, handle) = (read.clone(), logging.handle());
                let former = config.clone();
                let reread = tokio::task::spawn_blocking(move || reload(read, &handle, former)).await;
                if let Ok(reread) = reread {
                    config = reread;
                }
                supervisor.reloaded();
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    supervisor.stopping();
    node.shutdown().await;
    tracing::info!("the witness ends, as it was told to");
    let logged = logging.close(Duration::from_secs(2));
    Ok(if logged { 0 } else { logging::BROKEN })
}

/// Only the log can be changed while it runs. Returns what holds from now on.
fn reload(
    read: impl FnOnce() -> Result<WitnessConfig, primacy_config::ConfigError>,
    log: &LogHandle,
    former: WitnessConfig,
) -> WitnessConfig {
    let config = match read() {
        Ok(config) if config.tree == former.tree => {
            tracing::info!("No local configuration items changed.");
            return former;
        }
        Ok(config) => config,
        Err(error) => {
            let error = chain(&error);
            tracing::error!("the configuration cannot be reloaded, the old one stays: {error}");
            return former;
        }
    };
    if config.raft != former.raft {
        tracing::warn!("the raft section changed: that is in force after a restart of the witness");
    }
    if let Err(error) = log.reconfigure(&config.log) {
        tracing::error!("the log section cannot be used: {error}");
    }
    config
}

fn state(node: &RaftNode) -> String {
    let status = node.status();
    let leader = status.leader.as_deref().unwrap_or("nobody");
    format!(
        "I am {}, a witness: {}; {leader} leads the store",
        status.addr, status.state
    )
}
