//! A configuration that changes under a running agent: what is in force at once, what waits for a restart, and what both
//! PostgreSQL and the other members must go on finding meanwhile (`configuration.md` §5).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::{Agent, StoreKind, TestCluster, ports, sql, wait_until};
use serde_json::{Value, json};

/// Replaces a text in the member's configuration file.
fn edit(cluster: &TestCluster, from: &str, to: &str) -> Result<()> {
    let config = &cluster.agents[0].config;
    let text = std::fs::read_to_string(config)?;
    ensure!(text.contains(from), "{from:?} is not in {text}");
    let text = text.replace(from, to);
    cluster.scratch().account().write(config, &text)
}

/// Waits until the member tells exactly these parameters to wait for a restart.
async fn wait_for_pending(agent: &Agent, within: Duration, reasons: Value) -> Result<()> {
    wait_until("what waits for a restart", within, async || {
        let status = agent.get("/patroni").await?;
        let told = status.get("pending_restart_reason");
        ensure!(
            told == Some(&reasons).filter(|reasons| !reasons.is_null()),
            "{status}"
        );
        Ok(())
    })
    .await
}

/// Where the others find the member's PostgreSQL.
async fn told_port(agent: &Agent) -> Result<Value> {
    Ok(agent.get("/cluster").await?["members"][0]["port"].clone())
}

async fn heartbeat_session(port: u16) -> Result<String> {
    let session =
        "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'Patroni heartbeat'";
    sql::text(port, session).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_changes() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(1)
        .prepare()
        .await?;
    cluster.start_agent(0)?;
    let within = cluster.timing.recovery();
    let agent = &cluster.agents[0];
    let old_port = agent.postgres_port;
    wait_until("the member to lead", within, async || {
        ensure!(agent.check("/primary").await? == 200);
        Ok(())
    })
    .await?;

    // At once, but for what is sized when the server starts. The reason is told in units that people read.
    edit(
        &cluster,
        "shared_buffers: 16MB",
        "shared_buffers: 24MB\n    work_mem: 7MB",
    )?;
    edit(
        &cluster,
        "  pg_hba:\n",
        "  pg_hba:\n  - local all nobody reject\n",
    )?;
    edit(&cluster, "tags: {}", "tags: {noloadbalance: true}")?;
    agent.sighup()?;
    let shared_buffers = json!({"old_value": "16MB", "new_value": "24MB"});
    wait_for_pending(agent, within, json!({"shared_buffers": shared_buffers})).await?;
    ensure!(sql::text(old_port, "SHOW work_mem").await? == "7MB");
    let rules = "SELECT count(*)::text FROM pg_hba_file_rules WHERE user_name = '{nobody}'";
    ensure!(sql::text(old_port, rules).await? == "1");
    wait_until("the tag", within, async || {
        let status = agent.get("/patroni").await?;
        ensure!(status["tags"] == json!({"noloadbalance": true}), "{status}");
        Ok(())
    })
    .await?;

    // What an agent is, it stays while it runs.
    edit(&cluster, "name: pg1", "name: renamed")?;
    edit(&cluster, "  data_dir: ", "  data_dir: /nonexistent")?;
    agent.sighup()?;
    wait_until(
        "to be told what waits for a new agent",
        within,
        async || {
            let log = agent.log();
            ensure!(
                log.contains("name was changed: that takes effect when this agent starts again")
            );
            ensure!(log.contains("postgresql.data_dir was changed"));
            Ok(())
        },
    )
    .await?;
    agent.send("POST", "/reload", &json!({})).await?;
    wait_for_pending(agent, within, json!({"shared_buffers": shared_buffers})).await?;
    ensure!(sql::text(old_port, "SELECT pg_is_in_recovery()::text").await? == "false");
    ensure!(agent.get("/patroni").await?["patroni"]["name"] == "pg1");
    edit(&cluster, "name: renamed", "name: pg1")?;
    edit(&cluster, "  data_dir: /nonexistent", "  data_dir: ")?;
    agent.sighup()?;

    // Another port waits for a restart, and until then nobody may look for the server there.
    let new_port = ports::free()?;
    edit(&cluster, &format!(":{old_port}"), &format!(":{new_port}"))?;
    agent.sighup()?;
    let port = json!({"old_value": old_port.to_string(), "new_value": new_port.to_string()});
    wait_for_pending(
        agent,
        within,
        json!({"port": port, "shared_buffers": shared_buffers}),
    )
    .await?;
    let session = heartbeat_session(old_port).await?;
    sql::execute(old_port, &format!("SELECT pg_terminate_backend({session})")).await?;
    wait_until("another session of the agent", within, async || {
        let now = heartbeat_session(old_port).await?;
        ensure!(!now.is_empty() && now != session, "{now}");
        Ok(())
    })
    .await?;
    ensure!(told_port(agent).await? == json!(old_port));
    ensure!(
        agent.check("/primary").await? == 200,
        "it does not lead any more"
    );

    // Rules that keep the agent itself out are put right by a reload as well, and by an agent that begins with others.
    let (open, closed) = (
        "  - local all nobody reject\n",
        "  - host all all all reject\n",
    );
    let keeper = sql::connect(old_port, "test").await?;
    let postmaster = agent.postmaster_pid();
    for restart in [false, true] {
        edit(&cluster, open, closed)?;
        cluster.agents[0].sighup()?;
        wait_until("the agent to be kept out", within, async || {
            keeper
                .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'Patroni heartbeat'")
                .await?;
            let status = cluster.agents[0].get("/patroni").await?;
            ensure!(status["state"] != "running", "{status}");
            let let_in = sql::connect(old_port, "test").await.is_ok();
            ensure!(!let_in, "the rules are not in force");
            Ok(())
        })
        .await?;
        if restart {
            cluster.agents[0].sigkill().await?;
            edit(&cluster, closed, open)?;
            cluster.start_agent(0)?;
        } else {
            edit(&cluster, closed, open)?;
            cluster.agents[0].sighup()?;
        }
        wait_until("the agent to be let in again", within, async || {
            let status = cluster.agents[0].get("/patroni").await?;
            ensure!(status["state"] == "running", "{status}");
            let session = heartbeat_session(old_port).await?;
            ensure!(!session.is_empty(), "no session of the agent");
            Ok(())
        })
        .await?;
        ensure!(
            cluster.agents[0].postmaster_pid() == postmaster,
            "PostgreSQL was started anew"
        );
    }
    let agent = &cluster.agents[0];

    // What cannot be read changes nothing. PostgreSQL reads its files again all the same.
    let config = std::fs::read_to_string(&agent.config)?;
    cluster
        .scratch()
        .account()
        .write(&agent.config, "scope: [")?;
    let loaded = "SELECT pg_conf_load_time()::text";
    let before = sql::text(old_port, loaded).await?;
    agent.sighup()?;
    wait_until("a reload of PostgreSQL", within, async || {
        ensure!(sql::text(old_port, loaded).await? != before);
        ensure!(agent.log().contains("the configuration cannot be reloaded"));
        Ok(())
    })
    .await?;
    cluster.scratch().account().write(&agent.config, &config)?;

    let answer = agent.send("POST", "/restart", &json!({})).await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait_for_pending(agent, within, Value::Null).await?;
    ensure!(sql::text(new_port, "SHOW shared_buffers").await? == "24MB");
    wait_until("the others to be told", within, async || {
        ensure!(told_port(agent).await? == json!(new_port));
        Ok(())
    })
    .await?;

    // The same while no agent runs: the next one finds the server where it is.
    let (postmaster, (last_port, rest_port)) =
        (agent.postmaster_pid(), (ports::free()?, ports::free()?));
    let old_rest_port = agent.rest_port;
    cluster.agents[0].sigkill().await?;
    edit(&cluster, &format!(":{new_port}"), &format!(":{last_port}"))?;
    edit(
        &cluster,
        &format!(":{old_rest_port}"),
        &format!(":{rest_port}"),
    )?;
    cluster.agents[0].rest_port = rest_port;
    cluster.start_agent(0)?;
    let agent = &cluster.agents[0];
    let port = json!({"old_value": new_port.to_string(), "new_value": last_port.to_string()});
    wait_for_pending(agent, within, json!({ "port": port })).await?;
    wait_until("the member to lead again", within, async || {
        ensure!(agent.check("/primary").await? == 200);
        Ok(())
    })
    .await?;
    wait_until("the others to find it", within, async || {
        let member = agent.get("/cluster").await?["members"][0].clone();
        let api_url = format!("http://127.0.0.1:{rest_port}/patroni");
        ensure!(
            member["port"] == new_port && member["api_url"] == api_url,
            "{member}"
        );
        Ok(())
    })
    .await?;
    ensure!(agent.postmaster_pid() == postmaster, "it was restarted");
    let answer = agent.send("POST", "/restart", &json!({})).await?;
    ensure!(answer.status == 200, "{answer:?}");
    wait_for_pending(agent, within, Value::Null).await?;
    let new_port = last_port;
    wait_until("the others to be told", within, async || {
        ensure!(told_port(agent).await? == json!(new_port));
        Ok(())
    })
    .await?;

    // The dynamic configuration is kept beside the data, as everybody writes it.
    let change =
        json!({"postgresql": {"parameters": {"work_mem": "9MB"}}, "maximum_lag_on_failover": 5});
    let answer = agent.send("PATCH", "/config", &change).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let cache = agent.data_dir().join("patroni.dynamic.json");
    wait_until("the cache", within, async || {
        let text = std::fs::read_to_string(&cache)?;
        ensure!(text.contains("\"maximum_lag_on_failover\": 5, "), "{text}");
        Ok(())
    })
    .await?;
    // The member's own value goes before the cluster's.
    let shown = sql::text(new_port, "SHOW work_mem").await?;
    ensure!(shown == "7MB", "{shown}");
    let postmaster = agent.postmaster_pid().context("no server")?;
    ensure!(cluster.agents[0].postmaster_pid() == Some(postmaster));
    cluster.pass();
    Ok(())
}
