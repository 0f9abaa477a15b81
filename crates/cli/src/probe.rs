//! The probe: how fast this machine trains the shapes of a plan, measured in a moment and kept in the data directory.
//! It turns FLOPs into seconds; no run's identity depends on it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use isoloss_sweep::Model;
use isoloss_sweep::plan::{Action, Plan, PlannedRun, Probe, Rate};
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_train::bench::{self, Machine, Row, Setting, Shape};
use serde::{Deserialize, Serialize};

use crate::place::DataDir;
use crate::print;

const SCHEMA_VERSION: u32 = 1;
/// FLOPs of a timed step. A measurement takes seven steps or more: a twentieth of a second at 50 GFLOP/s.
const STEP_FLOPS: f64 = 4e8;
/// One sequence of a larger model is measured with fewer layers, which run at the same speed.
const SEQUENCE_FLOPS: f64 = 1.5e9;
/// A single layer above this would take seconds by itself; the speed of smaller shapes stands for it.
const LAYER_FLOPS_MAX: f64 = 6e9;
/// Each shape is timed for this long at least.
const TIME: Duration = Duration::from_millis(150);
/// What else runs on a machine changes, and with it the speed that is left.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Other programs are believed to have taken at most all but this part of the machine.
const SHARED_MAX: f64 = 4.0;
/// A kept rate stands for models up to this many times cheaper or dearer.
const NEAR: f64 = 3.0;

/// What is kept, as `probe.json` in the data directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    schema_version: u32,
    host: Host,
    rates: Vec<Measured>,
}

/// All that a rate depends on beside engine, precision and shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Host {
    cpu: String,
    instruction_set: String,
    /// Runs of one thread that were measured side by side.
    slots: u32,
    code_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Measured {
    engine: EngineKind,
    precision: Precision,
    moe: bool,
    flops_per_token: f64,
    tokens_per_second: f64,
}

/// A model of the plan that wants a rate.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    engine: EngineKind,
    precision: Precision,
    model: Model,
}

/// The speed of `slots` runs side by side here, measured where no kept rate is near; none where nothing can be measured.
pub(crate) fn probe(data: &DataDir, slots: usize, plan: &Plan) -> Option<Probe> {
    let machine = bench::machine();
    let host = Host {
        cpu: machine.cpu.clone(),
        instruction_set: machine.vector.clone(),
        slots: u32::try_from(slots).ok()?,
        // A build for debugging is several times slower.
        code_version: format!("{}{}", env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "-debug" } else { "" }),
    };
    let file = data.root().join("probe.json");
    let mut kept = recall(&file, &host).unwrap_or(Kept { schema_version: SCHEMA_VERSION, host, rates: Vec::new() });
    // Commands of a sweep are not ours to time.
    if plan.runs.iter().all(|run| run.run.trainer.is_some()) {
        return None;
    }
    let missing: Vec<Wanted> = wanted(plan).into_iter().filter(|wanted| !covered(&kept.rates, wanted)).collect();
    if !missing.is_empty() {
        print::note("measuring this machine's speed (--no-probe leaves it out)");
        kept.rates.extend(missing.iter().filter_map(|wanted| measure(wanted, slots, &machine)));
        if let Err(error) = keep(&file, &kept) {
            print::note(&format!("warning: cannot keep the measured speed in {}: {error}", file.display()));
        }
    }
    let rates: Vec<Rate> = kept.rates.iter().map(Measured::rate).collect();
    (!rates.is_empty()).then_some(Probe { slots: kept.host.slots, rates })
}

fn recall(file: &Path, host: &Host) -> Option<Kept> {
    // A clock that was set back makes a file from the future, which is as good as a new one.
    let age = fs::metadata(file).and_then(|about| about.modified()).ok()?.elapsed().unwrap_or_default();
    if age > KEPT {
        return None;
    }
    let kept: Kept = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (kept.schema_version == SCHEMA_VERSION && kept.host == *host).then_some(kept)
}

/// Two commands at once may both write: whole files only, and either is right.
fn keep(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, serde_json::to_vec_pretty(kept)?)?;
    fs::rename(&partial, file)
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
fn measure(wanted: &Wanted, slots: usize, machine: &Machine) -> Option<Measured> {
    let shape = shape(wanted)?;
    let setting = Setting {
        engine: wanted.engine,
        precision: wanted.precision,
        threads: 1,
        time: TIME,
        kernels: std::path::PathBuf::new(),
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

impl Measured {
    fn rate(&self) -> Rate {
        Rate {
            engine: self.engine,
            precision: self.precision,
            moe: self.moe,
            flops_per_token: self.flops_per_token,
            tokens_per_second: self.tokens_per_second,
        }
    }
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
    fn rates_are_kept_for_the_same_host_only_and_stand_for_near_models() {
        let host = Host { cpu: "c".into(), instruction_set: "avx2".into(), slots: 2, code_version: "1".into() };
        let machine = bench::machine();
        let rate = measure(&wanted(1, 16), 1, &machine).unwrap();
        let kept = Kept { schema_version: SCHEMA_VERSION, host: host.clone(), rates: vec![rate] };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("probe.json");
        keep(&file, &kept).unwrap();
        assert_eq!(recall(&file, &host).map(|kept| kept.rates.len()), Some(1));
        assert_eq!(recall(&file, &Host { slots: 1, ..host }), None);
        assert!(covered(&kept.rates, &wanted(1, 20)));
        assert!(!covered(&kept.rates, &wanted(6, 256)));
    }
}
