//! What a running server tells to somebody who makes a configuration of it, connected to as `psql` would:
//! by a connection string, and the `PG*` variables for what it leaves out.

use tokio::time::Instant;

use crate::session::{Connection, literal};
use crate::settings::Credentials;
use crate::{Conninfo, Error};

/// Where servers of distributions and of the sources have their socket, in the order in which they are looked for.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// 150018 form.
    pub version: u32,
    /// Whether the session may see and do everything.
    pub is_superuser: bool,
    /// What its files, command line and environment set, and what was asked for: name and `current_setting`.
    pub parameters: Vec<(String, String)>,
}

/// Asks the server at `target`, which lacks nothing but what libpq knows by itself: a host, a port, a database.
///
/// # Errors
/// [`Error::Unreachable`] or [`Error::Refused`].
pub async fn describe(
    target: &Conninfo,
    credentials: &Credentials,
    required: &[&str],
    deadline: Instant,
) -> Result<Description, Error> {
    let mut target = target.clone();
    if target.get("host").or(target.get("hostaddr")).is_none() {
        let port = target.get("port").unwrap_or("5432");
        let socket = |directory: &&str| {
            std::path::Path::new(directory)
                .join(format!(".s.PGSQL.{port}"))
                .exists()
        };
        let directory = SOCKET_DIRECTORIES.iter().find(|at| socket(at));
        target.set("host", directory.unwrap_or(&SOCKET_DIRECTORIES[0]));
    }
    if target.get("dbname").is_none() {
        target.set("dbname", &crate::session::user(credentials));
    }
    let connection = Connection::open(&target, credentials, "Patroni", true, deadline).await?;
    let value = |sql: &'static str| connection.value(sql, deadline);
    let version = value("SHOW server_version_num").await?;
    let is_superuser = value("SHOW is_superuser").await?;
    let required: Vec<String> = required.iter().map(|name| literal(name)).collect();
    let rows = connection
        .query(
            &format!(
                "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
                 WHERE context <> 'internal' AND setting <> '(disabled)' \
                 AND source IN ('configuration file', 'command line', 'environment variable') \
                 AND category <> 'Write-Ahead Log / Recovery Target' \
                 OR name IN ({})",
                required.join(", ")
            ),
            deadline,
        )
        .await?;
    let text = |column: Option<&str>| column.unwrap_or_default().to_owned();
    Ok(Description {
        version: version.and_then(|number| number.parse().ok()).unwrap_or(0),
        is_superuser: is_superuser.as_deref() == Some("on"),
        parameters: rows
            .iter()
            .map(|row| (text(row.get(0)), text(row.get(1))))
            .collect(),
    })
}
