//! Opening a TCP connection that notices when the other side has died.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// When a connection whose peer went silent is given up (`dcs.md` §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Probes without an answer until the connection is dead.
    pub probes: u32,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
}

impl KeepAlive {
    /// The settings for a client whose lease lasts `ttl` and which has something to say every `idle`:
    /// three probes, spread over what is left of the lease.
    pub fn within(ttl: Duration, idle: Duration) -> Self {
        let interval = (ttl.saturating_sub(idle) / 3).max(Duration::from_secs(1));
        KeepAlive {
            idle,
            interval,
            probes: 3,
            user_timeout: ttl,
        }
    }
}

/// Connects to the first address of the name that answers; every address gets its share of the time.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    keep_alive: Option<KeepAlive>,
    deadline: Instant,
) -> io::Result<TcpStream> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "timed out");
    let resolved = timeout_at(deadline, tokio::net::lookup_host((host, port)));
    let addresses: Vec<SocketAddr> = resolved.await.map_err(|_| late())??.collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                set_options(&stream, keep_alive)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = late(),
        }
    }
    Err(failure)
}

/// Sends small messages at once, and notices a silent peer.
pub(crate) fn set_options(stream: &TcpStream, keep_alive: Option<KeepAlive>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(keep_alive) = keep_alive {
        let socket = SockRef::from(stream);
        let probes = TcpKeepalive::new()
            .with_time(keep_alive.idle)
            .with_interval(keep_alive.interval)
            .with_retries(keep_alive.probes);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(keep_alive.user_timeout))?;
    }
    Ok(())
}
