use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::cpu::pairs::{halved, pack_columns, pack_rows};
use crate::cpu::simd::Level;

/// A matrix with random contents and a guard value in every element outside it.
fn random(rng: &mut StdRng, rows: usize, columns: usize, stride: usize) -> Vec<f32> {
    let len = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
    let mut data = vec![f32::NAN; len];
    for row in 0..rows {
        for x in &mut data[row * stride..][..columns] {
            *x = rng.random_range(-1.0..1.0);
        }
    }
    data
}

/// Compares one random shape with the triple loop in f64; elements outside the views must stay untouched.
fn compare(level: Level, rng: &mut StdRng, extent: Extent) {
    let Extent { m, n, k } = extent;
    let flipped = rng.random_bool(0.5);
    let add = rng.random_bool(0.5);
    let (a_rows, a_columns) = if flipped { (k, m) } else { (m, k) };
    let [a_stride, b_stride, c_stride] = [a_columns, n, n].map(|least| least + rng.random_range(0..20));
    let a = random(rng, a_rows, a_columns, a_stride);
    let b = random(rng, k, n, b_stride);
    let before = random(rng, m, n, c_stride);
    let mut c = before.clone();
    let left = if flipped { transposed(&a, a_stride) } else { rows(&a, a_stride) };
    product(level, extent, left, &b, b_stride, &mut c, c_stride, add);
    for (at, (&found, &start)) in c.iter().zip(&before).enumerate() {
        let (i, j) = (at / c_stride, at % c_stride);
        if j >= n {
            assert!(found.is_nan(), "wrote outside the matrix at ({i}, {j})");
            continue;
        }
        let mut expected = if add { f64::from(start) } else { 0.0 };
        for p in 0..k {
            expected += f64::from(a[i * left.row + p * left.column]) * f64::from(b[p * b_stride + j]);
        }
        let error = (f64::from(found) - expected).abs();
        assert!(
            error <= 1e-6 * (1.0 + k as f64),
            "{} [{m}, {k}] x [{k}, {n}] flipped {flipped} add {add}: ({i}, {j}) is {found}, expected {expected}",
            level.name()
        );
    }
}

#[test]
fn every_path_agrees_with_the_triple_loop_on_odd_shapes() {
    for level in Level::available() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..400 {
            let [m, n, k] = [0; 3].map(|_| rng.random_range(1..70));
            compare(level, &mut rng, Extent { m, n, k });
        }
        for (m, n, k) in [(13, 200, 3), (3, 16, 600), (70, 64, 257), (1, 1, 1), (5, 7, 0), (0, 4, 4)] {
            compare(level, &mut rng, Extent { m, n, k });
        }
    }
}

#[test]
#[should_panic(expected = "b is too small")]
fn a_view_that_is_too_small_is_refused() {
    let extent = Extent { m: 2, n: 2, k: 2 };
    product(Level::detect(), extent, rows(&[0.0; 4], 2), &[0.0; 3], 2, &mut [0.0; 4], 2, false);
}

/// The value that bf16 keeps of a number.
fn kept(x: f32) -> f64 {
    f64::from(Pair::of(x, 0.0).values()[0])
}

/// As `compare`, in bf16: the triple loop runs over rounded operands, so only the sums may differ.
fn compare_pairs(level: Level, rng: &mut StdRng, extent: Extent) {
    let Extent { m, n, k } = extent;
    let [flipped, add] = [0; 2].map(|_| rng.random_bool(0.5));
    let half = halved(k);
    let (a, b) = (random(rng, m, k, k), random(rng, k, n, n));
    let mut left = vec![Pair::default(); half * m];
    if flipped {
        let turned: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
        pack_columns(level, k, m, &turned, m, &mut left, m);
    } else {
        pack_rows(level, m, k, &a, k, &mut left, half);
    }
    let mut right = vec![Pair::default(); half * n];
    pack_columns(level, k, n, &b, n, &mut right, n);
    let left = if flipped { transposed(&left, m) } else { rows(&left, half) };
    let before = random(rng, m, n, n);
    let mut c = before.clone();
    product_of_pairs(level, Extent { m, n, k: half }, left, &right, n, &mut c, n, add);
    for (at, (&found, &start)) in c.iter().zip(&before).enumerate() {
        let (i, j) = (at / n, at % n);
        let sum: f64 = (0..k).map(|p| kept(a[i * k + p]) * kept(b[p * n + j])).sum();
        let expected = sum + if add { f64::from(start) } else { 0.0 };
        let error = (f64::from(found) - expected).abs();
        let label = level.name();
        assert!(error <= 1e-6 * (1.0 + k as f64), "{label} [{m}, {k}] x [{k}, {n}] at ({i}, {j}): {found}, {expected}");
    }
}

#[test]
fn every_path_agrees_with_the_triple_loop_in_bf16() {
    for level in Level::available() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..200 {
            let [m, n, k] = [0; 3].map(|_| rng.random_range(1..70));
            compare_pairs(level, &mut rng, Extent { m, n, k });
        }
        for (m, n, k) in [(13, 200, 3), (3, 16, 1201), (70, 64, 257), (1, 1, 1)] {
            compare_pairs(level, &mut rng, Extent { m, n, k });
        }
    }
}
