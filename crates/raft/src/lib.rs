//! The embedded store: a Raft group inside the agents
