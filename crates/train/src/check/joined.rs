//! An engine on devices that share every batch, held to the CPU engine and to one device alone.

use isoloss_sweep::Model;
use isoloss_sweep::run::Precision;

use super::{Listener, Make, allowed, gradients, moe, one, small, train, worst};
use crate::compared::{SEQUENCES, state};
use crate::cuda::CudaEngine;
use crate::engine::{Engine, EngineError};

/// Makes an engine for steps of so many sequences.
pub type MakeCuda<'a> = dyn FnMut(&Model, Precision, u32) -> Result<CudaEngine, EngineError> + 'a;

/// All checks of `together`, devices that are joined, beside `alone`, one that is not.
pub fn joined(together: &mut MakeCuda<'_>, alone: &mut MakeCuda<'_>, to: &mut dyn Listener) {
    for (name, model) in [("dense", small(None)), ("moe", small(moe(|e| e.bias_update = 1e-3).experts))] {
        for precision in [Precision::F32, Precision::Bf16] {
            let (model, what) = (&model, |what: &str| format!("joined, {name}, {}: {what}", precision.name()));
            one(to, what("gradients, worst tensor"), allowed(model, precision), || {
                gradients(&mut boxed(together), model, precision, SEQUENCES)
            });
            one(to, what("elements that differ between devices"), 0.0, || apart(together, model, precision));
            one(to, what("20 losses beside one device alone"), 1e-2, || beside(together, alone, model, precision));
        }
    }
}

fn boxed<'a>(make: &'a mut MakeCuda<'_>) -> Box<Make<'a>> {
    Box::new(|model, precision, batch| Ok(Box::new(make(model, precision, batch)?)))
}

fn ready(make: &mut MakeCuda<'_>, model: &Model, precision: Precision) -> Result<CudaEngine, EngineError> {
    let mut engine = make(model, precision, SEQUENCES as u32)?;
    engine.restore(state(model))?;
    Ok(engine)
}

fn apart(make: &mut MakeCuda<'_>, model: &Model, precision: Precision) -> Result<f64, EngineError> {
    let mut engine = ready(make, model, precision)?;
    train(&mut engine, model, 0..20)?;
    Ok(engine.apart()? as f64)
}

/// Worst relative difference of a loss. With one device the sums are its own numbers, so there must be none.
fn beside(
    together: &mut MakeCuda<'_>,
    alone: &mut MakeCuda<'_>,
    model: &Model,
    precision: Precision,
) -> Result<f64, EngineError> {
    let (mut ours, mut theirs) = (ready(together, model, precision)?, ready(alone, model, precision)?);
    let (found, expected) = (train(&mut ours, model, 0..20)?, train(&mut theirs, model, 0..20)?);
    if ours.devices() == 1 && ours.state()? != theirs.state()? {
        return Ok(f64::INFINITY);
    }
    Ok(worst(found.iter().zip(&expected).map(|(found, expected)| (found / expected - 1.0).abs())))
}
