//! `--validate-config`: the lines, their wording and their order.

use std::fs;
use std::net::TcpListener;

use primacy_config::validate::{Options, validate, with_defaults};
use serde_json::{Value, json};

/// A valid configuration in a directory with stand-ins for PostgreSQL's executables.
struct Site {
    dir: tempfile::TempDir,
    store: TcpListener,
}

impl Site {
    fn new() -> Site {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in [
            "pg_ctl",
            "initdb",
            "pg_controldata",
            "pg_basebackup",
            "postgres",
            "pg_isready",
        ] {
            let file = bin.join(name);
            fs::write(
                &file,
                "#!/bin/sh\necho 'postgres (PostgreSQL) 15.18 (Debian)'\n",
            )
            .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Site {
            dir,
            store: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn tree(&self) -> Value {
        json!({
            "scope": "s",
            "name": "n",
            "restapi": {"listen": "127.0.0.1:1", "connect_address": "10.0.0.1:8008"},
            "etcd3": {"hosts": [self.store.local_addr().unwrap().to_string()]},
            "postgresql": {
                "listen": "127.0.0.1:1",
                "connect_address": "10.0.0.1:5432",
                "data_dir": self.path("data"),
                "bin_dir": self.path("bin"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": "x"},
                    "replication": {"username": "rep"},
                },
            },
        })
    }

    /// The lines about the valid tree with `changes` laid over it.
    fn lines(&self, changes: Value) -> Vec<String> {
        let mut tree = self.tree();
        let (target, overlay) = (tree.as_object_mut().unwrap(), changes.as_object().unwrap());
        primacy_config::scalar::patch(target, overlay);
        validate(&tree, Options::default())
    }
}

#[test]
fn a_valid_configuration_gives_nothing() {
    assert_eq!(Site::new().lines(json!({})), Vec::<String>::new());
}

#[test]
fn without_input_every_required_key_is_reported() {
    assert_eq!(
        validate(&json!({}), Options::default()),
        [
            "name  is not defined.",
            "scope  is not defined.",
            "restapi  is not defined.",
            "consul  is not defined.",
            "etcd  is not defined.",
            "etcd3  is not defined.",
            "exhibitor  is not defined.",
            "kubernetes  is not defined.",
            "raft  is not defined.",
            "zookeeper  is not defined.",
            "postgresql  is not defined.",
        ]
    );
}

#[test]
fn the_rules_of_8_are_told_in_the_known_words() {
    let site = Site::new();
    let data = site.path("data");
    for (changes, expected) in [
        (json!({"name": 5}), vec!["name 5 is not a string"]),
        // What Patroni 4.1.5 has no rules for is left alone, in both places.
        (
            json!({"bootstrap": {"dcs": {"postgresql": {"rewind": 5, "basebackup": "x"}}}}),
            vec![],
        ),
        (
            json!({"postgresql": {"rewind": 5, "basebackup": []}}),
            vec![],
        ),
        (
            json!({"thread_stack_size": 131_070}),
            vec!["thread_stack_size 131070 didn't pass validation: Wrong value"],
        ),
        // As Patroni 4.1.5 has it: a word of another type, and a boolean for a number, are wrong values.
        (
            json!({"log": {"level": 5, "mode": true}, "restapi": {"verify_client": 5}}),
            vec![
                "log.level 5 didn't pass validation: Wrong value",
                "log.mode True didn't pass validation: Wrong value",
                "restapi.verify_client 5 didn't pass validation: Wrong value",
            ],
        ),
        (json!({"thread_stack_size": 524_288}), vec![]),
        // In the order of Patroni's rules, whatever that of the file is.
        (
            json!({
                "bootstrap": {"dcs": {
                    "synchronous_node_count": 0, "synchronous_mode": "x", "primary_stop_timeout": -1, "retry_timeout": 1,
                    "postgresql": {"use_slots": 1, "pg_ctl_timeout": -1, "pg_hba": [], "use_pg_rewind": 1},
                    "standby_cluster": {"port": 70_000},
                }},
            }),
            vec![
                "bootstrap.dcs.retry_timeout 1 didn't pass validation: Wrong value",
                "bootstrap.dcs.postgresql.use_pg_rewind 1 is not a boolean",
                "bootstrap.dcs.postgresql.pg_hba [] is an empty list",
                "bootstrap.dcs.postgresql.pg_ctl_timeout -1 didn't pass validation: Wrong value",
                "bootstrap.dcs.postgresql.use_slots 1 is not a boolean",
                "bootstrap.dcs.primary_stop_timeout -1 didn't pass validation: Wrong value",
                "bootstrap.dcs.standby_cluster.port 70000 didn't pass validation: Wrong value",
                "bootstrap.dcs.synchronous_mode x didn't pass validation: invalid value for synchronous_mode",
                "bootstrap.dcs.synchronous_node_count 0 didn't pass validation: Wrong value",
            ],
        ),
        (
            json!({"watchdog": {"mode": true}}),
            vec!["watchdog.mode True didn't pass validation: Wrong value"],
        ),
        (
            json!({"raft": {"self_addr": "10.0.0.1:1", "partner_addrs": "x"}}),
            vec!["raft.partner_addrs x is not an array"],
        ),
        (
            json!({"raft": {"self_addr": "10.0.0.1:1", "partner_addrs": []}}),
            vec![],
        ),
        (
            json!({"kubernetes": {"labels": {}, "ports": [{"port": 1}]}}),
            vec!["kubernetes.ports.0.name {'port': 1} is not defined."],
        ),
        (
            json!({"kubernetes": {"labels": {}, "ports": []}}),
            vec!["kubernetes.ports [] is an empty list"],
        ),
        (
            json!({"postgresql": {"basebackup": {"checkpoint": "fast"}, "bin_name": {"other": "x"}}}),
            vec![],
        ),
        (
            json!({"log": {"level": "info", "mode": "x", "format": [1]}}),
            vec![
                "log.level info didn't pass validation: Wrong value",
                "log.format [1] didn't pass validation: each item should be a string or a dictionary \
             with string values",
                "log.mode x is not an integer",
            ],
        ),
        (
            json!({"restapi": {"connect_address": "localhost:1", "verify_client": "None"}}),
            vec![
                "restapi.connect_address localhost:1 didn't pass validation: must not contain \
             \"127.0.0.1\", \"0.0.0.0\", \"*\", \"::1\", \"localhost\"",
                "restapi.verify_client None didn't pass validation: Wrong value",
            ],
        ),
        (
            json!({"restapi": {"listen": "x:y"}}),
            vec!["restapi.listen x:y didn't pass validation: contains a wrong value"],
        ),
        (
            json!({"bootstrap": {}}),
            vec!["bootstrap.dcs  is not defined."],
        ),
        (
            json!({"bootstrap": {"dcs": {
                "ttl": 5, "synchronous_mode": "maybe", "member_slots_ttl": "1h",
                "standby_cluster": {"primary_slot_name": 1},
                "postgresql": {"use_slots": "yes", "pg_hba": []},
            }, "initdb": ["x", 5]}}),
            vec![
                "bootstrap.dcs.ttl 5 didn't pass validation: Wrong value",
                "bootstrap.dcs.postgresql.pg_hba [] is an empty list",
                "bootstrap.dcs.postgresql.use_slots yes is not a boolean",
                "bootstrap.dcs.standby_cluster.host  is not defined.",
                "bootstrap.dcs.standby_cluster.port  is not defined.",
                "bootstrap.dcs.standby_cluster.restore_command  is not defined.",
                "bootstrap.dcs.standby_cluster.primary_slot_name 1 is not a string",
                "bootstrap.dcs.synchronous_mode maybe didn't pass validation: invalid value for \
                 synchronous_mode",
                "bootstrap.initdb.1 5 is not a string",
                "bootstrap.initdb.1 5 is not a dictionary",
            ],
        ),
        (
            json!({"etcd3": {"hosts": ["127.0.0.1:1"]}}),
            vec!["etcd3.hosts.0 127.0.0.1:1 didn't pass validation: 127.0.0.1:1 is not reachable"],
        ),
        (
            json!({"citus": {"group": "a", "database": "d"}}),
            vec!["citus.group a is not an integer"],
        ),
        (
            json!({"kubernetes": {
                "labels": {}, "ports": [{"name": 1, "port": 70_000}], "pod_ip": "x",
            }}),
            vec![
                "kubernetes.pod_ip x didn't pass validation: Is not a valid ipv4 address",
                "kubernetes.pod_ip x didn't pass validation: Is not a valid ipv6 address",
                "kubernetes.ports.0.name {'name': 1, 'port': 70000} is not a string",
                "kubernetes.ports.0.port {'name': 1, 'port': 70000} didn't pass validation: \
                 Wrong value",
            ],
        ),
        (
            json!({"postgresql": {"listen": "*,127.0.0.1:1", "pg_hba": []}}),
            vec![
                "postgresql.listen *,127.0.0.1:1 didn't pass validation: expecting '*' alone",
                "postgresql.pg_hba [] is an empty list",
            ],
        ),
        (
            json!({"postgresql": {"authentication": {"superuser": {"password": ["s3cret"]}}}}),
            vec!["postgresql.authentication.superuser.password *** is not a string"],
        ),
        (
            json!({"postgresql": {"bin_dir": "/nowhere"}}),
            vec!["postgresql.bin_dir  Directory '/nowhere' does not exist."],
        ),
        (
            json!({"watchdog": {"mode": "auto", "safety_margin": -2}}),
            vec![
                "watchdog.mode auto didn't pass validation: Wrong value",
                "watchdog.safety_margin -2 didn't pass validation: Wrong value",
            ],
        ),
        (
            json!({"tags": {"nofailover": true, "failover_priority": 1, "nosync": "x"}}),
            vec![
                "tags  Multiple of ('nofailover', 'failover_priority') provided",
                "tags.nosync x is not a boolean",
            ],
        ),
    ] {
        assert_eq!(site.lines(changes.clone()), expected, "{changes}");
    }
    assert!(!fs::exists(data).unwrap());
}

/// §8: every key with a value of every kind, against what Patroni says of it.
#[test]
fn every_key_with_a_value_of_every_kind() {
    let site = Site::new();
    let rows: Vec<Vec<&str>> = include_str!("golden/validation.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (column, (value, shown)) in [
        (json!(5), "5"),
        (json!(true), "True"),
        (json!(1.5), "1.5"),
        (json!(70_000), "70000"),
        (json!(null), "None"),
        (json!("x!"), "x!"),
        (json!([]), "[]"),
        (json!([1]), "[1]"),
        (json!({"a": 1}), "{'a': 1}"),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut tree, mut expected) = (site.tree(), Vec::new());
        for row in &rows {
            let (path, codes) = (row[0], row[1 + column]);
            let of_an_element = path.ends_with(".0");
            let missing = row[1..].iter().all(|code| *code == "u");
            if codes == "?" {
                continue;
            }
            if value.is_null() && !path.contains('.') {
                // Beside the sections, a key without a value is none.
                tree.as_object_mut().expect("a mapping").remove(path);
            } else if !of_an_element && !missing {
                put(&mut tree, path, value.clone());
            }
            let secret = ["password", "token", "auth_data"];
            for code in codes.chars().filter(|code| *code != '.') {
                let shown = match code {
                    'u' => "",
                    _ if secret.iter().any(|secret| path.ends_with(secret)) => "***",
                    _ if of_an_element => "1",
                    _ => shown,
                };
                expected.push(format!("{path} {shown} {}", told(code)));
            }
        }
        assert_eq!(validate(&tree, Options::default()), expected, "{value}");
    }
}

fn put(tree: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(tree, |place, key| {
        let map = place.as_object_mut().expect("a mapping");
        map.entry(key).or_insert_with(|| json!({}))
    });
    *place = value;
}

/// What the letters of the table stand for.
fn told(code: char) -> &'static str {
    match code {
        's' => "is not a string",
        'b' => "is not a boolean",
        'i' => "is not an integer",
        'd' => "is not a dictionary",
        'l' => "is not a list",
        'e' => "is an empty list",
        'u' => "is not defined.",
        'w' => "didn't pass validation: Wrong value",
        't' => "didn't pass validation: expected type is not a string",
        'm' => "didn't pass validation: invalid value for synchronous_mode",
        'f' => "didn't pass validation: Should be a string or a list",
        'g' => "didn't pass validation: should contain at least one item",
        'h' => {
            "didn't pass validation: each item should be a string or a dictionary with string values"
        }
        '4' => "didn't pass validation: Is not a valid ipv4 address",
        '6' => "didn't pass validation: Is not a valid ipv6 address",
        other => panic!("{other} has no meaning"),
    }
}

#[test]
fn binaries_are_looked_for() {
    let site = Site::new();
    let bin = site.path("bin");
    fs::remove_file(site.dir.path().join("bin/pg_controldata")).unwrap();
    assert_eq!(
        site.lines(json!({})),
        [format!(
            "postgresql.bin_dir  does not contain 'pg_controldata' in '{bin}'"
        )]
    );
    assert_eq!(
        site.lines(
            json!({"postgresql": {"bin_name": {"pg_controldata": "pg_ctl", "initdb": "x"}}})
        ),
        [
            format!(
                "postgresql.bin_name.initdb x didn't pass validation: does not contain 'x' in \
                 '{bin}'"
            ),
            format!("postgresql.bin_dir  does not contain 'x' in '{bin}'"),
        ]
    );
}

#[test]
fn a_data_directory_must_be_empty_or_of_this_version() {
    let site = Site::new();
    let data = site.dir.path().join("data");
    let line = |text: &str| {
        vec![format!(
            "postgresql.data_dir {} didn't pass validation: {text}",
            data.display()
        )]
    };
    fs::write(&data, "").unwrap();
    assert_eq!(site.lines(json!({})), line("is not a directory"));
    fs::remove_file(&data).unwrap();
    fs::create_dir_all(data.join("lost+found")).unwrap();
    assert_eq!(site.lines(json!({})), Vec::<String>::new());
    fs::write(data.join("x"), "").unwrap();
    assert_eq!(
        site.lines(json!({})),
        line("doesn't look like a valid data directory")
    );
    fs::write(data.join("PG_VERSION"), "14\n").unwrap();
    let missing = "data dir for the cluster is not empty, but doesn't contain \"pg_wal\" directory";
    assert_eq!(site.lines(json!({})), line(missing));
    fs::create_dir(data.join("pg_wal")).unwrap();
    let mismatch = "data_dir directory postgresql version (14) doesn't match with \
                    'postgres --version' output (15)";
    assert_eq!(site.lines(json!({})), line(mismatch));
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    assert_eq!(site.lines(json!({})), Vec::<String>::new());
}

#[test]
fn a_port_in_use_may_be_ignored() {
    let site = Site::new();
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap();
    let mut tree = site.tree();
    tree["restapi"]["listen"] = json!(address.to_string());
    assert_eq!(
        validate(&tree, Options::default()),
        [format!(
            "restapi.listen {address} didn't pass validation: Port {} is already in use.",
            address.port()
        )]
    );
    assert_eq!(
        validate(
            &tree,
            Options {
                ignore_listen_port: true
            }
        ),
        Vec::<String>::new()
    );
}

/// Where `PATH` has no `pg_ctl`, which is where it would be missed.
#[test]
fn a_bin_dir_without_a_value_is_not_looked_into() {
    let site = Site::new();
    let mut tree = site.tree();
    tree["postgresql"]["bin_dir"] = json!(null);
    assert_eq!(validate(&tree, Options::default()), Vec::<String>::new());
}

#[test]
fn printing_shows_the_default() {
    assert_eq!(
        with_defaults(&json!({"postgresql": {}})),
        json!({"postgresql": {"bin_dir": ""}})
    );
}
