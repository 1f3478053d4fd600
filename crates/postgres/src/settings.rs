use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;

use crate::citus::CitusDatabase;

/// Everything that the operations need to know of this server. Values are final: the configuration's
/// layers are merged, defaults filled in, parameters validated. Replaced as a whole at a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Member name: the `application_name` of this standby.
    pub name: String,
    /// Cluster name: the last argument of callbacks, `--scope` of custom methods.
    pub scope: String,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Where `postgresql.conf` is; normally the data directory.
    pub config_dir: PathBuf,
    /// Stem of the configuration file: `postgresql`.
    pub config_base_name: String,
    /// Where the binaries are; `None` looks in `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// Replacement names of binaries: `pg_ctl`, `postgres`, …
    pub bin_names: BTreeMap<String, String>,
    /// Where superuser sessions connect to.
    pub local: LocalAddress,
    /// Where local replication sessions connect to.
    pub local_replication: LocalAddress,
    /// `listen_addresses`, as configured.
    pub listen_addresses: String,
    /// Port.
    pub port: u16,
    /// Database of local sessions.
    pub database: String,
    /// Superuser.
    pub superuser: Credentials,
    /// Replication user.
    pub replication: Credentials,
    /// User of pg_rewind; `None` uses the superuser.
    pub rewind: Option<Credentials>,
    /// Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Password file that this agent writes.
    pub pgpass: PathBuf,
    /// What goes into the configuration file, final.
    pub parameters: IndexMap<String, String>,
    /// What goes onto the postmaster's command line, in order (`configuration.md` §1.8).
    pub command_line: Vec<(String, String)>,
    /// Lines of `pg_hba.conf`; empty leaves the file alone.
    pub pg_hba: Vec<String>,
    /// Lines of `pg_ident.conf`; empty leaves the file alone.
    pub pg_ident: Vec<String>,
    /// `recovery_conf`: settings of every standby.
    pub recovery_conf: IndexMap<String, String>,
    /// `custom_conf`: included instead of the base file.
    pub custom_conf: Option<String>,
    /// How long a start is waited for when the request names no time.
    pub pg_ctl_timeout: Duration,
    /// Callback commands.
    pub callbacks: Callbacks,
    /// `pre_promote`.
    pub pre_promote: Option<String>,
    /// `before_stop`.
    pub before_stop: Option<String>,
    /// Replica creation methods, in order; none means `basebackup`.
    pub replica_methods: Vec<ReplicaMethod>,
    /// `bootstrap.initdb`.
    pub initdb_options: ToolOptions,
    /// `basebackup`.
    pub basebackup_options: ToolOptions,
    /// `rewind`.
    pub rewind_options: ToolOptions,
    /// Where the server's standard output and error go (appended); `None` discards them.
    pub server_log: Option<PathBuf>,
    /// The umask that the agent was started with: mode of files outside the data directory.
    pub umask: u32,
    /// The Citus database of a new cluster's group.
    pub citus: Option<CitusDatabase>,
}

impl Settings {
    /// Settings with nothing but defaults; for tests and as a start to fill in.
    pub fn new(
        name: impl Into<String>,
        scope: impl Into<String>,
        data_dir: impl AsRef<Path>,
    ) -> Self {
        let data_dir = data_dir.as_ref().to_path_buf();
        let local = LocalAddress::Tcp("localhost".into());
        Settings {
            name: name.into(),
            scope: scope.into(),
            config_dir: data_dir.clone(),
            data_dir,
            config_base_name: "postgresql".into(),
            bin_dir: None,
            bin_names: BTreeMap::new(),
            local: local.clone(),
            local_replication: local,
            listen_addresses: "localhost".into(),
            port: 5432,
            database: "postgres".into(),
            superuser: Credentials::default(),
            replication: Credentials::default(),
            rewind: None,
            krbsrvname: None,
            pgpass: PathBuf::from("pgpass"),
            parameters: IndexMap::new(),
            command_line: Vec::new(),
            pg_hba: Vec::new(),
            pg_ident: Vec::new(),
            recovery_conf: IndexMap::new(),
            custom_conf: None,
            pg_ctl_timeout: Duration::from_secs(60),
            callbacks: Callbacks::default(),
            pre_promote: None,
            before_stop: None,
            replica_methods: Vec::new(),
            initdb_options: ToolOptions::default(),
            basebackup_options: ToolOptions::default(),
            rewind_options: ToolOptions::default(),
            server_log: None,
            umask: 0o022,
            citus: None,
        }
    }

    /// Path of a binary: `binary("pg_ctl")`.
    pub fn binary(&self, name: &str) -> PathBuf {
        let name = self.bin_names.get(name).map_or(name, String::as_str);
        self.bin_dir
            .as_ref()
            .map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.config_dir
            .join(format!("{}.conf", self.config_base_name))
    }

    /// The file that the configuration file includes.
    pub fn base_config_file(&self) -> PathBuf {
        self.config_dir
            .join(format!("{}.base.conf", self.config_base_name))
    }

    /// Credentials of pg_rewind and of the checks around it.
    pub fn rewind_credentials(&self) -> &Credentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }
}

/// Where a local session connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// Host name or address.
    Tcp(String),
    /// Directory of the Unix socket.
    Unix(PathBuf),
}

impl LocalAddress {
    /// As libpq's `host`.
    pub fn host(&self) -> String {
        match self {
            LocalAddress::Tcp(host) => host.clone(),
            LocalAddress::Unix(directory) => directory.display().to_string(),
        }
    }
}

/// A user and how it connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `None` is the operating system's user.
    pub username: Option<String>,
    /// Password, if it needs one.
    pub password: Option<Secret>,
    /// libpq's TLS and GSS keywords that were configured: `sslmode`, `sslcert`, `channel_binding`, …
    pub options: BTreeMap<String, String>,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text, for the place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Callback commands, split by shell words and run without a shell (`configuration.md` §0.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// After the server became ready.
    pub on_start: Option<String>,
    /// After it was stopped.
    pub on_stop: Option<String>,
    /// After it became ready again.
    pub on_restart: Option<String>,
    /// After a reload.
    pub on_reload: Option<String>,
    /// After it was promoted or demoted.
    pub on_role_change: Option<String>,
}

/// One way of making a replica (`configuration.md` §2.13.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaMethod {
    /// `basebackup` or the name of a section.
    pub name: String,
    /// Command words; of no use to `basebackup`.
    pub command: String,
    /// Pass nothing but the configured arguments.
    pub no_params: bool,
    /// Needs nobody to copy from.
    pub no_leader: bool,
    /// Do not wipe the data directory, neither before nor after a failure.
    pub keep_data: bool,
    /// Configured arguments, `--<name>=<value>`, in order.
    pub arguments: Vec<(String, String)>,
}

/// Options that a tool of PostgreSQL's is run with (`configuration.md` §0.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolOptions {
    /// `--<name>` or `--<name>=<value>`, in order.
    pub arguments: Vec<String>,
    /// What was configured and cannot be used, in words.
    pub problems: Vec<String>,
}
