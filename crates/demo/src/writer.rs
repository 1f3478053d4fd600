//! The client that writes all the while: numbered rows, one transaction each, to whichever member answers
//! 200 to `OPTIONS /primary`, and cut off when it no longer does, as behind a load balancer.
//!
//! A transaction counts as acknowledged only when the server said so without a warning. One whose answer
//! never came is *unknown*: it may be there or not, and neither is a fault.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Statement};

use crate::cluster::Cluster;
use crate::events::WRITER;
use crate::status::{MemberStatus, primary};

/// For opening a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For one statement. Commits wait for the synchronous standby; one that waits longer is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// For counting rows, however many the demo has run up.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);
/// Between tries that fail at once.
const PAUSE: Duration = Duration::from_millis(20);
/// Shorter pauses between two acknowledgements are not remembered.
const SHORTEST_GAP: Duration = Duration::from_millis(20);
/// A pause between two acknowledgements that people call an outage.
pub(crate) const OUTAGE: Duration = Duration::from_millis(300);
/// A few faults' worth; each has few long gaps.
const GAPS: usize = 500;

/// Numbers in order, as ranges: what is acknowledged is nearly without holes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Numbers(Vec<(i64, i64)>);

impl Numbers {
    /// Adds a number greater than all before.
    fn push(&mut self, number: i64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.0.push((number, number)),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.0
            .iter()
            .map(|(first, last)| last.abs_diff(*first) + 1)
            .sum()
    }
}

/// A time without acknowledgements, between two.
#[derive(Clone, Copy, Debug)]
struct Gap {
    start: Instant,
    end: Instant,
}

impl Gap {
    fn length(&self) -> Duration {
        self.end - self.start
    }
}

/// What came of the writer's transactions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: Numbers,
    /// Neither acknowledged nor refused.
    pub(crate) unknown: u64,
    pub(crate) last: Option<Acknowledgement>,
    gaps: VecDeque<Gap>,
}

/// The last acknowledged transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) at: Instant,
    pub(crate) member: usize,
}

impl Tally {
    fn acknowledge(&mut self, number: i64, member: usize, at: Instant) {
        if let Some(last) = self.last
            && at.duration_since(last.at) >= SHORTEST_GAP
        {
            if self.gaps.len() == GAPS {
                self.gaps.pop_front();
            }
            self.gaps.push_back(Gap {
                start: last.at,
                end: at,
            });
        }
        self.acknowledged.push(number);
        self.last = Some(Acknowledgement { at, member });
    }

    /// The longest time between two acknowledgements of which the second came after `since`.
    pub(crate) fn outage_since(&self, since: Instant) -> Duration {
        self.gaps
            .iter()
            .filter(|gap| gap.end > since)
            .map(Gap::length)
            .max()
            .unwrap_or_default()
    }

    /// The last time without acknowledgements that was an outage.
    pub(crate) fn last_outage(&self) -> Option<Duration> {
        self.gaps
            .iter()
            .rev()
            .map(Gap::length)
            .find(|length| *length >= OUTAGE)
    }

    /// For how long nothing has been acknowledged.
    pub(crate) fn waiting(&self, now: Instant) -> Duration {
        self.last
            .map(|last| now.saturating_duration_since(last.at))
            .unwrap_or_default()
    }
}

/// The client. It stops when this is dropped.
pub(crate) struct Writer {
    tally: Arc<Mutex<Tally>>,
    task: JoinHandle<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Writer {
    pub(crate) fn start(
        cluster: Arc<Cluster>,
        statuses: watch::Receiver<Vec<MemberStatus>>,
    ) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let task = tokio::spawn(write(cluster, statuses, tally.clone()));
        Writer { tally, task }
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of the acknowledged transactions are not on `member`.
pub(crate) async fn count_missing(
    cluster: &Cluster,
    member: usize,
    acknowledged: &Numbers,
) -> anyhow::Result<u64> {
    let session = Session::open(cluster, member, "demo").await?;
    let count = async {
        let select = "SELECT count(*) FROM demo_writes WHERE number BETWEEN $1 AND $2";
        let mut found = 0;
        for (first, last) in &acknowledged.0 {
            let row = session.client.query_one(select, &[first, last]).await?;
            found += row.get::<_, i64>(0).unsigned_abs();
        }
        anyhow::Ok(acknowledged.len() - found)
    };
    timeout(COUNT_TIMEOUT, count)
        .await
        .with_context(|| format!("{} did not count its rows in time", cluster.name(member)))?
}

/// Names of the standbys that `member` streams to.
pub(crate) async fn streaming_standbys(
    cluster: &Cluster,
    member: usize,
) -> anyhow::Result<Vec<String>> {
    let session = Session::open(cluster, member, "demo").await?;
    let query = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
    let rows = timeout(STATEMENT_TIMEOUT, session.client.query(query, &[])).await??;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A session and the task that drives its connection.
struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// A warning arrived: "canceling wait for synchronous replication", after which the commit is
    /// acknowledged although no standby has it.
    warned: Arc<AtomicBool>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    async fn open(
        cluster: &Cluster,
        member: usize,
        application_name: &str,
    ) -> anyhow::Result<Self> {
        let (client, mut connection) = cluster
            .connect(member, application_name, CONNECT_TIMEOUT)
            .await?;
        let warned = Arc::<AtomicBool>::default();
        let flag = warned.clone();
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice))
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        flag.store(true, Ordering::SeqCst);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Session {
            client,
            driver,
            warned,
        })
    }
}

async fn write(
    cluster: Arc<Cluster>,
    mut statuses: watch::Receiver<Vec<MemberStatus>>,
    tally: Arc<Mutex<Tally>>,
) {
    let mut number = 0;
    let mut member = None;
    loop {
        member = match statuses
            .wait_for(|all| primary(all, member).is_some())
            .await
        {
            Ok(all) => primary(&all, member),
            Err(_) => return,
        };
        let Some(target) = member else { continue };
        let mut watched = statuses.clone();
        let cut_off = watched.wait_for(|all| !all[target].primary);
        let session = async {
            let mut writing = Writing::start(&cluster, target).await?;
            cluster
                .events
                .add(WRITER, format!("writes to {}", cluster.name(target)));
            loop {
                number += 1;
                // Whatever ends this early leaves the outcome unknown.
                let mut pending = Pending::new(&tally);
                writing
                    .insert(number)
                    .await
                    .inspect_err(|error| pending.settle(error))?;
                pending.acknowledge(number, target);
            }
        };
        let ended: anyhow::Result<()> = tokio::select! {
            result = session => result,
            _ = cut_off => Err(anyhow::anyhow!("the load balancer cut the session")),
        };
        if let Err(error) = ended {
            cluster
                .events
                .add(WRITER, format!("{}: {error:#}", cluster.name(target)));
        }
        sleep(PAUSE).await;
    }
}

/// A session that is ready to write.
struct Writing {
    session: Session,
    insert: Statement,
}

impl Writing {
    async fn start(cluster: &Cluster, member: usize) -> anyhow::Result<Self> {
        let session = Session::open(cluster, member, WRITER).await?;
        let prepare = async {
            session
                .client
                .batch_execute(
                    "CREATE TABLE IF NOT EXISTS demo_writes \
                     (number bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())",
                )
                .await?;
            session
                .client
                .prepare("INSERT INTO demo_writes (number) VALUES ($1)")
                .await
        };
        let insert = timeout(STATEMENT_TIMEOUT, prepare)
            .await
            .context("no answer in time")??;
        Ok(Writing { session, insert })
    }

    /// Commits one row.
    async fn insert(&mut self, number: i64) -> anyhow::Result<()> {
        let Session { client, warned, .. } = &self.session;
        timeout(STATEMENT_TIMEOUT, client.execute(&self.insert, &[&number]))
            .await
            .context("no answer in time")??;
        anyhow::ensure!(!warned.load(Ordering::SeqCst), "committed with a warning");
        Ok(())
    }
}

/// A transaction whose outcome is not known yet, and stays so if this is dropped.
struct Pending<'a> {
    tally: &'a Mutex<Tally>,
    settled: bool,
}

impl<'a> Pending<'a> {
    fn new(tally: &'a Mutex<Tally>) -> Self {
        Pending {
            tally,
            settled: false,
        }
    }

    fn acknowledge(&mut self, number: i64, member: usize) {
        self.settled = true;
        lock(self.tally).acknowledge(number, member, Instant::now());
    }

    /// An ERROR of the server means that nothing was committed; a FATAL one may have cut a commit that was
    /// waiting for its standby.
    fn settle(&mut self, error: &anyhow::Error) {
        self.settled = error
            .downcast_ref::<tokio_postgres::Error>()
            .and_then(tokio_postgres::Error::as_db_error)
            .is_some_and(|error| error.parsed_severity() == Some(Severity::Error));
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.settled {
            lock(self.tally).unknown += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_hold_what_was_pushed(numbers: std::collections::BTreeSet<i16>) {
            let mut ranges = Numbers::default();
            for number in &numbers {
                ranges.push(i64::from(*number));
            }
            let back: Vec<i64> = ranges.0.iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(ranges.len(), numbers.len() as u64);
            prop_assert_eq!(back, numbers.into_iter().map(i64::from).collect::<Vec<_>>());
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn outage_is_the_longest_gap_that_ends_after_the_fault() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut tally = Tally::default();
        for (number, ms) in (0..).zip([0, 10, 900, 910, 1000, 1005, 4005, 4010, 4500]) {
            tally.acknowledge(number, 0, at(ms));
        }
        assert_eq!(tally.outage_since(at(1002)), Duration::from_millis(3000));
        assert_eq!(tally.outage_since(at(4008)), Duration::from_millis(490));
        assert_eq!(tally.outage_since(at(4500)), Duration::ZERO);
        assert_eq!(tally.waiting(at(4700)), Duration::from_millis(200));
    }

    #[test]
    fn dropped_transactions_are_unknown() {
        let tally = Mutex::default();
        drop(Pending::new(&tally));
        Pending::new(&tally).acknowledge(7, 1);
        let tally = lock(&tally);
        assert_eq!((tally.unknown, tally.acknowledged.len()), (1, 1));
    }
}
