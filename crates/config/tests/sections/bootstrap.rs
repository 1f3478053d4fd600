use std::fmt::Debug;

use primacy_config::local::LocalConfig;
use serde_json::json;

use crate::{show, walk};

#[test]
fn bootstrap_2_3() {
    fn read<T: Debug>(c: &LocalConfig, part: fn(&primacy_config::local::Bootstrap) -> T) -> String {
        c.bootstrap
            .as_ref()
            .map_or("no".to_owned(), |bootstrap| show(part(bootstrap)))
    }
    let method = json!({
        "method": "m",
        "m": {
            "command": "c d", "no_params": true, "keep_existing_recovery_conf": 1, "recovery_conf": {"a": "b"},
            "scope": "x", "datadir": "y", "stanza": "main", "fast": true,
        },
    });
    walk(&[
        (
            "bootstrap",
            |c| show(c.bootstrap.is_some()),
            "false",
            json!({}),
            "false",
        ),
        (
            "bootstrap.dcs",
            |c| read(c, |b| b.dcs.len()),
            "no",
            json!({"ttl": 5}),
            "1",
        ),
        (
            "bootstrap.initdb",
            |c| {
                read(c, |b| {
                    b.initdb
                        .options
                        .iter()
                        .map(|o| o.argument())
                        .collect::<Vec<_>>()
                })
            },
            "no",
            json!(["data-checksums", {"encoding": "UTF8"}]),
            r#"["--data-checksums", "--encoding=UTF8"]"#,
        ),
        (
            "bootstrap.initdb",
            |c| read(c, |b| b.initdb.problems.len()),
            "no",
            json!(["pgdata", "x"]),
            "1",
        ),
        (
            "bootstrap.post_bootstrap",
            |c| read(c, |b| b.post_bootstrap.clone()),
            "no",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "bootstrap.post_init",
            |c| read(c, |b| b.post_bootstrap.clone()),
            "no",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.post_bootstrap.clone()),
            "no",
            json!({"post_init": "old", "post_bootstrap": "new"}),
            r#"Some("new")"#,
        ),
        (
            "bootstrap.pg_hba",
            |c| read(c, |b| b.pg_hba.clone()),
            "no",
            json!(["a", 5]),
            r#"["a"]"#,
        ),
        (
            "bootstrap.method",
            |c| read(c, |b| b.method.is_some()),
            "no",
            json!("gone"),
            "false",
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.is_some()),
            "no",
            json!({"method": "m", "m": {"fast": 1}}),
            "false",
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.clone().map(|m| m.command)),
            "no",
            method.clone(),
            r#"Some("c d")"#,
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.as_ref().map(|m| m.no_params)),
            "no",
            method.clone(),
            "Some(true)",
        ),
        (
            "bootstrap",
            |c| {
                read(c, |b| {
                    b.method.as_ref().map(|m| m.keep_existing_recovery_conf)
                })
            },
            "no",
            method.clone(),
            "Some(true)",
        ),
        (
            "bootstrap",
            |c| {
                read(c, |b| {
                    b.method.as_ref().is_some_and(|m| m.recovery_conf.is_some())
                })
            },
            "no",
            method.clone(),
            "true",
        ),
        (
            "bootstrap",
            |c| read(c, |b| b.method.clone().map(|m| m.arguments)),
            "no",
            method,
            r#"Some([("stanza", "main"), ("fast", "True")])"#,
        ),
    ]);
}
