//! The probe: how fast this machine trains the shapes of a plan, measured in a moment and kept in the data directory.
//! It turns work into seconds; no run's identity depends on it.

mod cores;
mod crew;
mod gpu;
mod kept;

use isoloss_sweep::plan::{Gpus, Plan, Probe, Rate};
use isoloss_train::bench;
use isoloss_train::cuda::{Card, nvrtc_version};

use crate::gpus::{RUNS_BESIDE, offered};
use crate::place::{DataDir, kernels};
use crate::{print, worker};
use kept::{Cores, Gpu, GpuHost, Host, Kept, Measured};

/// The speed of `slots` runs side by side on cores here, and of runs on its GPUs where the plan wants them, measured where
/// nothing kept says it; none where nothing can be measured.
pub(crate) fn probe(data: &DataDir, slots: usize, plan: &Plan) -> Option<Probe> {
    // Commands of a sweep are not ours to time.
    if plan.runs.iter().all(|run| run.run.trainer.is_some()) {
        return None;
    }
    let machine = bench::machine();
    let slots_count = u32::try_from(slots).ok()?;
    let host = Host {
        cpu: machine.cpu.clone(),
        instruction_set: machine.vector.clone(),
        slots: slots_count,
        code_version: code_version(),
    };
    // A plan that wants no GPU does not ask for one: waking a driver takes its time.
    let cards = if gpu::wanted(plan).is_empty() { Vec::new() } else { offered().unwrap_or_default() };
    let gpu_host = cards.first().map(gpu_host);
    let file = data.root().join("probe.json");
    let mut kept = Kept::recall(&file, &host, gpu_host.as_ref());
    let cores = kept.cores.get_or_insert(Cores { since: kept::now(), host, rates: Vec::new() });
    let mut changed = cores::measure(plan, slots, &machine, &mut cores.rates);
    let rates: Vec<Rate> = cores.rates.iter().map(Measured::rate).collect();
    let mut gpus = None;
    if let (Some(host), Some(first)) = (gpu_host, cards.first()) {
        let bare = || Gpu { since: kept::now(), host, process_bytes: None, process_seconds: 0.0, shapes: Vec::new() };
        let measured = kept.gpu.get_or_insert_with(bare);
        changed |= on_gpu(data, plan, first, measured);
        gpus = together(measured, &cards);
    }
    if changed && let Err(error) = kept.keep(&file) {
        print::note(&format!("warning: cannot keep the measured speed in {}: {error}", file.display()));
    }
    (!rates.is_empty() || gpus.is_some()).then_some(Probe { slots: slots_count, rates, gpus })
}

/// A build for debugging is several times slower.
fn code_version() -> String {
    format!("{}{}", env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "-debug" } else { "" })
}

fn gpu_host(card: &Card) -> GpuHost {
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    GpuHost {
        gpu: card.name.clone(),
        driver: driver.lines().next().unwrap_or("unknown").trim().to_owned(),
        nvrtc: nvrtc_version().unwrap_or_else(|error| error.to_string()),
        beside: RUNS_BESIDE,
        code_version: code_version(),
    }
}

/// Measures on one GPU what is not known; whether anything was.
fn on_gpu(data: &DataDir, plan: &Plan, card: &Card, measured: &mut Gpu) -> bool {
    let Ok(program) = worker::own_program() else { return false };
    let bench = gpu::Bench {
        command: &|| gpu::trial_on(&program, &card.uuid),
        beside: RUNS_BESIDE,
        free_bytes: card.memory.free,
        corpora: data.corpora(),
        kernels: kernels(data.root()),
        scratch: data.root().join(format!("probe-{}", std::process::id())),
    };
    gpu::measure(plan, &bench, measured)
}

/// Of what was measured on the first, for all of them.
fn together(measured: &Gpu, cards: &[Card]) -> Option<Gpus> {
    let memory = cards.iter().map(|card| card.memory.free).min()?;
    let count = u32::try_from(cards.len()).ok()?;
    (!measured.shapes.is_empty()).then(|| gpu::gpus(measured, count, RUNS_BESIDE, memory))
}
