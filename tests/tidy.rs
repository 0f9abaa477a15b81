//! Limits that keep the code readable: file and function length, names that say nothing, words that must not appear.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// File names without a domain noun.
const BANNED_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "imp", "stuff"];
/// Assembled so that this file does not trip over itself.
const BANNED_WORDS: &[&[&str]] =
    &[&["FIX", "ME"], &["XX", "X"], &["todo", "!("], &["unimplemented", "!("], &["#[ig", "nore]"]];

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join("crates"), root.join("tests")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| ["rs", "js", "css"].contains(&e.to_str().unwrap_or(""))) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "the walk found too little to mean anything");
    found
}

/// Length of each function, found by rustfmt's promise that `}` closes at the indentation of its `fn` line.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let words = body.split_whitespace().take_while(|w| !w.contains('('));
        let is_fn = body.contains("fn ")
            && words.clone().all(|w| w.chars().all(|c| c.is_alphanumeric() || "_\"()".contains(c)));
        if !is_fn || body.starts_with("//") || body.ends_with(';') || body.ends_with('}') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|l| *l == closing) {
            found.push((body.chars().take(60).collect(), length + 1));
        }
    }
    found
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if BANNED_NAMES.contains(&stem.as_str()) {
            wrong.push(format!("{}: a file is named for the thing it holds", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn functions_fit_one_screen() {
    let mut wrong = Vec::new();
    for path in sources().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        for (name, length) in functions(&fs::read_to_string(&path).unwrap()) {
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!("{}: {name}: {length} lines, at most {FUNCTION_LINES_MAX}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_function_scanner_sees_functions() {
    let text = "impl A {\n    pub fn b(&self) -> u32 {\n        1\n    }\n}\nfn c() {\n\n\n}\n";
    let lengths: Vec<usize> = functions(text).into_iter().map(|(_, n)| n).collect();
    assert_eq!(lengths, [3, 4]);
}

#[test]
fn no_unfinished_work_is_left_in_the_code() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for word in BANNED_WORDS {
            if text.contains(&word.concat()) {
                wrong.push(format!("{}: {}", path.display(), word.concat()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
