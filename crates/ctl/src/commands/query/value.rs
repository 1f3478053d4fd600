//! What a server sends as text, as the value that Patroni's command shows: it goes through Python's types.

use serde_json::{Number, Value};
use tokio_postgres::types::{Kind, Type};

/// A value of a row.
pub(super) fn cell(kind: &Type, text: Option<&str>) -> Value {
    let Some(text) = text else {
        return Value::Null;
    };
    if let Kind::Array(element) = kind.kind()
        && is_read(element)
        && let Some(value) = array(element, text)
    {
        return value;
    }
    scalar(kind, text).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Arrays of other types stay text.
fn is_read(element: &Type) -> bool {
    let texts = [
        Type::CHAR,
        Type::NAME,
        Type::TEXT,
        Type::BPCHAR,
        Type::VARCHAR,
        Type::CIDR,
        Type::INET,
        Type::MACADDR,
    ];
    let others = [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::OID,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::NUMERIC,
        Type::DATE,
        Type::TIME,
        Type::TIMETZ,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::INTERVAL,
        Type::JSON,
        Type::JSONB,
    ];
    texts.contains(element) || others.contains(element)
}

/// `None`: text.
fn scalar(kind: &Type, text: &str) -> Option<Value> {
    Some(match *kind {
        Type::BOOL => Value::Bool(text == "t"),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Value::from(text.parse::<i64>().ok()?),
        Type::FLOAT4 | Type::FLOAT8 => match text {
            // JSON has no numbers for these.
            "Infinity" => Value::from("inf"),
            "-Infinity" => Value::from("-inf"),
            "NaN" => Value::from("nan"),
            number => Value::Number(Number::from_f64(number.parse().ok()?)?),
        },
        Type::JSON | Type::JSONB => serde_json::from_str(text).ok()?,
        Type::TIME | Type::TIMETZ | Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            Value::String(time(text)?)
        }
        Type::INTERVAL => Value::String(interval(text)?),
        // Text keeps every digit.
        _ => return None,
    })
}

/// A fraction has six digits, an offset has minutes.
fn time(text: &str) -> Option<String> {
    let clock = text.find(':')?;
    let (body, offset) = match text[clock..].find(['+', '-']) {
        Some(at) => text.split_at(clock + at),
        None => (text, ""),
    };
    let body = match body.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<6}"),
        None => body.to_owned(),
    };
    let minutes = if offset.is_empty() || offset.contains(':') {
        ""
    } else {
        ":00"
    };
    Some(format!("{body}{offset}{minutes}"))
}

/// `1 day, 2:03:04.500000`: days and a time of day that is not negative. A month has 30 days, a year 365.
fn interval(text: &str) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    let (mut days, mut microseconds) = (0_i64, 0_i64);
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            microseconds = clock(word)?;
            continue;
        }
        let count: i64 = word.parse().ok()?;
        let length = match words.next()?.trim_end_matches('s') {
            "year" => 365,
            "mon" => 30,
            "day" => 1,
            _ => return None,
        };
        days = days.checked_add(count.checked_mul(length)?)?;
    }
    days = days.checked_add(microseconds.div_euclid(DAY))?;
    let rest = microseconds.rem_euclid(DAY);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let mut shown = match days {
        0 => String::new(),
        1 | -1 => format!("{days} day, "),
        _ => format!("{days} days, "),
    };
    shown += &format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if fraction != 0 {
        shown += &format!(".{fraction:06}");
    }
    Some(shown)
}

/// Microseconds of `[-]HH:MM:SS[.f]`.
fn clock(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.trim_start_matches('+')),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut total: i64 = 0;
    for part in whole.split(':') {
        total = total.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    total
        .checked_mul(1_000_000)?
        .checked_add(fraction)?
        .checked_mul(sign)
}

/// How deep arrays go in a server; ours are read by recursion.
const MAX_DEPTH: usize = 6;

/// `{1,NULL,"a b"}`, and arrays of arrays. `None`: something else, such as one with bounds.
fn array(element: &Type, text: &str) -> Option<Value> {
    let mut rest = text;
    let value = items(element, &mut rest, MAX_DEPTH)?;
    rest.is_empty().then_some(value)
}

fn items(element: &Type, rest: &mut &str, depth: usize) -> Option<Value> {
    *rest = rest.strip_prefix('{')?;
    let mut found = Vec::new();
    if let Some(after) = rest.strip_prefix('}') {
        *rest = after;
        return Some(Value::Array(found));
    }
    loop {
        found.push(if rest.starts_with('{') {
            items(element, rest, depth.checked_sub(1)?)?
        } else {
            let (text, quoted) = item(rest)?;
            let text = (quoted || text != "NULL").then_some(text);
            cell(element, text.as_deref())
        });
        if let Some(after) = rest.strip_prefix(',') {
            *rest = after;
        } else {
            *rest = rest.strip_prefix('}')?;
            return Some(Value::Array(found));
        }
    }
}

/// One element, and whether it stood in quotes.
fn item(rest: &mut &str) -> Option<(String, bool)> {
    let Some(inside) = rest.strip_prefix('"') else {
        let end = rest.find([',', '}'])?;
        let (text, after) = rest.split_at(end);
        *rest = after;
        return Some((text.to_owned(), false));
    };
    let mut text = String::new();
    let mut characters = inside.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => {
                *rest = &inside[at + 1..];
                return Some((text, true));
            }
            (_, '\\') => text.push(characters.next()?.1),
            (_, character) => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use primacy_config::scalar::python_str;
    use proptest::prelude::*;

    /// What Patroni's command prints for the same.
    #[test]
    fn values_are_shown_as_python_does() {
        for (kind, text, shown) in [
            (Type::BOOL, "t", "True"),
            (Type::BOOL, "f", "False"),
            (Type::INT8, "-12", "-12"),
            (Type::FLOAT8, "1e+16", "1e+16"),
            (Type::FLOAT8, "100", "100.0"),
            (Type::FLOAT8, "1e-07", "1e-07"),
            (Type::FLOAT8, "Infinity", "inf"),
            (Type::NUMERIC, "1.50", "1.50"),
            (Type::TEXT, "x", "x"),
            (Type::DATE, "2040-01-01", "2040-01-01"),
            (
                Type::TIMESTAMPTZ,
                "2040-01-01 10:00:00+00",
                "2040-01-01 10:00:00+00:00",
            ),
            (
                Type::TIMESTAMPTZ,
                "2040-01-01 10:00:00.5-05:30",
                "2040-01-01 10:00:00.500000-05:30",
            ),
            (
                Type::TIMESTAMP,
                "2040-01-01 10:00:00.5",
                "2040-01-01 10:00:00.500000",
            ),
            (Type::TIMESTAMP, "infinity", "infinity"),
            (Type::TIMETZ, "12:34:56.789+02", "12:34:56.789000+02:00"),
            (Type::INTERVAL, "1 day 02:03:04.5", "1 day, 2:03:04.500000"),
            (Type::INTERVAL, "-1 days", "-1 day, 0:00:00"),
            (Type::INTERVAL, "-00:00:01", "-1 day, 23:59:59"),
            (Type::INTERVAL, "1 year 2 mons -3 days", "422 days, 0:00:00"),
            (Type::INTERVAL, "00:00:00", "0:00:00"),
            (Type::INT4_ARRAY, "{1,2}", "[1, 2]"),
            (Type::INT4_ARRAY, "{}", "[]"),
            (Type::INT4_ARRAY, "{{1,2},{3,4}}", "[[1, 2], [3, 4]]"),
            (Type::INT4_ARRAY, "[0:1]={1,2}", "[0:1]={1,2}"),
            (
                Type::TEXT_ARRAY,
                r#"{a,"b c","d\"e",NULL,"NULL"}"#,
                r#"['a', 'b c', 'd"e', None, 'NULL']"#,
            ),
            (Type::BOOL_ARRAY, "{NULL,t}", "[None, True]"),
            (
                Type::UUID_ARRAY,
                "{00000000-0000-0000-0000-000000000001}",
                "{00000000-0000-0000-0000-000000000001}",
            ),
            (Type::JSONB, r#"{"a": [1, null]}"#, "{'a': [1, None]}"),
        ] {
            assert_eq!(python_str(&cell(&kind, Some(text))), shown, "{kind} {text}");
        }
        assert_eq!(cell(&Type::INT4, None), Value::Null);
    }

    proptest! {
        #[test]
        fn any_text_is_shown(text: String) {
            for kind in [Type::BOOL, Type::INT4, Type::FLOAT8, Type::TIMETZ, Type::INTERVAL, Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::JSONB] {
                let _ = cell(&kind, Some(&text));
            }
        }

        #[test]
        fn arrays_of_text_are_read_back(texts: Vec<String>) {
            let quoted: Vec<String> = texts.iter().map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            let array = cell(&Type::TEXT_ARRAY, Some(&format!("{{{}}}", quoted.join(","))));
            prop_assert_eq!(array, serde_json::json!(texts));
        }
    }
}

/// What a server sends, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::render::{Format, write_result};

    /// A type by its place in the list, then a value of it.
    #[test]
    #[ignore = "long: make fuzz"]
    fn values() {
        let types = [
            Type::TEXT,
            Type::INT8,
            Type::FLOAT8,
            Type::JSONB,
            Type::TIMESTAMPTZ,
            Type::INTERVAL,
            Type::TEXT_ARRAY,
            Type::FLOAT8_ARRAY,
            Type::INTERVAL_ARRAY,
            Type::JSON_ARRAY,
        ];
        let samples = [
            "0it's \u{1f418}",
            "1-9223372036854775808",
            "21e-7",
            "3{\"a\": [1, null, {}]}",
            "42026-01-01 10:00:00.5+05:30",
            "51 year 2 mons -3 days -04:05:06.789",
            "6{a,NULL,\"b \\\"c\\\"\",{}}",
            "7{{1,2},{3,NaN}}",
            "8{\"1 day\",-00:00:01}",
            "9{\"{\\\"a\\\": 1}\"}",
        ];
        primacy_fuzz::text(&samples, |input| {
            let kind = input.chars().next().and_then(|digit| digit.to_digit(10));
            let Some(kind) = kind.and_then(|digit| types.get(digit as usize)) else {
                return false;
            };
            let value = cell(kind, Some(&input[1..]));
            let (columns, rows) = ([input.to_owned()], [vec![value]]);
            let drawn = |format| write_result(Some(&columns), &rows, format, "\t");
            let (_, _) = (drawn(Format::Pretty), drawn(Format::Tsv));
            let read: Vec<serde_json::Map<String, Value>> =
                serde_json::from_str(&drawn(Format::Json)).expect("JSON");
            assert_eq!(read[0][input], rows[0][0]);
            assert!(primacy_config::yaml::parse("x", &drawn(Format::Yaml)).is_ok());
            !rows[0][0].is_string()
        });
    }
}
