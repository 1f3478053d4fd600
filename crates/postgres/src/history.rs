use primacy_model::{Lsn, Timeline};
use tokio::time::Instant;

use crate::{Error, Server};

/// A line of a timeline history file: the timeline ended there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// Where.
    pub switch_lsn: Lsn,
    /// Why.
    pub reason: String,
}

/// A line that is neither empty, a comment, nor a history line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a line of a timeline history: {0:?}")]
pub struct HistoryParseError(pub String);

/// Reads a timeline history file.
pub fn parse_history(text: &str) -> Result<Vec<HistoryLine>, HistoryParseError> {
    let _ = text;
    todo!()
}

impl Server {
    /// The local history file of a timeline with its modification time; `None` when there is none.
    pub async fn local_history(
        &self,
        timeline: Timeline,
        deadline: Instant,
    ) -> Result<Option<(Vec<HistoryLine>, jiff::Timestamp)>, Error> {
        let _ = (timeline, deadline);
        todo!()
    }
}
