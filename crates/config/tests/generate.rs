//! `--generate-sample-config` and `--generate-config` (`configuration.md` §7.3, §7.4).

use primacy_config::generate::{self, Host, RunningServer};
use primacy_config::{TimingLimits, yaml};
use serde_json::{Map, Value, json};

fn host() -> Host {
    Host {
        name: "pg1".into(),
        address: "10.0.0.1".into(),
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// The keys and values of Patroni's own output, but for one tag; it is compared without its comments.
#[test]
fn the_sample_of_7_3() {
    let text = generate::to_text(&generate::sample(&Map::new(), &host(), 150_000));
    let without_comments: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    assert_eq!(
        without_comments.join("\n"),
        include_str!("golden/sample.yml").trim_end_matches('\n')
    );
    assert!(!text.ends_with('\n'));
}

#[test]
fn a_sample_is_a_configuration_once_it_is_completed() {
    let environment = map(json!({"scope": "s", "etcd3": {"host": "h:2379"}}));
    let mut tree = generate::sample(&environment, &host(), 150_000);
    tree["postgresql"]["data_dir"] = "/data".into();
    let read = yaml::parse("sample", &generate::to_text(&tree)).unwrap();
    let dynamic = map(read["bootstrap"]["dcs"].clone());
    let built = primacy_config::Effective::build(&read, &dynamic, TimingLimits::PATRONI).unwrap();
    assert_eq!(built.warnings, []);
    assert_eq!(built.local.scope, "s");
    assert_eq!(built.local.postgresql.listen.port, 5432);
}

#[test]
fn the_version_and_the_environment_of_7_3_decide() {
    let environment = map(json!({
        "name": "n", "log": {"level": "DEBUG"},
        "postgresql": {"authentication": {"replication": {"username": "rep"}}},
    }));
    for (version, keep, level, method, rewind) in [
        (90_500, "wal_keep_segments", "hot_standby", "md5", false),
        (
            100_000,
            "wal_keep_segments",
            "replica",
            "scram-sha-256",
            false,
        ),
        (
            120_000,
            "wal_keep_segments",
            "replica",
            "scram-sha-256",
            true,
        ),
        (180_000, "wal_keep_size", "replica", "scram-sha-256", true),
    ] {
        let tree = Value::Object(generate::sample(&environment, &host(), version));
        let parameters = &tree["bootstrap"]["dcs"]["postgresql"]["parameters"];
        assert!(parameters.get(keep).is_some(), "{version}");
        assert_eq!(parameters["wal_level"], level);
        let authentication = &tree["postgresql"]["authentication"];
        assert_eq!(authentication.get("rewind").is_some(), rewind, "{version}");
        assert_eq!(
            tree["postgresql"]["pg_hba"][1],
            format!("host replication rep all {method}")
        );
        assert_eq!(
            (&tree["name"], &tree["log"]["level"]),
            (&json!("n"), &json!("DEBUG"))
        );
    }
}

#[test]
fn a_running_server_of_7_4() {
    let parameters = [
        ("archive_command", "cp %p /a/%f"),
        ("cluster_name", "batman"),
        ("data_directory", "/data"),
        ("hba_file", "/data/pg_hba.conf"),
        ("listen_addresses", "localhost,::1"),
        ("max_connections", "200"),
        ("port", "5433"),
        ("work_mem", "4MB"),
    ];
    let server = RunningServer {
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        superuser: map(json!({"username": "postgres", "password": "x"})),
        port: None,
        bin_dir: "/bin".into(),
    };
    let environment = map(json!({"postgresql": {"connect_address": "[::2]:1"}}));
    let tree = Value::Object(generate::from_server(&environment, &host(), &server));
    assert_eq!(tree["scope"], "batman");
    let postgresql = &tree["postgresql"];
    for (key, value) in [
        ("data_dir", json!("/data")),
        ("listen", json!("localhost,::1:5433")),
        ("connect_address", json!("[::2]:5433")),
        ("bin_dir", json!("/bin")),
        (
            "parameters",
            json!({"archive_command": "cp %p /a/%f", "hba_file": "/data/pg_hba.conf"}),
        ),
        (
            "authentication",
            json!({"superuser": {"username": "postgres", "password": "x"},
                   "replication": {"username": "#FIXME", "password": "#FIXME"}}),
        ),
    ] {
        assert_eq!(postgresql[key], value, "{key}");
    }
    let dynamic = &tree["bootstrap"]["dcs"]["postgresql"];
    assert_eq!(dynamic["parameters"]["max_connections"], "200");
    assert_eq!(dynamic["parameters"]["work_mem"], "4MB");
    assert!(dynamic.get("use_pg_rewind").is_none());
}

#[test]
fn the_lines_of_access_files_of_7_4() {
    let text =
        "# c\nlocal all all trust\n\n  host all all 1.2.3.4/32 md5 # why\ninclude x\nnonsense\n";
    let lines = ["local all all trust", "host all all 1.2.3.4/32 md5 # why"];
    assert_eq!(generate::hba_lines(text, 150_000), lines);
    assert_eq!(
        generate::hba_lines(text, 160_000),
        [lines[0], lines[1], "include x"]
    );
    assert_eq!(generate::ident_lines("# x\n\n m a b\n"), ["m a b"]);
}
