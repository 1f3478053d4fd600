//! `query` (`patronictl.md` §7.3).

mod connection;
mod libpq;
mod value;

use std::time::Duration;

use primacy_model::ConnUrl;
use serde_json::Value;
use tokio::time::Instant;

use self::connection::{Connection, Outcome, QueryError};
use self::libpq::Login;
use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Remote, Target};
use crate::members::Wanted;
use crate::render::write_result;
use crate::schedule::timestamp;

/// Whom to ask, and what.
struct Question {
    member: Option<String>,
    role: Option<String>,
    sql: String,
}

pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let format = context.options.query_format()?;
    let period = context.options.watch()?;
    let question = Question {
        role: context.options.role()?.map(str::to_owned),
        member: context.options.text("member").map(str::to_owned),
        sql: sql(context).await?,
    };
    let delimiter = context.options.text("delimiter").unwrap_or("\t").to_owned();
    let password = match context.options.is_set("password") {
        true => Some(context.console.password("Password").await?),
        false => None,
    };
    let text = |option: &str| context.options.text(option).map(str::to_owned);
    let login = Login::new(
        text("username"),
        password,
        text("dbname"),
        &context.variables,
    );
    if question.role.is_some() && question.member.is_some() {
        return Err(Failure::refused(
            "--role and --member are mutually exclusive options",
        ));
    }
    let target = context.target()?;
    let remote = context.connect()?;
    if let Some(warning) = login.warning() {
        context.console.warn(&warning);
    }
    loop {
        let begin = Instant::now();
        let (columns, rows) = match ask(context, &remote, &target, &question, &login).await? {
            Ok(outcome) => (Some(outcome.columns), outcome.rows),
            Err(told) => (None, vec![[timestamp(), told].map(Value::String).to_vec()]),
        };
        let text = write_result(columns.as_deref(), &rows, format, &delimiter);
        context.console.write(&text)?;
        let Some(period) = period else {
            return Ok(());
        };
        tokio::time::sleep_until(begin + Duration::from_secs_f64(period.min(1e9))).await;
    }
}

/// What to execute: exactly one of the two options gives it.
async fn sql(context: &mut Context) -> Result<String, Failure> {
    let command = context.options.text("command").map(str::to_owned);
    let Some(path) = context.options.text("file").map(str::to_owned) else {
        return command
            .ok_or_else(|| Failure::refused("You need to specify either --command or --file"));
    };
    let unreadable = |error: &std::io::Error| {
        // As other programs write it: without the number.
        let text = error.to_string();
        let text = text
            .split(" (os error")
            .next()
            .unwrap_or_default()
            .to_owned();
        format!("Invalid value for '--file' / '-f': '{path}': {text}")
    };
    let file = match path.as_str() {
        "-" => None,
        path => {
            Some(std::fs::read(path).map_err(|error| context.options.invalid(unreadable(&error)))?)
        }
    };
    if command.is_some() {
        return Err(Failure::refused(
            "--file and --command are mutually exclusive options",
        ));
    }
    match file {
        Some(bytes) => String::from_utf8(bytes)
            .map_err(|_| Failure::refused(format!("{path} is not in UTF-8"))),
        None => context.console.read_everything().await,
    }
}

/// Looks for the member anew each time, so that a watched query follows the leader. The inner error is what
/// stands in the place of an answer.
async fn ask(
    context: &mut Context,
    remote: &Remote,
    target: &Target,
    question: &Question,
    login: &Login,
) -> Result<Result<Outcome, String>, Failure> {
    let clusters = Clusters::read(context, remote, target).await?;
    let nobody = || match (&question.member, &question.role) {
        (Some(member), _) => format!("No connection to member {member} is available"),
        (None, Some(role)) => format!("No connection to role '{role}' is available"),
        (None, None) => "No connection is available".to_owned(),
    };
    let Some(address) = address(&clusters, question)? else {
        return Ok(Err(nobody()));
    };
    let told = |error: QueryError, context: &mut Context| {
        if let Some(detail) = &error.detail {
            context.console.warn(detail);
        }
        Ok(Err(format!("ERROR, SQLSTATE: {}", error.text)))
    };
    let connection = match Connection::open(&address, login).await {
        Ok(connection) => connection,
        Err(error) => return told(error, context),
    };
    let role = question.role.as_deref().map(Wanted::parse);
    let in_role = match role {
        // The leader key's word is enough.
        None | Some(Wanted::Any | Wanted::Leader) => Ok(true),
        Some(Wanted::Primary) => connection.is_in_recovery().await.map(|standby| !standby),
        Some(Wanted::Replica | Wanted::StandbyLeader) => connection.is_in_recovery().await,
    };
    match in_role {
        Ok(true) => match connection.execute(&question.sql).await {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(error) => told(error, context),
        },
        Ok(false) => Ok(Err(nobody())),
        Err(error) => told(error, context),
    }
}

fn address(clusters: &Clusters, question: &Question) -> Result<Option<ConnUrl>, Failure> {
    let Some(member) = clusters.find(question.member.as_deref(), question.role.as_deref()) else {
        return Ok(None);
    };
    let address = member.data.connection().ok_or_else(|| {
        Failure::refused(format!(
            "member {} publishes no usable conn_url: look at its log",
            member.name
        ))
    })?;
    Ok(Some(address))
}
