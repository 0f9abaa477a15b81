//! `status`, `logs`, `explain`: where things stand and why. Reads only.

use std::time::Duration;

use isoloss_sweep::outcome::GpuUse;
use isoloss_wire::Client;
use isoloss_wire::api::{RunRow, RunState, Runs, SCHEMA_VERSION, SweepRow};

use crate::args::{Format, Place};
use crate::exit::{Done, Exit};
use crate::points::Points;
use crate::print;
use crate::remote::{block_on, connect};
use crate::table::Table;
use crate::workers;

/// All sweeps, or the runs of one.
pub(crate) fn run(place: &Place, sweep: Option<&str>) -> Done {
    let client = connect(place)?;
    block_on(async {
        match sweep {
            None => sweeps(place, &client).await,
            Some(sweep) => runs(place, &client, sweep).await,
        }
    })
}

async fn sweeps(place: &Place, client: &Client) -> Done {
    let sweeps = client.sweeps().await?;
    match place.format() {
        Format::Json => print::json(&sweeps),
        Format::Csv => Err(Exit::usage("status of all sweeps is a table or JSON; name a sweep for CSV")),
        Format::Table if sweeps.sweeps.is_empty() => {
            print::note("no sweeps yet; `isoloss submit SWEEP.toml` hands one in");
            Ok(())
        }
        Format::Table => {
            let mut table = Table::new(&["sweep", "name", "phase", "runs", "done", "failed", "best bits/byte", "eta"]);
            for row in &sweeps.sweeps {
                table.row(sweep_cells(row));
            }
            print::text_block(&table.render());
            workers::note_idle(&client.workers().await?.workers);
            Ok(())
        }
    }
}

fn sweep_cells(row: &SweepRow) -> Vec<String> {
    let counts = &row.counts;
    vec![
        row.sweep_id.short(),
        row.name.clone(),
        format!("{:?}", row.phase).to_lowercase(),
        counts.total().to_string(),
        (counts.finished + counts.diverged).to_string(),
        (counts.failed + counts.quarantined).to_string(),
        row.best_bits_per_byte.map_or("-".to_owned(), |b| format!("{b:.4}")),
        row.eta_seconds.map_or("-".to_owned(), duration),
    ]
}

async fn runs(place: &Place, client: &Client, sweep: &str) -> Done {
    let rows = client.runs(sweep).await?;
    match place.format() {
        Format::Json => print::json(&Runs { schema_version: SCHEMA_VERSION, runs: rows, next: None }),
        Format::Csv => {
            print::data(&crate::export::csv(&rows)?);
            Ok(())
        }
        Format::Table => {
            let differences = Points::ask(client, sweep).await.of_rows(&rows);
            print::text_block(&runs_table(&rows, &differences));
            if let Some(hours) = gpu_hours(&rows) {
                print::line(&format!("{hours:.3} GPU hours of runs that ended"));
            }
            if rows.iter().any(|row| matches!(row.state, RunState::Pending | RunState::Leased)) {
                workers::note_idle(&client.workers().await?.workers);
            }
            Ok(())
        }
    }
}

/// Rows of runs for people.
fn runs_table(rows: &[RunRow], differences: &[String]) -> String {
    let mut table = Table::new(&[
        "run",
        "arm",
        "state",
        "params",
        "active",
        "tokens",
        "flops",
        "bits/byte",
        "seconds",
        "step",
        "gpu",
        "differs",
    ]);
    for (row, differs) in rows.iter().zip(differences) {
        let live = row.live.as_ref();
        let loss = row.bits_per_byte.or_else(|| live.and_then(|l| l.bits_per_byte));
        table.row(vec![
            row.run_id.short(),
            row.arm.clone(),
            row.state.name().to_owned(),
            row.params_non_embedding.to_string(),
            row.params_active_non_embedding.to_string(),
            row.tokens.to_string(),
            row.flops.to_string(),
            loss.map_or("-".to_owned(), |b| format!("{b:.4}")),
            row.seconds.or_else(|| live.map(|l| l.seconds)).map_or("-".to_owned(), |s| format!("{s:.1}")),
            live.map_or("-".to_owned(), |l| format!("{}/{}", l.step, l.steps)),
            live.and_then(|l| l.gpu.as_ref()).or(row.gpu.as_ref()).map(GpuUse::words).unwrap_or_default(),
            differs.clone(),
        ]);
    }
    table.without_empty("gpu").without_empty("differs").render()
}

/// GPU hours that outcomes tell of; none where none does.
pub(crate) fn gpu_hours(rows: &[RunRow]) -> Option<f64> {
    let seconds = rows.iter().filter_map(|row| row.gpu.as_ref()?.seconds);
    seconds.reduce(|sum, seconds| sum + seconds).map(|seconds| seconds / 3600.0)
}

/// What a run said, from its first kept line on.
pub(crate) fn logs(place: &Place, run: &str, follow: bool) -> Done {
    let client = connect(place)?;
    block_on(async {
        let mut after = 0;
        let json = place.format() == Format::Json;
        loop {
            let page = client.log(run, after).await?;
            if json && !follow {
                return print::json(&page);
            }
            for line in &page.lines {
                match json {
                    // What is followed has no end to wait for: one object a line.
                    true => print::json_line(line)?,
                    false => print::line(&format!("[{}] {}", line.attempt, print::one_line(&line.text))),
                }
                after = line.number;
            }
            if !follow || !page.live {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Why a run is where it is.
pub(crate) fn explain(place: &Place, run: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let explanation = client.explain(run).await?;
        if place.format() == Format::Json {
            return print::json(&explanation);
        }
        print::line(&format!("run {} is {}", explanation.run_id.short(), explanation.state.name()));
        for reason in &explanation.reasons {
            print::line(&format!("  {}", print::one_line(reason)));
        }
        for attempt in &explanation.attempts {
            let end = attempt.end.as_deref().map_or("running", |end| ended(end, &explanation.reasons));
            let said = format!("  attempt {} on {} ({}): {end}", attempt.attempt, attempt.worker, attempt.device);
            print::line(&print::one_line(&said));
        }
        Ok(())
    })
}

/// How an attempt ended, in short where a reason says the rest already.
fn ended<'a>(end: &'a str, reasons: &[String]) -> &'a str {
    if reasons.iter().any(|reason| reason == end) {
        return "as said above";
    }
    match end.split_once(": ") {
        Some((kind, words)) if reasons.iter().any(|reason| reason.ends_with(words)) => kind,
        _ => end,
    }
}

/// `1h 02m`, `3m 05s`, `12s`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..=59 => format!("{whole}s"),
        60..=3599 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Whether this run ended without a result.
pub(crate) fn is_broken(row: &RunRow) -> bool {
    matches!(row.state, RunState::Failed | RunState::Quarantined | RunState::Blocked)
}

#[cfg(test)]
mod tests {
    use super::ended;

    #[test]
    fn what_a_reason_says_is_not_said_again() {
        let reasons =
            ["the child was killed by SIGSEGV", "attempt 1 was lost: no space left", "finished with 1.5 bits"];
        let reasons = reasons.map(str::to_owned);
        assert_eq!(ended("failed: the child was killed by SIGSEGV", &reasons), "failed");
        assert_eq!(ended("given back: no space left", &reasons), "given back");
        assert_eq!(ended("finished with 1.5 bits", &reasons), "as said above");
        assert_eq!(ended("failed: exit code 1", &reasons), "failed: exit code 1");
        assert_eq!(ended("its lease ran out", &reasons), "its lease ran out");
    }
}
