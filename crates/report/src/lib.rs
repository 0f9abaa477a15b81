//! Law and outcomes to tables, figures, pages, exports.
//!
//! In goes a [`Lab`], plain data; out come texts and files. Nothing here knows where the data came from, opens the
//! network or reads a clock: equal labs give equal reports, byte for byte.

mod checklist;
mod diagnosis;
mod experts;
mod export;
mod figures;
mod html;
mod lab;
mod latex;
mod ledger;
mod markdown;
pub mod plot;
mod point;
mod repeat;
mod table;
mod trade;
mod tuning;
mod write;

pub use checklist::checklist;
pub use export::{Row, fit_json, law_csv, runs_csv, runs_jsonl};
pub use figures::{Figure, all as figures};
pub use lab::{Lab, LabRun, SCHEMA_VERSION};
pub use latex::law_tex;
pub use ledger::{Ledger, Optimum};
pub use point::{Point, differences};
pub use table::{law_table, runs_table};
pub use write::{WriteError, Written, write};

/// The report as one HTML page: inline style, script and drawings; it works from a file and without a network.
pub fn html(lab: &Lab) -> String {
    html::page(lab, &figures::all(lab))
}

/// The report as Markdown beside its `figures` folder.
pub fn markdown(lab: &Lab) -> String {
    markdown::markdown(lab, &figures::all(lab))
}
