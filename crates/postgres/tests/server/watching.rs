//! What is seen from outside: death, slots, synchronous standbys, settings.

use std::time::Duration;

use primacy_model::{Lsn, Process, WalSender};
use primacy_postgres::{SlotError, StopMode, kill_leftovers, kill_now, postmaster_death};
use tokio::time::{Instant, timeout};

use crate::scratch::{LONG, Node, Scratch, soon};
use crate::server_test;

server_test!(watching, the_death_of_a_postmaster_is_an_event, {
    let scratch = Scratch::new();
    let node = scratch.primary("pg1").await;
    let started = node.start(None).await;
    let watch = tokio::spawn(postmaster_death(started.identity));
    assert!(!watch.is_finished());
    let pid = nix::unistd::Pid::from_raw(started.identity.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    timeout(LONG, watch).await.unwrap().unwrap();
    let seen = node.observe().await;
    assert_eq!(seen.process, Process::Absent);
    assert!(seen.control.is_some());
    no_leftovers(&node).await;

    let started = node.start(None).await;
    let children = node.sql("SELECT count(*) FROM pg_stat_activity");
    assert!(children.parse::<u32>().unwrap() > 3);
    let began = Instant::now();
    kill_now(started.identity).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    timeout(LONG, postmaster_death(started.identity))
        .await
        .unwrap();
    assert_eq!(node.observe().await.process, Process::Absent);
    no_leftovers(&node).await;
});

/// Ends what is left of a server. A process that was killed may take a moment.
async fn no_leftovers(node: &Node) {
    let deadline = soon();
    while kill_leftovers(&node.data_dir) > 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

server_test!(
    watching,
    a_pid_that_belongs_to_somebody_else_is_not_the_postmaster,
    {
        let scratch = Scratch::new();
        let node = scratch.primary("pg1").await;
        node.stop(StopMode::Fast).await;
        let mut other = std::process::Command::new("sleep")
            .arg("300")
            .spawn()
            .unwrap();
        let file = node.data_dir.join("postmaster.pid");
        let text = format!(
            "{}\n{}\n1000\n5432\n\n\n  1 2\nready\n",
            other.id(),
            node.data_dir.display()
        );
        std::fs::write(&file, text).unwrap();
        assert_eq!(node.observe().await.process, Process::Absent);
        node.start(None).await;
        other.kill().unwrap();
        other.wait().unwrap();
    }
);

server_test!(watching, slots, {
    let scratch = Scratch::new();
    let node = scratch.primary("pg1").await;
    assert!(
        node.server
            .create_physical_slot("pg2", soon())
            .await
            .unwrap()
    );
    assert!(
        !node
            .server
            .create_physical_slot("pg2", soon())
            .await
            .unwrap()
    );
    let slot = |seen: primacy_model::Observation| seen.wal.unwrap().slots.unwrap().pop().unwrap();
    let before = slot(node.observe().await);
    assert_eq!(
        (before.name.as_str(), before.active, before.lost),
        ("pg2", false, false)
    );
    let reserved = before.restart_lsn.unwrap();
    node.sql("CREATE TABLE t AS SELECT generate_series(1, 1000)");
    let target = node.observe().await.wal.unwrap().flush_lsn;
    assert_eq!(
        node.server
            .advance_slot("pg2", target, soon())
            .await
            .unwrap(),
        target
    );
    assert_eq!(
        node.server
            .advance_slot("pg2", reserved, soon())
            .await
            .unwrap(),
        target
    );
    let missing = node.server.advance_slot("none", Lsn(1), soon()).await;
    assert!(matches!(missing, Err(SlotError::Missing(_))));
    assert!(node.server.drop_slot("pg2", soon()).await.unwrap());
    assert!(!node.server.drop_slot("pg2", soon()).await.unwrap());
});

server_test!(
    watching,
    synchronous_standby_names_take_effect_before_the_answer,
    {
        let scratch = Scratch::new();
        let primary = scratch.primary("pg1").await;
        let standby = scratch.standby("pg2", &primary).await;
        let lsn = primary
            .server
            .set_synchronous_standby_names(Some("pg2"), soon())
            .await
            .unwrap();
        let seen = primary
            .until("confirmation", |seen| {
                let senders = &seen.wal.as_ref().unwrap().senders;
                let confirmed = |sender: &&WalSender| sender.flush_lsn >= Some(lsn);
                // It obeys when it next has something to do.
                senders
                    .iter()
                    .find(confirmed)
                    .is_some_and(|sender| sender.sync_state == "sync")
            })
            .await;
        let wal = seen.wal.unwrap();
        assert_eq!(wal.synchronous_standby_names, "pg2");
        let sender = &wal.senders[0];
        assert_eq!(
            (sender.application_name.as_str(), sender.sync_state.as_str()),
            ("pg2", "sync")
        );
        assert_eq!(sender.client_addr.as_deref(), Some("127.0.0.1"));
        // Kept over a rewrite of the files, until it is taken away.
        primary.server.write_files(None, soon()).await.unwrap();
        let conf = std::fs::read_to_string(primary.data_dir.join("postgresql.conf")).unwrap();
        assert!(conf.contains("synchronous_standby_names = 'pg2'"));
        primary
            .server
            .set_synchronous_standby_names(None, soon())
            .await
            .unwrap();
        assert_eq!(
            primary
                .observe()
                .await
                .wal
                .unwrap()
                .synchronous_standby_names,
            ""
        );
        let slot = standby
            .observe()
            .await
            .wal
            .unwrap()
            .receiver
            .unwrap()
            .slot_name;
        assert_eq!(slot, None);
    }
);

server_test!(watching, a_changed_setting_waits_for_a_restart, {
    let scratch = Scratch::new();
    let node = scratch.primary("pg1").await;
    let mut settings = (*node.server.settings()).clone();
    settings
        .parameters
        .insert("shared_buffers".into(), "64MB".into());
    node.server.replace_settings(settings);
    assert!(node.server.write_files(None, soon()).await.unwrap());
    node.server.reload(soon()).await.unwrap();
    let deadline = soon();
    loop {
        let rows = node.server.pg_settings(soon()).await.unwrap();
        let row = rows
            .into_iter()
            .find(|row| row.name == "shared_buffers")
            .unwrap();
        if row.pending_restart {
            assert_eq!(row.display.as_deref(), Some("128MB"));
            break;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // `postgres -C` gives the base unit or the text, by version.
    let value = node
        .server
        .configured_value("shared_buffers", soon())
        .await
        .unwrap();
    assert!(["64MB", "8192"].contains(&value.as_str()), "{value}");
    node.server.checkpoint(soon()).await.unwrap();
});
