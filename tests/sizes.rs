//! Files of the product have at most 500 lines, and bodies of functions at most 60. Tests do not
//! count. Lines of comments have at most 100 columns, except in tables and figures. The sources are
//! read line by line: `rustfmt` puts the end of an item at the indentation of its beginning.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn files_and_functions_stay_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for package in PACKAGES {
        let before = files.len();
        sources(&root.join(package).join("src"), &mut files);
        assert!(files.len() > before, "{package:?} has sources");
    }
    let mut large = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
        let name = file.strip_prefix(root).expect("a file of the project").display();
        large.extend(too_large(&text).into_iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    assert!(large.is_empty(), "find the second noun, and move it out:\n{}", large.join("\n"));
}

#[test]
fn what_is_too_large_is_named_with_its_line() {
    let function = |indent: &str, body_lines: usize| {
        let body = format!("{indent}    work();\n").repeat(body_lines);
        format!("{indent}pub(crate) const unsafe extern \"C\" fn long(\n{indent}) {{\n{body}{indent}}}\n")
    };
    let long = || function("    ", FUNCTION_LINES_MAX + 1);
    assert_eq!(too_large(&function("", FUNCTION_LINES_MAX)), []);
    let text = format!("struct Long;\nimpl Long {{\n{}}}\n", long());
    assert_eq!(too_large(&text), [(3, "this function has 61 lines, and 60 is the most".to_owned())]);
    let text =
        format!("trait Two {{\n    fn one(\n        &self,\n    );\n{}}}\n", function("    ", FUNCTION_LINES_MAX));
    assert_eq!(too_large(&text), [], "a declaration has no end of its own");
    let text = format!("fn one() {{}}\n{}", function("", FUNCTION_LINES_MAX));
    assert_eq!(too_large(&text), [], "a function of one line ends in it");

    let full = "use it;\n".repeat(FILE_LINES_MAX);
    let beyond = "this file has 501 lines, and 500 is the most".to_owned();
    assert_eq!(too_large(&full), []);
    assert_eq!(too_large(&format!("{full}use it;\n")), [(501, beyond.clone())]);
    for module in [
        "#[cfg(test)]\nmod",
        "#[cfg(all(test, feature = \"simulation\"))]\nmod",
        "#[cfg(test)]\n#[allow(dead_code)]\npub(super) mod",
    ] {
        let tests = format!("{module} tests {{\n{}}}\n", long());
        assert_eq!(too_large(&format!("{full}{tests}")), [], "tests do not count");
        let line = tests.lines().count() + 501;
        assert_eq!(too_large(&format!("{tests}{full}use it;\n")), [(line, beyond.clone())], "what follows them does");
        assert_eq!(too_large(&format!("{full}{module} tests;\n")), [], "nor does their name");
    }
    let wide = "*".repeat(COMMENT_COLUMNS_MAX - 2);
    let text = format!("///{wide}\n//{wide}\n/// ```text\n///{wide}\n/// ```\n/// |{wide}\nlet a = 1; ///{wide}\n");
    assert_eq!(too_large(&text), [(1, "this comment has 101 columns, and 100 is the most".to_owned())]);
    let text = format!("#[cfg(not(test))]\nmod real {{\n{}}}\n", long());
    assert_eq!(too_large(&text), [(3, "this function has 61 lines, and 60 is the most".to_owned())]);
}

/// The lines where something is too large, each with the reason.
fn too_large(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = without_tests(text);
    let mut large = Vec::new();
    if let Some((line, _)) = lines.get(FILE_LINES_MAX) {
        large.push((*line, format!("this file has {} lines, and {FILE_LINES_MAX} is the most", lines.len())));
    }
    for (at, (line, _)) in lines.iter().enumerate().filter(|(_, (_, text))| begins(text, "fn")) {
        let length = body_length(&lines[at..]);
        if length > FUNCTION_LINES_MAX {
            large.push((*line, format!("this function has {length} lines, and {FUNCTION_LINES_MAX} is the most")));
        }
    }
    large.extend(wide_comments(&lines));
    large
}

/// The lines that only hold a comment and are too wide. Those between fences, and the rows of
/// tables, are not wrapped.
fn wide_comments(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let (mut wide, mut is_fenced) = (Vec::new(), false);
    for (line, text) in lines {
        let Some(comment) = text.trim_start().strip_prefix("//") else {
            is_fenced = false;
            continue;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        is_fenced ^= comment.starts_with("```");
        let columns = text.chars().count();
        if columns > COMMENT_COLUMNS_MAX && !is_fenced && !comment.starts_with('|') {
            wide.push((*line, format!("this comment has {columns} columns, and {COMMENT_COLUMNS_MAX} is the most")));
        }
    }
    wide
}

/// The numbered lines that are not in modules of tests.
fn without_tests(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let is_attribute = |(_, text): &&(usize, &str)| text.trim_start().starts_with("#[");
        let attributes = lines[at..].iter().take_while(is_attribute).count();
        let is_for_tests =
            lines[at..at + attributes].iter().any(|(_, text)| TESTS.iter().any(|tests| text.contains(tests)));
        let item = &lines[at + attributes..];
        if is_for_tests && item.first().is_some_and(|(_, text)| begins(text, "mod")) {
            at += attributes + head_and_length(item).1;
        } else {
            kept.push(lines[at]);
            at += 1;
        }
    }
    kept
}

/// Whether a line is the first of an item of this kind, apart from its attributes.
fn begins(line: &str, kind: &str) -> bool {
    let words = line.split_whitespace().map(|word| if word.starts_with("pub(") { "pub" } else { word });
    let mut words = words.skip_while(|word| QUALIFIERS.contains(word));
    words.next() == Some(kind)
}

/// The number of lines between the braces of the function that begins with the first line.
fn body_length(lines: &[(usize, &str)]) -> usize {
    let (head, length) = head_and_length(lines);
    length.saturating_sub(head + 1)
}

/// The number of lines up to the brace that opens the item, and that of the whole item.
fn head_and_length(lines: &[(usize, &str)]) -> (usize, usize) {
    let (_, first) = lines[0];
    let indent = &first[..first.len() - first.trim_start().len()];
    let ends_head = |line: &str| line.ends_with(['{', ';', '}']);
    let head = lines.iter().position(|(_, line)| ends_head(line)).map_or(lines.len(), |at| at + 1);
    if !lines[head - 1].1.ends_with('{') {
        return (head, head);
    }
    let is_end = |line: &str| line.strip_prefix(indent) == Some("}");
    (head, lines.iter().position(|(_, line)| is_end(line)).map_or(lines.len(), |end| end + 1))
}

/// Adds the sources in a folder, except those that hold only tests.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("list a folder").path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The packages that are checked.
const PACKAGES: [&str; 7] = ["", "chat", "client", "net", "pool", "raybench", "testkit"];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
const COMMENT_COLUMNS_MAX: usize = 100;
/// The beginnings of attributes of modules that exist only for tests.
const TESTS: [&str; 2] = ["#[cfg(test)", "#[cfg(all(test"];
/// The words in front of the kind of an item.
const QUALIFIERS: [&str; 6] = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
