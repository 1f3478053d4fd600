//! The programs beside the agent, against stand-ins for what they talk to: Barman's HTTP API, WAL-E, psql, EC2.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use primacy_testkit::{Client, Scratch, Venv, client, http, patroni, ports, wait_until};
use serde_json::{Value, json};

/// `pg-backup-api`: answers in a fixed order, and keeps what it was asked.
struct Api {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Value>>>,
}

impl Api {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let api = Api {
            url: format!("http://{}", listener.local_addr()?),
            asked: Arc::default(),
            answers: Arc::default(),
        };
        let (asked, answers) = (api.asked.clone(), api.answers.clone());
        // Ends with the process: it waits for connections only.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &asked, &answers);
            }
        });
        Ok(api)
    }

    /// What it answers next.
    fn will_answer(&self, answers: &[Value]) {
        let mut backwards = answers.to_vec();
        backwards.reverse();
        *self.answers.lock().unwrap() = backwards;
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// One request per connection.
fn answer(
    stream: TcpStream,
    asked: &Mutex<Vec<String>>,
    answers: &Mutex<Vec<Value>>,
) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    // The same whatever the order and the blanks that a client writes.
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(mut body) => {
            body.sort_all_objects();
            body.to_string()
        }
        Err(_) => String::new(),
    };
    let request = request.trim_end().trim_end_matches(" HTTP/1.1");
    asked
        .lock()
        .unwrap()
        .push(format!("{request} {body}").trim_end().to_owned());
    let answer = answers
        .lock()
        .unwrap()
        .pop()
        .unwrap_or_else(|| json!({}))
        .to_string();
    write!(
        stream.get_mut(),
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(())
}

/// The executable under one of its other names.
pub(crate) fn called(scratch: &Scratch, name: &str) -> Result<PathBuf> {
    let executable = scratch.path().join("primacy");
    if !executable.exists() {
        std::fs::copy(crate::EXECUTABLE, &executable)?;
        std::fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755))?;
    }
    let link = scratch.path().join(name);
    std::os::unix::fs::symlink(executable, &link)?;
    Ok(link)
}

fn run(scratch: &Scratch, program: &Path, line: &str) -> Result<Output> {
    scratch
        .command(program)
        .args(line.split(' ').filter(|word| !word.is_empty()))
        .output()
        .with_context(|| format!("cannot run {}", program.display()))
}

/// Each command line with the API's answers: the same questions and the same exit code as with Patroni's program.
#[tokio::test]
async fn barman() -> Result<()> {
    let scratch = Scratch::new()?;
    let ours = called(&scratch, "patroni_barman")?;
    let theirs = patroni::program("patroni_barman")?;
    let api = Api::start()?;
    let created = json!({"operation_id": "20400101T100000"});
    let [running, done, failed] =
        ["IN_PROGRESS", "DONE", "FAILED"].map(|status| json!({"status": status}));
    let recover = "recover --barman-server main --ssh-command ssh_x --loop-wait 0 --scope=demo --datadir=/pg/data --role=replica --connstring=";
    let switch = |rest: &str| format!("config-switch --barman-server main {rest}");
    for (line, answers, code) in [
        (
            recover,
            vec![json!("OK"), created.clone(), running, done.clone()],
            0,
        ),
        (
            recover,
            vec![json!("OK"), created.clone(), failed.clone()],
            1,
        ),
        // Not understood twice, then never.
        (
            recover,
            vec![
                json!("OK"),
                json!({}),
                json!({"x": 1}),
                created.clone(),
                json!({}),
                done.clone(),
            ],
            0,
        ),
        (recover, vec![json!("OK")], 2),
        (recover, vec![json!("down")], 254),
        ("recover --barman-server main", vec![], 2),
        ("", vec![], 255),
        (
            &switch("--barman-model m --switch-when promoted on_role_change primary demo"),
            vec![json!("OK"), created.clone(), done.clone()],
            0,
        ),
        (
            &switch("--reset --switch-when always on_role_change standby_leader demo"),
            vec![json!("OK"), created.clone(), failed],
            2,
        ),
        (
            &switch("--reset --switch-when demoted on_role_change primary demo"),
            vec![json!("OK")],
            1,
        ),
        (
            &switch("--reset --switch-when demoted on_role_change replica demo"),
            vec![json!("OK")],
            3,
        ),
        (
            &switch("--reset --barman-model m --switch-when always on_role_change replica demo"),
            vec![],
            2,
        ),
        (
            &switch("--barman-model= --switch-when always on_role_change replica demo"),
            vec![json!("OK")],
            4,
        ),
        (
            &switch("--reset --switch-when always on_start primary demo"),
            vec![],
            2,
        ),
    ] {
        let line = format!(
            "--api-url {} --retry-wait 0 --max-retries 3 --nonsense=1 {line}",
            api.url
        );
        let mut seen = Vec::new();
        for program in [&ours, &theirs] {
            api.will_answer(&answers);
            let output = run(&scratch, program, &line)?;
            seen.push((output.status.code(), api.asked()));
            ensure!(output.status.code() == Some(code), "{line}: {output:?}");
        }
        ensure!(seen[0] == seen[1], "{line}: ours and theirs: {seen:#?}");
    }

    // An API that is away, and a log of its own.
    let log = scratch.path().join("barman.log");
    let line = format!(
        "--api-url http://127.0.0.1:1 --log-file {} {recover}",
        log.display()
    );
    let output = run(&scratch, &ours, &line)?;
    ensure!(
        output.status.code() == Some(254) && output.stderr.is_empty(),
        "{output:?}"
    );
    let text = std::fs::read_to_string(&log)?;
    ensure!(
        text.contains(" ERROR: pg-backup-api is not working: cannot connect to "),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn wale_restore() -> Result<()> {
    let scratch = Scratch::new()?;
    let program = called(&scratch, "patroni_wale_restore")?;
    let directory = scratch.path().display();
    let script = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
    };
    // The environment's directory names the program's next behaviour.
    script(
        "envdir",
        &format!(
            r#"echo "$@" >>{directory}/calls
behaviour=$(basename "$1")
case "$*" in
*backup-list*)
    test "$behaviour" = unreachable && {{ echo "no such bucket" >&2; exit 1; }}
    printf 'name\texpanded_size_bytes\twal_segment_backup_start\twal_segment_offset_backup_start\n'
    test "$behaviour" = none || printf 'base_1\t1000000\t0000000A0000000B00000012\t00000040\n' ;;
*backup-fetch*)
    test "$behaviour" = broken && exit 3
    shift $(($# - 2))
    mkdir "$1" && ln -s /nonexistent/elsewhere "$1/pg_wal" ;;
esac"#
        ),
    )?;
    script(
        "psql",
        &format!(r#"echo "$@" >>{directory}/calls; cat {directory}/distance"#),
    )?;
    for behaviour in ["good", "none", "unreachable", "broken"] {
        scratch
            .account()
            .create_dir(&scratch.path().join(behaviour))?;
    }
    let data_dir = scratch.path().join("data");
    let restore = |behaviour: &str, more: &str| {
        let line = format!(
            "--scope=demo --role=replica --datadir={} --connstring=host=h --envdir={directory}/{behaviour} {more}",
            data_dir.display()
        );
        let path = format!("{directory}:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = scratch.command(&program);
        command
            .args(line.split(' ').filter(|word| !word.is_empty()))
            .env("PATH", path);
        command.output()
    };
    let write = |name: &str, text: &str| scratch.account().write(&scratch.path().join(name), text);
    write("calls", "")?;

    // A distance of 300000 bytes is 30 % of the backup.
    for (behaviour, distance, more, code) in [
        ("missing", "0", "", 2),
        ("none", "0", "", 2),
        ("unreachable", "0", "", 1),
        ("good", "300000", "", 2),
        (
            "good",
            "2000000",
            "--threshold_megabytes 1 --threshold_backup_size_percentage 900",
            2,
        ),
        ("good", "nonsense", "--retries 0", 2),
        ("broken", "0", "--retries 0", 3),
        ("good", "299999", "--use_iam=1", 0),
    ] {
        write("distance", distance)?;
        let output = restore(behaviour, more)?;
        ensure!(
            output.status.code() == Some(code),
            "{behaviour} {distance} {more}: {output:?}"
        );
    }
    ensure!(
        data_dir.join("pg_wal").is_dir(),
        "pg_wal still points elsewhere"
    );
    std::fs::remove_dir_all(&data_dir)?;
    write("distance", "nonsense")?;
    let output = restore("good", "--retries=0 --no_leader=1")?;
    ensure!(output.status.success() && data_dir.is_dir(), "{output:?}");

    let calls = std::fs::read_to_string(scratch.path().join("calls"))?;
    ensure!(
        calls.contains("/good wal-e --aws-instance-profile backup-list --detail LATEST\n"),
        "{calls}"
    );
    ensure!(
        calls.contains("-d host=h -c SELECT ") && calls.contains("'B/12000028'"),
        "{calls}"
    );
    ensure!(
        calls.matches("/unreachable wal-e").count() == 2,
        "it was not tried again: {calls}"
    );
    Ok(())
}

/// As start-up files of shells ask Patroni's for it.
#[tokio::test]
async fn completions_by_a_variable() -> Result<()> {
    let scratch = Scratch::new()?;
    let program = called(&scratch, "patronictl")?;
    for (shell, says) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef patronictl"),
        ("fish", "complete -c patronictl"),
    ] {
        let mut command = scratch.command(&program);
        let output = command
            .env("_PATRONICTL_COMPLETE", format!("{shell}_source"))
            .output()?;
        let script = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && script.contains(says),
            "{shell}: {output:?}"
        );
    }
    Ok(())
}

/// What stands in for EC2, and Patroni's own program.
const AWS: Venv = Venv {
    directory: "/var/tmp/primacy-test-aws-5.2.5",
    packages: &["moto[ec2,server]==5.2.5", "patroni[aws]==4.1.5"],
};
const AWS_STAND_IN: &str = include_str!("aws_stand_in.py");
/// Patroni's `patroni_aws`, which asks who the instance is at one address only, made to ask at another.
const AWS_PATRONI: &str = "
import sys, botocore.utils
botocore.utils.IMDSFetcher.__init__.__defaults__ = (30, 5, sys.argv.pop(1), None, None, None)
from patroni.scripts.aws import main
main()
";

/// The same tags as by Patroni's program, by tokens and without, with credentials of the instance and of the environment.
#[tokio::test]
async fn aws() -> Result<()> {
    let scratch = Scratch::new()?;
    let python = AWS.bin()?.join("python");
    let (ec2, metadata) = (ports::free()?, ports::free()?);
    scratch
        .account()
        .write(&scratch.path().join("stand_in.py"), AWS_STAND_IN)?;
    let mut command = scratch.command(&python);
    command.args(["stand_in.py", &ec2.to_string(), &metadata.to_string()]);
    let stand_in = Client::start(&scratch, "stand-in", command)?;
    let within = Duration::from_secs(60);
    let ask = async |method: &str, path: &str, body: Option<&Value>| {
        http::request(metadata, method, path, body, within).await
    };
    wait_until("the stand-in to be ready", within, async || {
        ask("GET", "/tags", None)
            .await
            .with_context(|| stand_in.log())
    })
    .await?;
    let log = stand_in.log();
    let ready = log.lines().find_map(|line| line.strip_prefix("ready "));
    let mut names = ready.context("no names")?.split(' ');
    let (instance, volume, other) = (names.next(), names.next(), names.next());
    let [instance, volume, other] =
        [instance, volume, other].map(|name| name.unwrap_or_default().to_owned());

    let address = format!("http://127.0.0.1:{metadata}");
    let ours = called(&scratch, "patroni_aws")?;
    let of = |program: &Path, line: &str| {
        let mut command = scratch.command(program);
        command
            .args(line.split(' ').filter(|word| !word.is_empty()))
            .env("AWS_ENDPOINT_URL_EC2", format!("http://127.0.0.1:{ec2}"))
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &address)
            .env("AWS_METADATA_SERVICE_TIMEOUT", "30")
            .env("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "5");
        command
    };
    let told = async |command: std::process::Command| -> Result<(Output, Value)> {
        let output = client::output(command, within).await?;
        ensure!(output.status.code() == Some(0), "{output:?}");
        Ok((output, ask("GET", "/tags", None).await?.json()?))
    };

    for (line, mode) in [
        ("on_start replica demo", "no-tokens"),
        ("on_role_change primary a=b&c d+ü", "tokens"),
    ] {
        ask("PUT", "/mode", Some(&json!(mode))).await?;
        let mut patronis = scratch.command(&python);
        // The cluster's name is whatever is left of the line.
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        patronis
            .args(["-c", AWS_PATRONI, &address])
            .args(&words)
            .env("AWS_ENDPOINT_URL_EC2", format!("http://127.0.0.1:{ec2}"));
        let (_, by_patroni) = told(patronis).await?;
        let mut command = of(&ours, "");
        command.args(&words);
        let (output, by_us) = told(command).await?;
        ensure!(by_us == by_patroni, "{by_us} {by_patroni} {output:?}");
        let name = format!("spilo_{}", words[2]);
        let tags = json!({"Name": name, "Role": words[1], "Instance": instance});
        ensure!(
            by_us[&volume] == tags
                && by_us[&instance] == json!({"Role": words[1]})
                && by_us[&other] == json!({}),
            "{by_us}"
        );
    }

    // What fails is tried again.
    ask("PUT", "/mode", Some(&json!("late-credentials"))).await?;
    let (output, tags) = told(of(&ours, "on_stop replica demo")).await?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tags[&volume]["Role"] == json!("replica") && text.contains(" WARNING: Cannot tag: "),
        "{tags} {text}"
    );

    // Those of the environment come first. What is refused is told, and no secret.
    let path = "/latest/meta-data/iam/security-credentials/member";
    let token = "X-aws-ec2-metadata-token: a-token";
    let question = format!("GET {path} HTTP/1.0\r\n{token}\r\n\r\n");
    let credentials = http::parse(&http::exchange(metadata, &question, within).await?)?.json()?;
    let credential = |name: &str| credentials[name].as_str().unwrap_or_default();
    ask("PUT", "/mode", Some(&json!("bad-credentials"))).await?;
    let mut command = of(&ours, "on_start primary demo");
    command
        .env("AWS_ACCESS_KEY_ID", credential("AccessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", credential("SecretAccessKey"))
        .env("AWS_SESSION_TOKEN", credential("Token"));
    let (output, tags) = told(command).await?;
    ensure!(
        tags[&volume]["Role"] == json!("primary"),
        "{tags} {output:?}"
    );
    let refused = Client::start(&scratch, "refused", of(&ours, "on_start primary demo"))?;
    wait_until("a refusal to be told", within, async || {
        ensure!(refused.log().contains(": AuthFailure: "), refused.log());
        Ok(())
    })
    .await?;
    for secret in ["not-the-secret", credential("Token")] {
        ensure!(!refused.log().contains(secret), refused.log());
    }

    // Not on an instance: nothing to do. No callback at all: wrong.
    let mut elsewhere = of(&ours, "on_start primary demo");
    elsewhere.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
    for (command, code, said) in [
        (elsewhere, 0, " ERROR: cannot query AWS meta-data: "),
        (of(&ours, "on_start primary"), 1, "Usage: patroni_aws "),
        (of(&ours, "on_reload primary demo"), 1, "on_reload"),
    ] {
        let output = client::output(command, within).await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code) && text.contains(said),
            "{output:?}"
        );
    }
    Ok(())
}
