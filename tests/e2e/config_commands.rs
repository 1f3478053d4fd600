//! The commands about a configuration: a server that nobody managed gets one made from it, and an agent takes it over.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use primacy_testkit::sql::SUPERUSER_PASSWORD;
use primacy_testkit::{StoreKind, TestCluster, programs, sql, wait_until};

/// Runs the agent's command line with variables in the environment, among which one is no text; what it prints.
fn agent(
    cluster: &TestCluster,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Result<(Output, String)> {
    let mut command = cluster.scratch().command(&cluster.executable);
    command.arg("agent").args(arguments);
    command.envs(variables.iter().copied());
    command.env("GREETING", OsStr::from_bytes(b"gr\xfc\xdf Gott"));
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!errors.contains("panicked at"), "{errors}");
    Ok((output, errors))
}

/// A server as an administrator made it, running; it and its role for replication.
async fn unmanaged_server(cluster: &TestCluster) -> Result<()> {
    let member = &cluster.agents[0];
    let (data_dir, port) = (member.data_dir(), member.postgres_port);
    let bin = programs::postgresql_bin_dir()?;
    let password = member.dir.join("superuser");
    let account = cluster.scratch().account();
    account.write(&password, SUPERUSER_PASSWORD)?;
    let run = |program: &str, arguments: &[&str]| -> Result<()> {
        let mut command = cluster.scratch().command(bin.join(program));
        let output = command
            .arg("--pgdata")
            .arg(&data_dir)
            .args(arguments)
            .output()?;
        ensure!(output.status.success(), "{program}: {output:?}");
        Ok(())
    };
    let pwfile = format!("--pwfile={}", password.display());
    run(
        "initdb",
        &[
            "--no-sync",
            "--auth=scram-sha-256",
            "--username=postgres",
            &pwfile,
        ],
    )?;
    let conf = format!(
        "port = {port}\nlisten_addresses = '127.0.0.1,127.0.0.2'\nunix_socket_directories = '{}'\ncluster_name = 'e2e'\n\
         work_mem = '5MB'\narchive_mode = on\narchive_command = 'true'\nfsync = off\n",
        member.dir.display()
    );
    account.write(&data_dir.join("conf.d.conf"), &conf)?;
    let main = data_dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&main)? + "include 'conf.d.conf'\n";
    account.write(&main, &text)?;
    let log = format!("--log={}", member.dir.join("server.log").display());
    run("pg_ctl", &["start", "--silent", "--wait", &log])?;
    sql::execute(
        port,
        "CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'r'",
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_taken_over() -> Result<()> {
    let mut cluster = crate::cluster(StoreKind::Etcd3)
        .members(1)
        .prepare()
        .await?;
    unmanaged_server(&cluster).await?;
    let member = &cluster.agents[0];
    let port = member.postgres_port;
    let before = member.postmaster_pid().context("the server does not run")?;

    let config = member.dir.join("made/agent.yml");
    let path = config.display().to_string();
    let hosts = cluster.store.hosts().join(",");
    let rest = format!("127.0.0.2:{}", member.rest_port);
    let everywhere = format!("0.0.0.0:{}", member.rest_port);
    let dsn = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let variables = [
        ("PATRONI_NAME", "pg1"),
        ("PATRONI_ETCD3_HOSTS", hosts.as_str()),
        ("PATRONI_RESTAPI_LISTEN", everywhere.as_str()),
        ("PATRONI_RESTAPI_CONNECT_ADDRESS", rest.as_str()),
        ("PATRONI_POSTGRESQL_CONNECT_ADDRESS", "127.0.0.2:1"),
        ("PGPASSWORD", SUPERUSER_PASSWORD),
    ];
    let wrong = [("PGPASSWORD", "wrong")];
    let arguments = ["--generate-config", &path, "--dsn", &dsn];
    let (refused, errors) = agent(&cluster, &wrong, &arguments)?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(
        errors.starts_with("Failed to establish PostgreSQL connection: "),
        "{errors}"
    );
    ensure!(!config.exists(), "it wrote a file all the same");
    let (made, errors) = agent(&cluster, &variables, &arguments)?;
    ensure!(made.status.success() && errors.is_empty(), "{made:?}");
    complete(&config)?;

    // The server that runs is the reason for the one fault.
    let (faulty, errors) = agent(&cluster, &[], &["--validate-config", &path])?;
    ensure!(faulty.status.code() == Some(1), "{faulty:?}");
    let fault = format!(
        "postgresql.listen 127.0.0.1,127.0.0.2:{port} didn't pass validation: Port {port} is already in use.\n"
    );
    ensure!(errors == fault, "{errors}");
    let (valid, errors) = agent(&cluster, &[], &["--validate-config", "-i", "-p", &path])?;
    ensure!(valid.status.success(), "{valid:?}");
    // The server's own default, less than what a cluster keeps.
    let adjusted =
        "Warning: postgresql parameter wal_keep_size=0 failed validation, defaulting to 128MB\n";
    ensure!(errors == adjusted, "{errors}");
    let printed = String::from_utf8_lossy(&valid.stdout);
    ensure!(printed.contains("\nscope: e2e\n"), "{printed}");
    // Beside its own faults, what an agent would refuse: a store that this version does not have.
    let consul = [("PATRONI_CONSUL_HOST", "127.0.0.1:8500")];
    for arguments in [&["--validate-config", "-i", &path][..], &[&path]] {
        let (refused, errors) = agent(&cluster, &consul, arguments)?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        ensure!(errors.contains("consul"), "{errors}");
    }

    let agent = &mut cluster.agents[0];
    agent.config = config;
    cluster.start_agent(0)?;
    let member = &cluster.agents[0];
    wait_until("the agent to lead", cluster.timing.recovery(), async || {
        ensure!(member.check("/primary").await? == 200);
        Ok(())
    })
    .await?;
    ensure!(
        member.postmaster_pid() == Some(before),
        "the server was restarted"
    );
    ensure!(
        sql::text(port, "SHOW work_mem").await? == "5MB",
        "a parameter was lost"
    );
    ensure!(
        sql::text(port, "SHOW archive_command").await? == "true",
        "a parameter was lost"
    );
    cluster.pass();
    Ok(())
}

/// What an administrator does with a generated file.
fn complete(config: &Path) -> Result<()> {
    let text = std::fs::read_to_string(config)?;
    ensure!(text.contains("scope: e2e\n"), "{text}");
    let text = text
        .replace("password: '#FIXME'", "password: r")
        .replace("username: '#FIXME'", "username: replicator");
    ensure!(!text.contains("'#FIXME'"), "{text}");
    // Written over, so that the file keeps its owner.
    std::fs::write(config, text)?;
    Ok(())
}
