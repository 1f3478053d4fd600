//! The command lines of all names that the executable has, as trees: for help, completions and manual pages. What
//! comes after a command of an operator's is read by its own room.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Args, Command, ValueHint, value_parser};
use clap_complete::Shell;
use primacy_agent::AgentArgs;
use primacy_auxiliary::Program as Auxiliary;
use primacy_ctl::Program;
use primacy_demo::DemoArgs;

/// The name of our own command line.
pub(crate) const PRIMACY: &str = "primacy";
/// Patroni's agent.
pub(crate) const PATRONI: &str = "patroni";
/// Patroni's member of the embedded store without PostgreSQL.
pub(crate) const RAFT_CONTROLLER: &str = "patroni_raft_controller";
/// Patroni's operator's commands.
pub(crate) const PATRONICTL: &str = "patronictl";

/// All names by which the executable may be called.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    [PRIMACY, PATRONI, PATRONICTL, RAFT_CONTROLLER]
        .into_iter()
        .chain(Auxiliary::ALL.map(Auxiliary::name))
}

/// The command line of a name.
pub(crate) fn of(name: &str) -> Option<Command> {
    Some(match name {
        PRIMACY => primacy(),
        PATRONI => agent(PATRONI),
        RAFT_CONTROLLER => witness(RAFT_CONTROLLER),
        PATRONICTL => primacy_ctl::command(Program::Patronictl),
        _ => Auxiliary::of(name)?.command(),
    })
}

/// Everything that `primacy` can do.
pub(crate) fn primacy() -> Command {
    Command::new(PRIMACY)
        .about("High availability for PostgreSQL")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_value_name("COMMAND")
        .args(primacy_ctl::configuration_options())
        .subcommand(agent("agent"))
        .subcommand(witness("witness"))
        .subcommand(demo())
        .subcommands(primacy_ctl::subcommands(Program::Primacy))
        .subcommand(completions())
        .subcommand(man())
}

/// The agent, with Patroni's command line (`configuration.md` §7.1).
pub(crate) fn agent(name: &'static str) -> Command {
    AgentArgs::augment_args(Command::new(name))
        .about("Manage the PostgreSQL server beside it")
        .disable_version_flag(true)
        .infer_long_args(true)
}

/// The member of the embedded store without PostgreSQL (`configuration.md` §7.5).
pub(crate) fn witness(name: &'static str) -> Command {
    Command::new(name)
        .about("Be a member of the embedded store, without PostgreSQL")
        .disable_version_flag(true)
        .arg(
            Arg::new("configfile")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file or directory; may also come from the environment"),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Print the version"),
        )
}

/// The cluster that shows what happens.
pub(crate) fn demo() -> Command {
    DemoArgs::augment_args(Command::new("demo"))
}

/// Prints a completion script.
pub(crate) fn completions() -> Command {
    Command::new("completions")
        .about("Print a script that completes command lines")
        .arg(
            Arg::new("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("The shell that reads it"),
        )
        .arg(
            Arg::new("PROGRAM")
                .default_value(PRIMACY)
                .value_parser(PossibleValuesParser::new(names()))
                .help("The name under which the executable is called"),
        )
}

/// Writes the manual.
pub(crate) fn man() -> Command {
    Command::new("man")
        .about("Write the manual pages into a directory")
        .arg(
            Arg::new("DIRECTORY")
                .required(true)
                .value_hint(ValueHint::DirPath)
                .value_parser(value_parser!(PathBuf))
                .help("Where the pages go"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_sound() {
        for name in names() {
            of(name).unwrap().debug_assert();
        }
    }
}
