//! Our `patronictl` and Python's, side by side on one cluster: the same output, errors and exit code for the same
//! command line and the same answers typed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::{StoreKind, TestCluster, patroni, sql, wait_until};

/// What a command did: exit code, output, errors.
type Seen = (Option<i32>, Vec<String>, Vec<String>);

/// Command lines that change nothing, and what is typed. The cluster is `e2e`, `pg1` leads.
const HARMLESS: &[(&str, &str)] = &[
    ("list", ""),
    ("list -f tsv e2e nosuch", ""),
    ("list -tf json", ""),
    ("topology", ""),
    ("dsn", ""),
    ("dsn -m nosuch", ""),
    ("dsn -m pg1 -r any", ""),
    ("history", ""),
    ("history -f json", ""),
    ("history nosuch -f yaml", ""),
    ("show-config", ""),
    ("version e2e", ""),
    // Not understood.
    ("list -f xml", ""),
    ("list -w x", ""),
    ("-h", ""),
    ("-k", ""),
    ("restart", ""),
    ("restart e2e --role", ""),
    ("restart e2e --role bogus", ""),
    ("flush e2e", ""),
    ("demote-cluster --port x", ""),
    ("query -f /nonexistent", ""),
    ("-c /nonexistent list", ""),
    ("-d redis://h list", ""),
    // Refused.
    ("resume", ""),
    ("reload nosuch", ""),
    ("restart e2e nosuch --force", ""),
    ("reinit e2e pg1", ""),
    ("reinit e2e --force", ""),
    ("flush e2e switchover", ""),
    ("switchover --leader pg2", ""),
    ("switchover --candidate nosuch --force", ""),
    ("switchover --scheduled soon --force", ""),
    ("switchover --scheduled 2001-01-01T00:00Z --force", ""),
    ("failover --force", ""),
    ("failover --candidate pg1 --force", ""),
    ("demote-cluster", ""),
    ("promote-cluster", ""),
    ("edit-config -s ttl", ""),
    ("edit-config nosuch -s a=b", ""),
    ("query", ""),
    ("query -c x -m nosuch", ""),
    // Declined.
    ("reload e2e", "maybe\nn\n"),
    ("restart e2e", "\nn\n"),
    ("restart e2e pg2", "2040-01-01T10:00+01:00\nn\n"),
    ("restart e2e --pending", "\nn\n"),
    ("reinit e2e", "nosuch\n"),
    ("switchover", "\n\n\nn\n"),
    ("switchover", "pg2\n"),
    ("failover", "pg2\nn\nn\n"),
    ("demote-cluster --host h --port 3", "n\n"),
    ("remove e2e", "e2e\nYes I am aware\nnosuch\n"),
    ("edit-config -p work_mem=5MB -s a.b.c=1 -s ttl=null", "n\n"),
    ("edit-config --apply -", "ttl: 33\npostgresql: null\n"),
    ("edit-config -q --replace -", "ttl: 33\n"),
    ("edit-config", ""),
    // Asked of a server.
    ("query -c @types", ""),
    ("query --format json -c @values", ""),
    ("query --format yaml -c @values", ""),
    ("query --format pretty -c @types", ""),
    ("query --format json -c @values -r replica", ""),
    ("query -c @none --delimiter ;", ""),
    ("query -c @table", ""),
    ("query --format tsv -c selec", ""),
    ("query -f -", "select current_user, pg_is_in_recovery();\n"),
    ("query -c @encrypted", ""),
];

/// Texts with blanks, which the lines above name.
const TEXTS: &[(&str, &str)] = &[
    (
        "@types",
        "select 1 a, null b, true c, 1.50::numeric d, 1e16::float8 e, array['x y', null] f, '{\"a\": [1.5]}'::jsonb g, \
        '2040-01-01 10:00:00.5+00'::timestamptz h, '1 day 02:03'::interval i",
    ),
    (
        "@values",
        "select 1 a, null b, true c, 1.5::float8 e, array[[1, 2], [3, null]] f, '{\"a\": [1.5]}'::jsonb g, 'ä' h",
    ),
    ("@none", "select 1 a, 2 b where false"),
    ("@table", "create temp table x ()"),
    (
        "@encrypted",
        "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
    ),
];

/// What changes something, and what takes that back.
const CHANGES: &[(&str, &str)] = &[
    ("pause", "resume --wait"),
    ("pause --wait", "resume"),
    (
        "switchover --candidate pg2 --scheduled 2040-01-01T10:00Z --force",
        "flush e2e switchover",
    ),
    (
        "edit-config -s ttl=30 --force",
        "edit-config -s ttl=20 --force -q",
    ),
    ("reload e2e --force", "reload e2e pg1 nosuch -r any --force"),
];

/// By the name that scripts call, on members of both kinds, whose REST APIs want certificates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_command_lines_say_the_same() -> Result<()> {
    let cluster = crate::cluster(StoreKind::Etcd3)
        .members(2)
        .patroni(&[1])
        .with_certificates()
        .by_replaced_names()
        .start()
        .await?;
    let pair = Pair::new(&cluster)?;
    if cluster.leader().await? != 0 {
        cluster
            .control_ok(&["switchover", "e2e", "--force"])
            .await?;
        ensure!(cluster.wait_healthy().await? == 0, "pg1 does not lead");
    }
    // With TLS libpq tries twice, and tells both.
    pair.agree(&[("query -c x -U nobody", "")]).await?;
    pair.encrypt_sessions(&cluster).await?;

    for harmless in HARMLESS {
        pair.agree(&[*harmless]).await?;
    }
    for (change, back) in CHANGES {
        pair.agree(&[(change, ""), (back, "")]).await?;
        cluster.wait_healthy().await?;
    }
    pair.agree(&[("list", "")]).await?;
    cluster.pass();
    Ok(())
}

/// The two programs, and where they run.
pub(crate) struct Pair<'a> {
    cluster: &'a TestCluster,
    /// The configuration of both.
    pub(crate) config: PathBuf,
    ours: PathBuf,
    theirs: PathBuf,
}

impl<'a> Pair<'a> {
    pub(crate) fn new(cluster: &'a TestCluster) -> Result<Self> {
        Ok(Pair {
            cluster,
            config: cluster.agents[0].config.clone(),
            ours: cluster.executable.with_file_name("patronictl"),
            theirs: patroni::program("patronictl")?,
        })
    }

    /// Has the primary offer TLS, which libpq takes without being asked to.
    async fn encrypt_sessions(&self, cluster: &TestCluster) -> Result<()> {
        let certificates = cluster.certificates.as_ref().context("no certificates")?;
        let mut change = vec!["edit-config", "e2e", "--force", "-p", "ssl=on"];
        let files = [
            format!("ssl_cert_file={}", certificates.file("member.pem")),
            format!("ssl_key_file={}", certificates.file("member-key.pem")),
        ];
        change.extend(files.iter().flat_map(|file| ["-p", file]));
        cluster.control_ok(&change).await?;
        wait_until(
            "the server to offer TLS",
            cluster.timing.failover(),
            async || {
                let ssl = sql::text(cluster.agents[0].postgres_port, "show ssl").await?;
                ensure!(ssl == "on", "ssl is {ssl}");
                Ok(())
            },
        )
        .await
    }

    fn run(&self, program: &Path, line: &str, typed: &str) -> Result<Seen> {
        let words = line.split(' ').filter(|word| !word.is_empty()).map(|word| {
            let text = TEXTS.iter().find(|(name, _)| *name == word);
            text.map_or(word, |(_, text)| text).to_owned()
        });
        let mut child = self
            .cluster
            .scratch()
            .command(program)
            .args(words)
            .env("PATRONICTL_CONFIG_FILE", &self.config)
            .env("PGUSER", sql::SUPERUSER)
            .env("PGPASSWORD", sql::SUPERUSER_PASSWORD)
            .env("EDITOR", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        if let Some(mut input) = child.stdin.take() {
            // Who does not ask does not read.
            let _ = input.write_all(typed.as_bytes());
        }
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| without_times(&String::from_utf8_lossy(bytes));
        let (printed, mut errors) = (text(&output.stdout), text(&output.stderr));
        // Ours warn of more.
        errors.retain(|line| !line.contains(" - WARNING - "));
        Ok((output.status.code(), printed, errors))
    }

    /// Lines with what is typed, one after the other by each program. Positions and minutes move between the two, so the
    /// answers must be the same once.
    pub(crate) async fn agree(&self, lines: &[(&str, &str)]) -> Result<()> {
        let all = |program: &Path| -> Result<Vec<Seen>> {
            let run = |(line, typed): &(&str, &str)| self.run(program, line, typed);
            lines.iter().map(run).collect()
        };
        wait_until(
            &format!("the same answers to {lines:?}"),
            Duration::from_secs(90),
            async || {
                let theirs = all(&self.theirs)?;
                let ours = all(&self.ours)?;
                ensure!(ours == theirs, "ours: {ours:#?}\ntheirs: {theirs:#?}");
                Ok(())
            },
        )
        .await
    }
}

/// Lines that begin with this millennium's years: their digits do not count.
fn without_times(text: &str) -> Vec<String> {
    let masked = |line: &str| match line.starts_with("20") {
        true => line.replace(|c: char| c.is_ascii_digit(), "0"),
        false => line.to_owned(),
    };
    text.lines().map(masked).collect()
}
