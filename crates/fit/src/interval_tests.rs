//! Intervals hold what they promise on planted laws; seeds repeat.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Cloud, Plan, percentiles};
use crate::fitted::Fitted;
use crate::law::law;
use crate::observation::Observation;
use crate::scaling::ScalingLaw;

/// Laws as small language models show them, in bits per byte.
fn planted(e: f64, a: f64, b: f64, alpha: f64, beta: f64) -> ScalingLaw {
    let (a, b) = (a * f64::powf(1e5, alpha), b * f64::powf(5e6, beta));
    let values = [("E", e), ("A", a), ("B", b), ("alpha", alpha), ("beta", beta)];
    let map = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    ScalingLaw::new(law("additive").unwrap(), &map).unwrap()
}

/// 4 sizes over 16 times, 3 budgets over 8 times, Gaussian noise in ln loss.
fn quickstart(law: &ScalingLaw, noise: f64, rng: &mut ChaCha8Rng) -> Vec<Observation> {
    let mut rows = Vec::new();
    for i in 0..4 {
        for j in 0..3 {
            let n = 2.5e4 * f64::powi(16f64.cbrt(), i);
            let d = 2e6 * f64::powi(8f64.sqrt(), j);
            // Twelve uniform draws less six have variance one and tails short enough for sense.
            let normal: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            rows.push(Observation::dense(
                format!("{i}{j}"),
                n,
                d,
                law.loss(n, d) * (noise * normal).exp(),
            ));
        }
    }
    rows
}

#[test]
fn intervals_of_twelve_runs_cover_the_truth() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let laws = [
        planted(1.4, 0.3, 0.3, 0.4, 0.4),
        planted(1.4, 0.2, 0.4, 0.6, 0.35),
        planted(1.2, 0.5, 0.3, 0.3, 0.5),
    ];
    for noise in [0.001, 0.003] {
        let (mut covered, mut total, mut widths) = ([0; 3], 0, Vec::new());
        for round in 0..120 {
            let truth = &laws[round % laws.len()];
            let rows = quickstart(truth, noise, &mut rng);
            let fit = Fitted::new(law("additive").unwrap(), &rows, 1e-3);
            let plan = Plan {
                resamples: 200,
                level: 0.95,
                seed: 5,
            };
            let cloud = Cloud::new(&fit, &rows, plan, &mut |_| {});
            for (hits, name) in covered.iter_mut().zip(["E", "alpha", "beta"]) {
                let [low, high] = cloud.parameter(&fit.law, name).unwrap();
                let value = truth.parameter(name).unwrap();
                *hits += usize::from(low <= value && value <= high);
                if name == "E" {
                    widths.push(high - low);
                }
            }
            total += 1;
        }
        widths.sort_by(f64::total_cmp);
        eprintln!(
            "noise {noise}: covered {covered:?} of {total}; width of E median {:.3}",
            widths[widths.len() / 2]
        );
        assert!(
            covered.iter().all(|hits| *hits * 100 >= total * 88),
            "noise {noise}: {covered:?} of {total}"
        );
    }
}

#[test]
fn percentiles_interpolate() {
    let values = (0..=100).map(f64::from).chain([f64::NAN]).collect();
    let [low, high] = percentiles(values, 0.9);
    assert!((low - 5.0).abs() < 1e-9 && (high - 95.0).abs() < 1e-9);
}
