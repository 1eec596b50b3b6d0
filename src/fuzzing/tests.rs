//! Each target with its seeds, and with random changes of them: what a fuzzer does, shortly and without looking where
//! it leads.

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};

use super::*;

/// What parsers pay attention to.
const WORDS: [&[u8]; 24] = [
    b"", b"\n", b"\0", b"\"", b"\\", b"{", b"}", b"[", b"]", b"(", b")", b",", b":", b"=", b"!=",
    b" in ", b"..", b"'", b"\xff", b"\\ud800", b"-1", b"1e999", b"%2F", b"null",
];

/// A change of a text.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, usize),
    Byte(Index, u8),
    Cut(Index, usize),
    Again(Index, usize),
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<Index>;
        prop_oneof![
            (at(), 0..WORDS.len()).prop_map(|(at, word)| Self::Put(at, word)),
            (at(), any::<u8>()).prop_map(|(at, byte)| Self::Byte(at, byte)),
            (at(), 1_usize..16).prop_map(|(at, length)| Self::Cut(at, length)),
            (at(), 1_usize..64).prop_map(|(at, length)| Self::Again(at, length)),
        ]
    }

    fn apply(&self, text: &mut Vec<u8>) {
        let range = |at: &Index, length: usize| {
            let from = at.index(text.len() + 1);
            from..(from + length).min(text.len())
        };
        match self {
            Self::Put(at, word) => drop(text.splice(range(at, 0), WORDS[*word].iter().copied())),
            Self::Byte(at, byte) => drop(text.splice(range(at, 1), [*byte])),
            Self::Cut(at, length) => drop(text.drain(range(at, *length))),
            Self::Again(at, length) => {
                let piece = text[range(at, *length)].to_vec();
                text.extend(piece);
            }
        }
    }
}

/// Those of a target, by name.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target.name);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut all: Vec<_> = files
        .map(|file| {
            let path = file.expect("it is readable").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (name, fs::read(&path).expect("it is readable"))
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{} has no seeds", target.name);
    all
}

#[test]
fn no_seed_and_no_change_of_one_breaks_a_parser() {
    for target in TARGETS {
        let seeds = seeds(target);
        for (_, seed) in &seeds {
            (target.run)(seed);
        }
        let input = (
            any::<Index>(),
            proptest::collection::vec(Edit::any(), 0..12),
        );
        let config = Config {
            cases: 100,
            failure_persistence: None,
            ..Config::default()
        };
        let tried = TestRunner::new(config).run(&input, |(seed, edits)| {
            let mut text = seed.get(&seeds).1.clone();
            edits.iter().for_each(|edit| edit.apply(&mut text));
            (target.run)(&text);
            Ok(())
        });
        if let Err(error) = tried {
            panic!("{}: {error}", target.name);
        }
    }
}

#[test]
fn the_fuzzing_crate_has_every_target() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).expect("it is there");
    for target in TARGETS {
        let name = target.name;
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
        let file = dir.join(format!("fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert!(text.contains(&format!("{name:?}")), "{}", file.display());
    }
}
