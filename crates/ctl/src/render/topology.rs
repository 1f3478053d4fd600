use std::collections::{BTreeMap, BTreeSet};

/// A member as the tree needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) leads: bool,
    pub(super) replicatefrom: Option<&'a str>,
}

/// Orders the members as a replication tree (`patronictl.md` §5.3): index into `nodes` and depth, the
/// leader at 0. Without a leader the members that would follow it are still at depth 1.
///
/// Members that follow each other in a circle would not hang below anyone: the first of them by name is
/// shown under the leader.
pub(super) fn tree(nodes: &[Node<'_>]) -> Vec<(usize, usize)> {
    let index_of = |name: &str| {
        nodes
            .iter()
            .position(|node| node.name == name && !node.leads)
    };
    let mut parents: Vec<Option<usize>> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            node.replicatefrom
                .and_then(index_of)
                .filter(|parent| *parent != index)
        })
        .collect();
    break_circles(nodes, &mut parents);

    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    let mut order = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        if node.leads {
            order.push((index, 0));
        } else {
            children.entry(parents[index]).or_default().push(index);
        }
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|index| nodes[*index].name);
    }
    let mut stack = Vec::new();
    let below = |parent: Option<usize>, depth: usize, stack: &mut Vec<(usize, usize)>| {
        let siblings = children.get(&parent).into_iter().flatten().rev();
        stack.extend(siblings.map(|index| (*index, depth)));
    };
    below(None, 1, &mut stack);
    while let Some((index, depth)) = stack.pop() {
        order.push((index, depth));
        below(Some(index), depth + 1, &mut stack);
    }
    order
}

fn break_circles(nodes: &[Node<'_>], parents: &mut [Option<usize>]) {
    for start in 0..nodes.len() {
        let mut seen = BTreeSet::new();
        let mut at = Some(start);
        while let Some(index) = at.filter(|index| seen.insert(*index)) {
            at = parents[index];
        }
        let Some(entry) = at else { continue };
        // `entry` is on a circle, though `start` may only hang below it.
        let mut first = entry;
        let mut next = parents[entry];
        while let Some(index) = next.filter(|index| *index != entry) {
            if nodes[index].name < nodes[first].name {
                first = index;
            }
            next = parents[index];
        }
        parents[first] = None;
    }
}

/// The name as the tree shows it.
pub(super) fn branch(name: &str, depth: usize) -> String {
    match depth {
        0 => name.to_owned(),
        depth => format!("{}+ {name}", "  ".repeat(depth - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawn(nodes: &[(&str, bool, Option<&str>)]) -> Vec<String> {
        let nodes: Vec<Node<'_>> = nodes
            .iter()
            .map(|&(name, leads, replicatefrom)| Node {
                name,
                leads,
                replicatefrom,
            })
            .collect();
        tree(&nodes)
            .into_iter()
            .map(|(index, depth)| branch(nodes[index].name, depth))
            .collect()
    }

    #[test]
    fn trees() {
        type Row<'a> = (&'a [(&'a str, bool, Option<&'a str>)], &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (&[], &[]),
            (&[("a", false, None), ("b", true, None)], &["b", "+ a"]),
            (&[("a", false, Some("b")), ("b", true, None)], &["b", "+ a"]),
            (
                &[("a", false, Some("nobody")), ("b", false, Some("a"))],
                &["+ a", "  + b"],
            ),
            (&[("a", false, Some("a")), ("z", true, None)], &["z", "+ a"]),
            // b and c follow each other, a hangs below c
            (
                &[
                    ("a", false, Some("c")),
                    ("b", false, Some("c")),
                    ("c", false, Some("b")),
                    ("z", true, None),
                ],
                &["z", "+ b", "  + c", "    + a"],
            ),
        ];
        for (nodes, expected) in table {
            assert_eq!(drawn(nodes), *expected, "{nodes:?}");
        }
    }

    proptest! {
        #[test]
        fn everybody_is_shown_once(leader in prop::option::of(0usize..8), from in prop::collection::vec(prop::option::of(0usize..9), 0..8)) {
            let names: Vec<String> = (0..9).map(|n| format!("m{n}")).collect();
            let nodes: Vec<Node<'_>> = from
                .iter()
                .enumerate()
                .map(|(index, from)| Node {
                    name: &names[index],
                    leads: Some(index) == leader,
                    replicatefrom: from.map(|from| names[from].as_str()),
                })
                .collect();
            let mut shown: Vec<usize> = tree(&nodes).into_iter().map(|(index, _)| index).collect();
            shown.sort_unstable();
            prop_assert_eq!(shown, (0..nodes.len()).collect::<Vec<_>>());
        }
    }
}
