//! `fit --csv` on a table that people know, through the binary.

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
