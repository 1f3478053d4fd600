//! `primacy demo`: three agents, three PostgreSQL servers and the embedded store under one temporary
//! directory, a client that writes all the while, and faults at the press of a key.
//!
//! However the demo ends, nothing of it stays behind: see `cleanup`.

mod cleanup;
mod cluster;
mod events;
mod picture;
mod process;
mod report;
mod scenario;
mod setup;
mod status;
mod view;
mod writer;

use std::fmt;
use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use cleanup::Cleaner;
use scenario::Demo;
use setup::Setup;

/// A fault that the demo can inflict on its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// SIGKILL to the primary's agent and postmaster.
    KillNode,
    /// SIGKILL to the primary's postmaster.
    KillPostgres,
    /// A switchover asked of the agents.
    Switchover,
    /// SIGSTOP to the primary's agent.
    FreezeAgent,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillNode => "kill-node",
            Fault::KillPostgres => "kill-postgres",
            Fault::Switchover => "switchover",
            Fault::FreezeAgent => "freeze-agent",
        })
    }
}

/// Run a three-member cluster in a temporary directory, and lose its primary before your eyes
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Inflict this fault without a terminal, bring the member back, report, and exit
    #[arg(long, value_name = "FAULT")]
    pub scenario: Option<Fault>,
    /// Print the report as one JSON object
    #[arg(long, requires = "scenario")]
    pub json: bool,
    /// Keep the directory with logs and data
    #[arg(long)]
    pub keep: bool,
    /// Directory of PostgreSQL's server programs
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Wait for the end of the input, then stop what runs in this directory of a demo and remove it
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "scenario")]
    pub clean_up: Option<PathBuf>,
}

/// Runs the demo to its end: until the user leaves, or until the scenario is through.
///
/// # Errors
/// What kept the demo from running, in one sentence. A scenario that ran but did not end as it must is no
/// error but a failing exit code.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.clean_up {
        cleanup::wait_and_clean_up(directory, args.keep)?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        args.scenario.is_some() || stdin().is_terminal() && stdout().is_terminal(),
        "the live view needs a terminal; without one, choose a fault: \
         --scenario kill-node|kill-postgres|switchover|freeze-agent"
    );
    // From here on a signal ends the demo in an orderly way.
    let interrupted = interruption()?;
    let bin_dir = setup::find_bin_dir(args.bin_dir.as_deref())?;
    let directory = setup::create_directory()?;
    let kept = args.keep.then(|| directory.clone());
    let cleaner = Cleaner::start(&directory, args.keep)
        .inspect_err(|_| _ = std::fs::remove_dir(&directory))?;
    let demo = async {
        let setup = Setup::new(directory, &bin_dir)?;
        match args.scenario {
            Some(fault) => run_scenario(setup, fault, args.json).await,
            None => view::run(Arc::new(Demo::start(setup)?))
                .await
                .map(|()| ExitCode::SUCCESS),
        }
    };
    let ended = tokio::select! {
        ended = demo => ended,
        code = interrupted => Ok(code),
    };
    drop(cleaner);
    if let Some(directory) = kept {
        eprintln!("logs and data are in {}", directory.display());
    }
    ended
}

/// Resolves on a signal that asks to end, with the exit code that shells expect then.
fn interruption() -> anyhow::Result<impl Future<Output = ExitCode>> {
    let listen = |kind| signal(kind).context("cannot listen to signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    Ok(async move {
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hang_up.recv() => SignalKind::hangup(),
        };
        ExitCode::from(128 + kind.as_raw_value() as u8)
    })
}

async fn run_scenario(setup: Setup, fault: Fault, json: bool) -> anyhow::Result<ExitCode> {
    let say = |text: &str| {
        if !json {
            eprintln!("{text}");
        }
    };
    say("starting three members ...");
    let demo = Demo::start(setup)?;
    demo.ready().await?;
    say(&format!(
        "the cluster is complete and written to; {fault} ..."
    ));
    let report = scenario::run(&demo, fault).await?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(match report.is_success() {
        true => ExitCode::SUCCESS,
        false => {
            eprintln!(
                "{fault}: {}",
                report.problem.as_deref().unwrap_or("not as it must be")
            );
            ExitCode::FAILURE
        }
    })
}
