//! The folders of `src/` lie one above the other, and a folder uses only those below it. The table
//! in `docs/architecture.md` has them from the ground floor up; here every path in the code of the
//! product is held against it.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a folder stands, by its name.
type Floors = Vec<String>;

#[test]
fn arrows_go_down_only() {
    let floors = floors();
    assert_eq!(
        floors,
        sorted_like(&floors, folders_of("src/lib.rs")),
        "docs/architecture.md lists the folders of src/lib.rs"
    );
    let mut wrong = Vec::new();
    for file in files(&root().join("src")) {
        let name = file.strip_prefix(root()).expect("it is within").display().to_string();
        let Some(from) = floors.iter().position(|folder| is_in(&name, folder)) else { continue };
        let code = product(&fs::read_to_string(&file).expect("read a source"));
        for used in used(&code) {
            match floors.iter().position(|folder| *folder == folder_of(&used)) {
                Some(to) if to <= from => {}
                Some(to) => wrong.push(format!(
                    "{name} uses crate::{used} from above: `{}` must not know `{}`. Move what both need to a folder below, or \
                     declare a trait where it is used",
                    floors[from], floors[to]
                )),
                None => wrong.push(format!(
                    "{name} uses crate::{used}, which is in no folder of docs/architecture.md (one `use` for each module)"
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_and_comments_may_look_up() {
    let source = "\
//! [`Server`](crate::server::Server)
use crate::base::clock::Clock; // for crate::server
#[cfg(test)]
use crate::server::Server;
#[cfg(any(test, feature = \"fuzzing\"))]
#[doc(hidden)]
pub(crate) mod fuzzing {
    use crate::server::Shell;
}
fn text() -> &'static str {
    \"{ // crate::bus\"
}
#[cfg(test)]
fn check(a: [u8; 2]) -> bool {
    crate::routing::check(a)
}
use crate::{bus, store::Store};
#[cfg(test)]
mod tests {
    use crate::operation::health::Health;
}
";
    assert_eq!(used(&product(source)), ["base::clock::Clock", "{bus, store::Store}"]);
}

#[test]
fn a_file_belongs_to_its_folder() {
    assert!(is_in("src/bus.rs", "bus") && is_in("src/bus/peer/echo.rs", "bus"));
    assert!(!is_in("src/busy.rs", "bus") && !is_in("src/server/bus.rs", "bus"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The folders, from the ground floor up, as the first column of the table says.
fn floors() -> Floors {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("read docs/architecture.md");
    let (_, text) = text.split_once("## The folders of `src/`").expect("the folders");
    let rows = text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

/// The public modules of a file, but the one that only tests and the fuzzer have.
fn folders_of(file: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).expect("read a source");
    let code = product(&text);
    code.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

fn sorted_like(order: &Floors, mut folders: Vec<String>) -> Vec<String> {
    folders.sort_by_key(|folder| order.iter().position(|other| other == folder));
    folders
}

fn is_in(file: &str, folder: &str) -> bool {
    let inside = file.strip_prefix("src/").and_then(|file| file.strip_prefix(folder));
    inside.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn folder_of(path: &str) -> &str {
    path.split(':').next().unwrap_or_default()
}

/// The sources below a folder, without those that only tests have.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("list a folder").path();
        let stem = path.file_stem().unwrap_or_default();
        if TESTS_ONLY.iter().any(|name| stem == *name) {
            continue;
        }
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// The text that follows each `crate::`.
fn used(code: &str) -> Vec<String> {
    let path = |rest: &str| {
        let end = match rest.starts_with('{') {
            true => rest.find('}').map_or(rest.len(), |end| end + 1),
            false => rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len()),
        };
        rest[..end].trim_end_matches(':').to_owned()
    };
    code.split("crate::").skip(1).map(path).collect()
}

/// A source without comments, texts, and items that only tests have.
fn product(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines().map(bare);
    while let Some(line) = lines.next() {
        if !(line.trim_start().starts_with("#[cfg(test)]") || line.trim_start().starts_with("#[cfg(any(test,")) {
            code.push_str(&line);
            code.push('\n');
            continue;
        }
        // The item, with its other attributes, ends where its braces do, or with a semicolon or
        // comma outside of all brackets.
        let mut depth = 0_i32;
        for line in lines.by_ref().skip_while(|line| line.trim_start().starts_with("#[")) {
            depth += balance(&line);
            let line = line.trim_end();
            if depth == 0 && (line.ends_with('}') || line.ends_with(';') || line.ends_with(',')) {
                break;
            }
        }
    }
    code
}

/// A line without its comment and texts.
fn bare(line: &str) -> String {
    let mut code = String::new();
    let mut chars = line.chars().peekable();
    let mut in_text = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_text => {
                chars.next();
            }
            '"' => in_text = !in_text,
            '/' if !in_text && chars.peek() == Some(&'/') => break,
            // A quotation mark or a brace as a character.
            '\'' if !in_text && matches!(chars.peek(), Some('"' | '{' | '}' | '[' | ']' | '(' | ')')) => {
                chars.next();
            }

            _ if in_text => {}
            _ => code.push(c),
        }
    }
    code
}

fn balance(line: &str) -> i32 {
    line.chars().map(|c| i32::from("{[(".contains(c)) - i32::from("}])".contains(c))).sum()
}

/// Modules that only tests or the fuzzer have.
const TESTS_ONLY: [&str; 3] = ["tests", "simulation", "fuzzing"];
