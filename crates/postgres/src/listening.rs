//! Where the server that runs is found. The hazard: a reload may say that the server listens elsewhere, which it does only
//! after its next start; an agent that believed it at once would take a healthy server for one that does not answer.

use primacy_model::PostmasterIdentity;

use crate::settings::{LocalAddress, Settings};

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
}
