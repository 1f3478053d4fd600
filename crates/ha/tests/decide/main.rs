//! Table tests of the decision. Each names the rows of `ha.md` that it covers.

mod bootstrap;
mod explained;
mod failsafe;
mod fence;
mod follow;
mod hang;
mod in_flight;
mod late_lock;
mod leader;
mod lease;
mod pause;
mod race;
mod recover;
mod restart;
mod slots;
mod standby_cluster;
mod switchover;
mod sync;
mod sync_candidates;
mod sync_rows;
mod sync_switches;
mod watchdog;
mod weaknesses;
mod world;
