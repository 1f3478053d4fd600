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

    for _ in 0..2 {
        world.answer(200, r#"{"patroni": {"version": "4.1.5"}}"#);
    }
    let told = world.run("version demo --group 0", "").await;
    let lines = "\n\nn0a: Patroni 4.1.5\nn0b: Patroni 4.1.5\n";
    assert!(told.output.ends_with(lines), "{told:?}");
    let unreachable = r#"{"conn_url": "postgres://127.0.0.1:1/p"}"#;
    world.put("1/members/n1c", unreachable).await;
    for (option, told) in [
        ("--group 0", "No connection to member n1c is available"),
        ("--group 1", "Connection refused "),
        ("", "Connection refused "),
    ] {
        let line = format!("query -c x -m n1c {option}");
        let outcome = world.run(&line, "").await;
        assert!(
            outcome.output.ends_with(&format!("{told}\n")),
            "{outcome:?}"
        );
    }
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

#[tokio::test]
async fn what_groups_have_of_their_own_is_that_of_the_configured_group() {
    let world = two_groups().await;
    for group in [0, 1] {
        let history = format!(r#"[[1,{group},"r","t","x"]]"#);
        world.put(&format!("{group}/history"), &history).await;
    }
    for (option, group) in [("", 1), ("--group 0", 0), ("--group 1", 1)] {
        let (key, other) = (format!("{group}/config"), format!("{}/config", 1 - group));
        let history = format!("TL\tLSN\tReason\tTimestamp\tNew Leader\n1\t{group}\tr\tt\tx\n");
        let config = format!("loop_wait: 1{group}\n\n");
        let untouched = world.get(&other).await;
        for (command, code, output, errors) in [
            ("history -f tsv", 0, history.as_str(), ""),
            ("show-config", 0, &config, ""),
            ("resume", 1, "", "Error: Cluster is not paused\n"),
            (
                "edit-config -q --force -s pause=on",
                0,
                "Configuration changed\n",
                "",
            ),
            ("pause", 1, "", "Error: Cluster is already paused\n"),
            (
                "edit-config -q --force -s pause=null",
                0,
                "Configuration changed\n",
                "",
            ),
        ] {
            let line = format!("{command} {option}");
            world.run(&line, "").await.is(code, output, errors);
        }
        let config = json!({"loop_wait": 10 + group}).to_string();
        assert_eq!(world.get(&key).await.unwrap(), config);
        assert_eq!(world.get(&other).await, untouched);
    }
}

#[tokio::test]
async fn switchovers_are_flushed_in_the_coordinators_group() {
    let world = two_groups().await;
    let request = r#"{"leader":"n0a","scheduled_at":"2040-01-01T00:00:00+00:00"}"#;
    world.put("1/failover", request).await;
    let none = "No pending scheduled switchover\n";
    world.run("flush demo switchover", "").await.is(0, none, "");
    world.put("0/failover", request).await;
    world.answer(404, "");
    let told = "Failed: no switchover is scheduled\n";
    world.run("flush demo switchover", "").await.is(0, told, "");
    // No answer any more: the store is written to, and only where that group has its key.
    let alone = world.run("flush demo switchover", "").await;
    for (member, asked) in [("n0a", true), ("n0b", true), ("n1a", false)] {
        let silent = format!("Member {member} is not accessible\n");
        assert_eq!(alone.errors.contains(&silent), asked, "{alone:?}");
    }
    assert_eq!(world.get("0/failover").await.unwrap(), "{}");
    assert_eq!(world.get("1/failover").await.unwrap(), request);
    world.run("flush demo switchover --group 1", "").await;
    assert_eq!(world.get("1/failover").await.unwrap(), "{}");
}

#[tokio::test]
async fn one_group_alone_is_removed() {
    let world = two_groups().await;
    world.run("remove demo", "").await.is(
        1,
        "",
        "Error: For Citus clusters the --group must me specified\n",
    );
    // Its number begins with that of the one removed.
    world.put("10/config", "{}").await;
    let typed = "demo\nYes I am aware\nn1a\n";
    let removed = world.run("remove demo --group 1", typed).await;
    removed.is(0, &removed.output, "");
    let table = "+ Citus cluster: demo (group: 1, 7000000000000000001) ";
    assert!(removed.output.starts_with(table), "{removed:?}");
    for (group, kept) in [("0", true), ("1", false), ("10", true)] {
        let config = world.get(&format!("{group}/config")).await;
        assert_eq!(config.is_some(), kept, "group {group}");
    }
    assert_eq!(world.get("1/members/n1b").await, None);
}
