//! How long the fit of a law takes on a table, all of it: search, resamples, hold-out.
//!
//! `cargo run --release -p isoloss-fit --example formspeed -- TABLE COLUMNS LAW RESAMPLES`; the record goes to stdout.

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use isoloss_fit::{Columns, Settings, fit, read_csv};

fn main() -> Result<(), Box<dyn Error>> {
    let said: Vec<String> = std::env::args().skip(1).collect();
    let [table, columns, law, resamples] = said.as_slice() else {
        return Err("expected TABLE COLUMNS LAW RESAMPLES".into());
    };
    let observations = read_csv(File::open(table)?, &columns.parse::<Columns>()?)?;
    let settings = Settings { laws: law.parse()?, resamples: resamples.parse()?, ..Settings::default() };
    let start = Instant::now();
    let record = fit(&observations, &settings, &mut |_| {});
    eprintln!("{table} {law}, {resamples} resamples: {:.2} s", start.elapsed().as_secs_f64());
    println!("{}", serde_json::to_string_pretty(&record)?);
    Ok(())
}
