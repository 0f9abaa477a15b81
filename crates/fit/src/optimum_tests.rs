//! Planted laws come back, and the reference optimum is met from any order.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::search;
use crate::law::{LAWS, law};
use crate::observation::{Observation, Observations};
use crate::problem::Problem;
use crate::table::{Columns, read_csv};

fn kyo_takano() -> Option<Observations> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/laws/kyo_takano_llm.csv");
    match std::fs::File::open(path) {
        Ok(file) => Some(read_csv(file, &Columns::default()).unwrap()),
        Err(_) => {
            eprintln!("SKIPPED: {path} is absent");
            None
        }
    }
}

#[test]
fn the_reference_optimum() {
    let Some(set) = kyo_takano() else { return };
    assert_eq!(set.rows().len(), 234);
    let problem = Problem::new(law("additive").unwrap(), set.rows(), 1e-3);
    let found = search(&problem);
    let fitted = problem.scaling_law(&found.best.theta);
    let wanted = [
        ("E", 1.783894, 5e-7),
        ("A", 442.164, 5e-4),
        ("B", 1271.808, 5e-4),
        ("alpha", 0.342626, 5e-7),
        ("beta", 0.342002, 5e-7),
    ];
    for (name, value, tolerance) in wanted {
        let got = fitted.parameter(name).unwrap();
        assert!((got - value).abs() <= tolerance, "{name}: {got}");
    }
    assert!((found.best.objective * 1e-6 - 8.400931e-4).abs() < 5e-11);
    assert!(found.best.decrement < 1e-5, "decrement {}", found.best.decrement);
}

/// Exponents of every law come back to 1e-6 from exact losses, wherever they were planted.
#[test]
fn planted_exponents_come_back() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for law in LAWS {
        for _ in 0..50 {
            let planted = plant(law, &mut rng);
            let rows = grid(&planted, 6);
            let problem = Problem::new(law, &rows, 1e-3);
            let found = search(&problem);
            let fitted = problem.scaling_law(&found.best.theta);
            for name in law.exponents.iter().copied().chain(law.joint.then_some("q")) {
                let (got, want) = (fitted.parameter(name).unwrap(), planted.parameter(name).unwrap());
                let note = || {
                    format!(
                        "{}: {name} {got} not {want}; {:?}; objective {:e} steps {}",
                        law.name,
                        planted.parameters(),
                        found.best.objective,
                        found.best.steps
                    )
                };
                assert!((got - want).abs() < 1e-6, "{}", note());
            }
        }
    }
}

/// A law with parts of comparable size on the grid of [`grid`].
fn plant(law: &'static crate::Law, rng: &mut ChaCha8Rng) -> crate::ScalingLaw {
    let mut map = std::collections::BTreeMap::new();
    let (alpha, beta): (f64, f64) = (rng.random_range(0.08..1.0), rng.random_range(0.08..1.0));
    map.insert("alpha".to_owned(), alpha);
    map.insert("beta".to_owned(), beta);
    map.insert("E".to_owned(), rng.random_range(0.3..2.5));
    map.insert("q".to_owned(), rng.random_range(0.25..0.9));
    let data = if law.exponents.len() == 1 && law.trades() { alpha } else { beta };
    map.insert("A".to_owned(), rng.random_range(0.3..1.5) * f64::powf(1e8, alpha));
    map.insert("B".to_owned(), rng.random_range(0.3..1.5) * f64::powf(3e9, data));
    crate::ScalingLaw::new(law, &map).unwrap()
}

/// `side` sizes by `side` budgets over two and a half decades each.
fn grid(law: &crate::ScalingLaw, side: usize) -> Vec<Observation> {
    let at = |centre: f64, i: usize| centre * f64::powf(10.0, 2.5 * (i as f64 / (side - 1) as f64 - 0.5));
    let point = |cell: usize| {
        let (n, d) = (at(1e8, cell / side), at(3e9, cell % side));
        Observation::dense(cell.to_string(), n, d, law.loss(n, d))
    };
    (0..side * side).map(point).collect()
}
