//! Every input that is known to be interesting, and some that nobody has seen, through its parser.
//!
//! Owns: that list, corpora and programs of the fuzzer agree, and a bounded run of mutations with
//! a fixed seed. Refuses to know: what a parser promises; that is part of the parser.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;

use testkit::parsers::{PARSERS, Parser};
use testkit::place;

/// Mutations of one parser in one run.
const MUTATIONS: usize = 5_000;
/// Where every run starts: the same inputs on every machine.
const SEED: u64 = 0x7461_692d_6675_7a7a;
/// Bytes of the longest mutation.
const BYTES_MAX: usize = 8_192;
/// Limits of a corpus, so that the repository stays small.
const FILES_MAX: usize = 60;
const CORPUS_BYTES_MAX: usize = 100 * 1_024;

/// The inputs of one parser with their names, in the order of those.
fn corpus(parser: &Parser) -> Vec<(String, Vec<u8>)> {
    let folder = place::repository().join("fuzz/corpus").join(parser.name);
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

/// True when the parser takes the input. Shows the input when a property does not hold.
fn read(parser: &Parser, what: &str, input: &[u8]) -> bool {
    catch_unwind(|| (parser.read)(input)).unwrap_or_else(|_| {
        let (name, input) = (parser.name, input.escape_ascii());
        panic!("{name}, {what}: a property does not hold for b\"{input}\"")
    })
}

#[test]
fn every_parser_has_a_corpus_and_a_program_and_none_is_left_over() {
    let listed: BTreeSet<String> = PARSERS.iter().map(|parser| parser.name.to_owned()).collect();
    assert_eq!(listed.len(), PARSERS.len(), "a name stands twice");
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(place::repository().join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("fuzz/corpus"), listed);
    assert_eq!(names("fuzz/fuzz_targets"), listed);
    let manifest = fs::read_to_string(place::repository().join("fuzz/Cargo.toml")).unwrap();
    let programs: BTreeSet<String> = manifest
        .split("[[bin]]")
        .skip(1)
        .map(|program| program.split('"').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(programs, listed);
}

#[test]
fn every_known_input_holds() {
    for parser in PARSERS {
        let inputs = corpus(parser);
        let bytes: usize = inputs.iter().map(|(_, input)| input.len()).sum();
        assert!(inputs.len() <= FILES_MAX, "{}: {} files", parser.name, inputs.len());
        assert!(bytes <= CORPUS_BYTES_MAX, "{}: {bytes} bytes", parser.name);
        let taken = inputs.iter().filter(|(name, input)| read(parser, name, input)).count();
        // A corpus of a format that has moved on would no longer reach what it was kept for.
        assert!(taken > 0, "{}: none of {} is taken", parser.name, inputs.len());
        assert!(taken < inputs.len(), "{}: none of {taken} is refused", parser.name);
    }
}

#[test]
fn mutations_of_known_inputs_hold() {
    for parser in PARSERS {
        let inputs: Vec<Vec<u8>> = corpus(parser).into_iter().map(|(_, input)| input).collect();
        let mut mutator = Mutator { seed: SEED };
        for nth in 0..MUTATIONS {
            read(parser, &format!("mutation {nth}"), &mutator.next(&inputs));
        }
    }
}

/// Changes inputs by a sequence of numbers that depends on the seed alone.
struct Mutator {
    seed: u64,
}

/// Pieces that parsers treat in their own way.
const PIECES: [&[u8]; 20] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b" ",
    b"0",
    b"-1",
    b"1e9",
    b"null",
    b"\\u0000",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"9007199254740992",
    b"18446744073709551616",
];

impl Mutator {
    /// SplitMix64 (Steele, Lea and Flood, 2014), below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    /// One of the inputs with one to four changes.
    fn next(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input, inputs);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        let byte = at.min(input.len().saturating_sub(1));
        match self.below(8) {
            0 if !input.is_empty() => input[byte] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[byte] = self.below(256) as u8,
            2 if at < end => drop(input.drain(at..end)),
            3 if at < end => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            4 => input.truncate(at),
            5 => {
                let other = &inputs[self.below(inputs.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len())];
                let end = if self.below(2) == 0 { at } else { end };
                input.splice(at..end, piece.iter().copied());
            }
        }
    }
}
