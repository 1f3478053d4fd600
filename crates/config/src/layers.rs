//! The local layer: a file or a directory of files, and the environment over it (`configuration.md` §1.1,
//! §1.2).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scalar::{patch, truthy};
use crate::{ConfigError, Environment, Map, yaml};

/// Loads the local configuration tree. A path that does not exist counts as none; then the document in
/// `PATRONI_CONFIGURATION` is taken as it is, or else the environment alone. The result may be empty.
///
/// # Errors
/// A file cannot be read, is not YAML or holds no mapping.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Value, ConfigError> {
    if let Some(path) = path.filter(|path| path.exists()) {
        let mut tree = read(path)?;
        patch(&mut tree, &environment.tree);
        return Ok(Value::Object(tree));
    }
    if let Some(text) = &environment.configuration {
        let document = yaml::parse("environment variable PATRONI_CONFIGURATION", text)
            .map_err(ConfigError::Yaml)?;
        return match document {
            Value::Object(_) if truthy(&document) => Ok(document),
            document if truthy(&document) => Err(ConfigError::NotAMapping(PathBuf::from(
                "PATRONI_CONFIGURATION",
            ))),
            _ => Ok(Value::Object(environment.tree.clone())),
        };
    }
    Ok(Value::Object(environment.tree.clone()))
}

/// Reads a file, or the `.yml` and `.yaml` files directly inside a directory in the order of their names,
/// each laid over the ones before.
fn read(path: &Path) -> Result<Map, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let files = if path.is_dir() {
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            let extension = file.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("yml" | "yaml")) && file.is_file() {
                files.push(file);
            }
        }
        files.sort();
        files
    } else if path.is_file() {
        vec![path.to_owned()]
    } else {
        return Err(ConfigError::InvalidPath(path.to_owned()));
    };
    let mut tree = Map::new();
    for file in files {
        let bytes = fs::read(&file).map_err(|source| ConfigError::Read {
            path: file.clone(),
            source,
        })?;
        let name = file.display().to_string();
        match yaml::parse_bytes(&name, &bytes).map_err(ConfigError::Yaml)? {
            // Also into an empty tree: so null keys at the top vanish.
            Value::Object(content) => patch(&mut tree, &content),
            _ => return Err(ConfigError::NotAMapping(file)),
        };
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        crate::from_environment(
            variables
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn files_of_a_directory_are_laid_over_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("10.yml", "a: 1\nb: {c: 1, d: [1, 2]}\nlog:\nx: {y: null}\n");
        write("20.yaml", "a: null\nb: {d: [3]}\n");
        write("30.txt", "{{{");
        fs::create_dir(dir.path().join("40.yml")).unwrap();
        let local = load(Some(dir.path()), &environment(&[("PATRONI_SCOPE", "s")])).unwrap();
        assert_eq!(
            local,
            json!({"b": {"c": 1, "d": [3]}, "x": {"y": null}, "scope": "s"})
        );
    }

    #[test]
    fn without_a_file_the_environment_speaks() {
        let missing = Some(Path::new("/does/not/exist.yml"));
        let some = environment(&[("PATRONI_SCOPE", "s")]);
        assert_eq!(load(missing, &some).unwrap(), json!({"scope": "s"}));
        let whole = environment(&[("PATRONI_SCOPE", "s"), ("PATRONI_CONFIGURATION", "a: on")]);
        assert_eq!(load(missing, &whole).unwrap(), json!({"a": true}));
        let falsy = environment(&[("PATRONI_SCOPE", "s"), ("PATRONI_CONFIGURATION", "{}")]);
        assert_eq!(load(None, &falsy).unwrap(), json!({"scope": "s"}));
        assert_eq!(load(None, &environment(&[])).unwrap(), json!({}));
    }

    // `configuration.md` §1.1.
    #[test]
    fn a_file_wins_over_the_document_in_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("patroni.yml");
        fs::write(&file, "scope: file\nname: pg1\n").unwrap();
        let both = environment(&[
            (
                "PATRONI_CONFIGURATION",
                "scope: document\nnamespace: other\n",
            ),
            ("PATRONI_NAME", "pg2"),
        ]);
        assert_eq!(
            load(Some(&file), &both).unwrap(),
            json!({"scope": "file", "name": "pg2"})
        );
    }

    #[test]
    fn one_sentence_says_what_is_wrong_and_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("patroni.yml");
        for (text, expected) in [
            (
                "scope: a\n  name: b\n",
                ", line 2, column 7: invalid YAML: ",
            ),
            ("- a\n", ": it must hold a mapping of keys to values"),
            ("", ": it must hold a mapping of keys to values"),
        ] {
            fs::write(&file, text).unwrap();
            let error = load(Some(&file), &environment(&[]))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("{}{expected}", file.display())),
                "{error}"
            );
            assert!(!error.contains('\n'));
        }
        let error = load(Some(Path::new("/dev/null")), &environment(&[]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("invalid config path /dev/null"),
            "{error}"
        );
    }
}
