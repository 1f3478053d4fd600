//! How long an agent takes until it answers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use primacy_testkit::{TestCluster, http};

use crate::{median, milliseconds};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(2);
/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Kills the agent of a replica, whose server runs on, and times the next one from its start to its first answer
/// over REST. The median of three, in milliseconds.
pub(crate) async fn first_answer(cluster: &mut TestCluster, member: usize) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..3 {
        cluster.agents[member].sigkill().await?;
        let begin = Instant::now();
        cluster.start_agent(member)?;
        let port = cluster.agents[member].rest_port;
        while http::request(port, "GET", "/liveness", None, Duration::from_secs(1))
            .await
            .is_err()
        {
            ensure!(begin.elapsed() < LIMIT, "the agent does not answer");
            tokio::time::sleep(PAUSE).await;
        }
        times.push(milliseconds(begin.elapsed()));
        cluster.wait_healthy().await?;
    }
    Ok(median(times))
}
