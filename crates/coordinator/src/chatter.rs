//! What runs say: log lines and points of their training curves, the last ones of each run. In memory, but for a small
//! file with the last lines of each run, written when an attempt ends: after a restart people still want to know what a
//! failed run said. What counts is in outcomes, so no line is waited for on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isoloss_sweep::RunId;
use isoloss_sweep::outcome::CurvePoint;
use isoloss_wire::api::LogLine;
use serde::{Deserialize, Serialize};

/// Lines kept of one run.
const LINES_MAX: usize = 1000;
/// Lines of one run that outlive the coordinator; workers cut each to 2000 characters.
const LINES_KEPT: usize = 100;
/// Points kept of one live curve.
const POINTS_MAX: usize = 2000;
/// Runs of which anything is kept; the one silent for longest goes first.
const RUNS_MAX: usize = 4096;

/// What all runs said.
#[derive(Debug)]
pub(crate) struct Chatter {
    dir: PathBuf,
    inner: Mutex<Inner>,
}

/// The file of one run.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    lines: Vec<LogLine>,
}

const VERSION: u32 = 1;

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

impl Said {
    /// What an earlier life of the coordinator kept of the run.
    fn recall(dir: &Path, run_id: RunId) -> Self {
        let text = std::fs::read(file(dir, run_id)).ok();
        let kept = text.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let lines = kept.filter(|kept| kept.version == VERSION).map(|kept| kept.lines).unwrap_or_default();
        Self { numbered: lines.last().map_or(0, |line| line.number), lines: lines.into(), ..Self::default() }
    }
}

fn file(dir: &Path, run_id: RunId) -> PathBuf {
    dir.join(format!("{run_id}.json"))
}

impl Chatter {
    /// Keeps last lines in `dir`, which is made when there are any.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, inner: Mutex::default() }
    }

    /// Writes the last lines of a run, whose attempt has ended, to its file.
    pub(crate) fn keep(&self, run_id: RunId) -> io::Result<()> {
        let lines: Vec<LogLine> = match self.inner().runs.get(&run_id) {
            Some(said) => said.lines.iter().skip(said.lines.len().saturating_sub(LINES_KEPT)).cloned().collect(),
            None => return Ok(()),
        };
        if lines.is_empty() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir)?;
        let path = file(&self.dir, run_id);
        let partial = path.with_extension("partial");
        let written = std::fs::write(&partial, serde_json::to_vec(&Kept { version: VERSION, lines })?);
        let moved = written.and_then(|()| std::fs::rename(&partial, &path));
        if moved.is_err() {
            // Half of a file is of no use and takes room.
            drop(std::fs::remove_file(&partial));
        }
        moved
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what an attempt said. A new attempt's curve replaces the old one's.
    pub(crate) fn hear(&self, run_id: RunId, attempt: u64, lines: Vec<String>, points: Vec<CurvePoint>) {
        if lines.is_empty() && points.is_empty() {
            return;
        }
        let mut inner = self.inner();
        inner.clock += 1;
        let heard = inner.clock;
        let said = inner.runs.entry(run_id).or_insert_with(|| Said::recall(&self.dir, run_id));
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

    /// Whether a run has said nothing in this life of the coordinator.
    pub(crate) fn is_silent(&self, run_id: RunId) -> bool {
        self.inner().runs.get(&run_id).is_none_or(|said| said.lines.is_empty())
    }

    /// Lines with a number above `after`.
    pub(crate) fn lines(&self, run_id: RunId, after: u64) -> Vec<LogLine> {
        let after = |lines: &VecDeque<LogLine>| lines.iter().filter(|line| line.number > after).cloned().collect();
        match self.inner().runs.get(&run_id) {
            Some(said) => after(&said.lines),
            None => after(&Said::recall(&self.dir, run_id).lines),
        }
    }

    /// The live curve.
    pub(crate) fn points(&self, run_id: RunId) -> Vec<CurvePoint> {
        self.inner().runs.get(&run_id).map(|said| said.points.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::Digest;

    use super::*;

    #[test]
    fn the_last_lines_of_a_run_outlive_the_coordinator() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Chatter::new(dir.path().join("logs"));
        let run_id = RunId(Digest::of(b"run"));
        let chatter = open();
        let lines = |n: usize| (0..n).map(|i| format!("line {i}")).collect::<Vec<String>>();
        chatter.hear(run_id, 1, lines(LINES_KEPT + 20), Vec::new());
        chatter.keep(run_id).unwrap();
        assert!(open().lines(RunId(Digest::of(b"another")), 0).is_empty());

        let chatter = open();
        let kept = chatter.lines(run_id, 0);
        assert_eq!((kept.len(), kept[0].number, kept[0].text.as_str()), (LINES_KEPT, 21, "line 20"));
        chatter.hear(run_id, 2, vec!["again".to_owned()], Vec::new());
        let all = chatter.lines(run_id, kept[LINES_KEPT - 1].number);
        assert_eq!(all.iter().map(|line| (line.number, line.attempt)).collect::<Vec<_>>(), [(121, 2)]);
        assert_eq!(chatter.lines(run_id, 0).len(), LINES_KEPT + 1, "what was kept is still there");
    }
}
