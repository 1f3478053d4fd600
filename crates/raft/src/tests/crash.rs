//! Members that are killed, as processes: what was acknowledged is there afterwards.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{TestGroup, get, set};
use crate::{RaftConfig, RaftNode};

const MEMBER: &str = "PRIMACY_RAFT_TEST_MEMBER";

/// No test: what the processes of the test below run. Counts up, and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn member_process() {
    let Ok(given) = std::env::var(MEMBER) else {
        return;
    };
    let mut words = given.split(' ').map(str::to_owned);
    let mut config: RaftConfig = TestGroup::new(1).config(0);
    let round = words.next().unwrap();
    config.data_dir = PathBuf::from(words.next().unwrap());
    config.self_addr = words.next();
    config.partner_addrs = words.collect();
    let addr = config.self_addr.clone().unwrap();
    let node = RaftNode::start(config).await.unwrap();
    let store = node.store();
    for number in 1.. {
        set(
            &*store,
            &format!("/count/{addr}"),
            &format!("{round}-{number:08}"),
        )
        .await;
        println!("\nacknowledged {addr} {round}-{number:08}");
    }
}

fn spawn(
    group: &TestGroup,
    number: usize,
    round: u32,
    told: mpsc::Sender<(String, String)>,
) -> Child {
    let config = group.config(number);
    let mut words = vec![
        round.to_string(),
        config.data_dir.display().to_string(),
        group.addrs[number].clone(),
    ];
    words.extend(config.partner_addrs);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::member_process", "--nocapture"])
        .env(MEMBER, words.join(" "))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(said) = line.strip_prefix("acknowledged ")
                && let Some((addr, number)) = said.split_once(' ')
            {
                let _ = told.send((addr.to_owned(), number.to_owned()));
            }
        }
    });
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_all_are_killed() {
    let mut group = TestGroup::new(3);
    let mut last = std::collections::BTreeMap::new();
    for round in 0..3 {
        let (tell, told) = mpsc::channel();
        let mut children: Vec<_> = (0..3)
            .map(|number| spawn(&group, number, round, tell.clone()))
            .collect();
        drop(tell);
        let mut heard = 0;
        while heard < 60 {
            let (addr, number) = told
                .recv_timeout(Duration::from_secs(60))
                .expect("they count");
            last.insert(addr, number);
            heard += 1;
        }
        for child in &mut children {
            child.kill().unwrap();
        }
        for child in &mut children {
            child.wait().unwrap();
        }
        // What was said before the end counts, too.
        for (addr, number) in told.iter() {
            last.insert(addr, number);
        }
        assert!(!last.is_empty(), "round {round}");
    }
    for number in 0..3 {
        group.start(number).await;
    }
    for (addr, number) in last {
        let kept = get(&*group.store(0), &format!("/count/{addr}"))
            .await
            .unwrap();
        // More may be there: what was written and could not be acknowledged any more.
        assert!(kept >= number, "{addr}: {kept} after {number}");
    }
}
