//! How fast the cores of this machine go with a few shapes of a plan, as many runs side by side as there are slots.

use std::thread;
use std::time::Duration;

use isoloss_sweep::Model;
use isoloss_sweep::plan::{Action, Plan, PlannedRun};
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_train::bench::{self, Machine, Row, Setting, Shape};

use super::kept::Measured;
use crate::print;

/// FLOPs of a timed step. A measurement takes seven steps or more: a twentieth of a second at 50 GFLOP/s.
const STEP_FLOPS: f64 = 4e8;
/// One sequence of a larger model is measured with fewer layers, which run at the same speed.
const SEQUENCE_FLOPS: f64 = 1.5e9;
/// A single layer above this would take seconds by itself; the speed of smaller shapes stands for it.
const LAYER_FLOPS_MAX: f64 = 6e9;
/// Each shape is timed for this long at least.
const TIME: Duration = Duration::from_millis(150);
/// Other programs are believed to have taken at most all but this part of the machine.
const SHARED_MAX: f64 = 4.0;
/// A kept rate stands for models up to this many times cheaper or dearer.
const NEAR: f64 = 3.0;

/// A model of the plan that wants a rate.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    engine: EngineKind,
    precision: Precision,
    model: Model,
}

/// Measures what of the plan no kept rate is near to; whether anything was.
pub(super) fn measure(plan: &Plan, slots: usize, machine: &Machine, rates: &mut Vec<Measured>) -> bool {
    let missing: Vec<Wanted> = wanted(plan).into_iter().filter(|wanted| !covered(rates, wanted)).collect();
    if !missing.is_empty() {
        print::note("measuring this machine's speed (--no-probe leaves it out)");
    }
    rates.extend(missing.iter().filter_map(|wanted| one(wanted, slots, machine)));
    !missing.is_empty()
}

/// The cheapest, the middle and the dearest model to train, for each engine and family.
fn wanted(plan: &Plan) -> Vec<Wanted> {
    let mut chosen = Vec::new();
    // Cores say nothing about a GPU.
    let here = |run: &&PlannedRun| run.action != Action::Reuse && run.run.numerics.engine != EngineKind::Cuda;
    let runs: Vec<_> = plan.runs.iter().filter(here).map(|run| &run.run).collect();
    let mut kinds: Vec<_> = runs.iter().map(|run| (run.numerics.clone(), run.model.experts.is_some())).collect();
    kinds.dedup();
    for (numerics, moe) in kinds {
        let of_kind = runs.iter().filter(|run| run.numerics == numerics && run.model.experts.is_some() == moe);
        let mut models: Vec<&Model> = of_kind.map(|run| &run.model).collect();
        models.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let picks = if moe { vec![0, models.len() - 1] } else { vec![0, models.len() / 2, models.len() - 1] };
        for model in picks.into_iter().map(|at| models[at].clone()) {
            let wanted = Wanted { engine: numerics.engine, precision: numerics.precision, model };
            let near = |other: &Wanted| {
                same_kind(other, &wanted) && (cost(&other.model) / cost(&wanted.model)).ln().abs() < NEAR.ln() / 2.0
            };
            if !chosen.iter().any(near) {
                chosen.push(wanted);
            }
        }
    }
    chosen
}

fn same_kind(a: &Wanted, b: &Wanted) -> bool {
    (a.engine, a.precision, a.model.experts.is_some()) == (b.engine, b.precision, b.model.experts.is_some())
}

/// Training FLOPs for a token.
fn cost(model: &Model) -> f64 {
    model.flop_terms().training()
}

fn covered(rates: &[Measured], wanted: &Wanted) -> bool {
    let moe = wanted.model.experts.is_some();
    rates.iter().any(|rate| {
        (rate.engine, rate.precision, rate.moe) == (wanted.engine, wanted.precision, moe)
            && (rate.flops_per_token / cost(&wanted.model)).ln().abs() < NEAR.ln()
    })
}

/// The shape that stands for a model: a batch, or fewer layers, of which a step takes a moment.
fn shape(wanted: &Wanted) -> Option<Shape> {
    // The plain engine is some four times slower.
    let share = if wanted.engine == EngineKind::Reference { 0.25 } else { 1.0 };
    let mut model = wanted.model.clone();
    let sequence = |model: &Model| cost(model) * f64::from(model.context);
    while model.layers > 1 && sequence(&model) > share * SEQUENCE_FLOPS {
        model.layers -= 1;
    }
    if sequence(&model) > share * LAYER_FLOPS_MAX {
        return None;
    }
    let batch = (share * STEP_FLOPS / sequence(&model)).clamp(1.0, 16.0) as usize;
    Some(Shape { name: "probe", model, batch })
}

/// Every slot trains the shape at once, because runs share memory and clock; none where the engine cannot.
fn one(wanted: &Wanted, slots: usize, machine: &Machine) -> Option<Measured> {
    let shape = shape(wanted)?;
    let setting = Setting {
        engine: wanted.engine,
        precision: wanted.precision,
        threads: 1,
        time: TIME,
        kernels: std::path::PathBuf::new(),
        gpu: 0,
        meeting: None,
    };
    let rows: Vec<_> = thread::scope(|scope| {
        let one = || bench::measure(&shape, &setting, machine, None).ok();
        let running: Vec<_> = (0..slots).map(|_| scope.spawn(one)).collect();
        running.into_iter().filter_map(|slot| slot.join().ok().flatten()).collect()
    });
    let flops_per_token = cost(&wanted.model);
    let timed = cost(&shape.model);
    let speed = rows.iter().map(|row| unshared(row, timed, slots)).sum::<f64>() / rows.len() as f64;
    (speed.is_finite() && speed > 0.0).then(|| Measured {
        engine: wanted.engine,
        precision: wanted.precision,
        moe: wanted.model.experts.is_some(),
        flops_per_token,
        tokens_per_second: speed / flops_per_token,
    })
}

/// FLOP/s of one slot without what other programs took in that moment: tokens by the processor time of all slots, which
/// train the same shape. Processor time comes in hundredths of a second, so it only corrects, and within bounds.
fn unshared(row: &Row, flops_per_token: f64, slots: usize) -> f64 {
    let seen = row.gflops * 1e9;
    let alone = row.tokens_per_cpu_second.map_or(seen, |tokens| tokens * slots as f64 * flops_per_token);
    alone.clamp(seen, SHARED_MAX * seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(layers: u32, width: u32) -> Model {
        Model { layers, width, heads: 2, ff: 2 * width, context: 64, vocab: 256, tied: true, experts: None }
    }

    fn wanted(layers: u32, width: u32) -> Wanted {
        Wanted { engine: EngineKind::Cpu, precision: Precision::F32, model: model(layers, width) }
    }

    #[test]
    fn a_step_of_the_shape_takes_a_moment_whatever_the_model() {
        for (layers, width) in [(1, 16), (4, 64), (12, 512), (24, 1024)] {
            let shape = shape(&wanted(layers, width)).unwrap();
            let step = cost(&shape.model) * f64::from(shape.model.context) * shape.batch as f64;
            assert!(step <= LAYER_FLOPS_MAX && shape.batch >= 1, "{layers} x {width}: {step}");
        }
        assert_eq!(shape(&wanted(2, 16384)).map(|shape| shape.batch), None);
    }

    #[test]
    fn a_rate_stands_for_near_models() {
        let rates = [one(&wanted(1, 16), 1, &bench::machine()).unwrap()];
        assert!(covered(&rates, &wanted(1, 20)));
        assert!(!covered(&rates, &wanted(6, 256)));
    }
}
