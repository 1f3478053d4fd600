//! Starting, stopping, restarting.

use std::path::PathBuf;
use std::time::Duration;

use primacy_model::{ControlState, DataDirectory, Process, Readiness, Timeline};
use primacy_postgres::{
    Error, LocalAddress, ObserveOptions, Server, StartRequest, StartedState, StopEvent, StopMode,
    StopRequest, Stopped, WalMarker, postmaster_death,
};
use tokio::sync::mpsc;

use crate::scratch::{LONG, Node, Scratch, free_port, mode, soon, until};
use crate::server_test;

server_test!(life, a_server_from_initdb_to_the_end, {
    let scratch = Scratch::new();
    let node = scratch.node("pg1");
    assert_eq!(
        node.server.check(soon()).await.unwrap(),
        node.server.binaries_version(soon()).await.unwrap()
    );
    let seen = node.observe().await;
    assert_eq!(seen.data_directory, DataDirectory::Empty);
    assert_eq!(seen.process, Process::Absent);
    assert!(seen.control.is_none());

    let initialized = node.server.initdb(&[], until()).await.unwrap();
    let seen = node.observe().await;
    assert_eq!(seen.data_directory, DataDirectory::Valid);
    assert_eq!(seen.control.unwrap().state, ControlState::ShutDown);
    assert_eq!(seen.system_identifier, initialized.system_identifier);
    assert!(seen.major_version.is_some());

    let started = node.start(None).await;
    assert_eq!(started.state, StartedState::Ready);
    assert_eq!(started.raised, []);
    let seen = node.observe().await;
    assert_eq!(seen.process, Process::Running(started.identity));
    assert_eq!(seen.readiness, Readiness::Accepting);
    assert_eq!(seen.system_identifier, initialized.system_identifier);
    let wal = seen.wal.unwrap();
    assert_eq!(wal.timeline, Some(Timeline(1)));
    assert!(wal.flush_lsn.known().is_some());
    assert!(wal.postmaster_start_time.is_some());
    assert_eq!(wal.slots, Some(vec![]));
    assert_eq!(wal.synchronous_commit, "on");

    // What it runs with is what a copy of the directory is completed from, if its configuration lies elsewhere.
    for name in [
        "postgresql.conf",
        "postgresql.base.conf",
        "pg_hba.conf",
        "pg_ident.conf",
    ] {
        let read = |name: &str| std::fs::read_to_string(node.data_dir.join(name)).unwrap();
        assert_eq!(read(&format!("{name}.backup")), read(name), "{name}");
    }

    // Its own session, not our child, nothing of ours open.
    let process = procfs::process::Process::new(started.identity.pid).unwrap();
    let stat = process.stat().unwrap();
    assert_ne!(stat.ppid, std::process::id() as i32);
    assert_ne!(
        stat.session,
        procfs::process::Process::myself()
            .unwrap()
            .stat()
            .unwrap()
            .session
    );
    let command_line = process.cmdline().unwrap();
    assert_eq!(
        command_line[1..3],
        ["-D".to_owned(), node.data_dir.display().to_string()]
    );
    assert_eq!(
        command_line[3],
        format!("--config-file={}/postgresql.conf", node.data_dir.display())
    );
    assert!(command_line[4].starts_with("--listen_addresses="));
    let own_stdout = std::fs::read_link("/proc/self/fd/1").unwrap();
    for fd in process.fd().unwrap().flatten() {
        let target = std::fs::read_link(format!("/proc/{}/fd/{}", started.identity.pid, fd.fd));
        let null = own_stdout.as_os_str() == "/dev/null";
        assert!(
            null || target.ok() != Some(own_stdout.clone()),
            "descriptor {} is our stdout",
            fd.fd
        );
    }
    assert_eq!(mode(&node.data_dir.join("pg_hba.conf")), 0o600);

    // Another agent takes over, without a restart.
    let other = Server::new((*node.server.settings()).clone());
    let again = other.start(StartRequest::default()).await.unwrap();
    assert_eq!(again.identity, started.identity);

    let (events, mut seen) = mpsc::channel(8);
    let request = StopRequest {
        mode: StopMode::Fast,
        checkpoint: true,
        timeout: Some(LONG),
        events: Some(events),
    };
    let stopped = other.stop(request).await.unwrap();
    assert_eq!(
        stopped,
        Stopped {
            was_running: true,
            mode: Some(StopMode::Fast)
        }
    );
    let control = node.server.control_file(soon()).await.unwrap().data;
    assert_eq!(control.state, ControlState::ShutDown);
    let checkpoint = StopEvent::CheckpointWritten {
        checkpoint_lsn: control.checkpoint_lsn,
        previous_lsn: Some(control.checkpoint_lsn),
        timeline: Some(Timeline(1)),
    };
    for expected in [StopEvent::NoBackends, checkpoint, StopEvent::Stopped] {
        assert_eq!(seen.recv().await, Some(expected));
    }
    assert_eq!(node.observe().await.process, Process::Absent);

    // Restart, and the other modes.
    for mode in [StopMode::Smart, StopMode::Immediate] {
        node.start(None).await;
        assert!(node.observe().await.wal.is_some());
        node.stop(mode).await;
        assert_eq!(node.observe().await.process, Process::Absent);
    }
    let request = StopRequest {
        mode: StopMode::Fast,
        checkpoint: true,
        timeout: Some(LONG),
        events: None,
    };
    let stopped = node.server.stop(request).await.unwrap();
    assert_eq!(
        stopped,
        Stopped {
            was_running: false,
            mode: None
        }
    );
});

server_test!(
    life,
    a_fast_stop_ends_clients_and_a_stuck_one_is_escalated,
    {
        let scratch = Scratch::new();
        let node = scratch.primary("pg1").await;
        let stuck = node.pid().await;
        let pid: i32 = node
            .sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
            .parse()
            .unwrap();
        // A checkpointer that does not move keeps a fast shutdown from ending.
        let stop = nix::sys::signal::Signal::SIGSTOP;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), stop).unwrap();
        let (events, mut seen) = mpsc::channel(8);
        let timeout = Some(Duration::from_secs(2));
        let request = StopRequest {
            mode: StopMode::Fast,
            checkpoint: false,
            timeout,
            events: Some(events),
        };
        let stopped = node.server.stop(request).await.unwrap();
        assert!(stopped.was_running);
        assert_ne!(stopped.mode, Some(StopMode::Fast));
        assert_eq!(seen.recv().await, Some(StopEvent::NoBackends));
        assert_eq!(seen.recv().await, Some(StopEvent::Stopped));
        assert_eq!(
            node.observe().await.control.unwrap().state,
            ControlState::InProduction
        );
        assert!(!std::path::Path::new(&format!("/proc/{stuck}/exe")).exists());
    }
);

server_test!(life, a_server_that_cannot_start_says_why, {
    let scratch = Scratch::new();
    let node = scratch.node("pg1");
    node.server.initdb(&[], until()).await.unwrap();
    let mut settings = (*node.server.settings()).clone();
    settings.parameters.insert("work_mem".into(), "much".into());
    node.server.replace_settings(settings);
    match node.server.start(StartRequest::default()).await {
        Err(Error::Exited { detail }) => assert!(detail.contains("work_mem"), "{detail}"),
        other => panic!("{other:?}"),
    }
    let mut settings = (*node.server.settings()).clone();
    settings.bin_dir = Some("/no/such/directory".into());
    node.server.replace_settings(settings);
    let error = node.server.check(soon()).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/directory/postgres"), "{error}");
});

server_test!(
    life,
    a_server_is_found_although_its_port_was_configured_anew,
    {
        let scratch = Scratch::new();
        let node = scratch.primary("pg1").await;
        let old = node.server.settings();
        let mut settings = (*old).clone();
        settings.port = free_port();
        settings.listen_addresses = "127.0.0.1,127.0.0.2".into();
        settings.local = LocalAddress::Tcp("127.0.0.2".into());
        settings.local_replication = LocalAddress::Unix(scratch.path("elsewhere"));
        let (port, addresses) = (settings.port.to_string(), settings.listen_addresses.clone());
        settings.command_line[0].1 = addresses.clone();
        settings.command_line[1].1 = port.clone();
        settings.parameters.insert("port".into(), port);
        settings
            .parameters
            .insert("listen_addresses".into(), addresses);
        // As an agent that begins.
        let server = Server::new(settings.clone());
        server.replace_settings(settings.clone());
        let seen = server.observe(ObserveOptions::default(), soon()).await;
        assert_eq!(seen.readiness, Readiness::Accepting);
        assert!(seen.wal.is_some());
        assert!(server.listens_elsewhere());
        assert_eq!(server.settings().port, old.port);
        assert_eq!(
            server.settings().local_replication,
            LocalAddress::Unix(scratch.path(""))
        );

        node.stop(StopMode::Fast).await;
        let started = server.start(StartRequest::default()).await.unwrap();
        assert_eq!(started.state, StartedState::Ready);
        let seen = server.observe(ObserveOptions::default(), soon()).await;
        assert!(seen.wal.is_some());
        assert!(!server.listens_elsewhere());
        assert_eq!(server.settings().port, settings.port);
    }
);

server_test!(life, a_server_is_found_after_the_clock_was_set, {
    let scratch = Scratch::new();
    let node = scratch.primary("pg1").await;
    let process = node.observe().await.process;
    assert!(process.is_alive());
    // The start, as the clock had it that is an hour ahead by now.
    let pid_file = node.data_dir.join("postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    let started = text.lines().nth(2).unwrap();
    let earlier = (started.parse::<i64>().unwrap() - 3600).to_string();
    std::fs::write(&pid_file, text.replacen(started, &earlier, 1)).unwrap();
    std::os::unix::fs::symlink(scratch.path(""), scratch.path("link")).unwrap();
    let up = std::env::current_dir().unwrap();
    let up = up.components().skip(1).map(|_| "..");
    let from_here: PathBuf = up.collect();
    let root = node.data_dir.strip_prefix("/").unwrap();
    for spelling in [
        node.data_dir.clone(),
        scratch.path("link/pg1/"),
        from_here.join(root),
    ] {
        let mut settings = scratch.settings("pg1");
        settings.data_dir = spelling.clone();
        let server = Server::new(settings);
        let seen = server.observe(ObserveOptions::default(), soon()).await;
        assert_eq!(seen.process, process, "{}", spelling.display());
        assert_eq!(server.kill_leftovers(soon()).await.unwrap(), 0);
    }

    // Another directory's server is none of a copy, although the copied file names it.
    let copy = scratch.settings("copy");
    std::fs::create_dir(&copy.data_dir).unwrap();
    std::fs::copy(&pid_file, copy.data_dir.join("postmaster.pid")).unwrap();
    let server = Server::new(copy);
    let seen = server.observe(ObserveOptions::default(), soon()).await;
    assert_eq!(seen.process, Process::Absent);

    // Nor does the file's loss make it one that is gone.
    std::fs::remove_file(&pid_file).unwrap();
    assert_eq!(node.observe().await.process, process);
    assert_eq!(node.server.kill_leftovers(soon()).await.unwrap(), 0);
    assert_eq!(node.sql("SELECT 1"), "1");
});

server_test!(life, a_postmaster_begins_once_everybody_knows_of_it, {
    let scratch = Scratch::new();
    let node = scratch.node("pg1");
    node.server.initdb(&[], until()).await.unwrap();
    let pid_file = node.data_dir.join("postmaster.pid");
    for may_begin in [false, true] {
        let (sender, mut spawned) = mpsc::unbounded_channel();
        let request = StartRequest {
            spawned: Some(sender),
            timeout: Some(LONG),
            ..StartRequest::default()
        };
        let server = node.server.clone();
        let start = tokio::spawn(async move { server.start(request).await });
        let spawning = spawned.recv().await.unwrap();
        let waits = procfs::process::Process::new(spawning.identity.pid).unwrap();
        assert_eq!(
            waits.stat().unwrap().starttime,
            spawning.identity.start_ticks
        );
        assert_ne!(waits.exe().unwrap().file_name().unwrap(), "postgres");
        assert!(!pid_file.exists());
        if may_begin {
            spawning.begin.send(()).unwrap();
            assert_eq!(start.await.unwrap().unwrap().identity, spawning.identity);
            assert_eq!(waits.exe().unwrap().file_name().unwrap(), "postgres");
        } else {
            drop(spawning.begin);
            start.await.unwrap().unwrap_err();
            let ended = postmaster_death(spawning.identity);
            tokio::time::timeout(LONG, ended).await.unwrap();
            assert!(!pid_file.exists());
        }
    }
});

server_test!(life, crash_recovery_brings_a_clean_end, {
    let scratch = Scratch::new();
    let node = scratch.primary("pg1").await;
    node.sql("CREATE TABLE t AS SELECT 1 AS a");
    node.stop(StopMode::Immediate).await;
    assert_eq!(
        node.observe().await.control.unwrap().state,
        ControlState::InProduction
    );
    node.server.crash_recovery(until()).await.unwrap();
    assert_eq!(
        node.observe().await.control.unwrap().state,
        ControlState::ShutDown
    );
    node.start(None).await;
    assert_eq!(node.sql("SELECT a FROM t"), "1");
    assert!(node.server.crash_recovery(until()).await.is_err());
});

#[test]
fn root_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let scratch = Scratch::new();
    let node = scratch.node("pg1");
    let error = runtime.block_on(node.server.check(soon())).unwrap_err();
    assert!(matches!(error, Error::RunningAsRoot { .. }), "{error}");
}

server_test!(
    life,
    a_promotion_that_outlives_its_agent_is_known_to_the_next_one,
    {
        let scratch = Scratch::new();
        let primary = scratch.primary("pg1").await;
        let (standby, end) = standby_that_is_being_promoted(&scratch, &primary).await;
        let next = Server::new((*standby.server.settings()).clone());
        let seen = next.observe(ObserveOptions::default(), soon()).await;
        assert!(seen.promoting && !seen.wal.unwrap().is_primary());

        std::fs::write(&end, "").unwrap();
        standby.until_primary().await;
        let seen = next.observe(ObserveOptions::default(), soon()).await;
        assert!(!seen.promoting && seen.wal.unwrap().is_primary());
        assert!(!standby.data_dir.join("primacy.promoting").exists());
    }
);

server_test!(
    life,
    w1_a_standby_that_was_a_primary_is_known_to_the_next_agent,
    {
        let scratch = Scratch::new();
        let primary = scratch.primary("pg1").await;
        let standby = scratch.standby("pg2", &primary).await;
        assert!(!primary.observe().await.former_primary && !standby.observe().await.former_primary);

        // However it ended; and it stays one when it is started again.
        for mode in [StopMode::Immediate, StopMode::Fast] {
            primary.stop(mode).await;
            primary.start(Some(&standby)).await;
            let next = Server::new((*primary.server.settings()).clone());
            let seen = next.observe(ObserveOptions::default(), soon()).await;
            assert!(seen.former_primary, "{mode:?}: {seen:?}");
        }
        let marker = WalMarker::FormerPrimary;
        primary.server.unmark_wal(marker, soon()).await.unwrap();
        primary.stop(StopMode::Fast).await;
        primary.start(Some(&standby)).await;
        assert!(!primary.observe().await.former_primary);
    }
);

server_test!(life, a_promotion_ends_with_its_postmaster, {
    let scratch = Scratch::new();
    let primary = scratch.primary("pg1").await;
    let (standby, end) = standby_that_is_being_promoted(&scratch, &primary).await;
    standby.stop(StopMode::Immediate).await;
    std::fs::write(&end, "").unwrap();
    assert!(standby.data_dir.join("primacy.promoting").exists());
    standby.start(Some(&primary)).await;
    let seen = standby.observe().await;
    assert!(!seen.promoting && !seen.wal.unwrap().is_primary());
});

/// A promotion that comes to its end as soon as the file is there that is also returned.
async fn standby_that_is_being_promoted(scratch: &Scratch, of: &Node) -> (Node, PathBuf) {
    let standby = scratch.standby("pg2", of).await;
    assert!(!standby.observe().await.promoting);
    let end = scratch.path("end");
    let command = format!("until [ -e {} ]; do sleep 0.1; done", end.display());
    standby.sql(&format!(
        "ALTER SYSTEM SET recovery_end_command = '{command}'"
    ));
    standby.server.reload(soon()).await.unwrap();
    let in_force = || standby.sql("SHOW recovery_end_command") == command;
    standby.until("the command", |_| in_force()).await;
    standby.server.promote(soon()).await.unwrap();
    assert!(standby.observe().await.promoting);
    (standby, end)
}
