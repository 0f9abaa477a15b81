use isoloss_sweep::Experts;

use super::*;
use crate::init::initial_state;

fn dense() -> Model {
    Model { layers: 2, width: 8, heads: 2, ff: 12, context: 6, vocab: 11, tied: false, experts: None }
}

fn moe() -> Model {
    Model {
        ff: 0,
        experts: Some(Experts {
            count: 4,
            top_k: 2,
            ff: 5,
            shared_ff: 0,
            aux_loss_coef: 0.3,
            router_z_loss_coef: 0.2,
            bias_update: 0.0,
            capacity_factor: None,
        }),
        ..dense()
    }
}

fn with(change: impl FnOnce(&mut Experts)) -> Model {
    let mut model = moe();
    change(model.experts.as_mut().unwrap());
    model
}

fn models() -> Vec<(&'static str, Model)> {
    vec![
        ("dense", dense()),
        ("tied", Model { tied: true, ..dense() }),
        ("moe", moe()),
        ("shared", with(|e| e.shared_ff = 7)),
        ("limited", with(|e| e.capacity_factor = Some(1.0))),
    ]
}

/// Three sequences over the whole small vocabulary.
fn tokens(model: &Model) -> Vec<u32> {
    let len = 3 * (model.context + 1);
    (0..len).map(|i| (i * i * 7 + i * 3) % model.vocab).collect()
}

fn batch<'a>(model: &Model, tokens: &'a [u32]) -> Batch<'a> {
    Batch { tokens, sequences: 3, context: model.context as usize }
}

fn update(step: u64) -> Update {
    Update { step, learning_rate: 1e-2, weight_decay: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, clip: 1.0 }
}

fn engine(model: &Model, seed: u64) -> Reference {
    let mut engine = Reference::new(model);
    engine.restore(initial_state(model, seed)).unwrap();
    engine
}

fn train(model: &Model, steps: u64) -> Vec<StepReport> {
    let (mut engine, tokens) = (engine(model, 1), tokens(model));
    (0..steps).map(|step| engine.step(batch(model, &tokens), &update(step)).unwrap()).collect()
}

/// Weights of order one half, so that every derivative is well above the rounding of its difference.
fn weights(layout: &Layout) -> Vec<f64> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
    };
    let mut flat = vec![0.0; layout.len()];
    for view in layout.views() {
        let center = if view.shape.len() == 1 { 1.0 } else { 0.0 };
        flat[view.range()].fill_with(|| center + 1.2 * next());
    }
    flat
}

#[test]
fn every_parameter_receives_a_finite_gradient() {
    for (name, model) in models() {
        let (mut engine, tokens) = (engine(&model, 3), tokens(&model));
        let (report, gradient) = engine.gradient(batch(&model, &tokens)).unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        for view in engine.layout().views() {
            let stack = if view.shape.len() == 3 { view.shape[0] } else { 1 };
            for (part, values) in gradient[view.range()].chunks(view.len / stack).enumerate() {
                let layer = view.name.split('.').nth(1).and_then(|l| l.parse::<usize>().ok());
                let reached = stack == 1 || report.load[layer.unwrap()][part] > 0;
                let moved = values.iter().any(|&g| g != 0.0);
                assert_eq!(moved, reached, "{name}: {} part {part}", view.name);
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (name, model) in models() {
        let (layout, tokens) = (Layout::of(&model), tokens(&model));
        let mut params = weights(&layout);
        let value = |params: &[f64]| {
            let found = objective::<f64>(&model, &layout, params, &[], batch(&model, &tokens), false).unwrap();
            found.value
        };
        let exact = objective::<f64>(&model, &layout, &params, &[], batch(&model, &tokens), true).unwrap();
        for view in layout.views() {
            let range = view.range();
            // The steepest element of every tensor, and some at a stride.
            let steepest = range.clone().max_by(|&a, &b| exact.gradient[a].abs().total_cmp(&exact.gradient[b].abs()));
            let scale = exact.gradient[steepest.unwrap()].abs();
            for i in range.step_by(view.len.div_ceil(3)).chain(steepest) {
                let centre = params[i];
                let mut at = |step: f64| {
                    params[i] = centre + step;
                    let found = value(&params);
                    params[i] = centre;
                    found
                };
                let h = 2e-4;
                let difference = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
                let error = (difference - exact.gradient[i]).abs() / scale.max(1e-3);
                assert!(error < 1e-6, "{name}: {} element {i}: {difference} {}", view.name, exact.gradient[i]);
            }
        }
    }
}

#[test]
fn counted_weights_and_products_equal_the_formulas() {
    for (name, model) in models() {
        let (layout, counts) = (Layout::of(&model), model.param_counts());
        let tables = |name: &str| name == "embedding" || name == "head";
        let body: usize = layout.views().iter().filter(|v| !tables(&v.name)).map(|v| v.len).sum();
        assert_eq!(layout.len() as u64, counts.total.get(), "{name}");
        assert_eq!(body as u64, counts.non_embedding.get(), "{name}");
        if name == "limited" {
            continue; // The formulas count the products of a dropless layer.
        }
        let (params, tokens) = (weights(&layout), tokens(&model));
        let found = objective(&model, &layout, &params, &[], batch(&model, &tokens), false).unwrap();
        let expected = model.flop_terms().forward() * 18.0;
        assert!((found.forward_flops / expected - 1.0).abs() < 1e-12, "{name}: {expected}");
    }
}

#[test]
fn training_learns_and_repeats_bit_for_bit() {
    for (name, model) in models() {
        let losses = train(&model, 30);
        assert_eq!(losses, train(&model, 30), "{name}");
        let (first, last) = (losses[0].loss_nats, losses[29].loss_nats);
        assert!((first - (11f64).ln()).abs() < 0.1 && last < first - 0.5, "{name}: {first} {last}");
    }
}

/// These losses pin the numerics version of the reference engine: where they move, it rises.
#[test]
fn golden_losses() {
    let golden = [
        ("dense", dense(), [2.400897264480591, 2.0999627113342285, 1.8335931301116943]),
        ("moe", with(|e| e.bias_update = 0.01), [2.3929147720336914, 2.2083868980407715, 1.982665777206421]),
    ];
    for (name, model, expected) in golden {
        let reports = train(&model, 11);
        let found = [0, 5, 10].map(|step| reports[step].loss_nats);
        for (a, b) in found.iter().zip(expected) {
            assert!((a / b - 1.0).abs() < 1e-5, "{name}: {found:?}");
        }
    }
}

#[test]
fn bias_steers_the_choice_and_not_the_weights() {
    let model = with(|e| {
        e.top_k = 1;
        e.bias_update = 0.5;
    });
    let (mut engine, tokens) = (engine(&model, 1), tokens(&model));
    let mut state = engine.state().unwrap().into_owned();
    state.router_bias = [0.0, 0.0, 2.0, 0.0].repeat(2);
    engine.restore(state).unwrap();
    let before = engine.evaluate(batch(&model, &tokens)).unwrap();
    assert_eq!(before.load, [[0, 0, 18, 0], [0, 0, 18, 0]]);
    // A single routed expert has weight one, however strong the push.
    let mut state = engine.state().unwrap().into_owned();
    state.router_bias = [0.0, 0.0, 9.0, 0.0].repeat(2);
    engine.restore(state).unwrap();
    assert_eq!(engine.evaluate(batch(&model, &tokens)).unwrap(), before);
    let report = engine.step(batch(&model, &tokens), &update(0)).unwrap();
    assert_eq!(report.load, before.load);
    let bias = engine.state().unwrap().into_owned().router_bias;
    assert_eq!(bias, [0.5, 0.5, 8.5, 0.5].repeat(2));
}

#[test]
fn capacity_drops_late_pairs_in_training_only() {
    let crowded = |capacity_factor| {
        let model = with(|e| {
            e.top_k = 1;
            e.bias_update = 1e-9;
            e.capacity_factor = capacity_factor;
        });
        let (mut engine, tokens) = (engine(&model, 1), tokens(&model));
        let mut state = engine.state().unwrap().into_owned();
        state.router_bias = [2.0, 0.0, 0.0, 0.0].repeat(2);
        engine.restore(state).unwrap();
        let evaluation = engine.evaluate(batch(&model, &tokens)).unwrap();
        (engine.gradient(batch(&model, &tokens)).unwrap().0, evaluation)
    };
    let (free, dropless) = crowded(None);
    // ceil(1.0 * 6 * 1 / 4) = 2 of 6 positions keep their slot, in 3 sequences and 2 layers.
    let (limited, evaluation) = crowded(Some(1.0));
    assert_eq!((free.dropped, limited.dropped), (0, 24));
    assert_eq!(limited.load, free.load);
    assert_ne!(limited.loss_nats, free.loss_nats);
    assert_eq!(evaluation, dropless);
}

#[test]
fn logits_are_causal_and_agree_with_evaluation() {
    for (name, model) in models() {
        let (mut engine, tokens) = (engine(&model, 5), tokens(&model));
        let evaluation = engine.evaluate(batch(&model, &tokens)).unwrap();
        let vocab = model.vocab as usize;
        for len in 1..=6 {
            let logits = engine.logits(&tokens[..len]).unwrap();
            let row = &logits[(len - 1) * vocab..];
            let total: f32 = row.iter().map(|l| l.exp()).sum();
            let loss = total.ln() - row[tokens[len] as usize];
            assert!((loss - evaluation.losses[len - 1]).abs() < 1e-5, "{name} at {len}");
        }
    }
}

#[test]
fn a_state_of_another_shape_is_refused() {
    let mut engine = Reference::new(&dense());
    let refused = engine.restore(State::zeros(&moe()));
    assert!(matches!(refused, Err(EngineError::WrongState { .. })));
}
