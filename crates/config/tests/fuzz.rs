//! Parsers of what people write, given what nobody would; `make fuzz`.

use std::path::PathBuf;

use primacy_config::parameters::{Managed, server_parameters};
use primacy_config::scalar::{
    format_integer, format_real, parse_bool, parse_int, parse_int_in, parse_real_in, python_str,
};
use primacy_config::{
    ClientConfig, Effective, GlobalConfig, TimingLimits, from_environment, generate, yaml,
};
use serde_json::{Map, Value, json};

const CONFIGURATION: &str = include_str!("golden/sample.yml");
const SECTIONS: &str = "scope: s\nname: n\nnamespace: /x/\nctl: {insecure: on, cacert: a}\n\
    raft: {self_addr: '10.0.0.1:1', partner_addrs: ['a:2'], data_dir: /x, password: p, min_timeout: 0.4}\n\
    restapi: {listen: '[::]:8008', connect_address: 'a:1', verify_client: optional, allowlist: [10.0.0.0/8], http_extra_headers: {a: b}}\n\
    bootstrap: {dcs: {ttl: 30}, method: m, m: {command: c, recovery_conf: {restore_command: x}}, initdb: [x, {y: z}]}\n\
    postgresql: {listen: '*,::1:5432', connect_address: 'b:2', data_dir: /d, parameters_primary: {work_mem: 4MB}, \
    parameters: {wal_keep_segments: 7, recovery_target: x, shared_buffers: 1e3MB}, pg_hba: [a], callbacks: {on_start: x}, \
    authentication: {superuser: {username: u, sslmode: require}, replication: {username: r}}}\n\
    watchdog: {mode: required, safety_margin: -1}\ntags: {nofailover: true, failover_priority: '2', x: [y]}\n\
    log: {level: DEBUG, format: [a, {b: c}], type: json, file_size: 5}\ncitus: {group: 0, database: x}\n";
const DYNAMIC: &str = "ttl: 20\nloop_wait: 5\nretry_timeout: 5\nmaximum_lag_on_failover: 1048576\nmember_slots_ttl: 1h\n\
    synchronous_mode: quorum\nsynchronous_node_count: 2\nslots: {a: {type: logical, database: d, plugin: p}, b: null}\n\
    ignore_slots: [{name: x, type: physical}]\nstandby_cluster: {host: 'a,b', port: 5432, primary_slot_name: x}\n\
    postgresql: {use_slots: 'off', parameters: {max_connections: 0x20, wal_keep_size: 0.5GB, hot_standby: 1}}\n";

/// The grammar of YAML, and that what was read is written so that it reads the same.
#[test]
#[ignore = "long: make fuzz"]
fn yaml() {
    let marks = "%YAML 1.1\n---\na: &x [1_000, 0644, 0x1F, 10:30, 1e3, 1.0e+3, .inf, 2024-01-01, ~, 'it''s', \"\\x41\\u00e9\\\n  b\"]\n\
                 b: {<<: {c: d}, e: *x}\n? f\n: - g\n  - |+\n    h\n\n  - >-\n    i\n    j\n# k\n!!str l: !!int '5'\n...\n";
    let samples = [CONFIGURATION, SECTIONS, DYNAMIC, marks].map(str::as_bytes);
    primacy_fuzz::bytes(&samples, |input| {
        let Ok(value) = yaml::parse_bytes("x", input) else {
            return false;
        };
        // An infinity has no place in a tree of JSON's kind, and nothing else is lost.
        for written in [
            yaml::to_block(&value, yaml::KeyOrder::Kept),
            yaml::to_file(&value),
            yaml::to_flow(&value),
        ] {
            assert_eq!(yaml::parse("x", &written).as_ref(), Ok(&value), "{written}");
        }
        true
    });
}

/// A configuration of both layers, from reading to what PostgreSQL is given.
#[test]
#[ignore = "long: make fuzz"]
fn configuration() {
    let whole = format!("{SECTIONS}---\n{DYNAMIC}");
    let other =
        format!("{CONFIGURATION}\netcd3: {{hosts: 'a:1,b:2', protocol: https}}\n---\n{DYNAMIC}");
    let known = ["work_mem".to_owned()];
    primacy_fuzz::text(&[&whole, &other], |input| {
        let (local, dynamic) = input.split_once("\n---\n").unwrap_or((input, ""));
        let (Ok(local), Ok(dynamic)) = (yaml::parse("x", local), yaml::parse("y", dynamic)) else {
            return false;
        };
        let dynamic = dynamic.as_object().cloned().unwrap_or_default();
        let _ = GlobalConfig::from_dynamic(&dynamic, TimingLimits::EMBEDDED);
        let _ = ClientConfig::from_local(&local);
        let Ok(effective) = Effective::build(&local, &dynamic, TimingLimits::PATRONI) else {
            return false;
        };
        // A configuration that is built again from what it says of itself is the same one.
        let again = Effective::build(&local, &effective.dynamic, TimingLimits::PATRONI);
        assert!(again.is_ok_and(|again| again.tree == effective.tree));
        let global = &effective.global;
        assert!(
            global.loop_wait + 2 * global.retry_timeout <= global.ttl,
            "{input}"
        );
        let managed = Managed {
            known_to_server: Some(&known),
            ..Managed::default()
        };
        for version in [120_005, 150_018, 180_000] {
            let given = server_parameters(
                &effective,
                version,
                Some(primacy_model::Role::Primary),
                &managed,
            );
            assert!(
                given
                    .command_line
                    .iter()
                    .any(|(name, _)| name == "max_connections")
            );
        }
        true
    });
}

/// `--generate-config` from a server that says anything at all.
#[test]
#[ignore = "long: make fuzz"]
fn generated_configurations() {
    let files = "local all all trust\nhost all all 1.2.3.4/32 md5 # x\n\"host\" a\nmap a /^b$\n";
    primacy_fuzz::text(&[files, CONFIGURATION], |input| {
        let parameters = input.lines().map(|line| {
            let (name, value) = line.split_once([' ', ':']).unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        });
        let server = generate::RunningServer {
            parameters: parameters.collect(),
            superuser: Map::new(),
            port: None,
            bin_dir: input.to_owned(),
        };
        let mut tree = generate::from_server(&Map::new(), &generate::Host::default(), &server);
        let lines = [
            generate::hba_lines(input, 160_000),
            generate::ident_lines(input),
        ]
        .concat();
        if let Some(Value::Object(section)) = tree.get_mut("postgresql") {
            section.insert("pg_hba".into(), json!(lines));
        }
        let read = yaml::parse("x", &generate::to_text(&tree));
        // Nothing that it was told gets lost on the way through the file.
        assert_eq!(
            read.as_ref().map(|read| &read["postgresql"]),
            Ok(&tree["postgresql"])
        );
        !lines.is_empty()
    });
}

/// Numbers with units, and how they are printed.
#[test]
#[ignore = "long: make fuzz"]
fn scalars() {
    let samples = [
        "128MB",
        "4097.5kB",
        "-0x10",
        "017",
        "1.5e3 ms",
        "9223372036854775807",
        "1h",
        " 2.5min ",
        "on",
        "8kB",
    ];
    primacy_fuzz::text(&samples, |input| {
        let value = Value::from(input);
        let _ = (
            parse_bool(&value),
            parse_int(&value),
            python_str(&json!([input, {input: 0.1}])),
        );
        let mut read = false;
        for unit in ["B", "kB", "8kB", "MB", "16MB", "ms", "s", "min", input] {
            if let Some(number) = parse_int_in(&value, Some(unit)) {
                read = true;
                // What is printed means the same, as far as a printed number is exact.
                if number.unsigned_abs() < 1 << 40 {
                    let printed = Value::from(format_integer(number, unit));
                    assert_eq!(
                        parse_int_in(&printed, Some(unit)),
                        Some(number),
                        "{printed} in {unit}"
                    );
                }
            }
            if let Some(number) = parse_real_in(&value, Some(unit)) {
                let _ = format_real(number, unit);
            }
        }
        read
    });
}

/// Variables: a line each.
#[test]
#[ignore = "long: make fuzz"]
fn environment() {
    let samples = [
        "PATRONI_NAME=a\nPATRONI_ETCD3_HOSTS=a:1,b:2\nPATRONI_LOG_MODE=0644\nPATRONI_LOG_FORMAT=%(message)s",
        "PATRONI_KUBERNETES_LABELS=a: b, c: d\nPATRONI_KUBERNETES_PORTS=[{port: 1, name: x}]\nPATRONI_CTL_INSECURE=on",
        "PATRONI_CONFIGURATION={scope: x}\nPATRONI_RAFT_MIN_TIMEOUT=0.5\nPATRONI_POSTGRESQL_BIN_PG_CTL=x\nPATRONI__HOST=x",
    ];
    primacy_fuzz::text(&samples, |input| {
        let variables = input.lines().filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        let environment = from_environment(variables);
        let tree = primacy_config::layers::load(None::<PathBuf>.as_deref(), &environment);
        tree.is_ok() && !environment.tree.is_empty()
    });
}
