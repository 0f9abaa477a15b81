//! How fast the training step runs here: the very step of a run, for named shapes, against the processor's peak.
//!
//! Measures and returns numbers; printing is the caller's. Tokens are random, so no corpus is read.

mod best;
mod company;
mod peak;
mod shapes;
mod together;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use isoloss_gpu::Gpu;
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_sweep::{Model, Tokens};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::cpu::{CpuEngine, fma_peak};
use crate::cuda::CudaEngine;
use crate::engine::{Batch, Engine, EngineError, State, StepReport, Update};
use crate::init::initial_state;
use crate::layout::Layout;
use crate::memory;
use crate::reference::Reference;

pub use best::{Search, measure_best};
pub use company::{Company, Meeting};
pub use peak::{Peak, gpu_peak};
pub use shapes::{Shape, large_shapes, shapes};
pub use together::measure_together;

/// Version of the JSON form of [`Report`].
pub const SCHEMA_VERSION: u32 = 1;

/// What `bench --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema_version: u32,
    pub machine: Machine,
    /// Measured for the engine `cuda` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Peak>,
    pub rows: Vec<Row>,
}

/// The machine that the rows were measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Vector instructions that the cpu engine uses here.
    pub vector: String,
    pub fma_peak_gflops_per_core: f64,
}

/// One shape, measured.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub shape: String,
    pub family: &'static str,
    pub layers: u32,
    pub width: u32,
    pub heads: u32,
    /// Of the dense layer, or of one expert.
    pub ff: u32,
    pub vocab: u32,
    pub context: u32,
    pub batch: usize,
    pub experts: Option<u32>,
    pub top_k: Option<u32>,
    pub engine: &'static str,
    pub precision: Precision,
    pub threads: usize,
    /// Models side by side in one process, whose speeds are added up.
    pub together: usize,
    /// Tokens of the busiest expert over the mean, worst layer, at the last step; missing for dense models.
    pub load_max_ratio: Option<f64>,
    /// From the median step.
    pub tokens_per_second: f64,
    /// By the processor time of all threads; missing where the system does not say.
    pub tokens_per_cpu_second: Option<f64>,
    /// Exact training FLOPs a second, attention causal.
    pub gflops: f64,
    /// Of the peak of as many cores as there are threads; of a GPU, of what a large bf16 product reaches on it.
    pub peak_share: f64,
    /// Largest resident memory of the process so far.
    pub memory_bytes: u64,
    /// What the engine allocated of a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
}

/// How to run a shape.
#[derive(Debug, Clone)]
pub struct Setting {
    pub engine: EngineKind,
    pub precision: Precision,
    pub threads: usize,
    /// Steps are timed for this long, five at least.
    pub time: Duration,
    /// Where compiled GPU kernels are kept.
    pub kernels: PathBuf,
    /// Number of the GPU among those that the process sees, for the engine `cuda`.
    pub gpu: u32,
    /// Other processes that measure at the same time.
    pub meeting: Option<Meeting>,
}

/// Why a shape was not measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("one of the {0} models that were to be measured together failed")]
    Company(usize),
    #[error("{came} of {expected} models came to be measured together, by the files in {}", .folder.display())]
    Alone { came: usize, expected: usize, folder: PathBuf },
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// What this machine is and can do at most.
pub fn machine() -> Machine {
    let (fma_peak_gflops_per_core, vector) = fma_peak();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        cpu: named.map_or("unknown", |(_, name)| name).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        vector: vector.to_owned(),
        fma_peak_gflops_per_core,
    }
}

/// Times the step of one shape. `peak` is what the device does at most, FLOP/s: of the cores if none is given.
pub fn measure(shape: &Shape, setting: &Setting, machine: &Machine, peak: Option<f64>) -> Result<Row, BenchError> {
    one(shape, setting, machine, peak, &Company::none(), &|| start(&shape.model))
}

/// The same among others, from weights that `start` gives.
fn one(
    shape: &Shape,
    setting: &Setting,
    machine: &Machine,
    peak: Option<f64>,
    company: &Company,
    start: &dyn Fn() -> State,
) -> Result<Row, BenchError> {
    let model = &shape.model;
    memory::forget_peak();
    let mut timer = Timer::new(engine(shape, setting)?, shape);
    timer.engine.restore(start())?;
    let Timing { mut seconds, load, cpu, steps } = timer.time(setting.time, company)?;
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let step = (shape.batch * model.context as usize) as f64;
    let gflops = model.training_flops(Tokens(step as u64)).get() / median / 1e9;
    Ok(Row {
        shape: shape.name.to_owned(),
        family: if model.experts.is_some() { "moe" } else { "dense" },
        layers: model.layers,
        width: model.width,
        heads: model.heads,
        ff: model.experts.as_ref().map_or(model.ff, |e| e.ff),
        vocab: model.vocab,
        context: model.context,
        batch: shape.batch,
        experts: model.experts.as_ref().map(|e| e.count),
        top_k: model.experts.as_ref().map(|e| e.top_k),
        engine: setting.engine.name(),
        precision: setting.precision,
        threads: setting.threads,
        together: 1,
        load_max_ratio: model.experts.as_ref().map(|_| max_ratio(&load)),
        tokens_per_second: step / median,
        tokens_per_cpu_second: cpu.filter(|&cpu| cpu > 0.0).map(|cpu| step * steps as f64 / cpu),
        gflops,
        peak_share: gflops * 1e9 / peak.unwrap_or(machine.fma_peak_gflops_per_core * 1e9 * setting.threads as f64),
        memory_bytes: memory::peak_bytes(),
        gpu_memory_bytes: timer.engine.gpu_memory().map(|memory| memory.taken),
    })
}

/// An engine that makes steps on random tokens, as a run does: several before it is waited for, where that is its way.
struct Timer {
    engine: Box<dyn Engine>,
    tokens: Windows,
    made: u64,
}

/// What was seen.
struct Timing {
    /// Of one step, for each group of them.
    seconds: Vec<f64>,
    /// Of the last step, as in [`StepReport::load`].
    load: Vec<Vec<u64>>,
    /// Processor time of the whole, and its steps.
    cpu: Option<f64>,
    steps: usize,
}

impl Timer {
    /// A group of steps takes about so long, or is one step.
    const GROUP: Duration = Duration::from_millis(250);
    const STEPS_LEAST: usize = 5;

    fn new(engine: Box<dyn Engine>, shape: &Shape) -> Self {
        Self { engine, tokens: Windows::new(shape), made: 0 }
    }

    /// Makes so many steps; gives the last one's report.
    fn steps(&mut self, count: usize) -> Result<Option<StepReport>, EngineError> {
        let texts = self.tokens.next(count);
        let updates: Vec<Update> = (self.made..self.made + count as u64).map(update).collect();
        self.made += count as u64;
        Ok(self.engine.steps(&self.tokens.batches(&texts), &updates)?.pop())
    }

    /// Steps for this long at least, from when all of the company are ready until all are through.
    fn time(&mut self, time: Duration, company: &Company) -> Result<Timing, BenchError> {
        // The first finds and prepares what all others use.
        self.steps(1)?;
        let begun = Instant::now();
        self.steps(1)?;
        let fitting = Self::GROUP.as_secs_f64() / begun.elapsed().as_secs_f64();
        let group = (fitting as usize).clamp(1, self.engine.together());
        if group > 1 {
            self.steps(group)?;
        }
        company.begin()?;
        let (start, before) = (Instant::now(), cpu_seconds());
        let (mut seconds, mut load) = (Vec::new(), Vec::new());
        while seconds.len() * group < Self::STEPS_LEAST || start.elapsed() < time {
            let start = Instant::now();
            load = self.steps(group)?.map(|report| report.load).unwrap_or_default();
            seconds.push(start.elapsed().as_secs_f64() / group as f64);
        }
        let cpu = cpu_seconds().zip(before).map(|(after, before)| after - before);
        company.finish()?;
        let finished = Instant::now();
        while !company.is_over(finished)? {
            self.steps(group)?;
        }
        let steps = seconds.len() * group;
        Ok(Timing { seconds, load, cpu, steps })
    }
}

/// First weights; of the experts the first half is wanted most, as in a run that is not balanced yet: an even load would
/// flatter the gathered products.
fn start(model: &Model) -> State {
    let mut state = initial_state(model, 1);
    let layout = Layout::of(model);
    for router in layout.views().iter().filter(|view| view.name.ends_with("router")) {
        for row in state.params[router.range()].chunks_exact_mut(router.shape[1]) {
            let wanted = row.len() / 2;
            row[..wanted].iter_mut().for_each(|weight| *weight *= 20.0);
        }
    }
    state
}

/// Largest load over the mean, of the least balanced layer.
fn max_ratio(load: &[Vec<u64>]) -> f64 {
    let ratio = |layer: &Vec<u64>| {
        let most = layer.iter().copied().max().unwrap_or(0);
        most as f64 * layer.len() as f64 / layer.iter().sum::<u64>().max(1) as f64
    };
    load.iter().map(ratio).fold(0.0, f64::max)
}

fn engine(shape: &Shape, setting: &Setting) -> Result<Box<dyn Engine>, EngineError> {
    let model = &shape.model;
    match setting.engine {
        EngineKind::Reference => Ok(Box::new(Reference::new(model).on_threads(setting.threads as u32)?)),
        EngineKind::Cpu => Ok(Box::new(CpuEngine::new(model, setting.precision, setting.threads)?)),
        EngineKind::Cuda => {
            let gpu = Box::new(Gpu::open(setting.gpu, &setting.kernels)?);
            Ok(Box::new(CudaEngine::new(gpu, model, setting.precision, shape.batch as u32, None)?))
        }
    }
}

/// Batches cut from random tokens at random places, copied as in training.
struct Windows {
    rng: StdRng,
    stream: Vec<u32>,
    sequences: usize,
    context: usize,
}

impl Windows {
    fn new(shape: &Shape) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let stream = (0..1 << 20).map(|_| rng.random_range(0..shape.model.vocab)).collect();
        Self { rng, stream, sequences: shape.batch, context: shape.model.context as usize }
    }

    /// Texts of this many batches.
    fn next(&mut self, count: usize) -> Vec<Vec<u32>> {
        let window = |rng: &mut StdRng| {
            let first = rng.random_range(0..self.stream.len() - self.context);
            &self.stream[first..=first + self.context]
        };
        (0..count).map(|_| (0..self.sequences).flat_map(|_| window(&mut self.rng)).copied().collect()).collect()
    }

    fn batches<'a>(&self, texts: &'a [Vec<u32>]) -> Vec<Batch<'a>> {
        texts.iter().map(|tokens| Batch { tokens, sequences: self.sequences, context: self.context }).collect()
    }
}

fn update(step: u64) -> Update {
    Update { step, learning_rate: 1e-3, weight_decay: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, clip: 1.0 }
}

/// Processor time of this process in user and system mode, all threads, to a hundredth of a second.
fn cpu_seconds() -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold anything; utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    Some(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_what_was_run() {
        let mut shape = shapes().pop().expect("there are shapes");
        shape.model.context = 16;
        shape.batch = 2;
        let setting = Setting {
            engine: EngineKind::Cpu,
            precision: Precision::F32,
            threads: 2,
            time: Duration::ZERO,
            kernels: PathBuf::new(),
            gpu: 0,
            meeting: None,
        };
        let machine = machine();
        assert!(machine.fma_peak_gflops_per_core > 0.1 && machine.cores > 0);
        let row = measure(&shape, &setting, &machine, None).unwrap();
        assert_eq!((row.shape.as_str(), row.family, row.experts), ("moe-1M", "moe", Some(8)));
        let flops = shape.model.training_flops(Tokens(1)).get();
        assert!((row.gflops * 1e9 / row.tokens_per_second / flops - 1.0).abs() < 1e-9);
        assert!(row.memory_bytes > 0);
        assert!(row.load_max_ratio.is_some_and(|ratio| ratio > 1.5), "{:?}", row.load_max_ratio);
        assert!((row.peak_share * machine.fma_peak_gflops_per_core * 2.0 / row.gflops - 1.0).abs() < 1e-9);
        let both = measure_together(&shape, &setting, &machine, None, 2).unwrap();
        assert_eq!((both.together, both.batch, row.together), (2, 2, 1));
        assert!((both.gflops * 1e9 / both.tokens_per_second / flops - 1.0).abs() < 1e-9);
    }
}
