//! Mutations of a corpus: a poor man's fuzzer, the same on every machine and every run.
//!
//! Without a view of coverage it finds what lies near its corpus, so the corpus does the work. It is a net under every
//! change; the real fuzzer is for depth.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use crate::{Target, Verdict};

/// Longest input that is made, in bytes.
const LONGEST: usize = 64 * 1024;
/// Most changes between an input and the corpus.
const MOST_CHANGES: usize = 8;

/// `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, 0 for an empty range.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }
}

/// The files of a target's corpus, sorted by name.
///
/// # Panics
///
/// When the directory cannot be read.
pub fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&directory).expect("every target has a corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a corpus can be listed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a corpus can be read"))).collect()
}

/// Runs a target over its corpus.
///
/// # Panics
///
/// When the target does, or when the corpus has nothing that is accepted or nothing that is refused: it would then
/// reach half of the target at best.
pub fn run_corpus(target: &Target) {
    let mut verdicts = Vec::new();
    for (path, bytes) in corpus(target.name) {
        verdicts.push(guarded(target, &bytes, &path.display().to_string()));
    }
    for wanted in [Verdict::Accepted, Verdict::Refused] {
        assert!(verdicts.contains(&wanted), "nothing in the corpus of {} is {wanted:?}", target.name);
    }
}

/// Runs a target over [`Target::cases`] mutations of its corpus.
///
/// # Panics
///
/// When the target does; the input is then kept in `fuzz/artifacts/`, ready to be moved into the corpus.
pub fn run_mutations(target: &Target, seed: u64) {
    let corpus: Vec<Vec<u8>> = corpus(target.name).into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random(seed);
    for case in 0..target.cases {
        let input = mutated(&corpus, target.dictionary, &mut random);
        guarded(target, &input, &format!("seed {seed}, case {case}"));
    }
}

fn guarded(target: &Target, input: &[u8], origin: &str) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).unwrap_or_else(|panic| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target.name);
        let path = directory.join(format!("{:08x}", crc32fast::hash(input)));
        let kept = fs::create_dir_all(&directory).and_then(|()| fs::write(&path, input));
        let place = kept.map_or_else(|error| format!("not kept: {error}"), |()| format!("kept as {}", path.display()));
        let start = input[..input.len().min(400)].escape_ascii();
        // The target's own panic is printed already; this adds which input it was, and then it goes on.
        let note = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("{} failed at {origin}: {} bytes, {place}: {start}\n", target.name, input.len()),
        );
        drop(note);
        resume_unwind(panic)
    })
}

/// One input: a file of the corpus with a few changes.
fn mutated(corpus: &[Vec<u8>], dictionary: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(MOST_CHANGES) {
        change(&mut input, corpus, dictionary, random);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let some = |random: &mut Random, most: usize| 1 + random.below(most);
    match random.below(9) {
        // A flipped bit.
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        // A byte that likes to be at a bound.
        1 => {
            const BOUNDS: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xff, b' ', b'0', b'"'];
            if let Some(byte) = input.get_mut(at) {
                *byte = BOUNDS[random.below(BOUNDS.len())];
            }
        }
        // Random bytes put in.
        2 => {
            let piece: Vec<u8> = (0..some(random, 8)).map(|_| random.bits() as u8).collect();
            input.splice(at..at, piece);
        }
        // Some taken out.
        3 => {
            let end = input.len().min(at + some(random, 32));
            input.drain(at..end);
        }
        // The end cut off.
        4 => input.truncate(at),
        // A piece repeated, once or many times: lengths and depths grow this way.
        5 => {
            let end = input.len().min(at + some(random, 16));
            let times = if random.below(4) == 0 { some(random, 200) } else { 1 };
            let piece = input[at..end].repeat(times);
            input.splice(at..at, piece);
        }
        // A piece of another file.
        6 => {
            if let Some(other) = corpus.get(random.below(corpus.len())) {
                let from = random.below(other.len() + 1);
                let until = other.len().min(from + some(random, 64));
                input.splice(at..at, other[from..until].iter().copied());
            }
        }
        // A word of the format.
        7 => {
            if let Some(word) = dictionary.get(random.below(dictionary.len())) {
                input.splice(at..at, word.iter().copied());
            }
        }
        // A little-endian number changed by a little, or set to a bound.
        _ => {
            if let Some(bytes) = input.get_mut(at..at + 4) {
                let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let changed = match random.below(4) {
                    0 => number.wrapping_add(1),
                    1 => number.wrapping_sub(1),
                    2 => u32::MAX,
                    _ => 0,
                };
                bytes.copy_from_slice(&changed.to_le_bytes());
            }
        }
    }
    input.truncate(LONGEST);
}
