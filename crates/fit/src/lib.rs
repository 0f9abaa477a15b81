//! Observations in, scaling law with uncertainty out.
//!
//! Pure: no storage, rendering or threads; the seed is an argument and equal inputs give equal records, whatever the
//! order of the rows. Start at [`fit`], then `law.rs` for what is fitted and `record.rs` for what comes out.

mod allocation;
pub mod asked;
mod choose;
pub mod convention;
mod damping;
mod descent;
pub mod design;
pub mod diagnosis;
pub mod draws;
pub mod envelope;
pub mod experts;
pub mod extent;
mod fitted;
pub mod form;
mod formfit;
mod forms;
mod general;
mod holdout;
mod identify;
pub mod influence;
mod interval;
pub mod isoflop;
pub mod law;
pub mod line;
mod linear;
pub mod mixing;
mod needs;
mod newton;
mod nnls;
pub mod observation;
mod opinions;
mod optimum;
mod polish;
mod problem;
mod procedure;
mod profile;
mod qr;
mod real;
pub mod record;
pub mod replicates;
pub mod response;
pub mod rungs;
pub mod scaling;
mod serving;
pub mod settings;
mod student;
pub mod table;
pub mod trade;
pub mod tuning;
mod varpro;

pub use asked::{Asked, NotAsked};
pub use form::{FittedForm, Form, form, forms};
pub use law::{LAWS, Law, Laws};
pub use observation::{Exclusion, LossUnit, Observation, Observations};
pub use procedure::fit;
pub use record::{FitRecord, LawRecord};
pub use scaling::ScalingLaw;
pub use settings::{Holdout, Progress, RESAMPLES_MIN, Settings};
pub use table::{Columns, Pool, TableError, read_csv, read_pool};
