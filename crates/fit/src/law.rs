//! The registry of laws. A law is data: terms, exponents, links and where it comes from; no law has code of its own.
//!
//! Every law here is a posynomial under a joint link:
//! `loss = E + [sum_j (c_j prod_v v^-e_jv)^(1/q)]^q`, of which Chinchilla is q = 1 and Kaplan is E = 0.
//! It does not hold fitted numbers: see [`crate::scaling::ScalingLaw`].

use std::fmt;
use std::str::FromStr;

use crate::form::{Form, form, forms};

/// Most free parameters of any law: arrays on the stack have this size.
pub(crate) const PARAMETERS_MAX: usize = 8;

/// What a factor is a power of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// Params by the convention of the observations.
    Params,
    Tokens,
}

impl Variable {
    /// Position in a point `[ln params, ln tokens]`.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Params => 0,
            Self::Tokens => 1,
        }
    }
}

/// `variable^-exponent`, the exponent by position in [`Law::exponents`]; two factors may share one.
#[derive(Debug, Clone, Copy)]
pub struct Factor {
    pub variable: Variable,
    pub exponent: usize,
}

/// A positive coefficient times powers.
#[derive(Debug)]
pub struct Term {
    pub coefficient: &'static str,
    pub factors: &'static [Factor],
}

/// A law: what is fitted, not the fit.
#[derive(Debug)]
pub struct Law {
    pub name: &'static str,
    pub formula: &'static str,
    pub reference: &'static str,
    pub terms: &'static [Term],
    pub exponents: &'static [&'static str],
    /// Whether an irreducible loss E >= 0 is fitted; without it E = 0.
    pub offset: bool,
    /// Whether q is fitted; without it q = 1.
    pub joint: bool,
}

/// Where exponents and q are looked for; a fit that ends on an edge is reported as such.
pub(crate) const EXPONENT_BOUNDS: (f64, f64) = (1e-3, 4.0);
pub(crate) const JOINT_BOUNDS: (f64, f64) = (0.03, 2.0);
/// Logarithm of a term's size at the centre of the data, relative to the typical loss.
pub(crate) const TERM_BOUNDS: (f64, f64) = (-30.0, 8.0);

const SIZE: Term = Term { coefficient: "A", factors: &[Factor { variable: Variable::Params, exponent: 0 }] };
const DATA: Term = Term { coefficient: "B", factors: &[Factor { variable: Variable::Tokens, exponent: 1 }] };
const DATA_TIED: Term = Term { coefficient: "B", factors: &[Factor { variable: Variable::Tokens, exponent: 0 }] };
const TOKENS: Term = Term { coefficient: "B", factors: &[Factor { variable: Variable::Tokens, exponent: 0 }] };

/// Every law, the default first.
pub static LAWS: &[Law] = &[
    Law {
        name: "additive",
        formula: "E + A N^-alpha + B D^-beta",
        reference: "Hoffmann et al. 2203.15556, eq. 2",
        terms: &[SIZE, DATA],
        exponents: &["alpha", "beta"],
        offset: true,
        joint: false,
    },
    Law {
        name: "tied",
        formula: "E + A N^-alpha + B D^-alpha",
        reference: "Muennighoff et al. 2305.16264; Gadre et al. 2403.08540",
        terms: &[SIZE, DATA_TIED],
        exponents: &["alpha"],
        offset: true,
        joint: false,
    },
    Law {
        name: "qlaw",
        formula: "E + [(A N^-alpha)^(1/q) + (B D^-beta)^(1/q)]^q",
        reference: "form of Busbridge et al. 2502.08606; q = 1 is additive, E = 0 is Kaplan",
        terms: &[SIZE, DATA],
        exponents: &["alpha", "beta"],
        offset: true,
        joint: true,
    },
    Law {
        name: "kaplan",
        formula: "[(A N^-alpha)^(1/q) + (B D^-beta)^(1/q)]^q",
        reference: "Kaplan et al. 2001.08361, eq. 1.5",
        terms: &[SIZE, DATA],
        exponents: &["alpha", "beta"],
        offset: false,
        joint: true,
    },
    Law {
        name: "power-params",
        formula: "E + A N^-alpha",
        reference: "Hestness et al. 1712.00409",
        terms: &[SIZE],
        exponents: &["alpha"],
        offset: true,
        joint: false,
    },
    Law {
        name: "power-tokens",
        formula: "E + B D^-beta",
        reference: "Hestness et al. 1712.00409",
        terms: &[TOKENS],
        exponents: &["beta"],
        offset: true,
        joint: false,
    },
];

/// The law of that name.
pub fn law(name: &str) -> Option<&'static Law> {
    LAWS.iter().find(|law| law.name == name)
}

impl Law {
    /// Free parameters.
    pub fn dimension(&self) -> usize {
        self.terms.len() + self.exponents.len() + usize::from(self.joint) + usize::from(self.offset)
    }

    /// Names in the order of the parameter vector: coefficients, exponents, q, E.
    pub fn names(&self) -> Vec<&'static str> {
        let coefficients = self.terms.iter().map(|term| term.coefficient);
        let tail = self.joint.then_some("q").into_iter().chain(self.offset.then_some("E"));
        coefficients.chain(self.exponents.iter().copied()).chain(tail).collect()
    }

    pub(crate) fn exponent_at(&self, exponent: usize) -> usize {
        self.terms.len() + exponent
    }

    pub(crate) fn joint_at(&self) -> Option<usize> {
        self.joint.then(|| self.terms.len() + self.exponents.len())
    }

    pub(crate) fn offset_at(&self) -> Option<usize> {
        self.offset.then(|| self.dimension() - 1)
    }

    /// Bounds of the internal vector: logarithms of centred coefficients, exponents, q, E over the typical loss.
    pub(crate) fn bounds(&self) -> Vec<(f64, f64)> {
        let mut bounds = vec![TERM_BOUNDS; self.terms.len()];
        bounds.extend(self.exponents.iter().map(|_| EXPONENT_BOUNDS));
        bounds.extend(self.joint.then_some(JOINT_BOUNDS));
        bounds.extend(self.offset.then_some((0.0, f64::INFINITY)));
        bounds
    }

    /// Whether the law trades params against tokens, so that an allocation exists.
    pub fn trades(&self) -> bool {
        let uses = |variable| self.terms.iter().any(|t| t.factors.iter().any(|f| f.variable == variable));
        uses(Variable::Params) && uses(Variable::Tokens)
    }
}

/// Laws are compared by name.
impl PartialEq for Law {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Which laws to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Laws {
    /// All that trade params against tokens; one is chosen.
    Auto,
    One(&'static Law),
    /// A law in other variables too.
    Form(&'static Form),
}

impl Laws {
    pub(crate) fn list(self) -> Vec<&'static Law> {
        match self {
            Self::Auto => LAWS.iter().filter(|law| law.trades()).collect(),
            Self::One(law) => vec![law],
            Self::Form(_) => Vec::new(),
        }
    }
}

/// No law has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected auto or one of {known}, got {got:?}")]
pub struct UnknownLaw {
    got: String,
    known: String,
}

impl FromStr for Laws {
    type Err = UnknownLaw;

    fn from_str(text: &str) -> Result<Self, UnknownLaw> {
        match text {
            "auto" => Ok(Self::Auto),
            name => law(name).map(Self::One).or_else(|| form(name).map(Self::Form)).ok_or_else(|| UnknownLaw {
                got: name.to_owned(),
                known: LAWS
                    .iter()
                    .map(|law| law.name)
                    .chain(forms().map(|form| form.name))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}

impl fmt::Display for Laws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::One(law) => law.name,
            Self::Form(form) => form.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_files_may_name_every_law() {
        let names: Vec<&str> = LAWS.iter().map(|law| law.name).chain(forms().map(|form| form.name)).collect();
        assert_eq!(names, isoloss_sweep::spec::LAWS);
    }
}
