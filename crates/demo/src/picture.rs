//! How the live view is drawn from what is known at one moment.

use std::time::Duration;

use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, Wrap};

use crate::events::Event;
use crate::process::Life;
use crate::status::{MemberStatus, lags};
use crate::writer::{OUTAGE, Tally};

/// From here on events and report stand side by side.
const WIDE: u16 = 130;

/// Everything that is shown.
pub(crate) struct Picture {
    pub(crate) directory: String,
    /// The cluster has been complete, and faults may come.
    pub(crate) complete: bool,
    pub(crate) statuses: Vec<MemberStatus>,
    pub(crate) tally: Tally,
    /// Acknowledged transactions per second.
    pub(crate) rate: f64,
    /// Since the last acknowledgement.
    pub(crate) waiting: Duration,
    pub(crate) last_outage: Option<Duration>,
    pub(crate) events: Vec<Event>,
    /// A fault is being seen through.
    pub(crate) observing: bool,
    /// The account of the last fault.
    pub(crate) report: Option<String>,
    pub(crate) scroll: u16,
}

pub(crate) fn draw(frame: &mut Frame, picture: &Picture) {
    let members = picture.statuses.len() as u16;
    let [title, cluster, writer, rest, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(members + 3),
        Constraint::Length(4),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let halves = [Constraint::Fill(2), Constraint::Fill(3)];
    let [events, report] = match rest.width >= WIDE {
        true => Layout::horizontal(halves).areas(rest),
        false => Layout::vertical(halves).areas(rest),
    };
    let heading = Line::from(vec![
        " Primacy ".bold().reversed(),
        "  ".into(),
        picture.directory.as_str().dim(),
    ]);
    frame.render_widget(heading, title);
    draw_cluster(frame, cluster, picture);
    draw_writer(frame, writer, picture);
    draw_events(frame, events, picture);
    draw_report(frame, report, picture);
    draw_keys(frame, keys, picture);
}

fn draw_cluster(frame: &mut Frame, area: Rect, picture: &Picture) {
    let lags = lags(&picture.statuses);
    let rows = picture.statuses.iter().zip(lags).map(|(status, lag)| {
        let told = status.told.as_ref();
        let text = |value: Option<String>| Cell::from(value.unwrap_or_else(|| "-".into()));
        let role = match told {
            Some(told) if told.sync_standby => "sync standby".to_owned(),
            Some(told) => told.role.clone(),
            None => "no answer".to_owned(),
        };
        let state = told.map(|told| {
            told.replication_state
                .as_ref()
                .unwrap_or(&told.state)
                .clone()
        });
        let row = Row::new([
            Cell::from(if status.primary { "leads" } else { "" }),
            Cell::from(status.name.clone()),
            Cell::from(role),
            text(state),
            text(
                told.and_then(|told| told.timeline)
                    .map(|timeline| timeline.to_string()),
            ),
            text(
                told.and_then(|told| told.position)
                    .map(|position| position.to_string()),
            ),
            text(lag.map(|lag| format!("{lag} B"))),
            life_cell(status.agent),
            life_cell(status.postmaster),
        ]);
        if status.primary {
            row.style(Style::new().bold())
        } else {
            row
        }
    });
    let widths = [6, 7, 13, 20, 3, 12, 12, 7, 10].map(Constraint::Length);
    let header = [
        "",
        "Member",
        "Role",
        "State",
        "TL",
        "LSN",
        "Lag",
        "Agent",
        "Postmaster",
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().dim()))
        .block(Block::bordered().title(" Cluster "));
    frame.render_widget(table, area);
}

fn life_cell(life: Life) -> Cell<'static> {
    match life {
        Life::Alive => Cell::from("alive".fg(Color::Green)),
        Life::Frozen => Cell::from("frozen".fg(Color::Cyan)),
        Life::Dead => Cell::from("dead".fg(Color::Red)),
    }
}

fn draw_writer(frame: &mut Frame, area: Rect, picture: &Picture) {
    let Picture {
        tally,
        rate,
        waiting,
        last_outage,
        ..
    } = picture;
    let total = tally.acknowledged.len();
    let counts = format!(
        "{rate:.0} transactions/s   {total} acknowledged   {} without an answer",
        tally.unknown
    );
    let outage = if total == 0 {
        "waiting for a primary".into()
    } else if *waiting >= OUTAGE {
        Span::styled(
            format!("OUTAGE for {} ms", waiting.as_millis()),
            Style::new().fg(Color::Red).bold(),
        )
    } else {
        "writing".fg(Color::Green)
    };
    let last = match last_outage {
        Some(last) => format!("   last outage {} ms", last.as_millis()),
        None => "   no outage yet".to_owned(),
    };
    let lines = vec![Line::from(counts), Line::from(vec![outage, last.into()])];
    let block = Block::bordered().title(" Writer ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_events(frame: &mut Frame, area: Rect, picture: &Picture) {
    let visible = usize::from(area.height.saturating_sub(2));
    let skipped = picture.events.len().saturating_sub(visible);
    let lines: Vec<Line> = picture.events[skipped..]
        .iter()
        .map(|event| {
            let time = event
                .at
                .to_zoned(TimeZone::system())
                .strftime("%H:%M:%S%.3f")
                .to_string();
            Line::from(vec![
                time.dim(),
                format!("  {:<7}", event.member).bold(),
                event.text.as_str().into(),
            ])
        })
        .collect();
    let block = Block::bordered().title(" Events ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_report(frame: &mut Frame, area: Rect, picture: &Picture) {
    let text = match &picture.report {
        _ if picture.observing => "the fault is being seen through ...",
        Some(report) => report,
        None => "no fault yet",
    };
    let block = Block::bordered().title(" Last fault ");
    let paragraph = Paragraph::new(text)
        .wrap(Wrap { trim: false })
        .scroll((picture.scroll, 0))
        .block(block);
    frame.render_widget(paragraph, area);
}

fn draw_keys(frame: &mut Frame, area: Rect, picture: &Picture) {
    const FAULTS: [(&str, &str); 5] = [
        ("k", "kill primary"),
        ("p", "kill PostgreSQL"),
        ("f", "freeze agent"),
        ("s", "switch over"),
        ("b", "bring back"),
    ];
    let faults = FAULTS.iter().filter(|_| picture.complete);
    let mut spans = vec![];
    if !picture.complete {
        spans.push(" the cluster is being made ...  ".into());
    }
    for (key, what) in faults.chain([&("q", "quit")]) {
        spans.push(format!(" {key} ").reversed());
        spans.push(format!(" {what}  ").into());
    }
    frame.render_widget(Line::from(spans), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_model::Lsn;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use crate::status::Told;

    fn picture() -> Picture {
        let told = |role: &str, position: u64| Told {
            role: role.into(),
            state: "running".into(),
            sync_standby: role == "replica",
            timeline: Some(2),
            replication_state: (role == "replica").then(|| "streaming".into()),
            position: Some(Lsn(position)),
        };
        let member = |name: &str, told: Option<Told>| MemberStatus {
            name: name.into(),
            agent: if told.is_some() {
                Life::Alive
            } else {
                Life::Frozen
            },
            postmaster: if told.is_some() {
                Life::Alive
            } else {
                Life::Dead
            },
            primary: name == "pg2",
            told,
        };
        Picture {
            directory: "/tmp/primacy-demo-x".into(),
            complete: true,
            statuses: vec![
                member("pg1", Some(told("replica", 0x3000000))),
                member("pg2", Some(told("primary", 0x3000400))),
                member("pg3", None),
            ],
            tally: Tally::default(),
            rate: 512.4,
            waiting: Duration::ZERO,
            last_outage: Some(Duration::from_millis(5123)),
            events: vec![Event {
                at: "2026-01-01T10:00:00Z".parse().unwrap(),
                member: "pg3".into(),
                text: "no postmaster runs".into(),
            }],
            observing: false,
            report: Some("kill-node: pg2 took over from pg3".into()),
            scroll: 0,
        }
    }

    fn screen(picture: &Picture, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, picture)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_on_the_screen() {
        for width in [100, 160] {
            let screen = screen(&picture(), width, 30);
            let words: Vec<&str> = screen.split_whitespace().collect();
            let line = words.join(" ");
            for text in [
                "/tmp/primacy-demo-x",
                "pg1 sync standby streaming 2 0/3000000 1024 B alive alive",
                "leads pg2 primary running 2 0/3000400 - alive alive",
                "pg3 no answer - - - - frozen dead",
                "512 transactions/s",
                "last outage 5123 ms",
                "pg3 no postmaster runs",
                "kill-node: pg2 took over from pg3",
                "k kill primary",
            ] {
                assert!(line.contains(text), "{text:?} is missing in\n{screen}");
            }
        }
    }

    #[test]
    fn small_terminals_do_no_harm() {
        for (width, height) in [(1, 1), (20, 5), (79, 12)] {
            screen(&picture(), width, height);
        }
    }

    #[test]
    fn faults_are_offered_when_the_cluster_is_complete() {
        let picture = Picture {
            complete: false,
            ..picture()
        };
        let screen = screen(&picture, 120, 30);
        assert!(!screen.contains("kill primary"));
        assert!(screen.contains("quit"));
    }
}
