//! A new cluster (`ha.md` §6.1, §6.2; `configuration.md` §2.3).

use std::io::Write;
use std::time::Duration;

use indexmap::IndexMap;
use primacy_model::SystemIdentifier;
use tokio::time::Instant;

use crate::command::Run;
use crate::recovery::{bootstrap_settings, wants_standby};
use crate::server::BootstrapFiles;
use crate::session::{Connection, identifier, literal};
use crate::settings::Credentials;
use crate::{Error, Server, StartRequest, Started, StopMode, StopRequest, Until, files};

/// Functions that pg_rewind calls on its source.
const REWIND_FUNCTIONS: &[&str] = &[
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// For small files and statements.
const SHORT: Duration = Duration::from_secs(30);
/// For the restart after a custom bootstrap.
const RESTART: Duration = Duration::from_secs(60);

/// A custom bootstrap method (`configuration.md` §2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomBootstrap {
    /// Command words.
    pub command: String,
    /// Do not pass `--scope` and `--datadir`.
    pub no_params: bool,
    /// Keep the recovery settings that the command left.
    pub keep_existing_recovery_conf: bool,
    /// Recovery settings for the start.
    pub recovery_conf: Option<IndexMap<String, String>>,
    /// Passed as `--key=value`.
    pub parameters: Vec<(String, String)>,
}

/// A new cluster is in the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// Its identifier.
    pub system_identifier: Option<SystemIdentifier>,
}

impl Server {
    /// initdb, then `pg_hba` lines of the bootstrap section if none are managed. Does not start.
    pub async fn initdb(
        &self,
        bootstrap_pg_hba: &[String],
        until: Until,
    ) -> Result<Initialized, Error> {
        self.refuse_root()?;
        self.binaries_version(until.deadline).await?;
        let settings = self.settings();
        let options = &settings.initdb_options;
        if !options.problems.is_empty() {
            return Err(Error::Configuration(options.problems.join("; ")));
        }
        let mut run = Run::new(settings.binary("initdb")).args(&options.arguments);
        if let Some(username) = &settings.superuser.username {
            run = run.arg(format!("--username={username}"));
        }
        let mut password_file = None;
        if let Some(password) = &settings.superuser.password {
            let write = || {
                let mut file = tempfile::NamedTempFile::new()?;
                writeln!(file, "{}", password.expose())?;
                Ok(file)
            };
            let file = write().map_err(Error::file("write", std::env::temp_dir()))?;
            run = run.arg(format!("--pwfile={}", file.path().display()));
            password_file = Some(file);
        }
        run.arg(&settings.data_dir).success(&until).await?;
        drop(password_file);
        self.append_hba(bootstrap_pg_hba, until.deadline).await?;
        self.save_backups(until.deadline).await?;
        self.initialized(until.deadline).await
    }

    async fn append_hba(&self, lines: &[String], deadline: Instant) -> Result<(), Error> {
        let settings = self.settings();
        if lines.is_empty()
            || !settings.pg_hba.is_empty()
            || settings.parameters.contains_key("hba_file")
        {
            return Ok(());
        }
        let text = format!("\n{}\n", lines.join("\n"));
        let path = settings.config_dir.join("pg_hba.conf");
        self.disk("writing pg_hba.conf", deadline, move || {
            let present = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            let mode = files::mode_of(&settings, &path);
            files::write_if_changed(&path, &(present + &text), mode).map(drop)
        })
        .await
    }

    async fn initialized(&self, deadline: Instant) -> Result<Initialized, Error> {
        let control = self.control_file(deadline).await?;
        Ok(Initialized {
            system_identifier: control.data.system_identifier,
        })
    }

    /// Runs a custom bootstrap method, and prepares the files for the start that follows: only this agent
    /// may connect, and the method's recovery settings apply, until [`Server::post_bootstrap`].
    pub async fn custom_bootstrap(
        &self,
        method: &CustomBootstrap,
        bootstrap_pg_hba: &[String],
        until: Until,
    ) -> Result<Initialized, Error> {
        self.refuse_root()?;
        let major = self.binaries_version(until.deadline).await?;
        let settings = self.settings();
        let mut run = Run::words(&method.command)?.kerberos(&settings);
        if !method.no_params {
            run = run
                .arg(format!("--scope={}", settings.scope))
                .arg(format!("--datadir={}", settings.data_dir.display()));
        }
        for (name, value) in &method.parameters {
            run = run.arg(format!("--{name}={value}"));
        }
        run.success(&until).await?;
        self.restore_backups(until.deadline).await?;
        self.append_hba(bootstrap_pg_hba, until.deadline).await?;
        self.save_backups(until.deadline).await?;

        let recovery = method
            .recovery_conf
            .as_ref()
            .map(|conf| bootstrap_settings(conf, major));
        let standby = method.recovery_conf.as_ref().is_some_and(wants_standby);
        let promotes = recovery.as_ref().is_some_and(|conf| {
            conf.get("recovery_target_action")
                .is_some_and(|action| action.eq_ignore_ascii_case("promote"))
        });
        let keep_recovery = method.keep_existing_recovery_conf && recovery.is_none();
        self.signal_files(recovery.is_some(), standby, keep_recovery, until.deadline)
            .await?;
        self.memory(|memory| {
            memory.recovery = if keep_recovery {
                None
            } else {
                Some(recovery.unwrap_or_default())
            };
            let hot_standby_off = keep_recovery || promotes;
            memory.bootstrap = Some(BootstrapFiles {
                keep_recovery,
                hot_standby_off,
            });
        });
        self.initialized(until.deadline).await
    }

    async fn signal_files(
        &self,
        recovery: bool,
        standby: bool,
        keep: bool,
        deadline: Instant,
    ) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        self.disk("writing the signal file", deadline, move || {
            let mode = files::data_file_mode(&data_dir);
            for (name, wanted) in [
                ("standby.signal", recovery && standby),
                ("recovery.signal", recovery && !standby),
            ] {
                let path = data_dir.join(name);
                if !wanted && !keep {
                    files::remove(&path)?;
                } else if wanted && !path.exists() {
                    files::write_if_changed(&path, "", mode)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Roles and hook on the new primary (`ha.md` §6.2): superuser, hook, replication and rewind role, Citus' database;
    /// after a custom bootstrap the ordinary files again, with a restart where `hot_standby` was off.
    pub async fn post_bootstrap(
        &self,
        hook: Option<&str>,
        until: Until,
    ) -> Result<Option<Started>, Error> {
        let settings = self.settings();
        let connection = self.connect(until.deadline).await?;
        let quiet = "SET synchronous_commit TO local; SET log_statement TO none; \
                     SET log_min_duration_statement TO -1; SET log_min_error_statement TO panic";
        connection.query(quiet, until.deadline).await?;
        if settings.superuser.password.is_some() {
            create_role(
                &connection,
                &settings.superuser,
                "SUPERUSER",
                until.deadline,
            )
            .await?;
        }
        if let Some(hook) = hook.filter(|hook| !hook.trim().is_empty()) {
            self.run_post_bootstrap(hook, &until).await?;
        }
        create_role(
            &connection,
            &settings.replication,
            "REPLICATION",
            until.deadline,
        )
        .await?;
        if let Some(rewind) = &settings.rewind
            && let Some(name) = &rewind.username
            && rewind.username != settings.superuser.username
        {
            create_role(&connection, rewind, "", until.deadline).await?;
            for function in REWIND_FUNCTIONS {
                let sql = format!(
                    "GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {}",
                    identifier(name)
                );
                connection.query(&sql, until.deadline).await?;
            }
        }
        drop(connection);
        // A cluster that was restored, or made by a script, brings its own.
        let was_initdb = self.memory(|memory| memory.bootstrap.is_none());
        if was_initdb && let Some(citus) = &settings.citus {
            self.prepare_citus(citus, quiet, until.deadline).await?;
        }
        self.leave_bootstrap(until).await
    }

    async fn run_post_bootstrap(&self, hook: &str, until: &Until) -> Result<(), Error> {
        let settings = self.settings();
        let local = settings.local_conninfo();
        let major = self.binaries_version(until.deadline).await?;
        let dsn = local
            .clone()
            .with_credentials(&settings.superuser)
            .for_version(major);
        let passwords = self.password_file(&local, &settings.superuser)?;
        let options = "-c synchronous_commit=local -c statement_timeout=0";
        let mut run = Run::words(hook)?
            .arg(dsn.to_string())
            .env("PGOPTIONS", options)
            .kerberos(&settings);
        if let Some(file) = &passwords {
            run = run.env("PGPASSFILE", file.path());
        }
        run.success(until).await?;
        Ok(())
    }

    async fn leave_bootstrap(&self, until: Until) -> Result<Option<Started>, Error> {
        let Some(bootstrap) = self.memory(|memory| memory.bootstrap.take()) else {
            return Ok(None);
        };
        self.memory(|memory| memory.recovery = Some(IndexMap::new()));
        if self.settings().pg_hba.is_empty() {
            // The file of the restored cluster, in place of our trust lines.
            let settings = self.settings();
            self.disk("restoring pg_hba.conf", until.deadline, move || {
                let backup = settings.data_dir.join("pg_hba.conf.backup");
                let path = settings.config_dir.join("pg_hba.conf");
                match std::fs::read_to_string(&backup) {
                    Ok(text) => {
                        let mode = files::mode_of(&settings, &path);
                        files::write_if_changed(&path, &text, mode).map(drop)
                    }
                    Err(_) => Ok(()),
                }
            })
            .await?;
        }
        self.write_files(None, until.deadline).await?;
        if !bootstrap.hot_standby_off {
            self.reload(until.deadline).await?;
            return Ok(None);
        }
        let stop = StopRequest {
            mode: StopMode::Fast,
            checkpoint: true,
            timeout: Some(RESTART),
            events: None,
        };
        self.stop(stop).await?;
        let start = StartRequest {
            cancel: until.cancel,
            ..StartRequest::default()
        };
        self.start(start).await.map(Some)
    }

    /// The system identifier of the data directory.
    pub async fn system_identifier(&self, deadline: Instant) -> Result<SystemIdentifier, Error> {
        let control = self
            .control_file(deadline.min(Instant::now() + SHORT))
            .await?;
        control
            .data
            .system_identifier
            .ok_or_else(|| Error::BadFile {
                path: self.settings().data_dir.join("global/pg_control"),
                problem: "it has no system identifier".into(),
            })
    }
}

/// Creates a role, or gives an existing one its password and attributes.
async fn create_role(
    connection: &Connection,
    credentials: &Credentials,
    attributes: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let Some(name) = &credentials.username else {
        return Ok(());
    };
    let sql = format!(
        "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {}",
        literal(name)
    );
    let action = if connection.value(&sql, deadline).await?.is_some() {
        "ALTER"
    } else {
        "CREATE"
    };
    let password = credentials
        .password
        .as_ref()
        .map(|password| format!(" PASSWORD {}", literal(password.expose())))
        .unwrap_or_default();
    let sql = format!(
        "{action} ROLE {} WITH LOGIN {attributes}{password}",
        identifier(name)
    );
    connection.query(&sql, deadline).await.map(drop)
}
