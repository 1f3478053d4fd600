//! Failsafe mode beside the heartbeat (`ha.md` §15; the rules and why they are safe: `decide/failsafe.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use primacy_model::{Cluster, JournalKind, Lsn, MemberName};

use super::{Action, FENCE_MARGIN, LogLevel, Machine, Pass};
use crate::decide::{failsafe, slots};
use crate::decision::Step;
use crate::situation::{
    FailsafeAnswer, FailsafeLeader, FailsafePromise, FailsafeReply, FailsafeVerdict, Lease,
};
use crate::time::Moment;

/// For all members to answer: two tries of two seconds each, as in Patroni. Never more than half of what is left of
/// the lease: after a refusal PostgreSQL has the other half to stop in good order.
const ASKING: Duration = Duration::from_secs(4);
/// A promise is given for no longer than this, whatever the member that asks says its `ttl` is.
const PROMISE_MAX: Duration = Duration::from_secs(3600);

/// What the leader remembers of asking.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    /// The answers are awaited.
    under_way: bool,
    /// When they were asked last, and for how long they were to promise.
    last: Option<(Moment, Duration)>,
    /// The last renewal found the lock gone; the next one tells whether it is somebody else's.
    lapsed: bool,
    /// Everybody that `/failsafe` may name beside those that were seen in it: writes whose end is not known.
    written: BTreeMap<MemberName, String>,
    /// The last of them, and when it was sent.
    last_written: Option<(BTreeMap<MemberName, String>, Moment)>,
    /// One of those writes empties the key, so it may bind nobody.
    emptied: bool,
    /// `/failsafe` as it was last seen.
    seen: BTreeMap<MemberName, String>,
    /// The key was there.
    has_seen: bool,
}

impl Machine {
    /// The last value of `/failsafe` that was seen; `None` without the key.
    pub fn failsafe_map(&self) -> Option<&BTreeMap<MemberName, String>> {
        self.asking.has_seen.then_some(&self.asking.seen)
    }

    /// Until when failsafe mode holds: for a leader its right to write, for others their promise.
    pub fn failsafe_until(&self) -> Option<Moment> {
        match (&self.memory.failsafe, self.lease) {
            (failsafe, Lease::Held { until, .. })
                if failsafe.verdict == Some(FailsafeVerdict::Accepted) =>
            {
                Some(until)
            }
            (failsafe, _) => failsafe.promise.as_ref().map(|promise| promise.until),
        }
    }

    pub(super) fn saw_failsafe_map(&mut self, cluster: &Cluster, now: Moment) {
        let asking = &mut self.asking;
        let arrived = asking.last_written.as_ref().is_none_or(|(map, sent)| {
            // No write is under way for as long as a lease.
            *map == cluster.failsafe || now.since(*sent) >= self.global.ttl
        });
        if arrived || !cluster.is_led_by(&self.local.name) {
            asking.written.clear();
            asking.last_written = None;
            asking.emptied = false;
        }
        asking.seen.clone_from(&cluster.failsafe);
        asking.has_seen = cluster.has_failsafe;
    }

    /// What `/failsafe` is to hold while the mode is on: everybody that has an address.
    pub(super) fn failsafe_members(&self, view: &Cluster) -> BTreeMap<MemberName, String> {
        let addresses = view.members.iter();
        let mut map: BTreeMap<MemberName, String> = addresses
            .filter_map(|member| Some((member.name.clone(), member.data.api_url.clone()?)))
            .collect();
        map.insert(self.local.name.clone(), self.local.api_url.clone());
        map
    }

    /// From now on the key may hold this, or still what it held.
    pub(super) fn writes_failsafe_map(&mut self, map: &BTreeMap<MemberName, String>, now: Moment) {
        let asking = &mut self.asking;
        // Of two writes that were not seen either may be the last to arrive.
        let entries = map.iter().map(|(name, url)| (name.clone(), url.clone()));
        asking.written.extend(entries);
        asking.emptied |= map.is_empty();
        asking.last_written = Some((map.clone(), now));
    }

    /// The members' promises keep this leadership.
    pub(super) fn failsafe_holds(&self, now: Moment) -> bool {
        self.lease.is_held(now) && self.memory.failsafe.verdict == Some(FailsafeVerdict::Accepted)
    }

    /// When the members are to be asked next; `None` when there is no need.
    pub(super) fn failsafe_due(&self) -> Option<Moment> {
        let Lease::Held {
            failing_since: Some(since),
            ..
        } = self.lease
        else {
            return None;
        };
        let refused = matches!(
            self.memory.failsafe.verdict,
            Some(FailsafeVerdict::Refused(_))
        );
        let idle = !self.global.failsafe_mode
            || self.global.pause
            || self.memory.demotion.is_some()
            || !(self.may_accept_writes() || self.restarts_primary())
            || self.asking.under_way
            || refused;
        (!idle).then(|| match self.asking.last {
            Some((asked, _)) => asked + self.global.loop_wait,
            None => since + self.global.retry_timeout,
        })
    }

    /// Asks the members when it is time to.
    pub(super) fn ask_for_promises(
        &mut self,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let (Some(due), Lease::Held { until, .. }) = (self.failsafe_due(), self.lease) else {
            return;
        };
        if now < due {
            return;
        }
        let (seen, written) = (&self.asking.seen, &self.asking.written);
        let members = match self.asking.emptied {
            false => failsafe::members_to_ask(&self.local.name, seen, written),
            true => Err("the mode was off a moment ago, and /failsafe may be empty".into()),
        };
        let ttl = self.global.ttl;
        self.asking.last = Some((now, ttl));
        match members {
            Ok(members) => {
                self.asking.under_way = true;
                let left = (until - FENCE_MARGIN).since(now);
                let slots = self.positions_to_tell(now);
                actions.push(Action::AskFailsafe {
                    sent: now,
                    deadline: now + ASKING.min(left / 2),
                    members,
                    leader: failsafe::question(&self.situation(None, now, wall), slots),
                });
            }
            Err(reason) => self.refused(reason, now, wall, actions),
        }
    }

    fn positions_to_tell(&self, now: Moment) -> Option<BTreeMap<String, Lsn>> {
        let (wal, cluster) = (self.server.wal.as_ref()?, self.last_healthy.as_ref()?);
        let mut seen = self.memory.slots.seen.clone();
        let told = slots::published(&self.local, wal, cluster, &self.global, &mut seen, now);
        Some(told.slots)
    }

    pub(super) fn members_answered(
        &mut self,
        sent: Moment,
        answers: &BTreeMap<MemberName, FailsafeReply>,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.asking.under_way = false;
        for (name, reply) in answers {
            if let FailsafeReply::Accepted(Some(position)) = reply {
                let positions = &mut self.memory.failsafe.positions;
                positions.insert(name.clone(), *position);
            }
        }
        let Some((_, ttl)) = self.asking.last.filter(|(asked, _)| *asked == sent) else {
            return;
        };
        // The store may have answered meanwhile, or the lease may have ended: neither is undone by late answers.
        let Lease::Held {
            until,
            failing_since: Some(_),
        } = &mut self.lease
        else {
            return;
        };
        match failsafe::verdict(answers) {
            FailsafeVerdict::Accepted => {
                *until = (*until).max(sent + ttl);
                let verdict = &mut self.memory.failsafe.verdict;
                if verdict.replace(FailsafeVerdict::Accepted).is_none() {
                    self.again = true;
                    let text = "failsafe mode: every member accepts this leader without the store";
                    self.tell(JournalKind::Event, text.into(), now, wall, actions);
                }
            }
            FailsafeVerdict::Refused(reason) => self.refused(reason, now, wall, actions),
        }
    }

    /// The leadership ends. That does not wait for a store that does not answer.
    fn refused(&mut self, reason: String, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        let text = format!("failsafe mode cannot keep the leadership: {reason}");
        actions.push(Action::Log(LogLevel::Warning, text.clone()));
        self.tell(JournalKind::Event, text, now, wall, actions);
        self.memory.failsafe.verdict = Some(FailsafeVerdict::Refused(reason));
        if matches!(self.pass, Pass::Acting(_)) {
            self.again = true;
        } else {
            self.decide(now, wall, actions);
        }
    }

    /// The store has the last word again, or the leadership is over.
    pub(super) fn leave_failsafe(&mut self) {
        self.memory.failsafe.verdict = None;
        if self.lease != Lease::None {
            self.memory.failsafe.promise = None;
        }
        self.asking.last = None;
        self.asking.lapsed = false;
    }

    /// The renewal found no lock of this member's. `true`: the members' promises keep the leadership, and the next
    /// renewal creates the key again, unless it is another member's: then it finds the lock lapsed once more.
    pub(super) fn survives_lapse(&mut self, now: Moment) -> bool {
        let survives = self.failsafe_holds(now) && !self.asking.lapsed;
        self.asking.lapsed = survives;
        if survives {
            self.next_renewal = now;
        }
        survives
    }

    /// Nothing is known of the lock any more.
    pub(super) fn forget_lapse(&mut self) {
        self.asking.lapsed = false;
    }

    /// Another member asks this one to promise not to take over.
    pub(super) fn asked_for_promise(
        &mut self,
        id: u64,
        leader: FailsafeLeader,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let acquiring = self.acquisition_in_doubt
            || matches!(
                self.pass,
                Pass::Acting(Step::AcquireLeader { .. } | Step::AdoptLease)
            );
        let answer = failsafe::answer(&self.situation(None, now, wall), acquiring, &leader);
        let name = leader.name.clone();
        let promise = &mut self.memory.failsafe.promise;
        let text = match &answer {
            FailsafeAnswer::Accepted(_) => {
                let ttl = leader.ttl.unwrap_or_default().min(PROMISE_MAX);
                let until = now + self.global.ttl.max(ttl);
                let before = promise.replace(FailsafePromise { leader, until });
                before
                    .is_none_or(|before| before.leader.name != name || before.until <= now)
                    .then(|| format!("failsafe mode: promised {name} not to take over"))
            }
            FailsafeAnswer::Off => None,
            FailsafeAnswer::RunningAsLeader => Some(format!(
                "failsafe mode: did not accept {name}, I may be the leader myself"
            )),
            FailsafeAnswer::OtherLeader(other) => Some(format!(
                "failsafe mode: did not accept {name}, {other} is known as the leader"
            )),
        };
        if let Some(text) = text {
            actions.push(Action::Log(LogLevel::Info, text.clone()));
            self.tell(JournalKind::Event, text, now, wall, actions);
        }
        actions.push(Action::AnswerFailsafe { id, answer });
    }
}
