use std::path::Path;

use isoloss_sweep::outcome::{Finished, Routing, Score};
use isoloss_sweep::plan::evaluated_tokens;
use isoloss_sweep::run::EngineKind;

use super::*;
use crate::checkpoint::{self, Checkpoint};
use crate::engine::State;
use crate::fixture;

/// Each step is reported and nothing is written in between.
fn options(dir: &Path) -> Options {
    Options {
        checkpoints: Some(dir.to_owned()),
        checkpoint_interval: Duration::from_secs(3600),
        report_interval: Duration::ZERO,
        ..Options::default()
    }
}

fn finished(end: End) -> Finished {
    match end {
        End::Outcome(Outcome::Finished(finished)) => *finished,
        other => panic!("expected a finished run, got {other:?}"),
    }
}

fn complete(run: &Run, dataset: &Dataset, options: &Options) -> Finished {
    finished(train(run, dataset, options, &mut |_| Control::Continue).unwrap())
}

/// Stops after `at` steps (counted also while scoring: `beats` reports later).
fn stopped(run: &Run, dataset: &Dataset, options: &Options, at: u64, beats: u32) -> PathBuf {
    let (mut last, mut left) = (None, beats);
    let end = train(run, dataset, options, &mut |event| match event {
        Event::Progress { step, .. } if step == at && left == 0 => Control::Stop,
        Event::Progress { step, .. } if step == at => {
            left -= 1;
            Control::Continue
        }
        Event::Checkpoint { path, .. } => {
            last = Some(path);
            Control::Continue
        }
        Event::Began { .. } | Event::Progress { .. } | Event::Eval(_) => Control::Continue,
    });
    assert_eq!(end.unwrap(), End::Yielded { step: at });
    last.expect("a checkpoint was written")
}

fn final_state(dir: &Path) -> State {
    let (_, path) = checkpoint::list(dir).unwrap().pop().unwrap();
    Checkpoint::read(&path).unwrap().state
}

/// What must not depend on how often a run was interrupted.
fn result(finished: &Finished) -> (Score, Vec<CurvePoint>, f64, Option<Routing>, Tokens) {
    let f = finished.clone();
    (f.score, f.curve, f.train_loss_nats, f.routing, f.tokens)
}

#[test]
fn a_run_learns_tells_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let run = fixture::run(dataset.manifest().digest);
    let mut events = Vec::new();
    let end = train(&run, &dataset, &options(&dir.path().join("a")), &mut |event| {
        events.push(event);
        Control::Continue
    });
    let found = finished(end.unwrap());

    assert_eq!(found.params, run.model.param_counts());
    assert_eq!((found.steps, found.tokens, found.flops), (40, run.tokens(), run.flops()));
    assert!((found.flops_spent.get() / found.flops.get() - 1.0).abs() < 1e-12);
    assert!(found.flops_evaluation.get() > 0.0 && found.routing.is_none());
    assert!(found.tokens_unique <= found.tokens && found.bytes > 0);
    let truth = found.score.true_bits_per_byte.expect("the source is synthetic");
    assert!(found.score.bits_per_byte > truth && found.score.bits_per_byte < 6.0, "{:?}", found.score);
    assert!(found.train_loss_nats < 0.9 * (256f64).ln());

    assert_eq!(events[0], Event::Began { step: 0, steps: 40 });
    let told: Vec<CurvePoint> =
        events.iter().filter_map(|event| if let Event::Eval(point) = event { Some(*point) } else { None }).collect();
    assert_eq!(told, found.curve);
    assert!(told.len() > 2 && told.is_sorted_by(|a, b| a.step < b.step));
    assert_eq!(told.last().unwrap().step, 40);
    let steps: Vec<u64> = events
        .iter()
        .filter_map(|event| if let Event::Progress { step, .. } = event { Some(*step) } else { None })
        .collect();
    assert_eq!((steps[0], *steps.last().unwrap()), (1, 40));

    let again = complete(&run, &dataset, &Options::default());
    assert_eq!(result(&again), result(&found));
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let digest = dataset.manifest().digest;
    let runs = [("dense", fixture::run(digest)), ("moe", fixture::moe(digest))];
    let engines = [EngineKind::Reference, EngineKind::Cpu];
    for (engine, (name, run)) in engines.into_iter().flat_map(|engine| runs.clone().map(|run| (engine, run))) {
        let (name, run) = (format!("{name}-{}", engine.name()), fixture::on(engine, run));
        let straight = dir.path().join(format!("{name}-straight"));
        let expected = complete(&run, &dataset, &options(&straight));
        // In the middle, and twice while the finished model is scored.
        for (at, beats) in [(17, 0), (40, 1), (40, 3)] {
            let folder = dir.path().join(format!("{name}-{at}-{beats}"));
            let resume = stopped(&run, &dataset, &options(&folder), at, beats);
            let options = Options { resume: Some(resume), ..options(&folder) };
            let found = complete(&run, &dataset, &options);
            assert_eq!(result(&found), result(&expected), "{name} stopped at {at}");
            assert_eq!(found.flops_spent, expected.flops_spent);
            assert_eq!(final_state(&folder), final_state(&straight), "{name} stopped at {at}");
        }
    }
}

#[test]
fn a_branch_of_a_trunk_is_the_straight_run() {
    for engine in [EngineKind::Reference, EngineKind::Cpu] {
        branch_and_compare(engine);
    }
}

fn branch_and_compare(engine: EngineKind) {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let base = fixture::on(engine, fixture::moe(dataset.manifest().digest));
    let (short, long) = (fixture::wsd(base.clone(), 25, 5), fixture::wsd(base, 40, 10));
    assert_eq!(short.trunk_id(), long.trunk_id());
    let folder = dir.path().join("trunk");
    let trunk = Options { trunk_steps: vec![20, 30], ..options(&folder) };
    // The trunk itself is interrupted once.
    let resume = stopped(&long, &dataset, &trunk, 23, 0);
    let trunk = Options { resume: Some(resume), ..trunk };
    assert_eq!(complete(&long, &dataset, &trunk).steps, 30);
    for (run, branch, decay) in [(&short, 20, 5), (&long, 30, 10)] {
        let straight = dir.path().join(format!("straight-{branch}"));
        let expected = complete(run, &dataset, &options(&straight));
        let branched = dir.path().join(format!("branch-{branch}"));
        let options = Options { resume: Some(folder.join(format!("{branch:010}.checkpoint"))), ..options(&branched) };
        let found = complete(run, &dataset, &options);
        assert_eq!(result(&found), result(&expected));
        assert_eq!(final_state(&branched), final_state(&straight));
        let spent = run.flops().get() * f64::from(decay) / run.train.steps as f64;
        assert!((found.flops_spent.get() / spent - 1.0).abs() < 1e-12);
    }
}

#[test]
fn divergence_is_an_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let mut run = fixture::run(dataset.manifest().digest);
    run.train.learning_rate = 1e3;
    let end = train(&run, &dataset, &Options::default(), &mut |_| Control::Continue).unwrap();
    let End::Outcome(Outcome::Diverged(found)) = end else {
        panic!("expected divergence, got {end:?}");
    };
    assert!(found.step < 40 && found.reason.contains("training loss"), "{found:?}");
}

#[test]
fn what_does_not_belong_to_the_run_is_refused_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let run = fixture::run(dataset.manifest().digest);
    let refused = |run: &Run, options: &Options| {
        let error = train(run, &dataset, options, &mut |_| Control::Continue).unwrap_err();
        assert!(!error.retry(), "{error}");
        error.to_string()
    };
    let plain = Options::default();
    assert!(refused(&fixture::run(Digest::of(b"")), &plain).contains("the run wants"));
    let mut other = run.clone();
    other.model.vocab = 300;
    assert!(refused(&other, &plain).contains("256 tokens"));
    other = run.clone();
    other.numerics.version += 1;
    assert!(refused(&other, &plain).contains("numerics version"));
    let folder = dir.path().join("a");
    let resume = Options { resume: Some(stopped(&run, &dataset, &options(&folder), 3, 0)), ..plain };
    other = run.clone();
    other.train.seed = 8;
    assert!(refused(&other, &resume).contains("another configuration"));
}

#[test]
fn both_engines_end_a_run_at_the_same_loss() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let digest = dataset.manifest().digest;
    for run in [fixture::run(digest), fixture::moe(digest)] {
        let oracle = complete(&run, &dataset, &Options::default());
        let options = Options { threads: 2, ..Options::default() };
        let found = complete(&fixture::on(EngineKind::Cpu, run), &dataset, &options);
        let ratio = found.score.loss_nats / oracle.score.loss_nats;
        // 40 steps amplify the rounding of the first; a wrong gradient would be a hundred times further off.
        assert!((ratio - 1.0).abs() < 1e-3, "{:?} {:?}", found.score, oracle.score);
    }
}

/// What a plan counts of evaluation is what a run spends on it.
#[test]
fn the_tokens_that_a_run_is_evaluated_on_are_known_before() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    for steps in [40, 1200] {
        let mut run = fixture::on(EngineKind::Cpu, fixture::run(dataset.manifest().digest));
        run.train.steps = steps;
        // Whole documents are scored, so of a few of them nothing exact can be said.
        (run.data.curve_bytes, run.data.scored_bytes) = (4096, 12_288);
        let spent = complete(&run, &dataset, &options(dir.path())).flops_evaluation.get();
        let tokens = evaluated_tokens(&run, dataset.manifest(), 0, steps);
        let ratio = run.model.flop_terms().forward() * tokens / spent;
        assert!((0.95..1.1).contains(&ratio), "{steps} steps: {ratio}");
    }
}

#[test]
fn a_trial_measures_a_run_without_ending_it() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = fixture::dataset(dir.path());
    let run = endless(&fixture::on(EngineKind::Cpu, fixture::run(dataset.manifest().digest)));
    let options = options(dir.path());
    let mut trial = Trial::open(&run, &dataset, &options).unwrap();
    let (step, point) = trial.tokens();
    assert_eq!(step, 8 * 32);
    // More steps than the run had before it was made endless.
    let paces = (0..20).map(|_| trial.train(Duration::from_millis(2)).unwrap());
    let trained: u64 = paces.map(|pace| pace.tokens).sum();
    assert!(trained > 40 * step / 2 && trained.is_multiple_of(step), "{trained}");
    let scored = trial.evaluate(Duration::ZERO).unwrap();
    assert_eq!(scored.tokens, point);
    assert!(scored.seconds > 0.0 && trial.save().unwrap() > 0.0 && trial.gpu_memory().is_none());
    assert_eq!(checkpoint::list(dir.path()).unwrap().len(), 1);
}
