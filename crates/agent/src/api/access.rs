//! Who may change something (`rest-api.md` §2). Pure but for the host names of the allowlist, which are
//! resolved when the settings are taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use primacy_config::local::{RestApi, VerifyClient};

use super::answer::Answer;

/// For one name of the allowlist or of a member's address: a resolver that does not answer must not hold a
/// request for longer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Something is on the list, even if it could not be resolved: then nobody else is let in.
    listed: bool,
    networks: Vec<Network>,
    include_members: bool,
    certificate: bool,
    authorization: Option<Expected>,
}

/// What is known of the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) address: IpAddr,
    pub(crate) certificate: bool,
    pub(crate) authorization: Option<&'a [u8]>,
}

impl Access {
    /// Takes the settings; what cannot be used of the allowlist is logged and left out.
    pub(crate) async fn new(section: &RestApi) -> Self {
        let mut networks = Vec::new();
        for entry in &section.allowlist {
            if entry.contains('/') {
                match Network::parse(entry) {
                    Some(network) => networks.push(network),
                    None => tracing::error!(
                        "Invalid value \"{entry}\" in the allowlist: expected an address and a prefix length"
                    ),
                }
            } else {
                networks.extend(resolve(entry).await.into_iter().map(Network::host));
            }
        }
        Access {
            listed: !section.allowlist.is_empty(),
            networks,
            include_members: section.allowlist_include_members,
            certificate: section.certfile.is_some() && section.verify_client != VerifyClient::None,
            authorization: section
                .authentication
                .as_ref()
                .map(|auth| Expected::new(&auth.username, auth.password.expose())),
        }
    }

    /// Whether the members' addresses must be known for [`Access::check`]: they are resolved per request,
    /// and only when the list alone does not let the caller in.
    pub(crate) fn needs_members(&self, address: IpAddr) -> bool {
        self.include_members && !self.is_listed(address)
    }

    /// The first failure of §2.2, if any. `members` are the members' addresses; a request between members
    /// (`failsafe`) is judged by the list alone.
    pub(crate) fn check(
        &self,
        caller: Caller<'_>,
        members: &[IpAddr],
        failsafe: bool,
    ) -> Result<(), Answer> {
        let by_membership = self.include_members && !failsafe;
        if self.listed || by_membership {
            let address = unmap(caller.address);
            let is_member = by_membership && members.iter().any(|member| unmap(*member) == address);
            if !is_member && !self.is_listed(address) {
                return Err(Answer::text(403, "Access is denied"));
            }
        }
        if self.certificate && !caller.certificate {
            return Err(Answer::text(403, "client certificate required"));
        }
        let refusal = match (&self.authorization, caller.authorization) {
            (None, _) => return Ok(()),
            (Some(_), None) => "no auth header received",
            (Some(expected), Some(given)) if expected.is(given) => return Ok(()),
            (Some(_), Some(_)) => "not authenticated",
        };
        Err(Answer::text(401, refusal).with_header("WWW-Authenticate", "Basic realm=\"Patroni\""))
    }

    fn is_listed(&self, address: IpAddr) -> bool {
        let address = unmap(address);
        self.networks
            .iter()
            .any(|network| network.contains(address))
    }
}

/// All addresses of a host. Failures are logged.
pub(crate) async fn resolve(host: &str) -> Vec<IpAddr> {
    let host = host.trim().trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            tracing::error!("Failed to resolve {host}: {error}");
            Vec::new()
        }
        Err(_) => {
            tracing::error!(
                "Failed to resolve {host}: no answer within {} s",
                RESOLVE_TIMEOUT.as_secs()
            );
            Vec::new()
        }
    }
}

/// On a dual-stack socket an IPv4 client appears as `::ffff:a.b.c.d`, and is meant by IPv4 entries (A6).
fn unmap(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn host(address: IpAddr) -> Self {
        let address = unmap(address);
        Network {
            address,
            bits: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// `10.0.0.0/16`, `10.0.0.0/255.255.0.0`, `fd00::/8`; bits beyond the prefix may be set.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        let address: IpAddr = address.trim().parse().ok()?;
        let bits = match prefix.trim().parse::<Ipv4Addr>() {
            Ok(mask) if address.is_ipv4() => {
                let bits = u32::from(mask).leading_ones();
                (u32::from(mask) == prefix_v4(bits)).then_some(bits)?
            }
            _ => prefix.trim().parse().ok()?,
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Network { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = prefix_v4(self.bits);
                u32::from(network) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                bits_v6(network) & mask == bits_v6(address) & mask
            }
            _ => false,
        }
    }
}

fn prefix_v4(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

fn bits_v6(address: Ipv6Addr) -> u128 {
    u128::from(address)
}

/// The only `Authorization` header that is accepted.
struct Expected(Vec<u8>);

impl Expected {
    fn new(username: &str, password: &str) -> Self {
        Expected(
            format!(
                "Basic {}",
                STANDARD.encode(format!("{username}:{password}"))
            )
            .into_bytes(),
        )
    }

    /// Takes the same time whatever bytes differ.
    fn is(&self, given: &[u8]) -> bool {
        let differing = self
            .0
            .iter()
            .zip(given)
            .fold(0, |differing, (a, b)| differing | (a ^ b));
        std::hint::black_box(differing) == 0 && self.0.len() == given.len()
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expected(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(entries: &[&str]) -> Vec<Network> {
        entries
            .iter()
            .map(|entry| Network::parse(entry).unwrap())
            .collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain() {
        let cases = [
            ("10.1.2.3/16", "10.1.255.1", true),
            ("10.1.2.3/16", "10.2.0.1", false),
            ("10.1.0.0/255.255.0.0", "10.1.9.9", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "fd00::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("192.0.2.1/32", "192.0.2.1", true),
        ];
        for (network, client, expected) in cases {
            assert_eq!(
                networks(&[network])[0].contains(address(client)),
                expected,
                "{network} {client}"
            );
        }
        for entry in [
            "10.0.0.0/33",
            "x/8",
            "10.0.0.0/",
            "10.0.0.0/255.0.255.0",
            "::/129",
        ] {
            assert_eq!(Network::parse(entry), None, "{entry}");
        }
    }

    /// `rest-api.md` §2.2, the rows and their order.
    #[test]
    fn first_failure_answers() {
        let access = Access {
            listed: true,
            networks: networks(&["10.0.0.0/8"]),
            include_members: true,
            certificate: true,
            authorization: Some(Expected::new("patroni", "p:w")),
        };
        let members = [address("192.0.2.7")];
        let good = STANDARD.encode("patroni:p:w");
        let good = format!("Basic {good}");
        let lower = good.replace("Basic", "basic");
        let check = |client: &str, certificate, authorization: Option<&str>, failsafe| {
            let authorization = authorization.map(str::as_bytes);
            let caller = Caller {
                address: address(client),
                certificate,
                authorization,
            };
            match access.check(caller, &members, failsafe) {
                Ok(()) => (200, String::new()),
                Err(Answer::Text { code, text, .. }) => (code, text.into_owned()),
                Err(other) => panic!("{other:?}"),
            }
        };
        let cases = [
            (
                "192.0.2.1",
                true,
                Some(good.as_str()),
                false,
                403,
                "Access is denied",
            ),
            (
                "192.0.2.7",
                true,
                Some(good.as_str()),
                true,
                403,
                "Access is denied",
            ),
            ("192.0.2.7", true, Some(good.as_str()), false, 200, ""),
            (
                "10.9.9.9",
                false,
                Some(good.as_str()),
                false,
                403,
                "client certificate required",
            ),
            (
                "10.9.9.9",
                true,
                None,
                false,
                401,
                "no auth header received",
            ),
            (
                "10.9.9.9",
                true,
                Some("Basic xyz"),
                false,
                401,
                "not authenticated",
            ),
            ("10.9.9.9", true, Some(""), false, 401, "not authenticated"),
            (
                "10.9.9.9",
                true,
                Some(lower.as_str()),
                false,
                401,
                "not authenticated",
            ),
            ("10.9.9.9", true, Some(good.as_str()), true, 200, ""),
            ("::ffff:10.9.9.9", true, Some(good.as_str()), false, 200, ""),
        ];
        for (client, certificate, authorization, failsafe, code, text) in cases {
            let expected = (code, text.to_owned());
            assert_eq!(
                check(client, certificate, authorization, failsafe),
                expected,
                "{client} {authorization:?}"
            );
        }
    }

    #[test]
    fn nothing_configured_lets_everybody_in() {
        let caller = Caller {
            address: address("192.0.2.1"),
            certificate: false,
            authorization: None,
        };
        assert_eq!(Access::default().check(caller, &[], false), Ok(()));
        assert!(!Access::default().needs_members(caller.address));
    }

    proptest! {
        #[test]
        fn any_entry_is_taken_or_refused(text in "\\PC{0,20}|[0-9a-f:.]{0,20}/[0-9.]{0,15}", client: u32) {
            if let Some(network) = Network::parse(&text) {
                let _ = network.contains(Ipv4Addr::from(client).into());
                prop_assert!(network.contains(unmap(network.address)) || network.address.is_ipv6());
            }
        }
    }
}
