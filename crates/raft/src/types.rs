//! The group, in the terms of the consensus library.

use openraft::{BasicNode, Entry, TokioRuntime};

use crate::command::{Answer, Command};
use crate::machine::State;

openraft::declare_raft_types!(
    pub(crate) Group:
        D = Command,
        R = Answer,
        NodeId = u64,
        Node = BasicNode,
        Entry = Entry<Group>,
        SnapshotData = State,
        AsyncRuntime = TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<Group>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(crate) type Snapshot = openraft::Snapshot<Group>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<Group>;
pub(crate) type AppendResponse = openraft::raft::AppendEntriesResponse<u64>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<u64>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<u64>;
pub(crate) type SnapshotResponse = openraft::raft::SnapshotResponse<u64>;
pub(crate) type Metrics = openraft::RaftMetrics<u64, BasicNode>;
