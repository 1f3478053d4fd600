use primacy_config::local::LocalConfig;
use serde_json::json;

use crate::{show, walk};

#[test]
fn restapi_2_14_and_ctl_2_15() {
    let verify = |c: &LocalConfig| show(c.restapi.verify_client);
    let tokens = |c: &LocalConfig| show(c.restapi.server_tokens);
    walk(&[
        (
            "restapi.listen",
            |c| c.restapi.listen.to_string(),
            "127.0.0.1:8008",
            json!("*:1"),
            "*:1",
        ),
        (
            "restapi.listen",
            |c| c.restapi.connect_address.to_string(),
            "127.0.0.1:8008",
            json!("a:1"),
            "a:1",
        ),
        (
            "restapi.connect_address",
            |c| c.restapi.connect_address.to_string(),
            "127.0.0.1:8008",
            json!("b:2"),
            "b:2",
        ),
        (
            "restapi.connect_address",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("[fd00::1]:8009"),
            "http://[fd00::1]:8009/patroni",
        ),
        // Behind a proxy, at the protocol's own port.
        (
            "restapi.connect_address",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("db.example"),
            "http://db.example/patroni",
        ),
        (
            "restapi.connect_address",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("fd00::1:0"),
            "http://[fd00::1]/patroni",
        ),
        (
            "restapi.certfile",
            |c| c.restapi.api_url(),
            "http://127.0.0.1:8008/patroni",
            json!("c.pem"),
            "https://127.0.0.1:8008/patroni",
        ),
        (
            "restapi.authentication",
            |c| {
                show(
                    c.restapi
                        .authentication
                        .as_ref()
                        .map(|a| a.username.clone()),
                )
            },
            "None",
            json!({"username": "u", "password": "p"}),
            r#"Some("u")"#,
        ),
        (
            "restapi.certfile",
            |c| show(&c.restapi.certfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.keyfile",
            |c| show(&c.restapi.keyfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.keyfile_password",
            |c| show(c.restapi.keyfile_password.is_some()),
            "false",
            json!("x"),
            "true",
        ),
        (
            "restapi.cafile",
            |c| show(&c.restapi.cafile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.cafile",
            |c| show(&c.ctl.cacert),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.ciphers",
            |c| show(&c.restapi.ciphers),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "restapi.verify_client",
            verify,
            "None",
            json!("Optional"),
            "Optional",
        ),
        (
            "restapi.verify_client",
            verify,
            "None",
            json!("REQUIRED"),
            "Required",
        ),
        (
            "restapi.verify_client",
            verify,
            "None",
            json!("none"),
            "None",
        ),
        (
            "restapi.allowlist",
            |c| show(&c.restapi.allowlist),
            "[]",
            json!(["10.0.0.0/8", "h"]),
            r#"["10.0.0.0/8", "h"]"#,
        ),
        (
            "restapi.allowlist_include_members",
            |c| show(c.restapi.allowlist_include_members),
            "false",
            json!(true),
            "true",
        ),
        (
            "restapi.http_extra_headers",
            |c| show(&c.restapi.http_extra_headers),
            "{}",
            json!({"a": 1}),
            r#"{"a": "1"}"#,
        ),
        (
            "restapi.https_extra_headers",
            |c| show(&c.restapi.https_extra_headers),
            "{}",
            json!({"a": 1}),
            r#"{"a": "1"}"#,
        ),
        (
            "restapi.request_queue_size",
            |c| show(c.restapi.request_queue_size),
            "128",
            json!(5),
            "5",
        ),
        (
            "restapi.server_tokens",
            tokens,
            "Original",
            json!("Minimal"),
            "Minimal",
        ),
        (
            "restapi.server_tokens",
            tokens,
            "Original",
            json!("PRODUCTONLY"),
            "ProductOnly",
        ),
        (
            "restapi.server_tokens",
            tokens,
            "Original",
            json!("x"),
            "Original",
        ),
        (
            "restapi.thread_pool_size",
            |c| c.scope.clone(),
            "demo",
            json!("many"),
            "demo",
        ),
        (
            "ctl.authentication",
            |c| show(c.ctl.authentication.as_ref().map(|a| a.username.clone())),
            "None",
            json!({"username": "u", "password": "p"}),
            r#"Some("u")"#,
        ),
        (
            "ctl.insecure",
            |c| show(c.ctl.insecure),
            "false",
            json!("yes"),
            "true",
        ),
        (
            "ctl.cacert",
            |c| show(&c.ctl.cacert),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "ctl.certfile",
            |c| show(&c.ctl.certfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "ctl.keyfile",
            |c| show(&c.ctl.keyfile),
            "None",
            json!("x"),
            r#"Some("x")"#,
        ),
        (
            "ctl.keyfile_password",
            |c| show(c.ctl.keyfile_password.is_some()),
            "false",
            json!("x"),
            "true",
        ),
    ]);
}
