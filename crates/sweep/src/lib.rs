//! The sweep language: what a sweep is, how it becomes runs, how params, tokens and FLOPs are counted.
//!
//! Pure: no I/O, clock, randomness source, thread or async. Everything here is a function of its arguments.

pub mod corpus;
pub mod count;
pub mod digest;
pub mod hyper;
pub mod model;
pub mod outcome;
pub mod plan;
pub mod run;
pub mod spec;
pub mod trainer;

pub use corpus::{CorpusSpec, Manifest};
pub use count::{Flops, ParamCounts, Params, Tokens};
pub use digest::Digest;
pub use hyper::{HyperParameter, UnknownHyperParameter};
pub use model::{Experts, Model};
pub use outcome::Outcome;
pub use plan::{Plan, PlanError, plan};
pub use run::{Run, RunId, SweepId, TrunkId};
pub use spec::{SpecError, SweepSpec};
pub use trainer::Trainer;
