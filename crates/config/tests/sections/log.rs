use serde_json::json;

use crate::{show, walk};

#[test]
fn log_2_2() {
    walk(&[
        (
            "log.type",
            |c| show(c.log.kind),
            "Plain",
            json!("json"),
            "Json",
        ),
        (
            "log.type",
            |c| show(c.log.kind),
            "Plain",
            json!("JSON"),
            "Plain",
        ),
        (
            "log.level",
            |c| c.log.level.clone(),
            "INFO",
            json!("FATAL"),
            "FATAL",
        ),
        (
            "log.traceback_level",
            |c| show(c.log.traceback_debug),
            "false",
            json!("debug"),
            "true",
        ),
        (
            "log.traceback_level",
            |c| show(c.log.traceback_debug),
            "false",
            json!("x"),
            "false",
        ),
        (
            "log.format",
            |c| show(&c.log.format),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
            json!("%(message)s"),
            r#"Text("%(message)s")"#,
        ),
        (
            "log",
            |c| show(&c.log.format),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
            json!({"type": "json", "format": ["message", {"levelname": "level"}]}),
            r#"Fields([("message", "message"), ("levelname", "level")])"#,
        ),
        (
            "log.format",
            |c| show(&c.log.format),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
            json!(["message"]),
            r#"Text("%(asctime)s %(levelname)s: %(message)s")"#,
        ),
        (
            "log.dateformat",
            |c| show(&c.log.dateformat),
            "None",
            json!("%s"),
            r#"Some("%s")"#,
        ),
        (
            "log.dateformat",
            |c| show(&c.log.dateformat),
            "None",
            json!(""),
            "None",
        ),
        (
            "log.static_fields",
            |c| show(&c.log.static_fields),
            "{}",
            json!({"a": 1}),
            r#"{"a": Number(1)}"#,
        ),
        (
            "log.max_queue_size",
            |c| show(c.log.max_queue_size),
            "1000",
            json!(5),
            "5",
        ),
        (
            "log.dir",
            |c| show(&c.log.dir),
            "None",
            json!("/l"),
            r#"Some("/l")"#,
        ),
        (
            "log.mode",
            |c| show(c.log.mode),
            "None",
            json!("0640"),
            "Some(416)",
        ),
        (
            "log.mode",
            |c| show(c.log.mode),
            "None",
            json!(0o640),
            "Some(416)",
        ),
        ("log.file_num", |c| show(c.log.file_num), "4", json!(0), "0"),
        (
            "log.file_size",
            |c| show(c.log.file_size),
            "25000000",
            json!("9"),
            "9",
        ),
        (
            "log.loggers",
            |c| show(&c.log.loggers),
            "{}",
            json!({"patroni": "DEBUG"}),
            r#"{"patroni": "DEBUG"}"#,
        ),
        (
            "log.deduplicate_heartbeat_logs",
            |c| show(c.log.deduplicate_heartbeat_logs),
            "false",
            json!("on"),
            "true",
        ),
    ]);
}
