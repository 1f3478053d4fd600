//! Which members there are, which one is asked first, and which one is behind the times.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio::time::Instant;

use super::discovery::Discovery;
use super::wire::Header;

/// How old the list of members may grow.
const LIST_AGE: Duration = Duration::from_secs(300);

/// Below this a try is not worth its while.
const SHORTEST_TRY: Duration = Duration::from_secs(1);

pub(super) struct Endpoints {
    configured: Vec<String>,
    /// Where to look for endpoints; those configured are for when there are none.
    pub(super) discovery: Option<Discovery>,
    /// The configured endpoints are all there is.
    fixed: bool,
    state: Mutex<State>,
    /// Whom to ask first; watches follow it.
    current: watch::Sender<String>,
}

struct State {
    /// The members as etcd itself lists them, or the configured ones until it has been asked. Empty until they have been
    /// discovered.
    known: Vec<String>,
    /// When the list is to be had again; `None` while somebody is at it.
    list_due: Option<Instant>,
    /// The newest term seen, and in which cluster.
    newest: Option<Header>,
}

/// A member that has not noticed an election, or one of another cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Fresh,
    /// It lives in an earlier term than one that was seen already.
    Stale,
}

impl Endpoints {
    pub(super) fn new(configured: Vec<String>, fixed: bool, discovery: Option<Discovery>) -> Self {
        let mut known = match &discovery {
            Some(_) => Vec::new(),
            None => configured.clone(),
        };
        // So that not every agent asks the same member.
        known.shuffle(&mut rand::rng());
        let (current, _) = watch::channel(known.first().cloned().unwrap_or_default());
        let state = State {
            known,
            list_due: Some(Instant::now()),
            newest: None,
        };
        Endpoints {
            configured,
            discovery,
            fixed,
            state: Mutex::new(state),
            current,
        }
    }

    /// Whom to ask, in this order.
    pub(super) fn in_order(&self) -> Vec<String> {
        let mut order = self.state().known.clone();
        let current = self.current.borrow().clone();
        if let Some(position) = order.iter().position(|endpoint| *endpoint == current) {
            order.rotate_left(position);
        }
        order
    }

    /// All that were ever heard of: for when nobody of the list answers.
    pub(super) fn all(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let all = self
            .in_order()
            .into_iter()
            .chain(self.configured.iter().cloned());
        all.filter(|endpoint| seen.insert(endpoint.clone()))
            .collect()
    }

    /// Told whenever another endpoint is the one to ask.
    pub(super) fn current(&self) -> watch::Receiver<String> {
        self.current.subscribe()
    }

    /// It answers: ask it first.
    pub(super) fn prefer(&self, endpoint: &str) {
        self.current.send_if_modified(|current| {
            let change = current != endpoint;
            if change {
                *current = endpoint.to_owned();
            }
            change
        });
    }

    /// It does not answer as it should: ask the next one first, from now on.
    pub(super) fn avoid(&self, endpoint: &str) {
        if *self.current.borrow() != endpoint {
            return;
        }
        if let Some(next) = self.all().into_iter().find(|other| other != endpoint) {
            self.prefer(&next);
        }
    }

    /// Whether the list of members should be had again now; whoever is told so must call
    /// [`Endpoints::listed`].
    pub(super) fn claim_listing(&self, nobody_answers: bool) -> bool {
        let mut state = self.state();
        let due = state
            .list_due
            .is_some_and(|due| nobody_answers || due <= Instant::now());
        if self.fixed || !due {
            return false;
        }
        state.list_due = None;
        true
    }

    /// The list of members is this, or could not be had.
    pub(super) fn listed(&self, members: Option<Vec<String>>) {
        let mut state = self.state();
        state.list_due = Some(Instant::now() + LIST_AGE);
        let Some(mut members) = members.filter(|members| !members.is_empty()) else {
            return;
        };
        members.shuffle(&mut rand::rng());
        state.known = members;
    }

    /// These were discovered, or nothing was: then the configured ones are left. Returns whether there are any.
    pub(super) fn discovered(&self, mut found: Vec<String>) -> bool {
        if found.is_empty() {
            found.clone_from(&self.configured);
        }
        found.shuffle(&mut rand::rng());
        self.state().known = found;
        let first = self.state().known.first().cloned();
        first.inspect(|first| self.prefer(first)).is_some()
    }

    /// Remembers the newest term (`dcs.md` §7).
    pub(super) fn judge(&self, header: Header) -> Freshness {
        let mut state = self.state();
        match state.newest {
            Some(newest) if newest.cluster == header.cluster && newest.term > header.term => {
                return Freshness::Stale;
            }
            Some(newest) if newest.cluster != header.cluster => {
                tracing::warn!("etcd answers from another cluster than before");
            }
            _ => {}
        }
        state.newest = Some(header);
        Freshness::Fresh
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many of `count` endpoints to try within `budget`, and how long each (`dcs.md` §5.3).
pub(super) fn share(budget: Duration, count: usize) -> (usize, Duration) {
    let each = |count: usize| budget / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let mut kept = count.max(1);
    while kept > 1 && each(kept) < SHORTEST_TRY {
        kept -= 1;
    }
    if kept < count {
        return (kept, each(kept));
    }
    // So few endpoints that each may be tried more than once.
    let tries = match count {
        0 | 1 => 3,
        2 => 2,
        _ => 1,
    };
    let tries = (1..=tries)
        .rev()
        .find(|tries| each(kept) / *tries >= SHORTEST_TRY)
        .unwrap_or(1);
    (kept, each(kept) / tries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_budget() {
        let share = |seconds: u64, count| {
            let (kept, each) = share(Duration::from_secs(seconds), count);
            (kept, each.as_millis())
        };
        assert_eq!(share(10, 1), (1, 3333));
        assert_eq!(share(10, 2), (2, 2500));
        assert_eq!(share(10, 3), (3, 3333));
        assert_eq!(share(10, 5), (5, 2000));
        assert_eq!(share(3, 5), (3, 1000));
        assert_eq!(share(1, 3), (1, 1000));
        assert_eq!(share(0, 3), (1, 0));
    }

    #[test]
    fn an_earlier_term_of_the_same_cluster_is_stale() {
        let endpoints = Endpoints::new(vec!["http://a".into()], true, None);
        let header = |cluster, term| Header {
            cluster,
            revision: 1,
            term,
        };
        assert_eq!(endpoints.judge(header(1, 5)), Freshness::Fresh);
        assert_eq!(endpoints.judge(header(1, 4)), Freshness::Stale);
        assert_eq!(endpoints.judge(header(2, 1)), Freshness::Fresh);
        assert_eq!(endpoints.judge(header(2, 2)), Freshness::Fresh);
    }

    #[test]
    fn the_next_endpoint_takes_over_from_a_bad_one() {
        let names: Vec<String> = ["http://a", "http://b"].map(String::from).to_vec();
        let endpoints = Endpoints::new(names, false, None);
        let first = endpoints.in_order()[0].clone();
        endpoints.avoid(&endpoints.in_order()[1]);
        assert_eq!(endpoints.in_order()[0], first);
        endpoints.avoid(&first);
        assert_ne!(endpoints.in_order()[0], first);
        assert!(endpoints.claim_listing(false) && !endpoints.claim_listing(true));
        endpoints.listed(Some(vec!["http://c".into()]));
        assert_eq!(endpoints.in_order(), ["http://c"]);
        assert_eq!(endpoints.all().len(), 3);
        assert!(!endpoints.claim_listing(false) && endpoints.claim_listing(true));
    }
}
