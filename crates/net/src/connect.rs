//! Opening a TCP connection that notices when the other side has died.

use std::time::Duration;

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
