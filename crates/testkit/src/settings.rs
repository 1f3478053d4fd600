//! The configuration files of test agents, as a person would write them.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::sql::{SUPERUSER, SUPERUSER_PASSWORD};

/// The scope of every test cluster.
pub const SCOPE: &str = "e2e";

/// What one member's configuration file is made of.
#[derive(Debug)]
pub struct MemberSettings<'a> {
    pub name: &'a str,
    /// The address that it listens at.
    pub host: Ipv4Addr,
    /// Where PostgreSQL listens: an address, or `*`.
    pub listen: &'a str,
    /// Where clients come from: a network in `pg_hba.conf`'s notation.
    pub clients: &'a str,
    pub postgres_port: u16,
    pub rest_port: u16,
    /// The member's own directory: data, logs, pgpass and socket are below it.
    pub dir: &'a Path,
    pub bin_dir: &'a Path,
    /// The store's section: its name, and its value in YAML's flow style.
    pub store: (&'a str, &'a Value),
    /// `bootstrap.dcs`.
    pub dynamic: &'a Value,
    /// More keys of `restapi`.
    pub restapi: &'a Map<String, Value>,
    /// The keys of `ctl`.
    pub ctl: &'a Map<String, Value>,
    /// More keys of `bootstrap`.
    pub bootstrap: &'a Map<String, Value>,
    /// More keys of `postgresql`.
    pub postgresql: &'a Map<String, Value>,
    /// `tags`.
    pub tags: &'a Value,
}

/// The configuration file's text.
pub fn agent_yaml(settings: &MemberSettings<'_>) -> String {
    let MemberSettings {
        name,
        host,
        listen,
        clients,
        postgres_port,
        rest_port,
        dir,
        bin_dir,
        store: (store, section),
        dynamic,
        restapi,
        ctl,
        bootstrap,
        postgresql,
        tags,
    } = settings;
    let (bootstrap, postgresql) = (lines(bootstrap), lines(postgresql));
    let (restapi, ctl) = (lines(restapi), Value::Object((*ctl).clone()));
    let (dir, bin_dir) = (dir.display(), bin_dir.display());
    format!(
        "scope: {SCOPE}
namespace: /service/
name: {name}

restapi:
  listen: {host}:{rest_port}
  connect_address: {host}:{rest_port}
{restapi}
ctl: {ctl}

{store}: {section}

bootstrap:
  dcs: {dynamic}
{bootstrap}  initdb:
  - encoding: UTF8
  - locale: C.UTF-8

postgresql:
  listen: '{listen}:{postgres_port}'
  connect_address: {host}:{postgres_port}
  data_dir: {dir}/data
  bin_dir: {bin_dir}
  pgpass: {dir}/pgpass
  authentication:
    superuser: {{username: {SUPERUSER}, password: '{SUPERUSER_PASSWORD}'}}
    replication: {{username: replicator, password: 'replication secret'}}
    rewind: {{username: rewinder, password: 'rewind secret'}}
  pg_hba:
  - local all all scram-sha-256
  - host all all samehost scram-sha-256
  - host all all {clients} scram-sha-256
  - host replication replicator {clients} scram-sha-256
  parameters:
    unix_socket_directories: {dir}
    logging_collector: 'on'
    log_directory: {dir}/log
    log_filename: postgresql.log
    log_line_prefix: '%m [%p] %q%a '
    shared_buffers: 16MB
{postgresql}
tags: {tags}
"
    )
}

/// Keys of a section, each with its value in YAML's flow style.
fn lines(section: &Map<String, Value>) -> String {
    let line = |(key, value): (&String, &Value)| format!("  {key}: {value}\n");
    section.iter().map(line).collect()
}

/// `bootstrap.dcs` of a synchronous cluster with the given timing, seconds each.
pub fn dynamic_configuration(ttl: u64, loop_wait: u64, retry_timeout: u64) -> Value {
    json!({
        "ttl": ttl,
        "loop_wait": loop_wait,
        "retry_timeout": retry_timeout,
        "maximum_lag_on_failover": 1_048_576,
        "synchronous_mode": true,
        "postgresql": {
            "use_pg_rewind": true,
            "parameters": {
                "max_connections": 40,
                "max_wal_senders": 8,
                "max_replication_slots": 8,
                "wal_log_hints": "on",
                "hot_standby": "on",
            },
        },
    })
}
