//! The administrator's commands: custom bootstrap, replica creation, hooks, callbacks. Each writes down how it was
//! called; what it wrote is compared with what Patroni's documentation promises.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use primacy_testkit::settings::SCOPE;
use primacy_testkit::{Scratch, StoreKind, TestCluster, programs, sql, wait_until};
use serde_json::json;

/// Scripts and what they wrote.
struct Scripts {
    scratch: Scratch,
}

impl Scripts {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch
            .account()
            .create_dir(&scratch.path().join("calls"))?;
        Ok(Self { scratch })
    }

    /// The command words of a script that notes its arguments, with the name of the directory that it runs in, and
    /// then does this.
    fn add(&self, name: &str, body: &str) -> Result<String> {
        let script = self.scratch.path().join(name);
        let text = format!(
            "echo \"${{PWD##*/}} $*\" >> {}\n{body}\n",
            self.calls_file(name).display()
        );
        self.scratch.account().write(&script, &text)?;
        Ok(format!("sh {}", script.display()))
    }

    fn calls_file(&self, name: &str) -> PathBuf {
        self.scratch.path().join("calls").join(name)
    }

    /// All calls of a script so far, in their order.
    fn calls(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.calls_file(name)).unwrap_or_default();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// The calls of one member's agent.
    fn of(&self, name: &str, member: &str) -> Vec<String> {
        let prefix = format!("{member} ");
        let calls = self.calls(name).into_iter();
        let rest = calls.filter_map(|call| {
            if call == member {
                return Some(String::new());
            }
            call.strip_prefix(&prefix).map(str::to_owned)
        });
        rest.collect()
    }

    /// A file whose presence makes `pre_promote` of that member fail.
    fn veto(&self, member: &str) -> PathBuf {
        self.scratch.path().join(format!("veto-{member}"))
    }
}

async fn wait_calls(scripts: &Scripts, name: &str, member: &str, expected: &[&str]) -> Result<()> {
    let what = format!("{name} of {member} to be called as expected");
    wait_until(&what, std::time::Duration::from_secs(30), async || {
        let calls = scripts.of(name, member);
        ensure!(calls == expected, "{calls:?}, not {expected:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_is_called_as_documented() -> Result<()> {
    let scripts = Scripts::new()?;
    let bin_dir = programs::postgresql_bin_dir()?;
    let data = "for word; do case $word in --datadir=*) data=${word#*=};; --connstring=*) from=${word#*=};; esac; done";
    let restore = scripts.add(
        "restore",
        &format!(
            "{data}\n{}/initdb -D $data -U postgres -A scram-sha-256 --pwfile=/dev/stdin <<END\nsuper secret\nEND",
            bin_dir.display()
        ),
    )?;
    let broken = scripts.add("broken", "exit 1")?;
    let bare = scripts.add("bare", "exit 1")?;
    let copy = scripts.add(
        "copy",
        &format!(
            "{data}\n{}/pg_basebackup -d \"$from\" -D $data -X stream -c fast",
            bin_dir.display()
        ),
    )?;
    let post_bootstrap = scripts.add(
        "post_bootstrap",
        &format!(
            "[ -n \"$PGPASSFILE\" ] && {}/psql \"$1\" -c 'create table made_by_hook as select 1'",
            bin_dir.display()
        ),
    )?;
    let seen = scripts.calls_file("environment");
    let callback = scripts.add(
        "callback",
        &format!("env | grep ^PATRONI_ >> {}", seen.display()),
    )?;
    // Has a lane of its own, and goes by another name so that the order of the others can be compared.
    let on_reload = scripts.add("on_reload", "")?;
    let before_stop = scripts.add("before_stop", "exit 1")?;
    let veto = scripts.veto("${PWD##*/}");
    let pre_promote = scripts.add("pre_promote", &format!("[ ! -e {} ]", veto.display()))?;
    let mut cluster = crate::cluster(StoreKind::Embedded)
        .bootstrap("method", json!("restore"))
        .bootstrap(
            "restore",
            json!({"command": restore, "stanza": "main", "fast": true}),
        )
        .bootstrap("post_bootstrap", json!(post_bootstrap))
        .postgresql("create_replica_methods", json!(["broken", "bare", "copy"]))
        .postgresql("broken", json!({"command": broken, "keep_data": true}))
        .postgresql(
            "bare",
            json!({"command": bare, "no_params": true, "jobs": 4}),
        )
        .postgresql("copy", json!({"command": copy, "jobs": 4}))
        .postgresql(
            "callbacks",
            json!({
                "on_start": callback, "on_stop": callback, "on_restart": callback,
                "on_role_change": callback, "on_reload": on_reload,
            }),
        )
        .postgresql("before_stop", json!(before_stop))
        .postgresql("pre_promote", json!(pre_promote))
        .prepare()
        .await?;
    for agent in &mut cluster.agents {
        agent.set_variable("PATRONI_LOG_LEVEL", "INFO");
        agent.set_variable("PATRONI_SITE", "east");
    }
    cluster.start_all()?;
    let leader = cluster.wait_healthy().await?;
    cluster.create_ledger(leader).await?;

    // Bootstrap: one member restored, nobody was promoted.
    let name = |member: usize| cluster.agents[member].name.as_str();
    let data = |member: usize| cluster.agents[member].data_dir().display().to_string();
    let restored = format!(
        "{} --scope={SCOPE} --datadir={} --stanza=main --fast=True",
        name(leader),
        data(leader)
    );
    ensure!(
        scripts.calls("restore") == [restored],
        "{:?}",
        scripts.calls("restore")
    );
    let hook = scripts.of("post_bootstrap", name(leader));
    let [dsn] = hook.as_slice() else {
        anyhow::bail!("post_bootstrap was called {} times", hook.len());
    };
    ensure!(
        dsn.contains("user=postgres") && dsn.contains("host=") && !dsn.contains("secret"),
        "{dsn}"
    );
    let port = cluster.agents[leader].postgres_port;
    sql::execute(port, "select from made_by_hook").await?;
    ensure!(scripts.calls("pre_promote").is_empty());
    wait_calls(
        &scripts,
        "callback",
        name(leader),
        &[&format!("on_start primary {SCOPE}")],
    )
    .await?;
    for member in cluster.others(leader) {
        let (name, data) = (name(member), data(member));
        for (method, first, last) in [
            ("broken", "--keep_data=True ", ""),
            ("copy", "", "--jobs=4 "),
        ] {
            let calls = scripts.of(method, name);
            let beginning = format!(
                "{first}{last}--scope={SCOPE} --role=replica --datadir={data} --connstring="
            );
            ensure!(
                calls.len() == 1 && calls[0].starts_with(&beginning),
                "{method}: {calls:?}"
            );
            ensure!(
                calls[0].contains("user=replicator") && !calls[0].contains("secret"),
                "{calls:?}"
            );
        }
        let calls = scripts.of("bare", name);
        ensure!(calls == ["--jobs=4"], "no_params: {calls:?}");
        wait_calls(
            &scripts,
            "callback",
            name,
            &[&format!("on_start replica {SCOPE}")],
        )
        .await?;
    }

    // What the agent understood itself is none of a script's affair.
    wait_until(
        "the environment of callbacks",
        cluster.timing.failover(),
        async || {
            let text = std::fs::read_to_string(&seen)?;
            ensure!(
                !text.is_empty() && text.lines().all(|line| line == "PATRONI_SITE=east"),
                "{text}"
            );
            Ok(())
        },
    )
    .await?;

    // A switchover.
    let writer = cluster.writer().await?;
    let candidate = cluster.synchronous_standby().await?;
    let third = 3 - leader - candidate;
    cluster
        .control_ok(&[
            "switchover",
            SCOPE,
            "--candidate",
            name(candidate),
            "--force",
        ])
        .await?;
    cluster.wait_healthy().await?;
    let called = |events: &[&str]| -> Vec<String> {
        events
            .iter()
            .map(|event| format!("{event} {SCOPE}"))
            .collect()
    };
    let old = called(&[
        "on_start primary",
        "on_stop primary",
        "on_role_change replica",
    ]);
    let new = called(&["on_start replica", "on_role_change primary"]);
    for (member, expected) in [(leader, &old), (candidate, &new)] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        wait_calls(&scripts, "callback", name(member), &expected).await?;
    }
    wait_calls(&scripts, "pre_promote", name(candidate), &[""]).await?;
    wait_calls(&scripts, "before_stop", name(leader), &[""]).await?;

    // A restart, and a reload, of a replica that is left alone otherwise.
    let agent = &cluster.agents[third];
    let reloads = scripts.of("on_reload", name(third)).len();
    let answer = agent.send("POST", "/restart", &json!({})).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let expected = called(&["on_start replica", "on_restart replica"]);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    wait_calls(&scripts, "callback", name(third), &expected).await?;
    agent.send("POST", "/reload", &json!({})).await?;
    wait_until("on_reload", cluster.timing.failover(), async || {
        let calls = scripts.of("on_reload", name(third));
        let line = format!("on_reload replica {SCOPE}");
        ensure!(
            calls.len() > reloads && calls.last() == Some(&line),
            "{calls:?}"
        );
        Ok(())
    })
    .await?;

    // A veto: the member takes the lock, and gives it back.
    cluster.wait_healthy().await?;
    let vetoed = cluster.synchronous_standby().await?;
    std::fs::write(scripts.veto(name(vetoed)), "")?;
    let before = cluster.leader().await?;
    let request = ["switchover", SCOPE, "--candidate", name(vetoed), "--force"];
    let answer = cluster.control(&request).await?;
    // The command takes the lock for success, and may end before the hook is asked.
    wait_until("the veto", cluster.timing.failover(), async || {
        let asked = !scripts.of("pre_promote", name(vetoed)).is_empty();
        ensure!(asked, "{}", String::from_utf8_lossy(&answer.stdout));
        Ok(())
    })
    .await?;
    ensure!(
        cluster
            .wait_leader_other_than(vetoed, cluster.timing.failover())
            .await
            .is_ok(),
        "nobody leads after the veto; {} did before",
        name(before)
    );
    let promoted = format!("on_role_change primary {SCOPE}");
    ensure!(
        vetoed == leader || !scripts.of("callback", name(vetoed)).contains(&promoted),
        "{} was promoted against the veto",
        name(vetoed)
    );
    let ledger = TestCluster::collect([writer]).await?;
    cluster.finish(ledger).await
}
