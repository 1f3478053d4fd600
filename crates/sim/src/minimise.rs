//! Makes a failing plan smaller while it fails in the same way.

use crate::faults::Plan;
use crate::world::{Outcome, run};

/// The smallest plan found, and what it violates. `None`: it does not fail.
pub fn minimise(plan: &Plan, mut told: impl FnMut(&Plan)) -> Option<(Plan, Outcome)> {
    let mut best = plan.clone();
    let mut outcome = run(best.clone(), false);
    let wanted = outcome.violation.as_ref()?.invariant;
    let fails = |plan: &Plan| {
        let outcome = run(plan.clone(), false);
        let same = outcome
            .violation
            .as_ref()
            .is_some_and(|violation| violation.invariant == wanted);
        same.then_some(outcome)
    };
    // Nothing after the violation can have caused it. Liveness is judged at the end, which may come earlier.
    if let Some(violation) = &outcome.violation {
        best.faults.retain(|fault| fault.at <= violation.at);
    }
    let mut chunk = best.faults.len().max(1);
    while chunk > 0 {
        let mut start = 0;
        while start < best.faults.len() {
            let mut smaller = best.clone();
            let end = (start + chunk).min(smaller.faults.len());
            smaller.faults.drain(start..end);
            match fails(&smaller) {
                Some(found) => {
                    best = smaller;
                    outcome = found;
                    told(&best);
                }
                None => start += chunk,
            }
        }
        chunk /= 2;
    }
    loop {
        let mut shorter = best.clone();
        shorter.length /= 2;
        let fits = shorter.faults.iter().all(|fault| fault.at < shorter.length);
        match fits.then(|| fails(&shorter)).flatten() {
            Some(found) => {
                best = shorter;
                outcome = found;
                told(&best);
            }
            None => return Some((best, outcome)),
        }
    }
}
