//! The dynamic configuration's changes.

use serde_json::{Value, json};

use crate::world::World;

const DIFF: &str = "\
--- \n+++ \n@@ -2,7 +2,7 @@
 maximum_lag_on_failover: 1048576
 postgresql:
   parameters:
-    max_connections: 50
+    max_connections: 60
   use_pg_rewind: true
 retry_timeout: 10
 ttl: 30
";

#[tokio::test]
async fn edit_config_with_options() {
    let world = World::demo().await;
    let before = world.get("config").await;
    world
        .run("edit-config -p max_connections=60", "n\n")
        .await
        .is(0, &format!("{DIFF}Apply these changes? [y/N]: "), "");
    assert_eq!(world.get("config").await, before);
    world
        .run("edit-config -p max_connections=60 --force", "")
        .await
        .is(0, &format!("{DIFF}Configuration changed\n"), "");
    assert!(
        world
            .get("config")
            .await
            .unwrap()
            .contains(r#""max_connections":60"#)
    );
    world
        .run("edit-config -p max_connections=60", "")
        .await
        .is(0, "Not changed\n", "");
    world
        .run("edit-config -q -s ttl=20 --force", "")
        .await
        .is(0, "Configuration changed\n", "");
    world
        .run("edit-config -q -s ttl=20", "")
        .await
        .is(0, "", "");
    world
        .run("edit-config -s ttl", "")
        .await
        .is(1, "", "Error: Invalid parameter setting ttl\n");
    world.run("edit-config nosuch -s ttl=1", "").await.is(
        1,
        "",
        "Error: The config key does not exist in the cluster nosuch\n",
    );
    let typed = "ttl: 40\n";
    let piped = world.run("edit-config -q --apply -", typed).await;
    piped.is(0, "Use --force option to apply changes\n", "");
    world
        .run("edit-config -q --replace - --force", typed)
        .await
        .is(0, "Configuration changed\n", "");
    assert_eq!(world.get("config").await.unwrap(), r#"{"ttl":40}"#);
    let missing = world.run("edit-config --apply /nonexistent/x", "").await;
    assert!(
        missing
            .errors
            .starts_with("Error: cannot read /nonexistent/x: "),
        "{missing:?}"
    );
}

/// Each key is set by two neighbours of the order: replace, apply, `-s`, `-p`.
#[tokio::test]
async fn edit_config_applies_its_options_in_their_order_and_not_in_that_of_the_line() {
    let world = World::demo().await;
    let file = |name: &str, text: &str| {
        let path = world.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let replace = file("replace.yml", "{ttl: 1, a: replace}");
    let apply = file("apply.yml", "{ttl: null, a: apply, b: apply}");
    let line = format!(
        "edit-config -q --force -p c=pg -s postgresql.parameters.c=set -s b=first -s b=last --apply {apply} --replace {replace}"
    );
    let changed = world.run(&line, "").await;
    changed.is(0, "Configuration changed\n", "");
    assert_eq!(
        serde_json::from_str::<Value>(&world.get("config").await.unwrap()).unwrap(),
        json!({"a": "apply", "b": "last", "postgresql": {"parameters": {"c": "pg"}}})
    );
}

#[tokio::test]
async fn edit_config_tells_a_number_from_its_text() {
    let world = World::demo().await;
    let line = "edit-config -s ttl=\"30\" --force";
    let diff = "--- \n+++ \n@@ -5,4 +5,4 @@\n     max_connections: 50\n   use_pg_rewind: true\n retry_timeout: 10\n-ttl: 30\n+ttl: '30'\n";
    world
        .run(line, "")
        .await
        .is(0, &format!("{diff}Configuration changed\n"), "");
    world.run(line, "").await.is(0, "Not changed\n", "");
}

#[tokio::test]
async fn edit_config_in_an_editor() {
    let mut world = World::demo().await;
    let script = |text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = world.directory.path().join("my-editor");
        // By another name first: a file that is open for writing cannot be run.
        let draft = world.directory.path().join("draft");
        std::fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path.display().to_string()
    };
    let editor = script(r#"sed -i "$1" "$2""#);
    world
        .variables
        .insert("EDITOR".into(), format!("{editor} 's/: 50/: 60/'"));
    let changed = world.run("edit-config", "y\n").await;
    changed.is(
        0,
        &format!("{DIFF}Apply these changes? [y/N]: Configuration changed\n"),
        "",
    );
    let unchanged = world.run("edit-config", "").await;
    unchanged.is(0, "Not changed\n", "");

    world
        .variables
        .insert("EDITOR".into(), format!("{editor} d"));
    let emptied = world.run("edit-config --force", "").await;
    assert!(
        emptied
            .errors
            .starts_with("Error: The edited configuration is empty"),
        "{emptied:?}"
    );
    world
        .variables
        .insert("EDITOR".into(), format!("{editor} 's/: 30/: {{/'"));
    let invalid = world.run("edit-config", "").await;
    assert!(
        invalid
            .errors
            .starts_with("Error: the edited configuration, line "),
        "{invalid:?}"
    );
    world.variables.insert("EDITOR".into(), "false".into());
    world
        .variables
        .insert("PATH".into(), "/usr/bin:/bin".into());
    world
        .run("edit-config", "")
        .await
        .is(1, "", "Error: Editor exited with return code 1\n");
    world.variables.remove("EDITOR");
    world.variables.insert("PATH".into(), "/nonexistent".into());
    world.run("edit-config", "").await.is(
        1,
        "",
        "Error: EDITOR environment variable is not set. editor or vi are not available\n",
    );
}

#[tokio::test]
async fn edit_config_loses_against_a_concurrent_change() {
    let mut world = World::demo().await;
    // The editor's time is when somebody else writes: it waits for a file that appears after the write.
    let (begun, go) = (
        world.directory.path().join("begun"),
        world.directory.path().join("go"),
    );
    let script = format!(
        "sh -c 'touch {}; until test -e {}; do sleep 0.01; done; echo ttl: 1 > $0'",
        begun.display(),
        go.display()
    );
    world.variables.insert("EDITOR".into(), script);
    let other = async {
        while !begun.exists() {
            tokio::task::yield_now().await;
        }
        world.put("config", r#"{"ttl":99}"#).await;
        std::fs::write(&go, "").unwrap();
    };
    let (outcome, ()) = tokio::join!(world.run("edit-config -q --force", ""), other);
    outcome.is(
        1,
        "",
        "Error: Config modification aborted due to concurrent changes\n",
    );
    assert_eq!(world.get("config").await.unwrap(), r#"{"ttl":99}"#);
}
