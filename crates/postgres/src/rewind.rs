use primacy_model::{Lsn, Timeline};
use tokio::time::Instant;

use crate::conninfo::Conninfo;
use crate::history::HistoryLine;
use crate::{Error, Server, Until};

/// Where this server's WAL ends (`ha.md` §8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPosition {
    /// Timeline.
    pub timeline: Timeline,
    /// Replayed, or the shutdown checkpoint of a former primary.
    pub lsn: Lsn,
    /// It was a standby.
    pub in_recovery: bool,
}

/// Where the record of the shutdown checkpoint ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfCheckpoint {
    /// Here.
    At(Lsn),
    /// Could not be found out.
    Unknown,
}

/// Whether this server's WAL left the primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// It must be rewound or copied afresh.
    Diverged,
    /// It can follow.
    Same,
    /// Not known now; ask again.
    Undecided,
}

/// The rule of `ha.md` §8.3.4. `history` is that of the primary's timeline, `None` when it could not be had;
/// `checkpoint_end` is asked only for a former primary that ends before the switch point.
pub fn divergence(
    local: LocalPosition,
    primary_timeline: Timeline,
    history: Option<&[HistoryLine]>,
    checkpoint_end: impl FnOnce() -> EndOfCheckpoint,
) -> Divergence {
    let _ = (local, primary_timeline, history, checkpoint_end);
    todo!()
}

/// What to rewind to.
#[derive(Clone, Debug)]
pub struct RewindSource {
    /// Host, port, database.
    pub conninfo: Conninfo,
    /// It publishes whether its checkpoint after the promotion was made, and says it was.
    pub checkpoint_confirmed: bool,
}

/// How a rewind ended (`ha.md` §8.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewindOutcome {
    /// The data directory can follow the source.
    Rewound,
    /// Not started: the source is not ready. Ask again.
    SourceNotReady(String),
    /// Failed while the source could not be reached, and the data directory is still rewindable. Ask again.
    SourceLost(String),
    /// Failed; another attempt would too.
    Failed(String),
}

impl Server {
    /// Whether pg_rewind can work here: binary runs, control file has `wal_log_hints` or checksums.
    pub async fn can_rewind(&self, deadline: Instant) -> bool {
        let _ = deadline;
        todo!()
    }

    /// Where this server's WAL ends, running or not; `None` when it cannot be known now.
    pub async fn local_position(&self, deadline: Instant) -> Option<LocalPosition> {
        let _ = deadline;
        todo!()
    }

    /// Compares this server with a primary (`ha.md` §8.3, steps 1, 3 and 4).
    pub async fn check_divergence(&self, primary: &Conninfo, deadline: Instant) -> Divergence {
        let _ = (primary, deadline);
        todo!()
    }

    /// Stops the server if it runs, archives what waits, and rewinds.
    pub async fn rewind(
        &self,
        source: &RewindSource,
        until: Until,
    ) -> Result<RewindOutcome, Error> {
        let _ = (source, until);
        todo!()
    }

    /// Crash recovery in single-user mode (`ha.md` §7).
    pub async fn crash_recovery(&self, until: Until) -> Result<(), Error> {
        let _ = until;
        todo!()
    }
}
