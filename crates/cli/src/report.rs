//! `report`: the sweep as HTML, Markdown, figures and tables in a folder.

use std::path::Path;

use isoloss_wire::api::FitQuery;

use crate::args::Place;
use crate::exit::{Done, Exit};
use crate::print;
use crate::remote::{block_on, connect};

pub(crate) fn run(place: &Place, sweep: &str, out: &Path) -> Done {
    let client = connect(place)?;
    let lab = block_on(crate::lab::gather(&client, sweep, &FitQuery::default()))?;
    let page = write(out, &lab)?;
    print::note(&format!("report: {page}"));
    Ok(())
}

/// Writes the report; the path of its page.
pub(crate) fn write(out: &Path, lab: &isoloss_report::Lab) -> Result<String, Exit> {
    let written = isoloss_report::write(out, lab).map_err(Exit::failure)?;
    Ok(written.index.display().to_string())
}
