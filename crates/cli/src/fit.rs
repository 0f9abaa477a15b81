//! `fit`: laws of a sweep, or of any table of runs. The arithmetic is the `fit` crate's.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use indicatif::ProgressBar;
use isoloss_fit::{Columns, FitRecord, Laws, LossUnit, Progress, Settings};
use isoloss_report::Lab;
use isoloss_wire::api::FitQuery;

use crate::args::{FitArgs, Format, Place};
use crate::exit::{Code, Done, Exit};
use crate::print;
use crate::remote::{block_on, connect};

pub(crate) fn run(place: &Place, args: &FitArgs) -> Done {
    let record = match (&args.csv, &args.sweep) {
        (Some(path), _) => of_table(path, args)?,
        (None, Some(sweep)) => of_sweep(place, sweep, args)?,
        (None, None) => return Err(Exit::usage("name a sweep, or a table with --csv FILE")),
    };
    if place.format() == Format::Json {
        return print::json(&record);
    }
    print::text_block(&isoloss_report::law_table(&bare(args, record)));
    Ok(())
}

fn of_table(path: &Path, args: &FitArgs) -> Result<FitRecord, Exit> {
    let columns =
        Columns::from_str(args.map.as_deref().unwrap_or("")).map_err(|e| Exit::usage(format!("--map: {e}")))?;
    let file =
        File::open(path).map_err(|e| Exit::new(Code::NotFound, format!("cannot read {}: {e}", path.display())))?;
    let observations =
        isoloss_fit::read_csv(file, &columns).map_err(|e| Exit::usage(format!("{}: {e}", path.display())))?;
    let settings = Settings {
        laws: Laws::from_str(&args.law).map_err(|e| Exit::usage(format!("--law: {e}")))?,
        resamples: args.resamples,
        seed: args.seed,
        predict: args.predict.iter().map(|text| point(text)).collect::<Result<_, _>>()?,
        budget: args.budget,
        ..Settings::default()
    };
    let bar = if print::is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let record = isoloss_fit::fit(&observations, &settings, &mut |progress: Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.law);
    });
    bar.finish_and_clear();
    Ok(record)
}

fn of_sweep(place: &Place, sweep: &str, args: &FitArgs) -> Result<FitRecord, Exit> {
    for text in &args.predict {
        point(text)?;
    }
    let client = connect(place)?;
    let query = FitQuery {
        law: (args.law != "auto").then(|| args.law.clone()),
        arm: None,
        budget: args.budget,
        predict: (!args.predict.is_empty()).then(|| args.predict.join(";")),
        resamples: Some(args.resamples),
    };
    let value = block_on(async { Ok(client.fit(sweep, &query).await?) })?;
    serde_json::from_value(value).map_err(|e| Exit::failure(format!("the coordinator's fit is not understood: {e}")))
}

/// `params=1e9,tokens=20e9`, in any order.
fn point(text: &str) -> Result<(f64, f64), Exit> {
    let wrong = || Exit::usage(format!("--predict: expected params=NUMBER,tokens=NUMBER, got {text:?}"));
    let (mut params, mut tokens) = (None, None);
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(wrong)?;
        let value = isoloss_sweep::spec::parse_number(value.trim()).filter(|v| *v > 0.0);
        match name.trim() {
            "params" => params = value,
            "tokens" => tokens = value,
            _ => return Err(wrong()),
        }
    }
    params.zip(tokens).ok_or_else(wrong)
}

/// A lab of the fit alone, for its rendering.
fn bare(args: &FitArgs, fit: FitRecord) -> Lab {
    let table = args.csv.as_ref().map(|path| path.display().to_string());
    Lab {
        schema_version: isoloss_report::SCHEMA_VERSION,
        name: table.or_else(|| args.sweep.clone()).unwrap_or_default(),
        sweep_id: None,
        made_at: None,
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        unit: if args.csv.is_some() { LossUnit::NatsPerToken } else { LossUnit::BitsPerByte },
        arms: fit.arms.clone(),
        runs: Vec::new(),
        manifests: Vec::new(),
        fit: Some(fit),
        fit_refusal: None,
    }
}
