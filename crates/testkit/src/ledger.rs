//! What writers were told about their transactions, and whether the servers kept their word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::sql;

/// The table that all writers insert into.
pub const CREATE_TABLE: &str = "create table if not exists ledger (writer int, seq bigint, at timestamptz default clock_timestamp(), \
     primary key (writer, seq))";

/// The identity of one written transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub writer: i32,
    pub seq: i64,
}

/// A commit that a server acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub entry: Entry,
    /// When the acknowledgement arrived.
    pub at: Instant,
    /// The port of the server that committed, as that server says.
    pub port: i32,
    /// The timeline that it committed on.
    pub timeline: u32,
}

/// Everything that writers were told.
#[derive(Debug, Default)]
pub struct Ledger {
    pub acknowledged: Vec<Acknowledged>,
    /// Sent, but without an answer: each may be committed or not.
    pub unknown: BTreeSet<Entry>,
}

impl Ledger {
    /// Adds another writer's entries.
    pub fn merge(&mut self, other: Ledger) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.acknowledged
            .sort_by_key(|acknowledged| acknowledged.at);
    }

    /// The longest time between two acknowledgements.
    pub fn longest_outage(&self) -> Duration {
        let pairs = self
            .acknowledged
            .iter()
            .zip(self.acknowledged.iter().skip(1));
        pairs
            .map(|(earlier, later)| later.at - earlier.at)
            .max()
            .unwrap_or_default()
    }

    /// For how long two servers both acknowledged commits: from a new timeline's first acknowledgement to the last one on
    /// an older timeline after it.
    pub fn overlap(&self) -> Duration {
        let mut first = BTreeMap::new();
        for acknowledged in &self.acknowledged {
            first
                .entry(acknowledged.timeline)
                .or_insert(acknowledged.at);
        }
        let behind = |acknowledged: &Acknowledged| {
            let newer = first.range(acknowledged.timeline + 1..);
            newer
                .map(|(_, at)| acknowledged.at.saturating_duration_since(*at))
                .max()
        };
        let behind = self.acknowledged.iter().filter_map(behind);
        behind.max().unwrap_or_default()
    }

    /// The last acknowledgement of the server at `port`.
    pub fn last_of(&self, port: u16) -> Option<Acknowledged> {
        self.acknowledged
            .iter()
            .rev()
            .find(|acknowledged| acknowledged.port == i32::from(port))
            .copied()
    }

    /// No acknowledged commit is lost: each is on the server at `port`.
    pub async fn verify_durable(&self, port: u16) -> Result<()> {
        let rows = sql::rows(port, "select writer, seq from ledger").await?;
        let present: BTreeSet<Entry> = rows
            .iter()
            .map(|row| Entry {
                writer: row.get(0),
                seq: row.get(1),
            })
            .collect();
        let lost: Vec<&Acknowledged> = self
            .acknowledged
            .iter()
            .filter(|acknowledged| !present.contains(&acknowledged.entry))
            .collect();
        ensure!(
            lost.is_empty(),
            "{} of {} acknowledged commits are missing, the first is {:?}, the last {:?}",
            lost.len(),
            self.acknowledged.len(),
            lost[0],
            lost[lost.len() - 1],
        );
        Ok(())
    }

    /// No commit was acknowledged by an old primary after the first one by its successor.
    ///
    /// Each promotion begins a timeline. So, in the order of acknowledgements, timelines never go back, and no
    /// timeline has two servers.
    pub fn verify_single_writer(&self) -> Result<()> {
        let mut server_of: BTreeMap<u32, i32> = BTreeMap::new();
        let mut newest: Option<&Acknowledged> = None;
        for acknowledged in &self.acknowledged {
            let server = *server_of
                .entry(acknowledged.timeline)
                .or_insert(acknowledged.port);
            ensure!(
                server == acknowledged.port,
                "servers {server} and {} both acknowledged commits on timeline {}",
                acknowledged.port,
                acknowledged.timeline
            );
            if let Some(newest) = newest {
                ensure!(
                    acknowledged.timeline >= newest.timeline,
                    "the old primary {} (timeline {}) acknowledged a commit {:?} after the new one {} (timeline {}) had",
                    acknowledged.port,
                    acknowledged.timeline,
                    acknowledged.at
                        - self
                            .first_on(newest.timeline)
                            .context("the newest is in the ledger")?
                            .at,
                    newest.port,
                    newest.timeline
                );
            }
            newest = Some(acknowledged);
        }
        Ok(())
    }

    fn first_on(&self, timeline: u32) -> Option<&Acknowledged> {
        self.acknowledged
            .iter()
            .find(|acknowledged| acknowledged.timeline == timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(acknowledgements: &[(i32, u32)]) -> Ledger {
        let start = Instant::now();
        let acknowledged = acknowledgements
            .iter()
            .zip(0..)
            .map(|(&(port, timeline), seq)| Acknowledged {
                entry: Entry { writer: 1, seq },
                at: start + Duration::from_millis(u64::try_from(seq).unwrap()),
                port,
                timeline,
            });
        Ledger {
            acknowledged: acknowledged.collect(),
            unknown: BTreeSet::new(),
        }
    }

    #[test]
    fn a_failover_and_the_way_back_is_a_single_writer() {
        assert!(
            ledger(&[(1, 1), (1, 1), (2, 2), (2, 2), (1, 3)])
                .verify_single_writer()
                .is_ok()
        );
    }

    #[test]
    fn the_time_with_two_servers_is_measured() {
        let clean = ledger(&[(1, 1), (1, 1), (2, 2), (2, 2), (1, 3)]);
        assert_eq!(clean.overlap(), Duration::ZERO);
        let two = ledger(&[(1, 1), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2)]);
        assert_eq!(two.overlap(), Duration::from_millis(3));
    }

    #[test]
    fn an_old_primary_that_goes_on_is_found() {
        assert!(
            ledger(&[(1, 1), (2, 2), (1, 1)])
                .verify_single_writer()
                .is_err()
        );
    }

    #[test]
    fn two_primaries_on_one_timeline_are_found() {
        assert!(
            ledger(&[(1, 1), (2, 2), (3, 2)])
                .verify_single_writer()
                .is_err()
        );
    }
}
