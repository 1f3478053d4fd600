//! The other members, for the consensus library.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::{AnyError, BasicNode};
use tokio::time::Instant;

use crate::message::{Reply, Request};
use crate::peers::{AskError, Lane, Peers};
use crate::replica::Replica;
use crate::types::{
    AppendRequest, AppendResponse, Group, Snapshot, SnapshotResponse, Vote, VoteRequest,
    VoteResponse,
};

/// A member that comes back must hear of the leader before it thinks of an election.
const BACKOFF: Duration = Duration::from_millis(100);

/// Makes the ways to the other members.
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Replica,
}

/// The way to one of them.
pub(crate) struct Way {
    addr: String,
    peers: Arc<Peers>,
    replica: Replica,
}

enum WayError {
    Unreachable(Unreachable),
    Network(NetworkError),
}

impl RaftNetworkFactory<Group> for Network {
    type Network = Way;

    async fn new_client(&mut self, _target: u64, node: &BasicNode) -> Way {
        Way {
            addr: node.addr.clone(),
            peers: self.peers.clone(),
            replica: self.replica.clone(),
        }
    }
}

impl Way {
    async fn ask(
        &self,
        lane: Lane,
        request: &Request,
        option: &RPCOption,
    ) -> Result<Reply, WayError> {
        let deadline = Instant::now() + option.hard_ttl();
        let far =
            |reason: String| WayError::Unreachable(Unreachable::new(&AnyError::error(reason)));
        match self.peers.ask(&self.addr, lane, request, deadline).await {
            Ok(Reply::Unavailable { reason }) => Err(far(reason)),
            Ok(reply) => Ok(reply),
            Err(AskError::Lost(reason)) => Err(WayError::Network(NetworkError::new(
                &AnyError::error(reason),
            ))),
            Err(error) => Err(far(error.to_string())),
        }
    }
}

fn unexpected() -> WayError {
    WayError::Unreachable(Unreachable::new(&AnyError::error(
        "the reply does not fit the question",
    )))
}

impl<E: std::error::Error> From<WayError> for RPCError<u64, BasicNode, RaftError<u64, E>> {
    fn from(error: WayError) -> Self {
        match error {
            WayError::Unreachable(error) => RPCError::Unreachable(error),
            WayError::Network(error) => RPCError::Network(error),
        }
    }
}

impl From<WayError> for StreamingError<Group, Fatal<u64>> {
    fn from(error: WayError) -> Self {
        match error {
            WayError::Unreachable(error) => StreamingError::Unreachable(error),
            WayError::Network(error) => StreamingError::Network(error),
        }
    }
}

impl RaftNetwork<Group> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RPCError<u64, BasicNode, RaftError<u64>>> {
        let request = Request::Append {
            group: self.replica.group(),
            rpc,
        };
        match self.ask(Lane::Raft, &request, &option).await? {
            Reply::Appended(response) => Ok(response),
            _ => Err(unexpected().into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RPCError<u64, BasicNode, RaftError<u64>>> {
        let request = Request::Vote {
            group: self.replica.group(),
            rpc,
        };
        match self.ask(Lane::Raft, &request, &option).await? {
            Reply::Voted(response) => Ok(response),
            _ => Err(unexpected().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError<Group, Fatal<u64>>> {
        let request = Request::Snapshot {
            vote,
            meta: snapshot.meta,
            state: snapshot.snapshot,
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = self.ask(Lane::Bulk, &request, &option) => match reply? {
                Reply::Installed(response) => Ok(response),
                _ => Err(unexpected().into()),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
