//! SQL with deadlines.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio_postgres::{Client, Config, NoTls, Row};

/// The superuser of test clusters, and its password.
pub const SUPERUSER: &str = "postgres";
pub const SUPERUSER_PASSWORD: &str = "super secret";

/// Long enough for a machine that stands still for seconds, short enough to notice a server that does not answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const QUERY_WITHIN: Duration = Duration::from_secs(30);

/// Connects as superuser to the server at 127.0.0.1:`port`. Dropping the client closes the connection.
pub async fn connect(port: u16, application_name: &str) -> Result<Client> {
    connect_to(port, "postgres", application_name).await
}

/// As [`connect`], to another database.
pub async fn connect_to(port: u16, database: &str, application_name: &str) -> Result<Client> {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(SUPERUSER)
        .password(SUPERUSER_PASSWORD)
        .dbname(database)
        .application_name(application_name)
        .connect_timeout(CONNECT_WITHIN);
    let (client, connection) = tokio::time::timeout(CONNECT_WITHIN, config.connect(NoTls))
        .await
        .map_err(|_| anyhow!("no connection to port {port} within {CONNECT_WITHIN:?}"))?
        .with_context(|| format!("cannot connect to port {port}"))?;
    tokio::spawn(async move {
        // Its end is seen by whoever uses the client.
        let _ = connection.await;
    });
    Ok(client)
}

/// Runs one statement on a connection of its own and returns its rows.
pub async fn rows(port: u16, statement: &str) -> Result<Vec<Row>> {
    let client = connect(port, "test").await?;
    tokio::time::timeout(QUERY_WITHIN, client.query(statement, &[]))
        .await
        .map_err(|_| anyhow!("no answer from port {port} within {QUERY_WITHIN:?}: {statement}"))?
        .with_context(|| format!("port {port}: {statement}"))
}

/// The single text value that a statement returns.
pub async fn text(port: u16, statement: &str) -> Result<String> {
    let rows = rows(port, statement).await?;
    let row = rows
        .first()
        .with_context(|| format!("no row: {statement}"))?;
    Ok(row.try_get::<_, Option<String>>(0)?.unwrap_or_default())
}

/// Runs one or several statements without a result, in one connection and one implicit transaction.
pub async fn execute(port: u16, statements: &str) -> Result<()> {
    let client = connect(port, "test").await?;
    tokio::time::timeout(QUERY_WITHIN, client.batch_execute(statements))
        .await
        .map_err(|_| anyhow!("no answer from port {port} within {QUERY_WITHIN:?}: {statements}"))?
        .with_context(|| format!("port {port}: {statements}"))
}
