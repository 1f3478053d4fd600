//! The value of `synchronous_standby_names`, read and written
//! (<https://www.postgresql.org/docs/current/runtime-config-replication.html>).

use std::collections::BTreeSet;

use primacy_model::MemberName;

/// What strict mode waits for when there is nobody to wait for: no server may be called so.
pub(super) const STRICT_PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// `synchronous_standby_names`, as far as we write it: who, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct SynchronousStandbys {
    /// Lower case: PostgreSQL ignores case here.
    pub(crate) members: BTreeSet<String>,
    /// How many commits wait for.
    pub(crate) count: usize,
    /// Any so many of them, rather than the first ones.
    pub(crate) any: bool,
}

impl SynchronousStandbys {
    /// Reads a value. `*` and what cannot be read list nobody: nobody counts as synchronous then.
    pub(crate) fn parse(value: &str) -> Self {
        let value = value.trim();
        let keyword = |text: &str, word: &str| {
            text.get(..word.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(word))
                .then(|| text[word.len()..].trim_start().to_owned())
        };
        let any = keyword(value, "ANY");
        let is_any = any.is_some();
        let rest = any
            .or_else(|| keyword(value, "FIRST"))
            .unwrap_or(value.to_owned());
        let (count, list) = match rest.split_once('(') {
            Some((count, list)) => match count.trim().parse() {
                Ok(count) => (count, list.trim_end().trim_end_matches(')').to_owned()),
                Err(_) => return Self::default(),
            },
            None => (1, value.to_owned()),
        };
        let members: BTreeSet<String> = split_names(&list)
            .into_iter()
            .map(|name| name.to_lowercase())
            .collect();
        if members.is_empty() || members.contains("*") || members.contains(STRICT_PLACEHOLDER) {
            return Self::default();
        }
        SynchronousStandbys {
            count,
            members,
            any: is_any,
        }
    }
}

/// Splits a list of names, some of them in double quotes.
fn split_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            c if c.is_whitespace() && !quoted => {}
            c => name.push(c),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// The value in priority mode (`ha.md` §13.3): sorted; one name bare, several with their number, so that
/// commits wait for all of them.
pub(super) fn priority_names(members: &[MemberName]) -> String {
    let mut names: Vec<String> = members.iter().map(|name| quoted(name)).collect();
    names.sort();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        several => format!("{} ({})", several.len(), several.join(",")),
    }
}

/// The value in quorum mode: `ANY n (a,b)`, also with one name. PostgreSQL refuses to wait for any 0.
pub(super) fn any_names(count: usize, members: &[MemberName]) -> String {
    let mut names: Vec<String> = members.iter().map(|name| quoted(name)).collect();
    names.sort();
    if names.is_empty() || count == 0 {
        String::new()
    } else {
        format!("ANY {count} ({})", names.join(","))
    }
}

pub(super) fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        && !name.eq_ignore_ascii_case("first")
        && !name.eq_ignore_ascii_case("any");
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

pub(super) fn names<'a>(names: impl Iterator<Item = &'a MemberName>) -> String {
    names
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> (usize, Vec<String>) {
        let parsed = SynchronousStandbys::parse(value);
        (parsed.count, parsed.members.into_iter().collect())
    }

    #[test]
    fn names_are_read_in_every_form() {
        let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(parse(""), (0, vec![]));
        assert_eq!(parse("*"), (0, vec![]));
        assert_eq!(parse("a"), (1, list(&["a"])));
        assert_eq!(parse("\"Pg-1\""), (1, list(&["pg-1"])));
        assert_eq!(parse("2 (a,b)"), (2, list(&["a", "b"])));
        assert_eq!(parse("FIRST 1 (a, \"b,c\")"), (1, list(&["a", "b,c"])));
        assert_eq!(parse("any 1 (a)"), (1, list(&["a"])));
        assert_eq!(parse("a, b"), (1, list(&["a", "b"])));
    }

    #[test]
    fn what_is_written_is_read() {
        for members in [
            vec![],
            vec!["a"],
            vec!["pg-1", "b"],
            vec!["first"],
            vec!["a\"b", "x,y"],
        ] {
            let names: Vec<MemberName> =
                members.iter().map(|name| MemberName::from(*name)).collect();
            let parsed = SynchronousStandbys::parse(&priority_names(&names));
            assert_eq!(parsed.count, members.len());
            assert_eq!(
                parsed.members,
                members.iter().map(|m| m.to_string()).collect()
            );
        }
    }
}
