//! Wrong sweep files: one clear message each, the documented exit code, and nothing started.

use std::fs;
use std::path::Path;

use crate::binary::{expect, isoloss};

/// A file that would be right, with a line or two replaced.
fn sweep(replace: &[(&str, &str)]) -> String {
    let mut text = r#"schema = 1
name = "wrong"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "1MB"

[model]
context = 64

[axes]
params = ["20k", "40k"]
tokens = ["100k", "200k"]

[[arm]]
name = "dense"

[[arm]]
name = "moe"
family = "moe"
experts = 4
top_k = 2
"#
    .to_owned();
    for (old, new) in replace {
        assert!(text.contains(old), "{old:?} is not in the template");
        text = text.replacen(old, new, 1);
    }
    text
}

fn refuse(name: &str, code: i32, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("wrong.toml");
    fs::write(&file, text).unwrap();
    for command in ["plan", "up"] {
        let output = expect(code, isoloss(&data).current_dir(folder.path()).arg(command).arg("wrong.toml"));
        assert!(output.stdout.is_empty(), "{command} wrote data: {}", String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8(output.stderr).unwrap();
        if command == "plan" {
            insta::assert_snapshot!(name, portable(&said, folder.path()));
        }
        assert!(!said.contains("panicked"), "{said}");
    }
    assert!(nothing_started(&data), "something was written under {}", data.display());
}

/// The message without what differs between machines: the test's folder, and a position that depends on its length.
fn portable(said: &str, folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap();
    let said = said.replace(&folder.display().to_string(), "[folder]");
    match said.split_once("near position ") {
        Some((before, after)) => {
            format!("{before}near position [n]{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => said,
    }
}

/// No journal with a sweep in it and no checkpoint.
fn nothing_started(data: &Path) -> bool {
    let journal = walk(data).into_iter().filter(|path| path.to_string_lossy().contains("journal"));
    let admitted = journal
        .into_iter()
        .any(|path| fs::read(path).is_ok_and(|bytes| bytes.windows(8).any(|w| w.eq_ignore_ascii_case(b"admitted"))));
    !admitted && !walk(data).iter().any(|path| path.extension().is_some_and(|e| e == "checkpoint"))
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn unknown_key() {
    refuse("unknown_key", 2, &sweep(&[("context = 64", "contxt = 64")]));
}

#[test]
fn wrong_type() {
    refuse("wrong_type", 2, &sweep(&[("context = 64", "context = \"long\"")]));
}

#[test]
fn negative_count() {
    refuse("negative_count", 2, &sweep(&[("\"20k\", \"40k\"", "-20000, 40000")]));
}

#[test]
fn empty_grid() {
    refuse("empty_grid", 2, &sweep(&[("params = [\"20k\", \"40k\"]", "params = []")]));
}

#[test]
fn missing_corpus() {
    let files = "source = \"files\"\npaths = [\"no-such-novel.txt\"]";
    refuse("missing_corpus", 2, &sweep(&[("source = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MB\"", files)]));
}

#[test]
fn top_k_over_experts() {
    refuse("top_k_over_experts", 2, &sweep(&[("top_k = 2", "top_k = 5")]));
}

#[test]
fn budget_exceeded() {
    refuse(
        "budget_exceeded",
        6,
        &sweep(&[("[[arm]]\nname = \"dense\"", "[budget]\nflops = 1e9\n\n[[arm]]\nname = \"dense\"")]),
    );
}

#[test]
fn duplicate_arm() {
    refuse("duplicate_arm", 2, &sweep(&[("name = \"moe\"", "name = \"dense\"")]));
}

#[test]
fn bad_glob() {
    let files = "source = \"files\"\npaths = [\"texts/[a-.txt\"]";
    refuse("bad_glob", 2, &sweep(&[("source = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MB\"", files)]));
}

#[test]
fn folder_as_corpus() {
    let files = "source = \"files\"\npaths = [\".\"]";
    refuse("folder_as_corpus", 2, &sweep(&[("source = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MB\"", files)]));
}

#[test]
fn too_little_text() {
    refuse("too_little_text", 2, &sweep(&[("bytes = \"1MB\"", "bytes = \"1kB\"")]));
}

/// A folder of corpora that cannot be made is this machine's fault, not the file's.
#[test]
fn unwritable_corpora_are_a_failure_and_leave_no_draft() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("corpora"), "not a folder").unwrap();
    fs::write(folder.path().join("right.toml"), sweep(&[])).unwrap();
    let output = expect(1, isoloss(&data).current_dir(folder.path()).args(["plan", "right.toml"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot make the corpus"), "{said}");
    assert!(!walk(folder.path()).iter().any(|path| path.to_string_lossy().contains(".draft-")));
}

#[test]
fn syntax_error() {
    refuse("syntax_error", 2, &sweep(&[("context = 64", "context = = 64")]));
}
