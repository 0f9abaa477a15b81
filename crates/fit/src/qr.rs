//! Least squares by Householder's QR factorisation: the condition number is not squared.

use crate::real::UNKNOWNS_MAX;

/// `[a.., b, unused..]`.
pub(crate) type Line = [f64; UNKNOWNS_MAX + 1];

/// Minimises the sum of `(a x - b)^2` over lines `[a.., b]` with `count` unknowns; `None` where a column vanishes.
pub(crate) fn solve(mut rows: Vec<Line>, count: usize) -> Option<Vec<f64>> {
    if rows.len() < count {
        return None;
    }
    for at in 0..count {
        let norm = rows[at..].iter().map(|row| row[at] * row[at]).sum::<f64>().sqrt();
        if norm.is_nan() || norm == 0.0 {
            return None;
        }
        let pivot = if rows[at][at] > 0.0 { -norm } else { norm };
        let mut reflector: Vec<f64> = rows[at..].iter().map(|row| row[at]).collect();
        reflector[0] -= pivot;
        let square: f64 = reflector.iter().map(|v| v * v).sum();
        rows[at][at] = pivot;
        rows[at + 1..].iter_mut().for_each(|row| row[at] = 0.0);
        // All columns at once: what is left of the reflected one is not read again.
        let mut along = [0.0; UNKNOWNS_MAX + 1];
        for (v, row) in reflector.iter().zip(&rows[at..]) {
            along.iter_mut().zip(row).for_each(|(sum, value)| *sum += v * value);
        }
        for (v, row) in reflector.iter().zip(&mut rows[at..]) {
            let factor = 2.0 * v / square;
            row[at + 1..].iter_mut().zip(&along[at + 1..]).for_each(|(value, along)| *value -= factor * along);
        }
    }
    let mut x = vec![0.0; count];
    for at in (0..count).rev() {
        let rest: f64 = (at + 1..count).map(|k| rows[at][k] * x[k]).sum();
        x[at] = (rows[at][count] - rest) / rows[at][at];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consistent_system_is_solved_though_its_normal_equations_are_singular_to_rounding() {
        // Läuchli's matrix: J'J rounds to a singular matrix for this epsilon.
        let epsilon = 1e-9;
        let line = |values: [f64; 3]| std::array::from_fn(|i| values.get(i).copied().unwrap_or(0.0));
        let rows = vec![line([1.0, 1.0, 3.0]), line([epsilon, 0.0, epsilon]), line([0.0, epsilon, 2.0 * epsilon])];
        let x = solve(rows, 2).unwrap();
        assert!((x[0] - 1.0).abs() < 1e-6 && (x[1] - 2.0).abs() < 1e-6, "{x:?}");
        assert!(solve(vec![line([0.0, 1.0, 0.0]); 2], 1).is_none());
    }
}
