//! What others wrote into the store, spoiled; `make fuzz`.

use primacy_model::{Session, Version};

use crate::Entry;
use crate::cluster::assemble;

/// Keys with values, a line each.
#[test]
#[ignore = "long: make fuzz"]
fn views_of_a_cluster() {
    let sample = "/service/a/leader pg1\n/service/a/members/pg1 {\"state\":\"running\",\"role\":\"primary\"}\n/service/a/config {\"ttl\":30}\n\
        /service/a/sync {\"leader\":\"pg1\",\"sync_standby\":\"pg2\"}\n/service/a/status {\"optime\":5}\n/service/a/optime/leader 5\n\
        /service/a/history [[1,2,\"x\"]]\n/service/a/failover pg1:pg2\n/service/a/failsafe {\"pg1\":\"http://a/patroni\"}\n/service/a/initialize 771\n";
    primacy_fuzz::text(&[sample], |input| {
        let entries = input.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some(Entry {
                key: key.to_owned(),
                value: value.as_bytes().to_vec(),
                version: Version(value.len() as u64),
                lease: (value.len() % 2 == 0).then(|| Session(value.to_owned())),
            })
        });
        let cluster = assemble("/service/a", entries);
        cluster.leader.is_some() || !cluster.members.is_empty()
    });
}
