//! What the machine remembers of replication slots (`ha.md` §18).

use std::time::Duration;

use primacy_model::{Observation, Process};

use super::{Action, CallbackEvent, JobReport, LogLevel, Machine, PrimarySlots};
use crate::decide::slots as rules;
use crate::decision::{Job, Step};
use crate::situation::SlotsProgress;
use crate::time::Moment;

/// Between two copies of a logical slot: each is a restart, and one that does not help must not be repeated
/// without end.
const COPY_INTERVAL: Duration = Duration::from_secs(30);

/// After every start of a standby its slots must be compared with the primary's again: what was held back for
/// it before was not while it was down.
pub(super) fn observe(slots: &mut SlotsProgress, observation: &Observation) {
    let (Some(wal), Process::Running(identity)) = (&observation.wal, observation.process) else {
        return;
    };
    let Some(existing) = &wal.slots else {
        return;
    };
    if wal.is_primary() {
        slots.unready.clear();
        slots.unready_in = None;
        slots.stuck.clear();
        return;
    }
    let present = |name: &String| existing.iter().any(|slot| slot.name == *name);
    slots.unready.retain(|name, _| present(name));
    slots.stuck.retain(present);
    if slots.unready_in != Some(identity) {
        slots.unready_in = Some(identity);
        slots.unready = rules::logical_slots(existing)
            .map(|slot| (slot.name.clone(), None))
            .collect();
    }
}

impl Machine {
    pub(super) fn begin_slot_work(&mut self, step: &Step, now: Moment) {
        let slots = &mut self.memory.slots;
        match step {
            Step::ChangeLogicalSlots { database, .. } => {
                slots.working_in.insert(database.clone());
            }
            Step::CompareLogicalSlots { .. } => {
                slots.comparing = true;
                slots.compared_at = Some(now);
            }
            _ => {}
        }
    }

    pub(super) fn logical_slots_changed(
        &mut self,
        database: String,
        failed: Option<String>,
        stuck: Vec<String>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let slots = &mut self.memory.slots;
        slots.working_in.remove(&database);
        slots.failed_in.remove(&database);
        slots.stuck.extend(stuck);
        if let Some(reason) = failed {
            let text = format!("logical slots of database {database}: {reason}");
            actions.push(Action::Log(LogLevel::Warning, text));
            slots
                .failed_in
                .insert(database, now + self.global.loop_wait);
        }
        self.again = true;
    }

    pub(super) fn logical_slots_compared(
        &mut self,
        result: Result<PrimarySlots, String>,
        actions: &mut Vec<Action>,
    ) {
        let slots = &mut self.memory.slots;
        slots.comparing = false;
        let primary = match result {
            Ok(primary) => primary,
            Err(reason) => {
                let text = format!("cannot ask the primary about logical slots: {reason}");
                actions.push(Action::Log(LogLevel::Warning, text));
                return;
            }
        };
        let Some(physical) = primary.physical else {
            return;
        };
        let wal = self.server.wal.as_ref();
        let existing = wal.and_then(|wal| wal.slots.as_deref()).unwrap_or_default();
        slots.unready.retain(|name, logical| {
            *logical = logical.or_else(|| primary.logical.get(name).copied().flatten());
            let slot = existing.iter().find(|slot| slot.name == *name);
            let local = slot.and_then(|slot| slot.catalog_xmin);
            let ready = logical
                .zip(local)
                .is_some_and(|(logical, local)| rules::is_ready(logical, physical, local));
            if ready {
                let text = format!("Logical slot {name} is safe to be used after a failover");
                actions.push(Action::Log(LogLevel::Info, text));
            }
            !ready
        });
    }

    pub(super) fn slots_copied(
        &mut self,
        job: &Job,
        report: JobReport,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if let Job::CopyLogicalSlots { slots, .. } = job {
            let again = now + COPY_INTERVAL;
            let names = slots.iter().map(|slot| (slot.name.clone(), again));
            self.memory.slots.copy_at = names.collect();
        }
        self.memory.sync_withdrawn_at = None;
        // Otherwise the server runs as before, or the next pass starts it.
        if matches!(report, JobReport::Started { .. }) {
            actions.push(Action::Callback(
                CallbackEvent::OnStop,
                self.memory.role.for_callbacks(),
            ));
            self.memory.slots.stuck.clear();
            self.memory.pending_restart = None;
            self.started(job, report, now, actions);
        }
    }

    /// `wanted` is `None` while the store is out of reach: what was forced stays.
    pub(super) fn force_feedback(&mut self, wanted: Option<bool>, actions: &mut Vec<Action>) {
        if let Some(wanted) = wanted
            && wanted != self.memory.slots.hot_standby_feedback
        {
            self.memory.slots.hot_standby_feedback = wanted;
            actions.push(Action::ForceHotStandbyFeedback(wanted));
        }
        if let Some(view) = &self.view {
            let problems = rules::problems(view, &self.global);
            for problem in problems.iter().filter(|p| !self.slot_problems.contains(p)) {
                actions.push(Action::Log(LogLevel::Error, problem.clone()));
            }
            self.slot_problems = problems;
        }
    }

    /// A promotion begins: those who use slots that are not as the former leader had them must be told.
    pub(super) fn warn_of_unready_slots(&self, actions: &mut Vec<Action>) {
        let unready = &self.memory.slots.unready;
        if !unready.is_empty() {
            let names: Vec<&str> = unready.keys().map(String::as_str).collect();
            let text = format!(
                "Logical replication slots that might be unsafe to use after promote: {}; what they decode may \
                 have gaps, copy the data of their consumers anew",
                names.join(", ")
            );
            actions.push(Action::Log(LogLevel::Warning, text));
        }
        let existing = self.server.wal.as_ref().and_then(|wal| wal.slots.as_ref());
        let (Some(view), Some(existing)) = (&self.view, existing) else {
            return;
        };
        let ahead = rules::ahead_of_holders(view, &self.global, existing);
        if !ahead.is_empty() {
            let text = format!(
                "Replication slots that begin after where the former leader had them: {}; WAL from before may be \
                 missing here",
                ahead.join(", ")
            );
            actions.push(Action::Log(LogLevel::Warning, text));
        }
    }
}
