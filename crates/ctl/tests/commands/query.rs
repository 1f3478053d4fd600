//! SQL on the members.

use primacy_ctl::Program;
use serde_json::json;

use crate::world::World;

/// What needs no server; tests/e2e/commands.rs asks one.
#[tokio::test]
async fn query() {
    let world = World::demo().await;
    let refusals = [
        ("query", "You need to specify either --command or --file"),
        (
            "query -c x -f /dev/null",
            "--file and --command are mutually exclusive options",
        ),
        (
            "query -c x -m pg0 -r any",
            "--role and --member are mutually exclusive options",
        ),
    ];
    for (line, text) in refusals {
        world
            .run(line, "")
            .await
            .is(1, "", &format!("Error: {text}\n"));
    }
    let usage = "Usage: patronictl query [OPTIONS] [CLUSTER_NAME]\nTry 'patronictl query --help' for help.\n\nError: Invalid value for ";
    world.run("query -f /nonexistent/x", "").await.is(
        2,
        "",
        &format!("{usage}'--file' / '-f': '/nonexistent/x': No such file or directory\n"),
    );
    world.run("query -c x --format xml", "").await.is(
        2,
        "",
        &format!(
            "{usage}'--format': 'xml' is not one of 'pretty', 'tsv', 'json', 'yaml', 'yml'.\n"
        ),
    );
    for (line, told) in [
        (
            "query -c x -m nope",
            "No connection to member nope is available",
        ),
        (
            "query -c x -r standby-leader",
            "No connection to role 'standby-leader' is available",
        ),
        ("query nosuch -c x", "No connection is available"),
    ] {
        world
            .run(line, "")
            .await
            .is(0, &format!("TIME\t{told}\n"), "");
    }
    world
        .member(
            "pg0",
            json!({"conn_url": "postgres://127.0.0.1:1/postgres"}),
        )
        .await;
    world
        .run_as(
            Program::Primacy,
            "query -f - --password -d x --format json",
            "select 1",
        )
        .await
        .is(1, "", "Password: Aborted!\n");
    let unreachable = "ERROR, SQLSTATE: connection to server at \"127.0.0.1\", port 1 failed: Connection refused ";
    world.run("query -c x --password", "secret\n").await.is(
        0,
        &format!("TIME\t{unreachable}\n"),
        "Password: \n",
    );
}
