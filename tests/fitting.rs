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

/// Losses of a law of sizes, tokens and experts (Ludziejewski et al. 2502.05172), with a little that is not of it.
fn mixtures(folder: &Path) -> PathBuf {
    let mut text = "params,params_total,tokens,experts,top_k,loss\n".to_owned();
    for (at, experts) in [1.0_f64, 2.0, 4.0, 8.0, 16.0, 32.0].into_iter().enumerate() {
        let few = 1.0 / (experts - 1.0 + 1.0 / (1.0 / 2.0732 - 1.0 / 290.4521)) + 1.0 / 290.4521;
        let e = -few.ln();
        for params in [5e7_f64, 2e8, 8e8, 3.2e9] {
            for tokens in [4e9_f64, 3e10, 2e11] {
                let size = 35.91 * (-0.2285 * e + (-0.1889 + 0.0098 * e) * params.ln()).exp();
                let data = 35.98 * (0.5529 * e + (-0.1775 - 0.0259 * e) * tokens.ln()).exp();
                let loss = (1.3637 + size + data) * (1.0 + 1e-3 * (at as f64 + params + tokens).sin());
                let total = params * (1.0 + 0.6 * (experts - 1.0));
                text.push_str(&format!("{params},{total},{tokens},{experts},1,{loss}\n"));
            }
        }
    }
    let table = folder.join("mixtures.csv");
    fs::write(&table, text).unwrap();
    table
}

#[test]
fn memory_and_use_choose_the_number_of_experts_from_the_command_line() {
    let data = tempfile::tempdir().unwrap();
    let table = mixtures(data.path());
    let fit = |more: &[&str]| {
        let mut command = isoloss(data.path());
        command.args(["fit", "--law", "joint-moe", "--resamples", "40", "--budget", "2e21", "--csv"]).arg(&table);
        let output = expect(0, command.args(more));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (text, _) = fit(&[]);
    assert!(
        text.contains("compute-optimal at 2.00e21 FLOPs, 6.00 per active param and token:\n    32 experts, "),
        "{text}"
    );
    assert!(text.contains("32 is the largest number of experts seen: what lies beyond was not tried"), "{text}");
    let (json, said) = fit(&["--memory", "8GB", "--serve-tokens", "100B", "--json"]);
    assert!(said.contains("8GB at 2 bytes a param hold 4.00G params"), "{said}");
    let record: Value = serde_json::from_str(&json).unwrap();
    let trade = &record["trade"];
    assert_eq!((trade["params_max"].as_f64(), trade["identified"].as_bool()), (Some(4e9), Some(true)), "{trade}");
    let best = &trade["kinds"][trade["best_bounded"].as_u64().unwrap() as usize];
    let place = |name: &str| best["bounded"][name].as_f64().unwrap();
    assert!(best["value"].as_f64() < Some(32.0) && place("params_total") <= 4e9 * 1.000_001, "{best}");
    let spent = 6.0 * place("params_active") * place("tokens") + 2.0 * place("params_active") * 1e11;
    assert!(spent <= 2e21 * 1.000_001, "{spent}");
    // Training takes more bytes a param, so that less fits.
    let (_, said) = fit(&["--memory", "80GiB", "--bytes-per-param", "16"]);
    assert!(said.contains("80GiB at 16 bytes a param hold 5.37G params"), "{said}");
    let (text, _) = fit(&["--serve-tokens", "1e16"]);
    assert!(text.contains("the budget does not pay for 1.000e16 tokens of use"), "{text}");
}

#[test]
fn flags_of_a_table_are_refused_for_a_sweep_and_use_that_is_not_paid_is_said() {
    let data = tempfile::tempdir().unwrap();
    for wrong in [
        &["next", "some-sweep", "--map", "params=N"][..],
        &["fit", "some-sweep", "--map", "params=N"],
        &["fit", "some-sweep", "--holdout", "largest 10% by flops"],
        &["fit", "some-sweep", "--entropy", "1.3"],
        &["fit", "some-sweep", "--memory", "lots"],
        &["fit", "some-sweep", "--memory", "1GiB", "--bytes-per-param", "0"],
        &["fit", "some-sweep", "--memory", "1GiB", "--params-max", "1B"],
        &["fit", "some-sweep", "--bytes-per-param", "2"],
    ] {
        let output = expect(2, isoloss(data.path()).args(wrong));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let flags = wrong.iter().filter(|word| word.starts_with("--"));
        assert!(flags.clone().any(|flag| said.contains(flag)), "{wrong:?}: {said}");
    }
    let table = planted(data.path());
    let mut command = isoloss(data.path());
    command.args(["fit", "--law", "additive", "--resamples", "40", "--serve-tokens", "1e15", "--csv"]).arg(&table);
    let text = String::from_utf8(expect(0, &mut command).stdout).unwrap();
    assert!(text.contains("the budget does not pay for 1.000e15 tokens of use"), "{text}");
}

#[test]
fn a_law_that_reads_no_tokens_needs_none_and_one_that_does_says_so() {
    let data = tempfile::tempdir().unwrap();
    let table = data.path().join("sizes.csv");
    let mut text = "N,loss\n".to_owned();
    for params in [1e6_f64, 2e6, 4e6, 8e6, 1.6e7] {
        text.push_str(&format!("{params},{}\n", 1.7 + 400.0 * params.powf(-0.35)));
    }
    fs::write(&table, text).unwrap();
    let fit = |code: i32, law: &str, more: &[&str]| {
        let mut command = isoloss(data.path());
        command.args(["fit", "--law", law, "--resamples", "40", "--csv"]).arg(&table);
        expect(code, command.args(more))
    };
    let output = fit(0, "power-params", &["--predict", "params=1e8", "--budget", "1e20"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("  predicted at 100M params: loss"), "{text}");
    assert!(text.contains("no allocation: the law power-params trades no params against tokens"), "{text}");
    let said = String::from_utf8(fit(2, "additive", &[]).stderr).unwrap();
    assert!(
        said.contains("no column for tokens, which the law additive reads; say which with tokens=COLUMN"),
        "{said}"
    );
    fit(2, "additive", &["--map", "tokens=1B", "--predict", "params=1e8"]);
}
