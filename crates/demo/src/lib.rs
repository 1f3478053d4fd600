//! `primacy demo`: three agents, three PostgreSQL servers and the embedded store under one temporary
//! directory, a client that writes all the while, and faults at the press of a key.
//!
//! However the demo ends, nothing of it stays behind: a separate process waits for its end and cleans up
//! (`cleanup`).

use std::path::PathBuf;
use std::process::ExitCode;

/// A fault that the demo can inflict on its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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

/// Command line of `primacy demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Inflict this fault without a terminal, bring the node back, report, and exit
    #[arg(long, value_name = "FAULT")]
    pub scenario: Option<Fault>,
    /// Print the report as one JSON object
    #[arg(long, requires = "scenario")]
    pub json: bool,
    /// Keep the directory with logs and data
    #[arg(long)]
    pub keep: bool,
    /// Directory of PostgreSQL's programs
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// Runs the demo to its end.
pub async fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the demo is not there yet")
}
