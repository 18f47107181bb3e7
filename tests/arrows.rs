//! The folders of `src/` form layers, and a folder uses only those below it. The table in
//! `docs/architecture.md` lists them from the bottom up; this test checks every path in the
//! product's code against it. Within a folder, no two files use each other, not even through
//! others.

mod source_map;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use self::source_map::{SourceMap, of_sources};

/// Pairs of files; the first file of a pair uses the second.
type Uses = BTreeSet<(String, String)>;

#[test]
fn uses_only_go_down() {
    let floors = floors();
    let uses = SourceMap::read(&root(), "src/lib.rs").uses();
    let files: BTreeSet<&String> = uses.iter().flat_map(|(from, to)| [from, to]).collect();
    let folders: BTreeSet<&str> = files.iter().filter_map(|file| folder_of(file)).collect();
    assert_eq!(folders, floors.iter().map(|floor| &**floor).collect(), "docs/architecture.md lists the folders");
    let floor = |file: &str| floors.iter().position(|folder| Some(&**folder) == folder_of(file));
    let mut wrong = Vec::new();
    for (from, to) in &uses {
        // `lib.rs` is in no folder, and may use everything.
        let Some(above) = floor(from) else { continue };
        match floor(to) {
            Some(below) if below <= above => {}
            _ => wrong.push(format!("{from} uses {to}: move what both need to a folder below, or declare a trait")),
        }
    }
    assert!(wrong.is_empty(), "arrows that go up:\n{}", wrong.join("\n"));
}

#[test]
fn no_two_files_use_each_other() {
    let of_package = |(package, file): (&str, &str)| {
        let uses = SourceMap::read(&root().join(package), file).uses();
        uses.into_iter().map(|(from, to)| (in_package(package, &from), in_package(package, &to))).collect::<Vec<_>>()
    };
    let uses: Uses = PACKAGES.into_iter().flat_map(of_package).collect();
    let rings = rings(&uses);
    assert!(
        rings.is_empty(),
        "files that use each other: move what both need to a file below.\n{}",
        rings.iter().map(|ring| ring.join("\n    → ")).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn a_path_is_understood_however_it_is_written() {
    let map = of_sources(&[
        ("", "pub mod low; pub mod high; use high::Door;"),
        ("low", "mod cellar; pub use self::cellar::{Coal, Wine as Drink}; pub(crate) use cellar::heat;"),
        ("low::cellar", "use super::super::high::Door; fn f() { super::super::high::shut(); }"),
        ("high", "mod roof; use crate::low::{self, Coal};"),
        ("high::roof", "fn f() -> [super::low::Drink; 1] { let s = \"crate::low\"; } // crate::low"),
    ]);
    let expected = [("", "high"), ("high", "low"), ("high", "low::cellar"), ("high::roof", "low::cellar")];
    let expected = expected.into_iter().chain([("low::cellar", "high")]);
    assert_eq!(map.uses(), expected.map(|(from, to)| (from.to_owned(), to.to_owned())).collect());
}

#[test]
fn tests_may_use_folders_above() {
    let source = "
        #[cfg(test)]
        use crate::high::{Server};
        #[cfg(any(test, feature = \"fuzzing\"))]
        #[doc(hidden)]
        pub(crate) mod fuzzing {
            use crate::high::Shell;
        }
        struct Low {
            #[cfg(test)]
            high: Vec<crate::high::A, crate::high::B>,
            #[cfg(not(test))]
            other: crate::other::Other,
        }
        #[cfg(test)]
        fn check(a: [u8; 2]) -> bool {
            crate::high::check(a)
        }
        use crate::{seen, Thing};
        mod inner {
            use super::super::inner_sees::It;
        }
        #[cfg(test)]
        mod tests;";
    let map = of_sources(&[("", ""), ("low", source), ("high", ""), ("other", ""), ("seen", ""), ("inner_sees", "")]);
    let used: Vec<String> = map.uses().into_iter().map(|(_, used)| used).collect();
    assert_eq!(used, ["", "inner_sees", "other", "seen"]);
}

#[test]
fn each_cycle_is_found_once() {
    let uses = |uses: &[(&str, &str)]| -> Uses {
        uses.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    };
    assert!(rings(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let uses = uses(&[("a", "b"), ("b", "a"), ("b", "c"), ("d", "e"), ("e", "f"), ("f", "d")]);
    assert_eq!(rings(&uses), [vec!["a", "b", "a"], vec!["d", "e", "f", "d"]]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn in_package(package: &str, file: &str) -> String {
    if package.is_empty() { file.to_owned() } else { format!("{package}/{file}") }
}

/// The folders from the bottom up, as the first column of the table lists them.
fn floors() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("read docs/architecture.md");
    let (_, text) = text.split_once("## The folders of `src/`").expect("the folders");
    let rows = text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

/// The folder of a file: `bus` for `src/bus.rs` and `src/bus/peer/echo.rs`.
fn folder_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let folder = inside.split(['/', '.']).next()?;
    Some(folder).filter(|folder| *folder != "lib")
}

fn by_user(uses: &Uses) -> BTreeMap<&str, Vec<&str>> {
    let mut used = BTreeMap::<&str, Vec<&str>>::new();
    for (from, to) in uses {
        used.entry(from).or_default().push(to);
    }
    used
}

/// The shortest chain of uses from one file to another.
fn path<'u>(uses: &BTreeMap<&'u str, Vec<&'u str>>, from: &'u str, to: &str) -> Option<Vec<&'u str>> {
    let (mut reached_from, mut next) = (BTreeMap::new(), VecDeque::from([from]));
    while let Some(file) = next.pop_front() {
        for used in uses.get(file).into_iter().flatten() {
            if reached_from.contains_key(used) {
                continue;
            }
            reached_from.insert(*used, file);
            if *used == to {
                let mut way = vec![*used];
                while way.len() == 1 || way.last() != Some(&from) {
                    way.push(reached_from[way[way.len() - 1]]);
                }
                way.reverse();
                return Some(way);
            }
            next.push_back(used);
        }
    }
    None
}

/// A shortest cycle for each file that is in one, unless an earlier cycle contains the file.
fn rings(uses: &Uses) -> Vec<Vec<&str>> {
    let used = by_user(uses);
    let mut rings: Vec<Vec<&str>> = Vec::new();
    for file in used.keys() {
        if !rings.iter().any(|ring| ring.contains(file)) {
            rings.extend(path(&used, file, file));
        }
    }
    rings
}

/// The packages that are checked, and their root files.
const PACKAGES: [(&str, &str); 6] = [
    ("", "src/lib.rs"),
    ("chat", "src/main.rs"),
    ("client", "src/lib.rs"),
    ("net", "src/lib.rs"),
    ("pool", "src/lib.rs"),
    ("raybench", "src/main.rs"),
];
