//! Typed refusals of a plan, each with the line of the sweep file that is to blame.

use std::fmt;

use crate::spec::{Diagnostic, Mistake, Place, SweepSpec};

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The grid has no points, or too many.
    Grid,
    /// No model of the wanted size or shape.
    Shape,
    /// The experts cannot be.
    Experts,
    /// No possible token budget, step count or hyper-parameter.
    Training,
    /// A corpus was not surveyed or cannot give what is asked.
    Corpus,
    /// No worker can do it.
    Capability,
    /// Over `[budget]`.
    Budget,
    /// An expression has no value or the wrong type.
    Expression,
}

/// A sweep that cannot be planned, with the line that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    pub refusal: Refusal,
    pub diagnostic: Box<Diagnostic>,
}

impl PlanError {
    /// 6 when the plan is refused for its cost, else 2.
    pub fn exit_code(&self) -> i32 {
        match self.refusal {
            Refusal::Budget => 6,
            _ => 2,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.diagnostic.label = label.into();
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl std::error::Error for PlanError {}

impl SweepSpec {
    pub(crate) fn refuse(&self, refusal: Refusal, place: Place, message: impl Into<String>) -> PlanError {
        PlanError { refusal, diagnostic: Box::new(Diagnostic::new(&self.sources, place, message)) }
    }

    pub(crate) fn mistaken(&self, mistake: Mistake) -> PlanError {
        self.refuse(Refusal::Expression, mistake.place, mistake.message).label(mistake.expected)
    }
}
