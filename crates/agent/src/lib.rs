//! The daemon: a shell around the machine. It performs actions and reports what came of them; where it
//! would have to choose, the choice belongs into `primacy-ha`.

pub mod api;
mod citus;
mod clock;
mod command_line;
mod config_commands;
mod configuration;
mod failsafe;
mod fencing;
mod jobs;
pub mod journal;
mod leases;
pub mod logging;
pub mod peers;
pub mod published;
mod reconfigure;
pub mod request;
mod settings;
mod shell;
mod slots;
mod startup;
mod steps;
mod stores;
mod supervisor;
mod watchdog;
mod witness;

pub use command_line::{AgentArgs, run};
pub use primacy_model::PATRONI_VERSION;
pub use witness::run as run_witness;
