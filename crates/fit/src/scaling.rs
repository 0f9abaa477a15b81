//! A law with numbers in it: what a fit returns and what figures evaluate. It knows nothing of data or uncertainty.

use std::collections::BTreeMap;

use crate::law::{Law, Variable};

/// A fitted law in plain units: coefficients for params and tokens counted in ones, loss in the unit of the input.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingLaw {
    law: &'static Law,
    /// In the order of [`Law::names`].
    values: Vec<f64>,
}

/// The parameters do not belong to the law.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("law {law} needs a finite parameter {name}")]
pub struct MissingParameter {
    law: &'static str,
    name: &'static str,
}

impl ScalingLaw {
    /// From named parameters, every one of the law's present and finite; others are ignored.
    pub fn new(law: &'static Law, parameters: &BTreeMap<String, f64>) -> Result<Self, MissingParameter> {
        let value = |name: &'static str| {
            let found = parameters.get(name).copied().filter(|value| value.is_finite());
            found.ok_or(MissingParameter { law: law.name, name })
        };
        let values = law.names().into_iter().map(value).collect::<Result<_, _>>()?;
        Ok(Self { law, values })
    }

    /// From an internal vector: centred, in units of the typical loss.
    pub(crate) fn from_internal(law: &'static Law, theta: &[f64], centre: [f64; 2], ln_scale: f64) -> Self {
        let mut values = theta.to_vec();
        for (term, value) in law.terms.iter().zip(&mut values) {
            let shift = |f: &crate::law::Factor| theta[law.exponent_at(f.exponent)] * centre[f.variable.index()];
            *value = (theta_sum(*value, term.factors.iter().map(shift)) + ln_scale).exp();
        }
        if let Some(at) = law.offset_at() {
            values[at] *= ln_scale.exp();
        }
        Self { law, values }
    }

    pub fn law(&self) -> &'static Law {
        self.law
    }

    /// Named parameters.
    pub fn parameters(&self) -> BTreeMap<String, f64> {
        self.law.names().into_iter().map(str::to_owned).zip(self.values.iter().copied()).collect()
    }

    /// One parameter; E of a law without one is 0, q is 1, and tied laws answer for both exponents.
    pub fn parameter(&self, name: &str) -> Option<f64> {
        let names = self.law.names();
        let found = names.iter().position(|known| *known == name).map(|at| self.values[at]);
        found.or(match name {
            "E" => Some(0.0),
            "q" => Some(1.0),
            "beta" if self.law.trades() => self.exponent_of(Variable::Tokens),
            _ => None,
        })
    }

    fn joint(&self) -> f64 {
        self.law.joint_at().map_or(1.0, |at| self.values[at])
    }

    /// The exponent of a variable, where exactly one term has it.
    fn exponent_of(&self, variable: Variable) -> Option<f64> {
        let mut factors = self.law.terms.iter().flat_map(|t| t.factors).filter(|f| f.variable == variable);
        let one = factors.next()?;
        factors.next().is_none().then(|| self.values[self.law.exponent_at(one.exponent)])
    }

    /// Irreducible loss.
    pub fn irreducible(&self) -> f64 {
        self.law.offset_at().map_or(0.0, |at| self.values[at])
    }

    /// Logarithms of the terms at a point.
    fn ln_terms(&self, params: f64, tokens: f64) -> Vec<f64> {
        let point = [params.ln(), tokens.ln()];
        let power = |f: &crate::law::Factor| -self.values[self.law.exponent_at(f.exponent)] * point[f.variable.index()];
        let terms = self.law.terms.iter().enumerate();
        terms.map(|(at, term)| theta_sum(self.values[at].ln(), term.factors.iter().map(power))).collect()
    }

    /// Loss at a point, in the unit of the input.
    pub fn loss(&self, params: f64, tokens: f64) -> f64 {
        self.irreducible() + self.reducible(&self.ln_terms(params, tokens))
    }

    fn reducible(&self, ln_terms: &[f64]) -> f64 {
        let q = self.joint();
        let top = ln_terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top == f64::NEG_INFINITY {
            return 0.0;
        }
        let sum: f64 = ln_terms.iter().map(|t| ((t - top) / q).exp()).sum();
        (top + q * sum.ln()).exp()
    }

    /// Derivatives of the loss by ln params and ln tokens.
    pub fn gradient(&self, params: f64, tokens: f64) -> [f64; 2] {
        let terms = self.ln_terms(params, tokens);
        let q = self.joint();
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = terms.iter().map(|t| ((t - top) / q).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let reducible = self.reducible(&terms);
        let mut gradient = [0.0; 2];
        for (term, weight) in self.law.terms.iter().zip(weights) {
            for factor in term.factors {
                let exponent = self.values[self.law.exponent_at(factor.exponent)];
                gradient[factor.variable.index()] -= reducible * exponent * weight / sum;
            }
        }
        gradient
    }

    /// The params at which the law gives `loss` with `tokens`; `None` where no size reaches it.
    pub fn params_for(&self, loss: f64, tokens: f64) -> Option<f64> {
        let floor = self.loss(f64::MAX.sqrt(), tokens);
        let ceiling = self.loss(1.0, tokens);
        if !(floor < loss && loss < ceiling) {
            return None;
        }
        // The loss falls in ln params without turning, so bisection is safe and 100 halvings are exact.
        let (mut low, mut high) = (0.0_f64, f64::MAX.sqrt().ln());
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            if self.loss(middle.exp(), tokens) > loss {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some((0.5 * (low + high)).exp())
    }

    /// Params and tokens of least loss under `flops = factor * params * tokens`; `None` where the law has no trade.
    ///
    /// Setting the derivative along the budget to zero gives alpha A^(1/q) N^(-alpha/q) = beta B^(1/q) D^(-beta/q)
    /// (Hoffmann et al. 2203.15556, eq. 4, for q = 1).
    pub fn allocate(&self, flops: f64, factor: f64) -> Option<(f64, f64)> {
        let (alpha, beta) = self.exponents()?;
        let [a, b] = self.values[..2] else { return None };
        let q = self.joint();
        let product = (flops / factor).ln();
        let balance = (alpha / beta).ln() * q + a.ln() - b.ln();
        // A law that hardly trades puts the optimum beyond all numbers; e^300 says so and stays one.
        let ln_params = ((balance + beta * product) / (alpha + beta)).clamp(-300.0, 300.0);
        Some((ln_params.exp(), (product - ln_params).exp()))
    }

    /// alpha and beta, where the law trades params against tokens.
    pub fn exponents(&self) -> Option<(f64, f64)> {
        if !self.law.trades() {
            return None;
        }
        Some((self.exponent_of(Variable::Params)?, self.exponent_of(Variable::Tokens)?))
    }

    /// The exponent a of compute-optimal params, N* ~ C^a.
    pub fn allocation_exponent(&self) -> Option<f64> {
        self.exponents().map(|(alpha, beta)| beta / (alpha + beta))
    }
}

fn theta_sum(first: f64, rest: impl Iterator<Item = f64>) -> f64 {
    rest.fold(first, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::law;

    fn chinchilla() -> ScalingLaw {
        let values = [("E", 1.69), ("A", 406.4), ("B", 410.7), ("alpha", 0.34), ("beta", 0.28)];
        let map = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        ScalingLaw::new(law("additive").unwrap(), &map).unwrap()
    }

    #[test]
    fn loss_gradient_and_inverse_agree() {
        let law = chinchilla();
        let (n, d) = (7e7, 1.4e9);
        let by_hand = 1.69 + 406.4 * f64::powf(n, -0.34) + 410.7 * f64::powf(d, -0.28);
        assert!((law.loss(n, d) - by_hand).abs() < 1e-12);
        let step = 1e-6_f64;
        let slope = (law.loss(n * step.exp(), d) - law.loss(n * (-step).exp(), d)) / (2.0 * step);
        assert!((law.gradient(n, d)[0] - slope).abs() < 1e-8);
        assert!((law.params_for(law.loss(n, d), d).unwrap() / n - 1.0).abs() < 1e-9);
        assert_eq!(law.params_for(1.6, d), None);
    }

    #[test]
    fn allocation_is_a_minimum_on_the_budget() {
        for q in [1.0, 0.4] {
            let mut map = chinchilla().parameters();
            map.insert("q".to_owned(), q);
            let law = ScalingLaw::new(law("qlaw").unwrap(), &map).unwrap();
            let (n, d) = law.allocate(5.76e23, 6.0).unwrap();
            assert!((6.0 * n * d / 5.76e23 - 1.0).abs() < 1e-9);
            let best = law.loss(n, d);
            for shift in [0.9, 0.99, 1.01, 1.1] {
                assert!(law.loss(n * shift, d / shift) > best);
            }
        }
    }
}
