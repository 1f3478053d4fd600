//! The agent's command line, which is Patroni's (`configuration.md` §7.1).

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{config_commands, startup};

/// What the command line asks for: to manage a server, or to do something about its configuration and end.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(args_override_self = true)]
pub struct AgentArgs {
    /// Configuration file or directory; the output file of the generators. May also come from the environment
    #[arg(value_name = "configfile", value_hint = clap::ValueHint::AnyPath)]
    pub configfile: Option<PathBuf>,

    /// Print the version
    #[arg(long)]
    pub version: bool,

    /// Tell what is wrong with the configuration, a line each, and end
    #[arg(long, conflicts_with_all = ["generate_sample_config", "generate_config"])]
    pub validate_config: bool,

    /// Write a configuration to begin with, to be completed where it says #FIXME
    #[arg(long, conflicts_with = "generate_config")]
    pub generate_sample_config: bool,

    /// Write a configuration made from a running server
    #[arg(long)]
    pub generate_config: bool,

    /// How to connect to that server, as a superuser; else the PG* variables tell
    #[arg(long, value_name = "DSN")]
    pub dsn: Option<String>,

    /// With --validate-config: a port to listen at may be in use already
    #[arg(short, long)]
    pub ignore_listen_port: bool,

    /// With --validate-config: print the configuration of file and environment
    #[arg(short, long)]
    pub print: bool,
}

/// Does what is asked for; the version is printed by the caller, who knows what it is called.
pub async fn run(args: AgentArgs) -> ExitCode {
    if args.validate_config {
        config_commands::validate(
            args.configfile.as_deref(),
            args.ignore_listen_port,
            args.print,
        )
    } else if args.generate_sample_config {
        config_commands::generate_sample(args.configfile.as_deref())
    } else if args.generate_config {
        config_commands::generate(args.configfile.as_deref(), args.dsn.as_deref()).await
    } else {
        startup::run(args.configfile).await
    }
}
