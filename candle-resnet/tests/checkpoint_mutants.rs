//! Thousands of damaged weights files: none may make the reader panic or allocate without bound.
//!
//! Deterministic. `CHECKPOINT_MUTANTS=100000` sets how many mutants are made of every file.

use std::io::{Cursor, Read, Write};
use std::panic::catch_unwind;
use std::path::Path;

use candle_resnet::checkpoint;
use peak_alloc::PeakAlloc;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const DEFAULT_MUTANTS: u64 = 2_000;

/// Beyond what a file of a few kilobytes may cost: its tensors and inflated entries of 1 MiB each, and a margin.
const MOST_MEMORY: usize = 8 << 20;

#[test]
fn no_mutant_panics_or_takes_more_than_its_share_of_memory() {
    let fixtures = fixtures();
    let mutants = std::env::var("CHECKPOINT_MUTANTS").map_or(DEFAULT_MUTANTS, |count| count.parse().unwrap());
    let (mut read, mut refused) = (0, 0);
    for (name, bytes) in &fixtures {
        for seed in 0..mutants {
            match survives(&mutant(bytes, &fixtures, seed)) {
                Ok(true) => read += 1,
                Ok(false) => refused += 1,
                Err(reason) => panic!("mutant {seed} of {name}: {reason}"),
            }
        }
    }
    // If nearly all were refused at the door, this test would show nothing.
    assert!(read > (read + refused) / 20, "{read} mutants were read, {refused} refused");
}

/// Whether the bytes can be read; an error if reading them misbehaves.
fn survives(bytes: &[u8]) -> Result<bool, String> {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = catch_unwind(|| checkpoint::read_bytes(bytes).is_ok()).map_err(|_| "the reader panicked")?;
    let taken = MEMORY.peak_usage().saturating_sub(before);
    if taken > MOST_MEMORY { Err(format!("the reader took {taken} bytes")) } else { Ok(outcome) }
}

type Fixture = (String, Vec<u8>);

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<_> = paths.map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect();
    fixtures.sort();
    fixtures
}

/// Damages the file itself or, half of the time, one entry of a zip archive, whose checksums would hide it otherwise.
fn mutant(bytes: &[u8], fixtures: &[Fixture], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let is_zip = bytes.starts_with(b"PK");
    if is_zip && random.below(2) == 0 {
        mutated_entry(bytes, fixtures, &mut random)
    } else {
        mutated(bytes, fixtures, &mut random)
    }
}

fn mutated_entry(bytes: &[u8], fixtures: &[Fixture], random: &mut Random) -> Vec<u8> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let chosen = if random.below(3) > 0 { pickle_index(&zip) } else { random.below(zip.len()) };
    let mut copy = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let content = if index == chosen { mutated(&content, fixtures, random) } else { content };
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        copy.start_file(entry.name().unwrap(), stored).unwrap();
        copy.write_all(&content).unwrap();
    }
    copy.finish().unwrap().into_inner()
}

fn pickle_index(zip: &ZipArchive<Cursor<&[u8]>>) -> usize {
    zip.file_names().position(|name| name.unwrap().ends_with("/data.pkl")).unwrap()
}

/// One to three wounds.
fn mutated(bytes: &[u8], fixtures: &[Fixture], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        wound(&mut bytes, fixtures, random);
    }
    bytes
}

fn wound(bytes: &mut Vec<u8>, fixtures: &[Fixture], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len()))),
        2 => overwrite(bytes, at, &EXTREMES[random.below(EXTREMES.len())].to_le_bytes()),
        3 => overwrite(bytes, at, &(EXTREMES[random.below(EXTREMES.len())] as u32).to_le_bytes()),
        4 => splice(bytes, at, &fixtures[random.below(fixtures.len())].1, random),
        5 => repeat(bytes, at, random),
        6 => overwrite(bytes, at, &[random.below(256) as u8]),
        _ => {
            let flipped = bytes.get(at).map_or(0, |byte| byte ^ 1 << random.below(8));
            overwrite(bytes, at, &[flipped]);
        }
    }
}

const EXTREMES: [u64; 8] = [0, 1, u64::MAX, i64::MAX as u64, 1 << 63, 0x7fff_ffff, 0x8000_0000, 1 << 40];

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(byte, new)| *byte = *new);
}

/// Inserts a piece of another file.
fn splice(bytes: &mut Vec<u8>, at: usize, other: &[u8], random: &mut Random) {
    let start = random.below(other.len());
    let end = (start + 1 + random.below(64)).min(other.len());
    bytes.splice(at..at, other[start..end].iter().copied());
}

/// Inserts a piece of the file once more.
fn repeat(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let piece = bytes[at..(at + 1 + random.below(32)).min(bytes.len())].repeat(1 + random.below(50));
    bytes.splice(at..at, piece);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// A number below `bound`, or 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound.max(1) as u64) as usize
    }
}
