//! The probe: how fast this machine trains the shapes of a plan, measured in a moment and kept in the data directory.
//! It turns work into seconds; no run's identity depends on it.

mod cores;
mod crew;
mod gpu;
mod kept;

use isoloss_sweep::plan::{Gpus, Plan, Probe, Rate};
use isoloss_train::bench;
use isoloss_train::cuda::{Card, nvrtc_version};
use isoloss_worker::Sharing;

use crate::args::MpsUse;
use crate::gpus::{RUNS_BESIDE, offered};
use crate::mps::{prospect, sharing};
use crate::place::{DataDir, kernels};
use crate::{print, worker};
use kept::{Cores, Gpu, GpuHost, Host, Kept, Measured};

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Runs side by side on cores.
    pub(crate) slots: usize,
    /// What a worker here would be told of MPS.
    pub(crate) mps: MpsUse,
}

/// What was measured, and how.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    pub(crate) probe: Probe,
    /// Whether runs side by side on a GPU went through MPS.
    pub(crate) through_mps: bool,
}

/// What came of measuring.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probed {
    /// None where nothing can be measured.
    pub(crate) timing: Option<Timing>,
    /// Why no GPU was measured although the plan wants one.
    pub(crate) no_gpu: Option<String>,
}

/// The speed of runs side by side on cores here, and of runs on its GPUs where the plan wants them, measured where nothing
/// kept says it.
pub(crate) fn probe(data: &DataDir, wish: Wish, plan: &Plan) -> Probed {
    // Commands of a sweep are not ours to time.
    if plan.runs.iter().all(|run| run.run.trainer.is_some()) {
        return Probed::default();
    }
    // A plan that wants no GPU does not ask for one: waking a driver takes its time.
    let cards = if gpu::wanted(plan).is_empty() { Ok(Vec::new()) } else { offered() };
    let (cards, no_gpu) = match cards {
        Ok(cards) => (cards, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Probed { timing: time(data, wish, plan, &cards), no_gpu }
}

fn time(data: &DataDir, wish: Wish, plan: &Plan, cards: &[Card]) -> Option<Timing> {
    let machine = bench::machine();
    let slots = u32::try_from(wish.slots).ok()?;
    let host =
        Host { cpu: machine.cpu.clone(), instruction_set: machine.vector.clone(), slots, code_version: code_version() };
    let gpu_host = cards.first().map(|card| gpu_host(card, wish.mps));
    let file = data.root().join("probe.json");
    let mut kept = Kept::recall(&file, &host, gpu_host.as_ref());
    let cores = kept.cores.get_or_insert(Cores { since: kept::now(), host, rates: Vec::new() });
    let mut changed = cores::measure(plan, wish.slots, &machine, &mut cores.rates);
    let rates: Vec<Rate> = cores.rates.iter().map(Measured::rate).collect();
    let (mut gpus, mut through_mps) = (None, false);
    if let (Some(host), Some(first)) = (gpu_host, cards.first()) {
        let measured = kept.gpu.get_or_insert_with(|| Gpu::bare(host, false));
        changed |= on_gpu(data, plan, first, wish.mps, measured);
        gpus = together(measured, cards);
        through_mps = measured.through_mps;
    }
    if changed && let Err(error) = kept.keep(&file) {
        print::note(&format!("warning: cannot keep the measured speed in {}: {error}", file.display()));
    }
    let is_any = !rates.is_empty() || gpus.is_some();
    is_any.then_some(Timing { through_mps: through_mps && gpus.is_some(), probe: Probe { slots, rates, gpus } })
}

/// A build for debugging is several times slower.
fn code_version() -> String {
    format!("{}{}", env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "-debug" } else { "" })
}

fn gpu_host(card: &Card, mps: MpsUse) -> GpuHost {
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    GpuHost {
        gpu: card.name.clone(),
        driver: driver.lines().next().unwrap_or("unknown").trim().to_owned(),
        nvrtc: nvrtc_version().unwrap_or_else(|error| error.to_string()),
        beside: RUNS_BESIDE,
        mps: prospect(mps),
        code_version: code_version(),
    }
}

/// Measures on one GPU what is not known, by processes that share it as a worker's would; whether anything was.
fn on_gpu(data: &DataDir, plan: &Plan, card: &Card, wanted: MpsUse, measured: &mut Gpu) -> bool {
    if gpu::missing(plan, measured).is_empty() {
        return false;
    }
    let (Ok(program), Ok(runtime)) = (worker::own_program(), worker::multi_thread()) else { return false };
    let scratch = data.root().join(format!("probe-{}", std::process::id()));
    // Where it cannot be made, the first checkpoint says so.
    let _ = std::fs::create_dir_all(&scratch);
    let sharing = match RUNS_BESIDE {
        0 | 1 => Sharing::default(),
        _ => runtime.block_on(sharing(wanted, &program, &scratch, &card.uuid)),
    };
    if measured.through_mps != sharing.is_through_mps() {
        // What was measured the other way says nothing of this one.
        *measured = Gpu::bare(measured.host.clone(), sharing.is_through_mps());
    }
    let missing = gpu::missing(plan, measured);
    // One process has runs of all shapes, one after another.
    let environment = sharing.environment(missing.iter().map(|planned| planned.memory_bytes).max());
    let bench = gpu::Bench {
        command: &|| gpu::trial_on(&program, &card.uuid, &environment),
        beside: RUNS_BESIDE,
        free_bytes: card.memory.free,
        corpora: data.corpora(),
        kernels: kernels(data.root()),
        scratch: scratch.clone(),
    };
    let found = gpu::measure(&missing, &bench, measured);
    runtime.block_on(sharing.end());
    let _ = std::fs::remove_dir_all(&scratch);
    found
}

/// Of what was measured on the first, for all of them.
fn together(measured: &Gpu, cards: &[Card]) -> Option<Gpus> {
    let memory = cards.iter().map(|card| card.memory.free).min()?;
    let count = u32::try_from(cards.len()).ok()?;
    (!measured.shapes.is_empty()).then(|| gpu::gpus(measured, count, RUNS_BESIDE, memory))
}
