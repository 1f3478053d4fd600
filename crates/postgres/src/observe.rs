use primacy_model::Observation;
use tokio::time::Instant;

use crate::Server;

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObserveOptions {
    /// Replication slots too.
    pub slots: bool,
}

impl Server {
    /// One look at files, process and server. Never fails and never takes longer than the deadline: what
    /// could not be seen is absent in the answer, or `Unreadable`.
    pub async fn observe(&self, options: ObserveOptions, deadline: Instant) -> Observation {
        let _ = (options, deadline);
        todo!()
    }
}
