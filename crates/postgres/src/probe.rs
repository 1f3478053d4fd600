//! Whether a server that runs also answers. The hazard: a postmaster that is stopped, or whose storage hangs, looks
//! alive to everybody who only looks at its process, and to one who asks it through a session opened long before.
//!
//! 1. In every round the server is asked in three ways at once, each with a deadline of its own: a new connection, a
//!    query on the pooled session, a write and fsync beside its files. A refusal is an answer, too.
//! 2. The query also tells whether somebody waits for WAL to be written while the flush position stands still.
//! 3. What counts is for how long a probe has had no answer, added up round by round. A round adds no more than a
//!    round can take: an agent that was frozen, or a machine that was suspended, calls nobody hung for it.
//! 4. What the disk never answers hangs a thread of its own; there is never more than one such thread.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use primacy_model::{Lsn, PostmasterIdentity, Probes, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::session::Stream;
use crate::settings::{LocalAddress, Settings};
use crate::{Error, Server, postmaster};

/// Between two rounds while all is well: each costs the server the start of a process, a query and an fsync.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two rounds while something does not answer: its end must be seen soon.
const PAUSE_IN_TROUBLE: Duration = Duration::from_secs(1);
/// For the first byte from a new connection. The postmaster answers within milliseconds, and under a storm of
/// connections within the time that its backlog takes.
const CONNECTION: Duration = Duration::from_secs(3);
/// For the query, waiting for the pooled session included.
const QUERY: Duration = Duration::from_secs(6);
/// For the write and fsync. A busy disk takes seconds.
const DISK: Duration = Duration::from_secs(5);
/// The most that one round adds to the time without an answer: a round and the pause before it.
const ROUND: Duration = Duration::from_secs(8);

/// SQLSTATE `too_many_connections`: says that others have all connections, and nothing of whether they work.
const TOO_MANY_CONNECTIONS: &str = "53300";
/// What a client sends to learn whether the server speaks TLS: answered with one byte by a new process of the
/// postmaster's, before authentication, limits and databases have a say; hanging up then leaves no trace in its log.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The flush position, and how many wait for WAL to be written. Names of the events as of all versions.
const PROGRESS: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn()::text END, \
     (SELECT count(*) FROM pg_stat_activity \
      WHERE wait_event_type = 'IO' AND lower(wait_event) IN ('walsync', 'walwrite', 'walinitsync', 'walinitwrite') \
         OR wait_event_type = 'LWLock' AND wait_event IN ('WALWrite', 'WALWriteLock', 'WALBufMapping', 'WALBufMappingLock'))";

/// What one probe came to in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer<T = ()> {
    /// It was answered.
    Given(T),
    /// Nothing was heard within its deadline.
    Missing,
    /// It could not be asked: what was known before stays.
    Unasked,
}

/// What the query tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Progress {
    /// `None` in recovery, and when the query was refused.
    flushed: Option<Lsn>,
    /// Somebody waits for WAL to be written.
    awaited: bool,
}

/// What one round found.
#[derive(Clone, Copy, Debug)]
struct Round {
    connection: Answer,
    query: Answer<Progress>,
    disk: Answer,
}

/// Adds up the rounds.
#[derive(Default)]
struct Tally {
    probes: Probes,
    flushed: Option<Lsn>,
}

impl Tally {
    /// `elapsed` is the time since the last round ended, `lasted` that of this round.
    fn add(&mut self, round: Round, elapsed: Duration, lasted: Duration) {
        let (elapsed, lasted) = (elapsed.min(ROUND), lasted.min(ROUND));
        // Before the first round without an answer there was one.
        let longer = |before: Option<Duration>| match before {
            Some(before) => before + elapsed,
            None => lasted,
        };
        let next = |before: Option<Duration>, answer: Answer| match answer {
            Answer::Given(()) => None,
            Answer::Missing => Some(longer(before)),
            Answer::Unasked => before.map(|before| longer(Some(before))),
        };
        let probes = &mut self.probes;
        probes.connection = next(probes.connection, round.connection);
        probes.disk = next(probes.disk, round.disk);
        let (query, progress) = match round.query {
            Answer::Given(progress) => (Answer::Given(()), Some(progress)),
            Answer::Missing => (Answer::Missing, None),
            Answer::Unasked => (Answer::Unasked, None),
        };
        probes.query = next(probes.query, query);
        let moved = progress.is_some_and(|progress| progress.flushed != self.flushed);
        if let Some(progress) = progress {
            self.flushed = progress.flushed;
        }
        probes.wal_still = if moved {
            Duration::ZERO
        } else {
            probes.wal_still + elapsed
        };
        probes.wal = match progress {
            _ if moved => None,
            Some(progress) if !progress.awaited || progress.flushed.is_none() => None,
            Some(_) => Some(longer(probes.wal)),
            None => probes.wal.map(|before| longer(Some(before))),
        };
    }
}

impl Server {
    /// What the probes found last. Nothing is asked.
    pub fn probes(&self) -> Probes {
        *self
            .inner
            .probes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes the server for as long as it is polled, whenever a postmaster runs. `changed` is called when a probe
    /// is no longer answered, or is again. Ends never.
    pub async fn probe(&self, mut changed: impl FnMut() + Send) {
        let mut disk = DiskProbe::default();
        let mut probed: Option<PostmasterIdentity> = None;
        let mut tally = Tally::default();
        let mut ended = Instant::now();
        loop {
            let running = self.last_postmaster();
            if running != probed {
                probed = running;
                tally = Tally::default();
            }
            let before = tally.probes;
            if running.is_some() {
                let began = Instant::now();
                let round = self.round(&mut disk).await;
                let now = Instant::now();
                // A server that went down meanwhile is not a hung one.
                if self.last_postmaster() == probed {
                    tally.add(round, now - ended, now - began);
                }
            }
            ended = Instant::now();
            *self
                .inner
                .probes
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = tally.probes;
            let names = |probes: &Probes| probes.unanswered().map(|(name, _)| name).collect();
            let (was, is): (Vec<_>, Vec<_>) = (names(&before), names(&tally.probes));
            if was != is {
                match is.is_empty() {
                    true => tracing::info!("PostgreSQL answers all probes again"),
                    false => tracing::warn!("PostgreSQL does not answer: {}", is.join(", ")),
                }
                changed();
            }
            sleep(if is.is_empty() {
                PAUSE
            } else {
                PAUSE_IN_TROUBLE
            })
            .await;
        }
    }

    /// The postmaster seen last, while it lives. Reads no disk.
    pub(crate) fn last_postmaster(&self) -> Option<PostmasterIdentity> {
        self.memory(|memory| memory.postmaster)
            .filter(|identity| postmaster::is_alive(*identity))
    }

    /// The same, as a process.
    pub(crate) fn last_process(&self) -> Process {
        postmaster::as_seen(self.memory(|memory| memory.postmaster))
    }

    async fn round(&self, disk: &mut DiskProbe) -> Round {
        let settings = self.settings();
        let began = Instant::now();
        let ask = async {
            let address = Address::of(&settings, began + CONNECTION).await;
            let query = self.ask_for_progress(began + QUERY);
            let Some(address) = address else {
                // A session may have to be opened for the query, and that needs the name, too.
                let query = match query.await {
                    Answer::Missing => Answer::Unasked,
                    answer => answer,
                };
                return (Answer::Unasked, query);
            };
            tokio::join!(
                ask_for_a_process(&address, Instant::now() + CONNECTION),
                query
            )
        };
        let ((connection, query), disk) =
            tokio::join!(ask, disk.ask(&settings.data_dir, began + DISK));
        Round {
            connection,
            query,
            disk,
        }
    }

    async fn ask_for_progress(&self, deadline: Instant) -> Answer<Progress> {
        match self.query(PROGRESS, deadline).await {
            Ok(rows) => {
                let field = |index| rows.first().and_then(|row| row.get(index));
                Answer::Given(Progress {
                    flushed: field(0).and_then(|text| text.parse().ok()),
                    awaited: field(1).is_some_and(|count| count != "0"),
                })
            }
            Err(Error::Refused { code, .. }) if code != TOO_MANY_CONNECTIONS => {
                Answer::Given(Progress::default())
            }
            Err(Error::NoAnswer { .. }) => Answer::Missing,
            // No session could be opened, or it broke: the probe of new connections tells of that.
            Err(_) => Answer::Unasked,
        }
    }
}

/// Where the server listens, resolved: a name service without an answer is not a server without one.
enum Address {
    Unix(std::path::PathBuf),
    Tcp(Vec<SocketAddr>),
}

impl Address {
    async fn of(settings: &Settings, deadline: Instant) -> Option<Self> {
        match &settings.local {
            LocalAddress::Unix(directory) => Some(Address::Unix(
                directory.join(format!(".s.PGSQL.{}", settings.port)),
            )),
            LocalAddress::Tcp(host) => {
                let lookup = tokio::net::lookup_host((host.as_str(), settings.port));
                let found = timeout_at(deadline, lookup).await.ok()?.ok()?;
                Some(Address::Tcp(found.collect()))
            }
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp(addresses) => Box::new(TcpStream::connect(addresses.as_slice()).await?),
        })
    }
}

async fn ask_for_a_process(address: &Address, deadline: Instant) -> Answer {
    let ask = async {
        let mut stream = address.connect().await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read(&mut [0]).await
    };
    match timeout_at(deadline, ask).await {
        // Nobody took the connections before this one off the queue.
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Answer::Missing,
        // A byte, a connection that was closed or refused: somebody, or the kernel in the server's name, said so.
        Ok(_) => Answer::Given(()),
        Err(_) => Answer::Missing,
    }
}

/// The thread that writes, while one runs.
#[derive(Default)]
struct DiskProbe {
    pending: Option<oneshot::Receiver<()>>,
}

impl DiskProbe {
    async fn ask(&mut self, data_dir: &Path, deadline: Instant) -> Answer {
        let mut pending = match self.pending.take() {
            Some(pending) => pending,
            None => {
                let (done, pending) = oneshot::channel();
                let directories = [data_dir.to_owned(), data_dir.join("pg_wal")];
                let thread =
                    std::thread::Builder::new()
                        .name("disk-probe".into())
                        .spawn(move || {
                            for directory in &directories {
                                // A full disk, or a directory that is gone, is an answer.
                                if let Err(error) = write_and_sync(directory) {
                                    tracing::debug!(
                                        "disk probe in {}: {error}",
                                        directory.display()
                                    );
                                }
                            }
                            let _ = done.send(());
                        });
                if thread.is_err() {
                    return Answer::Unasked;
                }
                pending
            }
        };
        match timeout_at(deadline, &mut pending).await {
            Ok(_) => Answer::Given(()),
            Err(_) => {
                self.pending = Some(pending);
                Answer::Missing
            }
        }
    }
}

/// One block to stable storage, in a file without a name: nothing is left, whatever happens.
fn write_and_sync(directory: &Path) -> io::Result<()> {
    let nameless = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    let mut file = match options.clone().custom_flags(nameless).open(directory) {
        Ok(file) => file,
        // The file system has no nameless files. Base backups leave out what is called like this.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let path = directory.join("pgsql_tmp.probe");
            let file = options.create(true).truncate(true).open(&path)?;
            std::fs::remove_file(&path)?;
            file
        }
        Err(error) => return Err(error),
    };
    file.write_all(&[0; 512])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn round(connection: Answer, query: Answer<Progress>, disk: Answer) -> Round {
        Round {
            connection,
            query,
            disk,
        }
    }

    fn progress(flushed: u64, awaited: bool) -> Answer<Progress> {
        Answer::Given(Progress {
            flushed: Some(Lsn(flushed)),
            awaited,
        })
    }

    #[test]
    fn rounds_without_an_answer_add_up_and_an_answer_ends_them() {
        let mut tally = Tally::default();
        let silent = round(Answer::Missing, progress(1, false), Answer::Given(()));
        tally.add(silent, 5 * SECOND, 3 * SECOND);
        assert_eq!(
            tally.probes.connection,
            Some(3 * SECOND),
            "there was an answer before"
        );
        tally.add(silent, 4 * SECOND, 3 * SECOND);
        assert_eq!(tally.probes.connection, Some(7 * SECOND));
        assert_eq!(tally.probes.disk, None);
        tally.add(
            round(Answer::Given(()), progress(1, false), Answer::Given(())),
            SECOND,
            SECOND,
        );
        assert!(tally.probes.is_answered());
    }

    #[test]
    fn a_frozen_agent_calls_nobody_hung() {
        let mut tally = Tally::default();
        let hour = 3600 * SECOND;
        let silent = round(Answer::Missing, Answer::Missing, Answer::Missing);
        tally.add(silent, hour, hour);
        tally.add(silent, hour, hour);
        assert_eq!(tally.probes.connection, Some(2 * ROUND));
        assert_eq!(tally.probes.query, Some(2 * ROUND));
        assert_eq!(tally.probes.disk, Some(2 * ROUND));
    }

    #[test]
    fn exhausted_connections_neither_begin_a_hang_nor_end_one() {
        let mut tally = Tally::default();
        let unasked = round(Answer::Given(()), Answer::Unasked, Answer::Given(()));
        tally.add(unasked, SECOND, SECOND);
        assert!(tally.probes.is_answered());
        tally.add(
            round(Answer::Given(()), Answer::Missing, Answer::Given(())),
            SECOND,
            SECOND,
        );
        tally.add(unasked, SECOND, SECOND);
        assert_eq!(tally.probes.query, Some(2 * SECOND));
    }

    #[test]
    fn wal_hangs_only_while_somebody_waits_for_it_and_nothing_moves() {
        let mut tally = Tally::default();
        let wal = |flushed, awaited| {
            round(
                Answer::Given(()),
                progress(flushed, awaited),
                Answer::Given(()),
            )
        };
        tally.add(wal(10, true), SECOND, SECOND);
        assert_eq!(tally.probes.wal, None, "never seen before: it moved");
        tally.add(wal(11, true), SECOND, SECOND);
        assert_eq!(
            tally.probes.wal, None,
            "slow is not hung: a checkpoint, a load"
        );
        tally.add(wal(11, false), SECOND, SECOND);
        assert_eq!(tally.probes.wal, None, "idle");
        assert_eq!(tally.probes.wal_still, SECOND);
        tally.add(wal(11, true), 2 * SECOND, SECOND);
        tally.add(wal(11, true), 2 * SECOND, SECOND);
        assert_eq!(tally.probes.wal, Some(3 * SECOND));
        assert_eq!(tally.probes.wal_still, 5 * SECOND);
        tally.add(wal(12, true), SECOND, SECOND);
        assert_eq!(tally.probes.wal, None);
        assert_eq!(tally.probes.wal_still, Duration::ZERO);
    }

    #[test]
    fn a_write_and_fsync_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        write_and_sync(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(write_and_sync(&directory.path().join("missing")).is_err());
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_one_thread() {
        let mut probe = DiskProbe::default();
        let (done, pending) = oneshot::channel();
        probe.pending = Some(pending);
        let soon = || Instant::now() + Duration::from_millis(10);
        let nowhere = Path::new("/nonexistent");
        assert_eq!(probe.ask(nowhere, soon()).await, Answer::Missing);
        assert_eq!(probe.ask(nowhere, soon()).await, Answer::Missing);
        done.send(()).unwrap();
        assert_eq!(probe.ask(nowhere, soon()).await, Answer::Given(()));
        assert!(probe.pending.is_none());
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_answer_and_silence_is_not() {
        let deadline = || Instant::now() + Duration::from_millis(300);
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = Address::Tcp(vec![listener.local_addr().unwrap()]);
        assert_eq!(
            ask_for_a_process(&address, deadline()).await,
            Answer::Missing
        );
        drop(listener);
        assert_eq!(
            ask_for_a_process(&address, deadline()).await,
            Answer::Given(())
        );
    }
}
