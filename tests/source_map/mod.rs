//! [`SourceMap`]: the files of a package, and the files that each of them uses.
//!
//! It reads the sources as tokens, so names in comments and texts do not count. It understands
//! every form of a path: `crate::a`, `super::super::a`, `a::{b, c}`, or a name that a module
//! re-exports with `pub use`. Such a name leads to the file that defines it. Items that exist only
//! for tests or for the fuzzer do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The path of a module as a list of names; empty for the root.
pub(crate) type ModulePath = Vec<String>;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct SourceMap(BTreeMap<ModulePath, Module>);

/// A module: a file, or a block within one.
#[derive(Default)]
struct Module {
    /// The path of the file within the package.
    file: String,
    /// The paths that its code names.
    paths: Vec<Vec<String>>,
    /// The imported names, each with the path it comes from; true if the module re-exports it.
    imports: Vec<(String, Vec<String>, bool)>,
    /// All words of the code outside `use`.
    words: BTreeSet<String>,
}

impl SourceMap {
    /// Reads a package from its root file, for example `src/lib.rs`.
    pub(crate) fn read(package: &Path, root: &str) -> SourceMap {
        let mut map = SourceMap::default();
        map.read_file(package, root, Vec::new());
        map
    }

    fn read_file(&mut self, package: &Path, file: &str, path: ModulePath) {
        let source = fs::read_to_string(package.join(file)).unwrap_or_else(|error| panic!("read {file}: {error}"));
        let folder = match file.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder.to_owned(),
            _ => file.trim_end_matches(".rs").to_owned(),
        };
        for name in self.add(file, path.clone(), &source) {
            let path = [&path[..], std::slice::from_ref(&name)].concat();
            let flat = format!("{folder}/{name}.rs");
            let nested = format!("{folder}/{name}/mod.rs");
            self.read_file(package, if package.join(&flat).exists() { &flat } else { &nested }, path);
        }
    }

    /// Adds a file. Returns its submodules that have files of their own.
    fn add(&mut self, file: &str, path: ModulePath, source: &str) -> Vec<String> {
        let tokens = source.parse::<TokenStream>().unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let mut children = Vec::new();
        self.scan(tokens, &mut module, &path, &mut children);
        self.0.insert(path, module);
        children
    }

    fn scan(&mut self, tokens: TokenStream, module: &mut Module, path: &ModulePath, children: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += match rest {
                [hash, TokenTree::Group(attribute), ..] if is(hash, "#") => {
                    2 + if is_for_tests(attribute) { item_length(&rest[2..]) } else { 0 }
                }
                [word, TokenTree::Group(scope), ..] if is(word, "pub") && is_scope(scope) => 2,
                [word, name, end, ..] if is(word, "mod") && is(end, ";") => {
                    children.push(name.to_string());
                    3
                }
                [word, name, TokenTree::Group(block), ..] if is(word, "mod") => {
                    let inner = [&path[..], &[name.to_string()]].concat();
                    let mut block_module = Module { file: module.file.clone(), ..Module::default() };
                    self.scan(block.stream(), &mut block_module, &inner, &mut Vec::new());
                    self.0.insert(inner, block_module);
                    3
                }
                [word, tree @ ..] if is(word, "use") => {
                    let end = tree.iter().position(|token| is(token, ";")).unwrap_or(tree.len());
                    let passes_on = is_public(&tokens[..at]);
                    for (name, path) in leaves(&tree[..end], &[]) {
                        module.imports.push((name, path, passes_on));
                    }
                    1 + end
                }
                [TokenTree::Ident(_), ..] => {
                    let (names, length) = names(rest);
                    module.words.extend(names.iter().cloned());
                    module.paths.push(names);
                    length
                }
                [TokenTree::Group(group), ..] => {
                    self.scan(group.stream(), module, path, children);
                    1
                }
                _ => 1,
            };
        }
    }

    /// Every pair of files of which the first uses the second.
    pub(crate) fn uses(&self) -> BTreeSet<(String, String)> {
        let mut uses = BTreeSet::new();
        for (path, module) in &self.0 {
            let is_used = |name: &str| module.words.contains(name);
            let imports = module.imports.iter().filter(|(name, _, passes_on)| !passes_on || is_used(name));
            for used in module.paths.iter().chain(imports.map(|(_, used, _)| used)) {
                if let Some(target) = self.resolve(path, used, 0)
                    && self.0[&target].file != module.file
                {
                    uses.insert((module.file.clone(), self.0[&target].file.clone()));
                }
            }
        }
        uses
    }

    /// The module that defines the item of a path; `None` if it is not in this package.
    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match &**first {
            "crate" => Vec::new(),
            "self" if !rest.is_empty() => from.clone(),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                rest = &path[ups..];
                from[..from.len().checked_sub(ups)?].to_vec()
            }
            _ => {
                rest = path;
                from.clone()
            }
        };
        let is_relative = rest.len() == path.len();
        for (index, name) in rest.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            let import = self.0[&at].imports.iter().find(|(imported, ..)| imported == name);
            if let Some((_, source, _)) = import.filter(|_| depth < DEPTH_MAX) {
                let full = [source, &rest[index + 1..]].concat();
                return self.resolve(&at, &full, depth + 1);
            }
            return (!is_relative || index > 0).then_some(at);
        }
        Some(at)
    }
}

/// A path of names, and the number of its tokens.
fn names(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let (mut names, mut length) = (vec![tokens[0].to_string()], 1);
    while let [one, two, TokenTree::Ident(name), ..] = &tokens[length..]
        && is(one, ":")
        && is(two, ":")
    {
        names.push(name.to_string());
        length += 3;
    }
    (names, length)
}

/// The names that a `use` tree imports, each with its path.
fn leaves(tree: &[TokenTree], before: &[String]) -> Vec<(String, Vec<String>)> {
    let Some(TokenTree::Ident(_)) = tree.first() else {
        return match tree.first() {
            Some(TokenTree::Group(group)) => branches(group, before),
            Some(_) if before.is_empty() => leaves(&tree[1..], before),
            Some(_) => vec![("*".to_owned(), before.to_vec())],
            None => Vec::new(),
        };
    };
    let (names, length) = names(tree);
    let mut path = [before, &names].concat();
    match &tree[length..] {
        [one, two, below @ ..] if is(one, ":") && is(two, ":") => leaves(below, &path),
        [word, alias] if is(word, "as") => vec![(alias.to_string(), path)],
        _ => {
            if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
                path.pop();
            }
            vec![(path.last().cloned().unwrap_or_default(), path)]
        }
    }
}

fn branches(group: &Group, before: &[String]) -> Vec<(String, Vec<String>)> {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    tokens.split(|token| is(token, ",")).flat_map(|branch| leaves(branch, before)).collect()
}

fn is(token: &TokenTree, text: &str) -> bool {
    match token {
        TokenTree::Punct(punct) => text.len() == 1 && text.starts_with(punct.as_char()),
        TokenTree::Ident(ident) => *ident == text,
        TokenTree::Group(_) | TokenTree::Literal(_) => false,
    }
}

/// Whether these tokens end with `pub` or `pub(…)`.
fn is_public(before: &[TokenTree]) -> bool {
    match before {
        [.., word, TokenTree::Group(scope)] if is_scope(scope) => is(word, "pub"),
        [.., word] => is(word, "pub"),
        [] => false,
    }
}

/// Whether this group follows `pub` and limits its visibility.
fn is_scope(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Parenthesis
        && first.is_some_and(|word| ["crate", "super", "self", "in"].iter().any(|scope| is(&word, scope)))
}

/// Whether an attribute is `cfg(test)`, alone or combined with the fuzzer.
fn is_for_tests(attribute: &Group) -> bool {
    let mut stream = attribute.stream();
    loop {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        match &tokens[..] {
            [word, TokenTree::Group(group), ..] if is(word, "cfg") || is(word, "any") || is(word, "all") => {
                stream = group.stream();
            }
            [word, ..] => return is(word, "test"),
            [] => return false,
        }
    }
}

/// The length in tokens of the item, field or statement at the front, attributes included.
fn item_length(tokens: &[TokenTree]) -> usize {
    let (mut at, mut angles) = (0, 0_i32);
    while let [hash, TokenTree::Group(_), ..] = &tokens[at..]
        && is(hash, "#")
    {
        at += 2;
    }
    while at < tokens.len() {
        let (token, next) = (&tokens[at], tokens.get(at + 1));
        at += 1;
        let is_next = |text| next.is_some_and(|next| is(next, text));
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                if is_next(";") || is_next(",") {
                    return at + 1;
                }
                if !is_next(".") && !is_next("?") {
                    return at;
                }
            }
            token if is(token, ";") || (is(token, ",") && angles <= 0) => return at,
            token if is(token, "-") && is_next(">") => at += 1,
            token if is(token, "<") => angles += 1,
            token if is(token, ">") => angles -= 1,
            _ => {}
        }
    }
    at
}

/// The most modules in a chain of re-exports.
const DEPTH_MAX: usize = 16;

/// A package whose files are given as texts by module.
pub(crate) fn of_sources(sources: &[(&str, &str)]) -> SourceMap {
    let mut map = SourceMap::default();
    for (name, source) in sources {
        let path = name.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        map.add(name, path, source);
    }
    map
}
