//! Repeated data: tokens seen again, and params beyond what the distinct tokens can use, are worth less and less.

use super::{array, none, positive, shape};
use crate::form::{Basis, Form, Link, Spot, TERMS_MAX, Variable};
use crate::real::Real;

/// `L = E + A N'^-alpha + B D'^-beta` with `X' = U + U R (1 - exp(-(X / U - 1) / R))`, `U_D` the distinct tokens and
/// `U_N = min(N, N_opt(U_D))`, the params that are compute-optimal for them under the law without repeats.
///
/// `N_opt` hangs on A / B, so that ratio is a shape inside.
pub(super) static DATA_CONSTRAINED: Form = Form {
    name: "data-constrained",
    formula: "E + A N'^-alpha + B D'^-beta, X' = U + U R (1 - exp(-(X/U - 1)/R))",
    reference: "Muennighoff et al. 2305.16264, eq. 5 to 7",
    reads: &[Variable::Params, Variable::Tokens, Variable::TokensUnique],
    shapes: &[
        shape("alpha", (0.08, 1.2), (1e-3, 6.0)),
        shape("beta", (0.08, 1.2), (1e-3, 6.0)),
        shape("A", (-3.0, 3.0), (-20.0, 20.0)),
        shape("R_N", (-1.0, 4.0), (-7.0, 9.0)),
        shape("R_D", (0.0, 5.0), (-7.0, 9.0)),
    ],
    coefficients: &[positive("E"), positive("B")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 1e-3,
    grows_from: None,
    basis: data_constrained as Basis<f64>,
    slopes: data_constrained,
    plain: |p, at| {
        let [alpha, beta, ratio, r_n, r_d, floor, scale] = array(p);
        let (a, b) = (scale * (0.5 * ratio).exp(), scale * (-0.5 * ratio).exp());
        vec![alpha, beta, a * (alpha * at.n).exp(), r_n.exp(), r_d.exp(), floor, b * (beta * at.d).exp()]
    },
    centred: |p, at| {
        let [alpha, beta, a, r_n, r_d, floor, b] = array(p);
        let (a, b) = (a * (-alpha * at.n).exp(), b * (-beta * at.d).exp());
        vec![alpha, beta, (a / b).ln(), r_n.ln(), r_d.ln(), floor, (a * b).sqrt()]
    },
};

fn data_constrained<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let [alpha, beta, ratio] = [p[0], p[1], p[2]];
    // alpha A n^-alpha = beta B d^-beta at the optimum.
    let optimal = (alpha.ln() - beta.ln() + ratio) / alpha + beta / alpha * at.unique;
    let n = used(T::constant(at.n), optimal.least(T::constant(at.n)), p[3].exp());
    let d = used(T::constant(at.d), T::constant(at.unique), p[4].exp());
    let half = ratio * 0.5;
    let mut terms = none();
    terms[0] = T::constant(1.0);
    terms[1] = (half - alpha * n).exp() + (-half - beta * d).exp();
    terms
}

/// ln of the effective amount; `whole` and `unique` are logarithms.
fn used<T: Real>(whole: T, unique: T, half_life: T) -> T {
    let repeats = (whole - unique).exp() + -1.0;
    unique + (half_life * (repeats / half_life).decay() + 1.0).ln()
}
