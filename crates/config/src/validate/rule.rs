use serde_json::Value;

use super::{Options, address, files};
use crate::scalar::{parse_bool, parse_int_in, parse_real, python_str};

/// What a value must be.
pub(super) enum Rule {
    Text,
    /// A true boolean, not text that means one.
    Bool,
    Dict,
    /// Anything of an integer type; booleans pass.
    Integer,
    /// An integer type within the range.
    IntegerIn(i64, i64),
    /// Anything that reads as an integer, also text with the unit, within the range.
    Number(i64, i64, Option<&'static str>),
    /// A number; zero only if so told.
    Positive {
        or_zero: bool,
    },
    /// One of the words, in just this case.
    Word(&'static [&'static str]),
    /// One of the words in any case.
    AnyCase(&'static [&'static str]),
    /// A list of at least one.
    List(&'static Rule),
    /// One of several; the worst kind of failure is told.
    Either(&'static [Rule]),
    /// Text that the function finds right.
    Check(fn(&str, Options) -> Result<(), String>),
    /// As [`Rule::Check`], but what is no text fails as text would.
    CheckAny(fn(&str, Options) -> Result<(), String>),
    /// A list, possibly empty, of what the function finds right; told as a whole.
    CheckAll(fn(&str, Options) -> Result<(), String>),
    /// Text with commas between what the function finds right.
    CheckEach(fn(&str, Options) -> Result<(), String>),
    /// Boolean in any writing, or `quorum`.
    SynchronousMode,
    WatchdogMode,
    LogFormat,
    /// Divisible by so much, and not below it.
    StackSize,
}

/// One thing wrong with a value.
pub(super) struct Fault {
    /// The rest of the path, for an item of a list: `.0`.
    pub(super) below: String,
    /// The value as it is told.
    pub(super) shown: String,
    pub(super) text: String,
    /// Of the wrong type, which a failed rule outweighs.
    is_type: bool,
}

pub(super) fn check(value: &Value, rule: &Rule, options: Options) -> Vec<Fault> {
    let fault = |text: String, is_type| {
        vec![Fault {
            below: String::new(),
            shown: python_str(value),
            text,
            is_type,
        }]
    };
    let typed = |right: bool, name: &str| {
        if right {
            Vec::new()
        } else {
            fault(format!("is not {name}"), true)
        }
    };
    let ruled = |result: Result<(), String>| match result {
        Ok(()) => Vec::new(),
        Err(detail) => fault(format!("didn't pass validation: {detail}"), false),
    };
    let wrong = |right: bool| {
        ruled(if right {
            Ok(())
        } else {
            Err("Wrong value".into())
        })
    };
    let is_integer = value.is_i64() || value.is_u64() || value.is_boolean();
    let integer = value.as_i64().unwrap_or(i64::MAX);
    match rule {
        Rule::Text => typed(value.is_string(), "a string"),
        Rule::Bool => typed(value.is_boolean(), "a boolean"),
        Rule::Dict => typed(value.is_object(), "a dictionary"),
        Rule::Integer => typed(is_integer, "an integer"),
        Rule::IntegerIn(..) | Rule::StackSize if !is_integer => typed(false, "an integer"),
        // A boolean is of an integer type and yet no number.
        Rule::IntegerIn(..) | Rule::StackSize if value.is_boolean() => wrong(false),
        Rule::IntegerIn(min, max) => wrong((*min..=*max).contains(&integer)),
        Rule::StackSize => wrong(integer >= 65_536 && integer % 65_536 == 0),
        Rule::Number(min, max, unit) => {
            wrong(parse_int_in(value, *unit).is_some_and(|number| (*min..=*max).contains(&number)))
        }
        Rule::Positive { or_zero } => wrong(
            parse_real(value).is_some_and(|number| number > 0.0 || (*or_zero && number == 0.0)),
        ),
        Rule::Check(_) | Rule::CheckEach(_) if !value.is_string() => typed(false, "a string"),
        Rule::Word(words) => wrong(words.iter().any(|word| value == *word)),
        Rule::AnyCase(words) => {
            let text = python_str(value);
            wrong(words.iter().any(|word| text.eq_ignore_ascii_case(word)))
        }
        Rule::Check(check) => ruled(check(&python_str(value), options)),
        Rule::CheckAny(check) => ruled(check(&python_str(value), options)),
        Rule::CheckAll(check) => match value.as_array() {
            None => typed(false, "an array"),
            Some(items) => ruled(
                items
                    .iter()
                    .try_for_each(|item| check(&python_str(item), options)),
            ),
        },
        Rule::CheckEach(check) => ruled(
            python_str(value)
                .split(',')
                .try_for_each(|part| check(part.trim(), options)),
        ),
        Rule::List(item) => match value.as_array() {
            None => typed(false, "a list"),
            Some(items) if items.is_empty() => fault("is an empty list".into(), false),
            Some(items) => items
                .iter()
                .enumerate()
                .flat_map(|(index, value)| {
                    check(value, item, options)
                        .into_iter()
                        .map(move |mut fault| {
                            fault.below.insert_str(0, &format!(".{index}"));
                            fault
                        })
                })
                .collect(),
        },
        Rule::Either(rules) => either(value, rules, options),
        Rule::SynchronousMode => {
            let right =
                parse_bool(value).is_some() || python_str(value).eq_ignore_ascii_case("quorum");
            ruled(if right {
                Ok(())
            } else {
                Err("invalid value for synchronous_mode".into())
            })
        }
        Rule::WatchdogMode => match value {
            Value::Bool(false) => Vec::new(),
            Value::Bool(true) => wrong(false),
            Value::String(mode) => wrong(["off", "automatic", "required"].contains(&mode.as_str())),
            _ => ruled(Err("expected type is not a string".into())),
        },
        Rule::LogFormat => ruled(log_format(value)),
    }
}

fn either(value: &Value, rules: &[Rule], options: Options) -> Vec<Fault> {
    let mut faults = Vec::new();
    for rule in rules {
        let found = check(value, rule, options);
        if found.is_empty() {
            return found;
        }
        faults.extend(found);
    }
    if faults.iter().any(|fault| !fault.is_type) {
        faults.retain(|fault| !fault.is_type);
    }
    faults
}

fn log_format(value: &Value) -> Result<(), String> {
    let items = match value {
        Value::String(_) => return Ok(()),
        Value::Array(items) => items,
        _ => return Err("Should be a string or a list".into()),
    };
    if items.is_empty() {
        return Err("should contain at least one item".into());
    }
    let right = |item: &Value| match item {
        Value::String(_) => true,
        Value::Object(map) => map.len() == 1 && map.values().all(Value::is_string),
        _ => false,
    };
    if items.iter().all(right) {
        Ok(())
    } else {
        Err("each item should be a string or a dictionary with string values".into())
    }
}

/// Values with a unit of time, from zero on.
pub(super) const SECONDS: Rule = Rule::Number(0, i64::MAX, Some("s"));
pub(super) const NATURAL: Rule = Rule::Number(0, i64::MAX, None);
pub(super) const TEXTS: Rule = Rule::List(&Rule::Text);
pub(super) const TEXTS_OR_DICTS: Rule = Rule::List(&Rule::Either(&[Rule::Text, Rule::Dict]));
pub(super) const PORT: Rule = Rule::IntegerIn(0, 65_535);
/// Where to listen.
pub(super) const LISTEN: Rule = Rule::Check(address::listen);
/// Where PostgreSQL listens: several hosts.
pub(super) const LISTEN_LIST: Rule = Rule::Check(address::listen_list);
/// What others connect to.
pub(super) const PUBLIC: Rule = Rule::Check(address::public);
/// What this host connects to.
pub(super) const REACHABLE: Rule = Rule::Check(address::reachable);
/// One or several of those.
pub(super) const REACHABLE_LIST: Rule =
    Rule::Either(&[Rule::CheckEach(address::reachable), Rule::List(&REACHABLE)]);
/// Several, or none.
pub(super) const ALL_REACHABLE: Rule = Rule::CheckAll(address::reachable);
pub(super) const IP_ADDRESS: Rule =
    Rule::Either(&[Rule::CheckAny(address::ipv4), Rule::CheckAny(address::ipv6)]);
pub(super) const NAME: Rule = Rule::Check(files::member_name);
