//! The CPU engine: forward and backward written out by hand on flat buffers, one sequence in flight a thread.
//!
//! No graph and no allocation within a sequence. Kernels are compiled for several instruction sets and picked at run
//! time; only `simd`, `product` and `transpose` hold unsafe code. It does not know schedules, data order or checkpoints.

#![expect(clippy::too_many_arguments, reason = "a kernel names each buffer and stride it touches")]

mod attention;
mod entropy;
mod experts;
mod gated;
mod lanes;
mod linear;
mod norm;
mod pairs;
mod peak;
mod product;
mod room;
mod rope;
mod router;
mod sequence;
mod simd;
mod swiglu;
#[cfg(test)]
mod tests;
mod transpose;
mod weights;

pub(crate) use peak::fma_peak;

use std::borrow::Cow;

use isoloss_sweep::Model;
use isoloss_sweep::run::Precision;

use crate::engine::{Batch, Engine, EngineError, Evaluation, State, StepReport, Update};
use crate::layout::Layout;
use crate::optimizer;
use lanes::Worker;
use linear::Weights;
use pairs::Pair;
use room::Room;
use rope::Rope;
use sequence::{Network, Pass};
use simd::Level;
use weights::Map;

/// State on the host, and one set of buffers a thread.
pub struct CpuEngine {
    network: Network,
    layout: Layout,
    state: State,
    /// Transposed matrices; stale after an update until the next pass.
    flipped: Vec<f32>,
    /// The matrices in pairs, where the products are in bf16.
    pairs: Option<Vec<Pair>>,
    stale: bool,
    gradient: Vec<f32>,
    workers: Vec<Worker>,
}

impl CpuEngine {
    /// An engine whose state is all zeros: `restore` gives it a real one. The result of no pass depends on `threads`.
    pub fn new(model: &Model, precision: Precision, threads: usize) -> Result<Self, EngineError> {
        Self::at(Level::detect(), model, precision, threads)
    }

    fn at(level: Level, model: &Model, precision: Precision, threads: usize) -> Result<Self, EngineError> {
        let unsupported = |reason| EngineError::Unsupported { engine: "cpu", reason };
        if let Some(defect) = model.defect() {
            return Err(unsupported(defect));
        }
        let layout = Layout::of(model);
        let network = Network {
            level,
            map: Map::of(model, &layout),
            rope: Rope::new(model.context as usize, model.head_width() as usize),
            model: model.clone(),
        };
        let workers = (0..threads.max(1)).map(|_| Worker::new(Room::new(model), layout.len()));
        Ok(Self {
            state: State::zeros(model),
            flipped: vec![0.0; layout.len()],
            pairs: (precision == Precision::Bf16).then(|| vec![Pair::default(); network.map.pairs]),
            stale: true,
            gradient: vec![0.0; layout.len()],
            workers: workers.collect(),
            layout,
            network,
        })
    }

    /// A pass over the present weights, and the buffers it works in.
    fn pass(&mut self, limited: bool) -> (Pass<'_>, &mut [Worker], &mut [f32]) {
        let Network { level, map, .. } = &self.network;
        if self.stale {
            map.refresh(*level, &self.state.params, &mut self.flipped, self.pairs.as_deref_mut(), &mut self.workers);
            self.stale = false;
        }
        let pass = Pass {
            network: &self.network,
            weights: Weights { params: &self.state.params, flipped: &self.flipped, pairs: self.pairs.as_deref() },
            router_bias: &self.state.router_bias,
            limited,
        };
        (pass, &mut self.workers, &mut self.gradient)
    }

    /// Leaves the batch's gradient in `self.gradient`.
    fn descend(&mut self, batch: Batch<'_>) -> StepReport {
        self.check(batch.tokens, batch.context);
        assert_eq!(batch.tokens.len(), batch.sequences * (batch.context + 1));
        let (pass, workers, gradient) = self.pass(true);
        gradient.fill(0.0);
        let mut report = lanes::gradient(pass, workers, batch, gradient);
        report.gradient_norm = optimizer::global_norm(gradient);
        report
    }

    /// What every pass may rely on.
    fn check(&self, tokens: &[u32], context: usize) {
        let model = &self.network.model;
        let most = model.context as usize;
        assert!((1..=most).contains(&context), "{context} positions, the model has {most}");
        let stranger = tokens.iter().find(|&&token| token >= model.vocab);
        assert!(stranger.is_none(), "token {stranger:?} in a vocabulary of {}", model.vocab);
    }
}

impl Engine for CpuEngine {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn step(&mut self, batch: Batch<'_>, update: &Update) -> Result<StepReport, EngineError> {
        let report = self.descend(batch);
        let threads = self.workers.len();
        optimizer::adamw(&self.layout, update, report.gradient_norm, &self.gradient, &mut self.state, threads);
        if let Some(experts) = &self.network.model.experts {
            optimizer::balance(experts.bias_update, &report.load, &mut self.state.router_bias);
        }
        self.state.step += 1;
        self.stale = true;
        Ok(report)
    }

    fn gradient(&mut self, batch: Batch<'_>) -> Result<(StepReport, Vec<f32>), EngineError> {
        let report = self.descend(batch);
        Ok((report, self.gradient.clone()))
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Evaluation, EngineError> {
        self.check(batch.tokens, batch.context);
        assert_eq!(batch.tokens.len(), batch.sequences * (batch.context + 1));
        let (pass, workers, _) = self.pass(false);
        Ok(lanes::evaluate(pass, workers, batch))
    }

    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.check(tokens, tokens.len());
        let [vocab, width] = [self.network.model.vocab, self.network.model.width].map(|n| n as usize);
        let (pass, workers, _) = self.pass(false);
        let room = &mut workers[0].room;
        pass.forward(room, tokens);
        let mut logits = vec![0.0; tokens.len() * vocab];
        pass.logits(&room.final_input[..tokens.len() * width], &mut logits, &mut room.gated.pack);
        Ok(logits)
    }

    fn state(&mut self) -> Result<Cow<'_, State>, EngineError> {
        Ok(Cow::Borrowed(&self.state))
    }

    fn restore(&mut self, state: State) -> Result<(), EngineError> {
        self.state = state.checked(&self.network.model)?;
        self.stale = true;
        Ok(())
    }

    fn instruction_set(&self) -> String {
        self.network.level.name().to_owned()
    }
}
