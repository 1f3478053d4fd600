//! What happened beside the passes: who leads, what the server is, whether the store answers, what an operator
//! wants. Told when it changes.

use jiff::Timestamp;
use primacy_model::{FailoverRequest, JournalKind, MemberName, Process, Role, State, Timeline};

use super::{Action, JobReport, Machine, OperatorRequest, StepOutcome};
use crate::decision::Step;
use crate::time::Moment;

/// What was last told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// `None` until the cluster was read.
    leader: Option<Option<MemberName>>,
    store_away: bool,
    server: Option<(Role, State, Option<Timeline>)>,
    process: Option<i32>,
    /// Where WAL streams from, where it does.
    streams: Option<String>,
    paused: bool,
    request: Option<FailoverRequest>,
}

impl Machine {
    /// Tells what is not as it was when it was last looked at.
    pub(super) fn tell_changes(&mut self, now: Moment, wall: Timestamp, actions: &mut Vec<Action>) {
        let mut texts = Vec::new();
        self.store_changes(&mut texts);
        self.server_changes(&mut texts);
        for text in texts {
            self.tell(JournalKind::Event, text, now, wall, actions);
        }
    }

    fn store_changes(&mut self, texts: &mut Vec<String>) {
        let away = self.view.is_none() && self.memory.store_seen;
        if away != self.seen.store_away {
            self.seen.store_away = away;
            self.rations.begin_episode();
            texts.push(if away {
                "the store does not answer".into()
            } else {
                "the store answers again".into()
            });
        }
        let Some(view) = &self.view else {
            return;
        };
        let leader = Some(view.leader_name().cloned());
        if leader != self.seen.leader {
            let before = std::mem::replace(&mut self.seen.leader, leader.clone()).flatten();
            texts.push(match (before, leader.flatten()) {
                (None, Some(leader)) => format!("{leader} leads"),
                (Some(before), Some(leader)) => format!("{leader} leads; before it {before} did"),
                (Some(before), None) => format!("nobody leads; before {before} did"),
                (None, None) => "nobody leads".into(),
            });
            self.rations.begin_episode();
        }
        if self.global.pause != self.seen.paused {
            self.seen.paused = self.global.pause;
            texts.push(if self.global.pause {
                "the cluster is paused: nothing fails over by itself".into()
            } else {
                "the cluster is no longer paused".into()
            });
        }
        let request = &view.failover;
        if *request != self.seen.request {
            self.seen.request.clone_from(request);
            texts.push(match request {
                Some(request) => describe_request(request),
                None => "no switchover or failover is requested any more".into(),
            });
        }
    }

    fn server_changes(&mut self, texts: &mut Vec<String>) {
        let process = match self.server.process {
            Process::Running(identity) => Some(identity.pid),
            _ => None,
        };
        if process != self.seen.process {
            match (self.seen.process, process) {
                (_, Some(pid)) => texts.push(format!("PostgreSQL runs as process {pid}")),
                (Some(pid), None) => texts.push(format!("PostgreSQL's process {pid} is gone")),
                (None, None) => {}
            }
            self.seen.process = process;
        }
        let receiver = self
            .server
            .wal
            .as_ref()
            .and_then(|wal| wal.receiver.as_ref());
        let streams = receiver
            .filter(|receiver| receiver.status == "streaming")
            .map(
                |receiver| match (&receiver.sender_host, receiver.sender_port) {
                    (Some(host), Some(port)) => format!("{host}:{port}"),
                    (Some(host), None) => host.clone(),
                    _ => "its upstream".into(),
                },
            );
        if streams != self.seen.streams && process.is_some() {
            texts.push(match (&self.seen.streams, &streams) {
                (_, Some(source)) => format!("WAL streams from {source}"),
                (before, None) => format!(
                    "WAL streams no longer from {}",
                    before.as_deref().unwrap_or_default()
                ),
            });
            self.seen.streams = streams;
        }
        let memory = &self.memory;
        let timeline = self.server.wal.as_ref().and_then(|wal| wal.timeline);
        let server = Some((memory.role, memory.state, timeline));
        if server == self.seen.server {
            return;
        }
        let mut text = format!(
            "PostgreSQL: {}, {}",
            memory.role.as_str(),
            memory.state.as_str()
        );
        if let Some(timeline) = timeline {
            text.push_str(&format!(", timeline {timeline}"));
        }
        if let Some((role, state, _)) = self.seen.server {
            text.push_str(&format!("; before {}, {}", role.as_str(), state.as_str()));
        }
        self.seen.server = server;
        texts.push(text);
    }
}

/// What came of steps and jobs, and what is asked of this member.
impl Machine {
    /// A step that was done needs no word: what follows shows it.
    pub(super) fn tell_step(
        &mut self,
        step: &Step,
        outcome: &StepOutcome,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let text = match outcome {
            StepOutcome::Done => return,
            StepOutcome::Refused => {
                format!("{step}: refused, somebody else changed the key first")
            }
            StepOutcome::NeedsRestart => format!("{step}: takes a restart"),
            StepOutcome::Failed(reason) => format!("{step}: failed: {reason}"),
        };
        self.tell(JournalKind::Result, text, now, wall, actions);
    }

    pub(super) fn tell_job(
        &mut self,
        report: &JobReport,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = &self.job else {
            return;
        };
        let came = match report {
            JobReport::Done => "done".into(),
            JobReport::Started { ready: true, .. } => "PostgreSQL accepts connections".into(),
            JobReport::Started { ready: false, .. } => "PostgreSQL is still starting".into(),
            JobReport::Stopped {
                shutdown_lsn: Some(lsn),
            } => format!("PostgreSQL has stopped, its WAL ends at {lsn}"),
            JobReport::Stopped { shutdown_lsn: None } => "PostgreSQL has stopped".into(),
            JobReport::Compared(Some(true)) => "the local WAL left the leader's".into(),
            JobReport::Compared(Some(false)) => "the local WAL is part of the leader's".into(),
            JobReport::Compared(None) => "the comparison could not be made".into(),
            JobReport::RewindLater(reason) => format!("not now: {reason}"),
            JobReport::PrePromoteFailed => "pre_promote forbade it".into(),
            JobReport::Cancelled => "cancelled".into(),
            JobReport::RewindFailed(reason) | JobReport::Failed(reason) => {
                format!("failed: {reason}")
            }
        };
        let took = now.since(job.since).as_secs_f64();
        let text = format!("{}: {came}, after {took:.1} s", job.job.name());
        self.tell(JournalKind::Result, text, now, wall, actions);
    }

    pub(super) fn tell_request(
        &mut self,
        request: &OperatorRequest,
        now: Moment,
        wall: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let what = match request {
            OperatorRequest::WakeUp => return,
            OperatorRequest::Restart { .. } => "to restart PostgreSQL".into(),
            OperatorRequest::Reinitialize { .. } => "to copy the data directory anew".into(),
            OperatorRequest::ScheduleRestart { restart, .. } => {
                format!("to restart PostgreSQL at {}", restart.schedule)
            }
            OperatorRequest::DeleteScheduledRestart { .. } => {
                "to forget the scheduled restart".into()
            }
        };
        let text = format!("an operator asks {what}");
        self.tell(JournalKind::Event, text, now, wall, actions);
    }
}

fn describe_request(request: &FailoverRequest) -> String {
    let mut text = match (&request.leader, &request.candidate) {
        (Some(leader), Some(candidate)) => {
            format!("a switchover from {leader} to {candidate} is requested")
        }
        (Some(leader), None) => format!("a switchover from {leader} is requested"),
        (None, Some(candidate)) => format!("a failover to {candidate} is requested"),
        (None, None) => "a failover is requested".into(),
    };
    if let Some(at) = &request.scheduled_at {
        text.push_str(&format!(" for {}", at.text()));
    }
    text
}
