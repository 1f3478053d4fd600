//! The fence: a process apart from the agent that holds the lease's deadline and kills PostgreSQL when it
//! passes.
//!
//! The hazard: an agent that is killed, frozen or starved cannot stop its PostgreSQL when the lease ends, and
//! another member is promoted then. Two servers accept writes.
//!
//! 1. The agent starts the fence when it first leads, and tells it with every renewal until when the lease
//!    holds and which process the postmaster is.
//! 2. The fence waits on a timer of the clock that counts suspended time. When the deadline passes and no
//!    renewal was told, it sends SIGKILL to the postmaster and everything below it. It acts on an expired
//!    deadline alone: that the agent is gone is no reason.
//! 3. An agent that comes back connects to the fence of its data directory and goes on renewing. The server
//!    runs on.
//! 4. The fence is locked in memory, opens no file but those of `/proc`, and allocates nothing while it waits. It
//!    ends when the postmaster is gone and nobody is connected.
//!
//! What is left to the caller: to tell a deadline that is counted from before the renewal was sent, and to tell
//! it in time.

mod client;
mod protocol;
mod server;

pub use client::{FenceClient, FenceError};
pub use protocol::{Message, Status, Target};
pub use server::run;
