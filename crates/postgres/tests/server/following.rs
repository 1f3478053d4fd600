//! Replicas: made, started, pointed elsewhere.

use std::os::unix::fs::PermissionsExt;

use primacy_model::{DataDirectory, Process};
use primacy_postgres::{
    BackupProgress, CustomBootstrap, FollowChange, ReplicaMethod, ReplicaRequest, StopMode,
    WalsenderClient,
};
use tokio::sync::watch;

use crate::scratch::{Scratch, mode, soon, until};
use crate::server_test;

server_test!(following, a_base_backup_streams_and_changes_its_source, {
    let scratch = Scratch::new();
    let primary = scratch.primary("pg1").await;
    let standby = scratch.node("pg2");
    let (progress, seen) = watch::channel(BackupProgress::default());
    let request = ReplicaRequest {
        source: Some(primary.conninfo()),
        progress: Some(progress),
        ..ReplicaRequest::default()
    };
    standby
        .server
        .create_replica(request, until())
        .await
        .unwrap();
    let progress = *seen.borrow();
    assert!(
        progress.total_bytes > 1 << 20 && progress.done_bytes >= progress.total_bytes / 2,
        "{progress:?}"
    );
    assert_eq!(standby.observe().await.process, Process::Absent);

    primary
        .server
        .create_physical_slot("pg2", soon())
        .await
        .unwrap();
    standby.start(Some(&primary)).await;
    let mut target = primary.target();
    let pgpass = standby.server.settings().pgpass.clone();
    assert_eq!(mode(&pgpass), 0o600);
    let change = standby
        .server
        .compare_follow(&target, soon())
        .await
        .unwrap();
    assert_eq!(change, FollowChange::NoChange);
    target.slot = Some("pg2".into());
    let change = standby
        .server
        .compare_follow(&target, soon())
        .await
        .unwrap();
    assert_eq!(
        change,
        FollowChange::ReloadNeeded(vec!["primary_slot_name".into()])
    );
    standby
        .server
        .apply_follow_reload(&target, soon())
        .await
        .unwrap();
    let seen = standby
        .until("the slot", |seen| {
            let receiver = seen.wal.as_ref().and_then(|wal| wal.receiver.as_ref());
            receiver.is_some_and(|receiver| {
                receiver.status == "streaming" && receiver.slot_name.as_deref() == Some("pg2")
            })
        })
        .await;
    assert!(seen.recovery_signal);
    let wal = seen.wal.unwrap();
    assert!(!wal.is_primary());
    let receiver = wal.receiver.unwrap();
    assert_eq!(receiver.sender_port, Some(primary.server.settings().port));
    assert!(!receiver.conninfo.contains("rep\\pass"));
    let change = standby
        .server
        .compare_follow(&target, soon())
        .await
        .unwrap();
    assert_eq!(change, FollowChange::NoChange);

    std::fs::write(&pgpass, "").unwrap();
    let change = standby
        .server
        .compare_follow(&target, soon())
        .await
        .unwrap();
    assert_eq!(change, FollowChange::ReloadNeeded(vec!["passfile".into()]));
    std::fs::remove_file(standby.data_dir.join("standby.signal")).unwrap();
    let change = standby
        .server
        .compare_follow(&target, soon())
        .await
        .unwrap();
    assert!(
        matches!(change, FollowChange::RestartNeeded(_)),
        "{change:?}"
    );

    // Both members speak replication; with a wrong password neither does.
    let replication = primary.server.settings().replication.clone();
    let mut client = WalsenderClient::connect(&primary.conninfo(), &replication, soon())
        .await
        .unwrap();
    let identity = client.identify_system(soon()).await.unwrap();
    assert_eq!(
        Some(identity.system_identifier),
        primary.observe().await.system_identifier
    );
    assert!(
        client
            .timeline_history(primacy_model::Timeline(9), soon())
            .await
            .is_err()
    );
    assert_eq!(
        client.identify_system(soon()).await.unwrap().timeline,
        identity.timeline
    );
    assert_eq!(
        standby
            .server
            .local_identity(soon())
            .await
            .unwrap()
            .timeline,
        identity.timeline
    );
    let wrong = primacy_postgres::Credentials {
        password: None,
        ..replication
    };
    assert!(
        WalsenderClient::connect(&primary.conninfo(), &wrong, soon())
            .await
            .is_err()
    );
});

server_test!(following, a_standby_starts_with_what_its_primary_had, {
    let scratch = Scratch::new();
    let primary = scratch.primary("pg1").await;
    let standby = scratch.standby("pg2", &primary).await;
    standby.stop(StopMode::Fast).await;
    let mut settings = (*standby.server.settings()).clone();
    settings
        .command_line
        .retain(|(name, _)| name != "max_connections");
    settings
        .command_line
        .push(("max_connections".into(), "30".into()));
    settings
        .parameters
        .insert("max_connections".into(), "30".into());
    standby.server.replace_settings(settings);
    let started = standby.start(Some(&primary)).await;
    let raised: Vec<_> = started
        .raised
        .iter()
        .map(|raised| (raised.name.as_str(), raised.control.as_str()))
        .collect();
    assert_eq!(raised, [("max_connections", "50")]);
    assert_eq!(standby.sql("SHOW max_connections"), "50");
});

// `configuration.md` §2.13 `krbsrvname`.
server_test!(
    following,
    what_makes_a_replica_knows_the_kerberos_service,
    {
        let scratch = Scratch::new();
        let node = scratch.node("pg1");
        let seen = scratch.path("seen");
        let script = scratch.path("program");
        let text = format!(
            "#!/bin/sh\necho \"$1 $PGKRBSRVNAME\" >> {}\n[ \"$1\" != method ]\n",
            seen.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings = (*node.server.settings()).clone();
        settings.krbsrvname = Some("pgservice".into());
        let program = script.display().to_string();
        settings
            .bin_names
            .insert("pg_basebackup".into(), program.clone());
        settings.replica_methods = vec![
            ReplicaMethod {
                name: "method".into(),
                command: format!("{program} method"),
                ..ReplicaMethod::default()
            },
            ReplicaMethod {
                name: "basebackup".into(),
                ..ReplicaMethod::default()
            },
        ];
        node.server.replace_settings(settings);
        let request = ReplicaRequest {
            source: Some(node.conninfo()),
            ..ReplicaRequest::default()
        };
        // That the stand-in copies nothing does not matter here.
        let _ = node.server.create_replica(request, until()).await;
        let bootstrap = CustomBootstrap {
            command: format!("{program} method"),
            ..CustomBootstrap::default()
        };
        node.server
            .custom_bootstrap(&bootstrap, &[], until())
            .await
            .unwrap_err();
        let data_dir = node.data_dir.display();
        assert_eq!(
            std::fs::read_to_string(seen).unwrap(),
            format!("method pgservice\n--pgdata={data_dir} pgservice\nmethod pgservice\n")
        );
    }
);

server_test!(following, custom_methods_in_their_order, {
    let scratch = Scratch::new();
    let primary = scratch.primary("pg1").await;
    let standby = scratch.node("pg2");
    let mut settings = (*standby.server.settings()).clone();
    let arguments = scratch.path("arguments");
    let script = scratch.path("method");
    let text = format!(
        "echo \"$@\" >> {}; mkdir -p {}/junk; exit 1\n",
        arguments.display(),
        standby.data_dir.display()
    );
    std::fs::write(&script, text).unwrap();
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    settings.replica_methods = vec![
        ReplicaMethod {
            name: "restore".into(),
            command: format!("sh {}", script.display()),
            keep_data: true,
            arguments: [("color", "red"), ("role", "mine"), ("keep_data", "True")]
                .map(text)
                .into(),
            ..ReplicaMethod::default()
        },
        ReplicaMethod {
            name: "basebackup".into(),
            ..ReplicaMethod::default()
        },
    ];
    settings.basebackup_options.arguments =
        ["--checkpoint=fast", "--compress=client-gzip", "--no-sync"]
            .map(str::to_owned)
            .into();
    standby.server.replace_settings(settings);
    let request = ReplicaRequest {
        source: Some(primary.conninfo()),
        ..ReplicaRequest::default()
    };
    let method = standby
        .server
        .create_replica(request, until())
        .await
        .unwrap();
    assert_eq!(method, "basebackup");
    let given = std::fs::read_to_string(arguments).unwrap();
    assert!(
        given.starts_with("--color=red --keep_data=True --scope=batman --role=replica --datadir="),
        "{given}"
    );
    assert!(
        given.contains("--connstring=") && given.contains("host=127.0.0.1"),
        "{given}"
    );
    assert!(!given.contains("rep\\pass"), "{given}");
    assert!(!standby.data_dir.join("junk").exists());
    standby.start(Some(&primary)).await;

    // Without a source nothing is left, and nothing is touched.
    standby.stop(StopMode::Fast).await;
    assert!(
        standby
            .server
            .create_replica(ReplicaRequest::default(), until())
            .await
            .is_err()
    );
    assert_eq!(standby.observe().await.data_directory, DataDirectory::Valid);
    // What a method is to keep is kept when it fails, also one without our parameters.
    let mut settings = (*standby.server.settings()).clone();
    settings.replica_methods.truncate(1);
    settings.replica_methods[0].no_params = true;
    standby.server.replace_settings(settings);
    let request = ReplicaRequest {
        source: Some(primary.conninfo()),
        ..ReplicaRequest::default()
    };
    assert!(
        standby
            .server
            .create_replica(request, until())
            .await
            .is_err()
    );
    assert!(standby.data_dir.join("junk").exists());
    assert_eq!(standby.observe().await.data_directory, DataDirectory::Valid);
    // A source that is not there: what was wiped stays empty.
    let request = ReplicaRequest {
        source: Some(primacy_postgres::Conninfo::new("127.0.0.1", 1, "postgres")),
        basebackup_only: true,
        ..ReplicaRequest::default()
    };
    let error = standby
        .server
        .create_replica(request, until())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("pg_basebackup"), "{error}");
    assert_eq!(standby.observe().await.data_directory, DataDirectory::Empty);
});
