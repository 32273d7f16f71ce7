//! The architecture as a test. `src/lib.rs` documents in a table which wing of the crate may use which; this file reads the
//! table and the sources and names every line that does otherwise. Below the wings there is one rule: what lies in a folder
//! has an order, so that each file can be read with what is below it alone. Test code (`#[cfg(test)]`) may use what it likes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// Entries of `src/`: as many as one remembers.
const MOST_ENTRIES: usize = 12;

#[test]
fn modules_use_only_what_the_table_allows() {
    let library = read(&root().join("src/lib.rs"));
    let table = table(&library);
    assert!(!table.is_empty(), "src/lib.rs has no table `//! | module | may use | purpose |` in its documentation");

    let declared = modules(&shipped(&tokens(&library)));
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(listed, declared, "the table in src/lib.rs (left) does not list the modules of the crate (right)");
    for (module, row) in &table {
        let unknown: Vec<_> = row.uses.iter().filter(|used| *used != "*" && !declared.contains(*used)).collect();
        assert!(unknown.is_empty(), "src/lib.rs: {module} may use {unknown:?}, which are no modules");
    }

    let mut offences = BTreeSet::new();
    for Dependency { source, line, from, to } in Crate::new(&sources()).dependencies() {
        let (module, used) = (&from[0], &to[0]);
        if used != module && !table[module].uses.contains(used) && !table[module].uses.contains("*") {
            offences.insert(format!("{source}:{line}: {module} uses {used}"));
        }
    }
    assert!(offences.is_empty(), "not allowed by the table in src/lib.rs:\n{}", lines(&offences));
}

#[test]
fn src_has_few_entries_and_each_its_purpose() {
    let folder = root().join("src");
    let names = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names: BTreeSet<String> = names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(names.len() <= MOST_ENTRIES, "src/ has more than {MOST_ENTRIES} entries: {names:?}");

    // The roots of the library and of the program; the page says below its table what they are.
    let table = table(&read(&folder.join("lib.rs")));
    let modules: BTreeSet<String> = ["lib.rs", "main.rs"].map(String::from).into_iter().collect();
    for name in names.difference(&modules) {
        let row = table.get(name.trim_end_matches(".rs"));
        assert!(row.is_some_and(|row| !row.purpose.is_empty()), "src/{name} has no purpose in the table of src/lib.rs");
    }
}

#[test]
fn what_lies_in_a_folder_has_an_order() {
    let sources = sources();
    let code = Crate::new(&sources);
    let cycles = code.cycles();
    assert!(cycles.is_empty(), "cycles:\n{}", lines(cycles.iter().map(|cycle| cycle.to_string())));
}

#[test]
fn wgpu_is_named_in_device_alone() {
    report("names wgpu outside src/compute/device", |source, tokens| match source.is_under("compute/device") {
        true => vec![],
        false => find(tokens, &["wgpu", ":", ":"]).into_iter().chain(find(tokens, &["use", "wgpu"])).collect(),
    });
}

#[test]
fn printing_and_exiting_are_for_the_command_line() {
    report("prints or exits outside main.rs, cli/ and base/progress.rs", |source, tokens| {
        if source.is_under("main") || source.is_under("cli") || source.is_under("base/progress") {
            return vec![];
        }
        let exits = find(tokens, &["process", ":", ":", "exit"]);
        let prints = ["println", "eprintln", "print", "eprint", "dbg"].map(|name| find(tokens, &[name, "!"]));
        exits.into_iter().chain(prints.into_iter().flatten()).collect()
    });
}

#[test]
fn what_meets_users_files_does_not_unwrap() {
    report("unwraps where a user's input can be the cause", |source, tokens| {
        match ["formats", "data", "cli"].iter().any(|module| source.is_under(module)) {
            true => find(tokens, &[".", "unwrap", "(", ")"]),
            false => vec![],
        }
    });
}

#[test]
fn nothing_is_left_to_be_written() {
    report("is unfinished", |_, tokens| {
        ["todo", "unimplemented"].into_iter().flat_map(|name| find(tokens, &[name, "!"])).collect()
    });
}

/// Fails with `file:line` of everything that `offending` finds in shipped code.
fn report(what: &str, offending: impl Fn(&Source, &[Token]) -> Vec<usize>) {
    let mut lines = Vec::new();
    for source in sources() {
        let tokens = shipped(&tokens(&source.text));
        // Two patterns may match on one line.
        let offences: BTreeSet<usize> = offending(&source, &tokens).into_iter().collect();
        lines.extend(offences.iter().map(|line| format!("{}:{line}: {what}", source.name)));
    }
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Sources

struct Source {
    /// From the root of the repository, with `/`.
    name: String,
    text: String,
}

impl Source {
    fn is_under(&self, module: &str) -> bool {
        self.name == format!("src/{module}.rs") || self.name.starts_with(&format!("src/{module}/"))
    }

    /// The path of the file's module; none for the roots of the two crates.
    fn module(&self) -> Option<Vec<String>> {
        let inner = self.name.strip_prefix("src/")?.strip_suffix(".rs")?;
        let inner = inner.strip_suffix("/mod").unwrap_or(inner);
        (inner != "lib" && inner != "main").then(|| inner.split('/').map(String::from).collect())
    }
}

fn lines<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join("\n")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every Rust file below `src`, in order of the names.
fn sources() -> Vec<Source> {
    fn collect(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.insert(path);
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(&root().join("src"), &mut found);
    assert!(!found.is_empty());
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    found.iter().map(|path| Source { name: name(path), text: read(path) }).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// The table

/// A row of the table.
#[derive(Debug, PartialEq)]
struct Row {
    uses: BTreeSet<String>,
    purpose: String,
}

/// Rows `//! | module | a, b, c | purpose |`, back quotes allowed, further columns ignored; `*`, `all` or `everything`
/// allows all modules, `-` or nothing none.
fn table(library: &str) -> BTreeMap<String, Row> {
    let rows = library.lines().filter_map(|line| line.trim().strip_prefix("//!")?.trim().strip_prefix('|'));
    let mut table = BTreeMap::new();
    let mut inside = false;
    for row in rows {
        let cells: Vec<String> = row.split('|').map(|cell| cell.replace('`', "").trim().to_string()).collect();
        let [module, uses, purpose, ..] = cells.as_slice() else { continue };
        if module == "module" {
            inside = uses == "may use";
        } else if inside && !module.starts_with([':', '-']) {
            let uses = uses.split(',').map(str::trim).filter(|used| !matches!(*used, "" | "-" | "–" | "—" | "nothing"));
            let uses = uses.map(|used| if matches!(used, "all" | "everything") { "*" } else { used }.to_string());
            let uses: BTreeSet<String> = uses.collect();
            for module in module.split(',') {
                let row = Row { uses: uses.clone(), purpose: purpose.clone() };
                table.insert(module.trim().to_string(), row);
            }
        }
    }
    table
}

// ---------------------------------------------------------------------------------------------------------------------
// Who uses whom

/// What the sources say about the modules of the crate.
struct Crate {
    modules: HashMap<Vec<String>, Module>,
}

struct Module {
    source: String,
    paths: Vec<Reference>,
    /// What `use` brings into the module, by name: in a folder's `mod.rs` also what it passes on of its children.
    names: HashMap<String, Vec<String>>,
}

/// A line of the module `from` that names something of the module `to`.
struct Dependency<'a> {
    source: &'a str,
    line: usize,
    from: &'a [String],
    to: Vec<String>,
}

/// Entries of a folder that need each other, and a line for each step around.
struct Cycle {
    name: String,
    steps: Vec<String>,
}

impl std::fmt::Display for Cycle {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}\n    {}", self.name, self.steps.join("\n    "))
    }
}

impl Crate {
    fn new(sources: &[Source]) -> Self {
        let code: Vec<(&Source, Vec<String>, Vec<Token>)> =
            sources.iter().filter_map(|s| Some((s, s.module()?, shipped(&tokens(&s.text))))).collect();
        // A file that only tests see is one that `mod` declares under `#[cfg(test)]`.
        let mut known: BTreeSet<Vec<String>> = BTreeSet::new();
        for (_, path, tokens) in &code {
            known.extend(modules(tokens).into_iter().map(|name| [&path[..], &[name]].concat()));
            known.extend((path.len() == 1).then(|| path.clone()));
        }
        let mut found = HashMap::new();
        for (source, path, tokens) in code.into_iter().filter(|(_, path, _)| known.contains(path)) {
            let mut paths = references(&tokens, &path);
            // A path begins with a child of the module, or with a name that a `use` has brought in.
            let child = |name: &String| [&path[..], std::slice::from_ref(name)].concat();
            let mut names: HashMap<String, Vec<String>> = HashMap::new();
            let mut resolved = |reference: &Reference| {
                let (first, rest) = reference.path.split_first()?;
                let whole = match &names {
                    _ if first == "crate" => rest.to_vec(),
                    _ if known.contains(&child(first)) => [&child(first), rest].concat(),
                    names => [names.get(first)?, rest].concat(),
                };
                names.extend(reference.name.clone().map(|name| (name, whole.clone())));
                Some(whole)
            };
            // Uses first: they may stand below what they serve.
            paths.sort_by_key(|reference| reference.name.is_none());
            paths = paths
                .iter()
                .filter_map(|r| Some(Reference { line: r.line, name: r.name.clone(), path: resolved(r)? }))
                .collect();
            found.insert(path, Module { source: source.name.clone(), paths, names });
        }
        Self { modules: found }
    }

    /// The modules behind a path: the one that it names and, where that passes on what others define, those as well.
    fn behind(&self, path: &[String]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut path = path.to_vec();
        while let Some(n) = (1..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n])) {
            let module = path[..n].to_vec();
            let passed = path.get(n).and_then(|name| self.modules[&module].names.get(name));
            let onward = passed.map(|target| [&target[..], &path[n + 1..]].concat());
            if found.contains(&module) {
                break;
            }
            found.push(module);
            match onward {
                Some(onward) => path = onward,
                None => break,
            }
        }
        found
    }

    fn dependencies(&self) -> Vec<Dependency<'_>> {
        let mut found = Vec::new();
        for (from, module) in &self.modules {
            for reference in &module.paths {
                for to in self.behind(&reference.path) {
                    found.push(Dependency { source: &module.source, line: reference.line, from, to });
                }
            }
        }
        found.sort_by(|a, b| (a.source, a.line, &a.to).cmp(&(b.source, b.line, &b.to)));
        found
    }

    /// The shortest cycles of what lies side by side, in every folder. A folder's `mod.rs` is above all that lies in it and
    /// what lies in it may use it: the two are one module, whose face is `mod.rs`.
    fn cycles(&self) -> Vec<Cycle> {
        // Folder → entry → entry that it uses → the first line that does.
        let mut folders: BTreeMap<&[String], BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
        for Dependency { source, line, from, to } in self.dependencies() {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if shared < from.len() && shared < to.len() {
                let entry = folders.entry(&from[..shared]).or_default().entry(from[shared].clone()).or_default();
                entry.entry(to[shared].clone()).or_insert_with(|| format!("{source}:{line}"));
            }
        }
        let mut cycles: BTreeMap<String, Cycle> = BTreeMap::new();
        for (folder, uses) in &folders {
            for (from, to) in uses.iter().flat_map(|(from, to)| to.keys().map(move |to| (from, to))) {
                let Some(mut way) = shortest(uses, to, from) else { continue };
                // Each cycle is met once an edge; it begins with its first name.
                let first = way.iter().enumerate().min_by_key(|(_, name)| *name).map_or(0, |(at, _)| at);
                way.rotate_left(first);
                let next = |n: usize| way[(n + 1) % way.len()];
                let steps = way.iter().enumerate();
                let steps = steps.map(|(n, name)| format!("{name} uses {}: {}", next(n), uses[*name][next(n)]));
                let names: Vec<&str> = way.iter().chain(way.first()).map(|name| name.as_str()).collect();
                let name = format!("{}: {}", [&["src".to_string()], *folder].concat().join("/"), names.join(" → "));
                cycles.insert(name.clone(), Cycle { name, steps: steps.collect() });
            }
        }
        cycles.into_values().collect()
    }
}

/// The shortest way along `uses`, with both ends.
fn shortest<'a>(
    uses: &'a BTreeMap<String, BTreeMap<String, String>>,
    from: &'a String,
    to: &'a String,
) -> Option<Vec<&'a String>> {
    let mut before: BTreeMap<&String, &String> = BTreeMap::new();
    let mut waiting = VecDeque::from([from]);
    while let Some(at) = waiting.pop_front() {
        if at == to {
            let mut way = vec![at];
            while let Some(previous) = before.get(way[way.len() - 1]).filter(|_| way[way.len() - 1] != from) {
                way.push(previous);
            }
            way.reverse();
            return Some(way);
        }
        for next in uses.get(at).into_iter().flat_map(BTreeMap::keys) {
            if next != from && !before.contains_key(next) {
                before.insert(next, at);
                waiting.push_back(next);
            }
        }
    }
    None
}

// ---------------------------------------------------------------------------------------------------------------------
// Rust, as far as needed: words and punctuation with their lines, without comments and literals.

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let begin = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            // Raw strings, with or without b or c in front; r#name is a word.
            'r' | 'b' | 'c' if raw_string(&chars, i).is_some() => {
                let (mut end, hashes) = raw_string(&chars, i).unwrap();
                while end < chars.len() && !(at(end) == '"' && (1..=hashes).all(|k| at(end + k) == '#')) {
                    end += 1;
                }
                i = end + hashes + 1;
            }
            '"' => i = end_of_literal(&chars, i, '"'),
            // 'a' is a character, 'a without a second quote a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => i = end_of_literal(&chars, i, '\''),
            '\'' => i += 1,
            c if word(c) => {
                while word(at(i)) {
                    i += 1;
                }
                found.push(Token { text: chars[begin..i].iter().collect(), line });
            }
            c => {
                i += 1;
                if !c.is_whitespace() {
                    found.push(Token { text: c.into(), line });
                }
            }
        }
        i = i.min(chars.len());
        line += chars[begin..i].iter().filter(|&&c| c == '\n').count();
    }
    found
}

/// Where the content of a raw string that starts at `i` begins, and its number of `#`.
fn raw_string(chars: &[char], mut i: usize) -> Option<(usize, usize)> {
    if i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_') {
        return None;
    }
    if matches!(chars[i], 'b' | 'c') {
        i += 1;
    }
    if chars.get(i) != Some(&'r') {
        return None;
    }
    let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
    (chars.get(i + 1 + hashes) == Some(&'"')).then_some((i + 2 + hashes, hashes))
}

/// One past the closing quote of the literal that opens at `i`.
fn end_of_literal(chars: &[char], mut i: usize, quote: char) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn is(tokens: &[Token], at: usize, pattern: &[&str]) -> bool {
    pattern.iter().enumerate().all(|(k, text)| tokens.get(at + k).is_some_and(|t| t.text == *text))
}

/// The lines at which the words follow one another.
fn find(tokens: &[Token], pattern: &[&str]) -> Vec<usize> {
    (0..tokens.len()).filter(|&at| is(tokens, at, pattern)).map(|at| tokens[at].line).collect()
}

/// The tokens without items under `#[cfg(test)]` (or `#![cfg(test)]`, which leaves nothing).
fn shipped(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if is(tokens, i, &["#", "!", "[", "cfg", "(", "test", ")", "]"]) {
            return kept;
        }
        if !is(tokens, i, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        // The item ends with its first braces or at a semicolon; array types hold semicolons of their own.
        let mut depth = 0;
        i += 7;
        while i < tokens.len() {
            match tokens[i].text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            let end = depth == 0 && matches!(tokens[i].text.as_str(), "}" | ";");
            i += 1;
            if end {
                break;
            }
        }
    }
    kept
}

/// Names after `mod` at the top level.
fn modules(tokens: &[Token]) -> BTreeSet<String> {
    let mut depth = 0;
    let mut found = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "mod" if depth == 0 => found.extend(tokens.get(i + 1).map(|t| t.text.clone())),
            _ => {}
        }
    }
    found
}

/// A path in the code. It begins with `crate`, or with a name that its module must know.
#[derive(Clone, Debug, PartialEq)]
struct Reference {
    line: usize,
    path: Vec<String>,
    /// The name that a `use` gives to what is at its end.
    name: Option<String>,
}

/// The paths of a file, `super::` and `self::` resolved; `path` is the module of the file.
fn references(tokens: &[Token], path: &[String]) -> Vec<Reference> {
    let mut found = Vec::new();
    // Modules within the file, with the depth of braces at which they were opened.
    let (mut depth, mut inner): (usize, Vec<(usize, String)>) = (0, Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        let before = if i == 0 { "" } else { tokens[i - 1].text.as_str() };
        let here = || path.iter().chain(inner.iter().map(|(_, name)| name)).cloned().collect::<Vec<_>>();
        match tokens[i].text.as_str() {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2].text == "mod" {
                    inner.push((depth, before.to_string()));
                }
            }
            "}" => {
                if inner.last().is_some_and(|(at, _)| *at == depth) {
                    inner.pop();
                }
                depth = depth.saturating_sub(1);
            }
            // `use<'a>` and `use::<T>` are no imports.
            "use" if !is(tokens, i + 1, &["<"]) => {
                i = tree(tokens, i + 1, Vec::new(), &here(), true, &mut found);
                continue;
            }
            text if before != ":" && before != "." && is(tokens, i + 1, &[":", ":"]) && is_word(text) => {
                i = tree(tokens, i, Vec::new(), &here(), false, &mut found);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Reads the path that starts at token `i` behind `prefix`, or all of them where there are braces, and returns where it
/// ends. `here` is the module that it stands in.
fn tree(
    tokens: &[Token],
    mut i: usize,
    prefix: Vec<String>,
    here: &[String],
    is_use: bool,
    found: &mut Vec<Reference>,
) -> usize {
    let line = tokens.get(i).map_or(0, |t| t.line);
    let mut path = prefix;
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "{" if is_use => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t.text != "}") {
                    i = tree(tokens, i, path.clone(), here, is_use, found).max(i + 1);
                    if is(tokens, i, &[","]) {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "*" if is_use => {
                found.push(Reference { line, path, name: None });
                return i + 1;
            }
            // The first of a path says where it begins; later ones are for `use a::{self}`.
            "super" | "self" if path.is_empty() => {
                path = [&["crate".to_string()], here].concat();
                if token.text == "super" {
                    path.pop();
                }
            }
            "super" => {
                path.pop();
            }
            "self" => {}
            text if is_word(text) => path.push(token.text.clone()),
            _ => break,
        }
        i += 1;
        if !is(tokens, i, &[":", ":"]) {
            break;
        }
        i += 2;
    }
    let mut name = path.last().cloned();
    if is(tokens, i, &["as"]) {
        name = tokens.get(i + 1).map(|t| t.text.clone());
        i += 2;
    }
    if !path.is_empty() {
        found.push(Reference { line, path, name: name.filter(|_| is_use) });
    }
    i
}

// ---------------------------------------------------------------------------------------------------------------------
// The reader of sources itself

#[test]
fn references_are_found_wherever_they_stand() {
    let code = r##"
use crate::formats::nifti; // crate::comment
use crate::{
    volume::{Volume, crate_like},
    error,
};
pub(crate) fn f<'a>(x: &'a str) -> crate::tasks::plan::Plan { "crate::string \" crate::quoted"; 'c'; '\''; }
/* crate::block /* crate::nested */ */
const R: &str = r#"crate::raw " "#;
mod inside { use super::super::super::device; use super::super::sibling; fn g() { super::super::super::ops::run() } }
use super::super::graph::Node;
use super::neighbour::{self, deep::{Deeper as Renamed, self}, *};
#[cfg(test)]
mod tests { use crate::training; fn x() { a.unwrap() } }
#[cfg(test)]
use crate::base::random;
fn last() { crate::compute::model::build::<A>(); self::own(); neighbour::call(); x.y::<B>() }
"##;
    let path = ["a".to_string(), "b".to_string()];
    let found = references(&shipped(&tokens(code)), &path);
    let found: Vec<_> =
        found.iter().map(|r| (r.line, r.path.join("::"), r.name.as_deref().unwrap_or_default())).collect();
    let expected = [
        (2, "crate::formats::nifti", "nifti"),
        (4, "crate::volume::Volume", "Volume"),
        (4, "crate::volume::crate_like", "crate_like"),
        (5, "crate::error", "error"),
        (7, "crate::tasks::plan::Plan", ""),
        (10, "crate::device", "device"),
        (10, "crate::a::sibling", "sibling"),
        (10, "crate::ops::run", ""),
        (11, "crate::graph::Node", "Node"),
        (12, "crate::a::neighbour", "neighbour"),
        (12, "crate::a::neighbour::deep::Deeper", "Renamed"),
        (12, "crate::a::neighbour::deep", "deep"),
        (12, "crate::a::neighbour", ""),
        (17, "crate::compute::model::build", ""),
        (17, "crate::a::b::own", ""),
        (17, "neighbour::call", ""),
    ];
    assert_eq!(found, expected.map(|(line, path, name)| (line, path.to_string(), name)));
}

#[test]
fn cycles_are_found_behind_what_a_folder_passes_on() {
    let source = |(name, text): (&str, &str)| Source { name: name.into(), text: text.into() };
    let sources = [
        ("src/a/mod.rs", "mod one;\nmod two;\nmod deep;\npub use two::Two;\n#[cfg(test)]\nmod tests;\npub struct Own;"),
        ("src/a/one.rs", "\nuse super::{Own, Two};"),
        ("src/a/two.rs", "use crate::a::deep::inner;\n\nfn f() { inner::g() }"),
        ("src/a/deep/mod.rs", "pub mod inner;\nmod other;\nfn f() { inner::g() }"),
        ("src/a/deep/inner.rs", "use super::super::one::One;\nuse super::f;"),
        ("src/a/deep/other.rs", "use super::inner; use crate::b;"),
        ("src/a/tests.rs", "use super::one::One;"),
        ("src/b.rs", "use std::fmt;\nmod c { fn f() { crate::a::Two::new() } }"),
    ]
    .map(source);
    let code = Crate::new(&sources);
    let cycles: Vec<String> = code.cycles().iter().map(Cycle::to_string).collect();
    let expected = [
        "src/a: deep → one → two → deep\n    deep uses one: src/a/deep/inner.rs:1\n    \
         one uses two: src/a/one.rs:2\n    two uses deep: src/a/two.rs:1",
        "src: a → b → a\n    a uses b: src/a/deep/other.rs:1\n    b uses a: src/b.rs:2",
    ];
    assert_eq!(cycles, expected);
}

#[test]
fn the_table_is_read_as_written() {
    let library = "//! Words | with | bars\n//!\n//! | module | may use | purpose |\n//! |---|:--|---|\n\
                   //! | `io` | error, `volume` | files |\n//! | error, volume | — | basics |\n//! | cli | everything | |\n\n\
                   pub mod io;\npub mod error;\nmod cli;\n";
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
    let row = |uses: &[&str], purpose: &str| Row { uses: names(uses), purpose: purpose.into() };
    let expected = [
        ("io", row(&["error", "volume"], "files")),
        ("error", row(&[], "basics")),
        ("volume", row(&[], "basics")),
        ("cli", row(&["*"], "")),
    ];
    assert_eq!(table(library), expected.map(|(module, row)| (module.to_string(), row)).into());
    assert_eq!(modules(&tokens(library)), names(&["io", "error", "cli"]));
}

#[test]
fn calls_are_found_in_code_alone() {
    let code = "fn f() {\n    x\n        .unwrap();\n    // y.unwrap()\n    y.unwrap_or(1);\n    \"z.unwrap()\";\n}\n\
                #[cfg(test)]\nmod tests { fn g() { z.unwrap() } }\nfn h() { println!(\"\") }\n";
    let tokens = shipped(&tokens(code));
    assert_eq!(find(&tokens, &[".", "unwrap", "(", ")"]), [3]);
    assert_eq!(find(&tokens, &["println", "!"]), [10]);
}
