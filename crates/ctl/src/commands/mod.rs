//! The commands, a file each.

mod dsn;
mod edit_config;
mod flush;
mod history;
mod list;
mod pause;
mod query;
mod reinit;
mod reload;
mod remove;
mod restart;
mod show_config;
mod standby_cluster;
mod switchover;
mod version;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use primacy_dcs::{Outcome, StoreError};
use primacy_model::MemberName;

use crate::cli::{Parsed, Reading, read, usage_text};
use crate::context::Context;
use crate::{Failure, Program, Surroundings};

/// Carries out a command line; `arguments` are without the program's own name.
///
/// *Exit codes* (`patronictl.md` §3): 0 done, also when members refused; 1 refused or aborted; 2 the command
/// line cannot be understood.
pub async fn run(
    program: Program,
    arguments: Vec<OsString>,
    mut surroundings: Surroundings,
) -> ExitCode {
    let parsed = match read(program, arguments) {
        Ok(Reading::Command(parsed)) => *parsed,
        Ok(Reading::Help { text, asked: true }) => {
            return match surroundings.console.write(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Ok(Reading::Help { text, asked: false }) => {
            surroundings.console.error(&text);
            return ExitCode::from(2);
        }
        Err(failure) => {
            return report(program, &failure, &mut |text| {
                surroundings.console.error(text)
            });
        }
    };
    let (lent, asking) = (surroundings.console.lent(), surroundings.console.asking());
    let command = parsed.command.clone();
    let mut errors = crate::console::ErrorStream::of(&surroundings.console);
    let outcome = tokio::select! {
        outcome = carry_out(program, &command, parsed, surroundings) => outcome,
        () = interrupted(lent) => {
            if !asking.load(Ordering::Relaxed) {
                errors.write("\n");
            }
            Err(Failure::Aborted)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(program, &failure, &mut |text| errors.write(text)),
    }
}

fn report(program: Program, failure: &Failure, error: &mut dyn FnMut(&str)) -> ExitCode {
    match failure {
        Failure::Usage { command, text } => {
            error(&usage_text(program, command.as_deref(), text));
            ExitCode::from(2)
        }
        Failure::Option(text) => {
            error(&format!("Error: {text}\n"));
            ExitCode::from(2)
        }
        Failure::Aborted => {
            error("Aborted!\n");
            ExitCode::FAILURE
        }
        other => {
            error(&format!("Error: {other}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Resolves at Ctrl-C, unless that was meant for the editor or the pager.
async fn interrupted(lent: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if !lent.load(Ordering::Relaxed) {
            return;
        }
    }
    std::future::pending().await
}

async fn carry_out(
    program: Program,
    command: &str,
    parsed: Parsed,
    surroundings: Surroundings,
) -> Result<(), Failure> {
    let mut context = Context::new(program, parsed, surroundings)?;
    let context = &mut context;
    match command {
        "demote-cluster" => standby_cluster::run(context, standby_cluster::Kind::Demote).await,
        "dsn" => dsn::run(context).await,
        "edit-config" => edit_config::run(context).await,
        "failover" => switchover::run(context, switchover::Kind::Failover).await,
        "flush" => flush::run(context).await,
        "history" => history::run(context).await,
        "list" => list::run(context, list::Shape::Table).await,
        "pause" => pause::run(context, true).await,
        "promote-cluster" => standby_cluster::run(context, standby_cluster::Kind::Promote).await,
        "query" => query::run(context).await,
        "reinit" => reinit::run(context).await,
        "reload" => reload::run(context).await,
        "remove" => remove::run(context).await,
        "restart" => restart::run(context).await,
        "resume" => pause::run(context, false).await,
        "show-config" => show_config::run(context).await,
        "switchover" => switchover::run(context, switchover::Kind::Switchover).await,
        "topology" => list::run(context, list::Shape::Tree).await,
        "version" => version::run(context).await,
        "why" => why::run(context).await,
        unknown => Err(Failure::Usage {
            command: None,
            text: format!("No such command '{unknown}'."),
        }),
    }
}

/// The last word on members that gave no answer, after their lines. Patroni's command ends with 1 there as well; of what a
/// member refused, its exit code says nothing (`patronictl.md` §9, C1 and C2).
fn all_answered(silent: &[&MemberName]) -> Result<(), Failure> {
    if silent.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = silent.iter().map(|name| name.as_str()).collect();
    Err(Failure::refused(format!(
        "no answer from {}",
        names.join(", ")
    )))
}

/// Whether a write was done; `conflict` is the refusal when somebody else was faster.
fn written(outcome: Result<Outcome, StoreError>, conflict: &str) -> Result<(), Failure> {
    match outcome? {
        Outcome::Done(_) => Ok(()),
        Outcome::ConditionFailed => Err(Failure::refused(conflict)),
    }
}
