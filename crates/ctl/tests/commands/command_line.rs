//! What cannot be understood, configured or reached.

use primacy_dcs::Fault;

use crate::TABLE;
use crate::world::World;

#[tokio::test]
async fn command_lines_and_configurations_that_cannot_be_used() {
    let mut world = World::demo().await;
    world.run("restart demo --role bogus", "").await.is(
        2,
        "",
        "Usage: patronictl restart [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...\nTry 'patronictl restart --help' for help.\n\nError: Invalid value for '--role' / '-r': 'bogus' is not one of 'leader', 'primary', 'standby-leader', 'replica', 'standby', 'any'.\n",
    );
    world.run("flush demo", "").await.is(
        2,
        "",
        "Usage: patronictl flush [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...\n                        {restart|switchover}\nTry 'patronictl flush --help' for help.\n\nError: Missing argument '{restart|switchover}'. Choose from:\n\trestart,\n\tswitchover\n",
    );
    world.run("-c /nonexistent/x.yml list", "").await.is(
        1,
        "",
        "Error: Provided config file /nonexistent/x.yml not existing or no read rights. Check the -c/--config-file parameter\n",
    );
    let help = world.run("list --help", "").await;
    assert!(
        help.output
            .contains("Usage: patronictl list [OPTIONS] [CLUSTER_NAMES]..."),
        "{help:?}"
    );
    let nothing = world.run("", "").await;
    nothing.is(2, "", &nothing.errors);
    assert!(nothing.errors.contains("edit-config"), "{nothing:?}");

    world.variables.clear();
    world.variables.insert(
        "XDG_CONFIG_HOME".into(),
        world.directory.path().display().to_string(),
    );
    let unconfigured = world.run("list demo", "").await;
    assert!(unconfigured.errors.starts_with("Error: Can not find suitable configuration of distributed configuration store\nAvailable implementations: "), "{unconfigured:?}");
    for command in ["list", "topology"] {
        world.run(command, "").await.is(
            0,
            "",
            "TIME - WARNING - Listing members: No cluster names were provided\n",
        );
    }
    world
        .variables
        .insert("PATRONI_ETCD3_HOST".into(), "127.0.0.1:1".into());
    world.run("list demo", "").await.is(0, TABLE, "");
    world
        .run("-d redis://h list demo", "")
        .await
        .is(1, "", "Error: Unknown dcs scheme: redis\n");
    let nameless = world.run("history", "").await;
    assert!(
        nameless
            .errors
            .starts_with("Error: no cluster name was given"),
        "{nameless:?}"
    );
}

#[tokio::test]
async fn store_that_does_not_answer_is_an_error() {
    let world = World::demo().await;
    world.store.set_fault(Fault::Unavailable);
    let outcome = world.run("list", "").await;
    assert!(
        outcome.errors.starts_with("Error: ") && outcome.output.is_empty(),
        "{outcome:?}"
    );
}

/// The precedence of `patronictl.md` §1.1 and §1.3.
#[tokio::test]
async fn configuration_is_found_where_it_may_be() {
    let mut world = World::demo().await;
    let home = world.directory.path().display().to_string();
    let variables = |set: &[(&str, &str)]| {
        let home = [("XDG_CONFIG_HOME", home.as_str())];
        let all = home.iter().chain(set);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    // The whole of it, and then no other variable.
    let whole = "{scope: demo, etcd3: {host: h:1}}";
    world.variables = variables(&[("PATRONI_SCOPE", "other"), ("PATRONI_CONFIGURATION", whole)]);
    world.run("list", "").await.is(0, TABLE, "");

    // The usual file, and variables on top of it.
    let usual = world.directory.path().join("patroni");
    std::fs::create_dir(&usual).unwrap();
    std::fs::write(
        usual.join("patronictl.yaml"),
        "{scope: other, etcd3: {host: h:1}}",
    )
    .unwrap();
    world.variables = variables(&[("PATRONI_SCOPE", "demo")]);
    world.run("list", "").await.is(0, TABLE, "");

    // A directory: its files in the order of their names.
    let several = world.directory.path().join("several");
    std::fs::create_dir(&several).unwrap();
    std::fs::write(several.join("a.yml"), "scope: other").unwrap();
    std::fs::write(several.join("b.yaml"), "{scope: demo, etcd3: {host: h:1}}").unwrap();
    std::fs::write(several.join("c.txt"), "scope: other").unwrap();
    world.variables = variables(&[]);
    let line = format!("-c {} list", several.display());
    world.run(&line, "").await.is(0, TABLE, "");

    world.variables = variables(&[("DCS_URL", "redis://h")]);
    let refusal = "Error: Unknown dcs scheme: redis\n";
    world.run("list", "").await.is(1, "", refusal);
    for option in [
        "-d etcd3://h",
        "--dcs etcd3://h",
        "--dcs=etcd3://h/service",
        "--dcs-url etcd3://h/",
        "--insecure --dcs-url=etcd3://h",
    ] {
        let line = format!("{option} list demo");
        world.run(&line, "").await.is(0, TABLE, "");
    }
    // In another namespace is another cluster of that name.
    world.put("demo/leader", "x").await;
    world
        .put(
            "demo/members/x",
            r#"{"conn_url":"postgres://elsewhere:1/p"}"#,
        )
        .await;
    world
        .run("-d etcd3://h/service/demo dsn demo", "")
        .await
        .is(0, "host=elsewhere port=1\n", "");
    let line = format!("--config-file {} dsn demo", several.display());
    world.variables = variables(&[("PATRONI_NAMESPACE", "/service/demo/")]);
    world
        .run(&line, "")
        .await
        .is(0, "host=elsewhere port=1\n", "");
}

/// The last one set of the three counts.
#[tokio::test]
async fn warnings_are_told_unless_the_level_is_higher() {
    let mut world = World::demo().await;
    let warning = "TIME - WARNING - nosuch is left out: it is no member in the role any\n";
    for (name, level, told) in [
        ("LOGLEVEL", "ERROR", ""),
        ("PATRONI_LOGLEVEL", "info", warning),
        ("PATRONI_LOG_LEVEL", "CRITICAL", ""),
    ] {
        world.variables.insert(name.into(), level.into());
        world.answer(200, "restarted successfully");
        let outcome = world.run("restart demo pg1 nosuch --force", "").await;
        assert_eq!(outcome.errors, told, "{name}={level}");
    }
}
