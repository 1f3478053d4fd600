//! pg_rewind and what belongs to it (`ha.md` §8), and crash recovery (§7).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use primacy_model::{ControlState, Lsn, Process, Timeline};
use tokio::time::Instant;

use crate::command::Run;
use crate::conninfo::Conninfo;
use crate::history::{HistoryLine, parse_history};
use crate::session::Connection;
use crate::unfinished::Unfinished;
use crate::walsender_client::WalsenderClient;
use crate::{CommandError, Error, Server, StopMode, StopRequest, Until, files, postmaster};

/// SQLSTATE insufficient_privilege.
const NO_PERMISSION: &str = "42501";
/// What it says with `--progress` when it has all that it needs to know: from then on it writes. Before 12 it does so on
/// standard output.
const BEGINS_TO_WRITE: &str = "need to copy";
/// For small files.
const FILES: Duration = Duration::from_secs(30);
/// The one that initdb makes: it has no history.
const FIRST_TIMELINE: Timeline = Timeline(1);

/// Where this server's WAL ends (`ha.md` §8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPosition {
    /// Timeline.
    pub timeline: Timeline,
    /// Replayed, or the shutdown checkpoint of a former primary.
    pub lsn: Lsn,
    /// It was a standby.
    pub in_recovery: bool,
}

/// Whether this server's WAL left the primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// It must be rewound or copied afresh.
    Diverged,
    /// It can follow.
    Same,
    /// Not known now; ask again.
    Undecided,
}

/// What is compared with it: the primary.
#[derive(Clone, Copy, Debug)]
pub struct PrimaryPosition<'a> {
    /// Its timeline.
    pub timeline: Timeline,
    /// Where it inserts WAL, read after the local position.
    pub inserted: Lsn,
    /// The history of its timeline, `None` when it could not be had.
    pub history: Option<&'a [HistoryLine]>,
}

/// The rule of `ha.md` §8.3.4, and one more. `local_history` is that of the local timeline, if there is a file of it;
/// `checkpoint_end` is where a former primary's shutdown checkpoint record ends, if that is known and nothing
/// follows it.
///
/// Two members that were promoted from the same timeline without knowing of each other give theirs the same number.
/// So timelines that both histories have must have been left at the same places, and on a timeline of the same
/// number nobody can have more than the primary; else PostgreSQL would not stream, or would stream what does not fit.
pub fn divergence(
    local: LocalPosition,
    local_history: Option<&[HistoryLine]>,
    primary: PrimaryPosition<'_>,
    checkpoint_end: Option<Lsn>,
) -> Divergence {
    let diverged = |diverged: bool| {
        if diverged {
            Divergence::Diverged
        } else {
            Divergence::Same
        }
    };
    if local.timeline > primary.timeline {
        return Divergence::Diverged;
    }
    let left_at = |history: &[HistoryLine], timeline: Timeline| {
        let line = history.iter().find(|line| line.timeline == timeline);
        line.map(|line| line.switch_lsn)
    };
    if let (Some(mine), Some(theirs)) = (local_history, primary.history)
        && mine
            .iter()
            .any(|line| left_at(theirs, line.timeline) != Some(line.switch_lsn))
    {
        return Divergence::Diverged;
    }
    if local.timeline == primary.timeline {
        return diverged(local.lsn > primary.inserted);
    }
    let Some(history) = primary.history else {
        return Divergence::Same;
    };
    match left_at(history, local.timeline) {
        Some(switch) => diverged(match local.in_recovery {
            true => local.lsn > switch,
            false => local.lsn >= switch || checkpoint_end != Some(switch),
        }),
        None => Divergence::Diverged,
    }
}

/// What to rewind to.
#[derive(Clone, Debug)]
pub struct RewindSource {
    /// Host, port, database.
    pub conninfo: Conninfo,
    /// Its member key says that the checkpoint after its promotion was made. False when it gives no such
    /// information (a remote member): then a checkpoint is made, or looked for. A source that says *not yet*
    /// is not rewound to at all (`ha.md` §8.5.3).
    pub checkpoint_confirmed: bool,
}

/// How a rewind ended (`ha.md` §8.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewindOutcome {
    /// The data directory can follow the source.
    Rewound,
    /// Not started: the source is not ready. Ask again.
    SourceNotReady(String),
    /// Failed while the source could not be reached, and the data directory is still rewindable. Ask again.
    SourceLost(String),
    /// Failed; another attempt would too.
    Failed(String),
}

/// What pg_rewind did.
enum Rewound {
    Yes,
    NothingToDo,
}

impl Server {
    /// Whether pg_rewind can work here: binary runs, control file has `wal_log_hints` or checksums.
    pub async fn can_rewind(&self, deadline: Instant) -> bool {
        let binary = self.settings().binary("pg_rewind");
        let runs = Run::new(binary)
            .arg("--help")
            .quiet()
            .success(&Until::deadline(deadline))
            .await;
        let control = self.control_file(deadline).await;
        runs.is_ok() && control.is_ok_and(|control| control.data.rewindable)
    }

    /// Where this server's WAL ends, running or not; `None` when it cannot be known now.
    pub async fn local_position(&self, deadline: Instant) -> Option<LocalPosition> {
        if let Ok(Process::Running(_)) = self.process(deadline).await
            && let Ok(position) = self.running_position(deadline).await
        {
            return position;
        }
        let control = self.control_file(deadline).await.ok()?.data;
        let standby = control
            .min_recovery_timeline
            .filter(|_| control.min_recovery_lsn != Lsn::ZERO);
        match (control.state, standby) {
            (
                ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery,
                Some(timeline),
            ) => Some(LocalPosition {
                timeline,
                lsn: control.min_recovery_lsn,
                in_recovery: true,
            }),
            // Recovery never got anywhere: its WAL ends as that of the primary it was.
            (
                ControlState::ShutDown
                | ControlState::ShutDownInRecovery
                | ControlState::InArchiveRecovery,
                _,
            ) => Some(LocalPosition {
                timeline: control.checkpoint_timeline?,
                lsn: control.checkpoint_lsn,
                in_recovery: false,
            }),
            _ => None,
        }
    }

    /// `None` while the server still replays what it has, with nobody to get more from: it accepts connections before
    /// that has come to its end.
    async fn running_position(&self, deadline: Instant) -> Result<Option<LocalPosition>, Error> {
        let timeline = self.local_identity(deadline).await?.timeline;
        // Where it has nothing to replay, the startup process waits, and says for what.
        let sql = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() \
                   THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, \
                   EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity WHERE backend_type = 'startup' \
                   AND (wait_event IS NULL OR wait_event_type = 'IO')) \
                   AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_get_wal_receiver() WHERE pid IS NOT NULL)";
        let rows = self.query(sql, deadline).await?;
        let unknown = || Error::NotPossible("PostgreSQL gave no position".into());
        let row = rows.first().ok_or_else(unknown)?;
        let lsn = row
            .get(1)
            .and_then(|text| text.parse().ok())
            .ok_or_else(unknown)?;
        let replays = row.get(2) == Some("t");
        Ok((!replays).then_some(LocalPosition {
            timeline,
            lsn,
            in_recovery: row.get(0) == Some("t"),
        }))
    }

    /// IDENTIFY_SYSTEM of the local server: the timeline that a standby is on.
    pub async fn local_identity(&self, deadline: Instant) -> Result<crate::SystemIdentity, Error> {
        let settings = self.settings();
        let local = Conninfo::new(
            &settings.local_replication.host(),
            settings.port,
            &settings.database,
        );
        let mut client = WalsenderClient::connect(&local, &settings.replication, deadline).await?;
        client.identify_system(deadline).await
    }

    /// Compares this server with a primary (`ha.md` §8.3, steps 1, 3 and 4).
    pub async fn check_divergence(&self, primary: &Conninfo, deadline: Instant) -> Divergence {
        let Some(local) = self.local_position(deadline).await else {
            return Divergence::Undecided;
        };
        match self.compare(local, primary, deadline).await {
            Ok(divergence) => divergence,
            Err(error) => {
                tracing::warn!("cannot compare timelines: {error}");
                Divergence::Undecided
            }
        }
    }

    async fn compare(
        &self,
        local: LocalPosition,
        primary: &Conninfo,
        deadline: Instant,
    ) -> Result<Divergence, Error> {
        let settings = self.settings();
        let (primary, session) = self.find_primary(primary, deadline).await?;
        let mut client =
            WalsenderClient::connect(&primary, &settings.replication, deadline).await?;
        let identified = client.identify_system(deadline).await?;
        let theirs = identified.timeline;
        tracing::info!(
            "local position: timeline={} lsn={} in_recovery={}, primary timeline={theirs}",
            local.timeline,
            local.lsn,
            local.in_recovery
        );
        let mut history = None;
        let mut local_history = None;
        let mut checkpoint_end = None;
        if local.timeline <= theirs && theirs > FIRST_TIMELINE {
            match client.timeline_history(theirs, deadline).await {
                Ok(text) => history = parse_history(&text).ok(),
                Err(error) => tracing::warn!("no history of timeline {theirs}: {error}"),
            }
            local_history = match self.local_history(local.timeline, deadline).await? {
                Some((lines, _)) => Some(lines),
                None if local.timeline == FIRST_TIMELINE => Some(Vec::new()),
                None => None,
            };
        }
        if local.timeline < theirs && !local.in_recovery {
            checkpoint_end = self
                .end_of_checkpoint(local.lsn, local.timeline, deadline)
                .await;
        }
        let inserted = "SELECT pg_catalog.pg_current_wal_insert_lsn()";
        let inserted = session.value(inserted, deadline).await?;
        let inserted = inserted.and_then(|text| text.parse().ok());
        let primary = PrimaryPosition {
            timeline: theirs,
            inserted: inserted.ok_or_else(|| Error::NotPossible("it gave no position".into()))?,
            history: history.as_deref(),
        };
        let by_history = divergence(local, local_history.as_deref(), primary, checkpoint_end);
        if by_history != Divergence::Same {
            return Ok(by_history);
        }
        // Who rewinds to a primary must replay up to where it inserted then, which it may not have flushed yet.
        // Nobody streams that far: it is the primary's WAL only where the bytes say so.
        let unflushed = local.timeline == theirs && local.lsn > identified.lsn;
        let same = self.has_same_wal(local, &session, theirs, deadline).await;
        let same = same.unwrap_or_else(|error| {
            tracing::info!("the WAL itself was not compared: {error}");
            None
        });
        if same == Some(false) {
            tracing::warn!(
                "the WAL before {} is another one than the primary's: timeline {} was begun twice",
                local.lsn,
                local.timeline
            );
        }
        Ok(match same {
            Some(false) => Divergence::Diverged,
            None if unflushed => Divergence::Undecided,
            _ => Divergence::Same,
        })
    }

    /// The one of several hosts that is a primary, and a session on it.
    pub(crate) async fn find_primary(
        &self,
        candidates: &Conninfo,
        deadline: Instant,
    ) -> Result<(Conninfo, Connection), Error> {
        let mut failure = Error::NotPossible(format!("{} is no address", candidates.address()));
        for (host, port) in candidates.addresses() {
            let one = candidates
                .clone()
                .with("host", &host)
                .with("port", &port.to_string());
            match self.connect_primary(&one, deadline).await {
                Ok(connection) => return Ok((one, connection)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A session on a primary as the rewind user; an error when it is in recovery.
    async fn connect_primary(
        &self,
        primary: &Conninfo,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let settings = self.settings();
        let credentials = settings.rewind_credentials();
        let connection = Connection::open(primary, credentials, "Patroni", true, deadline).await?;
        match connection
            .value("SELECT pg_catalog.pg_is_in_recovery()", deadline)
            .await?
            .as_deref()
        {
            Some("f") => Ok(connection),
            _ => Err(Error::NotPossible(format!(
                "{} is still in recovery",
                primary.address()
            ))),
        }
    }

    /// Stops the server if it runs, brings an unclean one to an end by crash recovery, archives what waits,
    /// and rewinds. Leaves it stopped.
    ///
    /// A run that ends otherwise after it began to write leaves what nobody can start or rewind any more: it would find
    /// its source's WAL where it looks for what this server did. That is marked durably beside the data directory.
    ///
    /// Errors: those of the stop and of crash recovery; cancellation, with that mark where it is due.
    pub async fn rewind(
        &self,
        source: &RewindSource,
        until: Until,
    ) -> Result<RewindOutcome, Error> {
        let stop = StopRequest {
            mode: StopMode::Fast,
            checkpoint: false,
            timeout: None,
            events: None,
        };
        tokio::select! {
            stopped = self.stop(stop) => stopped.map(drop)?,
            () = until.cancel.cancelled() => return Err(Error::Cancelled { what: "the rewind".into() }),
            () = tokio::time::sleep_until(until.deadline) => return Err(Error::deadline("the rewind")),
        }
        let state = self.control_file(until.deadline).await?.data.state;
        if !matches!(
            state,
            ControlState::ShutDown | ControlState::ShutDownInRecovery
        ) {
            self.crash_recovery(until.clone()).await?;
        }
        self.archive_ready_wal(&until).await?;
        let found = self.find_primary(&source.conninfo, until.deadline).await;
        let source = match found {
            Ok((conninfo, _)) => &RewindSource {
                conninfo,
                ..source.clone()
            },
            Err(error) => return Ok(RewindOutcome::SourceNotReady(error.to_string())),
        };
        if let Err(error) = self.source_ready(source, until.deadline).await {
            return Ok(RewindOutcome::SourceNotReady(error.to_string()));
        }
        if let Err(error) = self.mark_begun(Unfinished::Rewind, until.deadline).await {
            // Availability over safety, for once: where nothing can be written beside a mount point, nobody could rewind.
            tracing::warn!("the data would be used although pg_rewind is interrupted: {error}");
        }
        let writes = AtomicBool::new(false);
        let run = self.run_rewind(source, &writes, &until).await;
        let writes = writes.into_inner();
        if run.is_ok() || !writes {
            let soon = Instant::now() + FILES;
            self.mark_finished(Unfinished::Rewind, soon).await?;
        }
        let error = match run {
            Ok(Rewound::Yes) => return Ok(RewindOutcome::Rewound),
            Ok(Rewound::NothingToDo) => {
                return Ok(self.after_no_rewind(source, until.deadline).await);
            }
            Err(error) if error.is_cancelled() || error.is_deadline() => return Err(error),
            Err(error) if writes => {
                return Ok(RewindOutcome::Failed(format!(
                    "it was interrupted while it wrote: {error}"
                )));
            }
            Err(error) => error.to_string(),
        };
        let reachable = self
            .connect_primary(&source.conninfo, until.deadline)
            .await
            .is_ok();
        Ok(match reachable || !self.can_rewind(until.deadline).await {
            true => RewindOutcome::Failed(error),
            false => RewindOutcome::SourceLost(error),
        })
    }

    /// pg_rewind finds nothing to do where a comparison found too much out of caution (`ha.md` §8.3.4), and with two
    /// timelines of the same number. The latter are told by asking again, as of a standby.
    async fn after_no_rewind(&self, source: &RewindSource, deadline: Instant) -> RewindOutcome {
        let Some(local) = self.local_position(deadline).await else {
            return RewindOutcome::Rewound;
        };
        let like_a_standby = LocalPosition {
            in_recovery: true,
            ..local
        };
        match self
            .compare(like_a_standby, &source.conninfo, deadline)
            .await
        {
            Ok(Divergence::Diverged) => RewindOutcome::Failed(format!(
                "it finds nothing to do, and yet the WAL is another one than that of {}: timeline {} was begun \
                 twice, and only a new copy helps",
                source.conninfo.address(),
                local.timeline
            )),
            Ok(_) => RewindOutcome::Rewound,
            Err(error) => RewindOutcome::SourceLost(error.to_string()),
        }
    }

    /// The source has made its checkpoint after the promotion: only then does its control file, from which
    /// pg_rewind learns the timeline, name the new one (`ha.md` §8.5.3, W24).
    async fn source_ready(&self, source: &RewindSource, deadline: Instant) -> Result<(), Error> {
        let settings = self.settings();
        let connection = self.connect_primary(&source.conninfo, deadline).await?;
        let superuser = settings.superuser.username == settings.rewind_credentials().username;
        if !source.checkpoint_confirmed && superuser {
            let name = "Patroni";
            let long =
                Connection::open(&source.conninfo, &settings.superuser, name, false, deadline);
            long.await?.query("CHECKPOINT", deadline).await?;
        }
        let sql = "SELECT timeline_id = \
                   ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int \
                   FROM pg_control_checkpoint()";
        match connection.value(sql, deadline).await {
            Ok(Some(same)) if same == "t" => Ok(()),
            Err(Error::Refused { code, .. })
                if code == NO_PERMISSION && source.checkpoint_confirmed =>
            {
                Ok(())
            }
            Ok(_) => Err(Error::NotPossible(format!(
                "{} has not made the checkpoint after its promotion yet",
                source.conninfo.address()
            ))),
            Err(error) => Err(error),
        }
    }

    /// `writes` becomes true when it begins to change what is there.
    async fn run_rewind(
        &self,
        source: &RewindSource,
        writes: &AtomicBool,
        until: &Until,
    ) -> Result<Rewound, Error> {
        let settings = self.settings();
        let major = self.binaries_version(until.deadline).await?;
        let credentials = settings.rewind_credentials();
        let dsn = source
            .conninfo
            .clone()
            .with_credentials(credentials)
            .for_version(major);
        let passwords = self.password_file(&source.conninfo, credentials)?;
        let configured = self
            .configured_value("restore_command", until.deadline)
            .await
            .unwrap_or_default();
        let inside = settings.config_dir.starts_with(&settings.data_dir);
        let built_in = !configured.is_empty() && (major >= 15 || major >= 13 && inside);
        let options = &settings.rewind_options;
        for problem in &options.problems {
            tracing::error!("{problem}");
        }
        let mut fetched = String::new();
        loop {
            let mut run = Run::new(settings.binary("pg_rewind"))
                .kerberos(&settings)
                .c_locale();
            if built_in {
                run = run.arg("--restore-target-wal");
            }
            if major >= 15 && !inside {
                run = run.arg(format!(
                    "--config-file={}",
                    settings.config_file().display()
                ));
            }
            if let Some(file) = &passwords {
                run = run.env("PGPASSFILE", file.path());
            }
            let run = run
                .args(&options.arguments)
                .arg("--progress")
                .arg("-D")
                .arg(&settings.data_dir)
                .arg(format!("--source-server={dsn}"))
                .on_stderr_line(|line| {
                    writes.fetch_or(line.contains(BEGINS_TO_WRITE), Ordering::Relaxed);
                });
            let output = run.output(until).await?;
            writes.fetch_or(output.stdout.contains(BEGINS_TO_WRITE), Ordering::Relaxed);
            if output.status.success() {
                let nothing = [&output.stdout, &output.stderr]
                    .iter()
                    .any(|text| text.contains("no rewind required"));
                return Ok(match nothing {
                    true => Rewound::NothingToDo,
                    false => Rewound::Yes,
                });
            }
            let segment =
                missing_segment(&output.stderr).or_else(|| missing_segment(&output.stdout));
            match segment.filter(|segment| !built_in && *segment != fetched) {
                Some(segment) if self.fetch_wal(&segment, &configured, until).await => {
                    fetched = segment
                }
                _ => {
                    return Err(Error::from(CommandError::Failed {
                        program: settings.binary("pg_rewind"),
                        status: output.status.to_string(),
                        output: output.tail(),
                    }));
                }
            }
        }
    }

    /// Crash recovery in single-user mode (`ha.md` §7): archives what waits, clears `archive_status`,
    /// removes the signal files, and lets a single backend bring the data directory to a clean end.
    pub async fn crash_recovery(&self, until: Until) -> Result<(), Error> {
        self.refuse_root()?;
        if self.process(until.deadline).await?.is_alive() {
            return Err(Error::NotPossible(
                "PostgreSQL is running; there is nothing to recover".into(),
            ));
        }
        self.kill_leftovers(until.deadline).await?;
        self.archive_ready_wal(&until).await?;
        let settings = self.settings();
        let data_dir = settings.data_dir.clone();
        let (options, stale) = self
            .disk("preparing crash recovery", until.deadline, move || {
                let status = data_dir.join("pg_wal/archive_status");
                let entries = std::fs::read_dir(&status).map_err(Error::file("read", &status))?;
                for entry in entries.flatten() {
                    files::remove(&entry.path())?;
                }
                for name in ["standby.signal", "recovery.signal"] {
                    files::remove(&data_dir.join(name))?;
                }
                Ok((
                    postmaster_options(&data_dir),
                    postmaster::stale_pid(&data_dir),
                ))
            })
            .await?;
        let options = match options.is_empty() {
            true => vec![format!(
                "--config-file={}",
                settings.config_file().display()
            )],
            false => options,
        };
        let mut single = Run::new(settings.binary("postgres"));
        if let Some(pid) = stale {
            single = single.env("PG_GRANDPARENT_PID", pid.to_string());
        }
        single
            .args(["--single", "-D"])
            .arg(&settings.data_dir)
            .args(options)
            .args([
                "-c",
                "archive_mode=on",
                "-c",
                "archive_command=false",
                "template1",
            ])
            .c_locale()
            .success(&until)
            .await?;
        Ok(())
    }
}

/// The `--name=value` options that the server last ran with.
fn postmaster_options(data_dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.opts")).unwrap_or_default();
    let words = shell_words::split(text.trim()).unwrap_or_default();
    words
        .into_iter()
        .filter(|word| word.starts_with("--"))
        .collect()
}

/// `could not open file "/data/pg_wal/000000010000000000000002": No such file or directory`
fn missing_segment(output: &str) -> Option<String> {
    let name = |line: &str| {
        let path = line
            .split_once("could not open file \"")?
            .1
            .split_once('"')?
            .0;
        let name = path.rsplit_once("pg_wal/")?.1;
        let segment = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        segment.then(|| name.to_owned())
    };
    output.lines().find_map(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_rules() {
        use Divergence::{Diverged, Same};
        let line = |timeline, lsn| HistoryLine {
            timeline: Timeline(timeline),
            switch_lsn: Lsn(lsn),
            reason: String::new(),
        };
        let history = [line(1, 100), line(2, 200), line(4, 400)];
        for (case, timeline, lsn, in_recovery, primary, known, end, expected) in [
            ("ahead", 6, 0, true, 5, true, None, Diverged),
            ("equal", 5, 999, true, 5, true, None, Same),
            ("equal, former primary", 5, 999, false, 5, true, None, Same),
            (
                "standby before the switch",
                2,
                150,
                true,
                5,
                true,
                None,
                Same,
            ),
            ("standby at the switch", 2, 200, true, 5, true, None, Same),
            (
                "standby past the switch",
                2,
                201,
                true,
                5,
                true,
                None,
                Diverged,
            ),
            (
                "primary past the switch",
                2,
                300,
                false,
                5,
                true,
                Some(200),
                Diverged,
            ),
            (
                "primary at the switch",
                2,
                200,
                false,
                5,
                true,
                Some(300),
                Diverged,
            ),
            (
                "primary whose checkpoint ends at the switch",
                2,
                150,
                false,
                5,
                true,
                Some(200),
                Same,
            ),
            (
                "primary whose checkpoint ends elsewhere",
                2,
                150,
                false,
                5,
                true,
                Some(180),
                Diverged,
            ),
            (
                "primary whose checkpoint end is not known",
                2,
                150,
                false,
                5,
                true,
                None,
                Diverged,
            ),
            (
                "timeline not an ancestor",
                3,
                150,
                true,
                5,
                true,
                None,
                Diverged,
            ),
            ("no line matches", 5, 150, true, 6, true, None, Diverged),
            ("no history", 2, 150, true, 5, false, None, Same),
        ] {
            let local = LocalPosition {
                timeline: Timeline(timeline),
                lsn: Lsn(lsn),
                in_recovery,
            };
            let primary = PrimaryPosition {
                timeline: Timeline(primary),
                inserted: Lsn(1_000),
                history: known.then_some(history.as_slice()),
            };
            assert_eq!(
                divergence(local, None, primary, end.map(Lsn)),
                expected,
                "{case}"
            );
        }
    }

    #[test]
    fn timelines_of_one_number_may_be_two() {
        let line = |timeline, lsn| HistoryLine {
            timeline: Timeline(timeline),
            switch_lsn: Lsn(lsn),
            reason: String::new(),
        };
        let theirs = [line(1, 100), line(2, 200)];
        let judge = |timeline, lsn, mine: &[HistoryLine]| {
            let local = LocalPosition {
                timeline: Timeline(timeline),
                lsn: Lsn(lsn),
                in_recovery: true,
            };
            let primary = PrimaryPosition {
                timeline: Timeline(3),
                inserted: Lsn(300),
                history: Some(&theirs),
            };
            divergence(local, Some(mine), primary, None)
        };
        assert_eq!(judge(3, 250, &theirs), Divergence::Same);
        assert_eq!(
            judge(3, 301, &theirs),
            Divergence::Diverged,
            "more than the primary"
        );
        let other = [line(1, 100), line(2, 190)];
        assert_eq!(
            judge(3, 250, &other),
            Divergence::Diverged,
            "left elsewhere"
        );
        assert_eq!(
            judge(2, 150, &[line(1, 90)]),
            Divergence::Diverged,
            "an ancestor left elsewhere"
        );
        assert_eq!(judge(2, 150, &[line(1, 100)]), Divergence::Same);
        assert_eq!(judge(1, 50, &[]), Divergence::Same);
    }

    #[test]
    fn segments_that_pg_rewind_misses() {
        let text =
            "pg_rewind: error: could not open file \"/d/pg_wal/000000010000000000000002\": No such";
        assert_eq!(
            missing_segment(text).as_deref(),
            Some("000000010000000000000002")
        );
        let text = "pg_rewind: error: could not open file \"/d/pg_wal/00000002.history\": No such";
        assert_eq!(missing_segment(text), None);
    }

    #[test]
    fn options_of_the_last_run() {
        let directory = tempfile::tempdir().unwrap();
        let text =
            "/bin/postgres \"-D\" \"/my data\" \"--config-file=/my data/p.conf\" \"--port=1\"\n";
        std::fs::write(directory.path().join("postmaster.opts"), text).unwrap();
        assert_eq!(
            postmaster_options(directory.path()),
            ["--config-file=/my data/p.conf", "--port=1"]
        );
        assert!(postmaster_options(&directory.path().join("none")).is_empty());
    }
}
