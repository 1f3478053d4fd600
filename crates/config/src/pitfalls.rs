//! What a configuration says to no effect, or to another one than it seems (`configuration.md` §9). Files that
//! came from Patroni work as they did there; that something in them does nothing is told here.

use serde_json::Value;

use crate::command_line;
use crate::effective::{LOCAL_POSTGRESQL, STANDBY_CLUSTER, object};
use crate::local::{self, LIBPQ_SETTINGS, STORES};
use crate::parameters::is_recovery_parameter;
use crate::scalar::{parse_bool, truthy};
use crate::{GlobalConfig, Map, Warning};

/// Settings of the whole cluster (§3.1): read from the top of the dynamic configuration and nowhere else.
pub(crate) const CLUSTER_WIDE: [&str; 24] = [
    "ttl",
    "loop_wait",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "max_timelines_history",
    "primary_start_timeout",
    "master_start_timeout",
    "primary_stop_timeout",
    "master_stop_timeout",
    "primary_hang_timeout",
    "primary_race_backoff",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "failsafe_mode",
    "check_timeline",
    "pause",
    "member_slots_ttl",
    "slots",
    "permanent_slots",
    "permanent_replication_slots",
    "ignore_slots",
    "standby_cluster",
];

/// Keys that mean something in the section `postgresql` alone.
const OF_POSTGRESQL: [&str; 12] = [
    "parameters",
    "pg_hba",
    "pg_ident",
    "recovery_conf",
    "callbacks",
    "create_replica_methods",
    "use_pg_rewind",
    "use_slots",
    "data_dir",
    "bin_dir",
    "custom_conf",
    "remove_data_directory_on_rewind_failure",
];

/// Sections of each member's own configuration, beside those of the stores.
const LOCAL: [&str; 12] = [
    "scope",
    "name",
    "namespace",
    "restapi",
    "ctl",
    "log",
    "bootstrap",
    "tags",
    "watchdog",
    "citus",
    "fencing",
    "journal",
];

/// Flags of which any text is true, also the text `false` (§9, 30).
const FLAGS: [(&str, &[&str]); 2] = [
    (
        "postgresql",
        &[
            "use_pg_rewind",
            "remove_data_directory_on_rewind_failure",
            "remove_data_directory_on_diverged_timelines",
            "use_unix_socket",
            "use_unix_socket_repl",
        ],
    ),
    (
        "tags",
        &["nofailover", "noloadbalance", "clonefrom", "nosync"],
    ),
];

/// Spellings of one setting (§3.6): the first one with a value counts.
const SPELLINGS: [&[&str]; 3] = [
    &["primary_start_timeout", "master_start_timeout"],
    &["primary_stop_timeout", "master_stop_timeout"],
    &["permanent_replication_slots", "permanent_slots", "slots"],
];

/// Tells about this member's own configuration.
pub(crate) fn of_member(tree: &Map, warnings: &mut Vec<Warning>) {
    let mut tell = Teller(warnings);
    for key in CLUSTER_WIDE.iter().filter(|key| given(tree, key)) {
        tell.useless(
            key,
            "it is a setting of the whole cluster, changed by `edit-config`",
        );
    }
    tell.belongs_under(tree, "", "postgresql", &OF_POSTGRESQL);
    if tree
        .get("citus")
        .is_some_and(|value| truthy(value) && local::citus(value).is_none())
    {
        tell.useless(
            "citus",
            "group must be an integer, without quotes, and database text",
        );
    }
    for key in ["thread_pool_size", "thread_stack_size"] {
        if given(tree, key) {
            tell.useless(key, "nothing waits for a thread of a pool");
        }
    }
    tell.of_raft(object(tree, "raft"));
    tell.of_restapi(object(tree, "restapi"));
    tell.of_postgresql(object(tree, "postgresql"));
    tell.of_bootstrap(tree);
    tell.flags(tree);
}

/// Tells about the dynamic configuration.
pub(crate) fn of_cluster(tree: &Map, warnings: &mut Vec<Warning>) {
    let mut tell = Teller(warnings);
    let own = LOCAL.iter().chain(&STORES).filter(|key| given(tree, key));
    for key in own {
        tell.useless(
            &format!("{key} in the dynamic configuration"),
            "it is read from each member's own configuration",
        );
    }
    tell.belongs_under(
        tree,
        "the dynamic configuration",
        "postgresql",
        &OF_POSTGRESQL,
    );
    let postgresql = object(tree, "postgresql");
    for key in LOCAL_POSTGRESQL.iter().filter(|key| given(postgresql, key)) {
        tell.useless(
            &format!("postgresql.{key} in the dynamic configuration"),
            "it is read from each member's own configuration",
        );
    }
    for key in CLUSTER_WIDE.iter().filter(|key| given(postgresql, key)) {
        tell.useless(
            &format!("postgresql.{key} in the dynamic configuration"),
            "it belongs to the top",
        );
    }
    for spellings in SPELLINGS {
        let mut filled = spellings
            .iter()
            .filter(|key| tree.get(**key).is_some_and(truthy));
        let counts = filled.next();
        for (ignored, counts) in filled.zip(counts.into_iter().cycle()) {
            tell.useless(
                &format!("{ignored} in the dynamic configuration"),
                &format!("{counts} is what counts where both are given"),
            );
        }
    }
    let standby_cluster = object(tree, "standby_cluster");
    if !standby_cluster.is_empty() && !follows(tree) {
        tell.useless(
            "standby_cluster",
            "it needs a host, a port or a restore_command",
        );
    }
    tell.of_remote(standby_cluster);
    tell.of_slots(tree);
    for key in standby_cluster
        .keys()
        .filter(|key| !STANDBY_CLUSTER.contains(&key.as_str()))
    {
        tell.useless(
            &format!("standby_cluster.{key}"),
            "there is no such setting",
        );
    }
    tell.flags(tree);
}

/// Tells about what is lost where both come together: `effective` is the tree of both layers.
pub(crate) fn of_both(effective: &Map, dynamic: &Map, warnings: &mut Vec<Warning>) {
    let methods = object(effective, "postgresql").get("create_replica_methods");
    let own = object(dynamic, "standby_cluster").get("create_replica_methods");
    if follows(dynamic) && methods.is_some_and(truthy) && !own.is_some_and(truthy) {
        Teller(warnings).useless(
            "postgresql.create_replica_methods",
            "in a standby cluster standby_cluster.create_replica_methods counts, and without it basebackup",
        );
    }
}

/// Whether the cluster is a standby cluster (§3.5).
fn follows(dynamic: &Map) -> bool {
    let section = object(dynamic, "standby_cluster");
    let filled = |key: &&str| section.get(*key).is_some_and(truthy);
    ["host", "port", "restore_command"].iter().any(filled)
}

/// Tells of a margin that leaves the leader no time to renew its lock.
pub(crate) fn of_fencing(tree: &Map, global: &GlobalConfig, warnings: &mut Vec<Warning>) {
    let margin = object(tree, "fencing").get("safety_margin");
    let longest = global.longest_fencing_margin().as_secs_f64();
    if let Some(margin) = margin.and_then(Value::as_f64)
        && margin > longest
    {
        warnings.push(Warning(format!(
            "Violated the rule \"fencing.safety_margin <= ttl - loop_wait - retry_timeout\": the fence would kill PostgreSQL while \
             its agent may still renew the lock. Adjusting fencing.safety_margin from {margin} to {longest}"
        )));
    }
}

struct Teller<'a>(&'a mut Vec<Warning>);

impl Teller<'_> {
    fn useless(&mut self, what: &str, why: &str) {
        self.0.push(Warning(format!("{what} has no effect: {why}")));
    }

    fn belongs_under(&mut self, tree: &Map, place: &str, section: &str, keys: &[&str]) {
        let place = if place.is_empty() {
            String::new()
        } else {
            format!(" in {place}")
        };
        for key in keys.iter().filter(|key| given(tree, key)) {
            self.useless(
                &format!("{key}{place}"),
                &format!("it belongs under {section}"),
            );
        }
    }

    fn of_raft(&mut self, raft: &Map) {
        for (key, why) in [
            (
                "connection_retry_time",
                "a lost connection is made again as soon as it is needed, ten times a second at most",
            ),
            (
                "leader_fallback_timeout",
                "a leader of the embedded store that lost its majority answers nothing from then on",
            ),
        ] {
            if given(raft, key) {
                self.useless(&format!("raft.{key}"), why);
            }
        }
    }

    /// Without a slot the remote primary keeps no WAL for this cluster (§9, 8), and of several hosts any will do (§9, 9).
    fn of_remote(&mut self, standby_cluster: &Map) {
        let filled = |key: &str| standby_cluster.get(key).is_some_and(truthy);
        if !filled("host") || filled("primary_slot_name") || filled("restore_command") {
            return;
        }
        let hosts = standby_cluster.get("host").and_then(Value::as_str);
        let any = match hosts.is_some_and(|hosts| hosts.contains(',')) {
            true => ", and whichever of its hosts answers first is followed, also a standby",
            false => "",
        };
        self.0.push(Warning(format!(
            "standby_cluster has neither primary_slot_name nor restore_command: the remote primary may remove WAL that is \
             still needed here{any}"
        )));
    }

    /// Permanent slots that are made where they seem not to be (§9, 10).
    fn of_slots(&mut self, tree: &Map) {
        if follows(tree) {
            return;
        }
        let mut maps = SPELLINGS[2].iter().map(|key| (key, object(tree, key)));
        let Some((key, slots)) = maps.find(|(_, slots)| !slots.is_empty()) else {
            return;
        };
        for (name, slot) in slots {
            if slot.get("cluster_type").and_then(Value::as_str) == Some("standby") {
                self.useless(
                    &format!("{key}.{name}.cluster_type"),
                    "the members of a cluster that is no standby cluster have the slot all the same",
                );
            }
        }
    }

    /// Values that nobody knows, in Patroni's words: they count as if they were not there.
    fn of_restapi(&mut self, restapi: &Map) {
        if given(restapi, "thread_pool_size") {
            self.useless("restapi.thread_pool_size", "a slow client holds up nobody");
        }
        let unknown = |key: &str, known: &[&str]| {
            let text = restapi.get(key).and_then(Value::as_str)?;
            (!known.contains(&text.to_lowercase().as_str())).then_some(text)
        };
        if let Some(text) = unknown("verify_client", &["none", "optional", "required"]) {
            self.0.push(Warning(format!(
                "Bad value in the \"restapi.verify_client\": {text}: no client needs a certificate"
            )));
        }
        if let Some(text) = unknown("server_tokens", &["original", "minimal", "productonly"]) {
            self.0.push(Warning(format!(
                "restapi.server_tokens is set to \"{text}\". The Server header is not modified. Valid values are: \
                 \"Minimal\", \"ProductOnly\"."
            )));
        }
        for key in ["verify_client", "ciphers", "https_extra_headers"] {
            if given(restapi, key) && !restapi.get("certfile").is_some_and(truthy) {
                self.useless(
                    &format!("restapi.{key}"),
                    "without restapi.certfile there is no HTTPS",
                );
            }
        }
    }

    fn of_postgresql(&mut self, postgresql: &Map) {
        for key in CLUSTER_WIDE.iter().chain(&["use_slots"]) {
            if given(postgresql, key) {
                self.useless(
                    &format!("postgresql.{key}"),
                    "it is a setting of the whole cluster, changed by `edit-config`",
                );
            }
        }
        let parameters = object(postgresql, "parameters");
        for name in parameters.keys() {
            let why = match (command_line::find(name), name.to_lowercase().as_str()) {
                (None, _) => continue,
                (_, "listen_addresses" | "port") => "it is taken from postgresql.listen",
                (_, "cluster_name") => "it is taken from scope",
                _ => "it must be the same on all members, and is changed by `edit-config`",
            };
            self.useless(&format!("postgresql.parameters.{name}"), why);
        }
        let recovery = parameters.keys().find(|name| is_recovery_parameter(name));
        if let Some(name) = recovery.filter(|_| given(postgresql, "recovery_conf")) {
            self.useless(
                "postgresql.recovery_conf",
                &format!("postgresql.parameters.{name} stands in its place, with all others of recovery there"),
            );
        }
        for role in ["superuser", "replication", "rewind"] {
            let credentials = object(object(postgresql, "authentication"), role);
            for key in credentials.keys() {
                if !LIBPQ_SETTINGS.contains(&key.as_str())
                    && !["username", "password"].contains(&key.as_str())
                {
                    self.useless(
                        &format!("postgresql.authentication.{role}.{key}"),
                        "there is no such setting",
                    );
                }
            }
        }
    }

    fn of_bootstrap(&mut self, tree: &Map) {
        let bootstrap = object(tree, "bootstrap");
        for key in CLUSTER_WIDE.iter().filter(|key| given(bootstrap, key)) {
            self.useless(
                &format!("bootstrap.{key}"),
                "it belongs under bootstrap.dcs",
            );
        }
        if bootstrap.get("users").is_some_and(truthy) {
            self.useless(
                "bootstrap.users",
                "create users by the script of bootstrap.post_bootstrap",
            );
        }
        let method = bootstrap
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or("initdb");
        if method != "initdb" && !object(bootstrap, method).get("command").is_some_and(truthy) {
            self.useless(
                "bootstrap.method",
                &format!(
                    "bootstrap.{method}.command is not defined; a new cluster is made by initdb"
                ),
            );
        }
        let lists = |section: &Map| section.get("pg_hba").is_some_and(truthy);
        if lists(bootstrap) && lists(object(tree, "postgresql")) {
            self.useless("bootstrap.pg_hba", "postgresql.pg_hba is the whole file");
        }
    }

    fn flags(&mut self, tree: &Map) {
        for (section, flags) in FLAGS {
            for flag in flags {
                let value = object(tree, section).get(*flag);
                if let Some(value @ Value::String(text)) = value
                    && truthy(value)
                    && parse_bool(value) == Some(false)
                {
                    self.0.push(Warning(format!(
                        "{section}.{flag} is the text '{text}', which counts as true as every text does: \
                         write false, without quotes"
                    )));
                }
            }
        }
    }
}

fn given(map: &Map, key: &str) -> bool {
    map.get(key).is_some_and(|value| !value.is_null())
}
