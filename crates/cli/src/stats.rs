//! `corpus stats`: a text in numbers.

use isoloss_corpus::{CorpusError, Stats};

use crate::args::{Format, Place};
use crate::exit::{Done, Exit};
use crate::print;

pub(crate) fn run(place: &Place, paths: &[String], separator: Option<&str>) -> Done {
    let stats = isoloss_corpus::stats(paths, separator).map_err(|e: CorpusError| Exit::usage(e))?;
    match place.format() {
        Format::Json => print::json(&stats),
        Format::Table | Format::Csv => {
            print::text_block(&table(&stats));
            Ok(())
        }
    }
}

fn table(stats: &Stats) -> String {
    format!("{stats:#?}\n")
}
