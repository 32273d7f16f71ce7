//! The architecture as a test. `src/lib.rs` documents in a table which module may use which; this file reads the table
//! and the sources and names every line that does otherwise. Test code (`#[cfg(test)]`) may use what it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn modules_use_only_what_the_table_allows() {
    let library = read(&root().join("src/lib.rs"));
    let table = table(&library);
    assert!(!table.is_empty(), "src/lib.rs has no table `//! | module | may use |` in its documentation");

    let declared = modules(&shipped(&tokens(&library)));
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(listed, declared, "the table in src/lib.rs (left) does not list the modules of the crate (right)");
    for (module, uses) in &table {
        let unknown: Vec<_> = uses.iter().filter(|used| *used != "*" && !declared.contains(*used)).collect();
        assert!(unknown.is_empty(), "src/lib.rs: {module} may use {unknown:?}, which are no modules");
    }

    let mut offences = Vec::new();
    for source in sources() {
        let Some((module, path)) = source.module_path() else { continue };
        let Some(allowed) = table.get(&module) else { continue };
        for (line, used) in references(&shipped(&tokens(&source.text)), &path) {
            let known = declared.contains(&used);
            if known && used != module && !allowed.contains(&used) && !allowed.contains("*") {
                offences.push(format!("{}:{line}: {module} uses {used}", source.name));
            }
        }
    }
    assert!(offences.is_empty(), "not allowed by the table in src/lib.rs:\n{}", offences.join("\n"));
}

#[test]
fn wgpu_is_named_in_device_alone() {
    report("names wgpu outside src/device", |source, tokens| match source.is_under("device") {
        true => vec![],
        false => find(tokens, &["wgpu", ":", ":"]).into_iter().chain(find(tokens, &["use", "wgpu"])).collect(),
    });
}

#[test]
fn printing_and_exiting_are_for_the_command_line() {
    report("prints or exits outside main.rs, cli/ and progress.rs", |source, tokens| {
        if source.is_under("main") || source.is_under("cli") || source.is_under("progress") {
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
        match ["io", "preprocess", "dataset", "cli"].iter().any(|module| source.is_under(module)) {
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

    /// The top-level module and the whole path of the file's module; none for the roots of the two crates.
    fn module_path(&self) -> Option<(String, Vec<String>)> {
        let inner = self.name.strip_prefix("src/")?.strip_suffix(".rs")?;
        let inner = inner.strip_suffix("/mod").unwrap_or(inner);
        if inner == "lib" || inner == "main" {
            return None;
        }
        let path: Vec<String> = inner.split('/').map(String::from).collect();
        Some((path[0].clone(), path))
    }
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

/// Rows `//! | module | a, b, c |`, back quotes allowed, further columns ignored; `*`, `all` or `everything` allows
/// all modules, `-` or nothing none.
fn table(library: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = library.lines().filter_map(|line| line.trim().strip_prefix("//!")?.trim().strip_prefix('|'));
    let mut table = BTreeMap::new();
    let mut inside = false;
    for row in rows {
        let cells: Vec<String> = row.split('|').map(|cell| cell.replace('`', "").trim().to_string()).collect();
        let [module, uses, ..] = cells.as_slice() else { continue };
        if module == "module" {
            inside = uses == "may use";
        } else if inside && !module.starts_with([':', '-']) {
            let uses = uses.split(',').map(str::trim).filter(|used| !matches!(*used, "" | "-" | "–" | "—" | "nothing"));
            let uses = uses.map(|used| if matches!(used, "all" | "everything") { "*" } else { used }.to_string());
            for module in module.split(',') {
                table.insert(module.trim().to_string(), uses.clone().collect());
            }
        }
    }
    table
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

/// Top-level names that a file refers to by `crate::name`, `crate::{a, b::c}` or enough `super::`, with their lines.
/// `path` is the module of the file.
fn references(tokens: &[Token], path: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Depths of braces at which modules within the file were opened: `super` counts them.
    let (mut depth, mut inner): (usize, Vec<usize>) = (0, Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            "{" => {
                depth += 1;
                if i >= 2 && tokens[i - 2].text == "mod" {
                    inner.push(depth);
                }
            }
            "}" => {
                if inner.last() == Some(&depth) {
                    inner.pop();
                }
                depth = depth.saturating_sub(1);
            }
            // `pub(crate)` and `pub(super)` have no colons.
            "crate" if is(tokens, i + 1, &[":", ":"]) => names(tokens, i + 3, &mut found),
            "super" if i == 0 || tokens[i - 1].text != ":" => {
                let mut steps = 1;
                let mut end = i + 1;
                while is(tokens, end, &[":", ":", "super"]) {
                    (steps, end) = (steps + 1, end + 3);
                }
                // `super` within `self::super` and in groups goes further down; the crate's root is what counts.
                if steps == path.len() + inner.len() && is(tokens, end, &[":", ":"]) {
                    names(tokens, end + 2, &mut found);
                }
                i = end;
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// The first name of a path, or of each path in braces, that starts at token `i`.
fn names(tokens: &[Token], i: usize, found: &mut Vec<(usize, String)>) {
    let mut push = |at: usize| found.extend(tokens.get(at).map(|t| (t.line, t.text.clone())));
    if !is(tokens, i, &["{"]) {
        return push(i);
    }
    let mut depth = 0;
    for at in i..tokens.len() {
        match tokens[at].text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
        if depth == 1 && matches!(tokens[at].text.as_str(), "{" | ",") && !is(tokens, at + 1, &["}"]) {
            push(at + 1);
        }
    }
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
use super::neighbour;
#[cfg(test)]
mod tests { use crate::training; fn x() { a.unwrap() } }
#[cfg(test)]
use crate::base::random;
fn last() { crate::compute::model::build() }
"##;
    let path = ["a".to_string(), "b".to_string()];
    let found = references(&shipped(&tokens(code)), &path);
    let expected = [
        (2, "io"),
        (4, "volume"),
        (5, "error"),
        (7, "plan"),
        (10, "device"),
        (10, "ops"),
        (11, "graph"),
        (17, "model"),
    ];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_string())));
}

#[test]
fn the_table_is_read_as_written() {
    let library = "//! Words | with | bars\n//!\n//! | module | may use |\n//! |---|:--|\n//! | `io` | error, `volume` |\n\
                   //! | error, volume | — |\n//! | cli | everything |\n\npub mod io;\npub mod error;\nmod cli;\n";
    let row = |uses: &[&str]| uses.iter().map(|u| u.to_string()).collect::<BTreeSet<_>>();
    let expected = [("io", row(&["error", "volume"])), ("error", row(&[])), ("volume", row(&[])), ("cli", row(&["*"]))];
    assert_eq!(table(library), expected.map(|(module, uses)| (module.to_string(), uses)).into());
    assert_eq!(modules(&tokens(library)), row(&["io", "error", "cli"]));
}

#[test]
fn calls_are_found_in_code_alone() {
    let code = "fn f() {\n    x\n        .unwrap();\n    // y.unwrap()\n    y.unwrap_or(1);\n    \"z.unwrap()\";\n}\n\
                #[cfg(test)]\nmod tests { fn g() { z.unwrap() } }\nfn h() { println!(\"\") }\n";
    let tokens = shipped(&tokens(code));
    assert_eq!(find(&tokens, &[".", "unwrap", "(", ")"]), [3]);
    assert_eq!(find(&tokens, &["println", "!"]), [10]);
}
