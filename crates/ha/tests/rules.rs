//! What docs/rules.md, docs/surfaces.md and docs/weaknesses.md say shows a rule, exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A test, and the name of the file or directory that it is in.
type Test = (String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `fn` after a test's attribute, and the names given to a macro that makes tests.
fn tests_in(text: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.chars().take_while(|c| word(*c)).collect()
    };
    let mut tests = BTreeSet::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if marked && let Some((_, rest)) = line.split_once("fn ") {
            tests.insert(name(rest));
            marked = false;
        }
    }
    for makes in ["on_both_stores!(", "server_test!("] {
        for (_, given) in text
            .match_indices(makes)
            .map(|(at, _)| text.split_at(at + makes.len()))
        {
            let end = given.find([')', '{']).unwrap_or_default();
            tests.extend(given[..end].split(',').map(|word| name(word.trim())));
        }
    }
    tests.remove("");
    tests
}

fn all_tests() -> Vec<Test> {
    let mut files = Vec::new();
    for directory in ["crates", "src", "tests"] {
        sources(&root().join(directory), &mut files);
    }
    let mut tests = Vec::new();
    for file in files {
        let stem = |path: &Path| {
            path.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let module = match stem(&file).as_str() {
            "main" | "mod" | "lib" => stem(file.parent().expect("a directory")),
            other => other.to_owned(),
        };
        let text = std::fs::read_to_string(&file).unwrap();
        tests.extend(
            tests_in(&text)
                .into_iter()
                .map(|test| (module.clone(), test)),
        );
    }
    tests
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

fn exists(tests: &[Test], named: &str) -> bool {
    let (module, function) = named.split_once("::").unwrap_or(("*", named));
    tests
        .iter()
        .any(|(in_module, test)| matches(module, in_module) && matches(function, test))
}

/// What stands in back-ticks in the last column of a table, a row each.
fn named(document: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("docs").join(document)).unwrap();
    let rows = text.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| §") && !line.starts_with("| #")
    });
    rows.map(|row| {
        let cell = row
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap_or_default();
        let names = cell.split('`').skip(1).step_by(2).map(str::to_owned);
        (row.to_owned(), names.collect())
    })
    .collect()
}

/// A rest that is left out hides what is missing, unless it is all of a module.
fn is_vague(name: &str) -> bool {
    name.contains('*') && (!name.ends_with("::*") || name.matches('*').count() > 1)
}

#[test]
fn every_test_that_is_named_exists() {
    let tests = all_tests();
    let documents = ["rules.md", "surfaces.md", "weaknesses.md"];
    let rows: Vec<_> = documents.into_iter().flat_map(named).collect();
    assert!(rows.len() > 250, "{} rows were read", rows.len());
    let mut missing = Vec::new();
    for (row, names) in rows {
        let shown = !names.is_empty() || row.contains("no test") || row.contains("weaknesses.md");
        assert!(shown, "neither a test nor that there is none: {row}");
        let names = names.into_iter().filter(|name| name != "tests/e2e");
        missing.extend(names.filter(|name| is_vague(name) || !exists(&tests, name)));
    }
    assert!(missing.is_empty(), "these tests do not exist: {missing:#?}");
}

#[test]
fn every_weakness_has_its_row() {
    for document in ["docs/weaknesses.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for number in 1..=29 {
            let begins = format!("| W{number} |");
            let rows = text.lines().filter(|line| line.starts_with(&begins));
            assert_eq!(rows.count(), 1, "W{number} in {document}");
        }
    }
}

#[test]
fn tests_are_found_in_every_form() {
    let text = "#[test]\nfn a_1() {\n#[tokio::test(flavor = \"x\")]\nasync fn b() {\non_both_stores!(c, d_2,\n e);\nfn helper() {\n\
                server_test!(life, f_g, {";
    let found: Vec<String> = tests_in(text).into_iter().collect();
    assert_eq!(found, ["a_1", "b", "c", "d_2", "e", "f_g", "life"]);
}
