//! From the configuration to what the other rooms take: the settings of the server, the local part of a
//! situation, the client for members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use primacy_config::local::{self, LocalConfig};
use primacy_config::parameters::{
    Managed, ServerParameters, recovery_parameters, server_parameters,
};
use primacy_config::scalar::python_str;
use primacy_config::{Effective, HostPort, Warning};
use primacy_ha::Local;
use primacy_model::{CitusGroup, ConnUrl, Role};
use primacy_net::{
    ClientCertificate, ClientOptions, HttpClient, Passphrase, Roots, TlsClientOptions, Verify,
};
use primacy_postgres as postgres;

/// What the machine must know of the local configuration; no member may lead without a fence if that is required.
pub(crate) fn local(effective: &Effective, fence_required: bool) -> Local {
    let config = &effective.local;
    let postgresql = &config.postgresql;
    let url = |address| conn_url(address, postgresql);
    Local {
        name: config.name.clone(),
        tags: config.tags.clone(),
        conn_url: url(&postgresql.connect_address),
        api_url: config.restapi.api_url(),
        proxy_url: postgresql.proxy_address.as_ref().map(url),
        may_bootstrap: config.bootstrap.is_some(),
        custom_bootstrap: custom_bootstrap(effective).is_some(),
        replica_methods: postgresql.create_replica_methods.clone(),
        methods_without_source: methods_without_source(postgresql),
        use_pg_rewind: postgresql.use_pg_rewind,
        remove_on_rewind_failure: postgresql.remove_data_directory_on_rewind_failure,
        remove_on_divergence: postgresql.remove_data_directory_on_diverged_timelines,
        watchdog: config.watchdog.clone(),
        fence_required,
        citus_database: config.citus.as_ref().map(|citus| citus.database.clone()),
    }
}

fn conn_url(address: &HostPort, section: &local::Postgresql) -> String {
    format!("postgres://{address}/{}", section.database)
}

/// Where the others find a server that listens at these addresses and this port, and not as configured: where they are to
/// connect to, as far as that is possible.
pub(crate) fn found_at(config: &LocalConfig, addresses: &str, port: u16) -> String {
    let section = &config.postgresql;
    let mut address = section.connect_address.clone();
    // Otherwise something between forwards to a port of its own.
    if address.port == section.listen.port {
        address.port = port;
    }
    let here = |host: &str| ["localhost", "127.0.0.1", "::1"].contains(&host);
    let mut listened = addresses.split(',').map(str::trim);
    let everywhere = ["*", "0.0.0.0", "::"];
    let reached = listened
        .clone()
        .any(|host| host == address.host || everywhere.contains(&host));
    // A name is left to the name service.
    if !reached
        && addresses != section.listen.addresses()
        && address.host.parse::<IpAddr>().is_ok()
        && let Some(host) = listened.find(|host| !here(host))
    {
        address.host = host.to_owned();
    }
    conn_url(&address, section)
}

/// The settings of the server, for a server of this version in this role, and what was adjusted or left out. Without a
/// version there are no parameters: good for looking, not for starting.
pub(crate) fn server(
    effective: &Effective,
    version: Option<u32>,
    role: Role,
    managed: &Managed<'_>,
    umask: u32,
) -> (postgres::Settings, Vec<Warning>) {
    let config = &effective.local;
    let section = &config.postgresql;
    let ServerParameters {
        conf,
        command_line,
        recovery_conf,
        mut warnings,
    } = version
        .map(|version| server_parameters(effective, version, Some(role), managed))
        .unwrap_or_default();
    let mut settings =
        postgres::Settings::new(config.name.as_str(), &config.scope, &section.data_dir);
    settings.config_dir = section.config_dir.clone();
    settings.config_base_name = section.config_base_name.clone();
    settings.bin_dir = section.bin_dir.clone();
    settings.bin_names = section
        .bin_name
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    settings.local = address(section, section.use_unix_socket, &conf);
    settings.local_replication = address(section, section.use_unix_socket_repl, &conf);
    settings.listen_addresses = section.listen.addresses();
    settings.port = section.listen.port;
    settings.database = section.database.clone();
    settings.superuser = credentials(&section.authentication.superuser);
    settings.replication = credentials(&section.authentication.replication);
    settings.rewind = section.authentication.rewind.as_ref().map(credentials);
    settings.krbsrvname = section.krbsrvname.clone();
    settings.pgpass = section.pgpass.clone().unwrap_or_else(default_pgpass);
    settings.command_line = command_line;
    settings.parameters = conf;
    settings.pg_hba = section.pg_hba(role).unwrap_or_default().to_vec();
    settings.pg_ident = section.pg_ident(role).unwrap_or_default().to_vec();
    settings.recovery_conf = recovery_conf.unwrap_or_else(|| {
        let mut given = section.recovery_conf.clone();
        let version = version.unwrap_or_default();
        if version >= 120_000 {
            // A file says so since then.
            given.remove("standby_mode");
        }
        let (settings, told) = recovery_parameters(&given, version);
        warnings.extend(told);
        settings
    });
    settings.custom_conf = section.custom_conf.clone();
    settings.pg_ctl_timeout = section.pg_ctl_timeout;
    settings.callbacks = postgres::Callbacks {
        on_start: section.callbacks.on_start.clone(),
        on_stop: section.callbacks.on_stop.clone(),
        on_restart: section.callbacks.on_restart.clone(),
        on_reload: section.callbacks.on_reload.clone(),
        on_role_change: section.callbacks.on_role_change.clone(),
    };
    settings.pre_promote = section.pre_promote.clone();
    settings.before_stop = section.before_stop.clone();
    let methods = match &effective.global.standby_cluster {
        Some(standby) => &standby.create_replica_methods,
        None => &section.create_replica_methods,
    };
    settings.replica_methods = methods
        .iter()
        .map(|name| replica_method(name, section))
        .collect();
    let initdb = config.bootstrap.as_ref().map(|section| &section.initdb);
    settings.initdb_options = initdb.map(tool_options).unwrap_or_default();
    settings.basebackup_options = tool_options(&section.basebackup);
    settings.rewind_options = tool_options(&section.rewind);
    settings.umask = umask;
    settings.citus = config.citus.as_ref().map(|citus| {
        let address = || ConnUrl::parse(&conn_url(&section.connect_address, section));
        postgres::CitusDatabase {
            name: citus.database.clone(),
            coordinator: (citus.group == CitusGroup::COORDINATOR)
                .then(address)
                .flatten()
                .map(|at| (at.host, at.port)),
        }
    });
    (settings, warnings)
}

fn replica_method(name: &str, section: &local::Postgresql) -> postgres::ReplicaMethod {
    let Some(method) = section.replica_methods.get(name) else {
        return postgres::ReplicaMethod {
            name: name.to_owned(),
            command: name.to_owned(),
            ..postgres::ReplicaMethod::default()
        };
    };
    postgres::ReplicaMethod {
        name: name.to_owned(),
        command: method.command.clone(),
        no_params: method.no_params,
        no_leader: method.no_leader,
        keep_data: method.keep_data,
        arguments: method.arguments.clone(),
    }
}

fn tool_options(configured: &local::ToolOptions) -> postgres::ToolOptions {
    postgres::ToolOptions {
        arguments: configured
            .options
            .iter()
            .map(local::ToolOption::argument)
            .collect(),
        problems: configured.problems.clone(),
    }
}

/// The replica creation methods that need nobody to copy.
fn methods_without_source(section: &local::Postgresql) -> BTreeSet<String> {
    let methods = section.replica_methods.iter();
    methods
        .filter(|(_, method)| method.no_leader)
        .map(|(name, _)| name.clone())
        .collect()
}

/// The custom method of a bootstrap, when one is configured and usable; otherwise initdb is meant.
pub(crate) fn custom_bootstrap(effective: &Effective) -> Option<postgres::CustomBootstrap> {
    let method = effective.local.bootstrap.as_ref()?.method.as_ref()?;
    Some(postgres::CustomBootstrap {
        command: method.command.clone(),
        no_params: method.no_params,
        keep_existing_recovery_conf: method.keep_existing_recovery_conf,
        recovery_conf: method.recovery_conf.as_ref().map(|conf| {
            conf.iter()
                .map(|(k, v)| (k.to_owned(), python_str(v)))
                .collect()
        }),
        parameters: method.arguments.clone(),
    })
}

/// The client that asks other members (`rest-api.md` §10): credentials of `ctl`, else of `restapi`; server
/// certificates are checked only where a client certificate is configured, and never by name.
pub(crate) fn peer_client(config: &LocalConfig) -> HttpClient {
    let ctl = &config.ctl;
    let certificate = ctl.certfile.as_ref().map(|cert| ClientCertificate {
        cert: cert.into(),
        key: ctl.keyfile.as_ref().unwrap_or(cert).into(),
        passphrase: ctl
            .keyfile_password
            .as_ref()
            .map(|password| Passphrase::new(password.expose())),
    });
    let cafile = ctl.cacert.as_ref().or(config.restapi.cafile.as_ref());
    let mut options = ClientOptions {
        connect_timeout: Duration::from_secs(2),
        tls: TlsClientOptions {
            roots: cafile.map_or(Roots::System, |path| Roots::File(path.into())),
            verify: if certificate.is_some() {
                Verify::Chain
            } else {
                Verify::None
            },
            certificate,
        },
        ..ClientOptions::default()
    };
    let authentication = ctl
        .authentication
        .as_ref()
        .or(config.restapi.authentication.as_ref());
    if let Some(authentication) = authentication {
        options =
            options.with_basic_auth(&authentication.username, authentication.password.expose());
    }
    HttpClient::new(options)
}

/// Where this host reaches its own server (`configuration.md` §6.7).
fn address(
    section: &local::Postgresql,
    unix: bool,
    conf: &IndexMap<String, String>,
) -> postgres::LocalAddress {
    let directories = conf.get("unix_socket_directories");
    match section.local_host(unix, directories.map(String::as_str)) {
        None => postgres::LocalAddress::Unix(PathBuf::from("/var/run/postgresql")),
        Some(directory) if directory.starts_with('/') => {
            postgres::LocalAddress::Unix(directory.into())
        }
        Some(host) => postgres::LocalAddress::Tcp(host),
    }
}

fn credentials(from: &local::Credentials) -> postgres::Credentials {
    postgres::Credentials {
        username: from.username.clone(),
        password: from
            .password
            .as_ref()
            .map(|password| postgres::Secret::new(password.expose())),
        options: from
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// Refuses what cannot be a password file (§2.13); found here, since nobody misses it before a replica connects.
pub(crate) fn check_pgpass(settings: &postgres::Settings) -> anyhow::Result<()> {
    let path = &settings.pgpass;
    if path.exists() && !path.is_file() {
        anyhow::bail!(
            "'{}' exists and it's not a file, check your `postgresql.pgpass` configuration",
            path.display()
        );
    }
    Ok(())
}

fn default_pgpass() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join("pgpass")
}

#[cfg(test)]
mod tests {
    use primacy_config::TimingLimits;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn recovery_settings_of_their_own_section_are_judged() {
        let recovery = json!({
            "restore_command": "cp", "archive_cleanup_command": null, "recovery_min_apply_delay": "soon",
            "standby_mode": "on",
        });
        let tree = json!({
            "scope": "demo", "name": "pg1", "raft": {}, "restapi": {"listen": "a:1"},
            "postgresql": {"listen": "a:2", "data_dir": "/data", "authentication": {}, "recovery_conf": recovery},
        });
        let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI).unwrap();
        let (settings, warnings) = server(
            &effective,
            Some(150_018),
            Role::Replica,
            &Managed::default(),
            0,
        );
        let written: Vec<_> = settings.recovery_conf.iter().collect();
        assert_eq!(written, [(&"restore_command".to_owned(), &"cp".to_owned())]);
        assert_eq!(
            warnings[0].to_string(),
            "Removing integer parameter=recovery_min_apply_delay from the config due to the invalid value=soon"
        );
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn methods_and_tools_are_given_what_pythons_rules_make_of_their_sections() {
        let tree = json!({
            "scope": "demo", "name": "pg1", "raft": {}, "restapi": {"listen": "a:1"},
            "bootstrap": {"initdb": {"locale": false, "encoding": "UTF8"}, "dcs": {}},
            "postgresql": {
                "listen": "a:2", "data_dir": "/data", "authentication": {},
                "create_replica_methods": ["archive", "basebackup"],
                "archive": {"no_leader": "no", "hosts": ["a", 1], "site": null, "fast": true},
                "basebackup": [{"label": "'a b'"}, "verbose", {"host": "h"}],
            },
        });
        let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI).unwrap();
        let (settings, _) = server(&effective, None, Role::Replica, &Managed::default(), 0);
        let [archive, basebackup] = settings.replica_methods.as_slice() else {
            panic!("{:?}", settings.replica_methods)
        };
        let arguments: Vec<_> = archive
            .arguments
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            arguments,
            ["no_leader=no", "hosts=['a', 1]", "site=None", "fast=True"]
        );
        // Every text is true.
        assert!(archive.no_leader && !archive.keep_data && archive.command == "archive");
        assert!(basebackup.name == "basebackup" && basebackup.arguments.is_empty());
        assert_eq!(
            local(&effective, false).methods_without_source,
            ["archive".to_owned()].into()
        );
        assert_eq!(settings.initdb_options.arguments, ["--encoding=UTF8"]);
        let options = settings.basebackup_options;
        assert_eq!(options.arguments, ["--label=a b", "--verbose"]);
        assert_eq!(
            options.problems,
            ["host option for basebackup is not allowed"]
        );
    }

    #[test]
    fn a_password_file_is_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = postgres::Settings::new("pg1", "demo", "/data");
        settings.pgpass = directory.path().join("pgpass");
        assert!(check_pgpass(&settings).is_ok());
        std::fs::write(&settings.pgpass, "").unwrap();
        assert!(check_pgpass(&settings).is_ok());
        settings.pgpass = directory.path().to_owned();
        let error = check_pgpass(&settings).unwrap_err().to_string();
        assert!(
            error.ends_with("check your `postgresql.pgpass` configuration"),
            "{error}"
        );
    }

    #[test]
    fn others_are_sent_to_where_the_server_is() {
        for (listen, connect, (addresses, port), expected) in [
            ("*:2", "db1:2", ("*", 1), "db1:1"),
            (
                "10.0.0.2,127.0.0.1:2",
                "10.0.0.2:2",
                ("127.0.0.1,10.0.0.1", 1),
                "10.0.0.1:1",
            ),
            ("10.0.0.2,127.0.0.1:2", "db2:2", ("10.0.0.1", 1), "db2:1"),
            (
                "10.0.0.2,127.0.0.1:2",
                "10.0.0.2:2",
                ("10.0.0.2,127.0.0.1", 1),
                "10.0.0.2:1",
            ),
            ("10.0.0.2:2", "10.0.0.2:2", ("127.0.0.1", 2), "10.0.0.2:2"),
            // Forwarded from elsewhere.
            ("*:2", "gateway:9", ("*", 1), "gateway:9"),
        ] {
            let tree = json!({
                "scope": "demo", "name": "pg1", "raft": {}, "restapi": {"listen": "a:1"},
                "postgresql": {"listen": listen, "connect_address": connect, "data_dir": "/data", "authentication": {}},
            });
            let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI).unwrap();
            let found = found_at(&effective.local, addresses, port);
            assert_eq!(found, format!("postgres://{expected}/postgres"), "{listen}");
        }
    }
}
