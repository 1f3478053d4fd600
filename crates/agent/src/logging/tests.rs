use super::*;
use primacy_config::local::LogFormat;
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
    let (layer, logging) = Logging::new(&section(&directory, "INFO")).unwrap();
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

#[test]
fn single_loggers_have_their_own_level() {
    let directory = tempfile::tempdir().unwrap();
    let mut section = section(&directory, "INFO");
    section
        .loggers
        .insert("patroni.quiet".into(), "ERROR".into());
    section.loggers.insert("talkative".into(), "DEBUG".into());
    let (layer, logging) = Logging::new(&section).unwrap();
    with_default(tracing_subscriber::registry().with(layer), || {
        warn!(target: "primacy::quiet::inside", "1");
        error!(target: "primacy::quiet", "2");
        debug!(target: "talkative", "3");
        debug!(target: "talkativelike", "4");
    });
    assert!(logging.flush(PATIENCE));
    let text = std::fs::read_to_string(directory.path().join("patroni.log")).unwrap();
    assert_eq!(text, "ERROR: 2\nDEBUG: 3\n");
}

/// Standard output of nobody: the writer never gets to a record, since it waits for the lock on its file.
#[test]
fn a_full_queue_loses_records_instead_of_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let section = Log {
        max_queue_size: 4,
        ..section(&directory, "INFO")
    };
    let (layer, logging) = Logging::new(&section).unwrap();
    let output = Arc::clone(&logging.shared.output);
    let held = output.write().unwrap();
    with_default(tracing_subscriber::registry().with(layer), || {
        for number in 0..100 {
            info!("{number}");
        }
    });
    let status = logging.queue().status();
    assert!(status.lost >= 95 && status.queued >= 4, "{status:?}");
    assert_eq!(status.lost + status.queued, 100);
    drop(held);
    assert!(logging.flush(PATIENCE));
    assert_eq!(logging.queue().status().queued, 0);
}

#[test]
fn unknown_level_is_an_error() {
    let section = Log {
        level: "LOUD".into(),
        ..Log::default()
    };
    let error = Logging::new(&section).err().unwrap().to_string();
    assert!(
        error.contains("LOUD") && error.contains("WARNING"),
        "{error}"
    );
}
