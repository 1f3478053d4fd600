//! What a person calls a server by: a libpq string or URL.

use percent_encoding::percent_decode_str;

use crate::{Conninfo, ConninfoError};

impl Conninfo {
    /// Reads `keyword=value` pairs or a URL such as `postgresql://user@host:5432/dbname?sslmode=disable`, as libpq does.
    ///
    /// # Errors
    /// It is neither.
    pub fn from_dsn(text: &str) -> Result<Self, ConninfoError> {
        let text = text.trim();
        for scheme in ["postgresql://", "postgres://"] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return from_url(rest);
            }
        }
        text.parse()
    }
}

/// What stands behind the scheme.
fn from_url(rest: &str) -> Result<Conninfo, ConninfoError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (user_password, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user_password.split_once(':').unwrap_or((user_password, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or_default()),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(port);
    }
    // One empty port among others is libpq's default, as an absent one is.
    let ports = if ports.iter().all(|port| port.is_empty()) {
        String::new()
    } else {
        ports.join(",")
    };
    let mut conninfo = Conninfo::default()
        .with("user", &decode(user)?)
        .with("password", &decode(password)?)
        .with("host", &names.join(","))
        .with("port", &ports)
        .with("dbname", &decode(dbname)?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair
            .split_once('=')
            .ok_or_else(|| ConninfoError(format!("no \"=\" after {pair:?}")))?;
        let keyword = decode(keyword)?;
        if keyword.is_empty()
            || !keyword
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(ConninfoError(format!("{keyword:?} is no keyword")));
        }
        conninfo.set(&keyword, &decode(value)?);
    }
    Ok(conninfo)
}

fn decode(text: &str) -> Result<String, ConninfoError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(String::from)
        .map_err(|_| ConninfoError(format!("{text:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_read_as_libpq_does() {
        for (dsn, expected) in [
            ("host=/tmp port=1", "host=/tmp port=1"),
            ("postgres://", ""),
            ("postgresql://h", "host=h"),
            (
                "postgres://u:p%40ss@h:5433/d?sslmode=disable",
                "dbname=d user=u password=p@ss host=h port=5433 sslmode=disable",
            ),
            ("postgres://u@[::1]:5/d", "dbname=d user=u host=::1 port=5"),
            (
                "postgres:///d?host=/tmp&port=6",
                "dbname=d host=/tmp port=6",
            ),
            ("postgres://a:1,b:2/", "host=a,b port=1,2"),
            ("postgres://%2Ftmp/d", "dbname=d host=/tmp"),
        ] {
            assert_eq!(
                Conninfo::from_dsn(dsn).unwrap().to_string(),
                expected,
                "{dsn}"
            );
        }
        for dsn in [
            "a b c",
            "postgres://h/d?x",
            "postgres://%ff@h",
            "postgres://h/?a%20b=c",
            "postgres://h/?=c",
        ] {
            assert!(Conninfo::from_dsn(dsn).is_err(), "{dsn}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Conninfo::from_dsn(&text);
            let _ = Conninfo::from_dsn(&format!("postgres://{text}"));
        }
    }
}
