//! The one executable. Called as `patroni`, `patronictl` or one of the programs beside them it takes exactly their command
//! lines; as `primacy` it offers the agent, the demo and the operator's commands as subcommands.

mod grammar;
mod init;
mod manual;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command, FromArgMatches};
use clap_complete::Shell;
use primacy_agent::AgentArgs;
use primacy_auxiliary::Program as Auxiliary;
use primacy_ctl::{Program, Surroundings};
use primacy_demo::DemoArgs;
use tokio::runtime::{Builder, Runtime};

use grammar::{PATRONI, PATRONICTL, PRIMACY, RAFT_CONTROLLER};

/// The variable by which start-up files of shells ask Patroni's command for its completion script.
const COMPLETE: &str = "_PATRONICTL_COMPLETE";

/// Looks at a server's files are further apart, so between them the agent has no more threads than it needs.
const DISK_THREAD_IDLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    if init::is_first() {
        return run(
            Builder::new_current_thread().enable_all().build(),
            init::supervise(called, arguments),
        );
    }
    match Path::new(&called)
        .file_stem()
        .and_then(|name| name.to_str())
    {
        Some(PATRONI) => agent(PATRONI, called, arguments),
        Some(RAFT_CONTROLLER) => witness(RAFT_CONTROLLER, called, arguments),
        Some(PATRONICTL) => match std::env::var(COMPLETE).ok().as_deref() {
            Some("bash_source") => print_completions(Shell::Bash, PATRONICTL),
            Some("zsh_source") => print_completions(Shell::Zsh, PATRONICTL),
            Some("fish_source") => print_completions(Shell::Fish, PATRONICTL),
            _ => ctl(Program::Patronictl, arguments),
        },
        Some(name) if let Some(program) = Auxiliary::of(name) => auxiliary(program, arguments),
        _ => primacy(arguments),
    }
}

fn primacy(arguments: Vec<OsString>) -> ExitCode {
    let Some(first) = arguments.first().and_then(|first| first.to_str()) else {
        let _ = grammar::primacy().print_help();
        return ExitCode::from(2);
    };
    let rest = || arguments[1..].to_vec();
    match first {
        "agent" => agent("agent", "primacy agent".into(), rest()),
        "witness" => witness("witness", "primacy witness".into(), rest()),
        "demo" => demo(rest()),
        // Not for people: the agent starts it.
        "fence" => fence(&arguments[1..]),
        "completions" => completions(rest()),
        "man" => man(rest()),
        "help" | "--help" | "-h" => {
            let _ = grammar::primacy().print_help();
            ExitCode::SUCCESS
        }
        "--version" | "-V" => {
            println!("primacy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => ctl(Program::Primacy, arguments),
    }
}

/// Reads a command line; the error is the exit code, once help or the refusal is printed.
fn read(
    command: Command,
    called: OsString,
    arguments: Vec<OsString>,
) -> Result<ArgMatches, ExitCode> {
    let called_by_name = command.bin_name(called.to_string_lossy().into_owned());
    called_by_name
        .try_get_matches_from([called].into_iter().chain(arguments))
        .map_err(|error| {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })
}

fn agent(name: &'static str, called: OsString, arguments: Vec<OsString>) -> ExitCode {
    let matches = match read(grammar::agent(name), called, arguments) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    if matches.get_flag("version") {
        return version(name);
    }
    let args = match AgentArgs::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    // Three threads: the first one steps the machine, two more serve and perform. Those that wait for a disk end
    // soon after it has answered.
    run(
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_keep_alive(DISK_THREAD_IDLE)
            .enable_all()
            .build(),
        primacy_agent::run(args),
    )
}

fn witness(name: &'static str, called: OsString, arguments: Vec<OsString>) -> ExitCode {
    let matches = match read(grammar::witness(name), called, arguments) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    if matches.get_flag("version") {
        return version(name);
    }
    run(
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build(),
        primacy_agent::run_witness(matches.get_one::<PathBuf>("configfile").cloned()),
    )
}

/// As Patroni, what is called by one of its names is of its version.
fn version(name: &str) -> ExitCode {
    match name {
        PATRONI | RAFT_CONTROLLER => println!("{name} {}", primacy_agent::PATRONI_VERSION),
        _ => println!("{PRIMACY} {}", env!("CARGO_PKG_VERSION")),
    }
    ExitCode::SUCCESS
}

fn completions(arguments: Vec<OsString>) -> ExitCode {
    let matches = match read(
        grammar::completions(),
        "primacy completions".into(),
        arguments,
    ) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let shell = matches.get_one::<Shell>("SHELL").copied();
    let program = matches.get_one::<String>("PROGRAM");
    let (Some(shell), Some(program)) = (shell, program) else {
        return ExitCode::from(2);
    };
    print_completions(shell, program)
}

fn print_completions(shell: Shell, program: &str) -> ExitCode {
    match manual::completions(shell, program, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads it has had enough.
        Err(_) => ExitCode::FAILURE,
    }
}

fn man(arguments: Vec<OsString>) -> ExitCode {
    let matches = match read(grammar::man(), "primacy man".into(), arguments) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let Some(directory) = matches.get_one::<PathBuf>("DIRECTORY") else {
        return ExitCode::from(2);
    };
    match manual::write_pages(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: cannot write into {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
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
    let matches = match read(grammar::demo(), "primacy demo".into(), arguments) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let args = match DemoArgs::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
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

fn auxiliary(program: Auxiliary, arguments: Vec<OsString>) -> ExitCode {
    run(Builder::new_current_thread().enable_all().build(), async {
        ExitCode::from(program.run(arguments).await)
    })
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
