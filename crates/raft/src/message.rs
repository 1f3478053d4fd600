//! What members and clients say to each other, once they know each other.

use serde::{Deserialize, Serialize};

use crate::command::{Answer, Op, RequestId};
use crate::disk::Standing;
use crate::machine::{Event, Item, State};
use crate::types::{
    AppendRequest, AppendResponse, SnapshotMeta, SnapshotResponse, Vote, VoteRequest, VoteResponse,
};

/// One question.
#[derive(Serialize, Deserialize)]
pub(crate) struct Question<R> {
    /// Names it among those under way on its connection.
    pub(crate) id: u64,
    /// How long the asker will wait.
    pub(crate) budget_ms: u64,
    pub(crate) request: R,
}

/// One reply.
#[derive(Serialize, Deserialize)]
pub(crate) struct Response {
    /// The question's.
    pub(crate) id: u64,
    pub(crate) reply: Reply,
}

/// What can be asked.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// `group`: the name of the group that the asker belongs to, if it knows.
    Append {
        group: Option<String>,
        rpc: AppendRequest,
    },
    Vote {
        group: Option<String>,
        rpc: VoteRequest,
    },
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        state: Box<State>,
    },
    /// What have you promised, what do you have?
    Probe,
    Call(Call),
    Watch {
        prefix: String,
    },
}

/// A request to the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) body: Body,
    /// A member passed it on already: whoever gets it must be the leader.
    pub(crate) forwarded: bool,
    /// The group of the member that passed it on.
    pub(crate) group: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    Read { prefix: String },
    Change { id: RequestId, op: Op },
}

/// What can be replied.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Appended(AppendResponse),
    Voted(VoteResponse),
    Installed(SnapshotResponse),
    Standing(Standing),
    /// What a read found.
    Items(Vec<(String, Item)>),
    Answer(Answer),
    /// Nothing was done: no leader, no quorum, not a member.
    Unavailable {
        reason: String,
    },
    /// It may have been done.
    Lost {
        reason: String,
    },
    /// To a watch: a change.
    Changed(Event),
    /// To a watch: something may be missing.
    Resync,
    /// To a watch: nothing happened, the connection lives.
    Alive,
}
