//! Laws in any number of variables: shape parameters that enter as they like, coefficients that enter linearly. A form is
//! data and one function of its basis; search, polish and intervals are the same for all (`general.rs`).
//!
//! The laws of params and tokens alone stand in [`crate::law`], which certifies their optimum on a whole grid.

use std::collections::BTreeMap;

use crate::observation::Observation;
use crate::real::{Dual, Real, UNKNOWNS_MAX};

/// Most basis functions of any form.
pub(crate) const TERMS_MAX: usize = 5;

/// What a form reads of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// Params by the convention of the observations: active ones for experts.
    Params,
    ParamsTotal,
    Tokens,
    /// Distinct tokens.
    TokensUnique,
    Flops,
    /// Experts in a layer; 1 for dense models.
    Experts,
    /// How many times finer than a dense feed-forward an expert is.
    Granularity,
    /// Active share of the experts, 1 - S.
    ActiveShare,
}

impl Variable {
    /// Its value in a run; a dense model is one expert that is always active.
    pub(crate) fn of(self, row: &Observation) -> f64 {
        let experts = f64::from(row.experts.unwrap_or(1));
        match self {
            Self::Params => row.params,
            Self::ParamsTotal => row.params_total,
            Self::Tokens => row.tokens,
            Self::TokensUnique => row.tokens_unique.unwrap_or(row.tokens).min(row.tokens),
            Self::Flops => row.flops,
            Self::Experts => experts,
            Self::Granularity => row.granularity.unwrap_or(1.0),
            Self::ActiveShare => (f64::from(row.top_k.unwrap_or(1)) / experts).min(1.0),
        }
    }

    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Params => "params",
            Self::ParamsTotal => "total params",
            Self::Tokens => "tokens",
            Self::TokensUnique => "distinct tokens",
            Self::Flops => "FLOPs",
            Self::Experts => "number of experts",
            Self::Granularity => "granularity",
            Self::ActiveShare => "active share of experts",
        }
    }
}

/// One run as forms see it: logarithms, the sizes relative to the middle of the data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) n: f64,
    /// Of all params, relative to the same middle.
    pub(crate) total: f64,
    pub(crate) d: f64,
    /// Tokens as they are.
    pub(crate) ln_tokens: f64,
    pub(crate) c: f64,
    /// ln of distinct tokens, relative to the same middle as the tokens.
    pub(crate) unique: f64,
    /// Not logarithms: counts.
    pub(crate) experts: f64,
    pub(crate) granularity: f64,
    pub(crate) active_share: f64,
    /// The known entropy of the text, for forms that need it.
    pub(crate) entropy: f64,
}

/// A model and its training as forms read them. Unlike a run's, its counts need not be whole; its tokens are all new.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) params: f64,
    pub(crate) params_total: f64,
    pub(crate) tokens: f64,
    pub(crate) experts: f64,
    pub(crate) granularity: f64,
    pub(crate) active_share: f64,
}

/// Where the middle of the data lies: logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Centre {
    pub(crate) n: f64,
    pub(crate) d: f64,
    pub(crate) c: f64,
    pub(crate) entropy: f64,
}

impl Centre {
    pub(crate) fn of(rows: &[Observation], entropy: Option<f64>) -> Self {
        let count = rows.len().max(1) as f64;
        let mean = |variable: Variable| rows.iter().map(|row| variable.of(row).ln()).sum::<f64>() / count;
        Self {
            n: mean(Variable::Params),
            d: mean(Variable::Tokens),
            c: mean(Variable::Flops),
            entropy: entropy.unwrap_or(0.0),
        }
    }

    pub(crate) fn spot(&self, row: &Observation) -> Spot {
        let ln = |variable: Variable| variable.of(row).ln();
        Spot {
            n: ln(Variable::Params) - self.n,
            total: ln(Variable::ParamsTotal) - self.n,
            ln_tokens: ln(Variable::Tokens),
            d: ln(Variable::Tokens) - self.d,
            c: ln(Variable::Flops) - self.c,
            unique: ln(Variable::TokensUnique) - self.d,
            experts: Variable::Experts.of(row),
            granularity: Variable::Granularity.of(row),
            active_share: Variable::ActiveShare.of(row),
            entropy: self.entropy,
        }
    }
}

/// A shape parameter: where starts are looked for, and beyond what it may not go. In centred units.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub(crate) search: (f64, f64),
    pub(crate) bounds: (f64, f64),
    /// Between the ends of its printed interval, where what is fitted inside is another number; beyond it says nothing.
    pub(crate) factor_max: f64,
}

/// A linear coefficient.
#[derive(Debug)]
pub struct Coefficient {
    pub name: &'static str,
    /// Whether it may not be negative.
    pub(crate) positive: bool,
}

/// What the sum of the terms is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The loss, over what is known of it.
    Loss,
    /// The decimal logarithm of the loss.
    Log10,
}

/// The basis functions at one spot, in the order of the coefficients.
pub(crate) type Basis<T> = fn(&[T], &Spot) -> [T; TERMS_MAX];
/// Parameters in centred units to plain ones, or back.
pub(crate) type Units = fn(&[f64], &Centre) -> Vec<f64>;

/// A law: what is fitted, not the fit.
#[derive(Debug)]
pub struct Form {
    pub name: &'static str,
    pub formula: &'static str,
    pub reference: &'static str,
    pub reads: &'static [Variable],
    pub shapes: &'static [Shape],
    pub coefficients: &'static [Coefficient],
    pub link: Link,
    /// Whether the entropy of the text must be known.
    pub needs_entropy: bool,
    /// Threshold of the Huber loss on ln loss with which it was published; a wider one by the caller wins.
    pub huber_delta: f64,
    /// The simpler law that this one extends by its last three shapes, where starts come from extending that law's fit.
    pub(crate) grows_from: Option<&'static Form>,
    pub(crate) basis: Basis<f64>,
    pub(crate) slopes: Basis<Dual>,
    pub(crate) plain: Units,
    pub(crate) centred: Units,
}

/// Every form.
pub fn forms() -> impl Iterator<Item = &'static Form> {
    crate::forms::ALL.iter().copied()
}

/// The form of that name.
pub fn form(name: &str) -> Option<&'static Form> {
    forms().find(|form| form.name == name)
}

impl PartialEq for Form {
    /// Forms are compared by name.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Form {
    /// Whether dense models alone can tell nothing about it.
    pub fn reads_experts(&self) -> bool {
        let experts = [Variable::Experts, Variable::Granularity, Variable::ActiveShare];
        self.reads.iter().any(|variable| experts.contains(variable))
    }

    /// Free parameters.
    pub fn dimension(&self) -> usize {
        self.shapes.len() + self.coefficients.len()
    }

    /// Names of the parameters: shapes, then coefficients.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.shapes.iter().map(|shape| shape.name).chain(self.coefficients.iter().map(|coefficient| coefficient.name))
    }

    /// ln of the loss at a spot; `theta` in centred units, positive coefficients as logarithms.
    pub(crate) fn ln_loss(&self, theta: &[f64], spot: &Spot) -> f64 {
        self.ln_losses(theta)(spot)
    }

    /// The same at many spots: what does not hang on the spot is worked out once.
    pub(crate) fn ln_losses<'a>(&'a self, theta: &'a [f64]) -> impl Fn(&Spot) -> f64 + 'a {
        let coefficients = self.coefficients_of(theta);
        move |spot| self.ln_of(&coefficients, (self.basis)(theta, spot), spot)
    }

    /// With derivatives.
    pub(crate) fn ln_losses_slopes(&self, theta: &[f64]) -> impl Fn(&Spot) -> Dual {
        let mut unknowns = [Dual::constant(0.0); UNKNOWNS_MAX];
        for (at, value) in theta.iter().enumerate() {
            unknowns[at] = Dual::unknown(*value, at);
        }
        let count = theta.len();
        let coefficients = self.coefficients_of(&unknowns[..count]);
        move |spot| self.ln_of(&coefficients, (self.slopes)(&unknowns[..count], spot), spot)
    }

    fn coefficients_of<T: Real>(&self, theta: &[T]) -> [T; TERMS_MAX] {
        let mut values = [T::constant(0.0); TERMS_MAX];
        for (at, coefficient) in self.coefficients.iter().enumerate() {
            let value = theta[self.shapes.len() + at];
            values[at] = if coefficient.positive { value.exp() } else { value };
        }
        values
    }

    fn ln_of<T: Real>(&self, coefficients: &[T; TERMS_MAX], basis: [T; TERMS_MAX], spot: &Spot) -> T {
        let known = if self.needs_entropy { spot.entropy } else { 0.0 };
        let terms = coefficients.iter().zip(basis).take(self.coefficients.len());
        let sum = terms.fold(T::constant(known), |sum, (coefficient, value)| sum + *coefficient * value);
        match self.link {
            Link::Loss => sum.ln(),
            Link::Log10 => sum * std::f64::consts::LN_10,
        }
    }
}

/// A form with numbers in it, in plain units.
#[derive(Debug, Clone)]
pub struct FittedForm {
    pub form: &'static Form,
    pub(crate) theta: Vec<f64>,
    pub(crate) centre: Centre,
}

impl FittedForm {
    /// From plain parameters by name, to be asked about runs like `near`; `None` where one is missing or not finite.
    pub fn new(
        form: &'static Form,
        parameters: &BTreeMap<String, f64>,
        entropy: Option<f64>,
        near: &[Observation],
    ) -> Option<Self> {
        let values: Option<Vec<f64>> = form.names().map(|name| parameters.get(name).copied()).collect();
        let values = values.filter(|values| values.iter().all(|value| value.is_finite()))?;
        let centre = Centre::of(near, entropy);
        let mut theta = (form.centred)(&values, &centre);
        for (at, coefficient) in form.coefficients.iter().enumerate() {
            let value = &mut theta[form.shapes.len() + at];
            if coefficient.positive {
                *value = value.ln();
            }
        }
        Some(Self { form, theta, centre })
    }

    /// Plain parameters by name.
    pub fn parameters(&self) -> BTreeMap<String, f64> {
        let mut theta = self.theta.clone();
        for (at, coefficient) in self.form.coefficients.iter().enumerate() {
            let value = &mut theta[self.form.shapes.len() + at];
            if coefficient.positive {
                *value = value.exp();
            }
        }
        let plain = (self.form.plain)(&theta, &self.centre).into_iter();
        // A coefficient that vanished is a logarithm at its bound.
        let plain = plain.map(|value| if value.abs() < 1e-200 { 0.0 } else { value });
        self.form.names().map(str::to_owned).zip(plain).collect()
    }

    /// The loss at a point, in the unit of the input; of laws of FLOPs alone it says nothing.
    pub(crate) fn loss_of(&self, at: &Point) -> f64 {
        let (centre, ln_tokens) = (&self.centre, at.tokens.ln());
        let spot = Spot {
            n: at.params.ln() - centre.n,
            total: at.params_total.ln() - centre.n,
            ln_tokens,
            d: ln_tokens - centre.d,
            c: 0.0,
            unique: ln_tokens - centre.d,
            experts: at.experts,
            granularity: at.granularity,
            active_share: at.active_share,
            entropy: centre.entropy,
        };
        self.form.ln_loss(&self.theta, &spot).exp()
    }

    /// The loss of a run, in the unit of the input; its own loss is not read.
    pub fn loss(&self, row: &Observation) -> f64 {
        self.form.ln_loss(&self.theta, &self.centre.spot(row)).exp()
    }
}
