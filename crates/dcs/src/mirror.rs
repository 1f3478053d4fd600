//! What a read told of a cluster, with the changes that the watch told of since: what another read would tell, without
//! asking the store for it.
//!
//! Two hazards are guarded against here:
//! 1. A change is missed, or half of what one revision changed is taken for the whole. So the watch says up to where it
//!    has told everything, what it tells until then is applied together, and a gap forgets everything.
//! 2. A view that is a little older than a read decides who leads. So only members and `/status` are followed; any
//!    other change of the cluster has it read.

use std::collections::BTreeMap;

use primacy_model::{Cluster, MemberName, Session, Version};

use crate::cluster::{Subject, assemble, subject};
use crate::{Entry, Snapshot, WatchEvent};

/// The keys of one cluster as of one revision of the store. Good for stores that count their revisions.
pub struct Mirror {
    base: String,
    known: Option<Known>,
    /// What the watch told since it last said that it has told everything; `None`: too much to keep.
    open: Option<Vec<WatchEvent>>,
    /// Up to where it has.
    reached: Version,
    /// How often it may have missed something.
    gaps: u64,
}

struct Known {
    entries: BTreeMap<String, Entry>,
    revision: Version,
}

/// A store that does not count its revisions never says how far it has got.
const MOST_OPEN: usize = 128;

/// When a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadMark {
    gaps: u64,
}

impl Mirror {
    /// Of the cluster below this path, of which nothing is known yet.
    pub(crate) fn new(base: &str) -> Self {
        Mirror {
            base: base.to_owned(),
            known: None,
            open: Some(Vec::new()),
            reached: Version(0),
            gaps: 0,
        }
    }

    /// Takes what the watch tells, in its order.
    pub fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Resync => {
                self.known = None;
                self.open = Some(Vec::new());
                self.reached = Version(0);
                self.gaps += 1;
            }
            WatchEvent::Reached(revision) => {
                let events = self.open.replace(Vec::new());
                self.reached = self.reached.max(revision);
                // A read may have shown them already.
                let outdated = self.known.take_if(|known| known.revision < revision);
                if let (Some(mut known), Some(events)) = (outdated, events)
                    && events.iter().all(|event| self.follows(event))
                {
                    known.apply(events);
                    known.revision = revision;
                    self.known = Some(known);
                }
            }
            change => {
                if let Some(open) = self.open.as_mut() {
                    open.push(change);
                }
                self.open.take_if(|open| open.len() > MOST_OPEN);
            }
        }
    }

    fn follows(&self, event: &WatchEvent) -> bool {
        matches!(
            subject(&self.base, event),
            Subject::Member(_) | Subject::Status | Subject::Other
        )
    }

    /// To be called before a read is sent.
    pub(crate) fn mark(&self) -> ReadMark {
        ReadMark { gaps: self.gaps }
    }

    /// Takes what a read told that began at the mark.
    pub(crate) fn adopt(&mut self, mark: ReadMark, snapshot: &Snapshot) {
        let Some(revision) = snapshot.revision else {
            return;
        };
        // What the watch told of meanwhile, with nothing to apply it to, is not in an older read. What is known and
        // newer than the read stays.
        if mark.gaps != self.gaps || revision < self.reached {
            return;
        }
        let entries = snapshot.entries.iter();
        let entries = entries.map(|entry| (entry.key.clone(), entry.clone()));
        self.known = Some(Known {
            entries: entries.collect(),
            revision,
        });
    }

    /// As of which revision the cluster is known.
    pub fn revision(&self) -> Option<Version> {
        self.known.as_ref().map(|known| known.revision)
    }

    /// Whether the leader key named `name` then, and hung on this lease.
    pub fn is_led_by(&self, name: &MemberName, lease: &Session) -> bool {
        let leader = self
            .known
            .as_ref()
            .and_then(|known| known.entries.get(&format!("{}/leader", self.base)));
        leader.is_some_and(|leader| {
            leader.value == name.as_bytes() && leader.lease.as_ref() == Some(lease)
        })
    }

    /// The cluster as of then.
    pub fn cluster(&self) -> Option<Cluster> {
        let known = self.known.as_ref()?;
        Some(assemble(&self.base, known.entries.values().cloned()))
    }
}

impl Known {
    /// All changes of some revisions, in order: each key ends as the last of them left it.
    fn apply(&mut self, events: Vec<WatchEvent>) {
        for event in events {
            match event {
                WatchEvent::Put(entry) => {
                    self.entries.insert(entry.key.clone(), entry);
                }
                WatchEvent::Delete { key } => {
                    self.entries.remove(&key);
                }
                WatchEvent::Reached(_) | WatchEvent::Resync => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "/service/demo";
    const KEYS: [&str; 7] = [
        "members/a",
        "members/b",
        "status",
        "optime/leader",
        "leader",
        "sync",
        "1/leader",
    ];

    /// What happens, in this order.
    #[derive(Clone, Debug)]
    enum Happening {
        /// One revision of the store: keys are put or removed.
        Write(Vec<(usize, Option<u8>)>),
        /// So many revisions are put into one message of the watch.
        Send(usize),
        /// So many events of it arrive.
        Arrive(usize),
        /// What was not sent is lost, and what was sent but for so many events; the watch says so.
        Lose(usize),
        /// A read shows the store.
        Read,
        /// The answer to one of the reads arrives.
        Answer(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        // What changes who leads is rare.
        let key = prop_oneof![9 => 0..4usize, 1 => 4..KEYS.len()];
        let change = (key, proptest::option::of(any::<u8>()));
        prop_oneof![
            6 => prop::collection::vec(change, 1..4).prop_map(Happening::Write),
            4 => (1..4usize).prop_map(Happening::Send),
            6 => (1..6usize).prop_map(Happening::Arrive),
            1 => (0..6usize).prop_map(Happening::Lose),
            2 => Just(Happening::Read),
            3 => (0..3usize).prop_map(Happening::Answer),
        ]
    }

    /// A store that remembers everything, its watch, and the reads under way.
    struct World {
        history: Vec<BTreeMap<String, Entry>>,
        unsent: VecDeque<Vec<WatchEvent>>,
        sent: VecDeque<WatchEvent>,
        reads: Vec<(ReadMark, Snapshot)>,
        mirror: Mirror,
    }

    impl World {
        fn revision(&self) -> u64 {
            self.history.len() as u64 - 1
        }

        fn write(&mut self, changes: Vec<(usize, Option<u8>)>) {
            let mut now = self.history.last().cloned().unwrap_or_default();
            let version = Version(self.history.len() as u64);
            let mut events = Vec::new();
            for (key, value) in changes {
                let key = format!("{BASE}/{}", KEYS[key]);
                match value {
                    Some(value) => {
                        let entry = Entry {
                            key: key.clone(),
                            value: format!("{{\"xlog_location\": {value}, \"optime\": {value}}}")
                                .into(),
                            version,
                            lease: (value % 2 == 0).then(|| Session(value.to_string())),
                        };
                        events.push(WatchEvent::Put(entry.clone()));
                        now.insert(key, entry);
                    }
                    None if now.remove(&key).is_some() => events.push(WatchEvent::Delete { key }),
                    None => {}
                }
            }
            self.history.push(now);
            self.unsent.push_back(events);
        }

        fn send(&mut self, revisions: usize) {
            let taken = revisions.min(self.unsent.len());
            let reached = self.revision() + taken as u64 - self.unsent.len() as u64;
            let events: Vec<_> = self.unsent.drain(..taken).flatten().collect();
            if !events.is_empty() {
                self.sent.extend(events);
                self.sent.push_back(WatchEvent::Reached(Version(reached)));
            }
        }

        fn perform(&mut self, happening: Happening) {
            match happening {
                Happening::Write(changes) => self.write(changes),
                Happening::Send(revisions) => self.send(revisions),
                Happening::Arrive(events) => {
                    for event in self.sent.drain(..events.min(self.sent.len())) {
                        self.mirror.take(event);
                    }
                }
                Happening::Lose(but) => {
                    self.unsent.clear();
                    self.sent.truncate(but);
                    self.sent.push_back(WatchEvent::Resync);
                }
                Happening::Read => {
                    let snapshot = Snapshot {
                        entries: self.history[self.history.len() - 1]
                            .values()
                            .cloned()
                            .collect(),
                        revision: Some(Version(self.revision())),
                    };
                    self.reads.push((self.mirror.mark(), snapshot));
                }
                Happening::Answer(which) => {
                    if which < self.reads.len() {
                        let (mark, snapshot) = self.reads.remove(which);
                        self.mirror.adopt(mark, &snapshot);
                    }
                }
            }
        }
    }

    fn entry(key: &str, value: &str, lease: Option<&str>) -> Entry {
        Entry {
            key: format!("{BASE}/{key}"),
            value: value.into(),
            version: Version(1),
            lease: lease.map(|lease| Session(lease.into())),
        }
    }

    fn snapshot(revision: u64) -> Snapshot {
        Snapshot {
            entries: vec![
                entry("leader", "a", Some("1")),
                entry("members/a", "{}", None),
            ],
            revision: Some(Version(revision)),
        }
    }

    /// The cluster as of revision 10 is known.
    fn mirror() -> Mirror {
        let mut mirror = Mirror::new(BASE);
        mirror.adopt(mirror.mark(), &snapshot(10));
        mirror
    }

    /// Hazard 2: whatever else changes has the cluster read.
    #[test]
    fn only_members_and_status_are_followed() {
        for (key, followed) in [
            ("members/a", true),
            ("members/new", true),
            ("status", true),
            ("optime/leader", true),
            ("leader", false),
            ("sync", false),
            ("failover", false),
            ("failsafe", false),
            ("config", false),
            ("history", false),
            ("initialize", false),
        ] {
            let changes = [
                WatchEvent::Put(entry(key, "{}", None)),
                WatchEvent::Delete {
                    key: format!("{BASE}/{key}"),
                },
            ];
            for change in changes {
                let mut mirror = mirror();
                mirror.take(WatchEvent::Put(entry("members/a", "{}", None)));
                mirror.take(change);
                assert_eq!(
                    mirror.revision(),
                    Some(Version(10)),
                    "{key}: not told of all"
                );
                mirror.take(WatchEvent::Reached(Version(11)));
                assert_eq!(mirror.revision(), followed.then_some(Version(11)), "{key}");
            }
        }
    }

    #[test]
    fn more_changes_than_are_kept_have_it_read() {
        for (changes, known) in [(MOST_OPEN, true), (MOST_OPEN + 1, false)] {
            let mut mirror = mirror();
            for _ in 0..changes {
                mirror.take(WatchEvent::Put(entry("members/a", "{}", None)));
            }
            mirror.take(WatchEvent::Reached(Version(11)));
            assert_eq!(mirror.revision(), known.then_some(Version(11)), "{changes}");
            mirror.adopt(mirror.mark(), &snapshot(11));
            mirror.take(WatchEvent::Put(entry("members/a", "{}", None)));
            mirror.take(WatchEvent::Reached(Version(12)));
            assert_eq!(mirror.revision(), Some(Version(12)), "it goes on");
        }
    }

    #[test]
    fn who_leads_leads_by_one_lease() {
        let leads = |mirror: &Mirror, name: &str, lease: &str| {
            mirror.is_led_by(&name.into(), &Session(lease.into()))
        };
        assert!(leads(&mirror(), "a", "1"));
        assert!(
            !leads(&mirror(), "a", "2"),
            "an earlier agent of the member"
        );
        assert!(!leads(&mirror(), "b", "1"));
        assert!(!leads(&Mirror::new(BASE), "a", "1"), "nothing is known");
    }

    /// A store that was restored from a backup counts from there.
    #[test]
    fn a_store_that_went_back_is_read_again() {
        let mut mirror = mirror();
        mirror.take(WatchEvent::Reached(Version(20)));
        mirror.take(WatchEvent::Resync);
        mirror.adopt(mirror.mark(), &snapshot(5));
        assert_eq!(mirror.revision(), Some(Version(5)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever is written, in whatever pieces the watch tells of it, and whenever reads are answered: what the
        /// mirror shows is what a read at that revision would have shown. And once everything has arrived and was read,
        /// it shows that.
        #[test]
        fn a_mirror_shows_what_a_read_would(happenings in prop::collection::vec(happening(), 1..80)) {
            let mut world = World {
                history: vec![BTreeMap::new()],
                unsent: VecDeque::new(),
                sent: VecDeque::new(),
                reads: Vec::new(),
                mirror: Mirror::new(BASE),
            };
            let check = |world: &World| {
                if let (Some(revision), Some(cluster)) = (world.mirror.revision(), world.mirror.cluster()) {
                    let then = &world.history[revision.0 as usize];
                    prop_assert_eq!(cluster, assemble(BASE, then.values().cloned()));
                }
                Ok(())
            };
            for happening in happenings {
                world.perform(happening);
                check(&world)?;
            }
            for last in [
                Happening::Send(usize::MAX),
                Happening::Arrive(usize::MAX),
                Happening::Read,
                Happening::Answer(world.reads.len()),
                // Another member moves on.
                Happening::Write(vec![(0, Some(1))]),
                Happening::Send(1),
                Happening::Arrive(usize::MAX),
            ] {
                world.perform(last);
                check(&world)?;
            }
            prop_assert_eq!(world.mirror.revision(), Some(Version(world.revision())));
        }
    }
}
