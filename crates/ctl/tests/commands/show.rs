//! What only shows something.

use primacy_ctl::Program;

use crate::TABLE;
use crate::world::World;

#[tokio::test]
async fn list() {
    let world = World::demo().await;
    world.run("list", "").await.is(0, TABLE, "");
    world
        .run("list demo demo", "")
        .await
        .is(0, &format!("{TABLE}{TABLE}"), "");
    world
        .run("list -t", "")
        .await
        .is(0, &format!("TIME\n{TABLE}"), "");
    for (format, nothing) in [("json", "[]\n"), ("yaml", "[]\n\n"), ("yml", "[]\n\n")] {
        let line = format!("list nosuch -f {format}");
        world.run(&line, "").await.is(0, nothing, "");
    }
    world
        .run_as(Program::Primacy, "list demo", "")
        .await
        .is(0, TABLE, "");
    let topology = TABLE.replace("pg1    |", "+ pg1  |");
    world.run("topology", "").await.is(0, &topology, "");
}

#[tokio::test]
async fn dsn_history_show_config() {
    let world = World::demo().await;
    world
        .run("dsn", "")
        .await
        .is(0, "host=10.0.0.11 port=15432\n", "");
    world
        .run("dsn -r replica", "")
        .await
        .is(0, "host=10.0.0.12 port=15432\n", "");
    world
        .run("dsn demo -m nope", "")
        .await
        .is(1, "", "Error: Can not find a suitable member\n");
    world.run("dsn -m pg0 -r any", "").await.is(
        1,
        "",
        "Error: --role and --member are mutually exclusive options\n",
    );
    world
        .run("history -f tsv", "")
        .await
        .is(0, "TL\tLSN\tReason\tTimestamp\tNew Leader\n", "");
    world.put("history", r#"[[1,5,"r","t","pg0"]]"#).await;
    world.run("history -f tsv", "").await.is(
        0,
        "TL\tLSN\tReason\tTimestamp\tNew Leader\n1\t5\tr\tt\tpg0\n",
        "",
    );
    world.run("show-config", "").await.is(
        0,
        "loop_wait: 10\nmaximum_lag_on_failover: 1048576\npostgresql:\n  parameters:\n    max_connections: 50\n  use_pg_rewind: true\nretry_timeout: 10\nttl: 30\n\n",
        "",
    );
    world.run("show-config nosuch", "").await.is(0, "", "");
}

#[tokio::test]
async fn version() {
    let world = World::demo().await;
    world
        .run("version", "")
        .await
        .is(0, "patronictl version 4.1.5\n", "");
    world.answer(
        200,
        r#"{"state": "running", "server_version": 150018, "patroni": {"version": "4.1.4"}}"#,
    );
    world.answer(
        503,
        r#"{"state": "stopped", "patroni": {"version": "4.1.5"}}"#,
    );
    let expected =
        "patronictl version 4.1.5\n\npg0: Patroni 4.1.4 PostgreSQL 15.18\npg1: Patroni 4.1.5\n";
    world.run("version demo", "").await.is(0, expected, "");
    assert_eq!(world.asked(), ["GET /patroni", "GET /patroni"]);
    world.answer(200, "oops");
    let expected = "patronictl version 4.1.5\n\npg1: failed to get version: the answer is not JSON (status code 200)\n";
    world.run("version demo pg1", "").await.is(0, expected, "");
}
