//! The one executable. Called as `patroni` or `patronictl` it takes exactly their command lines; as `primacy`
//! it offers the agent, the demo and the operator's commands as subcommands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Args, Command, FromArgMatches, value_parser};
use primacy_ctl::{Program, Surroundings};
use primacy_demo::DemoArgs;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    match Path::new(&called)
        .file_stem()
        .and_then(|name| name.to_str())
    {
        Some("patroni") => agent(Command::new("patroni"), "patroni", called, arguments),
        Some("patronictl") => ctl(Program::Patronictl, arguments),
        _ => primacy(arguments),
    }
}

fn primacy(arguments: Vec<OsString>) -> ExitCode {
    let Some(first) = arguments.first().and_then(|first| first.to_str()) else {
        let _ = command().print_help();
        return ExitCode::from(2);
    };
    match first {
        "agent" => agent(
            Command::new("agent").bin_name("primacy agent"),
            "primacy",
            "primacy agent".into(),
            arguments[1..].to_vec(),
        ),
        "demo" => demo(arguments[1..].to_vec()),
        // Not for people: the agent starts it.
        "fence" => fence(&arguments[1..]),
        "help" | "--help" | "-h" => {
            let _ = command().print_help();
            ExitCode::SUCCESS
        }
        "--version" | "-V" => {
            println!("primacy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => ctl(Program::Primacy, arguments),
    }
}

/// For `--help` only: what comes after a subcommand is read by its own room.
fn command() -> Command {
    Command::new("primacy")
        .about("High availability for PostgreSQL")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand(Command::new("agent").about("Run the agent beside a PostgreSQL server"))
        .subcommand(
            Command::new("demo").about("Show a cluster that loses its primary, on this machine"),
        )
        .subcommands(primacy_ctl::subcommands(Program::Primacy))
}

/// The agent, with Patroni's command line (`configuration.md` §7.1).
fn agent(command: Command, program: &str, called: OsString, arguments: Vec<OsString>) -> ExitCode {
    let command = command
        .about("Manages the PostgreSQL server beside it")
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
        );
    let matches = match command.try_get_matches_from([called].into_iter().chain(arguments)) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if matches.get_flag("version") {
        let version = if program == "patroni" {
            primacy_agent::PATRONI_VERSION
        } else {
            env!("CARGO_PKG_VERSION")
        };
        println!("{program} {version}");
        return ExitCode::SUCCESS;
    }
    let path = matches.get_one::<PathBuf>("configfile").cloned();
    // Three threads: one that steps the machine, one that serves, one for what takes longer.
    run(
        Builder::new_multi_thread()
            .worker_threads(3)
            .enable_all()
            .build(),
        primacy_agent::run(path),
    )
}

/// No runtime and no log: the fence does one thing.
fn fence(arguments: &[OsString]) -> ExitCode {
    let Some(address) = arguments.first().and_then(|address| address.to_str()) else {
        eprintln!("Error: the fence is started by the agent, not by hand");
        return ExitCode::from(2);
    };
    match primacy_fence::run(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: the fence cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: Vec<OsString>) -> ExitCode {
    let command = DemoArgs::augment_args(Command::new("demo").bin_name("primacy demo"));
    let parsed = command
        .try_get_matches_from(
            [OsString::from("primacy demo")]
                .into_iter()
                .chain(arguments),
        )
        .and_then(|matches| DemoArgs::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    run(
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build(),
        async {
            match primacy_demo::run(args).await {
                Ok(code) => code,
                Err(error) => {
                    eprintln!("Error: {error:#}");
                    ExitCode::FAILURE
                }
            }
        },
    )
}

fn ctl(program: Program, arguments: Vec<OsString>) -> ExitCode {
    run(
        Builder::new_current_thread().enable_all().build(),
        primacy_ctl::run(program, arguments, Surroundings::of_process()),
    )
}

fn run(runtime: std::io::Result<Runtime>, program: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(program);
            // A thread that hangs in a disk operation does not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("Error: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
