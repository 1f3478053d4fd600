//! `POST /failsafe` between the agents (`failsafe.rs` of the agent).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use primacy_ha::{Event, FailsafeAnswer, FailsafeLeader, FailsafeReply, Moment};
use primacy_model::MemberName;

use crate::network::End;
use crate::node::AgentTask;
use crate::world::{Instant, World};

/// What is done with a member's answer.
pub(crate) type Answered = Box<dyn FnOnce(&mut World, FailsafeAnswer)>;

impl World {
    /// Asks them all; whoever has not answered by the deadline is silent.
    pub(crate) fn ask_failsafe(
        &mut self,
        task: AgentTask,
        sent: Moment,
        deadline: Instant,
        members: Vec<MemberName>,
        leader: &FailsafeLeader,
    ) {
        let silent = |name: &MemberName| (name.clone(), FailsafeReply::Silent("no answer".into()));
        let answers: Rc<RefCell<BTreeMap<MemberName, FailsafeReply>>> =
            Rc::new(RefCell::new(members.iter().map(silent).collect()));
        let left = Rc::new(RefCell::new(members.len()));
        let done = Rc::new(RefCell::new(false));
        for name in members {
            let Some(peer) = Self::node_of(&name) else {
                continue;
            };
            if !self.network.reaches_api(task.node, peer) {
                continue;
            }
            let there = self.delay_between(task.node, peer);
            let back = self.delay_between(peer, task.node);
            let leader = leader.clone();
            let (answers, left, done) = (Rc::clone(&answers), Rc::clone(&left), Rc::clone(&done));
            let answered: Answered = Box::new(move |world, answer| {
                if !world.network.passes(End::Node(peer), End::Node(task.node)) {
                    return;
                }
                world.agent_after(task, back, move |world| {
                    if *done.borrow() {
                        return;
                    }
                    let reply = match answer {
                        FailsafeAnswer::Accepted(position) => FailsafeReply::Accepted(position),
                        other => FailsafeReply::Refused(format!("{other:?}")),
                    };
                    answers.borrow_mut().insert(name, reply);
                    *left.borrow_mut() -= 1;
                    if *left.borrow() == 0 {
                        done.replace(true);
                        let answers = answers.borrow().clone();
                        world.step(task, Event::FailsafeAnswered { sent, answers });
                    }
                });
            });
            self.after(there, move |world| {
                world.failsafe_asked(peer, leader, answered)
            });
        }
        let wait = deadline.saturating_sub(self.now());
        self.agent_after(task, wait, move |world| {
            if !done.replace(true) {
                let answers = answers.borrow().clone();
                world.step(task, Event::FailsafeAnswered { sent, answers });
            }
        });
    }
}
