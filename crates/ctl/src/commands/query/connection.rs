use std::error::Error as _;
use std::time::Duration;

use primacy_model::ConnUrl;
use primacy_net::SessionError;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::libpq::Login;
use super::value::cell;

/// For a session to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A session with a member's server. It ends with this value.
pub(super) struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The rows of the last statement.
pub(super) struct Outcome {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Value>>,
}

/// Why there are none.
pub(super) struct QueryError {
    /// What stands after `ERROR, SQLSTATE: `: a code, or a sentence where there is none.
    pub(super) text: String,
    /// What the server said besides its code.
    pub(super) detail: Option<String>,
}

impl Connection {
    pub(super) async fn open(server: &ConnUrl, login: &Login) -> Result<Self, QueryError> {
        let mut config = Config::new();
        config
            .host(&server.host)
            .port(server.port)
            .user(&login.user)
            .dbname(&login.database)
            .application_name(&login.application_name)
            // Timestamps are read in this style, as libpq's clients from Python do.
            .options(format!(
                "{} -c datestyle=ISO",
                login.options.as_deref().unwrap_or_default()
            ))
            .connect_timeout(CONNECT_TIMEOUT);
        let password = login.password(server);
        if let Some(password) = &password {
            config.password(password);
        }
        let failed = |problem: String| QueryError {
            // Scripts know libpq's sentence, with the end of its line as a blank.
            text: format!(
                "connection to server at \"{}\", port {} failed: {problem} ",
                server.host, server.port
            ),
            detail: None,
        };
        // The driver's own limit does not count authentication.
        let connecting = tokio::time::timeout(2 * CONNECT_TIMEOUT, login.tls.connect(&config));
        let (client, connection) = match connecting.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(SessionError::Driver(error))) => {
                return Err(failed(connect_problem(&error, password.is_some())));
            }
            Ok(Err(SessionError::Tls(error))) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("timeout expired".into())),
        };
        let driver = tokio::spawn(async move {
            // Its end shows in the client.
            let _ = connection.await;
        });
        Ok(Connection { client, driver })
    }

    pub(super) async fn is_in_recovery(&self) -> Result<bool, QueryError> {
        let row = self
            .client
            .query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]);
        row.await
            .map(|row| row.get(0))
            .map_err(|error| query_error(&error))
    }

    /// Sends the text as it is, so that it may hold several statements; they are one transaction then, unless
    /// they say otherwise. The types of what comes back are those of a single statement; with several everything
    /// is text.
    pub(super) async fn execute(&self, sql: &str) -> Result<Outcome, QueryError> {
        let sentence = |text: &str| QueryError {
            text: text.to_owned(),
            detail: None,
        };
        if sql.trim().is_empty() {
            return Err(sentence("can't execute an empty query"));
        }
        // An error shows again below, as what it is.
        let prepared = self.client.prepare(sql).await.ok();
        let messages = self
            .client
            .simple_query(sql)
            .await
            .map_err(|error| query_error(&error))?;
        let type_of = |index: usize| {
            let column = prepared
                .as_ref()
                .and_then(|statement| statement.columns().get(index));
            column.map_or(Type::TEXT, |column| column.type_().clone())
        };
        let (mut current, mut last) = (None, None);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    let columns = columns
                        .iter()
                        .map(|column| column.name().to_owned())
                        .collect();
                    current = Some(Outcome {
                        columns,
                        rows: Vec::new(),
                    });
                }
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len())
                        .map(|index| cell(&type_of(index), row.get(index)))
                        .collect();
                    if let Some(current) = &mut current {
                        current.rows.push(cells);
                    }
                }
                SimpleQueryMessage::CommandComplete(_) => last = current.take(),
                _ => {}
            }
        }
        last.ok_or_else(|| sentence("no results to fetch"))
    }
}

/// In libpq's words where scripts may know them.
fn connect_problem(error: &tokio_postgres::Error, has_password: bool) -> String {
    if let Some(refusal) = error.as_db_error() {
        return format!("{}:  {}", refusal.severity(), refusal.message());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if !has_password && text.contains("password") {
        return "fe_sendauth: no password supplied".to_owned();
    }
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn query_error(error: &tokio_postgres::Error) -> QueryError {
    match error.as_db_error() {
        Some(refusal) => QueryError {
            text: refusal.code().code().to_owned(),
            detail: Some(format!("{}: {}", refusal.severity(), refusal.message())),
        },
        None => QueryError {
            text: crate::error::chain(error).replace('\n', " "),
            detail: None,
        },
    }
}
