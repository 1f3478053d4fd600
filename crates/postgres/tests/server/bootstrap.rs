//! New clusters.

use primacy_model::Timeline;
use primacy_postgres::{CustomBootstrap, Error, StopMode, ToolOptions};

use crate::scratch::{Scratch, soon, until};
use crate::server_test;

server_test!(bootstrap, options_roles_and_hook, {
    let scratch = Scratch::new();
    let node = scratch.node("pg1");
    let mut settings = (*node.server.settings()).clone();
    settings.initdb_options.problems = vec!["pgdata option for initdb is not allowed".into()];
    node.server.replace_settings(settings.clone());
    let refused = node.server.initdb(&[], until()).await;
    assert!(
        matches!(refused, Err(Error::Configuration(_))),
        "{refused:?}"
    );
    settings.initdb_options = ToolOptions {
        arguments: vec!["--data-checksums".into(), "--encoding=UTF8".into()],
        problems: Vec::new(),
    };
    settings.pg_hba.clear();
    settings.krbsrvname = Some("pgservice".into());
    node.server.replace_settings(settings);
    let lines = [
        "local all boss trust".to_owned(),
        "host all all 127.0.0.1/32 md5".to_owned(),
    ];
    node.server.initdb(&lines, until()).await.unwrap();
    node.start(None).await;

    let given = scratch.path("given");
    let hook = format!(
        "sh -c 'echo \"$1\" $PGOPTIONS $PGKRBSRVNAME > {}; cat $PGPASSFILE >> {0}' hook",
        given.display()
    );
    assert!(
        node.server
            .post_bootstrap(Some("false"), until())
            .await
            .is_err()
    );
    node.server
        .post_bootstrap(Some(&hook), until())
        .await
        .unwrap();
    let given = std::fs::read_to_string(given).unwrap();
    assert!(
        given.starts_with("dbname=postgres user=boss host=/tmp"),
        "{given}"
    );
    assert!(!given.lines().next().unwrap().contains("secret"), "{given}");
    assert!(given.contains("synchronous_commit=local"), "{given}");
    assert!(
        given.lines().next().unwrap().ends_with(" pgservice"),
        "{given}"
    );
    assert!(given.contains(":boss:it's\\:secret"), "{given}");
    let roles = "SELECT string_agg(rolname || rolsuper || rolreplication, ' ' ORDER BY rolname) FROM pg_roles \
                 WHERE rolname IN ('boss', 'rep', 'rewinder')";
    assert_eq!(
        node.sql(roles),
        "bosstruetrue repfalsetrue rewinderfalsefalse"
    );
    let sql =
        "SELECT has_function_privilege('rewinder', 'pg_ls_dir(text, boolean, boolean)', 'EXECUTE')";
    assert_eq!(node.sql(sql), "t");
    assert_eq!(node.sql("SHOW data_checksums"), "on");
    let log = std::fs::read_to_string(node.server.settings().server_log.clone().unwrap()).unwrap();
    assert!(!log.contains("rep\\pass") && !log.contains("it's"), "{log}");
});

server_test!(bootstrap, a_custom_method_recovers_and_promotes, {
    let scratch = Scratch::new();
    let origin = scratch.primary("pg0").await;
    origin.sql("CREATE TABLE t AS SELECT 1 AS a");
    origin.stop(StopMode::Fast).await;
    let node = scratch.node("pg1");
    let script = scratch.path("restore");
    let text = "set -e; for a; do case $a in --datadir=*) to=${a#*=};; --from=*) from=${a#*=};; esac; done; \
                cp -a $from $to; rm -f $to/postgresql.conf $to/postgresql.base.conf\n";
    std::fs::write(&script, text).unwrap();
    let method = CustomBootstrap {
        command: format!("sh {}", script.display()),
        recovery_conf: Some(
            [
                ("restore_command", "false"),
                ("recovery_target_action", "promote"),
                ("Standby_Mode", "off"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ),
        parameters: vec![("from".into(), origin.data_dir.display().to_string())],
        ..CustomBootstrap::default()
    };
    node.server
        .custom_bootstrap(&method, &[], until())
        .await
        .unwrap();
    assert!(node.observe().await.recovery_signal);
    assert!(!node.data_dir.join("standby.signal").exists());
    node.start(None).await;
    node.until_primary().await;
    assert_eq!(node.sql("SHOW hot_standby"), "off");
    let restarted = node.server.post_bootstrap(None, until()).await.unwrap();
    assert!(restarted.is_some());
    let seen = node.observe().await;
    assert_eq!(seen.wal.unwrap().timeline, Some(Timeline(2)));
    assert_eq!(node.sql("SHOW hot_standby"), "on");
    assert_eq!(node.sql("SELECT a FROM t"), "1");
    let hba = std::fs::read_to_string(node.data_dir.join("pg_hba.conf")).unwrap();
    assert!(hba.contains("scram-sha-256"), "{hba}");
    assert!(node.server.system_identifier(soon()).await.is_ok());
    node.server
        .move_data_directory_aside(soon())
        .await
        .unwrap_err();
});
