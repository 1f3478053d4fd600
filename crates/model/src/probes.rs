use std::time::Duration;

/// What the probes of a running server found: for how long each of them has had no answer. `None` is a probe that
/// was answered, also by a refusal, or that does not apply.
///
/// The times count only while the agent itself was running: an agent that was frozen calls nobody hung for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Probes {
    /// The postmaster answers no new connection.
    pub connection: Option<Duration>,
    /// An open session does not answer a query.
    pub query: Option<Duration>,
    /// Somebody waits for WAL to be written, and the flush position stands still.
    pub wal: Option<Duration>,
    /// A small write and fsync in the data directory, or beside the WAL, does not end.
    pub disk: Option<Duration>,
    /// For how long the flush position has not been seen to move, for whatever reason.
    pub wal_still: Duration,
}

impl Probes {
    /// The probes without an answer, by name.
    pub fn unanswered(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.all()
            .into_iter()
            .filter_map(|(name, since)| Some((name, since?)))
    }

    /// Every probe by name, with the time that it has had no answer.
    pub fn all(&self) -> [(&'static str, Option<Duration>); 4] {
        [
            ("connection", self.connection),
            ("query", self.query),
            ("wal", self.wal),
            ("disk", self.disk),
        ]
    }

    /// Every probe was answered.
    pub fn is_answered(&self) -> bool {
        self.unanswered().next().is_none()
    }
}
