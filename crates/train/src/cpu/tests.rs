use super::*;
use crate::compared::{batch, dense, models, moe, norm, state, text, update};
use crate::reference::Reference;

fn engine(level: Level, model: &Model, threads: usize) -> CpuEngine {
    engine_in(Precision::F32, level, model, threads)
}

fn engine_in(precision: Precision, level: Level, model: &Model, threads: usize) -> CpuEngine {
    let mut engine = CpuEngine::at(level, model, precision, threads).unwrap();
    engine.restore(state(model)).unwrap();
    engine
}

fn reference(model: &Model) -> Reference {
    let mut engine = Reference::new(model);
    engine.restore(state(model)).unwrap();
    engine
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{what}: {found}, expected {expected}");
}

#[test]
fn gradients_equal_the_reference_for_every_tensor_on_every_path() {
    for (name, model) in models() {
        same_gradients(name, &model, &Level::available());
    }
}

/// The largest vocabulary that is offered, and a context of many blocks of queries.
#[test]
fn gradients_equal_the_reference_for_64k_tokens_and_over_a_long_context() {
    let narrow = Model { layers: 1, width: 12, heads: 2, ff: 16, ..dense() };
    for (name, model) in [
        ("64k", Model { vocab: 1 << 16, context: 20, ..narrow.clone() }),
        ("64k tied", Model { vocab: 1 << 16, context: 20, tied: true, ..narrow.clone() }),
        ("long", Model { context: 1030, ..narrow }),
    ] {
        same_gradients(name, &model, &[Level::detect()]);
    }
}

fn same_gradients(name: &str, model: &Model, levels: &[Level]) {
    let tokens = text(model, 0);
    let (expected, exact) = reference(model).gradient(batch(model, &tokens)).unwrap();
    for &level in levels {
        let mut engine = engine(level, model, 2);
        let (report, found) = engine.gradient(batch(model, &tokens)).unwrap();
        let label = format!("{name} {}", level.name());
        close(report.loss_nats, expected.loss_nats, &label);
        close(report.aux_loss, expected.aux_loss, &label);
        close(report.router_z_loss, expected.router_z_loss, &label);
        close(report.gradient_norm, expected.gradient_norm, &label);
        assert_eq!((&report.load, report.dropped), (&expected.load, expected.dropped), "{label}");
        assert_eq!(report.dropped > 0, name == "limited", "{label}");
        for view in engine.layout().views() {
            let (found, exact) = (&found[view.range()], &exact[view.range()]);
            let difference = norm(found.iter().zip(exact).map(|(a, b)| a - b));
            let size = norm(exact.iter().copied());
            assert!(size > 0.0 && difference <= 1e-4 * size, "{label} {}: {difference} of {size}", view.name);
        }
    }
}

/// Rounding to 8 bits moves each product by at most 2^-8 of its terms and mostly by chance: a few per cent of a
/// gradient's norm, by far less than any mistake in it. Experts are left free to flip ties.
#[test]
fn gradients_in_bf16_are_those_in_f32_up_to_rounding() {
    for (name, model) in models() {
        let tokens = text(&model, 0);
        let (expected, exact) = engine(Level::detect(), &model, 1).gradient(batch(&model, &tokens)).unwrap();
        for level in Level::available() {
            let mut engine = engine_in(Precision::Bf16, level, &model, 2);
            let (report, found) = engine.gradient(batch(&model, &tokens)).unwrap();
            let label = format!("{name} {}", level.name());
            let off = (report.loss_nats / expected.loss_nats - 1.0).abs();
            assert!(off > 0.0 && off < 5e-3, "{label}: loss {} and {}", report.loss_nats, expected.loss_nats);
            for view in engine.layout().views() {
                let (found, exact) = (&found[view.range()], &exact[view.range()]);
                let difference = norm(found.iter().zip(exact).map(|(a, b)| a - b)) / norm(exact.iter().copied());
                let allowed = if model.experts.is_some() { 0.25 } else { 0.05 };
                assert!(difference <= allowed, "{label} {}: {difference}", view.name);
            }
        }
    }
}

#[test]
fn evaluation_and_logits_equal_the_reference() {
    for (name, model) in models() {
        let tokens = text(&model, 1);
        let (mut engine, mut reference) = (engine(Level::detect(), &model, 2), reference(&model));
        let found = engine.evaluate(batch(&model, &tokens)).unwrap();
        let expected = reference.evaluate(batch(&model, &tokens)).unwrap();
        assert_eq!(found.load, expected.load, "{name}");
        for (found, expected) in found.losses.iter().zip(&expected.losses) {
            assert!((found - expected).abs() < 2e-5, "{name}: {found}, expected {expected}");
        }
        // Windows shorter than the context too.
        for len in [1, 40, model.context as usize] {
            let found = engine.logits(&tokens[..len]).unwrap();
            let expected = reference.logits(&tokens[..len]).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{name} {len}: {found}, expected {expected}");
            }
        }
    }
}

/// Losses of both engines over 200 steps.
fn together(model: &Model) -> Vec<(f64, f64)> {
    let (mut engine, mut reference) = (engine(Level::detect(), model, 1), reference(model));
    let step = |step| {
        let tokens = text(model, step);
        let found = engine.step(batch(model, &tokens), &update(step)).unwrap().loss_nats;
        (found, reference.step(batch(model, &tokens), &update(step)).unwrap().loss_nats)
    };
    (0..200).map(step).collect()
}

#[test]
fn dense_losses_follow_the_reference_at_every_one_of_200_steps() {
    let losses = together(&Model { tied: true, ..dense() });
    for (step, (found, expected)) in losses.iter().enumerate() {
        assert!((found - expected).abs() <= 1e-3, "step {step}: {found}, expected {expected}");
    }
    assert!(losses[199].0 < losses[0].0 - 0.5, "it does not learn: {:?} to {:?}", losses[0], losses[199]);
}

/// Ties between experts flip by rounding, and from then on two engines train two models.
#[test]
fn expert_losses_follow_the_reference_for_50_steps_and_stay_near() {
    let losses = together(&moe(|_| ()));
    let differences: Vec<f64> = losses.iter().map(|(found, expected)| (found - expected).abs()).collect();
    for (step, difference) in differences.iter().take(50).enumerate() {
        assert!(*difference <= 1e-3, "step {step}: {difference}");
    }
    let mean = differences.iter().sum::<f64>() / 200.0;
    assert!(mean <= 5e-3, "mean difference {mean}");
    assert!(losses[199].0 < losses[0].0 - 0.5, "it does not learn: {:?} to {:?}", losses[0], losses[199]);
}

/// Whoever moves these raises the engine's numerics version. Instruction sets differ in the order of sums only.
#[test]
fn golden_losses() {
    let golden = [
        (Precision::F32, "dense", 4.192_436_84),
        (Precision::F32, "moe", 4.191_519_71),
        (Precision::Bf16, "dense", 4.192_44),
        (Precision::Bf16, "moe", 4.192_29),
    ];
    for (precision, name, expected) in golden {
        let (_, model) = models().into_iter().find(|(known, _)| *known == name).expect("a model of that name");
        for level in Level::available() {
            let mut engine = engine_in(precision, level, &model, 1);
            let last = train(&mut engine, &model, 0..8).pop().expect("eight steps").loss_nats;
            let allowed = if precision == Precision::F32 { 1e-7 } else { 1e-4 };
            let label = level.name();
            assert!((last / expected - 1.0).abs() <= allowed, "{name} {precision:?} {label}: {last:.9}, {expected}");
        }
    }
}

fn in_both<T: Clone>(models: Vec<T>) -> impl Iterator<Item = (Precision, T)> {
    let with = |precision| move |model: &T| (precision, model.clone());
    let f32: Vec<_> = models.iter().map(with(Precision::F32)).collect();
    let bf16: Vec<_> = models.iter().map(with(Precision::Bf16)).collect();
    f32.into_iter().chain(bf16)
}

fn train(engine: &mut CpuEngine, model: &Model, steps: std::ops::Range<u64>) -> Vec<StepReport> {
    steps.map(|step| engine.step(batch(model, &text(model, step)), &update(step)).unwrap()).collect()
}

#[test]
fn bits_do_not_depend_on_threads() {
    for (precision, (name, model)) in in_both(models()) {
        let run = |threads| {
            let mut engine = engine_in(precision, Level::detect(), &model, threads);
            let reports = train(&mut engine, &model, 0..4);
            let evaluation = engine.evaluate(batch(&model, &text(&model, 9))).unwrap();
            (reports, evaluation, engine.state().unwrap().into_owned())
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{name}");
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_the_straight_one() {
    for (precision, (name, model)) in in_both(models()) {
        let mut straight = engine_in(precision, Level::detect(), &model, 1);
        train(&mut straight, &model, 0..3);
        let saved = straight.state().unwrap().into_owned();
        let tail = train(&mut straight, &model, 3..6);
        let mut resumed = CpuEngine::new(&model, precision, 2).unwrap();
        resumed.restore(saved).unwrap();
        assert_eq!(train(&mut resumed, &model, 3..6), tail, "{name}");
        assert!(resumed.state().unwrap() == straight.state().unwrap(), "{name}");
    }
}

#[test]
fn what_it_cannot_train_is_refused() {
    assert!(CpuEngine::new(&Model { heads: 5, ..dense() }, Precision::F32, 1).is_err());
    let mut engine = CpuEngine::new(&dense(), Precision::F32, 1).unwrap();
    assert!(engine.restore(State::zeros(&moe(|_| ()))).is_err());
}
