//! Numbers that carry their derivatives: a law written once over [`Real`] is evaluated with `f64` and differentiated with
//! [`Dual`] (forward mode, Wengert 1964). It knows no law.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// Most unknowns of any form.
pub(crate) const UNKNOWNS_MAX: usize = 14;

/// What a law is written over.
pub(crate) trait Real:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Mul<f64, Output = Self>
    + Add<f64, Output = Self>
{
    fn constant(value: f64) -> Self;
    fn value(self) -> f64;
    fn exp(self) -> Self;
    fn ln(self) -> Self;

    /// ln(1 + e^x) without overflow.
    fn softplus(self) -> Self {
        if self.value() > 0.0 { self + ((-self).exp() + 1.0).ln() } else { (self.exp() + 1.0).ln() }
    }

    /// 1 - e^-x, exact near zero.
    fn decay(self) -> Self;

    fn least(self, other: Self) -> Self {
        if self.value() <= other.value() { self } else { other }
    }
}

impl Real for f64 {
    fn constant(value: f64) -> Self {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn ln(self) -> Self {
        f64::ln(self)
    }

    fn decay(self) -> Self {
        -(-self).exp_m1()
    }
}

/// A value and its derivatives by every unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dual {
    pub(crate) value: f64,
    pub(crate) slope: [f64; UNKNOWNS_MAX],
}

impl Dual {
    /// The unknown at `position`.
    pub(crate) fn unknown(value: f64, position: usize) -> Self {
        let mut slope = [0.0; UNKNOWNS_MAX];
        slope[position] = 1.0;
        Self { value, slope }
    }

    /// The chain rule: `value = f(self)`, `rate = f'(self)`.
    fn chain(self, value: f64, rate: f64) -> Self {
        Self { value, slope: self.slope.map(|slope| rate * slope) }
    }
}

impl Add for Dual {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.value += other.value;
        self.slope.iter_mut().zip(other.slope).for_each(|(slope, other)| *slope += other);
        self
    }
}

impl Sub for Dual {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self.value -= other.value;
        self.slope.iter_mut().zip(other.slope).for_each(|(slope, other)| *slope -= other);
        self
    }
}

#[expect(clippy::suspicious_arithmetic_impl, reason = "the product rule adds")]
impl Mul for Dual {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let slope = std::array::from_fn(|i| self.slope[i] * other.value + self.value * other.slope[i]);
        Self { value: self.value * other.value, slope }
    }
}

#[expect(clippy::suspicious_arithmetic_impl, reason = "the quotient rule subtracts")]
impl Div for Dual {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        let slope = std::array::from_fn(|i| (self.slope[i] - value * other.slope[i]) / other.value);
        Self { value, slope }
    }
}

impl Neg for Dual {
    type Output = Self;

    fn neg(self) -> Self {
        self.chain(-self.value, -1.0)
    }
}

impl Mul<f64> for Dual {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.chain(self.value * factor, factor)
    }
}

impl Add<f64> for Dual {
    type Output = Self;

    fn add(self, constant: f64) -> Self {
        Self { value: self.value + constant, ..self }
    }
}

impl Real for Dual {
    fn constant(value: f64) -> Self {
        Self { value, slope: [0.0; UNKNOWNS_MAX] }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        self.chain(value, value)
    }

    fn ln(self) -> Self {
        self.chain(self.value.ln(), 1.0 / self.value)
    }

    fn decay(self) -> Self {
        self.chain(-(-self.value).exp_m1(), (-self.value).exp())
    }
}
