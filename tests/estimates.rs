//! What `plan` says of time and of stored results, and `corpus stats` of texts, through the binary.

use std::fs;

use serde_json::Value;

use crate::binary::{expect, isoloss};

const SWEEP: &str = r#"schema = 1
name = "estimated"

[corpus]
source = "synthetic"
bytes = "1MB"

[model]
context = 64

[axes]
params = ["3k", "6k"]
tokens = ["60k"]
seed = [1, 2]
"#;

#[test]
fn a_plan_has_seconds_and_a_budget_of_wall_time_is_held_to_them() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("sweep.toml");
    fs::write(&file, SWEEP).unwrap();
    let plan = |more: &[&str]| {
        let output = expect(0, isoloss(data.path()).args(["plan", "--json"]).arg(&file).args(more));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let measured = plan(&[]);
    assert!(measured["totals"]["seconds"].as_f64().unwrap() > 0.0, "{}", measured["totals"]);
    assert!(data.path().join("probe.json").exists(), "rates are kept");
    let bare = plan(&["--no-probe"]);
    assert!(bare["totals"]["seconds"].is_null());
    assert_eq!(bare["sweep_id"], measured["sweep_id"], "identity has no clock");
    assert_eq!(bare["runs"][0]["why"], "no coordinator asked");
    for command in ["plan", "up"] {
        let mut late = isoloss(data.path());
        let output = expect(6, late.arg(command).arg(&file).args(["--set", "budget.wall='1ms'"]));
        assert!(String::from_utf8_lossy(&output.stderr).contains("over the budget of `wall`"));
    }
    let output = expect(0, isoloss(data.path()).arg("plan").arg(&file));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("seed=2") && table.contains("ETA about"), "{table}");
}

#[test]
fn statistics_are_of_the_file_or_of_the_sweep() {
    let data = tempfile::tempdir().unwrap();
    let (text, sweep) = (data.path().join("small.txt"), data.path().join("sweep.toml"));
    fs::write(&text, "one small text\n").unwrap();
    fs::write(&sweep, SWEEP).unwrap();
    let stats = |file| {
        let output = expect(0, isoloss(data.path()).args(["corpus", "stats", "--json"]).arg(file));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let found = stats(&text);
    assert_eq!((&found["schema_version"], &found["stats"]["bytes"]), (&1.into(), &15.into()), "{found}");
    let found = stats(&sweep);
    assert!(found["corpora"][0]["train"]["bytes"].as_u64().unwrap() > 800_000, "{found}");
    expect(2, isoloss(data.path()).args(["corpus", "stats", "/dev/zero"]));
}
