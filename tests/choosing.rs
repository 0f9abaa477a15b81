//! `next` on a table, and `up --choose` on a real sweep, through the binary.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::binary::{expect, isoloss};

const SWEEP: &str = r#"schema = 1
name = "choosing"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "600kB"
validation = 0.2

[model]
context = 64

[axes]
params = ["4k", "6k", "9k", "13k"]
tokens = ["20k", "40k", "80k", "160k"]
"#;

/// The table of runs in a report.
fn rows(report: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(report.join("runs.csv")).unwrap();
    reader.records().map(Result::unwrap).collect()
}

fn column(report: &Path, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_path(report.join("runs.csv")).unwrap();
    let at = reader.headers().unwrap().iter().position(|head| head == name).unwrap();
    rows(report).iter().map(|row| row[at].to_owned()).collect()
}

#[test]
fn a_part_of_a_sweep_is_chosen_and_the_rest_can_follow() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("choosing.toml");
    fs::write(&file, SWEEP).unwrap();
    let up = |report: &Path, more: &[&str]| {
        let mut command = isoloss(data.path());
        command.arg("up").arg(&file).args(["--port", "0", "--no-probe", "--out"]).arg(report).args(more);
        expect(0, &mut command)
    };
    let report = data.path().join("part");
    let output = up(&report, &["--choose", "45%"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let finished = |report: &Path| column(report, "state").iter().filter(|state| *state == "finished").count();
    let states = column(&report, "state");
    assert!(finished(&report) >= 7 && states.iter().all(|state| state == "finished" || state == "cancelled"), "{said}");
    let flops: Vec<f64> = column(&report, "flops").iter().map(|flops| flops.parse().unwrap()).collect();
    let spent: f64 = flops.iter().zip(&states).filter(|(_, state)| *state == "finished").map(|(flops, _)| flops).sum();
    assert!(spent <= 0.45 * flops.iter().sum::<f64>(), "{spent} of {flops:?}");
    let dearest = flops.iter().copied().fold(0.0, f64::max);
    let made = |at: usize| states[at] == "finished";
    assert!((0..flops.len()).all(|at| flops[at] < dearest || !made(at)), "the target is not made: {states:?}");
    assert!(said.contains("the loss at the target is known to"), "{said}");
    // A percentage without its sign.
    let slip = isoloss(data.path()).arg("up").arg(&file).args(["--port", "0", "--choose", "45"]).output().unwrap();
    assert_eq!(slip.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&slip.stderr).contains("45%"));
    // Once more: nothing is left to spend, nothing is made again.
    let again = data.path().join("again");
    up(&again, &["--choose", "45%"]);
    assert_eq!(column(&again, "run_id"), column(&report, "run_id"));
    assert!(finished(&again) >= finished(&report));
    // Without the choice the rest follows.
    let whole = data.path().join("whole");
    up(&whole, &[]);
    assert_eq!(finished(&whole), 16);
}

#[test]
fn branches_are_chosen_with_what_their_trunks_still_cost() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("branches.toml");
    fs::write(&file, format!("{SWEEP}\n[train]\nschedule = {{ wsd = {{ decay = 0.25 }} }}\n")).unwrap();
    let report = data.path().join("part");
    let mut command = isoloss(data.path());
    command.arg("up").arg(&file).args(["--port", "0", "--no-probe", "--choose", "50%", "--out"]).arg(&report);
    let output = expect(0, &mut command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let states = column(&report, "state");
    let made = states.iter().filter(|state| *state == "finished").count();
    assert!((7..16).contains(&made) && states.len() == 16, "{states:?}: {said}");
    let numbers = |name| -> Vec<f64> { column(&report, name).iter().map(|text| text.parse().unwrap_or(0.0)).collect() };
    let (params, flops) = (numbers("params_non_embedding"), numbers("flops"));
    // Of each size, its own decays and the trunk as far as its longest branch needs it.
    let spent = |is_made: &dyn Fn(usize) -> bool| -> f64 {
        let runs = || (0..flops.len()).filter(|at| is_made(*at));
        let longest = |of: f64| runs().filter(|at| params[*at] == of).map(|at| 0.75 * flops[at]).fold(0.0, f64::max);
        let mut sizes = params.clone();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        runs().map(|at| 0.25 * flops[at]).sum::<f64>() + sizes.into_iter().map(longest).sum::<f64>()
    };
    let (part, whole) = (spent(&|at| states[at] == "finished"), spent(&|_| true));
    assert!(part <= 0.51 * whole, "{part} of {whole}: {states:?}");
    assert!(said.contains("the loss at the target is known to"), "{said}");
}

#[test]
fn next_reads_a_pool_from_a_table_and_says_when_to_stop() {
    let data = tempfile::tempdir().unwrap();
    let table = data.path().join("pool.csv");
    let mut text = "id,N,D,loss\n".to_owned();
    for (at, params) in [1e6_f64, 2e6, 4e6, 8e6, 1.6e7].into_iter().enumerate() {
        for (step, tokens) in [2e7_f64, 8e7, 3.2e8, 1.28e9].into_iter().enumerate() {
            let loss = 1.7 + 400.0 * params.powf(-0.35) + 900.0 * tokens.powf(-0.34);
            let known = at < 3 && step < 3;
            text.push_str(&format!(
                "r{at}-{step},{params},{tokens},{}\n",
                if known { loss.to_string() } else { String::new() }
            ));
        }
    }
    fs::write(&table, text).unwrap();
    let next = |more: &[&str]| {
        let mut command = isoloss(data.path());
        command.arg("next").arg("--csv").arg(&table).args(["--target", "params=1e8,tokens=2e9", "--json"]).args(more);
        command
    };
    let advice: Value = serde_json::from_slice(&expect(0, &mut next(&["--budget", "20%"])).stdout).unwrap();
    assert_eq!((&advice["seen"], &advice["pool"]), (&Value::from(9), &Value::from(11)));
    let picks = advice["picks"].as_array().unwrap();
    assert!(!picks.is_empty() && picks.iter().all(|pick| pick["id"].as_str().unwrap().starts_with('r')));
    let cost: f64 = picks.iter().map(|pick| pick["cost"].as_f64().unwrap()).sum();
    assert!(cost <= advice["budget"].as_f64().unwrap() * (1.0 + 1e-9));
    let truth = 1.7 + 400.0 * 1e8_f64.powf(-0.35) + 900.0 * 2e9_f64.powf(-0.34);
    let told = advice["targets"][0]["loss"].as_f64().unwrap();
    assert!((told / truth - 1.0).abs() < 0.05, "{told} for {truth}");
    let enough: Value = serde_json::from_slice(&expect(0, &mut next(&["--until", "50%"])).stdout).unwrap();
    assert!(enough["picks"].as_array().unwrap().is_empty() && enough["stop"].is_string(), "{enough}");
    let poor: Value = serde_json::from_slice(&expect(0, &mut next(&["--budget", "1"])).stdout).unwrap();
    assert!(poor["stop"].as_str().unwrap().contains("does not pay"), "{poor}");
    expect(2, &mut next(&["--budget", "-3"]));
    expect(2, &mut next(&["--laws", "no-such-law"]));
}
