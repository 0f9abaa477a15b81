//! One model on several emulated devices that share every batch.

use isoloss_gpu::EmulatedSums;

use super::*;
use crate::check::{Ear, joined};

/// So many devices, each with its own order of threads, joined.
fn group(count: u64, seed: u64) -> Option<Group> {
    let devices: Option<Vec<_>> =
        (0..count).map(|rank| device(seed + 100 * rank).map(|device| device as Box<dyn Device>)).collect();
    Some(Group { collective: Some(Box::new(EmulatedSums)), devices: devices? })
}

fn engine_on(count: u64, model: &Model, precision: Precision) -> Option<CudaEngine> {
    let mut engine = CudaEngine::new(group(count, 3)?, model, precision, SEQUENCES as u32, None).unwrap();
    engine.restore(state(model)).unwrap();
    Some(engine)
}

/// The checks that `gpu-check` makes on real GPUs.
#[test]
fn joined_devices_train_as_one_does_and_stay_alike() {
    for count in [1, 3] {
        if group(1, 0).is_none() {
            return;
        }
        let mut ear = Ear::default();
        let mut together = |model: &Model, precision, batch| {
            CudaEngine::new(group(count, 7).expect("found before"), model, precision, batch, None)
        };
        let mut alone = |model: &Model, precision, batch| {
            CudaEngine::new(device(1).expect("found before"), model, precision, batch, None)
        };
        joined(&mut together, &mut alone, &mut ear);
        let wrong: Vec<_> = ear.checks.iter().filter(|check| !check.is_good()).collect();
        assert!(wrong.is_empty() && ear.checks.len() == 12, "{count}: {wrong:?}");
    }
}

/// Six sequences on four devices are two, two, one and one; what is summed is exact in f32 up to the order of sums.
#[test]
fn uneven_shares_give_the_gradient_report_and_scores_of_the_batch() {
    for (name, model) in [("dense", dense()), ("limited", moe(|e| e.capacity_factor = Some(1.0)))] {
        let tokens = text(&model, 0);
        let Some(mut engine) = engine_on(4, &model, Precision::F32) else { return };
        assert_eq!((shares(SEQUENCES, 4), engine.devices()), (vec![2, 2, 1, 1], 4));
        let mut cpu = cpu(&model, Precision::F32);
        let (expected, exact) = cpu.gradient(batch(&model, &tokens)).unwrap();
        let (report, found) = engine.gradient(batch(&model, &tokens)).unwrap();
        let off = norm(found.iter().zip(&exact).map(|(a, b)| a - b)) / norm(exact.iter().copied());
        assert!(off <= 2e-5, "{name}: {off}");
        assert_eq!((&report.load, report.dropped), (&expected.load, expected.dropped), "{name}");
        for (found, expected) in [
            (report.loss_nats, expected.loss_nats),
            (report.aux_loss, expected.aux_loss),
            (report.router_z_loss, expected.router_z_loss),
            (report.gradient_norm, expected.gradient_norm),
        ] {
            assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{name}: {found}, expected {expected}");
        }
        let (found, expected) =
            (engine.evaluate(batch(&model, &tokens)).unwrap(), cpu.evaluate(batch(&model, &tokens)).unwrap());
        assert_eq!((found.load, found.losses.len()), (expected.load, expected.losses.len()), "{name}");
        assert!(found.losses.iter().zip(&expected.losses).all(|(a, b)| (a - b).abs() < 2e-5), "{name}");
    }
}

#[test]
fn a_resumed_run_on_several_devices_has_the_bits_of_the_straight_one() {
    let model = moe(|e| e.bias_update = 1e-3);
    let Some(mut straight) = engine_on(2, &model, Precision::Bf16) else { return };
    assert_eq!(straight.instruction_set(), "2 x emulated GPU");
    train(&mut straight, &model, 0..2);
    let saved = straight.state().unwrap().into_owned();
    let tail = train(&mut straight, &model, 2..4);
    let mut resumed = engine_on(2, &model, Precision::Bf16).expect("the first was made");
    resumed.restore(saved).unwrap();
    assert_eq!(train(&mut resumed, &model, 2..4), tail);
    assert_eq!((resumed.state().unwrap().differing(&straight.state().unwrap()), resumed.apart().unwrap()), (0, 0));
}

#[test]
fn a_batch_of_fewer_sequences_than_devices_is_refused() {
    let model = dense();
    let Some(mut engine) = engine_on(4, &model, Precision::F32) else { return };
    let tokens = text(&model, 0);
    let few =
        Batch { tokens: &tokens[..3 * (model.context as usize + 1)], sequences: 3, context: model.context as usize };
    let error = engine.step(few, &update(0)).unwrap_err().to_string();
    assert_eq!(error, "cuda cannot train this model: 3 sequence(s) are less than one for each of 4 GPUs");
}
