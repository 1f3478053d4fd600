//! The live view: topology, writer, events and the account of the last fault, and the keys that inflict
//! faults.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::Fault;
use crate::events::DEMO;
use crate::picture::{Picture, draw};
use crate::process::Life;
use crate::report::Report;
use crate::scenario::Demo;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// The writer's rate is that of the last so long.
const RATE_OVER: Duration = Duration::from_secs(2);
/// Of events in the picture; a terminal shows fewer.
const EVENTS: usize = 100;
/// Keys typed ahead.
const KEYS: usize = 16;

/// Shows the demo until the user leaves, then prints what the faults led to.
pub(crate) async fn run(demo: Arc<Demo>) -> anyhow::Result<()> {
    let mut view = View::new(demo)?;
    let ended = view.run().await;
    let reports = std::mem::take(&mut view.reports);
    // Gives the terminal back.
    drop(view);
    for report in reports {
        println!("{report}");
    }
    ended
}

struct View {
    demo: Arc<Demo>,
    terminal: DefaultTerminal,
    keys: Keys,
    /// Faults that are being seen through.
    observers: JoinSet<Report>,
    reports: Vec<Report>,
    /// Transactions acknowledged by then.
    samples: VecDeque<(Instant, u64)>,
    complete: bool,
    scroll: u16,
}

impl Drop for View {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl View {
    fn new(demo: Arc<Demo>) -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().context("the terminal cannot be used")?;
        Ok(View {
            demo,
            terminal,
            keys: Keys::read(),
            observers: JoinSet::new(),
            reports: Vec::new(),
            samples: VecDeque::new(),
            complete: false,
            scroll: 0,
        })
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let demo = self.demo.clone();
        let ready = demo.ready();
        tokio::pin!(ready);
        loop {
            tokio::select! {
                _ = frames.tick() => self.draw()?,
                outcome = &mut ready, if !self.complete => {
                    outcome?;
                    self.complete = true;
                    self.demo.cluster.events.add(DEMO, "the cluster is complete");
                }
                Some(Ok(report)) = self.observers.join_next() => {
                    self.reports.push(report);
                    self.scroll = 0;
                }
                key = self.keys.receiver.recv() => match key {
                    Some(key) if self.press(key) => {}
                    _ => return Ok(()),
                },
            }
        }
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let tally = self.demo.writer.tally();
        let now = Instant::now();
        let total = tally.acknowledged.len();
        self.samples.push_back((now, total));
        while let Some((at, _)) = self.samples.front()
            && now - *at > RATE_OVER
        {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0.0, |(at, before)| {
            (total - before) as f64 / (now - *at).as_secs_f64().max(FRAME.as_secs_f64())
        });
        let picture = Picture {
            directory: self.demo.cluster.directory().display().to_string(),
            complete: self.complete,
            statuses: self.demo.statuses.borrow().clone(),
            rate,
            waiting: tally.waiting(now),
            last_outage: tally.last_outage(),
            tally,
            events: self.demo.cluster.events.last(EVENTS),
            observing: !self.observers.is_empty(),
            report: self.reports.last().map(ToString::to_string),
            scroll: self.scroll,
        };
        self.terminal
            .draw(|frame| draw(frame, &picture))
            .context("cannot draw")?;
        Ok(())
    }

    /// What a key does. `false` leaves.
    fn press(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return false,
            KeyCode::Char('q') => return false,
            KeyCode::Down => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(10),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Char(_) if !self.complete => {}
            KeyCode::Char('k') => self.strike(Fault::KillNode),
            KeyCode::Char('p') => self.strike(Fault::KillPostgres),
            KeyCode::Char('s') => self.strike(Fault::Switchover),
            KeyCode::Char('f') => self.freeze_or_release(),
            KeyCode::Char('b') => self.bring_all_back(),
            _ => {}
        }
        true
    }

    /// Inflicts a fault and sees it through beside the view.
    fn strike(&mut self, fault: Fault) {
        let mut strike = match self.demo.strike(fault) {
            Ok(strike) => strike,
            Err(error) => return self.say(&format!("{error:#}")),
        };
        let demo = self.demo.clone();
        self.observers.spawn(async move {
            let taken_over = demo.takeover(&mut strike).await;
            let mut report = demo
                .report(&strike, taken_over.as_ref().ok().copied())
                .await;
            if let Err(error) = taken_over {
                report.problem = Some(format!("{error:#}"));
            }
            report
        });
    }

    fn freeze_or_release(&mut self) {
        if !self.bring_back(|life| life == Life::Frozen) {
            self.strike(Fault::FreezeAgent);
        }
    }

    fn bring_all_back(&self) {
        if !self.bring_back(|life| life != Life::Alive) {
            self.say("every agent lives");
        }
    }

    /// Brings back the agents in such a state; `false` if there was none.
    fn bring_back(&self, wanted: impl Fn(Life) -> bool) -> bool {
        let cluster = &self.demo.cluster;
        let mut any = false;
        for member in 0..cluster.members().len() {
            if wanted(cluster.agent_life(member)) {
                any = true;
                if let Err(error) = cluster.bring_back(member) {
                    self.say(&format!("{error:#}"));
                }
            }
        }
        any
    }

    fn say(&self, text: &str) {
        self.demo.cluster.events.add(DEMO, text);
    }
}

/// Keys as they are pressed, read by a thread of their own since reading a terminal blocks.
struct Keys {
    receiver: mpsc::Receiver<KeyEvent>,
    stop: Arc<AtomicBool>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Keys {
    fn read() -> Self {
        let (sender, receiver) = mpsc::channel(KEYS);
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let key = match event::poll(FRAME) {
                    Ok(true) => event::read(),
                    Ok(false) => continue,
                    Err(_) => return,
                };
                match key {
                    Ok(TerminalEvent::Key(key)) if key.kind == KeyEventKind::Press => {
                        // A full channel means that somebody leans on a key.
                        let _ = sender.try_send(key);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Keys { receiver, stop }
    }
}
