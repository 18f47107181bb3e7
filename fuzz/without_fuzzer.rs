//! Runs the checks of the fuzz targets on stable Rust, as tests: first on each file of a target's
//! corpus, then on random edits of these files. Both packages that have such checks include this
//! file.
//!
//! `PROPTEST_CASES` sets the number of edited inputs (256 by default); `scripts/fuzz.sh` runs for a
//! number of seconds instead.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

/// Runs `check` on the corpus of `target` and on edits of it.
pub(super) fn check(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    for (file, bytes) in &corpus {
        let shown = Shown(file);
        check(bytes);
        std::mem::forget(shown);
    }
    let inputs = edited(corpus.into_iter().map(|(_, bytes)| bytes).collect());
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&inputs, |bytes| {
        let shown = Shown(bytes.escape_ascii());
        check(&bytes);
        std::mem::forget(shown);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{target}: {failure}");
    }
}

/// Prints the input with which a check panics.
struct Shown<T: std::fmt::Display>(T);

impl<T: std::fmt::Display> Drop for Shown<T> {
    fn drop(&mut self) {
        eprintln!("the check fails with {}", self.0);
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("list a corpus").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds nothing", folder.display());
    let read = |file: PathBuf| (file.display().to_string(), fs::read(&file).expect("read a file of a corpus"));
    files.into_iter().map(read).collect()
}

fn folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|folder| folder.join("fuzz/corpus").is_dir());
    root.expect("the corpora are in fuzz/corpus").join("fuzz/corpus")
}

/// One edit of an input. Its positions are relative, so they fit an input of any length.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, Vec<u8>),
    Replace(Index, u8),
    Remove(Index, Index),
    Repeat(Index, Index, u8),
    /// Replaces the bytes behind one position of this input by those behind a position of another
    /// input.
    Splice(Index, Index, Vec<u8>),
    Swap(Index, Index),
}

fn edited(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let place = any::<Index>;
    let token = select(TOKENS.map(<[u8]>::to_vec).to_vec());
    let bytes = prop_oneof![3 => token, 1 => prop::collection::vec(any::<u8>(), 1..5)];
    let edit = prop_oneof![
        4 => (place(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        2 => (place(), place()).prop_map(|(from, to)| Edit::Remove(from, to)),
        1 => (place(), place(), 1..200u8).prop_map(|(from, to, times)| Edit::Repeat(from, to, times)),
        2 => (place(), place(), select(corpus.clone())).prop_map(|(at, from, other)| Edit::Splice(at, from, other)),
        1 => (place(), place()).prop_map(|(one, other)| Edit::Swap(one, other)),
    ];
    let edits = prop::collection::vec(edit, 1..8);
    (select(corpus), edits).prop_map(|(bytes, edits)| edits.into_iter().fold(bytes, apply))
}

fn apply(mut bytes: Vec<u8>, edit: Edit) -> Vec<u8> {
    let range = |from: Index, to: Index, bytes: &[u8]| {
        let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
        // Shorter ranges find more.
        let (from, to) = (from.min(to), from.max(to));
        from..to.min(from + 64)
    };
    match edit {
        Edit::Insert(at, more) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more);
        }
        Edit::Replace(at, byte) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        Edit::Remove(from, to) => drop(bytes.drain(range(from, to, &bytes))),
        Edit::Repeat(from, to, times) => {
            let range = range(from, to, &bytes);
            let again = bytes[range.clone()].repeat(times.into());
            bytes.splice(range.end..range.end, again.into_iter().take(LENGTH_MAX));
        }
        Edit::Splice(at, from, other) => {
            bytes.truncate(at.index(bytes.len() + 1));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        Edit::Swap(one, other) if !bytes.is_empty() => {
            let (one, other) = (one.index(bytes.len()), other.index(bytes.len()));
            bytes.swap(one, other);
        }
        Edit::Replace(..) | Edit::Swap(..) => {}
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

/// The longest input, as for the fuzzer.
const LENGTH_MAX: usize = 4096;

/// Byte sequences that the parsers treat specially.
const TOKENS: [&[u8]; 40] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b":",
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\t",
    b"\0",
    b"=",
    b"#",
    b"$",
    b"*",
    b"+",
    b"-",
    b"0",
    b"9",
    b"-1",
    b"e",
    b".",
    b"true",
    b"null",
    b"\\u",
    b"\\ud83d",
    b"\\n",
    b"\xfe",
    b"\xff",
    b"\xfd",
    b"\xef\xbb\xbf",
    b"\xe4\xbd\xa0",
    b"\xf0\x9f\x90\xb1",
    b"\x7f",
    b"\x1b",
    b"18446744073709551616",
    b"FROMID",
];
