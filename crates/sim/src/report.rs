//! What a run, or many, amounted to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use primacy_ha::JournalEntry;

/// Counters.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Simulated time of one cluster.
    pub simulated: Duration,
    /// Things that happened.
    pub events: u64,
    /// Commits that clients were told of.
    pub acknowledged: u64,
    /// Commits whose wait for standbys was cancelled, or ended with their backend.
    pub interrupted: u64,
    /// How often the store came back to a leader that lived by promises.
    pub returns: u64,
    /// The longest time from the end of the faults to a primary.
    pub longest_return: Duration,
    /// Requests to the store without an answer in time.
    pub unknown_answers: u64,
    /// Servers that were promoted.
    pub promotions: u64,
    /// Servers that the fence killed.
    pub fenced: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each rule had a say: rule and the kind of step it led to.
    pub rules: BTreeMap<(String, String), u64>,
}

impl Report {
    pub(crate) fn journaled(&mut self, entry: &JournalEntry) {
        let step: String = entry
            .step
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == ' ')
            .collect();
        for reason in &entry.reasons {
            *self
                .rules
                .entry((reason.rule.to_owned(), step.trim().to_owned()))
                .or_default() += 1;
        }
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Report) {
        self.simulated += other.simulated;
        self.events += other.events;
        self.acknowledged += other.acknowledged;
        self.interrupted += other.interrupted;
        self.returns += other.returns;
        self.longest_return = self.longest_return.max(other.longest_return);
        self.unknown_answers += other.unknown_answers;
        self.promotions += other.promotions;
        self.fenced += other.fenced;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (rule, count) in &other.rules {
            *self.rules.entry(rule.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} cluster-hours, {} events, {} commits acknowledged, {} not waited for, {} promotions, {} killed by the fence, {} unknown answers of the store, {} returns from failsafe mode, a primary {:.1} s after the faults at the latest",
            self.simulated.as_secs_f64() / 3600.0,
            self.events,
            self.acknowledged,
            self.interrupted,
            self.promotions,
            self.fenced,
            self.unknown_answers,
            self.returns,
            self.longest_return.as_secs_f64()
        )?;
        writeln!(f, "faults:")?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {count:>8} {kind}")?;
        }
        writeln!(f, "rules that had a say, and the step they led to:")?;
        for ((rule, step), count) in &self.rules {
            writeln!(f, "  {count:>8} {rule}: {step}")?;
        }
        Ok(())
    }
}
