//! `fit`: laws of a sweep, or of any table of runs. The arithmetic is the `fit` crate's.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use indicatif::ProgressBar;
use isoloss_fit::{Asked, Columns, Exclusion, FitRecord, Laws, LossUnit, Progress, RESAMPLES_MIN, Settings};
use isoloss_report::Lab;
use isoloss_sweep::count::si;
use isoloss_sweep::spec::{parse_bytes, parse_number};
use isoloss_wire::api::FitQuery;

use crate::args::{FitArgs, Format, Place};
use crate::exit::{Code, Done, Exit};
use crate::print;
use crate::remote::{block_on, connect};

/// A million resamples of a large table would run for hours by a slip of the hand.
const RESAMPLES_MAX: usize = 100_000;
/// Runs left out that are named one by one; the others are counted.
const NAMED_MAX: usize = 5;

pub(crate) fn run(place: &Place, args: &FitArgs) -> Done {
    let question = Question::of(args)?;
    let record = match (&args.from.csv, &args.from.sweep) {
        (Some(path), _) => of_table(path, args, &question)?,
        (None, Some(sweep)) => of_sweep(place, sweep, args, &question)?,
        (None, None) => return Err(Exit::usage("name a sweep, or a table with --csv FILE")),
    };
    tell_excluded(&record);
    let fitted = record.chosen_law().is_some();
    if let Some(out) = args.out.as_ref().filter(|_| fitted) {
        let page = crate::report::write(out, &bare(args, record.clone()))?;
        print::note(&format!("report: {page}"));
    }
    match place.format() {
        Format::Json => print::json(&record)?,
        Format::Csv => print::data(&isoloss_report::law_csv(&record)),
        Format::Table => print::text_block(&isoloss_report::law_table(&bare(args, record))),
    }
    if fitted { Ok(()) } else { Err(Exit::failure("no law could be fitted")) }
}

/// What is asked of the fit, in numbers that make sense.
struct Question {
    laws: Laws,
    budget: Option<f64>,
    serve_tokens: Option<f64>,
    params_max: Option<f64>,
    predict: Vec<Asked>,
}

impl Question {
    fn of(args: &FitArgs) -> Result<Self, Exit> {
        if !(RESAMPLES_MIN..=RESAMPLES_MAX).contains(&args.resamples) {
            let got = args.resamples;
            return Err(Exit::usage(format!("--resamples: expected {RESAMPLES_MIN} to {RESAMPLES_MAX}, got {got}")));
        }
        if args.seed.is_some() && args.from.sweep.is_some() {
            return Err(Exit::usage("--seed goes with --csv: the coordinator fits a sweep with a seed of its own"));
        }
        let amount = |flag: &str, text: &Option<String>| {
            let number = |text: &String| {
                let number = parse_number(text).filter(|number| number.is_finite() && *number > 0.0);
                number.ok_or_else(|| {
                    Exit::usage(format!("{flag}: expected a positive number such as 1e20, got {text:?}"))
                })
            };
            text.as_ref().map(number).transpose()
        };
        let laws = Laws::from_str(&args.law).map_err(|e| Exit::usage(format!("--law: {e}")))?;
        Ok(Self {
            laws,
            budget: amount("--budget", &args.budget)?,
            serve_tokens: amount("--serve-tokens", &args.serve_tokens)?,
            params_max: amount("--params-max", &args.params_max)?.or(held(args)?),
            predict: args.predict.iter().map(|text| point(text, laws)).collect::<Result<_, _>>()?,
        })
    }
}

/// How many params the memory holds, told on stderr because it decides what is allocated.
fn held(args: &FitArgs) -> Result<Option<f64>, Exit> {
    let Some(text) = &args.memory else {
        return Ok(None);
    };
    let each = args.bytes_per_param;
    if !(each.is_finite() && each > 0.0) {
        return Err(Exit::usage(format!("--bytes-per-param: expected a positive number, got {each}")));
    }
    let bytes = parse_bytes(text).filter(|bytes| *bytes > 0);
    let bytes =
        bytes.ok_or_else(|| Exit::usage(format!("--memory: expected an amount such as 80GiB, got {text:?}")))?;
    let params = bytes as f64 / each;
    print::note(&format!(
        "{text} at {each} bytes a param hold {} params, activations and caches not counted",
        si(params)
    ));
    Ok(Some(params))
}

fn of_table(path: &Path, args: &FitArgs, question: &Question) -> Result<FitRecord, Exit> {
    let columns =
        Columns::from_str(args.from.map.as_deref().unwrap_or("")).map_err(|e| Exit::usage(format!("--map: {e}")))?;
    let columns = columns.for_law(question.laws);
    let file =
        File::open(path).map_err(|e| Exit::new(Code::NotFound, format!("cannot read {}: {e}", path.display())))?;
    let observations =
        isoloss_fit::read_csv(file, &columns).map_err(|e| Exit::usage(format!("{}: {e}", path.display())))?;
    if let Some(unknown) = args.best_of.iter().find(|parameter| !observations.knows(**parameter)) {
        let help = format!("say which with --map {unknown}=COLUMN");
        return Err(Exit::usage(format!("--best-of: {} has no column for {unknown}; {help}", path.display())));
    }
    let defaults = Settings::default();
    let settings = Settings {
        laws: question.laws,
        resamples: args.resamples,
        seed: args.seed.unwrap_or(defaults.seed),
        predict: question.predict.clone(),
        budget: question.budget,
        serve_tokens: question.serve_tokens,
        params_max: question.params_max,
        holdout: args.holdout.unwrap_or(defaults.holdout),
        best_of: args.best_of.clone(),
        entropy: args.entropy,
        ..defaults
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

fn of_sweep(place: &Place, sweep: &str, args: &FitArgs, question: &Question) -> Result<FitRecord, Exit> {
    let client = connect(place)?;
    let points: Vec<String> = question.predict.iter().map(Asked::to_string).collect();
    let query = FitQuery {
        law: (args.law != "auto").then(|| args.law.clone()),
        arm: None,
        budget: question.budget,
        serve_tokens: question.serve_tokens,
        params_max: question.params_max,
        predict: (!points.is_empty()).then(|| points.join(";")),
        best_of: (!args.best_of.is_empty())
            .then(|| args.best_of.iter().map(|parameter| parameter.name()).collect::<Vec<_>>().join(",")),
        resamples: Some(args.resamples),
    };
    let value = block_on(async { Ok(client.fit(sweep, &query).await?) })?;
    serde_json::from_value(value).map_err(|e| Exit::failure(format!("the coordinator's fit is not understood: {e}")))
}

/// Says on stderr what the law does not rest on, so that a table with bad rows is not taken for a whole one.
fn tell_excluded(record: &FitRecord) {
    for line in excluded_lines(record.observations.count, &record.observations.excluded) {
        print::note(&line);
    }
}

pub(crate) fn excluded_lines(used: usize, excluded: &[Exclusion]) -> Vec<String> {
    if excluded.is_empty() {
        return Vec::new();
    }
    let (out, all) = (excluded.len(), used + excluded.len());
    let mut lines = vec![format!("{out} of {all} runs left out of the fit:")];
    for Exclusion { id, reason } in excluded.iter().take(NAMED_MAX) {
        // Ids of runs are long digests; their beginning is what every other command shows and takes.
        let id: String = if id.len() == 64 { id.chars().take(12).collect() } else { id.clone() };
        lines.push(format!("  {id}: {reason}"));
    }
    if out > NAMED_MAX {
        lines.push(format!("  and {} more; --json lists them all", out - NAMED_MAX));
    }
    lines
}

fn point(text: &str, laws: Laws) -> Result<Asked, Exit> {
    Asked::for_law(text, laws).map_err(|error| Exit::usage(format!("--predict: {error}")))
}

/// A lab of the fit alone, for its rendering.
fn bare(args: &FitArgs, fit: FitRecord) -> Lab {
    let table = args.from.csv.as_ref().map(|path| path.display().to_string());
    Lab {
        schema_version: isoloss_report::SCHEMA_VERSION,
        name: table.or_else(|| args.from.sweep.clone()).unwrap_or_default(),
        sweep_id: None,
        made_at: None,
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        unit: if args.from.csv.is_some() { LossUnit::NatsPerToken } else { LossUnit::BitsPerByte },
        arms: fit.arms.clone(),
        runs: Vec::new(),
        manifests: Vec::new(),
        fit: Some(fit),
        columns: args.from.map.clone(),
        fit_refusal: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_runs_left_out_are_named_and_the_rest_counted() {
        let excluded: Vec<Exclusion> =
            (0..7).map(|line| Exclusion { id: format!("line {line}"), reason: "loss is missing".to_owned() }).collect();
        let lines = excluded_lines(3, &excluded);
        assert_eq!(lines[0], "7 of 10 runs left out of the fit:");
        assert_eq!(lines[1], "  line 0: loss is missing");
        assert_eq!(lines.last().unwrap(), "  and 2 more; --json lists them all");
        assert!(excluded_lines(3, &[]).is_empty());
    }
}
