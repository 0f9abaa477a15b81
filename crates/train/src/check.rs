//! An engine on a device held to the CPU engine, where the device is: what the tests do on the emulated one, for a GPU that
//! only the user has.

mod gpus;
mod joined;

use isoloss_gpu::Fault;
use isoloss_sweep::run::Precision;
use isoloss_sweep::{Experts, Model};
use serde::{Deserialize, Serialize};

use crate::compared::{SEQUENCES, batch, dense, models, moe, norm, state, text, update, wide};
use crate::cpu::CpuEngine;
use crate::engine::{Batch, Engine, EngineError};

pub use gpus::{on_gpu, on_gpus};
pub use joined::{MakeCuda, joined};

/// Makes the engine that is checked, which takes this many sequences at a time.
pub type Make<'a> = dyn FnMut(&Model, Precision, u32) -> Result<Box<dyn Engine>, EngineError> + 'a;

/// One thing looked at: a deviation and how much is allowed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    pub what: String,
    /// Or why it could not be looked at.
    pub found: Result<f64, String>,
    pub allowed: f64,
}

impl Check {
    pub fn is_good(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| *found <= self.allowed)
    }
}

/// Who hears of checks.
pub trait Listener {
    /// Whether the check is to be made now; one that is not is never told.
    fn wants(&mut self, what: &str) -> bool;
    /// It was made.
    fn hear(&mut self, check: Check);
    /// The one just heard broke the GPU's context: this process can look at nothing more.
    fn broke(&mut self);
}

/// Makes the check if it is wanted.
fn one(to: &mut dyn Listener, what: String, allowed: f64, look: impl FnOnce() -> Result<f64, EngineError>) {
    if to.wants(&what) {
        // What is no number has no form in JSON, and is good for nothing else.
        let number = |found: f64| if found.is_finite() { Ok(found) } else { Err(format!("found {found}")) };
        let found = look();
        let is_broken = matches!(&found, Err(EngineError::Gpu(error)) if error.fault() == Fault::Context);
        let found = found.map_err(|error| error.to_string()).and_then(number);
        to.hear(Check { what, found, allowed });
        if is_broken {
            to.broke();
        }
    }
}

/// All checks, one after another.
pub fn check(make: &mut Make<'_>, to: &mut dyn Listener) {
    for (name, model) in shapes() {
        for precision in [Precision::F32, Precision::Bf16] {
            let what = format!("gradients, {name}, {}: worst tensor", precision.name());
            one(to, what, allowed(&model, precision), || gradients(make, &model, precision, SEQUENCES));
        }
    }
    for (name, model) in [("dense", dense()), ("moe", moe(|_| ())), ("tied", Model { tied: true, ..dense() })] {
        for precision in [Precision::F32, Precision::Bf16] {
            let what = format!("gradients in {} passes, {name}, {}: worst tensor", SEQUENCES / 2, precision.name());
            one(to, what, allowed(&model, precision), || gradients(make, &model, precision, 2));
            let what = format!("20 losses in {} passes, {name}, {}", SEQUENCES / 2, precision.name());
            one(to, what, 1e-2, || cut(make, &model, precision));
        }
    }
    for (name, model) in [("dense", small(None)), ("moe", small(moe(|_| ()).experts))] {
        for precision in [Precision::F32, Precision::Bf16] {
            let (model, label) = (&model, format!("{name}, {}", precision.name()));
            one(to, format!("300 losses, {label}"), 1e-2, || losses(make, model, precision));
            one(to, format!("same bits twice, {label}: elements that differ"), 0.0, || twice(make, model, precision));
            one(to, format!("resumed, {label}: elements that differ"), 0.0, || resumed(make, model, precision));
            let what = format!("checkpoints, {label}: loss on the other engine");
            one(to, what, 1e-2, || interchanged(make, model, precision));
        }
    }
}

/// How far a tensor's gradient may be off. TF32 keeps 10 bits, bf16 7; rounding may send a token to another expert, which is
/// one gradient for another.
fn allowed(model: &Model, precision: Precision) -> f64 {
    match (precision, model.experts.is_some()) {
        (Precision::F32, false) => 5e-3,
        (Precision::F32, true) => 0.15,
        (Precision::Bf16, false) => 0.06,
        (Precision::Bf16, true) => 0.3,
    }
}

/// Odd sizes, and those that tensor cores like; head widths of several kinds.
fn shapes() -> Vec<(String, Model)> {
    let even = Model { layers: 2, width: 128, heads: 2, ff: 352, context: 256, vocab: 256, tied: false, experts: None };
    let experts = |count, top_k, capacity_factor| Experts {
        count,
        top_k,
        ff: 96,
        shared_ff: 32,
        aux_loss_coef: 0.01,
        router_z_loss_coef: 1e-3,
        bias_update: 0.0,
        capacity_factor,
    };
    let mixed = |experts| Model { ff: 0, experts: Some(experts), ..even.clone() };
    let named = models().into_iter().chain(wide());
    let mut all: Vec<(String, Model)> = named.map(|(name, model)| (name.to_owned(), model)).collect();
    for head in [16, 32, 64, 80, 88, 96, 128, 160] {
        all.push((format!("heads of {head}"), Model { width: 2 * head, ..even.clone() }));
    }
    all.push(("even tied".to_owned(), Model { tied: true, ..even.clone() }));
    all.push(("8 experts, top 2".to_owned(), mixed(experts(8, 2, None))));
    all.push(("64 experts, top 8".to_owned(), mixed(experts(64, 8, None))));
    all.push(("8 experts, limited".to_owned(), mixed(experts(8, 2, Some(1.0)))));
    all
}

fn small(experts: Option<Experts>) -> Model {
    let ff = if experts.is_some() { 0 } else { 48 };
    Model { layers: 2, width: 32, heads: 2, ff, context: 32, vocab: 67, experts, ..dense() }
}

fn ready(make: &mut Make<'_>, model: &Model, precision: Precision) -> Result<Box<dyn Engine>, EngineError> {
    made(make, model, precision, SEQUENCES)
}

/// An engine that takes so many sequences at a time.
fn made(
    make: &mut Make<'_>,
    model: &Model,
    precision: Precision,
    sequences: usize,
) -> Result<Box<dyn Engine>, EngineError> {
    let mut engine = make(model, precision, sequences as u32)?;
    engine.restore(state(model))?;
    Ok(engine)
}

fn cpu(model: &Model) -> Result<CpuEngine, EngineError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut engine = CpuEngine::new(model, Precision::F32, threads)?;
    engine.restore(state(model))?;
    Ok(engine)
}

/// Of one batch of [`SEQUENCES`], `at_a_time` in each pass.
fn gradients(make: &mut Make<'_>, model: &Model, precision: Precision, at_a_time: usize) -> Result<f64, EngineError> {
    let tokens = text(model, 0);
    let (_, exact) = cpu(model)?.gradient(batch(model, &tokens))?;
    let mut engine = made(make, model, precision, at_a_time)?;
    let (_, found) = engine.gradient(batch(model, &tokens))?;
    let off = engine.layout().views().iter().map(|view| {
        let (found, exact) = (&found[view.range()], &exact[view.range()]);
        norm(found.iter().zip(exact).map(|(a, b)| a - b)) / norm(exact.iter().copied())
    });
    Ok(worst(off))
}

/// The largest; what is not a number is worse than any.
fn worst(found: impl Iterator<Item = f64>) -> f64 {
    found.fold(0.0, |worst, off| if off.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(off) })
}

fn train(engine: &mut dyn Engine, model: &Model, steps: std::ops::Range<u64>) -> Result<Vec<f64>, EngineError> {
    let texts: Vec<Vec<u32>> = steps.clone().map(|step| text(model, step)).collect();
    let batches: Vec<Batch<'_>> = texts.iter().map(|tokens| batch(model, tokens)).collect();
    let reports = engine.steps(&batches, &steps.map(update).collect::<Vec<_>>())?;
    Ok(reports.into_iter().map(|report| report.loss_nats).collect())
}

/// Relative to the CPU engine, by means of ten steps, of experts fifty: a token that rounding sends elsewhere makes single
/// steps differ by more, and the two runs other runs of one mean.
fn losses(make: &mut Make<'_>, model: &Model, precision: Precision) -> Result<f64, EngineError> {
    let found = train(ready(make, model, precision)?.as_mut(), model, 0..300)?;
    let expected = train(&mut cpu(model)?, model, 0..300)?;
    let steps = if model.experts.is_some() { 50 } else { 10 };
    let sums = |losses: &[f64]| losses.chunks(steps).map(|some| some.iter().sum::<f64>()).collect::<Vec<f64>>();
    Ok(worst(sums(&found).iter().zip(sums(&expected)).map(|(found, expected)| (found / expected - 1.0).abs())))
}

/// Steps of several passes beside steps of one.
fn cut(make: &mut Make<'_>, model: &Model, precision: Precision) -> Result<f64, EngineError> {
    let found = train(made(make, model, precision, 2)?.as_mut(), model, 0..20)?;
    let expected = train(ready(make, model, precision)?.as_mut(), model, 0..20)?;
    Ok(worst(found.iter().zip(&expected).map(|(found, expected)| (found / expected - 1.0).abs())))
}

fn twice(make: &mut Make<'_>, model: &Model, precision: Precision) -> Result<f64, EngineError> {
    let mut states = Vec::new();
    for _ in 0..2 {
        let mut engine = ready(make, model, precision)?;
        train(engine.as_mut(), model, 0..20)?;
        states.push(engine.state()?.into_owned());
    }
    Ok(states[0].differing(&states[1]) as f64)
}

fn resumed(make: &mut Make<'_>, model: &Model, precision: Precision) -> Result<f64, EngineError> {
    let mut straight = ready(make, model, precision)?;
    train(straight.as_mut(), model, 0..10)?;
    let saved = straight.state()?.into_owned();
    train(straight.as_mut(), model, 10..20)?;
    let mut later = make(model, precision, SEQUENCES as u32)?;
    later.restore(saved)?;
    train(later.as_mut(), model, 10..20)?;
    let (found, expected) = (later.state()?, straight.state()?);
    Ok(found.differing(&expected) as f64)
}

/// The CPU engine takes over the device's state, and later the device the CPU engine's; five losses each, side by side.
fn interchanged(make: &mut Make<'_>, model: &Model, precision: Precision) -> Result<f64, EngineError> {
    let (mut ours, mut theirs) = (cpu(model)?, ready(make, model, precision)?);
    train(theirs.as_mut(), model, 0..20)?;
    ours.restore(theirs.state()?.into_owned())?;
    let mut off = Vec::new();
    for steps in [20..25, 25..30] {
        let expected = train(&mut ours, model, steps.clone())?;
        let found = train(theirs.as_mut(), model, steps)?;
        off.extend(found.iter().zip(&expected).map(|(found, expected)| (found / expected - 1.0).abs()));
        theirs.restore(ours.state()?.into_owned())?;
    }
    Ok(worst(off.into_iter()))
}

/// Hears all but one.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) checks: Vec<Check>,
    pub(crate) unwanted: Option<String>,
}

#[cfg(test)]
impl Listener for Ear {
    fn wants(&mut self, what: &str) -> bool {
        self.unwanted.as_deref() != Some(what)
    }

    fn hear(&mut self, check: Check) {
        self.checks.push(check);
    }

    fn broke(&mut self) {}
}

#[cfg(test)]
mod tests {
    use isoloss_gpu::GpuError;

    use super::*;

    fn all(make: &mut Make<'_>) -> Vec<Check> {
        let mut ear = Ear::default();
        check(make, &mut ear);
        ear.checks
    }

    #[test]
    fn an_engine_that_is_right_passes_and_one_that_cannot_be_made_fails() {
        let right = all(&mut |model, precision, _| Ok(Box::new(CpuEngine::new(model, precision, 2)?)));
        let wrong: Vec<&Check> = right.iter().filter(|check| !check.is_good()).collect();
        assert!(wrong.is_empty() && right.len() > 30, "{wrong:?}");
        let none = all(&mut |_, _, _| Err(GpuError::NoKernel("x".to_owned()).into()));
        assert!(none.len() == right.len() && none.iter().all(|check| !check.is_good() && check.found.is_err()));
        let mut ear = Ear { unwanted: Some(none[0].what.clone()), ..Ear::default() };
        check(&mut |_, _, _| Err(GpuError::NoKernel("x".to_owned()).into()), &mut ear);
        assert_eq!((ear.checks.len(), &ear.checks[0].what), (none.len() - 1, &none[1].what));
        assert!(worst([1.0, f64::NAN, 2.0].into_iter()).is_nan());
    }

    #[test]
    fn what_differs_is_counted() {
        let model = small(None);
        let mut moved = state(&model);
        moved.params[3] += 1.0;
        moved.first_moment[5] = f32::NAN;
        assert_eq!(state(&model).differing(&moved), 2);
    }
}
