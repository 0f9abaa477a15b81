//! The engine on the emulated device, against the CPU engine: the arithmetic of all kernels, their barriers (threads run
//! in an order that differs between engines), the layout of memory and the order of commands. Speed and what only a
//! real GPU does (cuBLASLt, graphs, tensor cores' own rounding) are not seen here.

mod several;

use std::path::Path;

use isoloss_gpu::{Device, Emulated, Fault, GpuError};
use isoloss_sweep::outcome::Finished;
use isoloss_sweep::plan::{GPU_PROCESS_BYTES, GPU_ROWS_MOST, gpu_memory_bytes};
use isoloss_sweep::run::EngineKind;
use isoloss_sweep::{Experts, Outcome};

use super::gated::Inside;
use super::replica::divisor;
use super::*;
use crate::compared::{SEQUENCES, batch, dense, models, moe, norm, state, text, update, wide};
use crate::cpu::CpuEngine;
use crate::fixture::{dataset, moe as moe_run, on, run};
use crate::session::{Control, End, Event, Options, Trial, endless, train_on};

/// A device whose threads run in an order of their own; `None`, told aloud, where no C++ compiler is.
fn device(seed: u64) -> Option<Box<Emulated>> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/emulated");
    match Emulated::new(&cache, 1 << 30, seed) {
        Ok(device) => Some(Box::new(device)),
        Err(error @ GpuError::Missing { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn engine(model: &Model, precision: Precision, seed: u64, memory: Option<u64>) -> Option<CudaEngine> {
    let device = device(seed)?;
    let mut engine = CudaEngine::new(device, model, precision, SEQUENCES as u32, memory).unwrap();
    engine.restore(state(model)).unwrap();
    Some(engine)
}

fn cpu(model: &Model, precision: Precision) -> CpuEngine {
    let mut engine = CpuEngine::new(model, precision, 2).unwrap();
    engine.restore(state(model)).unwrap();
    engine
}

/// Beside the odd sizes of the other engines' tests: whole vectors, and the two halves of a head of 80.
fn shapes() -> Vec<(&'static str, Model)> {
    let even = Model { layers: 1, width: 64, heads: 2, ff: 168, context: 70, vocab: 64, tied: false, experts: None };
    let experts = Experts {
        count: 8,
        top_k: 3,
        ff: 32,
        shared_ff: 16,
        aux_loss_coef: 0.02,
        router_z_loss_coef: 0.01,
        bias_update: 1e-3,
        capacity_factor: Some(1.25),
    };
    let mut all = models();
    all.extend(wide());
    all.push(("even", even.clone()));
    all.push(("wide head", Model { width: 160, heads: 2, context: 40, ..even.clone() }));
    all.push(("even experts", Model { ff: 0, experts: Some(experts), ..even }));
    all
}

/// Whoever had the memory reserved is not to blame when others hold it; whoever asks for more than that is.
#[test]
fn a_gpu_that_others_fill_is_no_fault_of_the_run() {
    let fault = |reserved: u64, others: u64| {
        let mut device = device(0)?;
        device.allocate("others", others).unwrap();
        let opened = CudaEngine::new(device, &dense(), Precision::F32, SEQUENCES as u32, Some(reserved));
        Some(opened.err().and_then(|error| crate::TrainError::from(error).of_gpu()))
    };
    let (least, all) = (memory_bytes(&dense(), Precision::F32, 1), 1 << 30);
    let Some(enough) = fault(least, all - 2 * least) else { return };
    assert_eq!(enough, None);
    assert_eq!(fault(least, all - least / 2).unwrap(), Some(Fault::Service));
    assert_eq!(fault(least - 1, 256).unwrap(), Some(Fault::Own), "it needs more than it reserved");
    assert_eq!(fault(all, all - least / 2).unwrap(), Some(Fault::Own), "no card has what was reserved");
}

/// Sizes that the kernels choose by must be on both sides of every choice.
#[test]
fn the_shapes_reach_every_kernel() {
    let any = |is: &dyn Fn(&Model) -> bool| shapes().iter().any(|(_, model)| is(model));
    let rows = |model: &Model| SEQUENCES * model.context as usize;
    let parts = |model: &Model| rows(model).div_ceil(room::head_rows(model, rows(model)));
    assert!(any(&|model| parts(model) > 1 && rows(model) % room::head_rows(model, rows(model)) > 0));
    for step in [1, 4] {
        assert!(any(&|model| model.vocab > 1024 && (model.vocab % 4 == 0) == (step == 4)), "entropy by {step}");
        assert!(any(&|model| model.width > 256 && (model.width % 4 == 0) == (step == 4)), "norms by {step}");
    }
    assert!(any(&|model| model.width > 1024), "more of a row than a warp keeps");
    assert!(any(&|model| !network::Network::fused_attention(model, Kind::Bf16)));
    assert!(any(&|model| model.head_width() % 16 == 8) && any(&|model| model.head_width() % 8 > 0));
    let inside = |is: fn(Inside) -> bool| any(&|model| is(Inside::of(model, Kind::Bf16)));
    assert!(inside(|it| it.rotation) && inside(|it| !it.rotation && it.activation));
    assert!(inside(|it| it.gradient && !it.activation) && inside(|it| it.experts && it.gradient));
    let whole = |model: &Model| model.width.is_multiple_of(8) && model.ff.is_multiple_of(8);
    assert!(any(&|model| whole(model) && model.ff > 0 && !Inside::of(model, Kind::Bf16).gradient));
    assert!(any(&|model| Inside::of(model, Kind::Bf16).activation && model.ff > 128 && model.ff % 64 > 0));
}

/// In f32 the emulated device rounds nothing, so only the order of sums differs; in bf16 both round alike, but at other
/// places (activations are kept in bf16 here).
#[test]
fn gradients_equal_the_cpu_engine_for_every_tensor() {
    for (name, model) in shapes() {
        for precision in [Precision::F32, Precision::Bf16] {
            let tokens = text(&model, 0);
            let (expected, exact) = cpu(&model, Precision::F32).gradient(batch(&model, &tokens)).unwrap();
            let Some(mut engine) = engine(&model, precision, 1, None) else { return };
            let (report, found) = engine.gradient(batch(&model, &tokens)).unwrap();
            let label = format!("{name} {precision:?}");
            // Experts in bf16 may flip ties.
            let (losses, gradients) = match precision {
                Precision::F32 => (1e-5, 2e-4),
                Precision::Bf16 => (5e-3, if model.experts.is_some() { 0.3 } else { 0.06 }),
            };
            let close = |found: f64, expected: f64, what: &str| {
                let off = (found - expected).abs();
                assert!(off <= losses * (1.0 + expected.abs()), "{label} {what}: {found}, expected {expected}");
            };
            close(report.loss_nats, expected.loss_nats, "loss");
            close(report.aux_loss, expected.aux_loss, "balance");
            close(report.router_z_loss, expected.router_z_loss, "router");
            if precision == Precision::F32 {
                close(report.gradient_norm, expected.gradient_norm, "norm");
                assert_eq!((&report.load, report.dropped), (&expected.load, expected.dropped), "{label}");
            }
            for view in engine.layout().views() {
                let (found, exact) = (&found[view.range()], &exact[view.range()]);
                let off = norm(found.iter().zip(exact).map(|(a, b)| a - b)) / norm(exact.iter().copied());
                assert!(off <= gradients, "{label} {}: {off}", view.name);
            }
        }
    }
}

#[test]
fn evaluation_and_logits_equal_the_cpu_engine() {
    let wanted = ["tied", "large vocabulary", "limited", "even experts"];
    for (name, model) in shapes().into_iter().filter(|(name, _)| wanted.contains(name)) {
        let tokens = text(&model, 1);
        let Some(mut engine) = engine(&model, Precision::F32, 2, None) else { return };
        let mut cpu = cpu(&model, Precision::F32);
        let found = engine.evaluate(batch(&model, &tokens)).unwrap();
        let expected = cpu.evaluate(batch(&model, &tokens)).unwrap();
        assert_eq!(found.load, expected.load, "{name}");
        for (found, expected) in found.losses.iter().zip(&expected.losses) {
            assert!((found - expected).abs() < 2e-5, "{name}: {found}, expected {expected}");
        }
        // Windows shorter than the context too; and nothing of this is counted into the next step.
        for len in [1, 40] {
            let found = engine.logits(&tokens[..len]).unwrap();
            let expected = cpu.logits(&tokens[..len]).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{name} {len}: {found}, expected {expected}");
            }
        }
        let (report, _) = engine.gradient(batch(&model, &tokens)).unwrap();
        let (expected, _) = cpu.gradient(batch(&model, &tokens)).unwrap();
        assert_eq!(report.load, expected.load, "{name}");
        assert!((report.loss_nats - expected.loss_nats).abs() < 1e-5, "{name}");
    }
}

fn train(engine: &mut CudaEngine, model: &Model, steps: std::ops::Range<u64>) -> Vec<StepReport> {
    let texts: Vec<Vec<u32>> = steps.clone().map(|step| text(model, step)).collect();
    let batches: Vec<Batch<'_>> = texts.iter().map(|tokens| batch(model, tokens)).collect();
    engine.steps(&batches, &steps.map(update).collect::<Vec<_>>()).unwrap()
}

#[test]
fn losses_follow_the_cpu_engine_for_300_steps() {
    let small = Model { layers: 1, width: 12, heads: 1, ff: 16, context: 12, vocab: 67, ..dense() };
    for (precision, allowed) in [(Precision::F32, 1e-3), (Precision::Bf16, 1e-2)] {
        let Some(mut engine) = engine(&small, precision, 3, None) else { return };
        let mut cpu = cpu(&small, Precision::F32);
        let found = train(&mut engine, &small, 0..300);
        for (step, found) in found.iter().enumerate() {
            let tokens = text(&small, step as u64);
            let expected = cpu.step(batch(&small, &tokens), &update(step as u64)).unwrap().loss_nats;
            let off = (found.loss_nats / expected - 1.0).abs();
            assert!(off <= allowed, "{precision:?} step {step}: {}, expected {expected}", found.loss_nats);
        }
        assert!(found[299].loss_nats < found[0].loss_nats - 0.5, "it does not learn");
    }
}

/// By means, as `gpu-check` does: rounding sends single tokens elsewhere.
#[test]
fn losses_of_experts_follow_the_cpu_engine_for_300_steps() {
    let small = Model { layers: 1, width: 12, heads: 1, context: 12, ..moe(|e| e.ff = 8) };
    let Some(mut engine) = engine(&small, Precision::Bf16, 4, None) else { return };
    let found = train(&mut engine, &small, 0..300);
    let mut cpu = cpu(&small, Precision::F32);
    let expected: Vec<f64> =
        (0..300).map(|step| cpu.step(batch(&small, &text(&small, step)), &update(step)).unwrap().loss_nats).collect();
    for (some, (found, expected)) in found.chunks(50).zip(expected.chunks(50)).enumerate() {
        let mean = found.iter().map(|report| report.loss_nats).sum::<f64>() / 50.0;
        let off = mean / (expected.iter().sum::<f64>() / 50.0) - 1.0;
        assert!(off.abs() <= 1e-2, "steps {} to {}: {off}", 50 * some, 50 * some + 49);
    }
    assert!(found[299].loss_nats < found[0].loss_nats - 0.5, "it does not learn");
}

/// Whatever the order of threads, however the steps are grouped, and however the batch is cut into passes that fit
/// (up to the rounding of their sum).
#[test]
fn bits_do_not_depend_on_the_order_of_threads_or_on_grouping() {
    for (name, model) in [("dense", dense()), ("biased", moe(|e| e.bias_update = 1e-3))] {
        for precision in [Precision::F32, Precision::Bf16] {
            let Some(mut one) = engine(&model, precision, 7, None) else { return };
            let reports = train(&mut one, &model, 0..2);
            let mut other = engine(&model, precision, 1234, None).expect("the first was made");
            let mut stepped = Vec::new();
            for step in 0..2 {
                stepped.extend(train(&mut other, &model, step..step + 1));
            }
            assert_eq!(reports, stepped, "{name} {precision:?}");
            assert!(one.state().unwrap() == other.state().unwrap(), "{name} {precision:?}");
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_is_cut_into_passes() {
    for (name, model) in [
        ("dense", dense()),
        ("tied", Model { tied: true, ..dense() }),
        ("limited", moe(|e| e.capacity_factor = Some(1.0))),
    ] {
        let two = memory_bytes(&model, Precision::F32, 2);
        let Some(mut cut) = engine(&model, Precision::F32, 1, Some(two)) else { return };
        assert_eq!(cut.replicas[0].room_sequences, 2);
        let mut whole = engine(&model, Precision::F32, 1, None).expect("the first was made");
        assert_eq!(whole.replicas[0].room_sequences, SEQUENCES);
        for (found, expected) in train(&mut cut, &model, 0..2).iter().zip(train(&mut whole, &model, 0..2)) {
            assert!((found.loss_nats - expected.loss_nats).abs() < 1e-5, "{name}");
            assert!((found.aux_loss - expected.aux_loss).abs() < 1e-4, "{name}");
            assert_eq!((&found.load, found.dropped), (&expected.load, expected.dropped), "{name}");
        }
        let one = memory_bytes(&model, Precision::F32, 1);
        let Err(error) = CudaEngine::new(device(1).expect("found before"), &model, Precision::F32, 6, Some(one - 1))
        else {
            panic!("it cannot fit")
        };
        let message = error.to_string();
        assert!(message.starts_with("out of GPU memory") && message.contains(&one.to_string()), "{message}");
    }
}

/// Exactly on its own device; and the CPU engine goes on from its state, as it does from the CPU's.
#[test]
fn a_resumed_run_has_the_bits_of_the_straight_one_and_checkpoints_interchange() {
    let model = moe(|e| e.bias_update = 1e-3);
    for precision in [Precision::F32, Precision::Bf16] {
        let Some(mut straight) = engine(&model, precision, 1, None) else { return };
        train(&mut straight, &model, 0..2);
        let saved = straight.state().unwrap().into_owned();
        assert_eq!(saved.step, 2);
        let tail = train(&mut straight, &model, 2..4);
        let mut resumed = engine(&model, precision, 5, None).expect("the first was made");
        resumed.restore(saved.clone()).unwrap();
        assert_eq!(train(&mut resumed, &model, 2..4), tail, "{precision:?}");
        assert!(resumed.state().unwrap() == straight.state().unwrap(), "{precision:?}");
        let mut cpu = cpu(&model, precision);
        cpu.restore(saved).unwrap();
        for (step, expected) in (2..4).zip(&tail) {
            let found = cpu.step(batch(&model, &text(&model, step)), &update(step)).unwrap();
            assert!((found.loss_nats / expected.loss_nats - 1.0).abs() < 1e-2, "{precision:?} {step}");
        }
    }
}

#[test]
fn what_the_kernels_do_not_take_is_refused() {
    let Some(device) = device(1) else { return };
    let model = Model { width: 514, heads: 1, ..dense() };
    let Err(error) = CudaEngine::new(device, &model, Precision::F32, 1, None) else { panic!("heads are too wide") };
    let told = error.to_string();
    assert!(told.starts_with("cuda cannot train this model: heads may be 256 wide at most, these are 514"), "{told}");
}

#[test]
fn the_predicted_memory_is_what_is_laid_out_and_grows_with_the_batch() {
    for (_, model) in shapes() {
        let bytes = |sequences| memory_bytes(&model, Precision::Bf16, sequences);
        assert!(bytes(2) > bytes(1) && bytes(1) >= 18 * model.param_counts().total.get());
    }
}

/// What a plan reserves holds what is laid out, and is not much more.
#[test]
fn the_planned_memory_covers_what_is_laid_out() {
    let fixed = crate::bench::shapes().into_iter().chain(crate::bench::large_shapes());
    let named = fixed.map(|shape| (shape.name, shape.model));
    for (name, model) in shapes().into_iter().chain(named) {
        for precision in [Precision::F32, Precision::Bf16] {
            for batch in [1, 6, 48, 510] {
                let planned = gpu_memory_bytes(&model, precision, batch) - GPU_PROCESS_BYTES;
                let most = (GPU_ROWS_MOST as usize / model.context as usize).max(1);
                let laid = memory_bytes(&model, precision, divisor(batch as usize, most) as u32);
                let ratio = planned as f64 / laid as f64;
                assert!((1.0..1.25).contains(&ratio), "{name} {precision:?} {batch}: {planned} for {laid}");
            }
        }
    }
}

/// The whole session on this engine, which makes steps in groups: the curve's points, the checkpoint on the way and the
/// final score are where the CPU engine has them.
#[test]
fn a_session_is_that_of_the_cpu_engine() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = dataset(dir.path());
    for run in [run(dataset.manifest().digest), moe_run(dataset.manifest().digest)] {
        let session = |precision| {
            let device = device(9)?;
            let engine = CudaEngine::new(device, &run.model, precision, run.train.batch, None).unwrap();
            let mut told = Vec::new();
            let mut tell = |event| {
                told.push(event);
                Control::Continue
            };
            let options = Options { report_interval: std::time::Duration::ZERO, ..Options::default() };
            let ended = train_on(Box::new(engine), &run, &dataset, &options, &mut tell).unwrap();
            let End::Outcome(Outcome::Finished(finished)) = ended else { panic!("{ended:?}") };
            Some((finished, told))
        };
        let Some((found, told)) = session(Precision::F32) else { return };
        let ours = on(EngineKind::Cpu, run.clone());
        let ended = crate::train(&ours, &dataset, &Options::default(), &mut |_| Control::Continue).unwrap();
        let End::Outcome(Outcome::Finished(expected)) = ended else { panic!("{ended:?}") };
        let steps = |finished: &Finished| finished.curve.iter().map(|point| point.step).collect::<Vec<_>>();
        assert_eq!(steps(&found), steps(&expected));
        assert!((found.score.loss_nats / expected.score.loss_nats - 1.0).abs() < 2e-3);
        assert!((found.train_loss_nats / expected.train_loss_nats - 1.0).abs() < 2e-3);
        assert_eq!((found.steps, found.flops, found.flops_spent), (40, expected.flops, expected.flops_spent));
        assert_eq!(found.provenance.instruction_set, "emulated GPU");
        let taken = memory_bytes(&run.model, Precision::F32, run.train.batch);
        assert_eq!((found.cost.gpu_memory_bytes, expected.cost.gpu_memory_bytes), (Some(taken), None));
        let progress = told.iter().filter_map(|event| match event {
            Event::Progress { step, .. } => Some(*step),
            _ => None,
        });
        let progress: Vec<u64> = progress.collect();
        assert_eq!((progress.first(), progress.contains(&40)), (Some(&1), true));
    }
}

/// What a plan's seconds come from: the run itself on this engine, without an end.
#[test]
fn a_trial_says_how_fast_a_run_goes_and_what_it_takes_of_the_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = dataset(dir.path());
    let run = endless(&on(EngineKind::Cuda, moe_run(dataset.manifest().digest)));
    let Some(device) = device(10) else { return };
    let total = device.memory().unwrap().total;
    let engine = CudaEngine::new(device, &run.model, Precision::Bf16, run.train.batch, None).unwrap();
    let options = Options { checkpoints: Some(dir.path().join("kept")), ..Options::default() };
    let mut trial = Trial::on(Box::new(engine), &run, &dataset, &options).unwrap();
    let taken = memory_bytes(&run.model, Precision::Bf16, run.train.batch);
    let memory = trial.gpu_memory().unwrap();
    assert_eq!(memory.taken, taken);
    assert!(memory.free.is_some_and(|free| free <= total - taken), "{memory:?} of {total}");
    let (step, point) = trial.tokens();
    for pace in [trial.train(std::time::Duration::ZERO).unwrap(), trial.evaluate(std::time::Duration::ZERO).unwrap()] {
        assert!(pace.seconds > 0.0 && (pace.tokens.is_multiple_of(step) || pace.tokens == point), "{pace:?}");
    }
    assert!(trial.save().unwrap() > 0.0 && dir.path().join("kept").is_dir());
}
