//! Who connects, and how: the command line, else what libpq takes from its environment. People have their passwords
//! there.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use primacy_config::Secret;
use primacy_model::ConnUrl;
use primacy_net::SessionTls;

/// What a session needs besides its address.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) application_name: String,
    /// Server options of the environment.
    pub(super) options: Option<String>,
    pub(super) tls: SessionTls,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
}

impl Login {
    pub(super) fn new(
        user: Option<String>,
        password: Option<String>,
        database: Option<String>,
        variables: &BTreeMap<String, String>,
    ) -> Self {
        let variable = |name: &str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let home = variable("HOME").map(PathBuf::from);
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let user = given(user)
            .or_else(|| variable("PGUSER"))
            .unwrap_or_else(system_user);
        let tls = SessionTls::new(|_| None, variable);
        Login {
            database: given(database)
                .or_else(|| variable("PGDATABASE"))
                .unwrap_or_else(|| user.clone()),
            user,
            application_name: variable("PGAPPNAME").unwrap_or_else(|| "Patroni ctl".to_owned()),
            options: variable("PGOPTIONS"),
            tls,
            password: password.or_else(|| variable("PGPASSWORD")).map(Secret::new),
            password_file: variable("PGPASSFILE")
                .map(PathBuf::from)
                .or_else(|| Some(home?.join(".pgpass"))),
        }
    }

    /// The password for a server: given, or from the password file.
    pub(super) fn password(&self, server: &ConnUrl) -> Option<String> {
        if let Some(password) = &self.password {
            return Some(password.expose().to_owned());
        }
        let file = self
            .password_file
            .as_ref()
            .filter(|file| !is_open_to_others(file))?;
        let text = std::fs::read_to_string(file).ok()?;
        let port = server.port.to_string();
        let wanted = [server.host.as_str(), &port, &self.database, &self.user];
        text.lines().find_map(|line| password_in(line, wanted))
    }

    /// That the password file is passed over, and why.
    pub(super) fn warning(&self) -> Option<String> {
        let file = self
            .password_file
            .as_ref()
            .filter(|file| self.password.is_none() && is_open_to_others(file))?;
        Some(format!(
            "password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            file.display()
        ))
    }
}

fn system_user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    user.map_or_else(|| "postgres".to_owned(), |user| user.name)
}

fn is_open_to_others(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
}

/// The password of a line `host:port:database:user:password` if it is for this login.
fn password_in(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => field.extend(characters.next()),
            // What comes after the fourth is the password, with the colons in it.
            ':' if fields.len() < wanted.len() => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    let matches = fields.len() == wanted.len()
        && fields
            .iter()
            .zip(wanted)
            .all(|(field, wanted)| field == "*" || field == wanted);
    (matches && !field.is_empty()).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_a_password_file() {
        let wanted = ["10.0.0.1", "5432", "db", "me"];
        for (line, password) in [
            ("10.0.0.1:5432:db:me:secret", Some("secret")),
            ("*:*:*:*:a:b\\:c\\\\", Some("a:b:c\\")),
            ("10.0.0.2:5432:db:me:secret", None),
            ("10.0.0.1:5432:db:you:secret", None),
            ("#*:*:*:*:secret", None),
            ("*:*:*:me", None),
            ("*:*:*:me:", None),
            ("", None),
        ] {
            assert_eq!(password_in(line, wanted).as_deref(), password, "{line}");
        }
    }

    #[test]
    fn environment_fills_in_what_was_not_given() {
        let variables = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let server = ConnUrl::parse("postgres://h:5433/x").unwrap();
        let environment = variables(&[
            ("PGUSER", "env"),
            ("PGPASSWORD", "pw"),
            ("PGSSLMODE", "verify-full"),
        ]);
        let login = Login::new(None, None, None, &environment);
        assert_eq!(
            (login.user.as_str(), login.database.as_str()),
            ("env", "env")
        );
        assert_eq!(login.password(&server).as_deref(), Some("pw"));
        assert!(format!("{:?}", login.tls).contains("verify: Full"));
        let login = Login::new(
            Some("me".into()),
            Some("typed".into()),
            Some("db".into()),
            &environment,
        );
        assert_eq!((login.user.as_str(), login.database.as_str()), ("me", "db"));
        assert_eq!(login.password(&server).as_deref(), Some("typed"));
    }

    #[test]
    fn password_file_of_others_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pass");
        std::fs::write(&path, "h:5433:db:me:secret\n").unwrap();
        let server = ConnUrl::parse("postgres://h:5433/x").unwrap();
        let variables = [("PGPASSFILE".to_owned(), path.display().to_string())].into();
        let login = Login::new(Some("me".into()), None, Some("db".into()), &variables);
        for (mode, password) in [(0o600, Some("secret")), (0o644, None)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(login.password(&server).as_deref(), password, "{mode:o}");
            assert_eq!(login.warning().is_some(), password.is_none(), "{mode:o}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line: String) {
            let _ = password_in(&line, ["h", "1", "d", "u"]);
        }
    }
}

/// What people have in their files, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;

    /// The password of any login is found again where it was written as the rules of the file have it.
    #[test]
    #[ignore = "long: make fuzz"]
    fn password_lines() {
        let wanted = ["h", "5432", "d", "u"];
        let samples = ["h:5432:d:u:secret", "*:*:*:*:a\\:b:c\\\\", "#x", "::::"];
        primacy_fuzz::text(&samples, |input| {
            let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let line = format!("*:5432:d:{}:{}", escaped(input), escaped(input));
            let found = password_in(&line, ["h", "5432", "d", input]);
            assert_eq!(found.as_deref().unwrap_or_default(), input);
            password_in(input, wanted).is_some()
        });
    }
}
