//! A simulated world around the real [`primacy_ha::Machine`]: members with agents, fences and servers, a store, a
//! network, clients, and everything that can go wrong with them, in virtual time. One seed is one run, to the letter.
//!
//! The machine and `decide` are the agent's own. Everything around them is a model: PostgreSQL in `postgres`, the store
//! in `store`, the agent's shell in `node` and `jobs`. After what matters, the invariants are checked (`invariants`).

mod clients;
mod failsafe;
mod faults;
mod history;
mod invariants;
mod jobs;
mod minimise;
mod modelled;
mod network;
mod node;
mod postgres;
mod report;
mod rules;
mod store;
mod synchronous;
mod themes;
mod world;

pub use faults::{Fault, Plan, What, Whom};
pub use invariants::Violation;
pub use minimise::minimise;
pub use modelled::{ClientAnswer, ModelledServers};
pub use postgres::Level;
pub use report::Report;
pub use rules::rules;
pub use world::{Outcome, run};
