//! `patroni_aws`: a callback that tells by tags which role a member has, on its EC2 instance and on the volumes of it.

mod ec2;
mod metadata;

use std::fmt::Display;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use tokio::time::{Instant, sleep};

use crate::log::Log;
use ec2::{Ec2, Ec2Error};
use metadata::{Metadata, MetadataError};

/// Each set of tags is tried for so long, as Patroni's program does: limits on the rate of requests are lifted by then.
const PERSIST: Duration = Duration::from_secs(300);
/// Between attempts: first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Is added to each pause, at most, so that members that were refused at once don't come again at once.
const JITTER: Duration = Duration::from_millis(800);

pub(crate) fn command() -> Command {
    Command::new("aws")
        .about("Tag the EC2 instance and its volumes with the member's role, as a callback")
        .after_help(
            "Instance and region are asked from the instance's metadata service. Credentials are taken from \
             AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else from the role of the instance, which needs \
             ec2:CreateTags and ec2:DescribeVolumes.\n\n\
             Environment: AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE (IPv6), \
             AWS_EC2_METADATA_DISABLED, AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL, AWS_CA_BUNDLE.\n\n\
             Exit status: 1 wrong usage, else 0, whether AWS could be reached or not.",
        )
        .arg(
            Arg::new("action")
                .required(true)
                .value_parser(["on_start", "on_stop", "on_role_change"]),
        )
        .arg(Arg::new("role").required(true).help("The role to tell"))
        .arg(
            Arg::new("name")
                .required(true)
                .help("The name of the cluster"),
        )
}

/// A failure is told in the log, not by the exit code: nobody waits for callbacks.
pub(crate) async fn run(matches: &ArgMatches) -> u8 {
    let mut log = Log::on_stderr();
    let text = |name| matches.get_one::<String>(name).map_or("", String::as_str);
    if let Err(error) = tag(text("role"), text("name"), &mut log).await {
        match error {
            TagError::Metadata(error) => {
                log.error(&format!("cannot query AWS meta-data: {error}"));
            }
            TagError::GivenUp(instance) => log.warning(&format!(
                "Unable to communicate to AWS when setting tags for the EC2 instance {instance} and attached EBS volumes"
            )),
        }
    }
    0
}

/// Why something is not tagged.
enum TagError {
    Metadata(MetadataError),
    /// The log says why.
    GivenUp(String),
}

async fn tag(role: &str, cluster: &str, log: &mut Log) -> Result<(), TagError> {
    let metadata = Metadata::of(&variable);
    let instance = metadata.instance().await.map_err(TagError::Metadata)?;
    let given_up = || TagError::GivenUp(instance.id.clone());
    let ec2 = Ec2::of(&variable, &instance.region);

    persist(log, || async {
        let credentials = metadata.credentials(&variable).await?;
        let tags = [("Role", role)];
        ec2.tag(&credentials, std::slice::from_ref(&instance.id), &tags)
            .await?;
        Ok::<_, AttemptError>(())
    })
    .await
    .ok_or_else(given_up)?;

    let name = format!("spilo_{cluster}");
    let tags = [("Name", &*name), ("Role", role), ("Instance", &instance.id)];
    let volumes = persist(log, || async {
        let credentials = metadata.credentials(&variable).await?;
        let volumes = ec2.volumes(&credentials, &instance.id).await?;
        // EC2 refuses to tag nothing. An instance may have only disks of its own.
        if !volumes.is_empty() {
            ec2.tag(&credentials, &volumes, &tags).await?;
        }
        Ok::<_, AttemptError>(volumes.len())
    })
    .await
    .ok_or_else(given_up)?;
    log.info(&format!(
        "The EC2 instance {} and {volumes} attached EBS volumes are tagged as {role} of {cluster}",
        instance.id
    ));
    Ok(())
}

/// An environment variable; one that is empty counts as absent.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What stands in the way of one attempt.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("no credentials: {0}")]
    Credentials(#[from] MetadataError),
    #[error("{0}")]
    Ec2(#[from] Ec2Error),
}

/// Tries until it is done, or time is up: none, then.
async fn persist<T, E: Display>(
    log: &mut Log,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Option<T> {
    let end = Instant::now() + PERSIST;
    let (mut pause, longest) = PAUSE;
    loop {
        let error = match attempt().await {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        log.warning(&format!("Cannot tag: {error}"));
        let pause_now = pause + JITTER.mul_f64(rand::random());
        if Instant::now() + pause_now >= end {
            return None;
        }
        sleep(pause_now).await;
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_for_five_minutes_and_ever_more_rarely() {
        let began = Instant::now();
        let mut attempts = Vec::new();
        let mut log = Log::on_stderr();
        let done = persist(&mut log, async || {
            attempts.push(began.elapsed());
            Err::<(), _>("refused")
        })
        .await;
        assert_eq!(done, None);
        assert!((15..30).contains(&attempts.len()), "{attempts:?}");
        let last = attempts.last().copied().unwrap_or_default();
        assert!(
            last < PERSIST && last > Duration::from_secs(260),
            "{attempts:?}"
        );

        let mut left = 3;
        let done = persist(&mut log, async || {
            left -= 1;
            if left > 0 { Err("refused") } else { Ok("done") }
        })
        .await;
        assert_eq!(done, Some("done"));
    }
}
