//! The sweeps of the repository plan, and mean what their comments say.

use super::*;

fn file(name: &str) -> Plan {
    let path = format!("{}/../../sweeps/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    planned(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The plan of a file with one change.
fn file_with(name: &str, from: &str, to: &str) -> Plan {
    let path = format!("{}/../../sweeps/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{name}");
    planned(&text.replace(from, to)).unwrap()
}

fn in_arm<'p>(plan: &'p Plan, arm: &'p str) -> impl Iterator<Item = &'p PlannedRun> {
    plan.runs.iter().filter(move |planned| planned.arm == arm)
}

#[test]
fn quickstart_and_text_span_sizes_and_budgets() {
    for name in ["quickstart.toml", "text.toml"] {
        let plan = file(name);
        assert!(in_arm(&plan, "dense").count() >= 12);
        assert!(in_arm(&plan, "moe-8-top2").count() >= 4);
        let spread = |of: &dyn Fn(&PlannedRun) -> u64| {
            let values: Vec<u64> = in_arm(&plan, "dense").map(of).collect();
            values.iter().max().copied().unwrap() as f64 / values.iter().min().copied().unwrap() as f64
        };
        // A tenth of slack: the ladder and whole steps.
        assert!(spread(&|p| p.params.non_embedding.get()) >= 14.4);
        assert!(spread(&|p| p.tokens.get()) >= 7.9);
        assert!(plan.runs.iter().all(|planned| planned.run.train.steps >= 200));
    }
    let quickstart = file("quickstart.toml");
    // Two fast cores do some 2.7e11 FLOPs a second: more would not end in four minutes.
    assert!((6e13..6.5e13).contains(&quickstart.totals.flops), "{}", quickstart.totals.flops);
    assert!(in_arm(&quickstart, "dense").count() >= 24 && in_arm(&quickstart, "moe-8-top2").count() >= 8);
    assert_eq!(quickstart.warnings, Vec::<String>::new());
}

#[test]
fn isoflop_has_valleys_on_shared_trunks() {
    let plan = file("isoflop.toml");
    for budget in ["200000000000", "600000000000", "2000000000000"] {
        let sizes = plan.runs.iter().filter(|planned| planned.point["flops"] == budget);
        assert!(sizes.count() >= 4, "{budget}");
    }
    assert!(plan.totals.flops_saved > 0.0 && !plan.trunks.is_empty());
}

#[test]
fn moe_arms_share_their_twins_tokens() {
    let plan = file("moe.toml");
    for planned in &plan.runs {
        let twin = in_arm(&plan, "dense").find(|dense| dense.point["params"] == planned.point["params"]).unwrap();
        assert_eq!(planned.tokens, twin.tokens);
        let ratio = planned.params.active_non_embedding.as_f64() / twin.params.active_non_embedding.as_f64();
        assert!((ratio - 1.0).abs() <= 0.02);
    }
    assert_eq!(in_arm(&plan, "moe").count(), 18);
}

#[test]
fn branches_are_compared_with_separate_runs() {
    let plan = file("wsd.toml");
    assert_eq!(in_arm(&plan, "cosine").count(), 12);
    assert!(in_arm(&plan, "cosine").all(|run| run.depends_on.is_none()));
    assert_eq!(plan.trunks.len(), 3, "both decays share one trunk a size");
    assert!(plan.totals.flops_saved > 0.3 * plan.totals.flops);
}

#[test]
fn precisions_are_compared_in_pairs_of_a_thousand_steps() {
    let plan = file("precision.toml");
    assert_eq!(plan.runs.len(), 50);
    assert!(plan.runs.iter().all(|planned| planned.run.train.steps == 1000));
    let pairs: BTreeSet<_> = plan.runs.iter().map(|planned| (&planned.arm, planned.run.train.seed)).collect();
    assert_eq!(pairs.len(), 25);
}

#[test]
fn the_recipe_is_tuned_around_itself() {
    let plan = file("recipe.toml");
    assert_eq!(plan.fit.best_of.len(), 2);
    // Every cell holds the recipe's own numbers, and others on both sides of its rate.
    let untuned = file_with("recipe.toml", "tune = ", "# tune = ");
    let tried = BTreeSet::from_iter(ids(&plan));
    assert!(untuned.runs.iter().all(|run| tried.contains(&run.run_id)));
    assert!(plan.runs.len() >= 9 * untuned.runs.len());
}

#[test]
fn one_model_of_shakespeare_is_one_run() {
    let plan = file("shakespeare.toml");
    assert_eq!((plan.runs.len(), plan.runs[0].run.train.steps), (1, 2000));
}
