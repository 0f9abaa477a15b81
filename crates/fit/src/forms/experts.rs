//! Mixtures of experts: how their number, fineness and sparsity move the law.

use super::{array, free, none, positive, shape};
use crate::form::{Basis, Form, Link, Shape, Spot, TERMS_MAX, Variable};
use crate::real::Real;

/// ln of where few experts begin to count, and ln of how much further more of them stop to.
const E_START: Shape = shape("E_start", (0.1, 2.5), (1e-3, 8.0));
const E_MAX: Shape = shape("E_max", (2.0, 7.0), (0.01, 20.0));

/// ln of the effective number of experts, `1/Eh = 1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em` (Clark 2202.01169, eq. 8).
fn effective<T: Real>(start: T, over: T, experts: f64) -> T {
    let one = T::constant(1.0);
    let (floor, ceiling) = (one / start.exp(), one / (start + over).exp());
    let inner = one / (one / (floor - ceiling) + (experts - 1.0)) + ceiling;
    -inner.ln()
}

/// Plain E_start and E_max of the two logarithms, and back.
fn saturation(start: f64, over: f64) -> (f64, f64) {
    (start.exp(), (start + over).exp())
}

fn logarithms(start: f64, most: f64) -> (f64, f64) {
    (start.ln(), (most / start).ln())
}

/// `log10 L = a log10 N + b log10 Eh + c log10 N log10 Eh + d`.
pub(super) static CLARK: Form = Form {
    name: "clark",
    formula: "10^(a log10 N + b log10 Eh + c log10 N log10 Eh + d)",
    reference: "Clark et al. 2202.01169, eq. 7 and 8",
    reads: &[Variable::Params, Variable::Experts],
    shapes: &[E_START, E_MAX],
    coefficients: &[free("a"), free("b"), free("c"), free("d")],
    link: Link::Log10,
    needs_entropy: false,
    huber_delta: 1.0,
    grows_from: None,
    basis: clark as Basis<f64>,
    slopes: clark,
    plain: |p, at| {
        let [start, over, a, b, c, d] = array(p);
        let (middle, (start, most)) = (at.n / std::f64::consts::LN_10, saturation(start, over));
        vec![start, most, a, b - c * middle, c, d - a * middle]
    },
    centred: |p, at| {
        let [start, most, a, b, c, d] = array(p);
        let (middle, (start, over)) = (at.n / std::f64::consts::LN_10, logarithms(start, most));
        vec![start, over, a, b + c * middle, c, d + a * middle]
    },
};

fn clark<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let per_decade = 1.0 / std::f64::consts::LN_10;
    let (n, e) = (at.n * per_decade, effective(p[0], p[1], at.experts) * per_decade);
    let mut terms = none();
    (terms[0], terms[1], terms[2], terms[3]) = (T::constant(n), e, e * n, T::constant(1.0));
    terms
}

/// `L = c + a N^-alpha E^-delta`: experts multiply the params by a power of their number.
pub(super) static SEPARABLE: Form = Form {
    name: "separable",
    formula: "c + a N^-alpha E^-delta",
    reference: "Clark et al. 2202.01169, eq. 4, over a floor",
    reads: &[Variable::Params, Variable::Experts],
    shapes: &[shape("alpha", (0.05, 1.0), (1e-3, 4.0)), shape("delta", (0.01, 0.4), (-1.0, 4.0))],
    coefficients: &[positive("a"), positive("c")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 0.01,
    grows_from: None,
    basis: separable as Basis<f64>,
    slopes: separable,
    plain: |p, at| separable_units(p, at.n),
    centred: |p, at| separable_units(p, -at.n),
};

fn separable<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let mut terms = none();
    terms[0] = (p[0] * -at.n - p[1] * at.experts.ln()).exp();
    terms[1] = T::constant(1.0);
    terms
}

fn separable_units(p: &[f64], n: f64) -> Vec<f64> {
    let [alpha, delta, a, c] = array(p);
    vec![alpha, delta, a * (alpha * n).exp(), c]
}

/// `L = c + a Eh^delta N^(alpha + gamma ln Eh)`: the joint law at one budget of tokens, whose term is part of the floor.
pub(super) static JOINT_SIZE: Form = Form {
    name: "joint-moe-size",
    formula: "c + a Eh^delta N^(alpha + gamma ln Eh)",
    reference: "Ludziejewski et al. 2502.05172, eq. 5, at a fixed number of tokens",
    reads: &[Variable::Params, Variable::Experts],
    shapes: &[
        shape("alpha", (-0.8, -0.05), (-4.0, -1e-3)),
        shape("gamma", (-0.02, 0.06), (-1.0, 1.0)),
        shape("delta", (-0.3, 0.1), (-3.0, 3.0)),
        E_START,
        E_MAX,
    ],
    coefficients: &[positive("a"), positive("c")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 0.01,
    grows_from: None,
    basis: joint_size as Basis<f64>,
    slopes: joint_size,
    plain: |p, at| {
        let [alpha, gamma, delta, start, over, a, c] = array(p);
        let (start, most) = saturation(start, over);
        vec![alpha, gamma, delta - gamma * at.n, start, most, a * (-alpha * at.n).exp(), c]
    },
    centred: |p, at| {
        let [alpha, gamma, delta, start, most, a, c] = array(p);
        let (start, over) = logarithms(start, most);
        vec![alpha, gamma, delta + gamma * at.n, start, over, a * (alpha * at.n).exp(), c]
    },
};

fn joint_size<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let e = effective(p[3], p[4], at.experts);
    let mut terms = none();
    terms[0] = (p[2] * e + (p[0] + p[1] * e) * at.n).exp();
    terms[1] = T::constant(1.0);
    terms
}

/// `L = c + (g / G^gamma + a) / N^alpha + b / D^beta`, N active params.
pub(super) static KRAJEWSKI: Form = Form {
    name: "granularity",
    formula: "c + (g G^-gamma + a) N^-alpha + b D^-beta",
    reference: "Krajewski et al. 2402.07871, eq. 10",
    reads: &[Variable::Params, Variable::Tokens, Variable::Granularity],
    shapes: &[
        shape("alpha", (0.05, 1.0), (1e-3, 4.0)),
        shape("beta", (0.05, 1.0), (1e-3, 4.0)),
        shape("gamma", (0.1, 2.0), (1e-2, 6.0)),
    ],
    coefficients: &[positive("c"), positive("g"), positive("a"), positive("b")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 0.1,
    grows_from: None,
    basis: krajewski as Basis<f64>,
    slopes: krajewski,
    plain: |p, at| krajewski_units(p, at.n, at.d),
    centred: |p, at| krajewski_units(p, -at.n, -at.d),
};

fn krajewski<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let (size, fineness) = (p[0] * -at.n, p[2] * -at.granularity.ln());
    let mut terms = none();
    (terms[0], terms[1], terms[2], terms[3]) =
        (T::constant(1.0), (size + fineness).exp(), size.exp(), (p[1] * -at.d).exp());
    terms
}

fn krajewski_units(p: &[f64], n: f64, d: f64) -> Vec<f64> {
    let [alpha, beta, gamma, c, g, a, b] = array(p);
    let (size, data) = ((alpha * n).exp(), (beta * d).exp());
    vec![alpha, beta, gamma, c, g * size, a * size, b * data]
}

/// `L = a Eh^delta N^(alpha + gamma ln Eh) + b Eh^omega D^(beta + zeta ln Eh) + c`, N active params.
pub(super) static JOINT: Form = Form {
    name: "joint-moe",
    formula: "a Eh^delta N^(alpha + gamma ln Eh) + b Eh^omega D^(beta + zeta ln Eh) + c",
    reference: "Ludziejewski et al. 2502.05172, eq. 5",
    reads: &[Variable::Params, Variable::Tokens, Variable::Experts],
    shapes: &[
        shape("alpha", (-0.8, -0.05), (-4.0, -1e-3)),
        shape("gamma", (-0.02, 0.06), (-1.0, 1.0)),
        shape("delta", (-0.3, 0.1), (-3.0, 3.0)),
        shape("beta", (-0.8, -0.05), (-4.0, -1e-3)),
        shape("zeta", (-0.06, 0.02), (-1.0, 1.0)),
        shape("omega", (-0.2, 0.2), (-3.0, 3.0)),
        E_START,
        E_MAX,
    ],
    coefficients: &[positive("a"), positive("b"), positive("c")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 0.01,
    grows_from: None,
    basis: joint as Basis<f64>,
    slopes: joint,
    plain: |p, at| {
        let [alpha, gamma, delta, beta, zeta, omega, start, over, a, b, c] = array(p);
        let (start, most) = saturation(start, over);
        let (delta, omega) = (delta - gamma * at.n, omega - zeta * at.d);
        vec![
            alpha,
            gamma,
            delta,
            beta,
            zeta,
            omega,
            start,
            most,
            a * (-alpha * at.n).exp(),
            b * (-beta * at.d).exp(),
            c,
        ]
    },
    centred: |p, at| {
        let [alpha, gamma, delta, beta, zeta, omega, start, most, a, b, c] = array(p);
        let (start, over) = logarithms(start, most);
        let (delta, omega) = (delta + gamma * at.n, omega + zeta * at.d);
        vec![alpha, gamma, delta, beta, zeta, omega, start, over, a * (alpha * at.n).exp(), b * (beta * at.d).exp(), c]
    },
};

fn joint<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let e = effective(p[6], p[7], at.experts);
    let power = |exponent: T, slope: T, own: T, x: f64| (own * e + (exponent + slope * e) * x).exp();
    let mut terms = none();
    terms[0] = power(p[0], p[1], p[2], at.n);
    terms[1] = power(p[3], p[4], p[5], at.d);
    terms[2] = T::constant(1.0);
    terms
}

/// `L = a / N^alpha + b / D^beta + c / (1-S)^lambda + d / ((1-S)^delta N^gamma) + e`, N all params, S the idle share of
/// the experts.
pub(super) static SPARSITY: Form = Form {
    name: "sparsity",
    formula: "a N^-alpha + b D^-beta + c (1-S)^-lambda + d (1-S)^-delta N^-gamma + e",
    reference: "Abnar et al. 2501.12370, eq. 3",
    reads: &[Variable::ParamsTotal, Variable::Tokens, Variable::ActiveShare],
    shapes: &[
        shape("alpha", (0.05, 1.2), (1e-3, 4.0)),
        shape("beta", (0.05, 1.2), (1e-3, 4.0)),
        shape("lambda", (-1.0, 1.0), (-4.0, 4.0)),
        shape("delta", (-1.0, 1.0), (-4.0, 4.0)),
        shape("gamma", (0.03, 1.0), (1e-3, 4.0)),
    ],
    coefficients: &[positive("a"), positive("b"), positive("c"), positive("d"), positive("e")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 1e-3,
    grows_from: None,
    basis: sparsity as Basis<f64>,
    slopes: sparsity,
    plain: |p, at| sparsity_units(p, at.n, at.d),
    centred: |p, at| sparsity_units(p, -at.n, -at.d),
};

fn sparsity<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let active = at.active_share.ln();
    [
        (p[0] * -at.total).exp(),
        (p[1] * -at.d).exp(),
        (p[2] * -active).exp(),
        (p[3] * -active + p[4] * -at.total).exp(),
        T::constant(1.0),
    ]
}

fn sparsity_units(p: &[f64], n: f64, data: f64) -> Vec<f64> {
    let [alpha, beta, lambda, delta, gamma, a, b, c, d, e] = array(p);
    vec![alpha, beta, lambda, delta, gamma, a * (alpha * n).exp(), b * (beta * data).exp(), c, d * (gamma * n).exp(), e]
}
