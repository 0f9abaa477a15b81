use std::collections::BTreeMap;

use super::*;
use crate::form::form;
use crate::record::Within;

/// Ludziejewski et al. 2502.05172, joint law.
const JOINT: [(&str, f64); 11] = [
    ("a", 35.91),
    ("alpha", -0.1889),
    ("delta", -0.2285),
    ("gamma", 0.0098),
    ("b", 35.98),
    ("beta", -0.1775),
    ("omega", 0.5529),
    ("zeta", -0.0259),
    ("E_start", 2.0732),
    ("E_max", 290.4521),
    ("c", 1.3637),
];
/// Krajewski et al. 2402.07871, mixtures.
const GRANULARITY: [(&str, f64); 7] =
    [("a", 18.1), ("alpha", 0.115), ("b", 30.8), ("beta", 0.147), ("g", 2.1), ("gamma", 0.58), ("c", 0.47)];
/// Abnar et al. 2501.12370.
const SPARSITY: [(&str, f64); 10] = [
    ("a", 16612.5),
    ("b", 5455.67),
    ("c", 0.4598),
    ("d", 17.26),
    ("e", 0.94),
    ("alpha", 0.5962),
    ("beta", 0.3954),
    ("lambda", -0.1666),
    ("delta", 0.1603),
    ("gamma", 0.1595),
];
/// Clark et al. 2202.01169, S-Base.
const CLARK: [(&str, f64); 6] =
    [("a", -0.082), ("b", -0.108), ("c", 0.009), ("d", 1.104), ("E_start", 1.847), ("E_max", 314.478)];

const SHARE: f64 = 0.55;

/// Runs with as many experts, of which one is used, finer by granularity; their total params say the share.
fn runs(experts: &[u32], granularities: &[f64], tokens: &[f64]) -> Vec<Observation> {
    let mut rows = Vec::new();
    for &count in experts {
        for &granularity in granularities {
            for size in [1e8, 4e8, 1.6e9] {
                for &data in tokens {
                    let id = format!("{count} {granularity} {size:e} {data:e}");
                    let mut row = Observation::dense(id, size, data, 2.5);
                    (row.experts, row.top_k, row.granularity) = (Some(count), Some(1), Some(granularity));
                    row.params_total = size * (1.0 + SHARE * f64::from(count - 1));
                    rows.push(row);
                }
            }
        }
    }
    rows
}

fn law(name: &str, constants: &[(&str, f64)], rows: &[Observation]) -> FittedForm {
    let map: BTreeMap<String, f64> = constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    FittedForm::new(form(name).unwrap(), &map, None, rows).unwrap()
}

fn ask(law: &FittedForm, rows: &[Observation], settings: &Settings) -> TradeRecord {
    let draws = [law.clone()];
    let interval = |_: f64, values: Vec<f64>| crate::interval::percentiles(values, 0.95);
    trade(&Law { law, draws: &draws, interval: &interval, whole: true }, rows, settings).unwrap()
}

fn settings(budget: f64, serve_tokens: Option<f64>, params_max: Option<f64>) -> Settings {
    Settings { budget: Some(budget), serve_tokens, params_max, ..Settings::default() }
}

/// Active params, experts or what the kind is, and loss: the least over a fine grid, with nothing but the law's own loss of
/// runs asked.
fn brute(
    law: &FittedForm,
    kinds: &[Observation],
    budget: f64,
    served: f64,
    params_max: f64,
    fixed: Option<f64>,
) -> (Observation, f64) {
    let mut least = (kinds[0].clone(), f64::INFINITY);
    for kind in kinds {
        for step in 0..60_000 {
            let active = 1e6 * (f64::from(step) * 2.5e-4).exp();
            let over = f64::from(kind.experts.unwrap()) / f64::from(kind.top_k.unwrap());
            let total = active * (1.0 + SHARE * (over - 1.0));
            let tokens = fixed.unwrap_or((budget - 2.0 * active * served) / (6.0 * active));
            let spent = 6.0 * active * tokens + 2.0 * active * served;
            if tokens <= 0.0 || spent > budget * (1.0 + 1e-12) || total > params_max {
                continue;
            }
            let row =
                Observation { params: active, params_active: active, params_total: total, tokens, ..kind.clone() };
            let loss = law.loss(&row);
            if loss < least.1 {
                least = (row, loss);
            }
        }
    }
    least
}

/// The first run of each kind.
fn first(rows: &[Observation]) -> Vec<Observation> {
    rows.iter().filter(|row| row.params == 1e8 && row.tokens == rows[0].tokens).cloned().collect()
}

#[test]
fn every_form_finds_what_a_fine_grid_finds() {
    let data = [1e10, 1e11];
    let cases = [
        ("joint-moe", &JOINT[..], runs(&[1, 2, 4, 8, 16, 32], &[1.0], &data), None),
        ("granularity", &GRANULARITY[..], runs(&[16], &[1.0, 2.0, 4.0, 8.0], &data), None),
        ("sparsity", &SPARSITY[..], runs(&[1, 2, 4, 8, 16, 32], &[1.0], &data), None),
        ("clark", &CLARK[..], runs(&[1, 8, 64, 256], &[1.0], &[1.3e11]), Some(1.3e11)),
    ];
    for (name, constants, rows, fixed) in cases {
        let law = law(name, constants, &rows);
        for (served, params_max) in [(None, None), (Some(2e11), None), (None, Some(2e9)), (Some(2e11), Some(2e9))] {
            let record = ask(&law, &rows, &settings(2e21, served, params_max));
            let (kind, place) = record.answer().unwrap();
            let most = params_max.unwrap_or(f64::INFINITY);
            let (row, loss) = brute(&law, &first(&rows), 2e21, served.unwrap_or(0.0), most, fixed);
            let told = format!("{name} {served:?} {params_max:?}: {place:?} against {row:?} {loss}");
            assert!(place.loss <= loss * (1.0 + 1e-12) && place.loss > loss * (1.0 - 1e-4), "{told}");
            assert!((place.params_active / row.params - 1.0).abs() < 2e-2, "{told}");
            assert!((place.params_total / row.params_total - 1.0).abs() < 2e-2, "{told}");
            assert!(place.params_total <= most * (1.0 + 1e-9), "{told}");
            let value = match name {
                "granularity" => row.granularity.unwrap(),
                "sparsity" => 1.0 / f64::from(row.experts.unwrap()),
                _ => f64::from(row.experts.unwrap()),
            };
            assert_eq!(kind.value, value, "{told}");
            let spent = place.flops_training + 2.0 * place.params_active * served.unwrap_or(0.0);
            assert!(spent <= 2e21 * (1.0 + 1e-9), "{told}");
        }
    }
}

#[test]
fn kinds_tell_active_against_total_and_sizes_that_lose_little() {
    let rows = runs(&[1, 2, 4, 8, 16, 32], &[1.0], &[1e10, 1e11]);
    let law = law("joint-moe", &JOINT, &rows);
    let record = ask(&law, &rows, &settings(1e21, None, None));
    assert!(record.identified, "{:?}", record.reasons);
    assert!(record.total.from_runs && (record.total.share / SHARE - 1.0).abs() < 1e-9);
    let loss = |active: f64, tokens: f64, experts: f64| {
        let mut row = Observation::dense("asked", active, tokens, 1.0);
        row.experts = Some(experts as u32);
        law.loss(&row)
    };
    for kind in &record.kinds {
        let place = kind.alone.as_ref().unwrap();
        assert!((place.params_total / place.params_active - 1.0 - SHARE * (kind.value - 1.0)).abs() < 1e-9);
        assert!((6.0 * place.params_active * place.tokens / 1e21 - 1.0).abs() < 1e-9);
        for Within { tolerance, params: [low, high] } in &place.within {
            assert!(*low < place.params_active && place.params_active < *high);
            for size in [low, high] {
                let over = loss(*size, 1e21 / 6.0 / size, kind.value) / place.loss - 1.0;
                assert!((over - tolerance).abs() < 1e-9, "{tolerance}: {over}");
            }
        }
    }
    // One law in the cloud: it is the best by all of them.
    assert_eq!(record.kinds.iter().map(|kind| kind.best_share).sum::<f64>(), 1.0);
}

/// Ludziejewski et al.: a bound on memory changes which number of experts is best; and, their rule of thumb, a mixture of at
/// most eight experts beats the dense model of the same total params where it is trained on as many times more tokens.
#[test]
fn memory_moves_the_best_number_of_experts_as_published() {
    let rows = runs(&[1, 2, 4, 8, 16, 32], &[1.0], &[1e10, 1e11]);
    let law = law("joint-moe", &JOINT, &rows);
    let best = |budget: f64, params_max: Option<f64>| {
        let record = ask(&law, &rows, &settings(budget, None, params_max));
        let (kind, place) = record.answer().unwrap();
        (kind.value, place.clone())
    };
    let (free, place) = best(1e21, None);
    assert_eq!(free, 32.0);
    let experts: Vec<f64> = [0.5, 0.2, 0.1, 0.05].map(|share| best(1e21, Some(share * place.params_total)).0).to_vec();
    assert!(experts.windows(2).all(|pair| pair[1] <= pair[0]) && experts[3] < free, "{experts:?}");
    // With the same memory, more compute wants fewer experts, each token being seen by more params.
    let grown: Vec<f64> = [1e20, 1e21, 1e22, 1e23].map(|budget| best(budget, Some(2e9)).0).to_vec();
    assert!(grown.windows(2).all(|pair| pair[1] <= pair[0]) && grown[0] > grown[3], "{grown:?}");
    for (total, tokens) in [(3e8, 6e9), (1.1e9, 2.2e10), (5e9, 1e11)] {
        for experts in [2, 4, 8] {
            let active = total / (1.0 + SHARE * f64::from(experts - 1));
            let mut row = Observation::dense("mixture", active, tokens * f64::from(experts), 1.0);
            row.experts = Some(experts);
            let dense = law.loss(&Observation::dense("dense", total, tokens, 1.0));
            assert!(law.loss(&row) < dense, "{experts} experts, {total:e} params: {} {dense}", law.loss(&row));
        }
    }
}

#[test]
fn what_was_not_seen_is_not_looked_at_and_is_said() {
    let rows = runs(&[1, 2, 8, 32], &[1.0], &[1e10, 1e11]);
    let joint = law("joint-moe", &JOINT, &rows);
    let record = ask(&joint, &rows, &settings(1e21, None, None));
    assert!(record.kinds.iter().all(|kind| [1.0, 2.0, 8.0, 32.0].contains(&kind.value)));
    assert!(record.notes.iter().any(|note| note.starts_with("32 is the largest number of experts seen")));
    assert!(record.between.is_none(), "the law falls up to the last number seen");
    // Between the numbers seen the law may have a lower one.
    let record = ask(&joint, &rows, &settings(1e21, None, Some(2.4e9)));
    let (between, (_, place)) = (record.between.clone().unwrap(), record.answer().unwrap());
    assert!(between.value > 2.0 && between.value < 32.0 && between.value.fract() == 0.0, "{between:?}");
    assert!(between.loss < place.loss && between.params_total <= 2.4e9 * (1.0 + 1e-9));
    // A budget far beyond all runs is no answer.
    let record = ask(&joint, &rows, &settings(1e25, None, None));
    assert!(!record.identified && record.reasons[0].contains("times the largest run"), "{:?}", record.reasons);
    // Use that takes the whole budget is said.
    let record = ask(&joint, &rows, &settings(1e21, Some(1e15), None));
    assert!(record.unmet.as_ref().unwrap().contains("does not pay for 1.000e15 tokens of use"), "{record:?}");
    assert!(record.answer().is_none() && record.free().is_some());
}

#[test]
fn a_relation_that_the_runs_do_not_say_is_assumed_and_named() {
    let mut rows = runs(&[1, 8, 64], &[1.0], &[1.3e11]);
    for row in &mut rows {
        row.params_total = row.params;
    }
    let clark = law("clark", &CLARK, &rows);
    let record = ask(&clark, &rows, &settings(1e21, None, Some(1e10)));
    assert!(!record.total.from_runs);
    assert!(record.notes.iter().any(|note| note.contains("no run says its total params")), "{:?}", record.notes);
    let (kind, place) = record.answer().unwrap();
    let ratio = place.params_total / place.params_active;
    assert!((ratio - 1.0 - 2.0 / 3.0 * (kind.value - 1.0)).abs() < 1e-9, "{ratio}");
    // Without tokens no budget can be split.
    for row in &mut rows {
        row.tokens = Observation::UNSAID;
    }
    let record = ask(&clark, &rows, &settings(1e21, None, None));
    assert!(!record.identified && record.reasons[0].contains("--map tokens="), "{:?}", record.reasons);
}
