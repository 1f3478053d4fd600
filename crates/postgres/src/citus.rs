//! Citus: what a new group's database needs, and the calls that keep `pg_dist_node` (`ha.md` §16.1). Functions as Citus
//! documents them, since version 10.

use std::time::Duration;

use tokio::time::Instant;

use crate::conninfo::Conninfo;
use crate::session::{Connection, identifier, literal};
use crate::settings::Settings;
use crate::{Error, Server};

/// `duplicate_database`.
const DUPLICATE_DATABASE: &str = "42P04";

/// What is distributed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CitusDatabase {
    /// The database.
    pub name: String,
    /// The coordinator's group: host and port where the workers find this server.
    pub coordinator: Option<(String, u16)>,
}

/// A row of `pg_dist_node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CitusNode {
    /// `nodeid`.
    pub id: i32,
    /// `groupid`.
    pub group: u32,
    /// `nodename`.
    pub host: String,
    /// `nodeport`.
    pub port: u16,
    /// `noderole` is `primary`.
    pub is_primary: bool,
}

/// A session on the coordinator. What it began is rolled back when it is dropped.
pub struct CitusSession(Connection);

impl Server {
    /// Opens a session for `pg_dist_node`.
    pub async fn citus_session(
        &self,
        database: &str,
        deadline: Instant,
    ) -> Result<CitusSession, Error> {
        let settings = self.settings();
        let target = in_database(&settings, database);
        let name = "Patroni citus";
        Connection::open(&target, &settings.superuser, name, false, deadline)
            .await
            .map(CitusSession)
    }

    /// Makes the database and the extension of a new group.
    pub(crate) async fn prepare_citus(
        &self,
        citus: &CitusDatabase,
        quiet: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let settings = self.settings();
        if citus.name != settings.database {
            let connection = self.connect(deadline).await?;
            let sql = format!("CREATE DATABASE {}", identifier(&citus.name));
            match connection.query(&sql, deadline).await {
                Err(Error::Refused { code, .. }) if code == DUPLICATE_DATABASE => {}
                result => drop(result?),
            }
        }
        let CitusSession(connection) = self.citus_session(&citus.name, deadline).await?;
        connection.query(quiet, deadline).await?;
        let sql = "SET search_path TO \"$user\", public; CREATE EXTENSION IF NOT EXISTS citus";
        connection.query(sql, deadline).await?;
        if let Some(authinfo) = authinfo(&settings) {
            let sql = format!(
                "INSERT INTO pg_catalog.pg_dist_authinfo VALUES (0, pg_catalog.current_user(), {})",
                literal(&authinfo)
            );
            connection.query(&sql, deadline).await?;
        }
        if let Some((host, port)) = &citus.coordinator {
            let sql = format!(
                "SELECT pg_catalog.citus_set_coordinator_host({}, {port}, 'primary', 'default')",
                literal(host)
            );
            connection.query(&sql, deadline).await?;
        }
        Ok(())
    }
}

impl CitusSession {
    /// All rows.
    pub async fn nodes(&self, deadline: Instant) -> Result<Vec<CitusNode>, Error> {
        let sql =
            "SELECT nodeid, groupid, nodename, nodeport, noderole FROM pg_catalog.pg_dist_node";
        let rows = self.0.query(sql, deadline).await?;
        let node = |row: &tokio_postgres::SimpleQueryRow| {
            Some(CitusNode {
                id: row.get(0)?.parse().ok()?,
                group: row.get(1)?.parse().ok()?,
                host: row.get(2)?.to_owned(),
                port: row.get(3)?.parse().ok()?,
                is_primary: row.get(4)? == "primary",
            })
        };
        Ok(rows.iter().filter_map(node).collect())
    }

    /// Adds a row; its `nodeid`. `role` is `primary` or `secondary`.
    pub async fn add_node(
        &self,
        host: &str,
        port: u16,
        group: u32,
        role: &str,
        deadline: Instant,
    ) -> Result<i32, Error> {
        let sql = format!(
            "SELECT pg_catalog.citus_add_node({}, {port}, {group}, {}, 'default')",
            literal(host),
            literal(role)
        );
        let id = self.0.value(&sql, deadline).await?;
        id.and_then(|id| id.parse().ok()).ok_or_else(|| {
            Error::NotPossible(format!("citus_add_node gave {host}:{port} no nodeid"))
        })
    }

    /// Has a row point elsewhere. Transactions that stand in the way are ended after `cooldown`.
    pub async fn update_node(
        &self,
        id: i32,
        host: &str,
        port: u16,
        cooldown: Duration,
        deadline: Instant,
    ) -> Result<(), Error> {
        let sql = format!(
            "SELECT pg_catalog.citus_update_node({id}, {}, {port}, true, {})",
            literal(host),
            cooldown.as_millis()
        );
        self.0.query(&sql, deadline).await.map(drop)
    }

    /// Removes a row.
    pub async fn remove_node(&self, host: &str, port: u16, deadline: Instant) -> Result<(), Error> {
        let sql = format!(
            "SELECT pg_catalog.citus_remove_node({}, {port})",
            literal(host)
        );
        self.0.query(&sql, deadline).await.map(drop)
    }

    /// Whether the server ended it.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// `BEGIN`
    pub async fn begin(&self, deadline: Instant) -> Result<(), Error> {
        self.0.query("BEGIN", deadline).await.map(drop)
    }

    /// `COMMIT`
    pub async fn commit(&self, deadline: Instant) -> Result<(), Error> {
        self.0.query("COMMIT", deadline).await.map(drop)
    }

    /// `ROLLBACK`
    pub async fn rollback(&self, deadline: Instant) -> Result<(), Error> {
        self.0.query("ROLLBACK", deadline).await.map(drop)
    }
}

fn in_database(settings: &Settings, database: &str) -> Conninfo {
    Conninfo::new(&settings.local.host(), settings.port, database)
}

/// How the groups' superusers get in at each other's servers, if it takes more than a name.
fn authinfo(settings: &Settings) -> Option<String> {
    let superuser = &settings.superuser;
    let password = superuser
        .password
        .as_ref()
        .map(|password| password.expose());
    let option = |name: &str| superuser.options.get(name).map(String::as_str);
    let values = [
        ("password", password),
        ("sslcert", option("sslcert")),
        ("sslkey", option("sslkey")),
    ];
    let given: Vec<String> = values
        .into_iter()
        .filter_map(|(keyword, value)| Some(format!("{keyword}={}", quoted(value?))))
        .collect();
    (!given.is_empty()).then(|| given.join(" "))
}

/// A value of a connection string (PostgreSQL, "Keyword/Value Connection Strings").
fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    #[test]
    fn how_groups_get_in_at_each_other() {
        let mut settings = Settings::new("pg1", "demo", "/data");
        assert_eq!(authinfo(&settings), None);
        settings.superuser.password = Some(Secret::new(r"it's \ secret"));
        settings.superuser.options = [("sslcert", "/c"), ("sslmode", "require")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(
            authinfo(&settings).as_deref(),
            Some(r"password='it\'s \\ secret' sslcert='/c'")
        );
    }
}
