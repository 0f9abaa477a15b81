//! Runs that a command of the sweep trains: the example in Python's standard library, and the one for torchrun, each from
//! its sweep file to a law, through `up`. Where a program is missing the test says so and passes.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::{expect, isoloss};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn json(code: i32, command: &mut Command) -> Value {
    serde_json::from_slice(&expect(code, command).stdout).expect("JSON on stdout")
}

#[test]
fn counts_in_python_become_a_law() {
    if !runs("python3", &["-c", "import json, math, struct"]) {
        eprintln!("skipped: no python3 that runs here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sets = ["--set", "corpus.bytes='2MiB'", "--set", "corpus.scored_bytes='16KiB'"];
    let axes = ["--set", "axes.params=['10k', '40k']", "--set", "axes.tokens=['32k', '64k', '128k']"];
    let command = |words: &[&str]| {
        let mut command = isoloss(dir.path());
        command.current_dir(repository()).args(words).args(sets).args(axes);
        command
    };
    let plan = json(0, &mut command(&["plan", "sweeps/ngram.toml", "--json"]));
    assert_eq!(plan["trainer"]["command"][1], "ngram.py");
    assert!(plan["trainer"]["files"]["ngram.py"].is_string(), "{}", plan["trainer"]);
    assert!(plan["runs"][0]["seconds"].is_null(), "nobody knows how long a foreign trainer takes");

    let refused = expect(6, &mut command(&["up", "sweeps/ngram.toml"]));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("python3 ngram.py") && said.contains("--allow-commands"), "{said}");

    let fit = json(0, &mut command(&["up", "sweeps/ngram.toml", "--port", "0", "--allow-commands", "--json"]));
    assert_eq!(fit["observations"]["count"], 6);
    let report = std::fs::read_dir(dir.path().join("reports")).unwrap().flatten().next().unwrap();
    let table = std::fs::read_to_string(report.path().join("runs.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let header = rows.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (params, tokens, bits) = (at("params_non_embedding"), at("tokens"), at("bits_per_byte"));
    let mut points: Vec<(f64, f64, f64)> = rows
        .records()
        .map(|row| row.unwrap())
        .map(|row| (row[params].parse().unwrap(), row[tokens].parse().unwrap(), row[bits].parse().unwrap()))
        .collect();
    points.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(points.len(), 6);
    let (smallest, largest) = (points[0].2, points[5].2);
    assert!(points.iter().all(|point| (1.0..8.0).contains(&point.2)), "{points:?}");
    assert!(largest < 0.95 * smallest, "more counters and more text must help: {points:?}");
}

#[test]
fn two_ranks_under_torchrun_train_one_run() {
    let path = std::env::var("ISOLOSS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let new = "import torch, torch.distributed.run; torch.nn.RMSNorm; assert torch.distributed.is_gloo_available()";
    if !runs(&path, &["-c", new]) {
        eprintln!("skipped: {path} has no torch 2.4 with gloo (ISOLOSS_TEST_PYTHON names another)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "torch_gpt.py"];
    let words: Vec<String> = std::iter::once(path.as_str()).chain(words).map(|word| format!("'{word}'")).collect();
    let mut command = isoloss(dir.path());
    command.current_dir(repository()).args(["up", "sweeps/torch.toml", "--port", "0", "--allow-commands"]);
    command.args(["--set", &format!("trainer.command=[{}]", words.join(", "))]);
    command.args(["--set", "corpus.bytes='1MiB'", "--set", "corpus.scored_bytes='8KiB'"]);
    command.args(["--set", "axes.width=[16]", "--set", "axes.tokens=['20k', '100k']"]);
    let output = expect(0, &mut command);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(table.matches("finished").count(), 2, "{table}");
}
