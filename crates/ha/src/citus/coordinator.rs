//! What the coordinator group's leader does to `pg_dist_node`, and when. Without I/O: it says what is to be run, and
//! is told what came of it.
//!
//! A worker's leader that is about to go down is given a host that nobody reaches, in a transaction that stays open:
//! clients of the coordinator wait for its lock. The transaction ends when a leader of that group says that it accepts
//! writes, or is rolled back when nobody did in time. Meanwhile other groups wait.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use primacy_model::{CitusGroup, Cluster, Member, Role, State};

use super::topology::{Change, NodeAddress, NodeRole, Registered, Row, Wanted, transition};
use super::{CitusEvent, CitusNews};
use crate::Moment;

/// For a change that nobody asked for with a time of their own.
const COOLDOWN: Duration = Duration::from_secs(10);

/// After a failure: a session that cannot be had is not asked for without a pause.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps `pg_dist_node` as the groups are.
#[derive(Debug, Default)]
pub struct CitusCoordinator {
    /// `None`: to be read.
    registered: Option<BTreeMap<CitusGroup, Registered>>,
    /// At most one for each group, the oldest first.
    tasks: Vec<Task>,
    open: Option<Open>,
    /// Since something failed.
    rests_until: Option<Moment>,
}

/// The wish to bring a group to a state.
#[derive(Clone, Debug)]
struct Task {
    group: CitusGroup,
    wanted: Wanted,
    event: CitusEvent,
    cooldown: Duration,
    told: Option<Told>,
}

/// A group's leader asked for it.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Whom to answer.
    id: u64,
    /// For how long the transaction may stay open.
    timeout: Duration,
}

/// The transaction that is under way between two events of a group.
#[derive(Debug)]
struct Open {
    group: CitusGroup,
    rows: Registered,
    until: Moment,
}

/// A row of `pg_dist_node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// `nodeid`.
    pub id: i32,
    /// `groupid`.
    pub group: CitusGroup,
    /// `nodename`, `nodeport`.
    pub address: NodeAddress,
    /// `noderole`.
    pub role: NodeRole,
}

/// What is to be run on the coordinator, in one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Read the table.
    Load,
    /// `BEGIN`
    Begin,
    /// A call of Citus.
    Change(Change),
    /// `COMMIT`
    Commit,
    /// `ROLLBACK`
    Rollback,
}

/// Statements that belong together. When one fails the session is closed, which rolls back what was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Of which group; what is not of one is of the coordinator's.
    pub group: CitusGroup,
    /// One after the other.
    pub statements: Vec<Statement>,
    /// For `citus_update_node`: when it ends the transactions that stand in its way.
    pub cooldown: Duration,
    /// Who may be answered when it is done.
    pub answers: Option<u64>,
    leaves_open: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was run.
    Done {
        /// What [`Statement::Load`] read.
        loaded: Vec<NodeRow>,
        /// The `nodeid` of each [`Change::Add`], in order.
        added: Vec<i32>,
    },
    /// Something failed, and the session is closed.
    Failed,
}

impl CitusCoordinator {
    /// An event arrived; `group` is that group as the store has it now. Only the leader of a group speaks for it. Returns
    /// whom there is nothing to wait for: who was not believed, or whose wish a later one takes the place of.
    pub fn hear(&mut self, id: u64, news: &CitusNews, group: &Cluster) -> Option<u64> {
        let paused = news.event == CitusEvent::BeforeDemote;
        let believed = group.is_led_by(&news.leader);
        let Some(wanted) = wanted(group, paused).filter(|_| believed) else {
            return Some(id);
        };
        self.add(Task {
            group: news.group,
            wanted,
            event: news.event,
            cooldown: news.cooldown,
            told: Some(Told {
                id,
                timeout: news.timeout,
            }),
        })
    }

    /// Compares with what the store tells of the groups: of a worker group if its leader accepts writes, of the
    /// coordinator's own in any case, since only its leader asks.
    pub fn reconcile(&mut self, groups: &BTreeMap<CitusGroup, Cluster>, now: Moment) {
        for (group, cluster) in groups {
            let leads = |member: &Member| {
                let data = &member.data;
                data.role == Some(Role::Primary) && data.state == Some(State::Running)
            };
            let settled =
                *group == CitusGroup::COORDINATOR || cluster.leader_member().is_some_and(leads);
            // The member keys are behind what its leader said itself.
            let told = self
                .tasks
                .iter()
                .any(|task| task.group == *group && task.told.is_some());
            let open = self.open.as_ref();
            let waits = open.is_some_and(|open| open.group == *group && now < open.until);
            if settled
                && !told
                && !waits
                && let Some(wanted) = wanted(cluster, false)
            {
                self.add(Task {
                    group: *group,
                    wanted,
                    event: CitusEvent::AfterPromote,
                    cooldown: COOLDOWN,
                    told: None,
                });
            }
        }
    }

    /// A later wish takes the place of an earlier one of the same group; who asked for that.
    fn add(&mut self, task: Task) -> Option<u64> {
        match self
            .tasks
            .iter_mut()
            .find(|other| other.group == task.group)
        {
            Some(other) => mem::replace(other, task).told.map(|told| told.id),
            None => {
                self.tasks.push(task);
                None
            }
        }
    }

    /// What is to be run next, if anything. Then [`CitusCoordinator::done`] is to be called, before this is again.
    pub fn next(&mut self, now: Moment) -> Option<Work> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        self.rests_until = None;
        loop {
            let of_open = |task: &Task, open: &Open| task.group == open.group;
            let index = match &self.open {
                Some(open) => match self.tasks.iter().position(|task| of_open(task, open)) {
                    Some(index) => index,
                    None if now >= open.until => {
                        return Some(Work::of(open.group, vec![Statement::Rollback]));
                    }
                    None => return None,
                },
                None if self.tasks.is_empty() => return None,
                None => {
                    let coordinator = |task: &Task| task.group == CitusGroup::COORDINATOR;
                    self.tasks.iter().position(coordinator).unwrap_or(0)
                }
            };
            let Some(registered) = &self.registered else {
                return Some(Work::of(CitusGroup::COORDINATOR, vec![Statement::Load]));
            };
            let task = self.tasks.remove(index);
            let unknown = Registered::default();
            let (rows, in_step) = match &self.open {
                Some(open) => (&open.rows, false),
                None => (registered.get(&task.group).unwrap_or(&unknown), true),
            };
            let changes = transition(rows, &task.wanted, in_step);
            let ends = task.event == CitusEvent::AfterPromote;
            let is_open = self.open.is_some();
            if changes.is_empty() && !(is_open && ends) {
                if let Some(told) = task.told {
                    return Some(Work {
                        answers: Some(told.id),
                        ..Work::of(task.group, Vec::new())
                    });
                }
                continue;
            }
            let mut work = Work::of(task.group, Vec::new());
            let begins = !is_open && (!ends || changes.len() > 1);
            work.statements.extend(begins.then_some(Statement::Begin));
            work.statements
                .extend(changes.into_iter().map(Statement::Change));
            if ends {
                work.statements
                    .extend((begins || is_open).then_some(Statement::Commit));
            } else {
                work.leaves_open = Some(task.told.map_or(COOLDOWN, |told| told.timeout));
            }
            work.cooldown = task.cooldown;
            work.answers = task.told.map(|told| told.id);
            return Some(work);
        }
    }

    /// What came of it.
    pub fn done(&mut self, work: &Work, outcome: Outcome, now: Moment) {
        let Outcome::Done { loaded, added } = outcome else {
            self.session_lost();
            self.rests_until = Some(now + RETRY);
            return;
        };
        if work.statements.contains(&Statement::Load) {
            let mut groups: BTreeMap<CitusGroup, Registered> = BTreeMap::new();
            for row in loaded {
                groups.entry(row.group).or_default().load(row);
            }
            self.registered = Some(groups);
            return;
        }
        let open = mem::take(&mut self.open);
        if work.statements.contains(&Statement::Rollback) {
            return;
        }
        let registered = self.registered.get_or_insert_default();
        let known = || registered.get(&work.group).cloned().unwrap_or_default();
        let until = open.as_ref().map(|open| open.until);
        let mut rows = open.map_or_else(known, |open| open.rows);
        let mut added = added.into_iter();
        for statement in &work.statements {
            if let Statement::Change(change) = statement {
                let id = matches!(change, Change::Add { .. })
                    .then(|| added.next())
                    .flatten();
                rows.apply(change, id);
            }
        }
        let begun = until.is_some() || work.statements.contains(&Statement::Begin);
        match (begun, work.statements.contains(&Statement::Commit)) {
            (true, false) => {
                let until = match (work.leaves_open, until) {
                    (Some(timeout), _) => now + timeout,
                    (None, until) => until.unwrap_or(now),
                };
                let group = work.group;
                self.open = Some(Open { group, rows, until });
            }
            _ => drop(registered.insert(work.group, rows)),
        }
    }

    /// The session is gone, and what was not committed with it. The table is read again.
    pub fn session_lost(&mut self) {
        self.registered = None;
        self.open = None;
    }

    /// This server leads no longer, or not yet: what it knows is not true for long. The answers that were not given.
    pub fn forget(&mut self) -> Vec<u64> {
        let tasks = mem::take(self).tasks;
        tasks
            .into_iter()
            .filter_map(|task| Some(task.told?.id))
            .collect()
    }

    /// When [`CitusCoordinator::next`] has something to say although nothing happened.
    pub fn wake_at(&self) -> Option<Moment> {
        let open = self.open.as_ref().map(|open| open.until);
        self.rests_until.or(open)
    }
}

impl Work {
    fn of(group: CitusGroup, statements: Vec<Statement>) -> Self {
        Work {
            group,
            statements,
            cooldown: COOLDOWN,
            answers: None,
            leaves_open: None,
        }
    }
}

impl Registered {
    fn load(&mut self, row: NodeRow) {
        match row.role {
            NodeRole::Primary => {
                self.primary = Some(Row {
                    id: row.id,
                    address: row.address,
                    paused: false,
                });
            }
            NodeRole::Secondary => {
                self.secondaries.insert(row.address, row.id);
            }
        }
    }
}

/// The nodes of a group: its leader, and as secondaries the other members that run and may be read from.
fn wanted(group: &Cluster, paused: bool) -> Option<Wanted> {
    let address = |member: &Member| NodeAddress::of_url(member.data.conn_url.as_deref()?);
    let leader = group.leader_member()?;
    let primary = address(leader)?;
    let secondaries = group
        .members
        .iter()
        .filter(|member| member.name != leader.name)
        .filter(|member| member.data.state == Some(State::Running))
        .filter(|member| !member.data.tags.noloadbalance())
        .filter_map(address)
        .filter(|address| *address != primary)
        .collect();
    Some(Wanted {
        primary,
        paused,
        secondaries,
    })
}
