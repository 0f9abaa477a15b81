//! The forms, one file for each kind of question. Each is its basis over [`crate::real::Real`] and the way between centred
//! and plain units; no form has a solver of its own.

mod dense;
mod experts;
mod repeats;

use crate::form::{Coefficient, Form, Shape, TERMS_MAX};
use crate::real::Real;

pub(crate) static ALL: &[&Form] = &[
    &dense::FARSEER,
    &dense::FINITE_ZIPF,
    &dense::SATURATION,
    &dense::BROKEN_0,
    &dense::BROKEN_1,
    &dense::BROKEN_2,
    &dense::BROKEN_3,
    &repeats::DATA_CONSTRAINED,
    &experts::CLARK,
    &experts::SEPARABLE,
    &experts::JOINT_SIZE,
    &experts::KRAJEWSKI,
    &experts::JOINT,
    &experts::SPARSITY,
];

const fn shape(name: &'static str, search: (f64, f64), bounds: (f64, f64)) -> Shape {
    Shape { name, search, bounds, factor_max: f64::INFINITY }
}

/// A shape that is printed as another number than what is fitted.
const fn traded(name: &'static str, search: (f64, f64), bounds: (f64, f64)) -> Shape {
    Shape { name, search, bounds, factor_max: 30.0 }
}

const fn positive(name: &'static str) -> Coefficient {
    Coefficient { name, positive: true }
}

const fn free(name: &'static str) -> Coefficient {
    Coefficient { name, positive: false }
}

fn none<T: Real>() -> [T; TERMS_MAX] {
    [T::constant(0.0); TERMS_MAX]
}

/// The parameters of a form as an array; a form asks for as many as it has.
fn array<const COUNT: usize>(p: &[f64]) -> [f64; COUNT] {
    p.try_into().expect("as many parameters as the form has")
}

#[cfg(test)]
mod tests;
