//! The etcd store keeps the contract on a real cluster of three, whatever happens to it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use primacy_dcs::conformance::{self, Fixture};
use primacy_dcs::{
    Change, ClusterStore, Condition, Discovery, Etcd3, Etcd3Config, Outcome, Store, StoreError,
    WatchEvent, Write,
};
use primacy_model::{Lsn, MemberData, MemberName};
use primacy_net::{ClientOptions, HeaderMap, HttpClient, Method};
use primacy_testkit::etcd::EtcdCluster;
use simple_dns::rdata::{RData, SRV};
use simple_dns::{CLASS, Name, Packet, RCODE, ResourceRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

struct Etcd {
    cluster: EtcdCluster,
    clients: [Arc<Etcd3>; 3],
    /// Cuts the answers of the first client, if it is there at all.
    cut: Option<Arc<AtomicBool>>,
}

fn client(endpoints: Vec<String>, use_proxies: bool) -> Arc<Etcd3> {
    let config = Etcd3Config {
        endpoints,
        use_proxies,
        ..Etcd3Config::default()
    };
    Arc::new(Etcd3::new(config).unwrap())
}

impl Etcd {
    async fn start() -> Self {
        let cluster = EtcdCluster::start(3).await.unwrap();
        let clients = [0, 1, 2].map(|_| client(cluster.endpoints(), false));
        Etcd {
            cluster,
            clients,
            cut: None,
        }
    }

    /// The first client gets at etcd only through a relay that can cut its answers off.
    async fn start_with_relay() -> Self {
        let mut etcd = Etcd::start().await;
        let cut = Arc::new(AtomicBool::new(false));
        let relay = relay(etcd.cluster.host(0), cut.clone()).await;
        etcd.clients[0] = client(vec![format!("http://{relay}")], true);
        etcd.cut = Some(cut);
        etcd
    }
}

#[async_trait]
impl Fixture for Etcd {
    fn client(&self, number: usize) -> Arc<dyn Store> {
        self.clients[number].clone()
    }

    async fn lose_answers(&self, client: usize, lose: bool) {
        assert_eq!(client, 0, "only the first client goes through the relay");
        self.cut.as_ref().unwrap().store(lose, Ordering::SeqCst);
    }

    async fn freeze_member(&self, member: usize) {
        self.cluster.freeze_member(member);
    }

    async fn thaw_member(&self, member: usize) {
        self.cluster.thaw_member(member);
    }

    async fn kill_leader(&self) {
        let leader = self.cluster.leader().await.unwrap();
        self.cluster.kill_member(leader).unwrap();
    }

    async fn lose_quorum(&self) {
        let leader = self.cluster.leader().await.unwrap();
        self.cluster.kill_member(leader).unwrap();
        self.cluster.freeze_member((leader + 1) % 3);
    }

    async fn restore(&self) {
        for member in 0..3 {
            self.cluster.thaw_member(member);
        }
        self.cluster.start_all().unwrap();
    }
}

/// Passes requests on; answers too, until they are cut: then the connection breaks at the answer's first byte.
async fn relay(upstream: String, cut: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (upstream, cut) = (upstream.clone(), cut.clone());
            tokio::spawn(async move {
                let server = TcpStream::connect(upstream).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let requests = tokio::io::copy(&mut from_client, &mut to_server);
                let answers = async {
                    let mut buffer = vec![0; 65536];
                    loop {
                        let length = from_server.read(&mut buffer).await.unwrap_or(0);
                        if length == 0 || cut.load(Ordering::SeqCst) {
                            return;
                        }
                        if to_client.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    _ = requests => {}
                    () = answers => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults() {
    let etcd = Etcd::start().await;
    conformance::writes(&etcd).await;
    conformance::reads(&etcd).await;
    conformance::leases(&etcd).await;
    conformance::watches(&etcd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers() {
    conformance::lost_answers(&Etcd::start_with_relay().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_member() {
    conformance::frozen_member(&Etcd::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_loss() {
    conformance::leader_loss(&Etcd::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_loss() {
    conformance::quorum_loss(&Etcd::start().await).await;
}

fn put(key: &str) -> Write {
    let change = Change::Put {
        value: b"x".to_vec(),
        lease: None,
    };
    Write {
        key: key.into(),
        change,
        condition: Condition::Always,
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Nobody listens: that is definite, and told at once when the deadline is.
#[tokio::test]
async fn nobody_there() {
    let store = client(vec!["http://127.0.0.1:1".into()], false);
    let begin = Instant::now();
    let deadline = begin + Duration::from_secs(2);
    let error = store.write(put("/x"), deadline).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    for bad in ["", "127.0.0.1:2379", "ftp://h:1", "http://user:secret@h:1"] {
        let config = Etcd3Config {
            endpoints: vec![bad.into()],
            ..Etcd3Config::default()
        };
        let error = Etcd3::new(config).err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
    assert!(Etcd3::new(Etcd3Config::default()).is_err());
}

/// One configured endpoint is enough to learn of the others, and to go on when that one dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_discovered() {
    let etcd = Etcd::start().await;
    let store = client(vec![etcd.cluster.endpoints()[1].clone()], false);
    // The list comes in the background; it is there soon after the first call, and surely after some more.
    for _ in 0..20 {
        store.write(put("/before"), soon()).await.unwrap();
    }
    etcd.cluster.kill_member(1).unwrap();
    let mut outcome = store.write(put("/after"), soon()).await;
    while outcome.as_ref().is_err_and(StoreError::is_unknown) {
        outcome = store.write(put("/after"), soon()).await;
    }
    outcome.unwrap();
}

/// A member that knows of no leader says so before it proposes anything: that is definite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_nothing_is_written() {
    let etcd = Etcd::start().await;
    let store = &etcd.clients[0];
    store.write(put("/x"), soon()).await.unwrap();
    let leader = etcd.cluster.leader().await.unwrap();
    etcd.cluster.kill_member(leader).unwrap();
    etcd.cluster.kill_member((leader + 1) % 3).unwrap();
    // For an election timeout the survivor believes in the leader that is gone.
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let deadline = Instant::now() + Duration::from_secs(2);
        match store.write(put("/x"), deadline).await.unwrap_err() {
            StoreError::Unavailable { reason, .. } if reason.contains("no leader") => return,
            error => assert!(Instant::now() < limit, "{error}"),
        }
    }
}

/// One member after the other dies while somebody writes: the watch hangs on one of them, and misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_every_member() {
    let etcd = Etcd::start().await;
    let (writer, watcher) = (&etcd.clients[0], &etcd.clients[1]);
    let mut watch = watcher.watch("/w/");
    let event = timeout(PATIENCE, watch.recv()).await.unwrap();
    assert_eq!(event, Some(WatchEvent::Resync), "the watch is live");
    let mut written = Vec::new();
    for member in 0..3 {
        etcd.cluster.kill_member(member).unwrap();
        for number in 0..10 {
            let key = format!("/w/{member}-{number}");
            // What is unknown is written again, which the watch may see as well.
            while writer.write(put(&key), soon()).await.is_err() {}
            written.push(key);
        }
        etcd.cluster.start_member(member).unwrap();
        etcd.cluster.wait_healthy().await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.last() != written.last() {
        match timeout(PATIENCE, watch.recv())
            .await
            .expect("the watch goes on")
            .unwrap()
        {
            WatchEvent::Put(entry) => seen.push(entry.key),
            WatchEvent::Reached(_) => {}
            other => panic!("{other:?}: nothing was compacted, so nothing can be missed"),
        }
    }
    let mut known = HashSet::new();
    seen.retain(|key| known.insert(key.clone()));
    assert_eq!(seen, written);
}

/// What the watch tells, put together, is what a read shows, with leases and with what one lease takes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_what_a_read_shows() {
    let etcd = Etcd::start().await;
    let cluster = |client: usize| ClusterStore::new(etcd.clients[client].clone(), "m", "demo");
    let (writer, watcher) = (cluster(0), cluster(1));
    let mirror = Mutex::new(watcher.mirror());
    let mut watch = watcher.watch();
    assert_eq!(watch.recv().await, Some(WatchEvent::Resync));
    watcher.read_mirrored(&mirror, soon()).await.unwrap();

    let ttl = Duration::from_secs(60);
    let mut lease = writer.grant_lease(ttl, soon()).await.unwrap();
    for number in 0..40_u64 {
        let member = |letter| MemberName::from(letter);
        let data = MemberData {
            xlog_location: Some(Lsn(number)),
            ..MemberData::default()
        };
        match number % 5 {
            0 | 1 => {
                let name = member(if number % 2 == 0 { "a" } else { "b" });
                let put = writer.put_member(&name, &data, &lease, soon()).await;
                assert!(matches!(put, Ok(Outcome::Done(_))));
            }
            2 => drop(writer.delete_member(&member("b"), soon()).await.unwrap()),
            3 => {
                let put = writer.put_member(&member("c"), &data, &lease, soon()).await;
                assert!(matches!(put, Ok(Outcome::Done(_))));
            }
            _ => {
                writer.revoke_lease(&lease, soon()).await.unwrap();
                lease = writer.grant_lease(ttl, soon()).await.unwrap();
            }
        }
        let other = Mutex::new(writer.mirror());
        let (now, revision) = writer.read_mirrored(&other, soon()).await.unwrap();
        while mirror.lock().unwrap().revision() < revision {
            let event = timeout(PATIENCE, watch.recv()).await.unwrap().unwrap();
            mirror.lock().unwrap().take(event);
        }
        let mirror = mirror.lock().unwrap();
        assert_eq!((mirror.cluster(), mirror.revision()), (Some(now), revision));
    }
}

/// What came while the watch was cut off is compacted away: it has to say that it missed something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_of_what_it_has_missed() {
    let etcd = Etcd::start_with_relay().await;
    let (cut_off, writer) = (&etcd.clients[0], &etcd.clients[1]);
    let mut watch = cut_off.watch("/w/");
    let next = async |watch: &mut Receiver<WatchEvent>| {
        loop {
            let event = timeout(PATIENCE, watch.recv()).await;
            match event.expect("the watch goes on").unwrap() {
                WatchEvent::Reached(_) => {}
                event => return event,
            }
        }
    };
    assert_eq!(
        next(&mut watch).await,
        WatchEvent::Resync,
        "the watch is live"
    );
    etcd.lose_answers(0, true).await;
    let mut revision = 0;
    for number in 0..5 {
        match writer
            .write(put(&format!("/w/{number}")), soon())
            .await
            .unwrap()
        {
            Outcome::Done(version) => revision = version.0,
            outcome => panic!("{outcome:?}"),
        }
    }
    let http = HttpClient::new(ClientOptions::default());
    let url = format!("http://{}/v3/kv/compaction", etcd.cluster.host(0));
    let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
    let answer = http
        .request(Method::POST, &url, HeaderMap::new(), body.into(), soon())
        .await;
    assert!(answer.unwrap().status.is_success());
    etcd.lose_answers(0, false).await;
    assert_eq!(next(&mut watch).await, WatchEvent::Resync);
    writer.write(put("/w/after"), soon()).await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Put(entry) if entry.key == "/w/after"));
}

/// A name server with these SRV records: name, and port on this machine. Of port 0, it refuses to tell.
async fn name_server(records: Vec<(String, u16)>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            let mut packet = Packet::parse(&question[..length]).unwrap().into_reply();
            let asked = packet.questions[0].qname.clone();
            for (name, port) in &records {
                if *name == asked.to_string() && *port == 0 {
                    *packet.rcode_mut() = RCODE::Refused;
                } else if *name == asked.to_string() {
                    let (target, port) = (Name::new("127.0.0.1").unwrap(), *port);
                    let (priority, weight) = (0, 0);
                    let srv = RData::SRV(SRV {
                        priority,
                        weight,
                        port,
                        target,
                    });
                    let record = ResourceRecord::new(asked.clone(), CLASS::IN, 60, srv);
                    packet.answers.push(record);
                }
            }
            let answer = packet.build_bytes_vec().unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_cluster_is_found_by_srv_records() {
    let cluster = EtcdCluster::start(1).await.unwrap();
    let ports = cluster.ports();
    let (serving, peer) = (ports[0], ports[1]);
    let record = |service: &str, port: u16| (format!("_etcd{service}._tcp.test"), port);
    let reads = async |records: Vec<(String, u16)>,
                       suffix: Option<&str>,
                       hosts: Vec<String>,
                       deadline: Instant| {
        let store = Etcd3::new(Etcd3Config {
            endpoints: hosts,
            discovery: Some(Discovery {
                domain: "test".into(),
                suffix: suffix.map(str::to_owned),
                name_servers: vec![name_server(records).await],
            }),
            ..Etcd3Config::default()
        });
        store.unwrap().read("/x/", deadline).await
    };
    let briefly = || Instant::now() + Duration::from_secs(2);
    for (records, suffix, hosts) in [
        (vec![record("-client", serving)], None, vec![]),
        // Those configured are for when there are no records.
        (
            vec![record("", serving)],
            None,
            vec!["http://127.0.0.1:1".to_owned()],
        ),
        (vec![], None, cluster.endpoints()),
        (
            vec![record("-client-b", serving), record("-client", 1)],
            Some("b"),
            vec![],
        ),
        // The first name that has any counts; what a name server refuses, has none.
        (
            vec![
                record("-client-ssl", 0),
                record("-client", serving),
                record("", 1),
            ],
            None,
            vec![],
        ),
        // Peers are asked for the addresses that serve clients.
        (
            vec![record("-server", 1), record("-server", peer)],
            None,
            vec![],
        ),
    ] {
        let read = reads(records.clone(), suffix, hosts, soon()).await;
        assert!(read.is_ok(), "{records:?}: {read:?}");
    }
    for records in [
        // By TLS, which this cluster does not speak.
        vec![record("-client-ssl", serving)],
        vec![record("-client-ssl", 1), record("-client", serving)],
        vec![record("", 1), record("-server", peer)],
    ] {
        let read = reads(records.clone(), None, vec![], briefly()).await;
        assert!(read.is_err(), "{records:?}: {read:?}");
    }
    let error = reads(
        vec![record("-client", serving)],
        Some("c"),
        vec![],
        briefly(),
    )
    .await
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the domain test has no SRV records of etcd"),
        "{error}"
    );
}
