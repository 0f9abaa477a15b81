//! What live runs say: log lines and points of their training curves, the last ones of each run. In memory only; what
//! counts is in outcomes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isoloss_sweep::RunId;
use isoloss_sweep::outcome::CurvePoint;
use isoloss_wire::api::LogLine;

/// Lines kept of one run.
const LINES_MAX: usize = 1000;
/// Points kept of one live curve.
const POINTS_MAX: usize = 2000;
/// Runs of which anything is kept; the one silent for longest goes first.
const RUNS_MAX: usize = 4096;

/// What all runs said.
#[derive(Debug, Default)]
pub(crate) struct Chatter(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    runs: BTreeMap<RunId, Said>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<LogLine>,
    numbered: u64,
    points: Vec<CurvePoint>,
    attempt: u64,
    heard: u64,
}

impl Chatter {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what an attempt said. A new attempt's curve replaces the old one's.
    pub(crate) fn hear(&self, run_id: RunId, attempt: u64, lines: Vec<String>, points: Vec<CurvePoint>) {
        if lines.is_empty() && points.is_empty() {
            return;
        }
        let mut inner = self.inner();
        inner.clock += 1;
        let heard = inner.clock;
        let said = inner.runs.entry(run_id).or_default();
        said.heard = heard;
        if said.attempt < attempt {
            said.attempt = attempt;
            said.points.clear();
        }
        for text in lines {
            said.numbered += 1;
            said.lines.push_back(LogLine { number: said.numbered, attempt, text });
        }
        let excess = said.lines.len().saturating_sub(LINES_MAX);
        said.lines.drain(..excess);
        if said.attempt == attempt {
            let room = POINTS_MAX.saturating_sub(said.points.len());
            said.points.extend(points.into_iter().take(room));
        }
        if inner.runs.len() > RUNS_MAX {
            let oldest = inner.runs.iter().min_by_key(|(_, said)| said.heard).map(|(id, _)| *id);
            oldest.and_then(|id| inner.runs.remove(&id));
        }
    }

    /// Lines with a number above `after`.
    pub(crate) fn lines(&self, run_id: RunId, after: u64) -> Vec<LogLine> {
        let inner = self.inner();
        let lines = inner.runs.get(&run_id).map(|said| &said.lines).into_iter().flatten();
        lines.filter(|line| line.number > after).cloned().collect()
    }

    /// The live curve.
    pub(crate) fn points(&self, run_id: RunId) -> Vec<CurvePoint> {
        self.inner().runs.get(&run_id).map(|said| said.points.clone()).unwrap_or_default()
    }
}
