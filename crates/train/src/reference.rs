//! The reference engine: candle tensors and autograd, dense and mixture of experts. Slow and obviously right; it is the
//! oracle for the gradients and losses of the other engines.

mod decoder;
mod experts;
#[cfg(test)]
mod tests;
mod weights;

use std::borrow::Cow;

use candle_core::{Result, Tensor, WithDType};
use isoloss_sweep::Model;

use crate::engine::{Batch, Engine, EngineError, Evaluation, State, StepReport, Update};
use crate::layout::Layout;
use crate::optimizer;
use decoder::{Forward, Found};
use weights::Weights;

/// Weights and moments on the host; tensors live only for the length of a pass.
#[derive(Debug)]
pub struct Reference {
    model: Model,
    layout: Layout,
    state: State,
    /// Where candle's products run; without one, on rayon's global pool.
    pool: Option<rayon::ThreadPool>,
}

impl Reference {
    /// An engine whose state is all zeros: `restore` gives it a real one.
    pub fn new(model: &Model) -> Self {
        let layout = Layout::of(model);
        let state = State::zeros(model);
        Self { model: model.clone(), layout, state, pool: None }
    }

    /// The same engine with threads of its own. They have room for candle's backward, which recurses along the graph.
    pub fn on_threads(mut self, threads: u32) -> std::result::Result<Self, EngineError> {
        const STACK_BYTES: usize = 64 << 20;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1) as usize);
        let pool = pool.stack_size(STACK_BYTES).build();
        self.pool =
            Some(pool.map_err(|error| EngineError::Unsupported { engine: "reference", reason: error.to_string() })?);
        Ok(self)
    }

    fn install<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Forward only, dropless, without a graph: `[rows, vocab]` and what the pass found.
    fn forward(&self, inputs: &[u32], shape: (usize, usize)) -> Result<(Tensor, Found)> {
        let weights = Weights::load(&self.layout, &self.state.params, false)?;
        let mut pass = Forward::new(&self.model, &weights, &self.state.router_bias, shape);
        let logits = pass.logits(inputs)?;
        Ok((logits, pass.found))
    }
}

/// The objective of a step and its gradient in `S`; f64 is for finite differences.
fn objective<S: WithDType>(
    model: &Model,
    layout: &Layout,
    params: &[S],
    router_bias: &[f32],
    batch: Batch<'_>,
    gradient: bool,
) -> Result<Objective<S>> {
    let weights = Weights::load(layout, params, gradient)?;
    let (inputs, targets) = batch.split();
    let mut pass = Forward::new(model, &weights, router_bias, (batch.sequences, batch.context));
    pass.limited = true;
    let logits = pass.logits(&inputs)?;
    let found = pass.found;
    let loss = cross_entropy(&logits, &targets)?.mean_all()?;
    let mut report =
        StepReport { loss_nats: scalar(&loss)?, load: found.load, dropped: found.dropped, ..StepReport::default() };
    let mut total = loss;
    for (balance, z) in &found.penalties {
        let spec = model.experts.as_ref().expect("only experts have penalties");
        report.aux_loss += scalar(balance)?;
        report.router_z_loss += scalar(z)?;
        let penalty = ((balance * spec.aux_loss_coef)? + (z * spec.router_z_loss_coef)?)?;
        total = (total + penalty)?;
    }
    let flat = if gradient { weights.gradient(layout, &total.backward()?)? } else { Vec::new() };
    Ok(Objective { value: scalar(&total)?, gradient: flat, report, forward_flops: found.flops })
}

struct Objective<S> {
    #[cfg_attr(not(test), expect(dead_code, reason = "finite differences read it"))]
    value: f64,
    gradient: Vec<S>,
    report: StepReport,
    #[cfg_attr(not(test), expect(dead_code, reason = "the proof of the FLOP formulas reads it"))]
    forward_flops: f64,
}

/// Nats of each target under its row of logits: `[rows]`.
fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let targets = Tensor::from_slice(targets, (targets.len(), 1), logits.device())?;
    (decoder::log_sum_exp(logits)? - logits.gather(&targets, 1)?)?.squeeze(1)
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    tensor.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()
}

impl Engine for Reference {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn step(&mut self, batch: Batch<'_>, update: &Update) -> std::result::Result<StepReport, EngineError> {
        let (report, gradient) = self.gradient(batch)?;
        optimizer::adamw(&self.layout, update, report.gradient_norm, &gradient, &mut self.state, 1);
        if let Some(experts) = &self.model.experts {
            optimizer::balance(experts.bias_update, &report.load, &mut self.state.router_bias);
        }
        self.state.step += 1;
        Ok(report)
    }

    fn gradient(&mut self, batch: Batch<'_>) -> std::result::Result<(StepReport, Vec<f32>), EngineError> {
        let state = &self.state;
        let found = objective(&self.model, &self.layout, &state.params, &state.router_bias, batch, true)?;
        let mut report = found.report;
        report.gradient_norm = optimizer::global_norm(&found.gradient);
        Ok((report, found.gradient))
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> std::result::Result<Evaluation, EngineError> {
        let (inputs, targets) = batch.split();
        let work = || {
            let (logits, found) = self.forward(&inputs, (batch.sequences, batch.context))?;
            Ok(Evaluation { losses: cross_entropy(&logits, &targets)?.to_vec1()?, load: found.load })
        };
        Ok(self.install(work)?)
    }

    fn logits(&mut self, tokens: &[u32]) -> std::result::Result<Vec<f32>, EngineError> {
        let work = || {
            let (logits, _) = self.forward(tokens, (1, tokens.len()))?;
            logits.flatten_all()?.to_vec1()
        };
        Ok(self.install(work)?)
    }

    fn state(&mut self) -> std::result::Result<Cow<'_, State>, EngineError> {
        Ok(Cow::Borrowed(&self.state))
    }

    fn restore(&mut self, state: State) -> std::result::Result<(), EngineError> {
        self.state = state.checked(&self.model)?;
        Ok(())
    }

    fn instruction_set(&self) -> String {
        let vector = if candle_core::utils::with_avx() { "avx" } else { "generic" };
        format!("candle {vector}")
    }
}
