//! `patroni_aws`: tagging an EC2 instance and its volumes with the member's role needs AWS' signed API, which this
//! project could not be tried with. So it says what to do instead.

use clap::{Arg, Command};

pub(crate) fn command() -> Command {
    Command::new("aws")
        .about("Say how to tag an EC2 instance with the member's role")
        .arg(Arg::new("action").required(true).value_parser([
            "on_start",
            "on_stop",
            "on_role_change",
        ]))
        .arg(Arg::new("role").required(true))
        .arg(Arg::new("name").required(true))
}

pub(crate) fn run() -> u8 {
    eprintln!(
        "Error: patroni_aws is not part of Primacy. Let the callback be a script of yours, for example \
         `aws ec2 create-tags --resources INSTANCE_ID --tags Key=Role,Value=\"$2\"`: it gets the action, the role and \
         the cluster as arguments"
    );
    1
}
