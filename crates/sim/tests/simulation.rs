//! What is simulated at every change: the same seeds each time, and every case that failed once.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use primacy_sim::{Plan, run};

const HOURS: Duration = Duration::from_secs(2 * 3600);

fn holds(name: &str, plan: Plan) {
    let text = serde_json::to_string(&plan).unwrap_or_default();
    if let Some(violation) = run(plan, false).violation {
        panic!(
            "{name}: {} at {:?}: {}\nreplay with `primacy-sim replay`; the plan: {text}",
            violation.invariant, violation.at, violation.text
        );
    }
}

/// Everything that is found depends on it.
#[test]
fn a_seed_is_one_run_to_the_letter() {
    for seed in [7, 400, 990_007, 65_537_000] {
        let twice = [(); 2].map(|()| run(Plan::draw(seed, HOURS / 4), true));
        assert_eq!(twice[0].hash, twice[1].hash, "seed {seed}");
        assert_eq!(twice[0].trace, twice[1].trace, "seed {seed}");
        let text = serde_json::to_string(&Plan::draw(seed, HOURS / 4)).expect("a plan is JSON");
        let read = serde_json::from_str(&text).expect("and is read again");
        assert_eq!(run(read, false).hash, twice[0].hash, "seed {seed}");
    }
}

/// Those by which the mutants are found (`docs/mutants.md`): without themes up to 120, with them from there on, and with
/// everything that there is from 990,000 on.
const ALWAYS: [RangeInclusive<u64>; 10] = [
    1..=38,
    48..=48,
    53..=53,
    60..=60,
    79..=79,
    106..=106,
    121..=172,
    188..=188,
    334..=334,
    990_000..=990_034,
];

#[test]
fn seeds_that_are_always_run() {
    for seed in ALWAYS.into_iter().flatten() {
        holds(&format!("seed {seed}"), Plan::draw(seed, HOURS));
    }
}

/// Each failed once, and was made smaller: `docs/simulator.md` tells what it found.
#[test]
fn cases_that_failed_once() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut cases = 0;
    for entry in std::fs::read_dir(&directory).expect("the cases") {
        let path = entry.expect("a case").path();
        let text = std::fs::read_to_string(&path).expect("a case");
        let plan = serde_json::from_str(&text).expect("a case is a plan");
        holds(&path.display().to_string(), plan);
        cases += 1;
    }
    assert!(cases > 0);
}

/// For two minutes, or for as long as `PRIMACY_SIM_SECONDS` says. The first seed is drawn; the failing one is told.
#[test]
fn seeds_that_were_never_run() {
    let seconds = std::env::var("PRIMACY_SIM_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(120);
    let begin = Instant::now();
    let mut seed = u64::from(rand::random::<u32>());
    while begin.elapsed() < Duration::from_secs(seconds) {
        holds(&format!("seed {seed}"), Plan::draw(seed, HOURS));
        seed += 1;
    }
}
