//! `watch`: a sweep's live progress until it ends. On a terminal bars that move, elsewhere a line per ended run.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use isoloss_sweep::RunId;
use isoloss_wire::api::{Event, Kind, RunRow, RunState, SweepRow};
use isoloss_wire::{Client, ClientError};

use crate::args::Place;
use crate::exit::{Code, Done, Exit};
use crate::points::Points;
use crate::print;
use crate::remote::{block_on, connect};
use crate::status::{duration, is_broken};

/// Follows one sweep, or the newest.
pub(crate) fn run(place: &Place, sweep: Option<&str>) -> Done {
    let client = connect(place)?;
    block_on(async {
        let sweep = match sweep {
            Some(sweep) => sweep.to_owned(),
            None => newest(&client).await?,
        };
        let end = follow(&client, &sweep, true).await?;
        verdict(&end, &ask_status(&end))
    })
}

async fn newest(client: &Client) -> Result<String, Exit> {
    let sweeps = client.sweeps().await?;
    let first = sweeps.sweeps.first();
    first.map(|s| s.sweep_id.to_string()).ok_or_else(|| Exit::new(Code::NotFound, "no sweeps yet"))
}

/// The exit code that a sweep's end deserves. `advice` says how to look at runs that have no result.
pub(crate) fn verdict(end: &SweepRow, advice: &str) -> Done {
    let counts = &end.counts;
    let broken = counts.failed + counts.quarantined + counts.blocked;
    let missing = broken + counts.cancelled;
    // Who cancels some runs of a sweep wants the others; who cancels all has no result to go on with.
    if missing == 0 && counts.finished == 0 && counts.diverged > 0 {
        return Err(Exit::new(Code::FailedRuns, format!("every run of {} diverged; {advice}", end.name)));
    }
    if missing == 0 || (broken == 0 && counts.finished > 0) {
        return Ok(());
    }
    let cancelled = if broken == 0 { ": they were cancelled" } else { "" };
    Err(Exit::new(Code::FailedRuns, format!("{missing} run(s) of {} have no result{cancelled}; {advice}", end.name)))
}

/// For those whose coordinator goes on.
pub(crate) fn ask_status(end: &SweepRow) -> String {
    format!("`isoloss status {}` shows them", end.sweep_id.short())
}

/// Shows progress until no run of the sweep will change any more. A stream that breaks is taken up again. `stays` says
/// that the coordinator goes on afterwards, so that it may be asked for logs.
pub(crate) async fn follow(client: &Client, sweep: &str, stays: bool) -> Result<SweepRow, Exit> {
    let mut view = View::new(Points::ask(client, sweep).await.differences(), stays);
    let mut breaks = 0;
    loop {
        match watch_once(client, sweep, &mut view).await {
            Ok(Some(end)) => {
                view.close();
                return Ok(end);
            }
            Ok(None) | Err(ClientError::Garbled { .. } | ClientError::Unreachable { .. }) if breaks < 100 => {
                breaks += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Ok(None) => return Err(Exit::failure("the coordinator keeps ending the stream of events")),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn watch_once(client: &Client, sweep: &str, view: &mut View) -> Result<Option<SweepRow>, ClientError> {
    let mut events = client.events(sweep).await?;
    while let Some(event) = events.next().await? {
        match event {
            Event::Sweep { row } => view.sweep(&row),
            Event::Run { row } => view.run(&row),
            Event::End { row } => {
                view.sweep(&row);
                view.end();
                return Ok(Some(row));
            }
        }
    }
    Ok(None)
}

/// What is on the screen.
struct View {
    bars: Option<Bars>,
    /// Last state told of each run, so that each end is told once.
    told: BTreeMap<RunId, RunState>,
    /// Blocked runs may only wait for a trunk: they are told when the sweep has ended without them.
    blocked: BTreeMap<RunId, RunRow>,
    /// What tells a run apart beside its size and tokens, by arm and run.
    differences: BTreeMap<(String, RunId), String>,
    stays: bool,
    ended: u64,
    total: u64,
}

struct Bars {
    all: MultiProgress,
    sweep: ProgressBar,
    runs: BTreeMap<RunId, ProgressBar>,
}

impl View {
    fn new(differences: BTreeMap<(String, RunId), String>, stays: bool) -> Self {
        let bars = print::is_terminal().then(|| {
            let all = MultiProgress::new();
            let sweep = all.add(ProgressBar::new(1000));
            sweep.set_style(style("{bar:30.cyan/dim} {percent:>3}%  {msg}"));
            Bars { all, sweep, runs: BTreeMap::new() }
        });
        Self { bars, told: BTreeMap::new(), blocked: BTreeMap::new(), differences, stays, ended: 0, total: 0 }
    }

    fn sweep(&mut self, row: &SweepRow) {
        self.ended = row.counts.ended();
        self.total = row.counts.total();
        if let Some(bars) = &self.bars {
            bars.sweep.set_position((row.progress_ratio * 1000.0) as u64);
            let eta = row.eta_seconds.map_or("-".to_owned(), duration);
            let speed = isoloss_sweep::count::si(row.tokens_per_second);
            let best = row.best_bits_per_byte.map_or(String::new(), |b| format!("  best {b:.3} bits/byte"));
            bars.sweep.set_message(format!("{}/{} runs  {speed} tok/s  ETA {eta}{best}", self.ended, self.total));
        }
    }

    fn run(&mut self, row: &RunRow) {
        if row.kind == Kind::Trunk && row.state != RunState::Leased {
            return;
        }
        let before = self.told.insert(row.run_id, row.state);
        if row.state == RunState::Blocked {
            self.blocked.insert(row.run_id, row.clone());
            return;
        }
        self.blocked.remove(&row.run_id);
        if !matches!(row.state, RunState::Pending | RunState::Leased) && before != Some(row.state) {
            self.tell(&ending(row, &self.name(row), self.stays));
        }
        let name = self.name(row);
        if let Some(bars) = &mut self.bars {
            bars.show(row, &name);
        }
    }

    /// What is still blocked when a sweep has ended stays so.
    fn end(&mut self) {
        for row in std::mem::take(&mut self.blocked).into_values() {
            self.tell(&ending(&row, &self.name(&row), self.stays));
        }
    }

    /// A run in words that no other run of the sweep goes by.
    fn name(&self, row: &RunRow) -> String {
        let name = format!("{} {} params, {} tokens", row.arm, row.params_active_non_embedding, row.tokens);
        let name = match self.differences.get(&(row.arm.clone(), row.run_id)) {
            Some(differs) if !differs.is_empty() => format!("{name}, {differs}"),
            Some(_) | None => name,
        };
        print::one_line(&name).into_owned()
    }

    fn tell(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.all.println(print::harmless(line))),
            None => print::note(line),
        }
    }

    fn close(&mut self) {
        if let Some(bars) = self.bars.take() {
            drop(bars.all.clear());
        }
    }
}

impl Bars {
    fn show(&mut self, row: &RunRow, name: &str) {
        let Some(live) = row.live.as_ref().filter(|_| row.state == RunState::Leased) else {
            if let Some(bar) = self.runs.remove(&row.run_id) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            return;
        };
        let bar = self.runs.entry(row.run_id).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(live.steps));
            bar.set_style(style("{bar:30.green/dim} {msg}"));
            bar
        });
        bar.set_length(live.steps.max(1));
        bar.set_position(live.step);
        let loss = live.bits_per_byte.map_or("-".to_owned(), |b| format!("{b:.3}"));
        let left = live.steps.saturating_sub(live.step) as f64 * live.tokens.as_f64() / live.step.max(1) as f64;
        let eta = if live.tokens_per_second > 0.0 { duration(left / live.tokens_per_second) } else { "-".to_owned() };
        bar.set_message(format!(
            "{name}  step {}/{}  {loss} bits/byte  {} tok/s  ETA {eta}",
            live.step,
            live.steps,
            isoloss_sweep::count::si(live.tokens_per_second),
        ));
    }
}

fn ending(row: &RunRow, name: &str, stays: bool) -> String {
    match (row.bits_per_byte, row.seconds) {
        (Some(bits), Some(seconds)) => format!("{name}: {bits:.4} bits/byte in {}", duration(seconds)),
        _ if is_broken(row) => {
            let why = print::one_line(row.reason.as_deref().unwrap_or("no reason given"));
            let advice = if stays { format!("; see `isoloss logs {}`", row.run_id.short()) } else { String::new() };
            format!("{name}: {} ({why}){advice}", row.state.name())
        }
        _ => format!("{name}: {}", row.state.name()),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}

#[cfg(test)]
mod tests {
    use isoloss_wire::api::StateCounts;

    use super::*;

    fn end(counts: StateCounts) -> SweepRow {
        let row = serde_json::json!({
            "sweep_id": "0".repeat(64), "name": "s", "phase": "ended", "submitted_at": "2026-01-01T00:00:00Z",
            "counts": counts, "progress_ratio": 1.0, "tokens_per_second": 0.0,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_sweep_without_results_is_no_success() {
        let code = |counts| verdict(&end(counts), "look").err().map(|exit| exit.code);
        let counts = StateCounts::default();
        assert_eq!(code(StateCounts { finished: 3, ..counts }), None);
        assert_eq!(code(StateCounts { finished: 3, cancelled: 2, ..counts }), None);
        assert_eq!(code(StateCounts { cancelled: 2, ..counts }), Some(Code::FailedRuns));
        assert_eq!(code(StateCounts { finished: 3, diverged: 2, ..counts }), None);
        assert_eq!(code(StateCounts { diverged: 2, ..counts }), Some(Code::FailedRuns));
        assert_eq!(code(StateCounts { finished: 3, failed: 1, ..counts }), Some(Code::FailedRuns));
        assert_eq!(code(StateCounts { finished: 3, blocked: 1, ..counts }), Some(Code::FailedRuns));
    }

    #[test]
    fn a_run_that_waits_for_its_trunk_has_not_ended() {
        let row = |state: &str| -> RunRow {
            serde_json::from_value(serde_json::json!({
                "run_id": "1".repeat(64), "kind": "run", "arm": "dense", "state": state, "attempts": 0,
                "reason": "waits for its trunk's checkpoint", "params_total": 1, "params_non_embedding": 1,
                "params_active": 1, "params_active_non_embedding": 1, "layers": 1, "width": 1, "tokens": 1,
                "flops": 1.0, "seed": 1,
            }))
            .unwrap()
        };
        let mut view = View::new(BTreeMap::new(), false);
        view.run(&row("blocked"));
        assert_eq!(view.blocked.len(), 1);
        view.run(&row("leased"));
        assert!(view.blocked.is_empty(), "what goes on is not told as blocked at the end");
    }
}
