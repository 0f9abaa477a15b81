//! `watch`: a sweep's live progress until it ends. On a terminal bars that move, elsewhere a line per ended run.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use isoloss_sweep::RunId;
use isoloss_wire::api::{Event, Kind, RunRow, RunState, SweepRow};
use isoloss_wire::{Client, ClientError};

use crate::args::Place;
use crate::exit::{Code, Done, Exit};
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
        let end = follow(&client, &sweep).await?;
        verdict(&end)
    })
}

async fn newest(client: &Client) -> Result<String, Exit> {
    let sweeps = client.sweeps().await?;
    let first = sweeps.sweeps.first();
    first.map(|s| s.sweep_id.to_string()).ok_or_else(|| Exit::new(Code::NotFound, "no sweeps yet"))
}

/// The exit code that a sweep's end deserves.
pub(crate) fn verdict(end: &SweepRow) -> Done {
    let broken = end.counts.failed + end.counts.quarantined + end.counts.blocked;
    if broken == 0 {
        return Ok(());
    }
    let hint = format!("{broken} run(s) of {} have no result; `isoloss status {}` shows them", end.name, end.name);
    Err(Exit::new(Code::FailedRuns, hint))
}

/// Shows progress until no run of the sweep will change any more. A stream that breaks is taken up again.
pub(crate) async fn follow(client: &Client, sweep: &str) -> Result<SweepRow, Exit> {
    let mut view = View::new();
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
    ended: u64,
    total: u64,
}

struct Bars {
    all: MultiProgress,
    sweep: ProgressBar,
    runs: BTreeMap<RunId, ProgressBar>,
}

impl View {
    fn new() -> Self {
        let bars = print::is_terminal().then(|| {
            let all = MultiProgress::new();
            let sweep = all.add(ProgressBar::new(1000));
            sweep.set_style(style("{bar:30.cyan/dim} {percent:>3}%  {msg}"));
            Bars { all, sweep, runs: BTreeMap::new() }
        });
        Self { bars, told: BTreeMap::new(), ended: 0, total: 0 }
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
        let waits = row.state == RunState::Blocked && row.reason.is_none();
        let ended = !waits && !matches!(row.state, RunState::Pending | RunState::Leased);
        if ended && before != Some(row.state) {
            self.tell(&ending(row));
        }
        if let Some(bars) = &mut self.bars {
            bars.show(row);
        }
    }

    fn tell(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.all.println(line)),
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
    fn show(&mut self, row: &RunRow) {
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
            "{} {}  step {}/{}  {loss} bits/byte  {} tok/s  ETA {eta}",
            row.arm,
            row.params_active_non_embedding,
            live.step,
            live.steps,
            isoloss_sweep::count::si(live.tokens_per_second),
        ));
    }
}

fn ending(row: &RunRow) -> String {
    let name = format!("{} {} params, {} tokens", row.arm, row.params_active_non_embedding, row.tokens);
    match (row.bits_per_byte, row.seconds) {
        (Some(bits), Some(seconds)) => format!("{name}: {bits:.4} bits/byte in {}", duration(seconds)),
        _ if is_broken(row) => {
            let why = row.reason.as_deref().unwrap_or("no reason given");
            format!("{name}: {} ({why}); see `isoloss logs {}`", row.state.name(), row.run_id.short())
        }
        _ => format!("{name}: {}", row.state.name()),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}
