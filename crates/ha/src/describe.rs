//! Steps in words, for the journal and the log.

use std::fmt;

use crate::decide::slots;
use crate::decision::Step;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Wait | Step::WaitUntil(_) => f.write_str("wait"),
            Step::AskPeers(_) => f.write_str("ask the members"),
            Step::AdoptLease => f.write_str("take over the lease of the leader key"),
            Step::AcquireLeader { .. } => f.write_str("acquire the leader key"),
            Step::ReleaseLeader { optime: None } => f.write_str("release the leader key"),
            Step::ReleaseLeader { optime: Some(lsn) } => {
                write!(f, "release the leader key, the WAL ends at {lsn}")
            }
            Step::ClaimInitialize => f.write_str("claim the bootstrap"),
            Step::WriteInitialize { identifier, .. } => write!(f, "write /initialize {identifier}"),
            Step::CancelBootstrap => f.write_str("give the bootstrap up"),
            Step::AbandonBootstrap => f.write_str("move the unfinished data directory aside"),
            Step::ForgetBootstrap => f.write_str("remove the marker of the bootstrap"),
            Step::WriteConfig(_) => f.write_str("write /config"),
            Step::ClearFailover(_) => f.write_str("clear /failover"),
            Step::WriteSync(sync) => write!(f, "write /sync {}", sync.to_json()),
            Step::DeleteSync(_) => f.write_str("delete /sync"),
            Step::SetSynchronousStandbyNames(Some(names)) => {
                write!(f, "set synchronous_standby_names to {names:?}")
            }
            Step::SetSynchronousStandbyNames(None) => {
                f.write_str("set synchronous_standby_names to the configured value")
            }
            Step::WriteHistory(timeline) => write!(f, "write /history up to timeline {timeline}"),
            Step::ChangeSlots(changes) => write!(f, "change slots: {}", slots::describe(changes)),
            Step::ChangeLogicalSlots { database, changes } => write!(
                f,
                "change logical slots of database {database}: {}",
                slots::describe_logical(changes)
            ),
            Step::CompareLogicalSlots { source, .. } => {
                write!(f, "ask the {source} what it holds back for logical slots")
            }
            Step::Follow(upstream) => write!(f, "follow {upstream}"),
            Step::ResumeReplay => f.write_str("resume the replay"),
            Step::ActivateWatchdog { timeout } => {
                write!(f, "activate the watchdog with {} s", timeout.as_secs())
            }
            Step::Checkpoint => f.write_str("make a checkpoint"),
            Step::WithdrawFromSync => f.write_str("ask to leave synchronous replication"),
            Step::StartJob(job) => write!(f, "start: {}", job.name()),
            Step::CancelJob => f.write_str("cancel the long action"),
            Step::Exit(exit) => write!(f, "end the agent with code {}", exit.code),
        }
    }
}
