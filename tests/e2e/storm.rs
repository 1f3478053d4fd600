//! Many rounds of everything at once: modes and counts change, standbys fall behind, and in the middle of it nodes are lost,
//! frozen or cut off, also more of them than commits waited for. What was acknowledged stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use primacy_testkit::{Pid, Signal, StoreKind, TestCluster, Writer, account, processes};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::synchrony::{Records, configure};

/// Sets the seed of the dice. (What the processes make of it differs from run to run.)
const SEED: &str = "PRIMACY_TEST_SEED";

mod long {
    use primacy_testkit::StoreKind;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn embedded_with_five_members() -> anyhow::Result<()> {
        super::storm(StoreKind::Embedded, 5, 2, 30).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "many minutes"]
    async fn etcd3_with_three_members() -> anyhow::Result<()> {
        super::storm(StoreKind::Etcd3, 3, 3, 12).await
    }
}

async fn storm(store: StoreKind, members: usize, most_lost: usize, rounds: usize) -> Result<()> {
    if !account::may_act_as_root()? {
        return Ok(());
    }
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("{SEED}={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut cluster = crate::partition::on_network(store)
        .members(members)
        .start()
        .await?;
    let records = Records::of(&cluster)?;
    let writer = cluster.writer().await?;
    let mut writers = cluster.direct_writers();
    for number in 0..rounds {
        println!("round {number}");
        round(&mut cluster, &records, &writer, most_lost, &mut dice).await?;
    }
    writers.push(writer);
    let ledger = TestCluster::collect(writers).await?;
    cluster.finish(ledger).await
}

async fn round(
    cluster: &mut TestCluster,
    records: &Records,
    writer: &Writer,
    most_lost: usize,
    dice: &mut StdRng,
) -> Result<()> {
    let primary = cluster.wait_healthy().await?;
    let others = cluster.others(primary);
    if dice.random_bool(0.6) {
        let behind = *others.choose(dice).unwrap_or(&primary);
        println!("{} falls behind", cluster.agents[behind].name);
        let port = [cluster.agents[primary].postgres_port];
        cluster.network()?.cut(primary, behind, Some(&port))?;
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..1500))).await;
    }

    let mode = if dice.random() {
        json!("quorum")
    } else {
        json!(true)
    };
    let count = dice.random_range(1..cluster.agents.len());
    let strict = dice.random_bool(0.3);
    println!("mode {mode}, count {count}, strict {strict}");
    let mut moments = records.moments(cluster, primary).await?;
    let change = json!({
        "synchronous_mode": mode,
        "synchronous_node_count": count,
        "synchronous_mode_strict": strict,
    });
    configure(cluster, primary, change).await?;
    for _ in 0..dice.random_range(0..4) {
        moments.next(Duration::from_secs(3)).await;
    }

    let mut hit = Vec::new();
    if dice.random_bool(0.8) {
        hit.push(primary);
    }
    let more = dice.random_range(0..=most_lost - hit.len());
    hit.extend(others.iter().copied().choose_multiple(dice, more));
    let mut frozen = BTreeSet::new();
    for member in &hit {
        let fault = *FAULTS.choose(dice).unwrap_or(&Fault::Lost);
        println!("{}: {fault:?}", cluster.agents[*member].name);
        frozen.extend(strike(cluster, *member, fault).await?);
    }
    if hit.contains(&primary) {
        // Somebody else, if anybody may.
        let within = cluster.timing.ttl + 3 * cluster.timing.loop_wait;
        match cluster.wait_leader_other_than(primary, within).await {
            Ok(new) => println!("{} takes over", cluster.agents[new].name),
            Err(_) => println!("nobody takes over"),
        }
    }
    cluster.network()?.heal()?;
    for pid in frozen {
        processes::signal(pid, Signal::SIGCONT);
    }
    cluster.start_all()?;
    cluster.wait_healthy().await?;
    writer.wait_progress(cluster.timing.recovery()).await
}

/// What befalls a member.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Lost,
    Frozen,
    CutOff,
    Deaf,
    Mute,
    WithoutStore,
}

/// A loss is as likely as all the others together.
const FAULTS: [Fault; 10] = [
    Fault::Lost,
    Fault::Lost,
    Fault::Lost,
    Fault::Lost,
    Fault::Lost,
    Fault::Frozen,
    Fault::CutOff,
    Fault::Deaf,
    Fault::Mute,
    Fault::WithoutStore,
];

/// Does that to a member. Returns what it froze.
async fn strike(cluster: &mut TestCluster, member: usize, fault: Fault) -> Result<BTreeSet<Pid>> {
    let store = cluster.store.ports();
    match fault {
        Fault::Lost => cluster.agents[member].kill_node().await?,
        Fault::Frozen => {
            let node = cluster.agents[member].node();
            let all: BTreeSet<Pid> = node.server.into_iter().chain(node.agent).collect();
            for pid in &all {
                processes::signal(*pid, Signal::SIGSTOP);
            }
            return Ok(all);
        }
        Fault::CutOff => cluster.network()?.cut_off(member, None)?,
        Fault::Deaf => cluster.network()?.deafen(member, None)?,
        Fault::Mute => cluster.network()?.mute(member, None)?,
        Fault::WithoutStore => cluster.network()?.cut_off(member, Some(&store))?,
    }
    Ok(BTreeSet::new())
}
