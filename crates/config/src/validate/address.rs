use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Options;

/// How long one attempt to connect may take: three times a slow round trip, for a person waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Nothing may listen there yet.
pub(super) fn listen(text: &str, options: Options) -> Result<(), String> {
    let (host, port) = split(text)?;
    unused(&[host.as_str()], port, options)
}

/// As [`listen`], for hosts with commas; `*` only alone.
pub(super) fn listen_list(text: &str, options: Options) -> Result<(), String> {
    let (hosts, port) = split(text)?;
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    if hosts.len() > 1 && hosts.contains(&"*") {
        return Err("expecting '*' alone".into());
    }
    unused(&hosts, port, options)
}

fn unused(hosts: &[&str], port: u16, options: Options) -> Result<(), String> {
    for host in hosts {
        if resolve(host, port)?.iter().any(connects) && !options.ignore_listen_port {
            return Err(format!("Port {port} is already in use."));
        }
    }
    Ok(())
}

/// An address that means something to other hosts.
pub(super) fn public(text: &str, _: Options) -> Result<(), String> {
    const LOCAL: [&str; 5] = ["127.0.0.1", "0.0.0.0", "*", "::1", "localhost"];
    let (host, _) = split(text)?;
    if LOCAL.contains(&host.as_str()) {
        let names = LOCAL.map(|name| format!("\"{name}\"")).join(", ");
        return Err(format!("must not contain {names}"));
    }
    Ok(())
}

/// Something must listen there.
pub(super) fn reachable(text: &str, _: Options) -> Result<(), String> {
    let (host, port) = split(text)?;
    if resolve(&host, port)?.iter().any(connects) {
        Ok(())
    } else {
        Err(format!("{text} is not reachable"))
    }
}

pub(super) fn ipv4(text: &str, _: Options) -> Result<(), String> {
    text.parse::<Ipv4Addr>()
        .map(drop)
        .map_err(|_| "Is not a valid ipv4 address".into())
}

pub(super) fn ipv6(text: &str, _: Options) -> Result<(), String> {
    text.parse::<Ipv6Addr>()
        .map(drop)
        .map_err(|_| "Is not a valid ipv6 address".into())
}

fn split(text: &str) -> Result<(String, u16), String> {
    crate::address::split_host_port("", text, Some(1)).map_err(|_| "contains a wrong value".into())
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if matches!(host, "*" | "") {
        return Ok(vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ]);
    }
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| resolver_words(&error.to_string()))?;
    Ok(addresses.collect())
}

/// What the resolver says, after the number that it has for it, as Python's users know it.
fn resolver_words(text: &str) -> String {
    const NUMBERS: [(i32, &str); 3] = [
        (-2, "Name or service not known"),
        (-3, "Temporary failure in name resolution"),
        (-5, "No address associated with hostname"),
    ];
    let words = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(text);
    match NUMBERS.iter().find(|(_, known)| *known == words) {
        Some((number, _)) => format!("[Errno {number}] {words}"),
        None => words.to_owned(),
    }
}

fn connects(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, CONNECT_TIMEOUT).is_ok()
}
