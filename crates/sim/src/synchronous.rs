//! `synchronous_standby_names`, as PostgreSQL understands it
//! (<https://www.postgresql.org/docs/current/runtime-config-replication.html>).

use std::collections::BTreeMap;

/// The parsed setting.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    any: bool,
    count: usize,
    names: Vec<String>,
}

impl Names {
    /// Reads `a`, `2 (a, b)`, `FIRST 2 (a, b)`, `ANY 2 (a, b)`, `*`.
    pub(crate) fn parse(text: &str) -> Names {
        let text = text.trim();
        let (head, list) = match text.split_once('(') {
            Some((head, rest)) => (head.trim(), rest.trim_end_matches(')')),
            None => ("1", text),
        };
        let names: Vec<String> = list
            .split(',')
            .map(|name| name.trim().trim_matches('"').to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        let mut words = head.split_whitespace().rev();
        let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
        let any = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("any"));
        Names { any, count, names }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn rank(&self, standby: &str) -> Option<usize> {
        self.names
            .iter()
            .position(|name| name == "*" || name.eq_ignore_ascii_case(standby))
    }

    /// Up to where commits are confirmed by as many standbys as they must; `None`: nobody has to confirm anything.
    pub(crate) fn released(&self, standbys: impl Iterator<Item = (String, u64)>) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let mut listed: Vec<(usize, u64)> = standbys
            .filter_map(|(name, flushed)| Some((self.rank(&name)?, flushed)))
            .collect();
        if listed.len() < self.count {
            return Some(0);
        }
        if self.any {
            listed.sort_by_key(|(_, flushed)| std::cmp::Reverse(*flushed));
            listed.get(self.count - 1).map(|(_, flushed)| *flushed)
        } else {
            listed.sort();
            listed
                .iter()
                .take(self.count)
                .map(|(_, flushed)| *flushed)
                .min()
        }
    }

    /// `sync_state` of the connected standbys that are listed.
    pub(crate) fn states(
        &self,
        standbys: impl Iterator<Item = String>,
    ) -> BTreeMap<String, &'static str> {
        let mut listed: Vec<(usize, String)> = standbys
            .filter_map(|name| Some((self.rank(&name)?, name)))
            .collect();
        listed.sort();
        let state = |index| match index {
            _ if self.any => "quorum",
            index if index < self.count => "sync",
            _ => "potential",
        };
        listed
            .into_iter()
            .enumerate()
            .map(|(index, (_, name))| (name, state(index)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(names: &str, standbys: &[(&str, u64)]) -> Option<u64> {
        Names::parse(names).released(
            standbys
                .iter()
                .map(|(name, flushed)| ((*name).to_owned(), *flushed)),
        )
    }

    #[test]
    fn commits_wait_for_whom_the_setting_names() {
        let both = [("n2", 20), ("n3", 30)];
        assert_eq!(released("", &both), None);
        assert_eq!(released("n2", &both), Some(20));
        assert_eq!(released("n4", &both), Some(0));
        assert_eq!(released("FIRST 1 (n3, n2)", &both), Some(30));
        assert_eq!(released("2 (n3, n2)", &both), Some(20));
        assert_eq!(released("ANY 1 (n2, n3)", &both), Some(30));
        assert_eq!(released("ANY 2 (n2,n3)", &both), Some(20));
        assert_eq!(released("*", &both), Some(20));
        let states =
            Names::parse("1 (n3,n2)").states(both.iter().map(|(name, _)| (*name).to_owned()));
        assert_eq!((states["n3"], states["n2"]), ("sync", "potential"));
    }
}
