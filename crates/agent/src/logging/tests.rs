use super::*;
use primacy_config::local::{LogFormat, LogType};
use std::time::Duration;
use tracing::{debug, error, info, subscriber::with_default, warn};

const PATIENCE: Duration = Duration::from_secs(30);

fn section(directory: &tempfile::TempDir, level: &str) -> Log {
    Log {
        level: level.into(),
        format: LogFormat::Text("%(levelname)s: %(message)s".into()),
        dir: Some(directory.path().to_str().unwrap().into()),
        ..Log::default()
    }
}

#[test]
fn records_reach_the_file_and_a_reload_changes_the_level() {
    let directory = tempfile::tempdir().unwrap();
    let (layer, logging) = Logging::new(&section(&directory, "INFO"), 0o022).unwrap();
    with_default(tracing_subscriber::registry().with(layer), || {
        debug!("not told");
        info!("told");
        warn!(member = "pg1", lsn = %"0/1", "with fields");
        crate::critical!(
            "Can't start; there is already a node named '{}' running",
            "pg1"
        );
        info!(target: "somebody_elses_crate", "not ours");
        logging
            .handle()
            .reconfigure(&section(&directory, "debug"))
            .unwrap();
        debug!("told now");
        logging
            .handle()
            .reconfigure(&section(&directory, "CRITICAL"))
            .unwrap();
        warn!("not any more");
        error!("nor this");
        crate::critical!("but this");
    });
    assert!(logging.flush(PATIENCE));
    assert_eq!(
        std::fs::read_to_string(directory.path().join("patroni.log")).unwrap(),
        "INFO: told\n\
         WARNING: with fields (member=pg1, lsn=0/1)\n\
         CRITICAL: Can't start; there is already a node named 'pg1' running\n\
         DEBUG: told now\n\
         CRITICAL: but this\n"
    );
    assert_eq!(logging.queue().status(), QueueStatus::default());
}

/// A task of the store that still runs would otherwise have the last word, behind the reason why the process ends.
#[test]
fn nothing_is_logged_behind_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (layer, logging) = Logging::new(&section(&directory, "INFO"), 0o022).unwrap();
    with_default(tracing_subscriber::registry().with(layer), || {
        info!("told");
        assert!(logging.flush(PATIENCE));
        drop(logging);
        crate::critical!("too late");
    });
    assert_eq!(
        std::fs::read_to_string(directory.path().join("patroni.log")).unwrap(),
        "INFO: told\n"
    );
}

#[test]
fn single_loggers_have_their_own_level() {
    let directory = tempfile::tempdir().unwrap();
    let mut section = section(&directory, "INFO");
    for (logger, level) in [
        ("patroni", "WARNING"),
        ("patroni.postgresql", "ERROR"),
        ("patroni.postgresql.rewind", "DEBUG"),
        ("talkative", "DEBUG"),
    ] {
        section.loggers.insert(logger.into(), level.into());
    }
    let (layer, logging) = Logging::new(&section, 0o022).unwrap();
    with_default(tracing_subscriber::registry().with(layer), || {
        warn!(target: "primacy_postgres::wal", "1");
        error!(target: "primacy_postgres", "2");
        debug!(target: "primacy_postgres::rewind", "3");
        info!(target: "primacy_agent::shell", "4");
        warn!(target: "primacy_agent::shell", "5");
        debug!(target: "talkative::inside", "6");
        debug!(target: "talkativelike", "7");
    });
    assert!(logging.flush(PATIENCE));
    let text = std::fs::read_to_string(directory.path().join("patroni.log")).unwrap();
    assert_eq!(text, "ERROR: 2\nDEBUG: 3\nWARNING: 5\nDEBUG: 6\n");
}

#[test]
fn fields_are_keys_of_json() {
    let directory = tempfile::tempdir().unwrap();
    let section = Log {
        kind: LogType::Json,
        format: LogFormat::Fields(vec![
            ("levelname".into(), "level".into()),
            ("message".into(), "message".into()),
        ]),
        ..section(&directory, "INFO")
    };
    let (layer, logging) = Logging::new(&section, 0o022).unwrap();
    with_default(tracing_subscriber::registry().with(layer), || {
        info!(
            member = "pg1",
            attempts = 3,
            detail.step = "promote",
            level = "no second one",
            "told"
        );
    });
    assert!(logging.flush(PATIENCE));
    assert_eq!(
        std::fs::read_to_string(directory.path().join("patroni.log")).unwrap(),
        "{\"level\": \"INFO\", \"message\": \"told\", \"member\": \"pg1\", \"attempts\": 3, \"step\": \"promote\"}\n"
    );
}

/// The process has a stricter umask than it was started with.
#[test]
fn whoever_could_read_patronis_log_can_read_ours() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |directory: &tempfile::TempDir, mode| {
        let section = Log {
            mode,
            ..section(directory, "INFO")
        };
        drop(Logging::new(&section, 0o022).unwrap());
        let metadata = std::fs::metadata(directory.path().join("patroni.log")).unwrap();
        metadata.permissions().mode() & 0o777
    };
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(mode(&directory, None), 0o644);
    assert_eq!(mode(&directory, Some(0o600)), 0o600);
}

/// Standard output of nobody: the writer never gets to a record, since it waits for the lock on its file.
#[test]
fn a_full_queue_loses_records_instead_of_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let section = Log {
        max_queue_size: 4,
        ..section(&directory, "INFO")
    };
    let (layer, logging) = Logging::new(&section, 0o022).unwrap();
    let output = Arc::clone(&logging.shared.output);
    let held = output.write().unwrap();
    let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
    tracing::dispatcher::with_default(&subscriber, || {
        for number in 0..100 {
            info!("{number}");
        }
    });
    let status = logging.queue().status();
    assert!(status.lost >= 95 && status.queued >= 4, "{status:?}");
    assert_eq!(status.lost + status.queued, 100);
    assert!(
        !logging.close(Duration::ZERO),
        "the log is broken while nothing can be written"
    );
    drop(held);
    assert!(logging.flush(PATIENCE));
    tracing::dispatcher::with_default(&subscriber, || info!("there is room again"));
    assert!(logging.close(PATIENCE));
    assert_eq!(logging.queue().status(), QueueStatus::default());
    let text = std::fs::read_to_string(directory.path().join("patroni.log")).unwrap();
    let told = format!(
        "INFO: there is room again\nWARNING: QueueHandler has lost {} log records\n",
        status.lost
    );
    assert!(text.ends_with(&told), "{text}");
}

#[test]
fn unknown_level_is_an_error() {
    let section = Log {
        level: "LOUD".into(),
        ..Log::default()
    };
    let error = Logging::new(&section, 0o022).err().unwrap().to_string();
    assert!(
        error.contains("LOUD") && error.contains("WARNING"),
        "{error}"
    );
}
