//! From the command line to a running shell (`ha.md` §1.1). Everything that a person must put right is found
//! here, before anything is changed on disk, and said in one sentence.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use primacy_config::local::{Citus, LocalConfig};
use primacy_config::parameters::Managed;
use primacy_config::{Environment, WatchdogMode, from_environment};
use primacy_dcs::ClusterStore;
use primacy_ha::Machine;
use primacy_model::{CitusGroup, JournalRecord, Observation, Role, State};
use primacy_net::{Bytes, HeaderMap, Method};
use primacy_postgres::{ObserveOptions, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::api::{Api, ApiServer};
use crate::configuration::Configuration;
use crate::fencing::{Fencing, FencingConfig};
use crate::journal::Journal;
use crate::logging::{self, Logging};
use crate::published::Published;
use crate::shell::{Parts, Shell, Signals};
use crate::supervisor::Supervisor;
use crate::watchdog::{self, WatchdogThread};
use crate::{citus, clock, settings, stores};

/// How often an unreachable store is asked again before anything else begins.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// A namesake that answers within it keeps this agent from starting.
const NAMESAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// For the first look at binaries and data directory.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of the API wait here for the machine, which takes them within milliseconds.
const REQUESTS_MAX: usize = 256;

/// Runs the agent with the configuration at `path` and in the environment, until it is told to end.
pub(crate) async fn run(path: Option<PathBuf>) -> ExitCode {
    match start(path).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // The log may not be there yet, and this must be seen.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(path: Option<PathBuf>) -> anyhow::Result<u8> {
    primacy_net::install_crypto_provider();
    // A reload that is asked for while the agent begins is made once it runs: the signal would end it otherwise.
    let hangup = signal(SignalKind::hangup())?;
    if rustix::process::geteuid().is_root() {
        bail!(
            "the agent was started as root, and PostgreSQL refuses to run as root: start it as the user who owns the \
             data directory, usually postgres"
        );
    }
    let (environment, umask) = (environment(), umask());
    must_exist(path.as_deref(), &environment)?;
    let mut configuration = Configuration::load(path, environment, umask)
        .context("the configuration cannot be used")?;
    let config = configuration.effective().local.clone();
    stores::check(&config)?;
    watchdog::check(&config.watchdog)?;
    let logging = Logging::install(&config.log, umask)?;
    for warning in &configuration.effective().warnings {
        tracing::warn!("{warning}");
    }

    let unseen = configuration.server_settings(None, Role::Uninitialized, Managed::default());
    settings::check_pgpass(&unseen)?;
    let server = Server::new(unseen);
    let major = server.check(Instant::now() + CHECK_TIMEOUT).await?;
    let version = major * 10_000;
    configuration.know(
        server
            .known_parameters(Instant::now() + CHECK_TIMEOUT)
            .await?,
    );
    server.replace_settings(configuration.server_settings(
        Some(version),
        Role::Uninitialized,
        Managed::default(),
    ));

    let effective = configuration.effective();
    let fencing = FencingConfig::parse(effective.tree.get("fencing"))?;
    let (fencing, keeper) = Fencing::new(fencing, &config.postgresql.data_dir)?;
    let opened = stores::open(&config.dcs).await?;
    let scope = ClusterStore::new(opened.store, &config.namespace, &config.scope);
    let group = config.citus.as_ref().map(|citus| citus.group);
    let store = group.map_or_else(|| scope.clone(), |group| scope.in_group(group));
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup,
    };
    let budget = effective.global.retry_timeout;
    let mut supervisor = Supervisor::of_process();
    let Some(cluster) = first_view(&store, budget, &mut signals, &mut supervisor).await else {
        return Ok(0);
    };
    let peers = settings::peer_client(&config);
    if let Some(namesake) = cluster.member(&config.name)
        && let Some(url) = &namesake.data.api_url
        && answers(&peers, url).await
    {
        let text = format!(
            "Can't start; there is already a node named '{}' running",
            config.name
        );
        crate::critical!("{text}");
        bail!("{text}: it answers at {url}");
    }

    let journal = Arc::new(Journal::open(&config));
    let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
    let look = server
        .observe(
            ObserveOptions { slots: false },
            Instant::now() + effective.global.retry_timeout,
        )
        .await;
    let (published, snapshots) = watch::channel(Arc::new(first_snapshot(&configuration, look)));
    let coordinates = |citus: &&Citus| citus.group == CitusGroup::COORDINATOR;
    let citus = config.citus.as_ref().filter(coordinates).map(|citus| {
        let (server, database) = (server.clone(), citus.database.clone());
        citus::start(scope.clone(), server, database, snapshots.clone())
    });
    let worker = group.filter(|group| *group != CitusGroup::COORDINATOR);
    let coordinator_group = worker.map(|_| scope.in_group(CitusGroup::COORDINATOR));
    let api = Api::new(
        snapshots,
        requests,
        store.clone(),
        configuration.limits(),
        peers.clone(),
        logging.queue(),
    )
    .with_journal(Arc::clone(&journal))
    .with_citus(citus);
    let api = ApiServer::start(api, &config.restapi).await?;

    if config.watchdog.mode == WatchdogMode::Automatic
        && !watchdog::usable(&config.watchdog, Instant::now() + CHECK_TIMEOUT).await
    {
        tracing::info!(
            "{} is not there, or not writable: this member leads without a watchdog device",
            config.watchdog.device
        );
    }

    // Not before everything that a person must put right: until then nothing is written.
    journal.keep(&began(&config));
    let machine = Machine::new(
        settings::local(effective, fencing.is_required()),
        effective.global.clone(),
        configuration.limits(),
        clock::now(),
    );
    tracing::info!(
        "primacy {} manages {} as {}",
        env!("CARGO_PKG_VERSION"),
        config.scope,
        config.name
    );
    let parts = Parts {
        machine,
        store,
        coordinator_group,
        server,
        version,
        peers,
        journal,
        logging,
        published,
        configuration,
        fencing,
        keeper,
        watchdog: WatchdogThread::start().context("the watchdog's thread cannot be started")?,
        supervisor,
    };
    let (mut shell, events) = Shell::new(parts);
    shell.serve(api);
    let (exit, logging) = shell.run(events, request_queue, signals).await;
    if let Some(node) = opened.node {
        node.shutdown().await;
    }
    if exit.code == 0 {
        tracing::info!("{}", exit.reason);
    } else {
        crate::critical!("{}", exit.reason);
    }
    let logged = logging.close(Duration::from_secs(2));
    if exit.code != 0 {
        return Err(anyhow!(exit.reason));
    }
    Ok(if logged { 0 } else { logging::BROKEN })
}

/// A path that leads nowhere is a mistake, unless the environment has a configuration.
pub(crate) fn must_exist(path: Option<&Path>, environment: &Environment) -> anyhow::Result<()> {
    let nothing_else = environment.configuration.is_none() && environment.tree.is_empty();
    if let Some(path) = path.filter(|path| nothing_else && !path.exists()) {
        bail!("the configuration {} does not exist", path.display());
    }
    if let Some(path) = path.filter(|path| environment.configuration.is_some() && path.exists()) {
        eprintln!(
            "Warning: PATRONI_CONFIGURATION has no effect: the configuration is read from {}",
            path.display()
        );
    }
    Ok(())
}

/// The configuration in the environment. What was understood does not reach PostgreSQL or scripts (`configuration.md` §1.1).
pub(crate) fn environment() -> Environment {
    let mut texts = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => texts.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("PATRONI_") => {
                eprintln!("Warning: The environment variable {name} is ignored: it is not UTF-8");
            }
            // None of ours.
            _ => {}
        }
    }
    let environment = from_environment(texts);
    primacy_postgres::withhold(environment.consumed.clone());
    for warning in &environment.warnings {
        eprintln!("Warning: {warning}");
    }
    environment
}

/// The umask that the process was started with; it is 077 from now on.
pub(crate) fn umask() -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077)).bits()
}

/// Waits for the store, as long as it takes (`ha.md` §1.1.2). `None`: told to end meanwhile.
async fn first_view(
    store: &ClusterStore,
    budget: Duration,
    signals: &mut Signals,
    supervisor: &mut Supervisor,
) -> Option<primacy_model::Cluster> {
    let mut waits = false;
    loop {
        let began = Instant::now();
        let read = store.read(began + budget.max(STORE_RETRY));
        let result = tokio::select! {
            result = supervisor.beside(read) => result,
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
        };
        match result {
            Ok(cluster) => return Some(cluster),
            Err(error) => tracing::warn!(
                "waiting for the store: {}; check its section of the configuration, and whether it runs",
                crate::jobs::chain(&error)
            ),
        }
        // Other members may have to be started first, and whoever starts them waits for this one.
        if !std::mem::replace(&mut waits, true) {
            supervisor.ready();
            supervisor.status("waiting for the store");
        }
        tokio::select! {
            () = supervisor.beside(tokio::time::sleep_until(began + STORE_RETRY)) => {}
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
        }
    }
}

/// Any answer at all means that the name is taken (`ha.md` §1.1.3).
async fn answers(client: &primacy_net::HttpClient, api_url: &str) -> bool {
    let Some((base, _)) = api_url.rsplit_once('/') else {
        return false;
    };
    let url = format!("{base}/liveness");
    let deadline = Instant::now() + NAMESAKE_TIMEOUT;
    client
        .request(Method::GET, &url, HeaderMap::new(), Bytes::new(), deadline)
        .await
        .is_ok()
}

/// The first entry of this process in the journal.
fn began(config: &LocalConfig) -> JournalRecord {
    let (version, process) = (env!("CARGO_PKG_VERSION"), std::process::id());
    let text = format!("the agent begins: primacy {version}, process {process}");
    JournalRecord::event(Timestamp::now(), config.name.clone(), text)
}

/// What is told before the first pass.
fn first_snapshot(configuration: &Configuration, observation: Observation) -> Published {
    let effective = configuration.effective();
    let now = Instant::now();
    Published {
        scope: effective.local.scope.clone(),
        name: effective.local.name.clone(),
        view: None,
        view_until: now,
        dynamic: Arc::new(effective.dynamic.clone()),
        global: Arc::new(effective.global.clone()),
        failsafe_map: None,
        state: if observation.wal.is_some() {
            State::Running
        } else {
            State::Stopped
        },
        role: Role::Uninitialized,
        postmaster_alive: observation.process.is_alive(),
        observation: Arc::new(observation),
        observed_at: now,
        lease_until: None,
        failsafe_until: None,
        tags: effective.local.tags.published(),
        configured_tags: effective.local.tags.published(),
        dcs_last_seen: 0,
        pending_restart: None,
        scheduled_restart: None,
        job: None,
        job_progress: None,
        watchdog_failed: false,
        fence: None,
        next_pass: now,
        outcome: String::new(),
    }
}
