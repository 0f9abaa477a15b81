//! Non-negative least squares on a Gram matrix of a few features, exactly, by trying every support.

use crate::linear;
use crate::problem::{Matrix, Vector};

/// Minimises `x' G x / 2 - b' x` over `x >= 0` with `n` unknowns.
///
/// With up to four features the fifteen supports are fewer than the pivots of an active-set method would be at its
/// worst, and the answer is the global one: among supports whose solution is non-negative the best is optimal.
pub(crate) fn solve(gram: &Matrix, right: &Vector, n: usize) -> Vector {
    let all: Vec<usize> = (0..n).collect();
    if let Some(solution) = linear::solve(gram, right, &all)
        && solution[..n].iter().all(|value| *value >= 0.0)
    {
        return solution;
    }
    let mut best = (0.0, [0.0; crate::law::PARAMETERS_MAX]);
    for support in 1..(1_usize << n) - 1 {
        let free: Vec<usize> = (0..n).filter(|i| support >> i & 1 == 1).collect();
        let Some(solution) = linear::solve(gram, right, &free) else {
            continue;
        };
        if free.iter().any(|&i| solution[i] < 0.0) {
            continue;
        }
        // At a stationary point of its support the objective is -b'x/2.
        let gain: f64 = free.iter().map(|&i| right[i] * solution[i]).sum();
        if gain > best.0 {
            best = (gain, solution);
        }
    }
    best.1
}

/// The same where only some unknowns may not be negative.
pub(crate) fn solve_mixed(gram: &Matrix, right: &Vector, positive: &[bool]) -> Vector {
    let n = positive.len();
    let sound = |solution: &Vector, free: &[usize]| free.iter().all(|&i| !positive[i] || solution[i] >= 0.0);
    let mut best = (f64::NEG_INFINITY, [0.0; crate::law::PARAMETERS_MAX]);
    // From the whole downwards: usually the first answer is the one.
    for support in (0..1_usize << n).rev() {
        let free: Vec<usize> = (0..n).filter(|i| support >> i & 1 == 1).collect();
        if (0..n).any(|i| !positive[i] && !free.contains(&i)) {
            continue;
        }
        let Some(solution) = linear::solve(gram, right, &free).filter(|solution| sound(solution, &free)) else {
            continue;
        };
        let gain: f64 = free.iter().map(|&i| right[i] * solution[i]).sum();
        if gain > best.0 {
            best = (gain, solution);
        }
        if free.len() == n {
            break;
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::PARAMETERS_MAX;

    #[test]
    fn meets_the_optimality_conditions() {
        let mut gram = [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX];
        for (i, row) in [[2.0, 0.9, 0.3], [0.9, 1.5, -0.4], [0.3, -0.4, 1.1]].iter().enumerate() {
            gram[i][..3].copy_from_slice(row);
        }
        for right in [[1.0, 1.0, 1.0], [-1.0, 2.0, 0.5], [3.0, 0.1, -2.0], [-1.0, -1.0, -1.0]] {
            let mut b = [0.0; PARAMETERS_MAX];
            b[..3].copy_from_slice(&right);
            let x = solve(&gram, &b, 3);
            for i in 0..3 {
                let slope: f64 = (0..3).map(|j| gram[i][j] * x[j]).sum::<f64>() - b[i];
                assert!(x[i] >= 0.0 && slope > -1e-12 && (x[i] == 0.0 || slope.abs() < 1e-12));
            }
        }
    }
}
