//! How a fit is made again from the files of its report: whether `runs.csv` holds the very observations that were fitted,
//! and the command that fits them. It fits nothing.

use isoloss_fit::record::QuestionRecord;
use isoloss_fit::{Columns, FitRecord, LossUnit, Observations, Settings, law::law, read_csv};

use crate::export::runs_csv;
use crate::lab::Lab;

/// Columns of `runs.csv` that hold what a sweep's fit reads: active params without embeddings on the size axis.
const COLUMNS: &str =
    "params=params_active_non_embedding,params_active=params_active_non_embedding,params_total=params_non_embedding";

/// What `--map` must say of `runs.csv`.
pub(crate) fn columns(unit: LossUnit) -> String {
    let loss = match unit {
        LossUnit::NatsPerToken => "loss_nats",
        LossUnit::BitsPerByte => "bits_per_byte",
    };
    format!("{COLUMNS},loss={loss}")
}

/// That `runs.csv`, read back, gives the observations of the record, or what is different.
pub(crate) fn same_observations(lab: &Lab, fit: &FitRecord) -> Result<String, String> {
    if lab.runs.is_empty() {
        return Err("there are no runs beside this fit; keep the table that it was made from".to_owned());
    }
    let columns: Columns = columns(lab.unit).parse().map_err(|error| format!("{error}"))?;
    let read = read_csv(runs_csv(lab).as_bytes(), &columns).map_err(|error| format!("{error}"))?;
    let seen = fitted(&read, fit);
    let (count, digest) = (seen.rows().len(), seen.digest());
    let wanted = &fit.observations;
    if digest == wanted.digest {
        return Ok(format!("Read back, its {count} observations have that digest."));
    }
    Err(format!(
        "runs.csv, read back, gives {count} observations with the digest {digest}, the fit saw {}; runs may have ended \
         between the fit and this report, or the fit saw one arm alone",
        wanted.count
    ))
}

/// Of a tuned sweep the record counts the best runs of each cell.
fn fitted(read: &Observations, fit: &FitRecord) -> Observations {
    match &fit.tuning {
        None => read.clone(),
        Some(tuning) => read.subset(|row| tuning.kept.contains(&row.id)),
    }
}

/// The command that fits the same observations with the same settings; run beside `runs.csv`.
pub(crate) fn command(lab: &Lab, fit: &FitRecord) -> Result<String, String> {
    let Some(question) = &fit.settings.question else {
        return Err("the record is of a version that did not keep the law asked for and the hold-out rule".to_owned());
    };
    unsayable(fit, question)?;
    let mut words = vec!["isoloss fit --csv".to_owned()];
    if lab.runs.is_empty() {
        words.push(quoted(&lab.name));
        words.extend(lab.columns.as_ref().map(|columns| format!("--map {}", quoted(columns))));
    } else {
        words.push(format!("runs.csv --map {}", columns(lab.unit)));
    }
    let settings = &fit.settings;
    words.push(format!("--law {} --resamples {} --seed {}", question.laws, settings.resamples, settings.seed));
    words.push(format!("--holdout {}", quoted(&question.holdout)));
    if !question.best_of.is_empty() {
        let names: Vec<&str> = question.best_of.iter().map(|parameter| parameter.name()).collect();
        words.push(format!("--best-of {}", names.join(",")));
    }
    words.extend(question.budget.map(|flops| format!("--budget {flops:e}")));
    words.extend(question.serve_tokens.map(|tokens| format!("--serve-tokens {tokens:e}")));
    words.extend(question.params_max.map(|params| format!("--params-max {params:e}")));
    words.extend(question.entropy.map(|entropy| format!("--entropy {entropy:e}")));
    words.extend(fit.predictions.iter().map(|prediction| format!("--predict {}", prediction.at)));
    words.push("--json".to_owned());
    Ok(words.join(" "))
}

/// Settings that no flag sets.
fn unsayable(fit: &FitRecord, question: &QuestionRecord) -> Result<(), String> {
    let usual = Settings::default();
    if question.level != usual.level {
        return Err(format!(
            "its intervals are of the level {}, which no flag of the command line sets",
            question.level
        ));
    }
    let delta = fit.settings.huber_delta;
    // A form has a threshold of its own.
    if law(&question.laws).is_some() && delta != usual.huber_delta {
        return Err(format!("its Huber delta is {delta}, which no flag of the command line sets"));
    }
    Ok(())
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_stays_one_word_in_a_shell() {
        assert_eq!(quoted("data/runs.csv"), "data/runs.csv");
        assert_eq!(quoted("my runs; rm.csv"), "'my runs; rm.csv'");
        assert_eq!((quoted("it's"), quoted("")), ("'it'\\''s'".to_owned(), "''".to_owned()));
    }
}
