//! `patroni_barman`: what a Barman host does for a member, through its HTTP API (`pg-backup-api`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use primacy_net::{
    Bytes, ClientCertificate, ClientOptions, HeaderMap, HeaderValue, HttpClient, HttpError, Method,
    TlsClientOptions, header,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::log::Log;

/// No command was given: -1.
const NO_COMMAND: u8 = 255;
/// The API is away, or says that it is not in order: -2.
const API_NOT_OK: u8 = 254;

/// For one answer of the API, which only writes down what it is asked for.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Between looks at a switch of the configuration, which takes seconds.
const SWITCH_LOOK: Duration = Duration::from_secs(5);

pub(crate) fn command() -> Command {
    Command::new("barman")
        .about("Restore from Barman, or switch its configuration, through pg-backup-api")
        .disable_help_subcommand(true)
        .after_help(
            "Exit status: 254 the API is not in order, 255 no command was given. recover: 0 done, 1 failed, 2 the API \
             failed. config-switch: 0 done, 1 skipped, 2 failed, 3 the API failed, 4 the options do not fit together.",
        )
        .infer_long_args(true)
        .arg(
            option(
                "api-url",
                "Where pg-backup-api listens: http://localhost:7480",
            )
            .required(true),
        )
        .arg(file("cert-file", "Certificate to show to the API"))
        .arg(file("key-file", "Key of the certificate"))
        .arg(seconds("retry-wait", "2", "Seconds between attempts"))
        .arg(
            option("max-retries", "Attempts until an answer is understood")
                .default_value("5")
                .value_parser(value_parser!(u32)),
        )
        .arg(file(
            "log-file",
            "Where messages go, instead of the error stream",
        ))
        .subcommand(recover_command())
        .subcommand(switch_command())
}

fn recover_command() -> Command {
    Command::new("recover")
        .about("Restore a backup into the data directory")
        .infer_long_args(true)
        .args_override_self(true)
        .arg(server())
        .arg(
            option("backup-id", "The backup, as `barman recover` takes it").default_value("latest"),
        )
        .arg(option("ssh-command", "How the Barman host reaches this one").required(true))
        .arg(
            option("data-directory", "Where the backup goes")
                .visible_alias("datadir")
                .required(true),
        )
        .arg(seconds(
            "loop-wait",
            "10",
            "Seconds between looks at the recovery",
        ))
        .arg(rest())
}

fn switch_command() -> Command {
    Command::new("config-switch")
        .about("Switch the configuration of a Barman server, as a callback on_role_change")
        .infer_long_args(true)
        .args_override_self(true)
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(["on_role_change"]),
        )
        .arg(Arg::new("role").required(true).value_parser([
            "primary",
            "promoted",
            "standby_leader",
            "replica",
            "demoted",
        ]))
        .arg(Arg::new("cluster").required(true))
        .arg(server())
        .arg(option("barman-model", "The configuration model to apply"))
        .arg(
            Arg::new("reset")
                .long("reset")
                .action(ArgAction::SetTrue)
                .help("Take the applied model away"),
        )
        .group(
            ArgGroup::new("what")
                .args(["barman-model", "reset"])
                .required(true),
        )
        .arg(
            option("switch-when", "On which role")
                .required(true)
                .value_parser(["promoted", "demoted", "always"]),
        )
        .arg(rest())
}

fn option(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .allow_hyphen_values(true)
}

fn file(name: &'static str, help: &'static str) -> Arg {
    option(name, help).value_parser(value_parser!(PathBuf))
}

fn seconds(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    option(name, help)
        .default_value(default)
        .value_parser(value_parser!(u64))
}

fn server() -> Arg {
    option("barman-server", "The server's name in Barman").required(true)
}

/// Words that nobody knows are passed over.
fn rest() -> Arg {
    Arg::new("rest").num_args(0..).hide(true)
}

/// The arguments without the options that are not ours: the agent hands over its own ones, which every method of
/// making a replica gets.
pub(crate) fn known(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut current = command();
    let mut known = Vec::new();
    for argument in arguments {
        let text = argument.to_string_lossy().into_owned();
        if let Some(option) = text.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            // Their beginnings count, and help.
            let is_known = "help".starts_with(name)
                || current.get_arguments().any(|argument| {
                    let names = argument
                        .get_long()
                        .into_iter()
                        .chain(argument.get_all_aliases().into_iter().flatten());
                    names.into_iter().any(|known| known.starts_with(name))
                });
            if !is_known {
                continue;
            }
        } else if let Some(subcommand) = current.find_subcommand(&text) {
            current = subcommand.clone();
        }
        known.push(argument);
    }
    known
}

pub(crate) async fn run(matches: &ArgMatches) -> u8 {
    let mut log = match matches.get_one::<PathBuf>("log-file") {
        None => Log::on_stderr(),
        Some(path) => match Log::to_file(path) {
            Ok(log) => log,
            Err(error) => {
                eprintln!("Error: cannot write into {}: {error}", path.display());
                return 1;
            }
        },
    };
    let Some((name, options)) = matches.subcommand() else {
        let _ = crate::Program::Barman.command().print_help();
        return NO_COMMAND;
    };
    let mut api = Api::new(matches, &mut log);
    if let Err(error) = api.check().await {
        api.log
            .error(&format!("pg-backup-api is not working: {error}"));
        return API_NOT_OK;
    }
    match name {
        "recover" => api.recover(options).await,
        _ => api.switch(options).await,
    }
}

/// How an operation on the Barman host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    InProgress,
    Failed,
    Done,
}

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("it answers with status {status} and {body:?}, which is not understood")]
    Unexpected { status: u16, body: String },
}

impl ApiError {
    /// Whether to ask again: not when the API may have begun what it did not answer to.
    fn may_be_repeated(&self, method: &Method) -> bool {
        match self {
            ApiError::Http(error) => *method == Method::GET || !error.was_sent(),
            ApiError::Unexpected { .. } => true,
        }
    }
}

struct Api<'a> {
    client: HttpClient,
    url: String,
    retry_wait: Duration,
    max_retries: u32,
    log: &'a mut Log,
}

impl<'a> Api<'a> {
    fn new(matches: &ArgMatches, log: &'a mut Log) -> Self {
        let path = |name| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
        let certificate = path("cert-file").map(|cert: &Path| ClientCertificate {
            cert: cert.to_owned(),
            key: path("key-file").unwrap_or(cert).to_owned(),
            passphrase: None,
        });
        let url = matches
            .get_one::<String>("api-url")
            .map_or("", String::as_str);
        Api {
            client: HttpClient::new(ClientOptions {
                tls: TlsClientOptions {
                    certificate,
                    ..TlsClientOptions::default()
                },
                ..ClientOptions::default()
            }),
            url: base(url),
            retry_wait: duration(matches, "retry-wait"),
            max_retries: matches.get_one("max-retries").copied().unwrap_or(1),
            log,
        }
    }

    async fn check(&self) -> Result<(), ApiError> {
        self.ask(Method::GET, "status", None, |answer| {
            (answer == "OK").then_some(())
        })
        .await
    }

    async fn recover(&mut self, options: &ArgMatches) -> u8 {
        let text = |name| options.get_one::<String>(name).map_or("", String::as_str);
        let operation = json!({
            "type": "recovery",
            "backup_id": text("backup-id"),
            "remote_ssh_command": text("ssh-command"),
            "destination_directory": text("data-directory"),
        });
        match self
            .carry_out(
                "recovery",
                text("barman-server"),
                &operation,
                duration(options, "loop-wait"),
            )
            .await
        {
            Some(Status::Done) => 0,
            Some(_) => 1,
            None => 2,
        }
    }

    async fn switch(&mut self, options: &ArgMatches) -> u8 {
        let text = |name| options.get_one::<String>(name).map_or("", String::as_str);
        let (role, when) = (text("role"), text("switch-when"));
        let wanted = match when {
            "promoted" => ["primary", "promoted"].contains(&role),
            "demoted" => ["replica", "demoted"].contains(&role),
            _ => true,
        };
        if !wanted {
            self.log.info(&format!(
                "Config switch operation was skipped (role={role}, switch_when={when})."
            ));
            return 1;
        }
        let mut operation = Map::from_iter([("type".to_owned(), json!("config_switch"))]);
        match (text("barman-model"), options.get_flag("reset")) {
            ("", true) => operation.insert("reset".into(), json!(true)),
            (model, false) if !model.is_empty() => {
                operation.insert("model_name".into(), json!(model))
            }
            _ => {
                self.log
                    .error("Give either --barman-model, not empty, or --reset.");
                return 4;
            }
        };
        match self
            .carry_out(
                "config switch",
                text("barman-server"),
                &Value::Object(operation),
                SWITCH_LOOK,
            )
            .await
        {
            Some(Status::Done) => 0,
            Some(_) => 2,
            None => 3,
        }
    }

    /// Has the Barman host do something and waits for its end; `None` when the API failed.
    async fn carry_out(
        &mut self,
        what: &str,
        server: &str,
        operation: &Value,
        look: Duration,
    ) -> Option<Status> {
        let path = format!("servers/{server}/operations");
        let id = self
            .persist(Method::POST, &path, Some(operation), operation_id)
            .await?;
        self.log
            .info(&format!("Created the {what} operation with ID {id}"));
        let path = format!("{path}/{id}");
        loop {
            match self.persist(Method::GET, &path, None, status).await? {
                Status::InProgress => {
                    self.log
                        .info(&format!("The {what} operation {id} is still in progress"));
                    sleep(look).await;
                }
                Status::Failed => {
                    self.log.error(&format!("The {what} operation {id} failed"));
                    return Some(Status::Failed);
                }
                Status::Done => {
                    self.log
                        .info(&format!("The {what} operation {id} finished successfully"));
                    return Some(Status::Done);
                }
            }
        }
    }

    /// Asks until the answer is understood, as often as the operator allows.
    async fn persist<T>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let most = self.max_retries;
        for attempt in 1..=most {
            match self.ask(method.clone(), path, body, &read).await {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    self.log.warning(&format!(
                        "Attempt {attempt} of {most} to {method} {path} failed: {error}"
                    ));
                    if !error.may_be_repeated(&method) {
                        return None;
                    }
                }
            }
            sleep(self.retry_wait).await;
        }
        self.log
            .error("Maximum number of retries exceeded, exiting.");
        None
    }

    async fn ask<T>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, ApiError> {
        let url = format!("{}{path}", self.url);
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let body = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        let deadline = Instant::now() + ANSWER_WITHIN;
        let answer = self
            .client
            .request(method, &url, headers, body, deadline)
            .await?;
        understood(&answer.body, read).ok_or_else(|| ApiError::Unexpected {
            status: answer.status.as_u16(),
            body: String::from_utf8_lossy(&answer.body)
                .chars()
                .take(200)
                .collect(),
        })
    }
}

fn understood<T>(answer: &[u8], read: impl Fn(&Value) -> Option<T>) -> Option<T> {
    read(&serde_json::from_slice(answer).ok()?)
}

/// What an operation that was created is called.
fn operation_id(answer: &Value) -> Option<String> {
    Some(answer.get("operation_id")?.as_str()?.to_owned())
}

fn status(answer: &Value) -> Option<Status> {
    match answer.get("status")?.as_str()? {
        "IN_PROGRESS" => Some(Status::InProgress),
        "FAILED" => Some(Status::Failed),
        "DONE" => Some(Status::Done),
        _ => None,
    }
}

/// What paths are appended to: the URL up to the last slash of its path.
fn base(url: &str) -> String {
    let authority = url.find("://").map_or(0, |scheme| scheme + 3);
    match url[authority..].rfind('/') {
        Some(slash) => url[..=authority + slash].to_owned(),
        None => format!("{url}/"),
    }
}

fn duration(matches: &ArgMatches, name: &str) -> Duration {
    Duration::from_secs(matches.get_one(name).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_replace_the_last_one_of_the_url() {
        for (url, expected) in [
            ("http://h:7480", "http://h:7480/"),
            ("http://h:7480/", "http://h:7480/"),
            ("https://h/api/", "https://h/api/"),
            ("https://h/api", "https://h/"),
        ] {
            assert_eq!(base(url), expected);
        }
    }

    #[test]
    fn options_of_others_are_passed_over() {
        let of = |line: &str| -> Vec<String> {
            let words = line.split(' ').map(OsString::from).collect();
            known(words)
                .into_iter()
                .map(|word| word.into_string().unwrap())
                .collect()
        };
        assert_eq!(
            of(
                "--api-url=u --scope=a recover --barman-server s --ssh-command x --scope=demo --datadir=/d --role=replica --connstring=c"
            ),
            [
                "--api-url=u",
                "recover",
                "--barman-server",
                "s",
                "--ssh-command",
                "x",
                "--datadir=/d"
            ]
        );
        assert_eq!(
            of("--api u recover --data-dir /d"),
            ["--api", "u", "recover", "--data-dir", "/d"]
        );
    }
}

/// What Barman's API answers, and what agents hand over, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn answers_of_barman() {
        let samples: [&[u8]; 3] = [
            br#"{"operation_id": "20400101T100000"}"#,
            br#"{"operation_id": "x", "status": "IN_PROGRESS"}"#,
            br#"[{"status": ["DONE", null, 1e5]}]"#,
        ];
        primacy_fuzz::bytes(&samples, |input| {
            let id = understood(input, operation_id);
            let is_status = understood(input, status).is_some();
            // Whatever it calls an operation, the question for that goes to the same server.
            let url = id
                .as_ref()
                .map(|id| format!("{}{id}", base("http://h:7480/")));
            if let Some(Ok(url)) = url.map(|url| url.parse::<primacy_net::Uri>()) {
                assert_eq!(url.authority().map(|it| it.as_str()), Some("h:7480"));
            }
            id.is_some() || is_status
        });
    }

    #[test]
    #[ignore = "long: make fuzz"]
    fn urls_and_arguments() {
        let line = "http://h:7480/api --api-url=u recover --barman-server s --ssh-command x --scope=demo --datadir=/d --role=replica";
        primacy_fuzz::text(&[line], |input| {
            assert!(base(input).ends_with('/'));
            let words: Vec<OsString> = input.split(' ').map(OsString::from).collect();
            let known_words = known(words.clone());
            assert!(known_words.iter().all(|word| words.contains(word)));
            assert_eq!(known(known_words.clone()), known_words);
            known_words.len() > 1
        });
    }
}
