use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use crate::{GucMap, HostPort, Listen, Secret};

/// The `postgresql` section of the effective configuration (`configuration.md` §2.13).
#[derive(Clone, Debug, PartialEq)]
pub struct Postgresql {
    /// `listen_addresses` and `port`.
    pub listen: Listen,
    /// Where others reach the server; the local address (§6.7) when not configured.
    pub connect_address: HostPort,
    /// A pooler in front of the server.
    pub proxy_address: Option<HostPort>,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Directory of the configuration files; `data_dir` when not configured.
    pub config_dir: PathBuf,
    /// Stem of `postgresql.conf`.
    pub config_base_name: String,
    /// Database of local connections.
    pub database: String,
    /// Directory of the executables; `None`: `$PATH`.
    pub bin_dir: Option<PathBuf>,
    /// Executables that are called otherwise; see [`Postgresql::binary`].
    pub bin_name: IndexMap<String, String>,
    /// Roles.
    pub authentication: Authentication,
    /// Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Password file; `None`: `~/pgpass`.
    pub pgpass: Option<PathBuf>,
    /// Commands told of changes.
    pub callbacks: Callbacks,
    /// Names of the methods to try, never empty.
    pub create_replica_methods: Vec<String>,
    /// The sections of those methods (other than `basebackup`).
    pub replica_methods: IndexMap<String, ReplicaMethod>,
    /// Options of pg_basebackup; `compress` still needs a look at the version (§2.13.3).
    pub basebackup: ToolOptions,
    /// Options of pg_rewind.
    pub rewind: ToolOptions,
    /// Parameters of both layers and the defaults (§1.4), before the steps of §1.9.
    pub parameters: GucMap,
    /// Content of `pg_hba.conf`; `None`: the file is not ours.
    pub pg_hba: Option<Vec<String>>,
    /// Content of `pg_ident.conf`; `None`: the file is not ours.
    pub pg_ident: Option<Vec<String>>,
    /// Overrides while primary (§1.10).
    pub on_primary: RoleOverride,
    /// Overrides while replica.
    pub on_replica: RoleOverride,
    /// Overrides while standby leader.
    pub on_standby_leader: RoleOverride,
    /// Recovery settings of standbys.
    pub recovery_conf: GucMap,
    /// Included in place of `postgresql.base.conf`.
    pub custom_conf: Option<String>,
    /// pg_rewind may be used.
    pub use_pg_rewind: bool,
    /// Wipe and clone anew when pg_rewind fails.
    pub remove_data_directory_on_rewind_failure: bool,
    /// Wipe and clone anew when the timelines diverge and pg_rewind cannot be used.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// Superuser connections go through the Unix socket.
    pub use_unix_socket: bool,
    /// Local replication connections as well.
    pub use_unix_socket_repl: bool,
    /// How long a start may take.
    pub pg_ctl_timeout: Duration,
    /// Command run before promotion; failure means no promotion.
    pub pre_promote: Option<String>,
    /// Command run before each stop.
    pub before_stop: Option<String>,
}

impl Postgresql {
    /// Path of an executable, one of `pg_ctl initdb pg_controldata pg_basebackup postgres pg_isready
    /// pg_rewind`.
    pub fn binary(&self, name: &str) -> PathBuf {
        let file = self.bin_name.get(name).map_or(name, String::as_str);
        match &self.bin_dir {
            Some(dir) => dir.join(file),
            None => PathBuf::from(file),
        }
    }
}

/// What one role overrides (§1.10).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RoleOverride {
    /// Merged over `parameters`.
    pub parameters: GucMap,
    /// In place of `pg_hba`.
    pub pg_hba: Option<Vec<String>>,
    /// In place of `pg_ident`.
    pub pg_ident: Option<Vec<String>>,
}

/// `postgresql.authentication` (§2.13.1).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Authentication {
    /// Local administration.
    pub superuser: Credentials,
    /// Replication connections.
    pub replication: Credentials,
    /// pg_rewind, from version 11; `None`: the superuser.
    pub rewind: Option<Credentials>,
}

/// How one role connects. Every field but the password is a libpq setting of that name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Credentials {
    /// Role name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// TLS and other libpq settings by name: `sslmode sslcert sslkey sslpassword sslrootcert sslcrl
    /// sslcrldir gssencmode channel_binding sslnegotiation`.
    pub settings: IndexMap<String, Secret>,
}

/// `postgresql.callbacks` (§2.13.2): commands.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Callbacks {
    /// Started.
    pub on_start: Option<String>,
    /// Stopped.
    pub on_stop: Option<String>,
    /// Restarted.
    pub on_restart: Option<String>,
    /// Reloaded.
    pub on_reload: Option<String>,
    /// Role changed.
    pub on_role_change: Option<String>,
}

/// A section that describes how to create a replica (§2.13.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMethod {
    /// Command; the method's name when not configured.
    pub command: String,
    /// Do not add `--scope --role --datadir --connstring`.
    pub no_params: bool,
    /// Works without a member to copy from.
    pub no_leader: bool,
    /// Do not empty the data directory.
    pub keep_data: bool,
    /// All that is passed as `--<name>=<value>`, in order.
    pub arguments: Vec<(String, String)>,
}

/// Options for a PostgreSQL tool (§0.6).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ToolOptions {
    /// The accepted ones, in order.
    pub options: Vec<ToolOption>,
    /// What was wrong with the others.
    pub problems: Vec<String>,
}

/// `--name` or `--name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOption {
    /// Without the dashes.
    pub name: String,
    /// Unquoted.
    pub value: Option<String>,
}

impl ToolOption {
    /// As a command line argument.
    pub fn argument(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}
