//! The documents: every link has a target, every page is in the book, and every file and every
//! thread of a server is named correctly.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use testkit::{TestServer, wait_until};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files that people read.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "sql", "tests/conformance"] {
        for entry in fs::read_dir(root().join(folder)).expect("list a folder") {
            let path = entry.expect("list a folder").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The text without its fenced blocks, in which brackets have another meaning.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// The anchors of a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| heading.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect())
        .collect()
}

/// The links and pictures of a text that lead to files or anchors of this repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let behind = |start, end| text.split(start).skip(1).filter_map(move |rest: &str| rest.split(end).next());
    behind("](", ')').chain(behind("src=\"", '"')).chain(behind("href=\"", '"')).filter(|link| !link.contains("://"))
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 10, "{documents:?}");
    let mut broken = Vec::new();
    for document in documents {
        let text = prose(&fs::read_to_string(&document).expect("read a document"));
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.clone(),
                _ => document.parent().expect("a folder").join(file),
            };
            let leads = target.exists()
                && (anchor.is_empty()
                    || anchors(&prose(&fs::read_to_string(&target).expect("read the target"))).contains(anchor));
            if !leads {
                broken.push(format!("{}: {link}", document.strip_prefix(root()).expect("within").display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("read a document");
        let of_history = document.ends_with("CHANGELOG.md");
        for name in text.split('`').skip(1).step_by(2).filter(|_| !of_history) {
            let is_file = name.ends_with(".rs") && !name.contains(['*', ' ', '<', '\n']);
            let is_ours = SOURCES.iter().any(|folder| name.starts_with(folder));
            if is_file && is_ours && !root().join(name).exists() {
                missing.push(format!("{}: {name}", document.strip_prefix(root()).expect("within").display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The file that a walk names: a full path, or one below or beside the file named before it.
fn file_of_walk(name: &str, before: &Path) -> Option<PathBuf> {
    let beside = before.ancestors().skip(1).map(|folder| folder.join(name));
    let candidates = [PathBuf::from(name), before.with_extension("").join(name)].into_iter().chain(beside);
    candidates.filter(|path| path.components().count() > 1).find(|path| root().join(path).is_file())
}

#[test]
fn every_file_of_the_walks_is_there() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("read the page");
    let (_, section) = text.split_once("\n## Walks through the code\n").expect("the walks are there");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let (mut count, mut before, mut missing) = (0, PathBuf::new(), Vec::new());
    let names = section.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs"));
    for name in names {
        match file_of_walk(name, &before) {
            Some(path) => (count, before) = (count + 1, path),
            None => missing.push(format!("{name}, behind {}", before.display())),
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 100, "the walks name {count} files");
}

#[test]
fn every_page_is_in_the_book() {
    let list = fs::read_to_string(root().join("docs/SUMMARY.md")).expect("read the list of pages");
    let names = documents().into_iter().filter(|page| page.parent() == Some(&root().join("docs")));
    let names = names.filter_map(|page| Some(page.file_name()?.to_str()?.to_owned()));
    let missing: Vec<String> =
        names.filter(|name| name != "SUMMARY.md" && !list.contains(&format!("]({name})"))).collect();
    assert!(missing.is_empty(), "add them to docs/SUMMARY.md, which scripts/book.sh reads: {missing:#?}");
}

/// In the built book, a link to a page that is not in it leads nowhere.
#[test]
fn every_page_that_the_book_links_to_is_in_it() {
    let linked = |page: &Path| -> BTreeSet<PathBuf> {
        let text = prose(&fs::read_to_string(page).expect("read a page"));
        let files = links(&text).filter_map(|link| link.split('#').next()).filter(|file| file.ends_with(".md"));
        let paths = files.map(|file| page.parent().expect("a folder").join(file).canonicalize());
        paths.map(|path| path.expect("every link leads somewhere")).collect()
    };
    let pages = linked(&root().join("docs/SUMMARY.md"));
    assert!(pages.len() > 20, "{pages:?}");
    let missing: BTreeSet<PathBuf> = pages.iter().flat_map(|page| linked(page)).collect();
    let missing: Vec<_> = missing.difference(&pages).collect();
    assert!(missing.is_empty(), "add them to docs/SUMMARY.md: {missing:#?}");
}

/// The folders whose files the documents name by their full paths.
const SOURCES: [&str; 8] = ["src/", "net/", "pool/", "tests/", "testkit/", "benches/", "raybench/", "fuzz/"];

#[test]
fn the_newest_version_in_the_changelog_is_that_of_the_program() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).expect("read the changelog");
    let heading = text.lines().filter_map(|line| line.strip_prefix("## ")).find(|heading| *heading != "Unreleased");
    let (version, date) = heading.and_then(|heading| heading.split_once(" — ")).expect("a version and its date");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let is_date = date.len() == 10 && date.split('-').all(|part| part.parse::<u32>().is_ok());
    assert!(is_date, "{date}");
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
    let once = headings.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(once.len(), headings.len(), "a version has one section: {headings:?}");
}

#[test]
fn every_thread_of_a_server_is_in_the_table_of_threads() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("read the page");
    let (_, section) = text.split_once("\n## Threads\n").expect("it is there");
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let names = |row: &str| {
        row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let known: BTreeSet<String> = rows.flat_map(names).map(|name| name.replace("-N", "-0")).collect();

    let server = TestServer::start();
    let name =
        |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok().map(|name| name.trim().to_owned());
    // A thread sets its own name when it first runs.
    let mut running = BTreeSet::new();
    wait_until("the threads run", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("list the threads");
        running = tasks.filter_map(|task| name(task.expect("list a thread"))).collect();
        running.len() > 10
    });
    // The kernel keeps 15 bytes of a name. The main thread has the name of the program.
    let is_known = |name: &&String| {
        let first = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let name = if first.ends_with('-') { format!("{first}0") } else { name.to_string() };
        name == "server" || known.iter().any(|known| known.get(..15).unwrap_or(known) == name)
    };
    let missing: Vec<&String> = running.iter().filter(|name| !is_known(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {known:?}");
}
