//! What the coordinator of a Citus cluster does to `pg_dist_node`, and when (`ha.md` §16.1).

use std::collections::BTreeMap;
use std::time::Duration;

use primacy_ha::Moment;
use primacy_ha::citus::{
    Change, CitusCoordinator, CitusEvent, CitusNews, NodeAddress, NodeRole, NodeRow, Outcome,
    Statement,
};
use primacy_model::{
    CitusGroup, Cluster, Leader, Member, MemberData, Role, Session, State, Tags, Version,
};
use serde_json::json;

const TTL: Duration = Duration::from_secs(30);
/// What the workers tell.
const COOLDOWN: Duration = Duration::from_secs(5);

/// The coordinator, the table, and a clock.
struct World {
    coordinator: CitusCoordinator,
    rows: Vec<NodeRow>,
    groups: BTreeMap<CitusGroup, Cluster>,
    now: Moment,
    fails: bool,
    /// Of the last change.
    cooldown: Option<Duration>,
}

/// A group whose leader comes first; `-b` is a replica that does not run, `~b` one that nobody is to read from. A leader
/// with a `?` does not accept writes yet.
fn group(members: &[&str]) -> Cluster {
    let member = |(index, text): (usize, &&str)| {
        let name = text.trim_matches(['-', '~', '?']);
        let writes = index == 0 && !text.ends_with('?');
        let tags = match text.starts_with('~') {
            true => Tags::from_json(&json!({"noloadbalance": true})),
            false => Tags::default(),
        };
        Member {
            name: name.into(),
            version: Version(1),
            session: None,
            data: MemberData {
                conn_url: Some(format!("postgres://{name}:5432/postgres")),
                state: Some(if text.starts_with('-') {
                    State::Stopped
                } else {
                    State::Running
                }),
                role: Some(if writes { Role::Primary } else { Role::Replica }),
                tags,
                ..MemberData::default()
            },
        }
    };
    let members: Vec<Member> = members.iter().enumerate().map(member).collect();
    Cluster {
        leader: Some(Leader {
            name: members[0].name.clone(),
            version: Version(1),
            session: Some(Session("s".into())),
        }),
        members,
        ..Cluster::default()
    }
}

impl World {
    /// `1a` is the primary of group 1, with `nodeid` 1; further letters are secondaries.
    fn new(rows: &[&str]) -> Self {
        let mut ids = 1..;
        let rows = rows.iter().flat_map(|text| {
            let group = CitusGroup(text[..1].parse().expect("a digit"));
            let hosts: Vec<String> = text[1..].chars().map(String::from).collect();
            let role = |index| match index {
                0 => NodeRole::Primary,
                _ => NodeRole::Secondary,
            };
            let rows = hosts
                .into_iter()
                .enumerate()
                .map(move |(index, host)| NodeRow {
                    id: 0,
                    group,
                    address: NodeAddress { host, port: 5432 },
                    role: role(index),
                });
            rows.collect::<Vec<_>>()
        });
        let rows = rows.map(|row| NodeRow {
            id: ids.next().expect("endless"),
            ..row
        });
        World {
            coordinator: CitusCoordinator::default(),
            rows: rows.collect(),
            groups: BTreeMap::new(),
            now: Moment(Duration::from_secs(1000)),
            fails: false,
            cooldown: None,
        }
    }

    fn with(mut self, number: u32, members: &[&str]) -> Self {
        self.set(number, members);
        self
    }

    fn set(&mut self, number: u32, members: &[&str]) {
        self.groups.insert(CitusGroup(number), group(members));
    }

    fn reconcile(&mut self) -> String {
        self.coordinator.reconcile(&self.groups, self.now);
        self.work()
    }

    fn hear(&mut self, id: u64, event: CitusEvent, number: u32, leader: &str) -> String {
        let news = CitusNews {
            event,
            group: CitusGroup(number),
            leader: leader.into(),
            timeout: TTL,
            cooldown: COOLDOWN,
        };
        let group = &self.groups[&news.group];
        match self.coordinator.hear(id, &news, group) {
            None => self.work(),
            Some(answered) => format!("answer {answered}; {}", self.work()),
        }
    }

    fn pass(&mut self, seconds: u64) -> String {
        self.now = self.now + Duration::from_secs(seconds);
        self.work()
    }

    /// Runs what is to be run; in words.
    fn work(&mut self) -> String {
        let mut words = Vec::new();
        while let Some(work) = self.coordinator.next(self.now) {
            let (mut loaded, mut added) = (Vec::new(), Vec::new());
            for statement in &work.statements {
                if matches!(statement, Statement::Change(_)) {
                    self.cooldown = Some(work.cooldown);
                }
                words.push(match statement {
                    Statement::Load => {
                        loaded.clone_from(&self.rows);
                        "load".into()
                    }
                    Statement::Begin => "begin".into(),
                    Statement::Commit => "commit".into(),
                    Statement::Rollback => "rollback".into(),
                    Statement::Change(Change::Update {
                        id,
                        address,
                        paused,
                    }) => {
                        format!("{id}={}{}", address.host, if *paused { "!" } else { "" })
                    }
                    Statement::Change(Change::Add { address, role }) => {
                        added.push(100 + i32::try_from(added.len()).expect("few"));
                        format!("+{}:{}/{}", work.group, address.host, role.as_str())
                    }
                    Statement::Change(Change::Remove(address)) => format!("-{}", address.host),
                });
            }
            let outcome = match self.fails {
                true => Outcome::Failed,
                false => Outcome::Done { loaded, added },
            };
            words.extend(self.fails.then(|| "fails".into()));
            self.coordinator.done(&work, outcome, self.now);
            words.extend(work.answers.map(|id| format!("answer {id}")));
        }
        words.join(" ")
    }
}

use CitusEvent::{AfterPromote, BeforeDemote, BeforePromote};

#[test]
fn s16_1_the_table_is_made_as_the_groups_are_and_then_left_alone() {
    let mut world = World::new(&[])
        .with(0, &["c", "d"])
        .with(1, &["a", "b", "-x", "~y"])
        .with(2, &["p?", "q"])
        .with(3, &["-s", "t"]);
    // The workers whose leaders accept no writes yet, or no longer, are left out.
    assert_eq!(
        world.reconcile(),
        "load begin +0:c/primary +0:d/secondary commit begin +1:a/primary +1:b/secondary commit"
    );
    assert_eq!(world.reconcile(), "");
    world.set(2, &["p", "q"]);
    assert_eq!(
        world.reconcile(),
        "begin +2:p/primary +2:q/secondary commit"
    );
    // A replica comes: one call needs no transaction.
    world.set(1, &["a", "b", "x", "~y"]);
    assert_eq!(world.reconcile(), "+1:x/secondary");
    // The new rows have the ids that Citus gave them.
    assert_eq!(world.hear(1, BeforeDemote, 2, "p"), "begin 100=p! answer 1");
    world.set(2, &["q?", "-p"]);
    assert_eq!(world.hear(2, BeforePromote, 2, "q"), "101=p 100=q answer 2");
}

#[test]
fn s16_1_a_switchover_keeps_clients_waiting_from_the_stop_to_the_promotion() {
    let mut world = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["a", "b"]);
    assert_eq!(world.reconcile(), "load");
    assert_eq!(world.hear(1, BeforeDemote, 1, "a"), "begin 2=a! answer 1");
    // The member keys still show the old primary: what they say does not count meanwhile.
    assert_eq!(world.reconcile(), "");
    world.set(1, &["b?", "-a"]);
    assert_eq!(world.hear(2, BeforePromote, 1, "b"), "3=a 2=b answer 2");
    assert_eq!(world.hear(3, AfterPromote, 1, "b"), "commit answer 3");
    // The former primary is not there yet, and its place is free now.
    world.set(1, &["b", "-a"]);
    assert_eq!(world.reconcile(), "-a");
    world.set(1, &["b", "a"]);
    assert_eq!(world.reconcile(), "+1:a/secondary");
}

#[test]
fn s16_1_a_restart_keeps_clients_waiting() {
    let mut world = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["a", "b"]);
    world.reconcile();
    assert_eq!(world.hear(1, BeforeDemote, 1, "a"), "begin 2=a! answer 1");
    assert_eq!(world.hear(2, AfterPromote, 1, "a"), "2=a commit answer 2");
    assert_eq!(world.reconcile(), "");
}

#[test]
fn s16_1_a_failover_is_told_by_the_new_primary_or_found_in_the_store() {
    let mut world = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["b?", "-a"]);
    assert_eq!(world.reconcile(), "load");
    assert_eq!(
        world.hear(1, BeforePromote, 1, "b"),
        "begin 2=a! 3=a 2=b answer 1"
    );
    assert_eq!(world.cooldown, Some(COOLDOWN));
    assert_eq!(world.hear(2, AfterPromote, 1, "b"), "commit answer 2");

    let mut untold = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["b", "-a"]);
    assert_eq!(untold.reconcile(), "load begin 2=a! 3=a 2=b commit");
    assert_eq!(untold.cooldown, Some(Duration::from_secs(10)));
}

#[test]
fn s16_1_what_nobody_goes_on_with_is_rolled_back_in_time() {
    let mut world = World::new(&["0c", "1ab", "2pq"])
        .with(0, &["c"])
        .with(1, &["a", "b"])
        .with(2, &["p", "q"]);
    world.reconcile();
    assert_eq!(world.hear(1, BeforeDemote, 1, "a"), "begin 2=a! answer 1");
    // Another group waits meanwhile: there is one session.
    assert_eq!(world.hear(2, BeforeDemote, 2, "p"), "");
    assert_eq!(world.coordinator.wake_at(), Some(world.now + TTL));
    // What the store tells of it is older than what it told itself.
    assert_eq!(world.reconcile(), "");
    assert_eq!(world.pass(29), "");
    assert_eq!(world.pass(1), "rollback begin 4=p! answer 2");
    // Each step of a group gives it its time anew.
    world.set(2, &["q?", "-p"]);
    world.pass(20);
    assert_eq!(world.hear(3, BeforePromote, 2, "q"), "5=p 4=q answer 3");
    assert_eq!(world.pass(20), "");
    assert_eq!(world.pass(10), "rollback");
    // From then on the store counts again.
    world.set(2, &["q", "-p"]);
    assert_eq!(world.reconcile(), "begin 4=p! 5=p 4=q commit");
}

#[test]
fn s16_1_only_the_leader_of_a_group_speaks_for_it() {
    let mut world = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["a", "b"]);
    world.reconcile();
    assert_eq!(world.hear(1, BeforePromote, 1, "b"), "answer 1; ");
    assert_eq!(world.hear(2, BeforeDemote, 1, "b"), "answer 2; ");
}

#[test]
fn s16_1_what_is_true_already_is_answered_at_once() {
    let mut world = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["a", "b"]);
    assert_eq!(world.hear(1, AfterPromote, 1, "a"), "load answer 1");
    // Nobody's clients wait for a group that the table does not have.
    world.set(3, &["z"]);
    assert_eq!(world.hear(2, BeforeDemote, 3, "z"), "answer 2");
    assert_eq!(world.coordinator.wake_at(), None);
}

#[test]
fn s16_1_the_coordinators_own_row_comes_first() {
    // Its leader asks, so it leads, whatever its member key tells yet.
    let mut world = World::new(&["0c", "1ab", "2pq"])
        .with(0, &["d?"])
        .with(1, &["b?", "-a"])
        .with(2, &["p", "q"]);
    assert_eq!(
        world.hear(1, BeforeDemote, 2, "p"),
        "load begin 4=p! answer 1"
    );
    assert_eq!(world.hear(2, BeforePromote, 1, "b"), "");
    assert_eq!(world.reconcile(), "");
    assert_eq!(
        world.hear(3, AfterPromote, 2, "p"),
        "4=p commit answer 3 1=d begin 2=a! 3=a 2=b answer 2"
    );
}

#[test]
fn s16_1_a_failure_drops_the_session_and_the_table_is_read_again() {
    let mut world = World::new(&["0c", "1ab"])
        .with(0, &["c"])
        .with(1, &["a", "b"]);
    world.reconcile();
    world.hear(1, BeforeDemote, 1, "a");
    world.set(1, &["b?", "-a"]);
    world.fails = true;
    assert_eq!(
        world.hear(2, BeforePromote, 1, "b"),
        "3=a 2=b fails answer 2"
    );
    // A session that cannot be had is not asked for without a pause.
    world.set(1, &["b", "-a"]);
    assert_eq!(world.reconcile(), "");
    for _ in 0..3 {
        let again = world.now + Duration::from_secs(1);
        assert_eq!(world.coordinator.wake_at(), Some(again));
        assert_eq!(world.pass(1), "load fails");
    }
    world.fails = false;
    assert_eq!(world.pass(1), "load begin 2=a! 3=a 2=b commit");
    assert_eq!(world.coordinator.wake_at(), None);
}

#[test]
fn s16_1_who_leads_no_longer_forgets_and_answers() {
    let mut world = World::new(&["0c", "1ab", "2pq"])
        .with(0, &["c"])
        .with(1, &["a", "b"])
        .with(2, &["p", "q"]);
    world.reconcile();
    world.hear(1, BeforeDemote, 1, "a");
    assert_eq!(world.hear(2, BeforeDemote, 2, "p"), "");
    // A later wish of the same group takes the place of the earlier one.
    assert_eq!(world.hear(3, BeforeDemote, 2, "p"), "answer 2; ");
    assert_eq!(world.coordinator.forget(), [3]);
    assert_eq!(world.coordinator.wake_at(), None);
    assert_eq!(world.reconcile(), "load");
}
