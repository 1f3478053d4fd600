//! Which handler a request goes to (`rest-api.md` §1.3), and its query string (§1.4).

/// A handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Section 4: the whole path counts.
    Health,
    Liveness,
    Readiness,
    Status,
    Cluster,
    History,
    Config,
    Metrics,
    Failsafe,
    /// Ours: why things were done.
    Journal,
    /// Ours: what this API is.
    Description,
    PatchConfig,
    PutConfig,
    Failover,
    Switchover,
    Restart,
    Reinitialize,
    Reload,
    PostFailsafe,
    Sigterm,
    /// `/citus` and `/mpp`.
    Multi,
    DeleteRestart,
    DeleteSwitchover,
    /// 501.
    Unsupported,
}

impl Route {
    /// Finds the handler. Methods and paths are case-sensitive; only the first element of the path counts.
    pub(crate) fn find(method: &str, path: &str) -> Route {
        let path = collapse(path);
        let element = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        match (method, element) {
            ("GET", "liveness") => Route::Liveness,
            ("GET", "readiness") => Route::Readiness,
            ("GET", "patroni") => Route::Status,
            ("GET", "cluster") => Route::Cluster,
            ("GET", "history") => Route::History,
            ("GET", "config") => Route::Config,
            ("GET", "metrics") => Route::Metrics,
            ("GET", "failsafe") => Route::Failsafe,
            ("GET", "journal") => Route::Journal,
            ("GET", "openapi.json") => Route::Description,
            ("POST", "failover") => Route::Failover,
            ("POST", "switchover") => Route::Switchover,
            ("POST", "restart") => Route::Restart,
            ("POST", "reinitialize") => Route::Reinitialize,
            ("POST", "reload") => Route::Reload,
            ("POST", "failsafe") => Route::PostFailsafe,
            ("POST", "sigterm") => Route::Sigterm,
            ("POST", "citus" | "mpp") => Route::Multi,
            ("PATCH", "config") => Route::PatchConfig,
            ("PUT", "config") => Route::PutConfig,
            ("DELETE", "restart") => Route::DeleteRestart,
            ("DELETE", "switchover") => Route::DeleteSwitchover,
            ("GET" | "HEAD" | "OPTIONS", _) => Route::Health,
            _ => Route::Unsupported,
        }
    }

    /// Whether the request changes something and so is subject to access control (§2.1; `/mpp` as well, A1).
    pub(crate) fn is_protected(self) -> bool {
        use Route::*;
        match self {
            Health | Liveness | Readiness | Status | Cluster | History | Config | Metrics
            | Failsafe | Journal | Description | Unsupported => false,
            PatchConfig | PutConfig | Failover | Switchover | Restart | Reinitialize | Reload
            | PostFailsafe | Sigterm | Multi | DeleteRestart | DeleteSwitchover => true,
        }
    }
}

/// Slashes at the beginning of a path collapse to one.
pub(crate) fn collapse(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// The parameters of a query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text after the `?`. What has no value is dropped.
    pub(crate) fn parse(text: &str) -> Self {
        Query(
            text.split('&')
                .filter_map(|pair| pair.split_once('='))
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// What is asked of tags: name without its prefix, and value; the first one of each name.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(index, (key, value))| {
                let first = !self.0[..index].iter().any(|(earlier, _)| earlier == key);
                Some((key.strip_prefix("tag_")?, value.as_str())).filter(|_| first)
            })
    }
}

/// `+` is a blank, `%XX` a byte; what is not a proper escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(hexadecimal);
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    Some((digit(*digits.first()?)? * 16 + digit(*digits.get(1)?)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn routes_of_the_specification() {
        let cases = [
            ("GET", "/liveness/anything", Route::Liveness),
            ("GET", "//liveness", Route::Liveness),
            ("HEAD", "/liveness", Route::Health),
            ("OPTIONS", "/patroni", Route::Health),
            ("GET", "/", Route::Health),
            ("GET", "/restart", Route::Health),
            ("GET", "/Cluster", Route::Health),
            ("POST", "/mpp", Route::Multi),
            ("POST", "/primary", Route::Unsupported),
            ("PUT", "/config/x", Route::PutConfig),
            ("DELETE", "/config", Route::Unsupported),
            ("DELETE", "/failover", Route::Unsupported),
            ("get", "/patroni", Route::Unsupported),
            ("PATCH", "/failsafe", Route::Unsupported),
            ("TRACE", "/", Route::Unsupported),
        ];
        for (method, path, route) in cases {
            assert_eq!(Route::find(method, path), route, "{method} {path}");
        }
    }

    /// W28: whoever may call one of them may make a coordinator hold back a worker's clients.
    #[test]
    fn w28_mpp_is_protected_as_citus_is() {
        for path in ["/citus", "/mpp", "/mpp/x"] {
            assert!(Route::find("POST", path).is_protected(), "{path}");
        }
    }

    #[test]
    fn query_is_decoded_and_the_first_value_counts() {
        let query = Query::parse("lag=10%20MB&lag=1&tag_a=x+y&tag_a=z&tag_b=&c&d=%zz%4");
        assert_eq!(query.get("lag"), Some("10 MB"));
        assert_eq!(query.get("c"), None);
        assert_eq!(query.get("tag_b"), None);
        assert_eq!(query.get("d"), Some("%zz%4"));
        assert_eq!(query.tags().collect::<Vec<_>>(), [("a", "x y")]);
    }

    proptest! {
        #[test]
        fn any_request_is_routed(method in "[A-Z]{0,7}", path: String, query: String) {
            let _ = Route::find(&method, &path);
            let query = Query::parse(&query);
            let _ = query.tags().count();
        }

        #[test]
        fn values_survive_their_encoding(value in ".{1,20}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let query = Query::parse(&format!("lag={encoded}"));
            prop_assert_eq!(query.get("lag"), Some(value.as_str()));
        }
    }
}
