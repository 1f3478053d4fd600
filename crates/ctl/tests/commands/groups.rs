//! The groups of a Citus cluster (`patronictl.md` §8).

use serde_json::json;

use crate::body;
use crate::world::{CONFIG, World};

/// Two groups, of two members each; the configuration is that of a member of the second.
async fn two_groups() -> World {
    let world = World::empty().await;
    let config = format!("{CONFIG}citus: {{group: 1, database: postgres}}\n");
    std::fs::write(world.directory.path().join("config.yml"), config).unwrap();
    for group in [0, 1] {
        world
            .put(
                &format!("{group}/initialize"),
                &format!("700000000000000000{group}"),
            )
            .await;
        world
            .put(
                &format!("{group}/config"),
                &json!({"loop_wait": 10 + group}).to_string(),
            )
            .await;
        world
            .put(&format!("{group}/leader"), &format!("n{group}a"))
            .await;
        for (member, role) in [("a", "primary"), ("b", "replica")] {
            let name = format!("n{group}{member}");
            let data = json!({
                "conn_url": format!("postgres://{name}:5432/p"),
                "api_url": format!("http://127.0.0.1:{}/patroni", world.port),
                "state": "running",
                "role": role,
            });
            world
                .put(&format!("{group}/members/{name}"), &data.to_string())
                .await;
        }
    }
    world
}

#[tokio::test]
async fn one_group_has_a_path_of_its_own() {
    let world = World::demo().await;
    world.put("1/initialize", "7000000000000000001").await;
    world
        .put(
            "1/members/n1a",
            r#"{"conn_url":"postgres://10.0.1.1/p","state":"running"}"#,
        )
        .await;
    let group = world.run("list --group 1", "").await;
    assert!(
        group
            .output
            .starts_with("+ Citus cluster: demo (group: 1, 7000000000000000001) ")
            && group.output.contains("| n1a "),
        "{group:?}"
    );
}

#[tokio::test]
async fn members_of_every_group_are_chosen() {
    let world = two_groups().await;
    let all = "n0a, n0b, n1a, n1b";
    for (line, typed, end) in [
        (
            "reload demo",
            "n\n",
            format!("reload members {all}? [y/N]: "),
        ),
        (
            "restart demo",
            "\nn\n",
            format!("restart members {all}? [y/N]: "),
        ),
        (
            "restart demo -r primary",
            "\nn\n",
            "restart members n0a, n1a? [y/N]: ".into(),
        ),
        (
            "restart demo n1b",
            "\nn\n",
            "restart members n1b? [y/N]: ".into(),
        ),
        (
            "restart demo --group 0",
            "\nn\n",
            "restart members n0a, n0b? [y/N]: ".into(),
        ),
        (
            "reinit demo",
            "n1b\nn\n",
            "reinitialize members n1b? [y/N]: ".into(),
        ),
        (
            "flush demo restart",
            "n\n",
            format!("flush members {all}? [y/N]: "),
        ),
    ] {
        let outcome = world.run(line, typed).await;
        assert!(outcome.output.ends_with(&end), "{line}: {outcome:?}");
        let begins = match line.contains("--group") {
            true => "+ Citus cluster: demo (group: 0, 7000000000000000000) ",
            false => "+ Citus cluster: demo -",
        };
        assert!(outcome.output.starts_with(begins), "{line}: {outcome:?}");
    }
    // The coordinator's settings count.
    world.answer(202, "reload scheduled");
    let told = world.run("reload demo n1a --force", "").await;
    assert!(
        told.output
            .ends_with("n1a and will be processed within 10 seconds\n"),
        "{told:?}"
    );
}

#[tokio::test]
async fn dsn_query_and_version_look_into_every_group() {
    let world = two_groups().await;
    for (line, host) in [
        ("dsn", "n0a"),
        ("dsn -r replica", "n0b"),
        ("dsn -m n1b", "n1b"),
        ("dsn --group 1", "n1a"),
    ] {
        let expected = format!("host={host} port=5432\n");
        world.run(line, "").await.is(0, &expected, "");
    }
    let told = world.run("query -c x -m n2a", "").await;
    assert!(
        told.output
            .ends_with("No connection to member n2a is available\n"),
        "{told:?}"
    );
    for _ in 0..4 {
        world.answer(200, r#"{"patroni": {"version": "4.1.5"}}"#);
    }
    let lines = "n0a: Patroni 4.1.5\nn0b: Patroni 4.1.5\nn1a: Patroni 4.1.5\nn1b: Patroni 4.1.5\n";
    let told = world.run("version demo", "").await;
    assert!(told.output.ends_with(lines), "{told:?}");
}

#[tokio::test]
async fn switchover_shows_all_groups_and_asks_for_one() {
    let world = two_groups().await;
    let all = world.run("list", "").await.output;
    let topology = format!("Current cluster topology\n{all}");
    for command in ["switchover", "failover"] {
        world.run(&format!("{command} --force"), "").await.is(
            1,
            &topology,
            "Error: For Citus clusters the --group must me specified\n",
        );
    }
    let questions = "Citus group: Error: 'x' is not a valid integer.\nCitus group: Primary [n1a]: ";
    world.run("switchover", "x\n1\nn0a\n").await.is(
        1,
        &format!("{topology}{questions}"),
        "Error: Member n0a is not the leader of cluster demo\n",
    );
    world.answer(412, "no");
    world.run("switchover --group 1 --force", "").await;
    assert_eq!(body(&world.asked()[0])["leader"], "n1a");
}

/// Whatever group the configuration is of.
#[tokio::test]
async fn whole_clusters_are_demoted_by_their_coordinator() {
    let world = two_groups().await;
    world.answer(401, "no");
    let told = world.run("demote-cluster --host h --force", "").await;
    assert!(
        told.output.contains("| n0a ") && told.output.contains("| n1a "),
        "{told:?}"
    );
    assert_eq!(
        body(&world.asked()[0]),
        json!({"standby_cluster": {"host": "h"}})
    );
    // Every member has the same port here, so roles tell whose leader was asked.
    world
        .put("0/members/n0a", r#"{"role": "standby_leader"}"#)
        .await;
    let told = world.run("demote-cluster --host h --force", "").await;
    told.is(1, "", "Error: Cluster is already in the required state\n");
}
