//! Feeds a parser with inputs that nobody would write: samples that are cut, spliced, repeated and spoiled. It needs no
//! instrumented build, so that it runs wherever the tests do; docs/fuzzing.md says how.
//!
//! A target is an ignored test beside the parser. It fails by a panic, its own or the parser's, or by taking longer than an
//! input of a few kilobytes may take. What it accepts becomes a sample itself, so that inputs get further from what they
//! began as and stay meaningful.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How many inputs a target is given without [`EXECUTIONS`].
const DEFAULT_EXECUTIONS: u64 = 20_000;
/// Environment variable: how many inputs each target is given.
pub const EXECUTIONS: &str = "PRIMACY_FUZZ_EXECUTIONS";
/// Environment variable: the number that all inputs follow from; without it, one that was never used.
pub const SEED: &str = "PRIMACY_FUZZ_SEED";

/// The longest input. Parsers bound what they read elsewhere; here length only makes it slow.
const LONGEST: usize = 4096;
/// As many samples are kept.
const SAMPLES: usize = 400;
/// One input may take so long on a busy machine. A parser that takes quadratic time takes longer only for longer inputs, but one
/// that doubles with every byte shows here.
const SLOW: Duration = Duration::from_secs(5);

/// Numbers at which arithmetic goes wrong, and marks at which grammars turn.
const SPOILS: [&[u8]; 36] = [
    b"0",
    b"-1",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"4294967296",
    b"1e309",
    b"1e-400",
    b"NaN",
    b".",
    b"0x",
    b"00",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"/",
    b"%",
    b"=",
    "\u{2028}".as_bytes(),
    "\u{10ffff}".as_bytes(),
];

/// Gives the target inputs made from the samples. It returns whether it accepted one.
///
/// # Panics
/// When the target does, after telling the input, and when an input takes too long.
pub fn bytes(samples: &[&[u8]], target: impl Fn(&[u8]) -> bool) {
    let executions = number(EXECUTIONS).unwrap_or(DEFAULT_EXECUTIONS);
    let seed = number(SEED).unwrap_or_else(|| rand::rng().next_u64());
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut pool: Vec<Vec<u8>> = samples.iter().map(|sample| sample.to_vec()).collect();
    let accepted = Cell::new(0_u64);
    for execution in 0..executions {
        // First the samples as they are.
        let input = match samples.get(usize::try_from(execution).unwrap_or(usize::MAX)) {
            Some(sample) => sample.to_vec(),
            None => spoiled(&pool, &mut dice),
        };
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| target(&input))) {
            Ok(false) => {}
            Ok(true) => {
                accepted.set(accepted.get() + 1);
                let place = if pool.len() < SAMPLES {
                    pool.push(Vec::new());
                    pool.len() - 1
                } else {
                    dice.random_range(samples.len().min(SAMPLES - 1)..SAMPLES)
                };
                pool[place].clone_from(&input);
            }
            Err(panic) => {
                eprintln!(
                    "{SEED}={seed}, input {execution}: b\"{}\"",
                    input.escape_ascii()
                );
                resume_unwind(panic);
            }
        }
        let took = began.elapsed();
        assert!(
            took < SLOW,
            "{SEED}={seed}, input {execution} took {took:?}: b\"{}\"",
            input.escape_ascii()
        );
    }
    println!(
        "{executions} inputs, {} of them accepted; {SEED}={seed}",
        accepted.get()
    );
}

/// As [`bytes`], for a target that takes text; what is not UTF-8 is made so.
///
/// # Panics
/// As [`bytes`].
pub fn text(samples: &[&str], target: impl Fn(&str) -> bool) {
    let samples: Vec<&[u8]> = samples.iter().map(|sample| sample.as_bytes()).collect();
    bytes(&samples, |input| target(&String::from_utf8_lossy(input)));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// One of the samples after some changes; rarely nothing but noise.
fn spoiled(pool: &[Vec<u8>], dice: &mut ChaCha8Rng) -> Vec<u8> {
    if pool.is_empty() || dice.random_ratio(1, 50) {
        let mut noise = vec![0; dice.random_range(0..64)];
        dice.fill_bytes(&mut noise);
        return noise;
    }
    let mut input = pool[dice.random_range(0..pool.len())].clone();
    for _ in 0..=dice.random_range(0_u32..5) {
        let other = &pool[dice.random_range(0..pool.len())];
        change(&mut input, other, dice);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, other: &[u8], dice: &mut ChaCha8Rng) {
    let at = dice.random_range(0..=input.len());
    let end = at + dice.random_range(0..=(input.len() - at).min(32));
    match dice.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << dice.random_range(0..8),
        1 if at < input.len() => input[at] = dice.random(),
        2 => drop(input.drain(at..end)),
        3 => input.truncate(at),
        4 => {
            let again = input[at..end].repeat(dice.random_range(1..8));
            drop(input.splice(at..at, again));
        }
        5 => {
            let from = dice.random_range(0..=other.len());
            let to = from + dice.random_range(0..=(other.len() - from).min(64));
            drop(input.splice(at..end, other[from..to].to_vec()));
        }
        6 => {
            let spoil = SPOILS[dice.random_range(0..SPOILS.len())];
            drop(input.splice(at..end, spoil.to_vec()));
        }
        // A whole word for another one, since grammars consist of words.
        _ => {
            let word = |byte: &u8| byte.is_ascii_alphanumeric();
            let from = input[..at]
                .iter()
                .rposition(|byte| !word(byte))
                .map_or(0, |place| place + 1);
            let to = input[at..]
                .iter()
                .position(|byte| !word(byte))
                .map_or(input.len(), |place| at + place);
            let words: Vec<&[u8]> = other
                .split(|byte| !word(byte))
                .filter(|word| !word.is_empty())
                .collect();
            if !words.is_empty() {
                let new = words[dice.random_range(0..words.len())];
                drop(input.splice(from..to, new.to_vec()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no sample is, and several are near to.
    #[test]
    #[should_panic(expected = "found")]
    fn a_hidden_fault_is_found() {
        bytes(&[b"{\"lag\": 10}", b"{\"lag\": -5}"], |input| {
            assert!(!input.windows(3).any(|part| part == b"-10"), "found");
            input.starts_with(b"{")
        });
    }
}
