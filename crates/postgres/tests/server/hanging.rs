//! A server that runs and does not answer (`ha.md` W5, W6).

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use primacy_model::Process;
use primacy_postgres::{StopMode, StopRequest};

use crate::scratch::Scratch;
use crate::server_test;

server_test!(
    hanging,
    w6_a_stopped_postmaster_is_noticed_and_can_be_stopped,
    {
        let scratch = Scratch::new();
        let node = scratch.primary("pg1").await;
        let Process::Running(identity) = node.observe().await.process else {
            panic!("it runs");
        };
        let pid = Pid::from_raw(identity.pid);
        let prober = node.server.clone();
        let probing = tokio::spawn(async move { prober.probe(|| {}).await });
        kill(pid, Signal::SIGSTOP).unwrap();
        let seen = node
            .until("the hang, and nothing else", |seen| {
                let probes = &seen.probes;
                probes.connection.is_some() && probes.query.is_none() && probes.disk.is_none()
            })
            .await;
        assert!(
            seen.wal.is_some(),
            "the session that was open before still answers"
        );
        kill(pid, Signal::SIGCONT).unwrap();
        node.until("an answer", |seen| seen.probes.is_answered())
            .await;

        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = node
            .server
            .stop(StopRequest {
                mode: StopMode::Immediate,
                checkpoint: false,
                timeout: Some(Duration::from_secs(1)),
                events: None,
            })
            .await
            .unwrap();
        assert_eq!(stopped.mode, None, "it took SIGKILL");
        assert_eq!(node.observe().await.process, Process::Absent);
        probing.abort();
    }
);
