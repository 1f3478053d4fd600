//! Promotion, divergence, rewind.

use std::os::unix::fs::PermissionsExt;

use primacy_model::{DataDirectory, Timeline};
use primacy_postgres::{
    Divergence, ReplicaRequest, RewindOutcome, RewindSource, StopMode, WalMarker,
};

use crate::scratch::{Node, Scratch, soon, until};
use crate::server_test;

/// A primary that crashed after it had written what nobody else has, and the one that was promoted in its place.
async fn crashed_and_succeeded(scratch: &Scratch) -> (Node, Node) {
    let old = scratch.primary("pg1").await;
    let new = scratch.standby("pg2", &old).await;
    new.server.promote(soon()).await.unwrap();
    new.until_primary().await;
    old.sql("CREATE TABLE lost AS SELECT generate_series(1, 1000)");
    old.stop(StopMode::Immediate).await;
    new.server.checkpoint(soon()).await.unwrap();
    (old, new)
}

server_test!(rewinding, an_old_primary_that_ran_on_is_rewound, {
    let scratch = Scratch::new();
    let old = scratch.primary("pg1").await;
    let new = scratch.standby("pg2", &old).await;
    assert_eq!(
        new.server.check_divergence(&old.conninfo(), soon()).await,
        Divergence::Same
    );
    assert!(old.server.can_rewind(soon()).await);

    new.server.promote(soon()).await.unwrap();
    new.until_primary().await;
    old.sql("CREATE TABLE lost AS SELECT generate_series(1, 1000)");
    new.sql("CREATE TABLE kept AS SELECT 1");
    old.stop(StopMode::Fast).await;
    assert_eq!(
        old.server.check_divergence(&new.conninfo(), soon()).await,
        Divergence::Diverged
    );
    old.server
        .mark_wal(WalMarker::Diverged, soon())
        .await
        .unwrap();
    assert!(old.observe().await.diverged);

    let source = RewindSource {
        conninfo: new.conninfo(),
        checkpoint_confirmed: false,
    };
    let outcome = loop {
        match old.server.rewind(&source, until()).await.unwrap() {
            RewindOutcome::SourceNotReady(_) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await
            }
            outcome => break outcome,
        }
        // The rewind user is no superuser: it cannot make the checkpoint that is waited for.
        new.server.checkpoint(soon()).await.unwrap();
    };
    assert_eq!(outcome, RewindOutcome::Rewound);
    old.start(Some(&new)).await;
    let seen = old
        .until("streaming on the new timeline", |seen| {
            let wal = seen.wal.as_ref();
            let receiver = wal.and_then(|wal| wal.receiver.as_ref());
            receiver.is_some_and(|receiver| {
                receiver.status == "streaming" && receiver.timeline == Some(Timeline(2))
            })
        })
        .await;
    assert!(!seen.diverged, "the mark is not in what pg_rewind copies");
    assert!(!seen.wal.unwrap().is_primary());
    old.server
        .mark_wal(WalMarker::Diverged, soon())
        .await
        .unwrap();
    old.server
        .unmark_wal(WalMarker::Diverged, soon())
        .await
        .unwrap();
    assert!(!old.observe().await.diverged);
    assert_eq!(
        old.sql("SELECT count(*) FROM pg_class WHERE relname = 'lost'"),
        "0"
    );
    let (history, _) = new
        .server
        .local_history(Timeline(2), soon())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(history[0].timeline, Timeline(1));
    assert_eq!(
        old.server.check_divergence(&new.conninfo(), soon()).await,
        Divergence::Same
    );
});

server_test!(
    rewinding,
    a_switched_over_primary_follows_without_a_rewind,
    {
        let scratch = Scratch::new();
        let old = scratch.primary("pg1").await;
        let new = scratch.standby("pg2", &old).await;
        old.stop(StopMode::Fast).await;
        let shutdown = old
            .server
            .control_file(soon())
            .await
            .unwrap()
            .data
            .checkpoint_lsn;
        new.until("the shutdown checkpoint", |seen| {
            seen.wal
                .as_ref()
                .is_some_and(|wal| wal.replay_lsn > shutdown)
        })
        .await;
        new.server.promote(soon()).await.unwrap();
        new.until_primary().await;
        assert_eq!(
            old.server.check_divergence(&new.conninfo(), soon()).await,
            Divergence::Same
        );
        old.start(Some(&new)).await;
        old.until("streaming", |seen| {
            seen.wal.as_ref().is_some_and(|wal| wal.receiver.is_some())
        })
        .await;
    }
);

server_test!(
    rewinding,
    timelines_of_one_number_and_history_are_told_apart_by_their_wal,
    {
        let scratch = Scratch::new();
        let one = scratch.primary("pg1").await;
        let other = scratch.standby("pg2", &one).await;
        one.stop(StopMode::Fast).await;
        let shutdown = one.server.control_file(soon()).await.unwrap().data;
        other
            .until("the shutdown checkpoint", |seen| {
                let wal = seen.wal.as_ref();
                wal.is_some_and(|wal| wal.replay_lsn > shutdown.checkpoint_lsn)
            })
            .await;
        // Each begins timeline 2 at the end of timeline 1, and knows nothing of the other one.
        other.server.promote(soon()).await.unwrap();
        other.until_primary().await;
        other.stop(StopMode::Immediate).await;
        one.start(Some(&other)).await;
        one.server.promote(soon()).await.unwrap();
        one.until_primary().await;
        one.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000)");
        other.server.crash_recovery(until()).await.unwrap();
        assert_eq!(
            other.server.check_divergence(&one.conninfo(), soon()).await,
            Divergence::Diverged
        );
        let source = RewindSource {
            conninfo: one.conninfo(),
            checkpoint_confirmed: true,
        };
        one.server.checkpoint(soon()).await.unwrap();
        let outcome = other.server.rewind(&source, until()).await.unwrap();
        assert!(
            matches!(&outcome, RewindOutcome::Failed(why) if why.contains("begun twice")),
            "{outcome:?}"
        );
    }
);

server_test!(
    rewinding,
    a_crashed_primary_is_rewound_and_a_lost_source_is_told_apart,
    {
        let scratch = Scratch::new();
        let (old, new) = crashed_and_succeeded(&scratch).await;

        let nowhere = primacy_postgres::Conninfo::new("127.0.0.1", 1, "postgres");
        let source = RewindSource {
            conninfo: nowhere,
            checkpoint_confirmed: true,
        };
        let outcome = old.server.rewind(&source, until()).await.unwrap();
        assert!(
            matches!(outcome, RewindOutcome::SourceNotReady(_)),
            "{outcome:?}"
        );
        let source = RewindSource {
            conninfo: new.conninfo(),
            checkpoint_confirmed: true,
        };
        let outcome = old.server.rewind(&source, until()).await.unwrap();
        assert_eq!(outcome, RewindOutcome::Rewound);
        old.start(Some(&new)).await;
        assert_eq!(
            old.sql("SELECT count(*) FROM pg_class WHERE relname = 'lost'"),
            "0"
        );
    }
);

server_test!(
    rewinding,
    wal_that_the_source_wrote_while_it_was_copied_is_not_missed,
    {
        let scratch = Scratch::new();
        let (old, new) = crashed_and_succeeded(&scratch).await;
        let early = new.sql("SELECT pg_walfile_name_offset(pg_current_wal_flush_lsn())");
        new.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000)");
        // WAL that nothing flushes for a while, and pg_rewind demands all the same.
        new.sql("ALTER SYSTEM SET wal_writer_delay = '10s'");
        new.sql("SELECT pg_reload_conf()");
        new.sql("SELECT pg_logical_emit_message(false, '', 'not flushed')");
        let source = RewindSource {
            conninfo: new.conninfo(),
            checkpoint_confirmed: true,
        };
        let outcome = old.server.rewind(&source, until()).await.unwrap();
        assert_eq!(outcome, RewindOutcome::Rewound);

        // As if that segment had been copied before the table was made.
        let (segment, offset) = early.trim_matches(['(', ')']).split_once(',').unwrap();
        let segment = old.server.settings().data_dir.join("pg_wal").join(segment);
        let mut wal = std::fs::read(&segment).unwrap();
        wal[offset.parse().unwrap()..].fill(0);
        std::fs::write(&segment, wal).unwrap();
        assert_eq!(
            old.server.check_divergence(&new.conninfo(), soon()).await,
            Divergence::Same
        );
        new.server.checkpoint(soon()).await.unwrap();
        old.start(Some(&new)).await;
        old.until("streaming", |seen| {
            seen.wal.as_ref().is_some_and(|wal| wal.receiver.is_some())
        })
        .await;
        assert_eq!(old.sql("SELECT count(*) FROM kept"), "1000");
    }
);

/// Has the server run this in the place of pg_rewind, whose path is in `$REAL`.
fn stand_in(scratch: &Scratch, node: &Node, script: &str) {
    let mut settings = (*node.server.settings()).clone();
    settings.bin_names.clear();
    let real = settings.binary("pg_rewind");
    let path = scratch.path("stand-in");
    let text = format!("#!/bin/bash\nREAL={}\n{script}", real.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let name = path.display().to_string();
    settings.bin_names.insert("pg_rewind".into(), name);
    node.server.replace_settings(settings);
}

// `configuration.md` §2.13 `krbsrvname`.
server_test!(rewinding, pg_rewind_knows_the_kerberos_service, {
    let scratch = Scratch::new();
    let (old, new) = crashed_and_succeeded(&scratch).await;
    let mut settings = (*old.server.settings()).clone();
    settings.krbsrvname = Some("pgservice".into());
    old.server.replace_settings(settings);
    let fails = r#"[[ $1 == --help ]] && exit; echo "error: no $PGKRBSRVNAME" >&2; exit 1"#;
    stand_in(&scratch, &old, fails);
    let source = RewindSource {
        conninfo: new.conninfo(),
        checkpoint_confirmed: true,
    };
    let outcome = old.server.rewind(&source, until()).await.unwrap();
    assert!(
        matches!(&outcome, RewindOutcome::Failed(why) if why.contains("error: no pgservice")),
        "{outcome:?}"
    );
});

// PostgreSQL's documentation of pg_rewind: what it leaves when it fails while it writes cannot be recovered.
server_test!(
    rewinding,
    an_interrupted_rewind_is_marked_until_a_new_copy_is_made,
    {
        let scratch = Scratch::new();
        let (old, new) = crashed_and_succeeded(&scratch).await;
        let source = RewindSource {
            conninfo: new.conninfo(),
            checkpoint_confirmed: true,
        };
        // One that fails before it writes has changed nothing.
        let fails =
            r#"[[ $1 == --help ]] && exit; echo "error: no space left on device" >&2; exit 1"#;
        stand_in(&scratch, &old, fails);
        let outcome = old.server.rewind(&source, until()).await.unwrap();
        assert!(matches!(outcome, RewindOutcome::Failed(_)), "{outcome:?}");
        assert_eq!(old.observe().await.data_directory, DataDirectory::Valid);

        let killed = r#"
        [[ $1 == --help ]] && exec "$REAL" --help
        exec 3< <(exec "$REAL" "$@" 2>&1 > /dev/null)
        real=$!
        while read -r line <&3; do
            echo "$line" >&2
            if [[ $line == *"need to copy"* ]]; then kill -9 $real; exit 1; fi
        done"#;
        stand_in(&scratch, &old, killed);
        let outcome = old.server.rewind(&source, until()).await.unwrap();
        assert!(
            matches!(&outcome, RewindOutcome::Failed(why) if why.contains("while it wrote")),
            "{outcome:?}"
        );
        let seen = old.observe().await.data_directory;
        let text = format!("{seen:?}");
        assert!(
            matches!(seen, DataDirectory::HalfRewound(_)) && text.contains("pg1.rewind"),
            "{text}"
        );

        let request = ReplicaRequest {
            source: Some(new.conninfo()),
            ..ReplicaRequest::default()
        };
        old.server.create_replica(request, until()).await.unwrap();
        assert_eq!(old.observe().await.data_directory, DataDirectory::Valid);
        assert!(!scratch.path("pg1.rewind").exists());
    }
);
