//! The operator's commands (`patronictl.md`), and how they draw what they show.
//!
//! One code serves two command lines. Called as `patronictl` it takes exactly Patroni's; as `primacy` the
//! commands are subcommands, and the options that choose the configuration are also taken after the command.
//!
//! A command reads the cluster once, draws it with the pure functions of [`render`], asks what it has to ask
//! on the [`Console`], and then asks members over REST or writes the store. Nothing waits without a bound.

mod cli;
mod clusters;
mod commands;
mod console;
mod context;
mod diff;
mod error;
#[cfg(test)]
mod fuzz;
mod http;
mod members;
pub mod render;
mod schedule;
mod store;

pub use cli::{Program, command, configuration_options, is_command, subcommands};
pub use commands::run;
pub use console::Console;
pub use context::Surroundings;
pub use error::Failure;
pub use store::{ConfiguredStore, OpenStore};
