//! `primacy-sim`: runs the simulator by the hour, replays a seed, makes a failing one smaller.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use primacy_sim::{Plan, Report, Violation, minimise, rules, run};

/// Run the high-availability machine in a simulated world
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed after the other until so many cluster-hours have passed, or so many seeds failed
    Run {
        /// The first seed; without it, one that was never used
        #[arg(long)]
        seed: Option<u64>,
        /// Cluster-hours in all
        #[arg(long, default_value_t = 1000.0)]
        hours: f64,
        /// Hours of faults per seed
        #[arg(long, default_value_t = 2.0)]
        length: f64,
        /// Threads; all cores if absent
        #[arg(long)]
        jobs: Option<usize>,
        /// Go on until so many seeds have failed
        #[arg(long, default_value_t = 1)]
        failures: usize,
    },
    /// Run one seed, or one case from a file, and print what happens
    Replay {
        /// A seed or a file
        what: String,
        /// Hours of faults, for a seed
        #[arg(long, default_value_t = 2.0)]
        length: f64,
        /// Print every event
        #[arg(long)]
        trace: bool,
    },
    /// Make a failing seed or case smaller, and print it as a case
    Minimise {
        /// A seed or a file
        what: String,
        /// Hours of faults, for a seed
        #[arg(long, default_value_t = 2.0)]
        length: f64,
    },
}

fn main() -> Result<ExitCode> {
    match Options::parse().command {
        Command::Run {
            seed,
            hours,
            length,
            jobs,
            failures,
        } => {
            let seed = seed.unwrap_or_else(|| rand::random::<u32>().into());
            Ok(run_many(seed, hours, length, jobs, failures))
        }
        Command::Replay {
            what,
            length,
            trace,
        } => {
            let outcome = run(plan(&what, length)?, trace);
            for line in &outcome.trace {
                println!("{line}");
            }
            print!("{}", outcome.report);
            println!("hash {:016x}", outcome.hash);
            Ok(verdict(outcome.violation.as_ref()))
        }
        Command::Minimise { what, length } => {
            let plan = plan(&what, length)?;
            let smaller = minimise(&plan, |plan| {
                eprintln!("{} faults, {:?}", plan.faults.len(), plan.length)
            });
            let (plan, outcome) = smaller.context("it does not fail")?;
            println!("{}", serde_json::to_string_pretty(&plan)?);
            Ok(verdict(outcome.violation.as_ref()))
        }
    }
}

fn verdict(violation: Option<&Violation>) -> ExitCode {
    match violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            eprintln!(
                "VIOLATION of {} at {:?}: {}",
                violation.invariant, violation.at, violation.text
            );
            ExitCode::FAILURE
        }
    }
}

fn plan(what: &str, length: f64) -> Result<Plan> {
    match what.parse() {
        Ok(seed) => Ok(Plan::draw(seed, hours(length))),
        Err(_) => {
            let path = PathBuf::from(what);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no case", path.display()))
        }
    }
}

fn hours(hours: f64) -> Duration {
    Duration::from_secs_f64(hours * 3600.0)
}

/// All seeds from the first on, side by side.
fn run_many(first: u64, total: f64, length: f64, jobs: Option<usize>, failures: usize) -> ExitCode {
    let jobs = jobs
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    println!("seeds from {first} on, {length} hours of faults each");
    let begin = Instant::now();
    let next = AtomicU64::new(first);
    let sum = Mutex::new((Report::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let outcome = run(Plan::draw(seed, hours(length)), false);
                    let mut sum = sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    sum.0.add(&outcome.report);
                    if let Some(violation) = outcome.violation {
                        println!(
                            "seed {seed}: {} at {:?}: {}",
                            violation.invariant, violation.at, violation.text
                        );
                        sum.1.push(seed);
                    }
                    if sum.0.simulated >= hours(total) || sum.1.len() >= failures {
                        return;
                    }
                }
            });
        }
    });
    let (report, failed) = sum
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    print!("{report}");
    let mut silent = rules();
    for (rule, _) in report.rules.keys() {
        silent.remove(rule);
    }
    let silent: Vec<String> = silent.into_iter().collect();
    println!("rules that had no say: {}", silent.join(", "));
    let elapsed = begin.elapsed();
    println!(
        "{:.0} cluster-hours per second, {elapsed:.0?} in all; {} seeds failed: {failed:?}",
        report.simulated.as_secs_f64() / 3600.0 / elapsed.as_secs_f64(),
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
