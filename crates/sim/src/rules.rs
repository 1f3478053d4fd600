//! Which rules there are: those that the sources of the decisions name.

use std::collections::BTreeSet;
use std::path::Path;

/// How names of rules begin (`primacy_ha::Reason`).
const SOURCES: [&str; 4] = ["ha.md ", "design.md ", "rest-api.md ", "fencing.mode"];

/// Every rule by name; none where the sources are not at hand.
pub fn rules() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../ha/src");
    collect(Path::new(sources), &mut rules);
    rules
}

fn collect(directory: &Path, rules: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, rules);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let literals = text
            .lines()
            .flat_map(|line| line.split('"').skip(1).step_by(2));
        let named = |literal: &&str| SOURCES.iter().any(|source| literal.starts_with(source));
        rules.extend(literals.filter(named).map(str::to_owned));
    }
}
