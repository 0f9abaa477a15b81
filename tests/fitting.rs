//! `fit --csv` on a table that people know, through the binary.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::binary::{expect, isoloss, shared};

/// The optimum of the additive law on the 234 rows, found by several public tools and our own study.
const OPTIMUM: [(&str, f64, f64); 5] = [
    ("E", 1.783894, 2e-6),
    ("A", 442.164, 2e-2),
    ("B", 1271.808, 1e-1),
    ("alpha", 0.342626, 2e-6),
    ("beta", 0.342002, 2e-6),
];

#[test]
fn the_additive_optimum_is_found_from_the_command_line() {
    let Some(table) = shared("laws/kyo_takano_llm.csv") else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut command = isoloss(data.path());
    command.args(["fit", "--law", "additive", "--resamples", "200", "--json", "--csv"]).arg(table);
    let output = expect(0, &mut command);
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let law = &record["laws"][0];
    for (name, expected, tolerance) in OPTIMUM {
        let found = law["parameters"][name].as_f64().unwrap();
        assert!((found - expected).abs() <= tolerance, "{name}: {found}, expected {expected}");
        let interval = &law["intervals"][name];
        assert!(interval[0].as_f64() <= Some(found) && Some(found) <= interval[1].as_f64(), "{name}: {interval}");
    }
    let objective = law["objective"].as_f64().unwrap();
    assert!((objective - 8.400931e-4).abs() < 1e-9, "objective {objective}");
    let exponent = record["allocation"]["a"].as_f64().unwrap();
    assert!((exponent - 0.342002 / (0.342626 + 0.342002)).abs() < 1e-4, "allocation exponent {exponent}");
}

#[test]
fn a_missing_table_is_not_found_and_a_wrong_map_is_usage() {
    let data = tempfile::tempdir().unwrap();
    expect(4, isoloss(data.path()).args(["fit", "--csv", "no-such.csv"]));
    let table = data.path().join("runs.csv");
    std::fs::write(&table, "a,b\n1,2\n").unwrap();
    let output = expect(2, isoloss(data.path()).args(["fit", "--csv"]).arg(&table));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no column for loss"), "names what is missing");
}

/// Losses of a law without noise on a grid of sizes and tokens.
fn planted(folder: &Path) -> PathBuf {
    let mut text = "id,params,tokens,loss\n".to_owned();
    for params in [1e6_f64, 2e6, 4e6, 8e6] {
        for tokens in [2e7_f64, 8e7, 3.2e8] {
            let loss = 1.7 + 400.0 * params.powf(-0.35) + 900.0 * tokens.powf(-0.34);
            text.push_str(&format!("r{params}-{tokens},{params},{tokens},{loss}\n"));
        }
    }
    let table = folder.join("planted.csv");
    fs::write(&table, text).unwrap();
    table
}

#[test]
fn a_prediction_stands_in_every_format() {
    let data = tempfile::tempdir().unwrap();
    let table = planted(data.path());
    let fit = |format: &str| {
        let mut command = isoloss(data.path());
        command.args(["fit", "--law", "additive", "--resamples", "40", "--predict", "params=1e9,tokens=20B"]);
        let output = expect(0, command.args(["-o", format, "--csv"]).arg(&table));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(fit("table").contains("predicted at 1.00G params, 20.0G tokens: loss"), "{}", fit("table"));
    let csv = fit("csv");
    assert!(csv.starts_with("law,chosen,identified,quantity,"), "{csv}");
    assert!(csv.contains("additive,true,true,loss,1000000000.0,20000000000.0,"), "{csv}");
    let record: Value = serde_json::from_str(&fit("json")).unwrap();
    assert_eq!(record["predictions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn questions_without_sense_are_refused_and_no_law_is_a_failure() {
    let data = tempfile::tempdir().unwrap();
    let table = planted(data.path());
    for wrong in [&["--budget=-3"][..], &["--budget", "nan"], &["--resamples", "0"], &["--predict", "params=1e9"]] {
        expect(2, isoloss(data.path()).arg("fit").args(wrong).arg("--csv").arg(&table));
    }
    expect(2, isoloss(data.path()).args(["fit", "some-sweep", "--seed", "2"]));
    fs::write(&table, "params,tokens,loss\n1e6,1e8,3\n1e6,1e8,-1\n2e6,1e8\n").unwrap();
    let output = expect(1, isoloss(data.path()).args(["fit", "--csv"]).arg(&table));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("2 of 3 runs left out of the fit:\n  line 3: expected a positive finite loss, got -1"),
        "{said}"
    );
    assert!(said.contains("line 4: expected 3 cells"), "{said}");
}
