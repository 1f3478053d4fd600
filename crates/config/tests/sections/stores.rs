use std::fmt::Debug;

use primacy_config::local::{LocalConfig, RaftSection, RaftTimings};
use primacy_config::{DcsSection, Effective, Map, TimingLimits, WitnessConfig};
use serde_json::{Value, json};

use crate::{show, walk};

#[test]
fn etcd_2_6() {
    let read = |section: Value| {
        let mut tree = json!({
            "scope": "demo", "name": "pg1", "restapi": {"listen": "127.0.0.1:8008"},
            "postgresql": {"listen": "127.0.0.1", "data_dir": "/data", "authentication": {}},
        });
        tree["etcd3"] = section.clone();
        let effective = Effective::build(&tree, &Map::new(), TimingLimits::PATRONI);
        let DcsSection::Etcd3(etcd) = effective
            .unwrap_or_else(|e| panic!("{section}: {e}"))
            .local
            .dcs
        else {
            panic!("{section}")
        };
        etcd
    };
    for (section, endpoints, tls, fixed) in [
        (json!({"host": "a"}), "a:2379", false, false),
        (json!({"host": "a:1", "port": 5}), "a:1", false, false),
        (
            json!({"hosts": "a, b:2", "port": 5}),
            "a:5 b:2",
            false,
            false,
        ),
        (
            json!({"hosts": ["a:1", "[::1]:2"]}),
            "a:1 [::1]:2",
            false,
            false,
        ),
        (json!({"hosts": ["a:1"], "host": "b"}), "a:1", false, false),
        (
            json!({"host": "a", "protocol": "HTTPS"}),
            "a:2379",
            true,
            false,
        ),
        (
            json!({"url": "https://a:3/x", "hosts": "b"}),
            "a:3",
            true,
            false,
        ),
        (
            json!({"proxy": "http://a", "url": "https://b", "hosts": "c"}),
            "a:2379",
            false,
            true,
        ),
        (
            json!({"host": "a", "use_proxies": "on"}),
            "a:2379",
            false,
            true,
        ),
        (json!({"srv": "example.com"}), "", false, false),
    ] {
        let etcd = read(section.clone());
        let given: Vec<_> = etcd.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(
            (given.join(" ").as_str(), etcd.tls, etcd.use_proxies),
            (endpoints, tls, fixed),
            "{section}"
        );
    }
    let whole = read(json!({
        "host": "a", "username": "u", "password": "p", "cacert": "1", "cert": "2", "key": "3", "srv_suffix": "s",
    }));
    let texts = [
        whole.username,
        whole.cacert,
        whole.cert,
        whole.key,
        whole.srv_suffix,
    ];
    assert_eq!(texts.map(Option::unwrap_or_default).join(" "), "u 1 2 3 s");
    assert_eq!(whole.password.unwrap().expose(), "p");
    for alias in ["srv", "discovery_srv", "srv_domain"] {
        assert_eq!(
            read(json!({ alias: "d" })).srv.as_deref(),
            Some("d"),
            "{alias}"
        );
    }
}

#[test]
fn raft_2_10() {
    fn read<T: Debug>(c: &LocalConfig, part: fn(&RaftSection) -> T) -> String {
        match &c.dcs {
            DcsSection::Raft(raft) => show(part(raft)),
            other => other.name().to_owned(),
        }
    }
    let text = |c: &LocalConfig| read(c, |r| r.bind_addr.as_ref().map(ToString::to_string));
    walk(&[
        (
            "raft.self_addr",
            |c| read(c, |r| r.self_addr.as_ref().map(ToString::to_string)),
            r#"Some("127.0.0.1:2222")"#,
            json!("a:1"),
            r#"Some("a:1")"#,
        ),
        (
            "raft.bind_addr",
            text,
            r#"Some("127.0.0.1:2222")"#,
            json!("0.0.0.0:1"),
            r#"Some("0.0.0.0:1")"#,
        ),
        (
            "raft.partner_addrs",
            |c| read(c, |r| r.partner_addrs.len()),
            "0",
            json!(["a:1", "b:2"]),
            "2",
        ),
        (
            "raft.data_dir",
            |c| read(c, |r| r.data_dir.clone()),
            r#"".""#,
            json!("/r"),
            r#""/r""#,
        ),
        (
            "raft.password",
            |c| read(c, |r| r.password.is_some()),
            "false",
            json!("x"),
            "true",
        ),
    ]);
}

/// What is given is used, by agents, witness and commands alike; what is not has our own defaults.
#[test]
fn raft_timings_2_10() {
    let read = |raft: Value| {
        let raft = WitnessConfig::from_local(json!({ "raft": raft }))
            .map_err(|error| error.to_string())?
            .raft;
        let RaftTimings {
            append_entries_period,
            min_timeout,
            max_timeout,
            connection_timeout,
        } = raft.timings;
        let all = [
            append_entries_period,
            min_timeout,
            max_timeout,
            connection_timeout,
        ];
        Ok::<_, String>(all.map(|timing| timing.as_millis()))
    };
    for (given, expected) in [
        (json!({}), [100, 500, 1000, 3500]),
        (
            json!({"append_entries_period": 0.05}),
            [50, 500, 1000, 3500],
        ),
        (json!({"connection_timeout": "5"}), [100, 500, 1000, 5000]),
        // Patroni's own defaults, written out.
        (
            json!({"append_entries_period": 0.1, "min_timeout": 0.4, "max_timeout": 1.4,
                "connection_timeout": 3.5, "connection_retry_time": 5, "leader_fallback_timeout": 30}),
            [100, 400, 1400, 3500],
        ),
        // The other one of the pair gives way to the one that is given.
        (json!({"min_timeout": 0.4}), [100, 400, 1000, 3500]),
        (json!({"min_timeout": 1.2}), [100, 1200, 2400, 3500]),
        (json!({"max_timeout": 2}), [100, 500, 2000, 3500]),
        (json!({"max_timeout": 0.5}), [100, 400, 500, 3500]),
        // Without effect.
        (json!({"connection_retry_time": 0}), [100, 500, 1000, 3500]),
        (
            json!({"leader_fallback_timeout": 9}),
            [100, 500, 1000, 3500],
        ),
    ] {
        let mut section = json!({"self_addr": "a:1"});
        let object = section.as_object_mut().unwrap();
        object.extend(given.as_object().cloned().unwrap());
        assert_eq!(read(section), Ok(expected), "{given}");
    }
    for (given, expected) in [
        (
            json!({"append_entries_period": 0}),
            "raft.append_entries_period is 0ns: expected at least 1ms",
        ),
        (
            json!({"min_timeout": 0.3}),
            "raft.min_timeout is 300ms: expected more than three times append_entries_period, which is 100ms",
        ),
        (
            json!({"min_timeout": 2, "max_timeout": 2}),
            "raft.max_timeout is 2s: expected more than min_timeout, which is 2s",
        ),
        (
            json!({"max_timeout": 4}),
            "raft.connection_timeout is 3.5s: expected at least max_timeout, which is 4s",
        ),
        (
            json!({"leader_fallback_timeout": 0.1}),
            "raft.leader_fallback_timeout is 100ms: expected more than append_entries_period, which is 100ms",
        ),
        (
            json!({"max_timeout": -1}),
            "raft.max_timeout is -1: expected seconds, not below 0",
        ),
        (
            json!({"connection_retry_time": "soon"}),
            "raft.connection_retry_time is \"soon\": expected a number",
        ),
        // Nothing overflows.
        (
            json!({"append_entries_period": 1e19}),
            "raft.min_timeout is 500ms: expected more than three times append_entries_period, \
             which is 10000000000000000000s",
        ),
    ] {
        let mut section = json!({"self_addr": "a:1"});
        let object = section.as_object_mut().unwrap();
        object.extend(given.as_object().cloned().unwrap());
        assert_eq!(read(section), Err(expected.to_owned()), "{given}");
    }
}
