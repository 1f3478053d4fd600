//! Reading and writing YAML against what PyYAML 6 reads and writes. The golden files hold its results:
//! `[text, value]`, or `[text]` where it refuses; `{value, sorted, kept, flow}`.

use primacy_config::yaml::{self, KeyOrder};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn golden(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("the golden file is JSON")
}

/// Texts that PyYAML refuses and we read, which harms nobody.
const LENIENT: [&str; 1] = ["\ta: 1\n"];

#[test]
fn reads_as_pyyaml_does() {
    for case in golden(include_str!("golden/yaml_read.json")) {
        let text = case[0].as_str().unwrap();
        let read = yaml::parse("test.yml", text);
        match case.get(1) {
            Some(expected) => assert_eq!(read.as_ref(), Ok(expected), "{text:?}"),
            None if LENIENT.contains(&text) => {}
            None => assert!(read.is_err(), "{text:?} was read as {read:?}"),
        }
    }
}

#[test]
fn writes_as_pyyaml_does() {
    for case in golden(include_str!("golden/yaml_write.json")) {
        let value = &case["value"];
        assert_eq!(
            yaml::to_block(value, KeyOrder::Sorted),
            case["sorted"],
            "{value}"
        );
        assert_eq!(
            yaml::to_block(value, KeyOrder::Kept),
            case["kept"],
            "{value}"
        );
        assert_eq!(yaml::to_flow(value), case["flow"], "{value}");
    }
}

#[test]
fn errors_name_the_place() {
    for (text, line, column, part) in [
        ("a: 1\n  b: 2\n", 2, 4, "mapping"),
        ("restapi: {listen: x\nname: y\n", 2, 5, ""),
        ("a: [1, 2\n", 2, 1, ""),
        ("a: 2024-02-30\n", 1, 4, "is no date"),
        ("a: &x [*x]\n", 1, 8, "alias"),
        ("a: !secret x\n", 1, 4, "tag !secret"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("a: b\u{7}\n", 1, 5, "U+0007"),
    ] {
        let error = yaml::parse("/etc/patroni.yml", text).unwrap_err();
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{text:?}: {error}"
        );
        let printed = error.to_string();
        assert!(printed.starts_with(&format!("/etc/patroni.yml, line {line}, column {column}: ")));
        assert!(printed.contains(part), "{printed}");
        assert!(!printed.contains('\n'));
    }
    let error = yaml::parse_bytes("x.yml", b"a: 1\nb: \xff\n").unwrap_err();
    assert_eq!((error.line, error.column), (2, 4));
}

#[test]
fn size_and_nesting_are_bounded() {
    assert!(yaml::parse("x", &"[".repeat(100_000)).is_err());
    assert!(yaml::parse("x", &"- ".repeat(100_000)).is_err());
    assert!(yaml::parse("x", &"a".repeat(yaml::MAX_BYTES + 1)).is_err());
    let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(
        yaml::parse("x", &bomb)
            .unwrap_err()
            .message
            .contains("aliases")
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "[0-9a-fx_:.eE+-]{1,8}",
        "([a-z%']{1,9} ){0,60}[a-z]?",
        proptest::string::string_regex("(?s).{0,10}").unwrap(),
        proptest::sample::select(vec![
            "on", "", "~", "0644", "10:30", "- a", "a: b", "\n", " \n "
        ])
        .prop_map(String::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((text(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back_equal(value in value()) {
        for written in [
            yaml::to_block(&value, KeyOrder::Sorted),
            yaml::to_block(&value, KeyOrder::Kept),
            yaml::to_flow(&value),
        ] {
            prop_assert_eq!(yaml::parse("x", &written), Ok(value.clone()), "{}", written);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,60}", bytes in any::<Vec<u8>>()) {
        let _ = yaml::parse("x", &text);
        let _ = yaml::parse_bytes("x", &bytes);
    }
}
