//! A sweep as written: strict, typed, every value with its place. It does not expand, size or default anything:
//! that is `plan`.

mod axis;
mod diagnostic;
mod document;
mod expression;
mod fields;
mod key;
mod parse;
mod quantity;
mod schema;
mod tables;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hyper::HyperParameter;

pub use diagnostic::Diagnostic;
pub(crate) use diagnostic::{Place, Source};
pub(crate) use expression::{Expression, Mistake, Term};
pub(crate) use key::{Key, Section};
pub use parse::parse;
pub use quantity::{bytes_words, parse_bytes, parse_number, parse_seconds};
pub use schema::json_schema;
pub use tables::LAWS;
pub(crate) use tables::plain_name;
pub(crate) use value::{ScheduleSpec, Setting, Value};

/// The only schema so far.
pub const SCHEMA: u64 = 1;

/// Values by key name. The names are those of the key table, so a lookup that misses is a missing value.
pub(crate) type Settings = BTreeMap<&'static str, Setting>;

/// A parsed sweep file with its `--set` overrides.
#[derive(Debug, Clone)]
pub struct SweepSpec {
    pub(crate) sources: Vec<Source>,
    pub(crate) name: String,
    /// Of `[corpus]`, `[model]`, `[train]` and the top-level seed.
    pub(crate) settings: Settings,
    pub(crate) derived: Vec<Derived>,
    pub(crate) axes: Vec<Axis>,
    pub(crate) arms: Vec<Arm>,
    pub(crate) excludes: Vec<Exclude>,
    pub(crate) replicates: Replicates,
    pub(crate) budget: Budget,
    pub(crate) retry: Retry,
    pub(crate) fit: FitSpec,
    pub(crate) trainer: Option<TrainerSpec>,
    pub(crate) resources: Resources,
    /// Where `memory` under `[resources]` was written.
    pub(crate) memory_place: Option<Place>,
}

impl SweepSpec {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn retry(&self) -> Retry {
        self.retry
    }

    pub fn fit(&self) -> &FitSpec {
        &self.fit
    }

    pub fn resources(&self) -> Resources {
        self.resources
    }

    /// Whether runs are trained by a command of the sweep, and by which.
    pub fn command(&self) -> Option<&[String]> {
        self.trainer.as_ref().map(|trainer| trainer.command.as_slice())
    }

    /// Paths of the files that travel with the command, as written.
    pub fn trainer_files(&self) -> impl Iterator<Item = &str> {
        self.trainer.iter().flat_map(|trainer| trainer.files.iter().map(|(path, _)| path.as_str()))
    }
}

/// One or more keys that move together through rows of values.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) keys: Vec<&'static Key>,
    /// `rows[i][j]` is the i-th value of key j.
    pub(crate) rows: Vec<Vec<Setting>>,
}

/// A variant of the grid: what it sets replaces settings and axes of the same keys.
#[derive(Debug, Clone)]
pub(crate) struct Arm {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) settings: Settings,
    pub(crate) axes: Vec<Axis>,
}

/// A key whose value is calculated.
#[derive(Debug, Clone)]
pub(crate) struct Derived {
    pub(crate) key: &'static Key,
    pub(crate) expression: Expression,
}

/// Points for which the condition holds are left out.
#[derive(Debug, Clone)]
pub(crate) struct Exclude {
    pub(crate) when: Expression,
}

/// How many seeds, and of which points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicates {
    pub(crate) seeds: u64,
    pub(crate) everywhere: bool,
}

/// Limits that a plan must keep, each with its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Budget {
    pub(crate) flops: Option<(f64, Place)>,
    pub(crate) gpu_hours: Option<(f64, Place)>,
    pub(crate) wall_seconds: Option<(f64, Place)>,
}

/// Separate budgets for attempts that broke and attempts that were taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub failures: u32,
    pub preemptions: u32,
}

/// What a run asks of the slot that it is placed on; `None` leaves it to the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Of the sweep among others: higher goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

/// A foreign training command as written.
#[derive(Debug, Clone)]
pub(crate) struct TrainerSpec {
    pub(crate) command: Vec<String>,
    /// Paths as written, each with its place; their plain names differ.
    pub(crate) files: Vec<(String, Place)>,
    pub(crate) version: Option<String>,
}

/// What the fit of this sweep is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitSpec {
    /// Laws to try; empty lets the fit choose among all.
    pub laws: Vec<String>,
    pub holdout: Holdout,
    /// Where the answer is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Hyper-parameters of which only the best value of each size and budget is fitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub best_of: Vec<HyperParameter>,
}

/// Runs kept from the fit: this fraction, the largest by this measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Holdout {
    pub fraction: f64,
    pub by: Measure,
}

/// By what runs are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    Flops,
    Params,
    Tokens,
}

/// The point or budget that a sweep is to say something about.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Target {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<f64>,
}

/// A sweep file that cannot be read: one mistake, shown with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(Box<Diagnostic>);

impl SpecError {
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.0
    }

    /// Bad usage.
    pub fn exit_code(&self) -> i32 {
        2
    }

    pub(crate) fn help(mut self, help: &str) -> Self {
        self.0.help = Some(help.to_owned());
        self
    }
}

impl From<Diagnostic> for SpecError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(Box::new(diagnostic))
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SpecError {}
