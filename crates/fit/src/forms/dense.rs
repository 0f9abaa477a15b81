//! Dense models beyond the sum of two powers: size-dependent data exponents, lexicons that end, saturation, breaks.

use super::{array, none, positive, shape, traded};
use crate::form::{Basis, Coefficient, Form, Link, Shape, Spot, TERMS_MAX, Variable};
use crate::real::Real;

/// `L = exp(s N^q + S) + exp(B N^b + Q) D^(-exp(A N^a + E))`.
///
/// Inside, every power of N is relative to the middle of the data and enters by its slope there, k = s q, and how it bends,
/// q: runs know the slope well and the bend badly, while s and q trade against each other along a curved valley. The
/// second term's exponent reads ln D itself: the law is not closed under scaling D.
pub(super) static FARSEER: Form = Form {
    name: "farseer",
    formula: "exp(s N^q + S) + exp(B N^b + Q) D^(-exp(A N^a + E))",
    reference: "Li et al. 2506.10972, eq. 5",
    reads: &[Variable::Params, Variable::Tokens],
    shapes: &[
        traded("s", (-0.8, -0.005), (-20.0, 20.0)),
        shape("q", (0.03, 0.5), (1e-3, 2.0)),
        traded("B", (-4.0, -0.02), (-20.0, 20.0)),
        shape("b", (-0.5, -0.03), (-2.0, -1e-3)),
        traded("A", (-1.0, -0.005), (-20.0, 20.0)),
        shape("a", (0.01, 0.2), (1e-3, 2.0)),
        // ln of the data exponent at the middle.
        shape("E", (-2.6, -0.3), (-8.0, 2.0)),
    ],
    coefficients: &[positive("S"), positive("Q")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 1e-3,
    grows_from: None,
    basis: farseer as Basis<f64>,
    slopes: farseer,
    plain: |p, at| {
        let [s, q, big_b, b, big_a, a, e, size, data] = array(p);
        let power = |exponent: f64| (-exponent * at.n).exp();
        let (s, big_b, big_a) = (s / q, big_b / b, big_a / a);
        vec![
            s * power(q),
            q,
            big_b * power(b),
            b,
            big_a * power(a),
            a,
            e - big_a,
            // Each term is one at the middle inside; outside it is the whole exponential.
            size.ln() - s,
            data.ln() - big_b,
        ]
    },
    centred: |p, at| {
        let [s, q, big_b, b, big_a, a, e, size, data] = array(p);
        let power = |exponent: f64| (exponent * at.n).exp();
        let (s, big_b, big_a) = (s * power(q), big_b * power(b), big_a * power(a));
        vec![s * q, q, big_b * b, b, big_a * a, a, e + big_a, (size + s).exp(), (data + big_b).exp()]
    },
};

fn farseer<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    // (N^q - 1) / q, of slope one at the middle.
    let rise = |exponent: T| -(exponent * -at.n).decay() / exponent;
    let mut terms = none();
    terms[0] = (p[0] * rise(p[1])).exp();
    let exponent = (p[4] * rise(p[5]) + p[6]).exp();
    terms[1] = (p[2] * rise(p[3]) - exponent * at.ln_tokens).exp();
    terms
}

/// The ideal learner of a finite lexicon whose entropy is known: what is not stored, or not seen yet, is the tail of a
/// Zipf law that ends. What the endless tail would leave beyond the end is the same loss R for both terms, and neither
/// goes below nothing.
pub(super) static FINITE_ZIPF: Form = Form {
    name: "finite-zipf",
    formula: "H + (A N^-a - R)+ + (B D^-b - R)+, b = a / (1 + a)",
    reference: "tail of a truncated Zipf law; exponents of Michaud et al. 2303.13506",
    reads: &[Variable::Params, Variable::Tokens],
    shapes: &[
        shape("a", (0.05, 2.0), (1e-3, 4.0)),
        // ln of A over B at the middle.
        shape("A", (-3.0, 3.0), (-20.0, 20.0)),
        // ln of R over the mean of both terms at the middle.
        shape("R", (-6.0, 0.5), (-30.0, 5.0)),
    ],
    coefficients: &[positive("B")],
    link: Link::Loss,
    needs_entropy: true,
    huber_delta: 1e-3,
    grows_from: None,
    basis: finite_zipf as Basis<f64>,
    slopes: finite_zipf,
    plain: |p, at| {
        let [a, ratio, rest, scale] = array(p);
        let (size, data) = (scale * (0.5 * ratio).exp(), scale * (-0.5 * ratio).exp());
        vec![a, size * (a * at.n).exp(), scale * rest.exp(), data * (a / (1.0 + a) * at.d).exp()]
    },
    centred: |p, at| {
        let [a, size, rest, data] = array(p);
        let (size, data) = (size * (-a * at.n).exp(), data * (-a / (1.0 + a) * at.d).exp());
        let scale = (size * data).sqrt();
        vec![a, (size / data).ln(), (rest / scale).ln(), scale]
    },
};

fn finite_zipf<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let rest = p[2].exp();
    let left = |ln_size: T| {
        let left = ln_size.exp() - rest;
        if left.value() > 0.0 { left } else { T::constant(0.0) }
    };
    let half = p[1] * 0.5;
    let mut terms = none();
    terms[0] = left(half + p[0] * -at.n) + left(-half + p[0] / (p[0] + 1.0) * -at.d);
    terms
}

/// Bits that a model holds of random data: all of them while there is room, kappa bits a param beyond. The "loss" of this
/// law is that amount.
pub(super) static SATURATION: Form = Form {
    name: "saturation",
    formula: "((H D)^-p + (kappa N)^-p)^(-1/p)",
    reference: "capacity of Morris et al. 2505.24832, with a smooth minimum",
    reads: &[Variable::Params, Variable::Tokens],
    shapes: &[
        // ln of room over data at the middle.
        shape("kappa", (-4.0, 4.0), (-20.0, 20.0)),
        shape("p", (0.5, 12.0), (0.1, 100.0)),
    ],
    coefficients: &[positive("H")],
    link: Link::Loss,
    needs_entropy: false,
    huber_delta: 1e-3,
    grows_from: None,
    basis: saturation as Basis<f64>,
    slopes: saturation,
    plain: |p, at| {
        let [ratio, sharp, scale] = array(p);
        vec![scale * (ratio - at.n).exp(), sharp, scale * (-at.d).exp()]
    },
    centred: |p, at| {
        let [kappa, sharp, bits] = array(p);
        vec![(kappa / bits).ln() + at.n - at.d, sharp, bits * at.d.exp()]
    },
};

fn saturation<T: Real>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let mut terms = none();
    // min(d, r) = d - softplus(p (d - r)) / p in logarithms.
    let over = -(p[0] + (at.n - at.d));
    terms[0] = (T::constant(at.d) - (over * p[1]).softplus() / p[1]).exp();
    terms
}

/// Power laws with breaks of finite width in the training FLOPs: Caballero et al. 2210.14891, eq. 1.
const fn broken(
    grows_from: Option<&'static Form>,
    name: &'static str,
    formula: &'static str,
    shapes: &'static [Shape],
    basis: Basis<f64>,
    slopes: Basis<crate::real::Dual>,
) -> Form {
    Form {
        name,
        formula,
        reference: "Caballero et al. 2210.14891, eq. 1",
        reads: &[Variable::Flops],
        shapes,
        coefficients: &BROKEN_COEFFICIENTS,
        link: Link::Loss,
        needs_entropy: false,
        huber_delta: 1e-3,
        grows_from,
        basis,
        slopes,
        plain: |p, at| broken_units(p, at.c, true),
        centred: |p, at| broken_units(p, at.c, false),
    }
}

static BROKEN_COEFFICIENTS: [Coefficient; 2] = [positive("a"), positive("b")];
const C0: Shape = shape("c0", (0.02, 1.0), (-1.0, 6.0));

const BREAKS: [Shape; 10] = [
    C0,
    shape("c1", (-0.6, 0.8), (-6.0, 6.0)),
    shape("d1", (-8.0, 8.0), (-30.0, 30.0)),
    shape("f1", (-2.5, 0.8), (-6.0, 4.0)),
    shape("c2", (-0.6, 0.8), (-6.0, 6.0)),
    shape("d2", (-8.0, 8.0), (-30.0, 30.0)),
    shape("f2", (-2.5, 0.8), (-6.0, 4.0)),
    shape("c3", (-0.6, 0.8), (-6.0, 6.0)),
    shape("d3", (-8.0, 8.0), (-30.0, 30.0)),
    shape("f3", (-2.5, 0.8), (-6.0, 4.0)),
];
static BREAKS_0: [Shape; 1] = [C0];
static BREAKS_1: [Shape; 4] = {
    let [c0, c1, d1, f1, ..] = BREAKS;
    [c0, c1, d1, f1]
};
static BREAKS_2: [Shape; 7] = {
    let [c0, c1, d1, f1, c2, d2, f2, ..] = BREAKS;
    [c0, c1, d1, f1, c2, d2, f2]
};
static BREAKS_3: [Shape; 10] = BREAKS;

pub(super) static BROKEN_0: Form =
    broken(None, "broken-0", "a + b C^-c0", &BREAKS_0, broken_basis::<f64, 0>, broken_basis::<_, 0>);
pub(super) static BROKEN_1: Form = broken(
    Some(&BROKEN_0),
    "broken-1",
    "a + b C^-c0 (1 + (C/d1)^(1/f1))^(-c1 f1)",
    &BREAKS_1,
    broken_basis::<f64, 1>,
    broken_basis::<_, 1>,
);
pub(super) static BROKEN_2: Form = broken(
    Some(&BROKEN_1),
    "broken-2",
    "a + b C^-c0 prod_i=1..2 (1 + (C/di)^(1/fi))^(-ci fi)",
    &BREAKS_2,
    broken_basis::<f64, 2>,
    broken_basis::<_, 2>,
);
pub(super) static BROKEN_3: Form = broken(
    Some(&BROKEN_2),
    "broken-3",
    "a + b C^-c0 prod_i=1..3 (1 + (C/di)^(1/fi))^(-ci fi)",
    &BREAKS_3,
    broken_basis::<f64, 3>,
    broken_basis::<_, 3>,
);

/// Inside, places are ln relative to the middle and widths ln f.
fn broken_basis<T: Real, const BREAKS: usize>(p: &[T], at: &Spot) -> [T; TERMS_MAX] {
    let mut exponent = p[0] * -at.c;
    for i in 0..BREAKS {
        let [slope, place, width] = [p[1 + 3 * i], p[2 + 3 * i], p[3 + 3 * i].exp()];
        exponent = exponent - slope * width * ((T::constant(at.c) - place) / width).softplus();
    }
    let mut terms = none();
    terms[0] = T::constant(1.0);
    terms[1] = exponent.exp();
    terms
}

/// The breaks of a law may be named in any order; people read them from the first to the last.
fn broken_units(p: &[f64], middle: f64, to_plain: bool) -> Vec<f64> {
    let mut out = p.to_vec();
    let breaks = (p.len() - 3) / 3;
    let mut triples: Vec<&[f64]> = p[1..1 + 3 * breaks].chunks(3).collect();
    triples.sort_by(|a, b| a[1].total_cmp(&b[1]));
    out[1..1 + 3 * breaks].copy_from_slice(&triples.concat());
    let p = &out.clone()[..];
    for i in 0..breaks {
        let (place, width) = (2 + 3 * i, 3 + 3 * i);
        (out[place], out[width]) = if to_plain {
            ((p[place] + middle).exp(), p[width].exp())
        } else {
            (p[place].ln() - middle, p[width].ln())
        };
    }
    let last = p.len() - 1;
    let sign = if to_plain { 1.0 } else { -1.0 };
    out[last] = p[last] * (sign * p[0] * middle).exp();
    out
}
