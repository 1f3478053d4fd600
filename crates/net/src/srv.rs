//! SRV records: which hosts serve something in a domain (RFC 2782). Addresses of hosts are resolved by the system.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

/// What a name server of one's own network needs is milliseconds; then the next one is asked.
const EACH: Duration = Duration::from_secs(2);

/// Where the system's name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Asks name servers.
#[derive(Clone, Debug)]
pub struct SrvResolver {
    servers: Vec<SocketAddr>,
    /// Domains that a name may be meant in.
    search: Vec<String>,
    /// A name with as many dots is asked for as it is before it is asked for in these domains.
    dots: usize,
}

/// Nobody could tell.
#[derive(Debug, thiserror::Error)]
pub enum SrvError {
    /// The system's name servers are not known.
    #[error("cannot read {RESOLV_CONF}, which names the name servers")]
    NoServers(#[source] std::io::Error),
    /// Not a name.
    #[error("{0} is not a domain name")]
    NotAName(String),
    /// No name server answered, or all refused.
    #[error("no name server tells of {name}: {reason}")]
    NoAnswer {
        /// What was asked for.
        name: String,
        /// Why the last one that was asked did not.
        reason: String,
    },
}

impl SrvResolver {
    /// The name servers of this machine, as they are now.
    ///
    /// # Errors
    /// The file that names them cannot be read.
    pub async fn of_system() -> Result<Self, SrvError> {
        let text = tokio::fs::read(RESOLV_CONF)
            .await
            .map_err(SrvError::NoServers)?;
        Ok(Self::of_config(&text))
    }

    /// Those of a file like resolv.conf(5). What cannot be understood of it is left out, as the system's resolver does.
    fn of_config(text: &[u8]) -> Self {
        let (config, _) = resolv_conf::Config::parse_with_errors(text);
        let servers = config.get_nameservers_or_local();
        let servers = servers
            .iter()
            .map(|server| SocketAddr::new(IpAddr::from(server), 53));
        let mut search: Vec<_> = config.get_last_search_or_domain().cloned().collect();
        if search.is_empty() {
            search.extend(config.get_system_domain());
        }
        SrvResolver {
            servers: servers.collect(),
            search,
            dots: usize::try_from(config.ndots).unwrap_or(usize::MAX),
        }
    }

    /// These name servers, for whole names.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        SrvResolver {
            servers,
            search: Vec::new(),
            dots: 1,
        }
    }

    /// What a name may stand for, in the order in which it is asked for; one that ends with a dot stands for itself.
    fn meanings(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let domains = self.search.iter().map(|domain| domain.trim_matches('.'));
        let mut meanings: Vec<_> = domains.map(|domain| format!("{name}.{domain}")).collect();
        let as_it_is = if name.matches('.').count() < self.dots {
            meanings.len()
        } else {
            0
        };
        meanings.insert(as_it_is, name.to_owned());
        meanings
    }

    /// The hosts and ports of a name's records, none if it has none. Priorities and weights don't matter to a cluster
    /// of equals.
    ///
    /// # Errors
    /// No name server answered before the deadline.
    pub async fn lookup(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Vec<(String, u16)>, SrvError> {
        if Name::new(name.trim_end_matches('.')).is_err() {
            return Err(SrvError::NotAName(name.to_owned()));
        }
        for meaning in self.meanings(name) {
            let id = rand::random();
            // In a domain with a long name it may be too long.
            let Some(query) = query(&meaning, id) else {
                continue;
            };
            if let Some(hosts) = self.ask_for(&meaning, &query, id, deadline).await? {
                return Ok(hosts);
            }
        }
        Ok(Vec::new())
    }

    /// None if there is no such name, which is something else than one without such records.
    async fn ask_for(
        &self,
        name: &str,
        query: &[u8],
        id: u16,
        deadline: Instant,
    ) -> Result<Option<Vec<(String, u16)>>, SrvError> {
        let mut reason = "there is none".to_owned();
        for server in &self.servers {
            let until = deadline.min(Instant::now() + EACH);
            let answer = match timeout_at(until, ask(*server, query, id)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    reason = format!("{server}: {error}");
                    continue;
                }
                Err(_) => {
                    reason = format!("{server} does not answer");
                    continue;
                }
            };
            match read(&answer, id) {
                Reply::Hosts(hosts) => return Ok(Some(hosts)),
                Reply::NoSuchName => return Ok(None),
                _ => reason = format!("{server} refuses, or answers something else"),
            }
        }
        Err(SrvError::NoAnswer {
            name: name.to_owned(),
            reason,
        })
    }
}

fn query(name: &str, id: u16) -> Option<Vec<u8>> {
    let name = Name::new(name.trim_end_matches('.')).ok()?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN));
    packet
        .questions
        .push(Question::new(name, kind, class, false));
    packet.build_bytes_vec().ok()
}

/// By UDP, and by TCP what is too long for it.
async fn ask(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From now on nobody else is heard.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        match read(&answer[..length], id) {
            Reply::Foreign => {}
            Reply::Truncated => break,
            _ => {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// What came from a name server.
enum Reply {
    Hosts(Vec<(String, u16)>),
    NoSuchName,
    /// The same is to be asked by TCP.
    Truncated,
    /// The server cannot or does not want to.
    Refused,
    /// Not an answer to this question.
    Foreign,
}

fn read(bytes: &[u8], id: u16) -> Reply {
    let header = bytes
        .first_chunk::<4>()
        .map(|[a, b, c, _]| (u16::from_be_bytes([*a, *b]), *c));
    match header {
        Some((of, flags)) if of == id && flags & 0x80 != 0 => {
            // What is cut off may not be readable.
            if flags & 0x02 != 0 {
                return Reply::Truncated;
            }
        }
        _ => return Reply::Foreign,
    }
    let Ok(packet) = Packet::parse(bytes) else {
        return Reply::Refused;
    };
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Reply::NoSuchName,
        _ => return Reply::Refused,
    }
    let hosts = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::SRV(srv) => {
                // A single dot: the service is decidedly not offered.
                let host = srv.target.to_string().trim_end_matches('.').to_owned();
                (!host.is_empty()).then_some((host, srv.port))
            }
            _ => None,
        });
    Reply::Hosts(hosts.collect())
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;
    use tokio::net::TcpListener;

    use super::*;

    /// An answer with these targets, to a question with any id.
    fn answer(question: &[u8], targets: &[(&str, u16)], rcode: RCODE, truncated: bool) -> Vec<u8> {
        let mut packet = Packet::parse(question).unwrap().into_reply();
        *packet.rcode_mut() = rcode;
        if truncated {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        for (target, port) in targets {
            let srv = SRV {
                priority: 0,
                weight: 0,
                port: *port,
                target: Name::new(target).unwrap(),
            };
            let name = packet.questions[0].qname.clone();
            packet
                .answers
                .push(ResourceRecord::new(name, CLASS::IN, 60, RData::SRV(srv)));
        }
        packet.build_bytes_vec().unwrap()
    }

    /// A name server that answers by UDP what `reply` makes of a question, and by TCP always with two hosts.
    async fn name_server(reply: fn(&[u8]) -> Option<Vec<u8>>) -> SocketAddr {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut question).await.unwrap();
                if let Some(reply) = reply(&question[..length]) {
                    udp.send_to(&reply, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut question).await.unwrap();
                let long = answer(
                    &question,
                    &[("a.example", 1), ("b.example", 2)],
                    RCODE::NoError,
                    false,
                );
                stream
                    .write_u16(u16::try_from(long.len()).unwrap())
                    .await
                    .unwrap();
                stream.write_all(&long).await.unwrap();
            }
        });
        address
    }

    async fn lookup(servers: Vec<SocketAddr>) -> Result<Vec<(String, u16)>, String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let looked_up = SrvResolver::new(servers)
            .lookup("_etcd._tcp.example", deadline)
            .await;
        looked_up.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn hosts_are_found_by_the_first_server_that_answers() {
        let host = |name: &str, port| (name.to_owned(), port);
        let good = name_server(|question| {
            Some(answer(
                question,
                &[("h.example", 2379)],
                RCODE::NoError,
                false,
            ))
        });
        let broken =
            name_server(|question| Some(answer(question, &[], RCODE::ServerFailure, false)));
        let silent = name_server(|_| None);
        let (good, broken, silent) = (good.await, broken.await, silent.await);
        assert_eq!(
            lookup(vec![silent, broken, good]).await.unwrap(),
            [host("h.example", 2379)]
        );

        let absent = name_server(|question| Some(answer(question, &[], RCODE::NameError, false)));
        assert_eq!(lookup(vec![absent.await, good]).await.unwrap(), []);
        let error = lookup(vec![broken]).await.unwrap_err();
        assert!(
            error.starts_with("no name server tells of _etcd._tcp.example: 127.0.0.1:"),
            "{error}"
        );
    }

    /// `resolv.conf(5)`, as dnspython reads it, by which Patroni asks.
    #[test]
    fn a_name_is_looked_for_in_the_domains_of_the_system() {
        let meanings = |config: &str, name: &str| {
            let resolver = SrvResolver::of_config(config.as_bytes());
            assert_eq!(resolver.servers, ["192.0.2.1:53".parse().unwrap()]);
            resolver.meanings(name)
        };
        let config =
            "nameserver 192.0.2.1\nnonsense\ndomain x.example\nsearch a.example b.example.\n";
        assert_eq!(
            meanings(config, "_etcd._tcp.db"),
            [
                "_etcd._tcp.db",
                "_etcd._tcp.db.a.example",
                "_etcd._tcp.db.b.example"
            ]
        );
        assert_eq!(meanings(config, "_etcd._tcp.db."), ["_etcd._tcp.db."]);
        let pod = format!("{config}options ndots:5\n");
        assert_eq!(
            meanings(&pod, "_etcd._tcp.db"),
            [
                "_etcd._tcp.db.a.example",
                "_etcd._tcp.db.b.example",
                "_etcd._tcp.db"
            ]
        );
        let one = "domain x.example\nnameserver 192.0.2.1";
        assert_eq!(meanings(one, "db"), ["db.x.example", "db"]);
    }

    #[tokio::test]
    async fn the_first_name_that_there_is_counts() {
        let server = name_server(|question| {
            let name = Packet::parse(question).unwrap().questions[0]
                .qname
                .to_string();
            Some(match &*name {
                "_etcd._tcp.db.b.example" => {
                    answer(question, &[("h.example", 2379)], RCODE::NoError, false)
                }
                "_etcd._tcp.empty.a.example" => answer(question, &[], RCODE::NoError, false),
                _ => answer(question, &[], RCODE::NameError, false),
            })
        });
        let resolver = SrvResolver {
            servers: vec![server.await],
            search: vec!["a.example".into(), "x.".repeat(125), "b.example".into()],
            dots: 1,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        let found = resolver.lookup("_etcd._tcp.db", deadline).await.unwrap();
        assert_eq!(found, [("h.example".to_owned(), 2379)]);
        for nothing in ["_etcd._tcp.db.", "_etcd._tcp.empty", "_etcd._tcp.other"] {
            assert_eq!(resolver.lookup(nothing, deadline).await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn what_is_too_long_comes_by_tcp_and_what_was_not_asked_for_is_not_heard() {
        let long = name_server(|question| Some(answer(question, &[], RCODE::NoError, true)));
        assert_eq!(lookup(vec![long.await]).await.unwrap().len(), 2);
        let forged = name_server(|question| {
            let mut other = answer(question, &[("evil.example", 1)], RCODE::NoError, false);
            other[0] ^= 1;
            Some(other)
        });
        assert!(lookup(vec![forged.await]).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_name_is_told() {
        let label = "x".repeat(64);
        let deadline = Instant::now() + Duration::from_secs(30);
        let error = SrvResolver::new(Vec::new())
            .lookup(&label, deadline)
            .await
            .unwrap_err();
        assert!(matches!(error, SrvError::NotAName(_)), "{error}");
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn answers_of_name_servers() {
        let question = query("_etcd-client._tcp.example", 7).unwrap();
        let mut reply = Packet::parse(&question).unwrap().into_reply();
        let target = Name::new("etcd1.example").unwrap();
        let srv = simple_dns::rdata::SRV {
            priority: 0,
            weight: 0,
            port: 2379,
            target,
        };
        let name = reply.questions[0].qname.clone();
        let record = simple_dns::ResourceRecord::new(name, CLASS::IN, 60, RData::SRV(srv));
        reply.answers.push(record);
        let plain = reply.build_bytes_vec().unwrap();
        let compressed = reply.build_bytes_vec_compressed().unwrap();
        primacy_fuzz::bytes(
            &[&plain, &compressed],
            |input| matches!(read(input, 7), Reply::Hosts(hosts) if !hosts.is_empty()),
        );
    }
}
