//! Configuration: YAML 1.1, the layers (environment, files, dynamic configuration, built-in defaults), the
//! typed view of them, the parameters handed to PostgreSQL, and validation (`configuration.md`).
//!
//! Everything is pure except [`layers::load`], which reads the files that it is told to. Values keep the
//! type they were written with until a typed section is built, since comparisons, file contents and
//! messages show values as they were written.
//!
//! The way through: [`layers::load`] gives the local tree, [`Effective::build`] lays the dynamic
//! configuration under it and gives the typed [`LocalConfig`] and [`GlobalConfig`],
//! [`parameters::server_parameters`] what goes to PostgreSQL.

mod address;
mod command_line;
mod effective;
mod environment;
mod error;
mod global;
mod guc_map;
mod pitfalls;
mod secret;
mod section;
mod timing;
mod witness;

pub mod generate;
pub mod layers;
pub mod local;
pub mod parameters;
pub mod scalar;
pub mod validate;
pub mod yaml;

pub use address::{HostPort, Listen};
pub use effective::{ClientConfig, Effective};
pub use environment::{Environment, from_environment};
pub use error::{ConfigError, Warning};
pub use global::{
    ClusterType, GlobalConfig, PermanentSlot, SlotMatcher, StandbyCluster, SynchronousMode,
};
pub use guc_map::GucMap;
pub use local::{DcsSection, LocalConfig, Watchdog, WatchdogMode};
pub use secret::Secret;
pub use timing::TimingLimits;
pub use witness::WitnessConfig;

/// A mapping of configuration keys, in the order written.
pub type Map = serde_json::Map<String, serde_json::Value>;
