//! Least squares by Householder's QR factorisation: the condition number is not squared.

use crate::real::UNKNOWNS_MAX;

/// `[a.., b, unused..]`.
pub(crate) type Line = [f64; UNKNOWNS_MAX + 1];

/// Minimises the sum of `(a x - b)^2` over lines `[a.., b]` with `count` unknowns; `None` where a column vanishes.
pub(crate) fn solve(mut rows: Vec<Line>, count: usize) -> Option<Vec<f64>> {
    if rows.len() < count {
        return None;
    }
    triangulate(&mut rows, count)?;
    let mut x = vec![0.0; count];
    for at in (0..count).rev() {
        let rest: f64 = (at + 1..count).map(|k| rows[at][k] * x[k]).sum();
        x[at] = (rows[at][count] - rest) / rows[at][at];
    }
    Some(x)
}

/// Leaves as many lines as there are unknowns, with the same least squares; a column that vanishes stays as it is.
pub(crate) fn compress(rows: &mut Vec<Line>, count: usize) {
    if rows.len() > count {
        let mut reflector = Vec::with_capacity(rows.len());
        for at in 0..count {
            let _ = reflect(rows, at, count, &mut reflector);
        }
        rows.truncate(count);
    }
}

/// Reflects the first `count` columns to an upper triangle; `None` where one vanishes.
fn triangulate(rows: &mut [Line], count: usize) -> Option<()> {
    let mut reflector = Vec::with_capacity(rows.len());
    (0..count).try_for_each(|at| reflect(rows, at, count, &mut reflector))
}

/// Reflects one column, from its place in the triangle on, with the columns right of it up to the residual.
fn reflect(rows: &mut [Line], at: usize, count: usize, reflector: &mut Vec<f64>) -> Option<()> {
    let norm = rows[at..].iter().map(|row| row[at] * row[at]).sum::<f64>().sqrt();
    if norm.is_nan() || norm == 0.0 {
        return None;
    }
    let pivot = if rows[at][at] > 0.0 { -norm } else { norm };
    reflector.clear();
    reflector.extend(rows[at..].iter().map(|row| row[at]));
    reflector[0] -= pivot;
    let square: f64 = reflector.iter().map(|v| v * v).sum();
    rows[at][at] = pivot;
    rows[at + 1..].iter_mut().for_each(|row| row[at] = 0.0);
    // All columns at once: what is left of the reflected one is not read again.
    let mut along = [0.0; UNKNOWNS_MAX + 1];
    for (v, row) in reflector.iter().zip(&rows[at..]) {
        along[at + 1..=count].iter_mut().zip(&row[at + 1..]).for_each(|(sum, value)| *sum += v * value);
    }
    for (v, row) in reflector.iter().zip(&mut rows[at..]) {
        let factor = 2.0 * v / square;
        row[at + 1..=count].iter_mut().zip(&along[at + 1..]).for_each(|(value, along)| *value -= factor * along);
    }
    Some(())
}

/// The triangle of a design, with which any direction's leverage is one substitution.
pub(crate) struct Reach {
    triangle: Vec<Line>,
    scale: Line,
    count: usize,
}

impl Reach {
    /// From the lines of a Jacobian; `None` where they leave a direction open.
    pub(crate) fn of(mut lines: Vec<Line>, count: usize) -> Option<Self> {
        if lines.len() < count {
            return None;
        }
        let mut scale = [0.0; UNKNOWNS_MAX + 1];
        for at in 0..count {
            let norm = lines.iter().map(|line| line[at] * line[at]).sum::<f64>().sqrt();
            if norm.is_nan() || norm == 0.0 {
                return None;
            }
            scale[at] = 1.0 / norm;
        }
        for line in &mut lines {
            line.iter_mut().zip(scale).for_each(|(value, scale)| *value *= scale);
        }
        triangulate(&mut lines, count)?;
        lines.truncate(count);
        let open = (0..count).any(|at| lines[at][at].abs() < 1e-12);
        (!open).then_some(Self { triangle: lines, scale, count })
    }

    /// g' (J'J)^-1 g.
    pub(crate) fn leverage(&self, slope: &[f64]) -> f64 {
        let mut solved = [0.0; UNKNOWNS_MAX + 1];
        for at in 0..self.count {
            let known: f64 = (0..at).map(|k| self.triangle[k][at] * solved[k]).sum();
            solved[at] = (slope[at] * self.scale[at] - known) / self.triangle[at][at];
        }
        solved[..self.count].iter().map(|value| value * value).sum()
    }

    /// (J'J)^-1 times that.
    pub(crate) fn inverse_times(&self, right: &Line) -> Line {
        let mut solved = [0.0; UNKNOWNS_MAX + 1];
        for at in 0..self.count {
            let known: f64 = (0..at).map(|k| self.triangle[k][at] * solved[k]).sum();
            solved[at] = (right[at] * self.scale[at] - known) / self.triangle[at][at];
        }
        for at in (0..self.count).rev() {
            let known: f64 = (at + 1..self.count).map(|k| self.triangle[at][k] * solved[k]).sum();
            solved[at] = (solved[at] - known) / self.triangle[at][at];
        }
        std::array::from_fn(|at| solved[at] * self.scale[at])
    }

    /// Largest over smallest singular value of the columns of length one, within a factor of the square root of their
    /// number: by the norms of the triangle and of its inverse.
    pub(crate) fn condition(&self) -> f64 {
        let norm: f64 = self.triangle.iter().flatten().map(|value| value * value).sum();
        let inverse: f64 = (0..self.count)
            .map(|at| {
                let mut unit = [0.0; UNKNOWNS_MAX + 1];
                unit[at] = 1.0 / self.scale[at];
                self.leverage(&unit)
            })
            .sum();
        (norm * inverse).sqrt()
    }
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

    #[test]
    fn a_compressed_system_has_the_same_solution_and_the_inverse_is_one() {
        let line = |i: usize| {
            let x = i as f64;
            std::array::from_fn(|at| {
                [1.0, x, (0.7 * x).sin(), 2.0 - 3.0 * x + (x * x).cos()].get(at).copied().unwrap_or(0.0)
            })
        };
        let rows: Vec<Line> = (0..20).map(line).collect();
        let mut few = rows.clone();
        compress(&mut few, 3);
        assert_eq!(few.len(), 3);
        let (whole, small) = (solve(rows.clone(), 3).unwrap(), solve(few, 3).unwrap());
        whole.iter().zip(&small).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{whole:?} {small:?}"));
        let reach = Reach::of(rows.clone(), 3).unwrap();
        let column = reach.inverse_times(&std::array::from_fn(|at| if at == 1 { 1.0 } else { 0.0 }));
        for i in 0..3 {
            let product: f64 = (0..3).map(|j| rows.iter().map(|row| row[i] * row[j]).sum::<f64>() * column[j]).sum();
            assert!((product - if i == 1 { 1.0 } else { 0.0 }).abs() < 1e-10, "{i}: {product}");
        }
    }
}
