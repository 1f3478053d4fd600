use serde_json::Value;

use super::text::python_str;
use super::unit::to_base_unit;

/// Reads a boolean (`configuration.md` §0.2): `on true yes 1`, `off false no 0`, any case, nothing shorter.
pub fn parse_bool(value: &Value) -> Option<bool> {
    match python_str(value).to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Reads an integer without a unit: decimal, hexadecimal, octal (a leading zero), or a float, which is
/// rounded half to even. Beyond 64 bits the nearest 64-bit number counts.
pub fn parse_int(value: &Value) -> Option<i64> {
    parse_int_in(value, None)
}

/// Reads an integer that may have a unit, in `base_unit`.
pub fn parse_int_in(value: &Value, base_unit: Option<&str>) -> Option<i64> {
    let text = python_str(value);
    let text = text.trim();
    let (number, rest) = match integer_prefix(text) {
        Some((_, rest)) if rest.starts_with(['.', 'e', 'E']) => float_prefix(text)?,
        Some((number, rest)) if rest.trim().is_empty() => return Some(number),
        Some((number, rest)) => (number as f64, rest),
        None if text.starts_with('.') => float_prefix(text)?,
        None => return None,
    };
    let number = with_unit(number, rest, base_unit)?;
    // Saturates, and there is no NaN among what the grammar accepts.
    Some(number.round_ties_even() as i64)
}

/// Reads a number without a unit.
pub fn parse_real(value: &Value) -> Option<f64> {
    parse_real_in(value, None)
}

/// Reads a number that may have a unit, in `base_unit`.
pub fn parse_real_in(value: &Value, base_unit: Option<&str>) -> Option<f64> {
    let text = python_str(value);
    let (number, rest) = float_prefix(text.trim())?;
    with_unit(number, rest, base_unit)
}

/// Whether two values of a parameter are the same to PostgreSQL, given its `vartype` and `unit` in
/// `pg_settings`. `a` is a number in that unit, `b` may be written with another one.
pub fn same_setting(vartype: &str, unit: Option<&str>, a: &Value, b: &Value) -> bool {
    fn equal<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
        a.is_some() && a == b
    }
    match vartype {
        "bool" => equal(parse_bool(a), parse_bool(b)),
        "integer" => equal(parse_int(a), parse_int_in(b, unit)),
        "real" => equal(parse_real(a), parse_real_in(b, unit)),
        "enum" => python_str(a).to_lowercase() == python_str(b).to_lowercase(),
        _ => python_str(a) == python_str(b),
    }
}

fn with_unit(number: f64, rest: &str, base_unit: Option<&str>) -> Option<f64> {
    match (rest.trim(), base_unit) {
        ("", _) => Some(number),
        (unit, Some(base_unit)) => to_base_unit(number, unit, base_unit),
        (_, None) => None,
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// The integer that the text begins with, and what follows it.
fn integer_prefix(text: &str) -> Option<(i64, &str)> {
    let (negative, unsigned) = sign(text);
    let split = |digits: &str, radix: u32| {
        let end = digits
            .find(|c: char| !c.is_digit(radix))
            .unwrap_or(digits.len());
        (end > 0).then_some(end)
    };
    let hex = unsigned
        .strip_prefix("0x")
        .filter(|digits| split(digits, 16).is_some());
    let (digits, radix) = match hex {
        Some(digits) => (digits, 16),
        None if unsigned.starts_with('0') => (unsigned, 8),
        None => (unsigned, 10),
    };
    let (digits, rest) = digits.split_at(split(digits, radix)?);
    let magnitude = i128::from_str_radix(digits, radix).unwrap_or(i128::MAX);
    let number = if negative { -magnitude } else { magnitude };
    Some((number.clamp(i64::MIN.into(), i64::MAX.into()) as i64, rest))
}

/// The number that the text begins with, and what follows it.
fn float_prefix(text: &str) -> Option<(f64, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (_, unsigned) = sign(text);
    let start = text.len() - unsigned.len();
    let mut end = start + digits(unsigned);
    if let Some(fraction) = text[end..]
        .strip_prefix('.')
        .filter(|rest| digits(rest) > 0)
    {
        end += 1 + digits(fraction);
    } else if end == start {
        return None;
    }
    if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
        let (_, unsigned) = sign(exponent);
        if digits(unsigned) > 0 {
            end += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
        }
    }
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn booleans_have_no_prefixes() {
        for (value, expected) in [
            (json!("on"), Some(true)),
            (json!("YES"), Some(true)),
            (json!(1), Some(true)),
            (json!(true), Some(true)),
            (json!("Off"), Some(false)),
            (json!(0), Some(false)),
            (json!("t"), None),
            (json!(null), None),
            (json!(1.0), None),
        ] {
            assert_eq!(parse_bool(&value), expected, "{value}");
        }
    }

    #[test]
    fn integers() {
        for (value, unit, expected) in [
            (json!("08"), None, None),
            (json!("0x10"), None, Some(16)),
            (json!("0x"), None, None),
            (json!("0644"), None, Some(420)),
            (json!("1.5"), None, Some(2)),
            (json!(2.5), None, Some(2)),
            (json!("3.5"), None, Some(4)),
            (json!(".5"), None, Some(0)),
            (json!("1e3"), None, Some(1000)),
            (json!(" -7 "), None, Some(-7)),
            (json!(true), None, None),
            (json!("40s"), None, None),
            (json!(""), None, None),
            (json!("40s"), Some("ms"), Some(40_000)),
            (json!("1h"), Some("s"), Some(3600)),
            (json!("4097.5kB"), Some("kB"), Some(4098)),
            (json!("1MB"), Some("8kB"), Some(128)),
            (json!("1GB"), Some("256MB"), Some(4)),
            (json!("1 GB"), Some("MB"), Some(1024)),
            (json!("1mb"), Some("MB"), None),
            (json!("5x"), Some("kB"), None),
            (json!("99999999999999999999"), None, Some(i64::MAX)),
        ] {
            assert_eq!(parse_int_in(&value, unit), expected, "{value} in {unit:?}");
        }
    }

    #[test]
    fn reals() {
        for (value, unit, expected) in [
            (json!("1.5"), None, Some(1.5)),
            (json!("4.2ms"), Some("ms"), Some(4.2)),
            (json!("1.5s"), Some("ms"), Some(1500.0)),
            (json!("5."), None, None),
            (json!("-.5e1"), None, Some(-5.0)),
            (json!("x"), None, None),
        ] {
            assert_eq!(parse_real_in(&value, unit), expected, "{value} in {unit:?}");
        }
    }

    #[test]
    fn settings_compare_as_postgresql_means_them() {
        assert!(same_setting(
            "integer",
            Some("8kB"),
            &json!("16384"),
            &json!("128MB")
        ));
        assert!(same_setting("bool", None, &json!("on"), &json!(true)));
        assert!(same_setting(
            "enum",
            None,
            &json!("replica"),
            &json!("REPLICA")
        ));
        assert!(same_setting("real", None, &json!("0.5"), &json!(0.5)));
        assert!(!same_setting("integer", None, &json!("x"), &json!("x")));
        assert!(!same_setting("string", None, &json!("a"), &json!("A")));
    }

    #[test]
    fn printing_from_the_base_unit() {
        use crate::scalar::{format_integer, format_real};
        for (value, unit, text) in [
            (1024, "kB", "1MB"),
            (4, "256MB", "1GB"),
            (16384, "8kB", "128MB"),
            (1025, "kB", "1025kB"),
            (0, "kB", "0"),
            (60, "s", "1min"),
            (90, "s", "90s"),
            (-1, "", "-1"),
        ] {
            assert_eq!(format_integer(value, unit), text);
        }
        assert_eq!(format_real(4.2, "ms"), "4200us");
        assert_eq!(format_real(2.0, "ms"), "2ms");
        assert_eq!(format_real(0.0, "ms"), "0");
    }
}
