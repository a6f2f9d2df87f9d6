//! Every target on its seeds and on two thousand mutations of them, always the same ones. No libFuzzer is needed.

use std::fs;
use std::path::Path;

use coracle_fuzz::TARGETS;

const MUTATIONS: usize = 2000;

/// Xorshift64 (Marsaglia, 2003): the numbers need not be good, only the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or_default() % limit.max(1)
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One to eight changes: bytes and bits, pieces taken out, doubled, or taken from another seed.
fn mutate(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(8) {
        let at = numbers.below(bytes.len());
        let end = (at + 1 + numbers.below(64)).min(bytes.len());
        match numbers.below(6) {
            0 if !bytes.is_empty() => {
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'"', b'9'][numbers.below(8)]
            }
            1 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            2 if !bytes.is_empty() => drop(bytes.drain(at..end)),
            3 if !bytes.is_empty() => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len());
                let piece = other[from..(from + 512).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(numbers.below(bytes.len() + 1)),
        }
    }
    bytes
}

#[test]
fn every_target_holds_on_its_seeds_and_their_mutations() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name}");
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mutations = (0..MUTATIONS).map(|_| mutate(&mut numbers, &seeds));
        for bytes in seeds.iter().cloned().chain(mutations) {
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{name}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn every_target_is_listed_and_has_a_program() {
    let programs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("targets")).unwrap();
    let mut programs: Vec<_> =
        programs.map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned()).collect();
    programs.sort();
    assert_eq!(programs, TARGETS.map(|(name, _)| name));
}
