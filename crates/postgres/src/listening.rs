//! Where the server that runs is found. The hazard: a reload, or a file that was changed while no agent ran, may say that
//! the server listens elsewhere, which it does only after its next start; an agent that believed it at once would take a
//! healthy server for one that does not answer.

use primacy_model::PostmasterIdentity;

use crate::postmaster::Listens;
use crate::settings::{LocalAddress, Settings};

/// Puts where a running postmaster says that it listens in the place of what is configured. Of its addresses it may tell
/// the first one only: if that is configured, they are taken to be as configured.
pub(crate) fn adopt(settings: &mut Settings, told: &Listens) {
    settings.port = told.port.unwrap_or(settings.port);
    let configured = &settings.listen_addresses;
    let addresses = told.addresses.as_ref().filter(|told_addresses| {
        let as_configured = match told.all {
            true => configured == *told_addresses,
            false => configured
                .split(',')
                .any(|one| one.trim() == told_addresses.as_str()),
        };
        !as_configured && !told_addresses.is_empty()
    });
    let directory = told.socket_directory.as_ref().filter(|it| it.is_absolute());
    for local in [&mut settings.local, &mut settings.local_replication] {
        match (&*local, addresses, directory) {
            (LocalAddress::Tcp(_), Some(addresses), _) => {
                *local = LocalAddress::Tcp(local_host(addresses).to_owned());
            }
            (LocalAddress::Unix(_), _, Some(directory)) => {
                *local = LocalAddress::Unix(directory.clone());
            }
            _ => {}
        }
    }
    if let Some(addresses) = addresses {
        settings.listen_addresses.clone_from(addresses);
    }
}

/// As it is derived from what is configured (`configuration.md` §6.7).
fn local_host(addresses: &str) -> &str {
    let mut all = addresses.split(',').map(str::trim);
    let first = all.clone().next().unwrap_or_default();
    if all.any(|host| ["*", "localhost", "0.0.0.0", "::", "127.0.0.1"].contains(&host)) {
        "localhost"
    } else {
        first
    }
}

/// How a postmaster was told to listen when it was seen first.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    postmaster: PostmasterIdentity,
    addresses: String,
    port: u16,
    local: LocalAddress,
    local_replication: LocalAddress,
}

impl Listening {
    pub(crate) fn new(postmaster: PostmasterIdentity, settings: &Settings) -> Self {
        Listening {
            postmaster,
            addresses: settings.listen_addresses.clone(),
            port: settings.port,
            local: settings.local.clone(),
            local_replication: settings.local_replication.clone(),
        }
    }

    pub(crate) fn is_of(&self, postmaster: PostmasterIdentity) -> bool {
        self.postmaster == postmaster
    }

    /// The settings, but with the old addresses if the new ones need a restart (`configuration.md` §5.3, step 5). Which of
    /// the two kinds of address to use is a choice of the agent's, and in force at once.
    pub(crate) fn hold(&mut self, mut settings: Settings) -> Settings {
        if self.holds(&settings) {
            settings.listen_addresses = self.addresses.clone();
            settings.port = self.port;
            settings.local = self.local.clone();
            settings.local_replication = self.local_replication.clone();
        } else {
            *self = Listening::new(self.postmaster, &settings);
        }
        settings
    }

    fn holds(&self, settings: &Settings) -> bool {
        let moved = |before: &LocalAddress, now: &LocalAddress| match (before, now) {
            (LocalAddress::Unix(before), LocalAddress::Unix(now)) => before != now,
            _ => false,
        };
        self.port != settings.port
            || self.addresses != settings.listen_addresses
            || moved(&self.local, &settings.local)
            || moved(&self.local_replication, &settings.local_replication)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn settings(addresses: &str, port: u16, local: LocalAddress) -> Settings {
        let mut settings = Settings::new("pg1", "batman", "/data");
        settings.listen_addresses = addresses.into();
        settings.port = port;
        settings.local = local;
        settings
    }

    #[test]
    fn addresses_stay_until_the_server_has_the_new_ones() {
        let tcp = |host: &str| LocalAddress::Tcp(host.into());
        let unix = |directory: &str| LocalAddress::Unix(PathBuf::from(directory));
        let postmaster = PostmasterIdentity {
            pid: 7,
            start_ticks: 7,
        };
        for (before, now, in_force) in [
            (("a", 1, tcp("a")), ("a", 1, tcp("a")), (1, tcp("a"))),
            (("a", 1, tcp("a")), ("a", 2, tcp("a")), (1, tcp("a"))),
            (("a", 1, tcp("a")), ("b", 1, tcp("b")), (1, tcp("a"))),
            (("a", 1, unix("/a")), ("a", 1, unix("/b")), (1, unix("/a"))),
            (("a", 1, tcp("a")), ("a", 1, unix("/b")), (1, unix("/b"))),
        ] {
            let (addresses, port, local) = before.clone();
            let before = settings(addresses, port, local);
            let mut listening = Listening::new(postmaster, &before);
            // Also the second time that they are told.
            for _ in 0..2 {
                let (addresses, port, local) = now.clone();
                let held = listening.hold(settings(addresses, port, local));
                assert_eq!((held.port, held.local), in_force, "{now:?}");
            }
            let back = listening.hold(before.clone());
            assert_eq!((back.port, back.local), (before.port, before.local));
        }
    }

    #[test]
    fn a_running_server_is_found_where_it_says() {
        let tcp = |host: &str| LocalAddress::Tcp(host.into());
        let unix = |directory: &str| LocalAddress::Unix(PathBuf::from(directory));
        let two = || settings("10.0.0.1,127.0.0.1", 1, tcp("localhost"));
        let (as_configured, moved) = ("10.0.0.1,127.0.0.1", "10.0.0.2");
        for (mut configured, told, all, in_force) in [
            (
                two(),
                (1, "/a", "127.0.0.1"),
                false,
                (as_configured, 1, tcp("localhost")),
            ),
            (
                two(),
                (2, "/a", "10.0.0.1"),
                false,
                (as_configured, 2, tcp("localhost")),
            ),
            (
                two(),
                (2, "/a", as_configured),
                true,
                (as_configured, 2, tcp("localhost")),
            ),
            (
                two(),
                (1, "/a", "10.0.0.1"),
                true,
                ("10.0.0.1", 1, tcp("10.0.0.1")),
            ),
            (two(), (1, "/a", moved), false, (moved, 1, tcp(moved))),
            (
                two(),
                (1, "/a", "10.0.0.9, *"),
                true,
                ("10.0.0.9, *", 1, tcp("localhost")),
            ),
            (
                settings("b", 1, unix("/a")),
                (2, "/c", "b"),
                true,
                ("b", 2, unix("/c")),
            ),
            // Not in a way that is of use.
            (
                settings("b", 1, unix("/a")),
                (1, "c", ""),
                true,
                ("b", 1, unix("/a")),
            ),
        ] {
            let (port, directory, addresses) = told;
            let told = Listens {
                port: Some(port),
                socket_directory: Some(directory.into()),
                addresses: Some(addresses.into()),
                all,
            };
            adopt(&mut configured, &told);
            let found = (
                configured.listen_addresses.as_str(),
                configured.port,
                configured.local,
            );
            assert_eq!(found, in_force, "{told:?}");
        }
        let silent = Listens {
            port: None,
            socket_directory: None,
            addresses: None,
            all: false,
        };
        let mut configured = two();
        adopt(&mut configured, &silent);
        assert_eq!((configured.port, configured.local), (1, tcp("localhost")));
    }
}
