//! What a file expands to: identity, budgets, arms, trunks, replicates, derived keys.

use super::*;
use crate::hyper::HyperParameter;

const SMALL: &str = r#"
schema = 1
name = "small"
[axes]
params = ["10k", "40k"]
tokens = ["0.5M", "1M"]
"#;

#[test]
fn golden_run_ids_stand() {
    // Recipes may be tuned anew; what a run with given numbers is called may not change.
    let numbers = "[train]\nbatch = 8\nlearning_rate = 0.01\nwarmup = 0.05\n";
    let mut text = format!("{SMALL}{numbers}");
    text.push_str("[[arm]]\nname = 'dense'\n[[arm]]\nname = 'moe'\nfamily = 'moe'\nexperts = 8\ntokens = '1M'\n");
    let plan = planned(&text).unwrap();
    let wsd = planned(&format!("{SMALL}{numbers}schedule = 'wsd'\n")).unwrap();
    let golden = [plan.runs[0].run_id, plan.runs[4].run_id, wsd.runs[0].run_id].map(|id| id.to_string());
    insta::assert_debug_snapshot!(golden);
}

#[test]
fn key_order_written_defaults_names_and_limits_do_not_change_ids() {
    let plain = planned(SMALL).unwrap();
    let other = planned(
        r#"
seed = 1
name = "small"
schema = 1
[budget]
flops = 1e18
[axes]
tokens = [1e6, 500_000]
params = [40000, 1e4]
[train]
precision = "f32"
schedule = { cosine = { final_ratio = 0.1 } }
warmup = 0.1
[model]
context = 256
family = "dense"
[corpus]
tokenizer = "bytes"
preset = "tiny"
"#,
    )
    .unwrap();
    let sorted = |plan: &Plan| BTreeSet::from_iter(ids(plan));
    assert_eq!(sorted(&plain), sorted(&other));
    assert_eq!(plain.sweep_id, other.sweep_id);
    assert_eq!(plain, planned(SMALL).unwrap());
    let renamed = planned(&SMALL.replace("\"small\"", "\"other\"")).unwrap();
    assert_eq!(ids(&plain), ids(&renamed));
    assert_ne!(plain.sweep_id, renamed.sweep_id);
    let seeded = planned(&SMALL.replace("schema = 1", "schema = 1\nseed = 2")).unwrap();
    assert!(sorted(&plain).is_disjoint(&sorted(&seeded)));
}

#[test]
fn stored_outcomes_and_equal_arms_are_reused() {
    let first = planned(SMALL).unwrap();
    let stored = first.runs[1].run_id;
    let again = planned_with(SMALL, None, &|id| id == stored).unwrap();
    assert_eq!(again.sweep_id, first.sweep_id);
    assert_eq!(again.runs[1].action, Action::Reuse);
    assert_eq!((again.totals.to_run, again.totals.reused), (3, 1));
    let twice = planned(&format!("{SMALL}[[arm]]\nname = 'a'\n[[arm]]\nname = 'b'\n")).unwrap();
    assert_eq!((twice.totals.runs, twice.totals.to_run, twice.totals.reused), (4, 4, 4));
    assert!(twice.runs[4].why.contains("`a`"));
}

#[test]
fn isoflop_points_cost_what_they_say() {
    let plan = planned("schema = 1\n[axes]\nflops = [1e12, 4e12]\nparams = { log = ['10k', '160k'], n = 5 }").unwrap();
    assert_eq!(plan.runs.len(), 10);
    for planned in &plan.runs {
        let asked: f64 = planned.point["flops"].parse().unwrap();
        let step = planned.flops.get() / planned.run.train.steps as f64;
        assert!(planned.flops.get() >= asked && planned.flops.get() - asked <= step, "{planned:?}");
    }
}

#[test]
fn tokens_per_param_follow_the_realised_size_and_a_mixture_takes_its_twins() {
    let text = "schema = 1\n[axes]\nparams = ['20k', '90k']\ntokens_per_param = [20]\n\
                [[arm]]\nname = 'dense'\n[[arm]]\nname = 'moe'\nfamily = 'moe'\nexperts = 8\n";
    let plan = planned(text).unwrap();
    for (dense, moe) in plan.runs[..2].iter().zip(&plan.runs[2..]) {
        let asked = 20 * dense.params.non_embedding.get();
        let step = u64::from(dense.run.train.batch) * 256;
        assert_eq!(dense.tokens.get(), asked.next_multiple_of(step));
        assert_eq!((moe.tokens, &moe.run.train), (dense.tokens, &dense.run.train));
        let ratio = moe.params.active_non_embedding.as_f64() / dense.params.active_non_embedding.as_f64();
        assert!((ratio - 1.0).abs() <= 0.02);
    }
}

#[test]
fn wsd_budgets_share_a_trunk_and_branches_are_the_plain_runs() {
    let text = format!("{SMALL}[train]\nschedule = {{ wsd = {{ decay = 0.2 }} }}\n");
    let plan = planned(&text).unwrap();
    assert_eq!((plan.trunks.len(), plan.totals.to_branch), (2, 4));
    for trunk in &plan.trunks {
        assert_eq!(trunk.steps.len(), 2);
        assert_eq!(trunk.run.trunk_id(), Some(trunk.trunk_id));
    }
    for planned in &plan.runs {
        let from = planned.depends_on.unwrap();
        assert_eq!(planned.run.trunk_id(), Some(from.trunk));
        assert_eq!(planned.run.id(), planned.run_id);
        // Until the fork the rate is the trunk's; the step after it decays.
        assert_eq!(planned.run.learning_rate(from.step - 1), planned.run.train.learning_rate);
        assert!(planned.run.learning_rate(from.step + 1) < planned.run.train.learning_rate);
    }
    let straight: f64 = plan.runs.iter().map(|planned| planned.flops.get()).sum();
    assert!((plan.totals.flops + plan.totals.flops_saved - straight).abs() < 1e-6 * straight);
    assert!(plan.totals.flops_saved > 0.2 * straight);
    let hand_batch = planned(&text.replace("schedule", "batch = 8\nschedule")).unwrap();
    assert_eq!(hand_batch.trunks.len(), 2);
}

#[test]
fn arms_axes_zip_derive_and_exclude_compose() {
    let text = r#"
schema = 1
[axes]
seed = [1, 2]
[[zip]]
width = [32, 64]
layers = [2, 4]
[derive]
tokens = "10 * params_non_embedding + 0 * context"
learning_rate = "0.32 / width"
[[exclude]]
when = "width == 64 and seed == 2"
[[arm]]
name = "plain"
[[arm]]
name = "fast"
learning_rate = [0.01, 0.02]
"#;
    let plan = planned(text).unwrap();
    assert_eq!(plan.runs.len(), 3 + 6);
    for planned in &plan.runs[..3] {
        assert_eq!(planned.run.train.learning_rate, 0.32 / f64::from(planned.run.model.width));
        assert!(planned.tokens.get() >= 10 * planned.params.non_embedding.get());
        assert_eq!(planned.run.model.layers * 16, planned.run.model.width);
    }
    assert_eq!(plan.runs[3].run.train.learning_rate, 0.01);
    assert_eq!(plan.runs[3].point["learning_rate"], "0.01");
}

#[test]
fn derived_keys_may_read_the_realised_shape_and_the_budget() {
    let text = format!("{SMALL}[derive]\nlearning_rate = \"0.32 / width\"\nbatch = \"tokens / 125k\"\n");
    for planned in planned(&text).unwrap().runs {
        assert_eq!(planned.run.train.learning_rate, 0.32 / f64::from(planned.run.model.width));
        assert_eq!(planned.point["tokens"], (planned.run.train.batch * 125_000).to_string());
    }
}

#[test]
fn a_vocabulary_that_the_text_cannot_fill_is_warned_of() {
    // The surveyed corpus has 256 tokens.
    let asked = |vocab: u32| {
        planned(&format!("{SMALL}[corpus]\nsource = 'synthetic'\ntokenizer = {{ bpe = {{ vocab = {vocab} }} }}\n"))
    };
    let plan = asked(512).unwrap();
    assert!(plan.warnings.iter().any(|warning| warning.contains("512 were asked for")), "{:?}", plan.warnings);
    assert!(!planned(SMALL).unwrap().warnings.iter().any(|warning| warning.contains("vocabulary")));
}

#[test]
fn a_derived_count_that_is_not_whole_is_warned_of() {
    let plan = planned(&format!("{SMALL}[derive]\nbatch = \"width / 3\"\n")).unwrap();
    let warned: Vec<_> = plan.warnings.iter().filter(|warning| warning.starts_with("`batch` is derived as")).collect();
    assert_eq!(warned.len(), 1, "{:?}", plan.warnings);
    let plan = planned(&format!("{SMALL}[derive]\nbatch = \"width / 2\"\n")).unwrap();
    assert!(!plan.warnings.iter().any(|warning| warning.contains("derived")), "{:?}", plan.warnings);
}

#[test]
fn replicates_add_seeds_to_the_largest_or_to_all() {
    let largest = planned(&format!("{SMALL}[replicates]\nseeds = 3\nwhere = 'largest'\n")).unwrap();
    let seeds: Vec<u64> = largest.runs.iter().map(|planned| planned.run.train.seed).collect();
    assert_eq!(seeds, [1, 1, 1, 1, 2, 3]);
    let all = planned(&format!("{SMALL}[replicates]\nseeds = 2\n")).unwrap();
    assert_eq!(all.runs.len(), 8);
}

#[test]
fn granularity_splits_experts_and_keeps_the_active_size() {
    let text = "schema = 1\n[axes]\nparams = ['256k']\ntokens = ['1M']\ngranularity = [1, 2, 4]\n\
                [model]\nfamily = 'moe'\nexperts = 8\ntop_k = 1\n";
    let plan = planned(text).unwrap();
    let experts: Vec<(u32, u32)> =
        plan.runs.iter().map(|p| p.run.model.experts.as_ref().map(|e| (e.count, e.top_k)).unwrap()).collect();
    assert_eq!(experts, [(8, 1), (16, 2), (32, 4)]);
}

#[test]
fn unique_tokens_and_corpora_are_axes_too() {
    let text = format!("{SMALL}tokens_unique = ['100k', '16MiB']\n").replace("'16MiB'", "16777216");
    let plan = planned(&text).unwrap();
    assert_eq!(plan.runs[0].run.data.tokens_unique, Some(Tokens(100_000)));
    assert_eq!(plan.runs[1].run.data.tokens_unique, None);
    let text = format!("{SMALL}corpus.seed = [1, 2]\ntransforms = [[], [{{ noise = 0.05 }}]]\n");
    let spec = parse("x", &text, &[]).unwrap();
    assert_eq!(spec.corpora().unwrap().len(), 4);
    assert_eq!(planned(&text).unwrap().runs.len(), 16);
}

#[test]
fn a_probe_gives_seconds_and_the_json_has_them() {
    let rate = |flops_per_token: f64, tokens_per_second: f64| Rate {
        precision: Precision::F32,
        engine: EngineKind::Reference,
        moe: false,
        flops_per_token,
        tokens_per_second,
    };
    let probe = Probe { slots: 2, rates: vec![rate(1e3, 1e6), rate(1e9, 1.0)], gpus: None };
    let plan = planned_with(SMALL, Some(&probe), &|_| false).unwrap();
    // Scores and curves come on top of training.
    let training = plan.totals.flops / 1e9 / 2.0;
    assert!((training..3.0 * training).contains(&plan.totals.seconds.unwrap()), "{:?} {training}", plan.totals);
    let alone = planned_with(SMALL, Some(&Probe { slots: 1000, ..probe }), &|_| false).unwrap();
    let longest = alone.runs.iter().filter_map(|run| run.seconds).fold(0.0, f64::max);
    assert_eq!(alone.totals.seconds, Some(longest), "a run does not get shorter with more slots");
    let ids = |plan: &Plan| plan.runs.iter().map(|run| run.run_id).collect::<Vec<_>>();
    assert_eq!(ids(&plan), ids(&planned_with(SMALL, None, &|_| false).unwrap()), "identity has no clock");
    let json = serde_json::to_value(PlanJson::from(&plan)).unwrap();
    assert_eq!(json["runs"][0]["action"], "run");
    assert_eq!(json["runs"][0]["params_total"], plan.runs[0].params.total.get());
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn tuning_tries_factors_on_the_recipes_numbers_and_asks_the_fit_for_the_best() {
    let tune = "[train]\ntune = { learning_rate = [0.5, 1, 2], batch = [0.5, 1] }\n";
    let (plain, tuned) = (
        planned(&format!("{SMALL}[train]\nbatch = 8\n")).unwrap(),
        planned(&format!("{SMALL}{tune}batch = 8\n")).unwrap(),
    );
    assert_eq!(tuned.runs.len(), 6 * plain.runs.len());
    assert_eq!(tuned.fit.best_of, [HyperParameter::LearningRate, HyperParameter::Batch]);
    // The factor 1 is the run without tuning, by its id too.
    assert!(plain.runs.iter().all(|run| ids(&tuned).contains(&run.run_id)));
    let (base, first) = (&plain.runs[0].run.train, &tuned.runs[0].run.train);
    // The rate is the recipe's for the batch that is tried.
    assert!((first.learning_rate / (base.learning_rate * 0.5_f64.sqrt() / 2.0) - 1.0).abs() < 1e-3);
    assert_eq!(first.batch, 4);
    assert_eq!(tuned.runs[0].point["learning_rate"], first.learning_rate.to_string());
    let by_word = planned(&format!("{SMALL}[train]\ntune = 'learning_rate'\n")).unwrap();
    assert_eq!(by_word.runs.len(), 5 * plain.runs.len());
    let one_arm = "[[arm]]\nname = 'a'\n[[arm]]\nname = 'b'\ntune = { weight_decay = [1, 3] }\n";
    let one_arm = planned(&format!("{SMALL}{one_arm}")).unwrap();
    assert_eq!((one_arm.runs.len(), one_arm.fit.best_of.as_slice()), (12, [HyperParameter::WeightDecay].as_slice()));
}

#[test]
fn tuning_that_tries_nothing_is_a_mistake_with_its_place() {
    for (tune, message) in [
        ("{ learning_rate = [1] }", "at least two different factors"),
        ("{ learning_rate = [1, 1] }", "at least two different factors"),
        ("{ rate = [1, 2] }", "unknown key `rate`"),
        ("{ batch = 2 }", "a list of factors"),
        ("{ batch = [0, 1] }", "a number above 0"),
        ("'lr'", "cannot be"),
        ("{}", "is empty"),
    ] {
        let error = parse("sweep.toml", &format!("{SMALL}[train]\ntune = {tune}\n"), &[]).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("sweep.toml:"), "{tune}: {error}");
    }
}

#[test]
fn recipes_give_smaller_models_and_larger_batches_higher_rates() {
    let axes = "schema = 1\n[axes]\nparams = ['25k', '100k', '400k']\ntokens = ['1M', '4M', '10M']\n";
    let runs = planned(axes).unwrap().runs;
    let batches: Vec<u32> = runs.iter().map(|run| run.run.train.batch).collect();
    assert_eq!(batches, [1, 2, 4, 1, 2, 4, 1, 2, 4]);
    let rates: Vec<f64> = runs.iter().map(|run| run.run.train.learning_rate).collect();
    for size in 0..2 {
        assert!((0..3).all(|budget| rates[3 * size + budget] > rates[3 * size + 3 + budget]), "{rates:?}");
    }
    let by_hand = planned(&format!("{axes}[train]\nbatch = 8\n")).unwrap().runs;
    assert!((by_hand[0].run.train.learning_rate / rates[0] - 8_f64.sqrt()).abs() < 1e-3);
    let steplaw = planned(&format!("{axes}[train]\nrecipe = 'steplaw'\n")).unwrap().runs;
    assert_eq!(steplaw[0].run.train.batch, 8);
}

#[test]
fn a_last_step_that_overshoots_and_factors_that_collapse_are_warned_of() {
    let large = planned(&format!("{SMALL}[train]\nbatch = 7000\n")).unwrap();
    assert!(large.warnings.iter().any(|w| w.starts_with("4 points train on over 5 % more")), "{:?}", large.warnings);
    let tuned = planned(&format!("{SMALL}[train]\nbatch = 1\ntune = {{ batch = [0.1, 0.3, 1, 2] }}\n")).unwrap();
    assert!(tuned.warnings.iter().any(|w| w.starts_with("8 of 16 tuned settings are equal")), "{:?}", tuned.warnings);
    let plain = planned(&format!("{SMALL}[train]\nbatch = 8\ntune = 'learning_rate'\n")).unwrap();
    assert_eq!(plain.warnings, Vec::<String>::new());
}
