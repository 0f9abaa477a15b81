//! Runs that do not belong together: planted offsets are found with their size, runs that belong together stay unsaid.

use isoloss_fit::diagnosis::DiagnosisRecord;
use isoloss_fit::mixing::LabelRecord;
use isoloss_fit::{Observation, Observations};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{chinchilla, diagnosed, grid};
use crate::table;

fn label<'a>(record: &'a DiagnosisRecord, name: &str) -> &'a LabelRecord {
    record.mixing.as_ref().unwrap().labels.iter().find(|label| label.label == name).unwrap()
}

fn labelled(mut rows: Vec<Observation>, name: &str, value: impl Fn(usize) -> String) -> Vec<Observation> {
    rows.iter_mut().enumerate().for_each(|(at, row)| {
        row.labels.insert(name.to_owned(), value(at));
    });
    rows
}

#[test]
fn tokenizers_in_one_table_are_told_with_the_size_of_their_difference() {
    let of = |at: usize| ["llama", "neox", "gpt2"][(at * 7 + at / 6) % 3].to_owned();
    let mut rows = labelled(grid(&chinchilla(), 6, 0.002, 4), "tokenizer", of);
    let offset =
        |name: &str| [("llama", 0.0_f64), ("neox", 0.0), ("gpt2", 0.05)].iter().find(|o| o.0 == name).unwrap().1;
    rows.iter_mut().for_each(|row| row.loss *= offset(&row.labels["tokenizer"]).exp());
    let record = diagnosed(rows);
    let found = label(&record, "tokenizer");
    let of = |name: &str| {
        if name == found.reference {
            0.0
        } else {
            found.groups.iter().find(|g| g.value == name).unwrap().offset.unwrap()
        }
    };
    assert!(((of("gpt2") - of("llama")) - 0.05).abs() < 0.004, "{found:?}");
    assert!((of("neox") - of("llama")).abs() < 0.004, "{found:?}");
    let said = record.warnings.join("\n");
    assert!(said.contains("off \"gpt2\" (12 runs)") && said.contains("fit bits per byte"), "{said}");
}

/// Checkpoints inside a schedule lie above what a run of that many tokens ends at.
#[test]
fn hot_checkpoints_show_by_their_clusters_alone() {
    let mut rows = grid(&chinchilla(), 6, 0.002, 5);
    for row in &mut rows {
        let (size, budget) = (row.params, row.tokens);
        row.cluster = format!("{size:e}");
        if budget < 2e11 {
            row.loss *= 1.03;
        }
    }
    let record = diagnosed(rows);
    let found = label(&record, "checkpoint");
    assert!(found.found() && (found.groups[0].offset.unwrap() + 0.03).abs() < 0.01, "{found:?}");
    assert!(record.warnings.join("\n").contains("fit the last of each run alone"), "{:?}", record.warnings);
}

#[test]
fn a_label_that_goes_with_size_cannot_be_told_from_it() {
    let rows = labelled(grid(&chinchilla(), 6, 0.002, 6), "tokenizer", |at| (at / 18).to_string());
    let record = diagnosed(rows);
    let groups = &label(&record, "tokenizer").groups;
    assert!(groups.iter().all(|group| !group.found), "{groups:?}");
    let few = labelled(grid(&chinchilla(), 6, 0.002, 6), "tokenizer", |at| (at < 3).to_string());
    assert!(diagnosed(few).mixing.is_none());
}

/// Labels by lot on runs of one law: one table in a hundred may be warned about.
#[test]
fn labels_that_mean_nothing_stay_unsaid() {
    let tables = std::env::var("ISOLOSS_TABLES").ok().and_then(|n| n.parse().ok()).unwrap_or(60_u64);
    let mut alarms = 0;
    for seed in 0..tables {
        let mut rng = ChaCha8Rng::seed_from_u64(1_000 + seed);
        let mut rows = grid(&chinchilla(), [4, 5, 6, 10][seed as usize % 4], 0.004, seed);
        // Half of the tables have runs in clusters, with noise of their own.
        if seed % 2 == 1 {
            let common: Vec<f64> = (0..8).map(|_| 0.006 * (rng.random::<f64>() - 0.5)).collect();
            for (at, row) in rows.iter_mut().enumerate() {
                row.cluster = (at % 8).to_string();
                row.loss *= common[at % 8].exp();
            }
        }
        for name in ["one", "two", "three"] {
            let by_cluster: Vec<usize> = (0..8).map(|_| rng.random_range(0..2)).collect();
            let by_run: Vec<usize> = rows.iter().map(|_| rng.random_range(0..3)).collect();
            let whole = seed % 2 == 1 && name == "one";
            rows = labelled(rows, name, |at| if whole { by_cluster[at % 8] } else { by_run[at] }.to_string());
        }
        alarms +=
            usize::from(diagnosed(rows).mixing.is_some_and(|record| record.labels.iter().any(LabelRecord::found)));
    }
    eprintln!("{alarms} of {tables} tables of one law were warned about");
    assert!(alarms <= 2, "{alarms} of {tables}");
}

#[test]
fn public_tables_of_one_kind_stay_unsaid_and_hot_beside_cooled_are_told() {
    let read = |name: &str, map: &str| table(name, map).map(|set| set.rows().to_vec());
    let both = (read("gemstones_hot.csv", "cluster=run_name"), read("gemstones_cool_end.csv", "cluster=run_name"));
    let (Some(hot), Some(cooled)) = both else { return };
    let quiet =
        |rows: &[Observation]| diagnosed(rows.to_vec()).mixing.is_none_or(|m| m.labels.iter().all(|l| !l.found()));
    assert!(quiet(&hot) && quiet(&cooled));
    let hot = labelled(hot, "cooled", |_| "no".to_owned());
    let cooled = labelled(cooled, "cooled", |_| "yes".to_owned()).into_iter();
    let cooled = cooled.map(|row| Observation { id: format!("cooled {}", row.id), ..row });
    let mixed = Observations::new(hot.into_iter().chain(cooled).collect(), vec![], "params");
    let record = super::additive(&mixed).diagnosis.unwrap();
    let group = &label(&record, "cooled").groups[0];
    assert!(group.found && (-0.035..-0.02).contains(&group.offset.unwrap()), "{group:?}");
}
