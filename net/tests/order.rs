//! The files of this package use each other in one direction only, as the head of `src/lib.rs`
//! says.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn files_use_each_other_in_one_direction() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let order = order(&read(&sources.join("lib.rs")));
    let mut modules = Vec::new();
    for file in files(&sources) {
        let relative = file.strip_prefix(&sources).expect("it is in there");
        let module =
            relative.iter().next().expect("a name").to_str().expect("ASCII").trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let Some(place) = order.iter().position(|name| *name == module) else {
            panic!("{module} is missing in the order that lib.rs gives");
        };
        for used in uses(&read(&file)) {
            let is_before = order.iter().position(|name| *name == used).is_some_and(|other| other < place);
            assert!(is_before || used == module, "{} may not use {used}", relative.display());
        }
        modules.push(module);
    }
    assert!(order.iter().all(|name| modules.contains(name)), "lib.rs names what there is");
}

/// The names in the drawing, in order. Three or more blanks precede the names of each line.
fn order(text: &str) -> Vec<String> {
    let drawing =
        text.split("# Which file may use which").nth(1).expect("a section").split("```").nth(1).expect("a drawing");
    let lines = drawing.lines().filter_map(|line| line.trim_start_matches("//!").trim().split_once("   "));
    lines.flat_map(|(_, names)| names.split_whitespace().map(str::to_owned)).collect()
}

/// The modules of this package that the code of a file names. Its tests may name any.
fn uses(text: &str) -> Vec<String> {
    let code = text.split("\nmod tests").next().expect("a first part");
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = lines.flat_map(|line| line.split("crate::").skip(1));
    let name = |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    paths.map(name).filter(|name| name.starts_with(char::is_lowercase)).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let inner = folders.iter().flat_map(|folder| self::files(folder));
    // A file that contains only tests may name any module.
    let is_code = |path: &PathBuf| path.file_name().is_some_and(|name| name != "tests.rs");
    files.into_iter().filter(is_code).chain(inner).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
