//! libpq connection strings.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::settings::{Credentials, Settings};

/// Keywords in the order in which they are printed (`configuration.md` §6.6).
const ORDER: &[&str] = &[
    "dbname",
    "user",
    "passfile",
    "password",
    "host",
    "port",
    "sslmode",
    "sslcompression",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "application_name",
    "krbsrvname",
    "gssencmode",
    "channel_binding",
    "target_session_attrs",
    "sslnegotiation",
];

/// Keywords that a version of libpq does not know yet (`configuration.md` §2.13.1).
const SINCE: &[(&str, u32)] = &[
    ("sslpassword", 13),
    ("channel_binding", 13),
    ("sslcrldir", 14),
    ("sslnegotiation", 17),
];

/// A libpq connection string: `keyword=value` pairs. Prints, with every value escaped, in the order of
/// `configuration.md` §6.6; keywords that are not listed there follow by name. `Debug` hides passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo {
    values: BTreeMap<String, String>,
}

/// Not a connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a connection string: {0}")]
pub struct ConninfoError(pub String);

impl Conninfo {
    /// With host, port and database. Several hosts are separated by commas.
    pub fn new(host: &str, port: u16, dbname: &str) -> Self {
        Conninfo::default()
            .with("host", host)
            .with("port", &port.to_string())
            .with("dbname", dbname)
    }

    /// Sets a keyword; an empty value removes it.
    pub fn with(mut self, keyword: &str, value: &str) -> Self {
        self.set(keyword, value);
        self
    }

    /// Sets a keyword; an empty value removes it.
    pub fn set(&mut self, keyword: &str, value: &str) {
        if value.is_empty() {
            self.values.remove(keyword);
        } else {
            self.values.insert(keyword.to_owned(), value.to_owned());
        }
    }

    /// Value of a keyword.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(String::as_str)
    }

    /// Hosts with their ports, in order; a single port serves all hosts.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        let hosts = self
            .get("host")
            .or(self.get("hostaddr"))
            .unwrap_or("localhost");
        let ports: Vec<&str> = self.get("port").unwrap_or("5432").split(',').collect();
        let port = |index: usize| {
            let text = if ports.len() == 1 {
                ports.first()
            } else {
                ports.get(index)
            };
            text.and_then(|port| port.trim().parse().ok())
                .unwrap_or(5432)
        };
        hosts
            .split(',')
            .enumerate()
            .map(|(index, host)| (host.to_owned(), port(index)))
            .collect()
    }

    /// For error texts: host and port.
    pub fn address(&self) -> String {
        let parts = self
            .addresses()
            .into_iter()
            .map(|(host, port)| format!("{host}:{port}"));
        parts.collect::<Vec<_>>().join(",")
    }

    /// Adds user and TLS keywords, without the password.
    pub(crate) fn with_credentials(mut self, credentials: &Credentials) -> Self {
        for (keyword, value) in &credentials.options {
            self.set(keyword, value);
        }
        self.set("user", credentials.username.as_deref().unwrap_or_default());
        self
    }

    /// Leaves out what a libpq of that major version would refuse.
    pub(crate) fn for_version(mut self, major: u32) -> Self {
        self.values.retain(|keyword, _| {
            SINCE
                .iter()
                .all(|(name, since)| name != keyword || major >= *since)
        });
        self
    }

    /// `primary_conninfo` of this member towards a source (`configuration.md` §6.6).
    pub(crate) fn primary_conninfo(&self, settings: &Settings, major: u32) -> Self {
        let mut conninfo = self.clone();
        for (keyword, value) in [
            ("sslmode", "prefer"),
            ("gssencmode", "prefer"),
            ("channel_binding", "prefer"),
            ("sslnegotiation", "postgres"),
        ] {
            conninfo.set(keyword, value);
        }
        conninfo = conninfo.with_credentials(&settings.replication);
        conninfo.set("application_name", &settings.name);
        conninfo.set(
            "krbsrvname",
            settings.krbsrvname.as_deref().unwrap_or_default(),
        );
        if conninfo.get("dbname").is_none() {
            conninfo.set("dbname", &settings.database);
        }
        if settings.replication.password.is_some() {
            conninfo.set("passfile", &settings.pgpass.display().to_string());
        }
        conninfo.for_version(major)
    }
}

fn print(conninfo: &Conninfo, f: &mut fmt::Formatter<'_>, hide: bool) -> fmt::Result {
    let rest = conninfo
        .values
        .keys()
        .map(String::as_str)
        .filter(|keyword| !ORDER.contains(keyword));
    let mut separator = "";
    for keyword in ORDER.iter().copied().chain(rest) {
        let Some(value) = conninfo.get(keyword) else {
            continue;
        };
        write!(f, "{separator}{keyword}=")?;
        separator = " ";
        if hide && keyword.ends_with("password") {
            f.write_str("***")?;
            continue;
        }
        for char in value.chars() {
            if matches!(char, '\'' | '\\') || char.is_whitespace() {
                f.write_str("\\")?;
            }
            write!(f, "{char}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f, false)
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f, true)
    }
}

impl FromStr for Conninfo {
    type Err = ConninfoError;

    /// Reads `keyword=value` pairs as libpq does. URLs are not taken.
    fn from_str(text: &str) -> Result<Self, ConninfoError> {
        let mut conninfo = Conninfo::default();
        let mut chars = text.chars().peekable();
        let skip_space = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            while chars.next_if(|char| char.is_whitespace()).is_some() {}
        };
        loop {
            skip_space(&mut chars);
            if chars.peek().is_none() {
                return Ok(conninfo);
            }
            let mut keyword = String::new();
            while let Some(char) = chars.next_if(|char| *char != '=' && !char.is_whitespace()) {
                keyword.push(char);
            }
            skip_space(&mut chars);
            if keyword.is_empty() || chars.next() != Some('=') {
                return Err(ConninfoError(format!("no \"=\" after {keyword:?}")));
            }
            skip_space(&mut chars);
            let quoted = chars.next_if_eq(&'\'').is_some();
            let mut value = String::new();
            loop {
                match chars.next() {
                    Some('\\') => value.extend(chars.next()),
                    Some('\'') if quoted => break,
                    Some(char) if !quoted && char.is_whitespace() => break,
                    Some(char) => value.push(char),
                    None if quoted => {
                        return Err(ConninfoError(format!("unterminated value of {keyword}")));
                    }
                    None => break,
                }
            }
            conninfo.set(&keyword, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;
    use proptest::prelude::*;

    #[test]
    fn libpq_strings_are_read() {
        for (text, expected) in [
            ("", vec![]),
            ("host=a port=1", vec![("host", "a"), ("port", "1")]),
            (
                "  host = 'a b'  user=x ",
                vec![("host", "a b"), ("user", "x")],
            ),
            (r"user=a\ b\'c\\", vec![("user", r"a b'c\")]),
            (r"password='it\'s' dbname=''", vec![("password", "it's")]),
            ("host=", vec![]),
        ] {
            let conninfo: Conninfo = text.parse().unwrap();
            let values = conninfo.values.iter();
            let values: Vec<_> = values.map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(values, expected, "{text:?}");
        }
        for text in ["host", "=a", "host='a", "a b=c", "postgres://h/d"] {
            assert!(text.parse::<Conninfo>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_documented_primary_conninfo() {
        let mut settings = Settings::new("node1", "batman", "/data");
        settings.pgpass = "/var/lib/pgpass".into();
        settings.replication = Credentials {
            username: Some("rep".into()),
            password: Some(Secret::new("secret")),
            ..Credentials::default()
        };
        let text = Conninfo::new("10.0.0.5", 5432, "postgres").primary_conninfo(&settings, 15);
        assert_eq!(
            text.to_string(),
            "dbname=postgres user=rep passfile=/var/lib/pgpass host=10.0.0.5 port=5432 \
             sslmode=prefer application_name=node1 gssencmode=prefer channel_binding=prefer"
        );
        let text = Conninfo::new("h", 1, "d")
            .primary_conninfo(&settings, 12)
            .to_string();
        assert!(!text.contains("channel_binding"), "{text}");
        let text = Conninfo::new("h", 1, "d")
            .primary_conninfo(&settings, 17)
            .to_string();
        assert!(text.ends_with("sslnegotiation=postgres"), "{text}");
    }

    #[test]
    fn debug_hides_passwords() {
        let conninfo = Conninfo::new("h", 1, "d").with("password", "secret");
        assert!(!format!("{conninfo:?}").contains("secret"));
    }

    #[test]
    fn addresses_of_several_hosts() {
        let addresses = |text: &str| text.parse::<Conninfo>().unwrap().addresses();
        assert_eq!(
            addresses("host=a,b port=1,2"),
            [("a".into(), 1), ("b".into(), 2)]
        );
        assert_eq!(
            addresses("host=a,b port=7"),
            [("a".into(), 7), ("b".into(), 7)]
        );
        assert_eq!(addresses(""), [("localhost".into(), 5432)]);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(values in prop::collection::btree_map("[a-z_]{1,12}", ".{1,20}", 0..6)) {
            let conninfo = Conninfo { values };
            prop_assert_eq!(conninfo.to_string().parse::<Conninfo>(), Ok(conninfo));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = text.parse::<Conninfo>();
        }
    }
}
