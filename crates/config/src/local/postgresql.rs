use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use primacy_model::Role;

use super::ToolOptions;
use crate::scalar::{parse_real, python_str, truthy};
use crate::section::Section;
use crate::{ConfigError, GucMap, HostPort, Listen, Map, Secret};

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

impl Postgresql {
    /// `root` is the effective tree.
    pub(crate) fn parse(root: &Map) -> Result<Postgresql, ConfigError> {
        let section = Section::of("postgresql", root, "postgresql")?.ok_or_else(|| {
            ConfigError::missing(
                "postgresql",
                "Set listen, data_dir and authentication in it",
            )
        })?;
        let listen = section.required("listen", "Set it to <host>:<port>, such as 0.0.0.0:5432")?;
        let listen = Listen::parse("postgresql.listen", &listen)?;
        let address = |key: &str| -> Result<Option<HostPort>, ConfigError> {
            let Some(text) = section.text(key)? else {
                return Ok(None);
            };
            HostPort::parse(&section.key(key), &text, listen.port).map(Some)
        };
        let local = || HostPort {
            host: listen.local_host().to_owned(),
            port: listen.port,
        };
        let data_dir =
            section.required("data_dir", "Set it to the data directory of this server")?;
        // Without slashes at its end: files beside it have its name and something after that.
        let data_dir: PathBuf = Path::new(&data_dir).components().collect();
        let path = |key: &str| -> Result<Option<PathBuf>, ConfigError> {
            Ok(section.text(key)?.map(PathBuf::from))
        };
        let mut create_replica_methods = section.texts("create_replica_methods")?;
        if create_replica_methods.is_none() {
            create_replica_methods = section.texts("create_replica_method")?;
        }
        let mut create_replica_methods = create_replica_methods.unwrap_or_default();
        if create_replica_methods.is_empty() {
            create_replica_methods.push("basebackup".to_owned());
        }
        let role = |name: &str| -> Result<RoleOverride, ConfigError> {
            Ok(RoleOverride {
                parameters: section.gucs(&format!("parameters_{name}"))?,
                pg_hba: section.lines(&format!("pg_hba_{name}"))?,
                pg_ident: section.lines(&format!("pg_ident_{name}"))?,
            })
        };
        Ok(Postgresql {
            connect_address: address("connect_address")?.unwrap_or_else(local),
            proxy_address: address("proxy_address")?,
            config_dir: path("config_dir")?.unwrap_or_else(|| data_dir.clone()),
            data_dir,
            config_base_name: section
                .text("config_base_name")?
                .unwrap_or_else(|| "postgresql".into()),
            database: section
                .text("database")?
                .unwrap_or_else(|| "postgres".into()),
            bin_dir: path("bin_dir")?,
            bin_name: section.table("bin_name")?,
            authentication: Authentication::parse(section)?,
            krbsrvname: section.text("krbsrvname")?,
            pgpass: path("pgpass")?,
            callbacks: Callbacks::parse(section)?,
            replica_methods: replica_methods(root, section, &create_replica_methods)?,
            create_replica_methods,
            basebackup: ToolOptions::parse("basebackup", section.get("basebackup")),
            rewind: ToolOptions::parse("rewind", section.get("rewind")),
            parameters: section.gucs("parameters")?,
            pg_hba: section.lines("pg_hba")?,
            pg_ident: section.lines("pg_ident")?,
            on_primary: role("primary")?,
            on_replica: role("replica")?,
            on_standby_leader: role("standby_leader")?,
            recovery_conf: section.gucs("recovery_conf")?,
            custom_conf: section.text("custom_conf")?,
            use_pg_rewind: section.truthy("use_pg_rewind"),
            remove_data_directory_on_rewind_failure: section
                .truthy("remove_data_directory_on_rewind_failure"),
            remove_data_directory_on_diverged_timelines: section
                .truthy("remove_data_directory_on_diverged_timelines"),
            use_unix_socket: section.truthy("use_unix_socket"),
            use_unix_socket_repl: section.truthy("use_unix_socket_repl"),
            pg_ctl_timeout: section
                .get("pg_ctl_timeout")
                .and_then(parse_real)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or(Duration::from_secs(60)),
            pre_promote: section.text("pre_promote")?,
            before_stop: section.text("before_stop")?,
            listen,
        })
    }

    /// Where this host reaches its own server, by name or by the directory of its socket (§6.7), with this
    /// `unix_socket_directories`. `None`: in the directory that libpq knows.
    pub fn local_host(&self, unix: bool, socket_directories: Option<&str>) -> Option<String> {
        let tcp = self.listen.local_host();
        if !unix {
            return Some(tcp.to_owned());
        }
        let mut directories = socket_directories?.split(',').map(str::trim);
        let directory = directories.find(|directory| directory.starts_with('/'));
        Some(directory.unwrap_or(tcp).to_owned())
    }

    /// What the role overrides; roles without a server override nothing.
    pub fn overrides(&self, role: Role) -> Option<&RoleOverride> {
        match role {
            Role::Primary | Role::Promoted => Some(&self.on_primary),
            Role::Replica | Role::Demoted => Some(&self.on_replica),
            Role::StandbyLeader => Some(&self.on_standby_leader),
            Role::Uninitialized => None,
        }
    }

    /// The lines of `pg_hba.conf` in a role.
    pub fn pg_hba(&self, role: Role) -> Option<&[String]> {
        let own = self.overrides(role).and_then(|role| role.pg_hba.as_deref());
        own.or(self.pg_hba.as_deref())
    }

    /// The lines of `pg_ident.conf` in a role.
    pub fn pg_ident(&self, role: Role) -> Option<&[String]> {
        let own = self
            .overrides(role)
            .and_then(|role| role.pg_ident.as_deref());
        own.or(self.pg_ident.as_deref())
    }
}

/// The sections of all clone methods that may be asked for, also those of a standby cluster.
fn replica_methods(
    root: &Map,
    section: Section<'_>,
    own: &[String],
) -> Result<IndexMap<String, ReplicaMethod>, ConfigError> {
    let standby = Section::of("standby_cluster", root, "standby_cluster")?;
    let remote = match standby {
        Some(standby) => standby.texts("create_replica_methods")?.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut methods = IndexMap::new();
    for name in own
        .iter()
        .chain(&remote)
        .filter(|name| *name != "basebackup")
    {
        let settings = section.object(name)?;
        let flag = |key: &str| settings.get(key).is_some_and(truthy);
        let no_params = flag("no_params");
        let passed = |key: &str| {
            key != "command"
                && !(no_params && ["no_params", "no_leader", "keep_data"].contains(&key))
        };
        let method = ReplicaMethod {
            command: settings
                .get("command")
                .map_or_else(|| name.clone(), python_str),
            no_params,
            no_leader: flag("no_leader"),
            keep_data: flag("keep_data"),
            arguments: settings
                .iter()
                .filter(|(key, _)| passed(key))
                .map(|(key, value)| (key.clone(), python_str(value)))
                .collect(),
        };
        methods.insert(name.clone(), method);
    }
    Ok(methods)
}

impl Authentication {
    fn parse(section: Section<'_>) -> Result<Authentication, ConfigError> {
        let path = "postgresql.authentication";
        let section = Section::of(path, section.map(), "authentication")?.ok_or_else(|| {
            ConfigError::missing(
                path,
                "Set superuser and replication with username and password",
            )
        })?;
        let role = |name: &str| -> Result<Option<Credentials>, ConfigError> {
            let path = section.key(name);
            let Some(section) = Section::of(&path, section.map(), name)? else {
                return Ok(None);
            };
            let mut settings = IndexMap::new();
            for name in LIBPQ_SETTINGS {
                if let Some(value) = section.secret(name)? {
                    settings.insert(name.to_owned(), value);
                }
            }
            Ok(Some(Credentials {
                username: section.text("username")?,
                password: section.secret("password")?,
                settings,
            }))
        };
        Ok(Authentication {
            superuser: role("superuser")?.unwrap_or_default(),
            replication: role("replication")?.unwrap_or_default(),
            rewind: role("rewind")?,
        })
    }
}

/// What `postgresql.authentication.<role>` may hold beside username and password.
pub(crate) const LIBPQ_SETTINGS: [&str; 10] = [
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

impl Callbacks {
    fn parse(section: Section<'_>) -> Result<Callbacks, ConfigError> {
        let Some(section) = Section::of("postgresql.callbacks", section.map(), "callbacks")? else {
            return Ok(Callbacks::default());
        };
        Ok(Callbacks {
            on_start: section.text("on_start")?,
            on_stop: section.text("on_stop")?,
            on_restart: section.text("on_restart")?,
            on_reload: section.text("on_reload")?,
            on_role_change: section.text("on_role_change")?,
        })
    }
}
