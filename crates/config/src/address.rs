use std::fmt;

use crate::ConfigError;

/// `host:port` as clients reach it. The host of an IPv6 address is held without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address; may be a comma-separated list where the key allows one.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl HostPort {
    /// Splits at the last colon (`configuration.md` §0.5); without one the port is `default_port`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming `key` when the port is empty or not a port number.
    pub fn parse(key: &str, text: &str, default_port: u16) -> Result<Self, ConfigError> {
        let (host, port) = split_host_port(key, text, Some(default_port))?;
        Ok(HostPort { host, port })
    }

    /// As [`HostPort::parse`], but the port must be there.
    pub fn parse_with_port(key: &str, text: &str) -> Result<Self, ConfigError> {
        let (host, port) = split_host_port(key, text, None)?;
        Ok(HostPort { host, port })
    }
}

/// `host:port`, an IPv6 host in brackets.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.contains(',') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where PostgreSQL listens (`postgresql.listen`): `host[,host...][:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The value of `listen_addresses`, in the order written.
    pub hosts: Vec<String>,
    /// The value of `port`.
    pub port: u16,
}

impl Listen {
    /// Reads `postgresql.listen`; the default port is 5432.
    pub fn parse(key: &str, text: &str) -> Result<Self, ConfigError> {
        let (hosts, port) = split_host_port(key, text, Some(5432))?;
        let hosts = hosts
            .split(',')
            .map(|host| host.trim().to_owned())
            .collect();
        Ok(Listen { hosts, port })
    }

    /// The text of `listen_addresses`.
    pub fn addresses(&self) -> String {
        self.hosts.join(",")
    }

    /// Where this host reaches its own server over TCP (`configuration.md` §6.7).
    pub fn local_host(&self) -> &str {
        let any = |names: &[&str]| self.hosts.iter().any(|host| names.contains(&host.as_str()));
        if any(&["*", "localhost", "0.0.0.0", "127.0.0.1"]) {
            return "localhost";
        }
        self.hosts.first().map_or("localhost", String::as_str)
    }
}

pub(crate) fn split_host_port(
    key: &str,
    text: &str,
    default_port: Option<u16>,
) -> Result<(String, u16), ConfigError> {
    let invalid = |expected: &str| ConfigError::invalid(key, format!("{text:?}"), expected);
    let (host, port) = match (text.rsplit_once(':'), default_port) {
        (Some((host, port)), _) => {
            let port = port.trim().parse().map_err(|_| {
                invalid("<host>:<port> with a port from 1 to 65535 (an IPv6 address in brackets)")
            })?;
            (host, port)
        }
        (None, Some(port)) => (text, port),
        (None, None) => return Err(invalid("<host>:<port>")),
    };
    let bare = |part: &str| part.trim().trim_matches(['[', ']']).to_owned();
    let host = if host.contains(':') {
        host.split(',').map(bare).collect::<Vec<_>>().join(",")
    } else {
        host.to_owned()
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `configuration.md` §0.5.
    #[test]
    fn an_address_is_split_at_its_last_colon() {
        for (text, default_port, expected) in [
            ("127.0.0.1:5433", None, Some(("127.0.0.1", 5433))),
            ("db.example.com", Some(5432), Some(("db.example.com", 5432))),
            ("db.example.com", None, None),
            ("*", Some(5432), Some(("*", 5432))),
            ("a,b:1", None, Some(("a,b", 1))),
            ("[::1]:5432", None, Some(("::1", 5432))),
            ("fe80::1:5432", None, Some(("fe80::1", 5432))),
            (
                "127.0.0.1, [::1] ,[fe80::1]:5432",
                None,
                Some(("127.0.0.1,::1,fe80::1", 5432)),
            ),
            // Without brackets and port there is no telling.
            ("::1", Some(5432), Some((":", 1))),
            ("127.0.0.1:", Some(5432), None),
            ("127.0.0.1:x", Some(5432), None),
            ("127.0.0.1:65536", Some(5432), None),
            ("127.0.0.1:-1", Some(5432), None),
            ("[::1]", Some(5432), None),
        ] {
            let split = split_host_port("key", text, default_port).ok();
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(split, expected, "{text}");
        }
    }

    #[test]
    fn an_ipv6_address_is_written_in_brackets() {
        for text in ["[::1]:5432", "127.0.0.1:5432", "db:1", "a,b:1"] {
            let address = HostPort::parse_with_port("key", text).unwrap();
            assert_eq!(address.to_string(), text);
        }
    }
}
