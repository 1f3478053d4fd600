//! Commands about the configuration, which begin no agent: what is wrong with it, and making one
//! (`configuration.md` §7.2 to §7.4). What they print on standard output is for machines as well.

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::ToSocketAddrs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use primacy_config::generate::{self, FIXME, Host, RunningServer};
use primacy_config::{Effective, TimingLimits, layers, validate, yaml};
use primacy_postgres::{Conninfo, Credentials, Description, Secret, describe};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::fencing::FencingConfig;
use crate::{startup, stores};

/// A local server that answers at all does so at once; one under load takes a while.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// `--validate-config`: a line on standard error for each fault, exit code 1 if there is one.
pub(crate) fn validate(path: Option<&Path>, ignore_listen_port: bool, print: bool) -> ExitCode {
    let checked = || -> anyhow::Result<Vec<String>> {
        let tree = layers::load(path, &startup::environment())?;
        let options = validate::Options { ignore_listen_port };
        let faults = validate::validate(&tree, options);
        if !faults.is_empty() {
            return Ok(faults);
        }
        // What an agent would say as well when it begins a cluster with this.
        let alone = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI)?.local;
        stores::check(&alone)?;
        let dynamic = alone.bootstrap.map(|bootstrap| bootstrap.dcs);
        let limits = TimingLimits::of(&alone.dcs);
        let effective = Effective::build(&tree, &dynamic.unwrap_or_default(), limits)?;
        FencingConfig::parse(effective.tree.get("fencing"))?;
        for warning in &effective.warnings {
            eprintln!("Warning: {warning}");
        }
        if print {
            print_out(&yaml::to_file(&validate::with_defaults(&tree)))?;
        }
        Ok(faults)
    };
    match checked() {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => failed(&error),
    }
}

/// `--generate-sample-config`.
pub(crate) fn generate_sample(output: Option<&Path>) -> ExitCode {
    finished(sample().and_then(|tree| write(output, &tree)))
}

/// `--generate-config`: the configuration of a member that takes a running server over.
pub(crate) async fn generate(output: Option<&Path>, dsn: Option<&str>) -> ExitCode {
    let tree = of_running_server(dsn).await;
    finished(tree.and_then(|tree| write(output, &tree)))
}

fn sample() -> anyhow::Result<Map<String, Value>> {
    let environment = environment()?;
    let version = validate::server_version(&environment).map_err(|error| anyhow!(error))?;
    Ok(generate::sample(&environment, &this_host(), version))
}

async fn of_running_server(dsn: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let environment = environment()?;
    let target = match dsn {
        Some(dsn) => Conninfo::from_dsn(dsn).map_err(|_| anyhow!("Failed to parse DSN string"))?,
        None => Conninfo::default(),
    };
    let (target, credentials) = connection(target, &environment)?;
    let required: Vec<&str> = generate::required_parameters().collect();
    let deadline = Instant::now() + DESCRIBE_TIMEOUT;
    let description = describe(&target, &credentials, &required, deadline)
        .await
        .map_err(|error| anyhow!("Failed to establish PostgreSQL connection: {error}"))?;
    if !description.is_superuser {
        bail!("The provided user does not have superuser privilege");
    }
    let data_dir = parameter(&description, "data_directory").to_owned();
    let server = RunningServer {
        superuser: superuser(&target, &credentials, dsn.is_some(), description.version),
        port: target.get("port").map(str::to_owned),
        bin_dir: directory_of_binaries(Path::new(&data_dir))?,
        parameters: description.parameters.clone(),
    };
    let mut tree = generate::from_server(&environment, &this_host(), &server);
    let lists = [
        ("pg_hba", "hba_file", "pg_hba.conf"),
        ("pg_ident", "ident_file", "pg_ident.conf"),
    ];
    for (key, parameter_name, file) in lists {
        let path = Path::new(&data_dir).join(file);
        // One that lies elsewhere is somebody else's.
        if Path::new(parameter(&description, parameter_name)) != path {
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|error| anyhow!("Failed to read {file}: {error}: {}", path.display()))?;
        let lines = match key {
            "pg_hba" => generate::hba_lines(&text, description.version),
            _ => generate::ident_lines(&text),
        };
        if let (false, Some(Value::Object(section))) =
            (lines.is_empty(), tree.get_mut("postgresql"))
        {
            section.insert(key.to_owned(), lines.into());
        }
    }
    Ok(tree)
}

/// What the string leaves out, from the environment: the `PG*` variables, then the configuration's superuser,
/// then who runs this. The password is asked for when nothing tells it.
fn connection(
    mut target: Conninfo,
    environment: &Map<String, Value>,
) -> anyhow::Result<(Conninfo, Credentials)> {
    for (keyword, variable) in FROM_ENVIRONMENT {
        if target.get(keyword).is_none()
            && let Ok(value) = std::env::var(variable)
        {
            target.set(keyword, &value);
        }
    }
    let configured = environment
        .get("postgresql")
        .and_then(|section| section.get("authentication")?.get("superuser"));
    let configured = |key: &str| {
        let value = configured.and_then(|section| section.get(key));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    let username = target
        .get("user")
        .map(str::to_owned)
        .or_else(|| configured("username"))
        .or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
            user.ok().flatten().map(|user| user.name)
        });
    let password = target
        .get("password")
        .map(str::to_owned)
        .or_else(|| configured("password"));
    let password = match password {
        Some(password) => password,
        None => ask_password().context("the password of the superuser cannot be read")?,
    };
    let credentials = Credentials {
        username,
        password: Some(Secret::new(&password)),
        ..Credentials::default()
    };
    Ok((target, credentials))
}

/// Keywords of libpq with their variables.
const FROM_ENVIRONMENT: [(&str, &str); 14] = [
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("sslmode", "PGSSLMODE"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("gssencmode", "PGGSSENCMODE"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
];

/// What may stand beside name and password in `authentication.superuser`: since which version of the server, and what a
/// connection string means that says nothing.
const SUPERUSER: [(&str, u32, Option<&str>); 10] = [
    ("sslmode", 0, Some("prefer")),
    ("sslcert", 0, None),
    ("sslkey", 0, None),
    ("sslpassword", 130_000, None),
    ("sslrootcert", 0, None),
    ("sslcrl", 0, None),
    ("sslcrldir", 140_000, None),
    ("gssencmode", 120_000, Some("prefer")),
    ("channel_binding", 130_000, Some("prefer")),
    ("sslnegotiation", 170_000, Some("postgres")),
];

fn superuser(
    target: &Conninfo,
    credentials: &Credentials,
    by_string: bool,
    version: u32,
) -> Map<String, Value> {
    let mut section = Map::new();
    for (keyword, since, default) in SUPERUSER {
        let value = target.get(keyword).or(default.filter(|_| by_string));
        if let Some(value) = value.filter(|_| version >= since) {
            section.insert(keyword.into(), value.into());
        }
    }
    let username = credentials.username.as_deref().unwrap_or(FIXME);
    section.insert("username".into(), username.into());
    let password = credentials.password.as_ref().map(|secret| secret.expose());
    section.insert("password".into(), password.into());
    section
}

fn parameter<'d>(description: &'d Description, name: &str) -> &'d str {
    let found = description
        .parameters
        .iter()
        .find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value)
}

/// Where the executable of the postmaster lies, which need not be the only PostgreSQL of this machine.
fn directory_of_binaries(data_dir: &Path) -> anyhow::Result<String> {
    let file = data_dir.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).map_err(|error| {
        anyhow!(
            "Error while reading postmaster.pid file: {error}: {}",
            file.display()
        )
    })?;
    let pid: i32 = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .context("Failed to obtain postmaster pid from postmaster.pid file")?;
    let executable = match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("Obtained postmaster pid doesn't exist.")
        }
        Err(error) => bail!(
            "the executable of process {pid} cannot be seen ({error}): run this as the user who runs PostgreSQL"
        ),
    };
    let directory = executable.parent().unwrap_or(Path::new(""));
    Ok(directory.display().to_string())
}

/// The environment alone: the path on the command line is where to write.
fn environment() -> anyhow::Result<Map<String, Value>> {
    let tree = layers::load(None, &startup::environment())?;
    Ok(tree.as_object().cloned().unwrap_or_default())
}

/// The name of this machine and the first address of that name, IPv4 if there is one.
fn this_host() -> Host {
    let found = || -> anyhow::Result<Host> {
        let name = nix::unistd::gethostname()?
            .into_string()
            .map_err(|name| anyhow!("{name:?} is not UTF-8"))?;
        let mut addresses: Vec<_> = (name.as_str(), 0).to_socket_addrs()?.collect();
        addresses.sort_by_key(|address| address.is_ipv6());
        let address = addresses.first().context("it has none")?.ip().to_string();
        Ok(Host { name, address })
    };
    found().unwrap_or_else(|error| {
        eprintln!("Warning: the address of this machine's name cannot be found out: {error:#}");
        Host::default()
    })
}

/// To the file, whose directory is made where there is none, or to standard output. The file is for its owner alone, since it
/// may hold passwords; one that is there keeps its mode.
fn write(output: Option<&Path>, tree: &Map<String, Value>) -> anyhow::Result<()> {
    let text = generate::to_text(tree);
    let Some(path) = output else {
        return print_out(&text);
    };
    let failed = || format!("Unexpected exception: cannot write {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(failed)?;
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(failed)
}

fn print_out(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    written
        .and_then(|()| output.flush())
        .context("cannot write the output")
}

/// Without an echo where somebody types; a line of a pipe otherwise.
fn ask_password() -> io::Result<String> {
    let input = io::stdin().lock();
    let before = input.is_terminal().then(|| tcgetattr(&input)).transpose()?;
    let mut output = io::stderr();
    write!(output, "Please enter the user password:")?;
    output.flush()?;
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &silent)?;
    }
    let mut input = input;
    let mut line = String::new();
    let read = input.read_line(&mut line);
    if let Some(before) = &before {
        tcsetattr(&input, OptionalActions::Now, before)?;
    }
    writeln!(output)?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn finished(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}
