//! What the configuration says of the members' patience is what they have (`configuration.md` §2.10).

use std::time::Duration;

use primacy_config::local::RaftTimings;
use tokio::net::TcpListener;

use super::TestGroup;
use crate::handshake::Identity;
use crate::node::library_config;

const TIMINGS: RaftTimings = RaftTimings {
    append_entries_period: Duration::from_millis(70),
    min_timeout: Duration::from_millis(400),
    max_timeout: Duration::from_millis(1400),
    connection_timeout: Duration::from_millis(90),
};

#[test]
fn the_consensus_library_has_the_configured_timings() {
    let config = library_config(TIMINGS, true).unwrap();
    let told = (
        config.heartbeat_interval,
        config.election_timeout_min,
        config.election_timeout_max,
    );
    assert_eq!(told, (70, 200, 700), "halves of the whole silence");
}

#[tokio::test]
async fn a_member_that_says_nothing_is_waited_for_as_long_as_configured() {
    let mut config = TestGroup::new(1).config(0);
    config.timings = TIMINGS;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let dialled = Identity::new(&config, None).dial(&address).await;
    let told = dialled.map(drop).unwrap_err().to_string();
    assert!(told.contains("no answer within 90ms"), "{told}");
}
