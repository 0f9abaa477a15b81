//! Models that are measured at the same time: none begins before all are ready, and who is through goes on until all are, so
//! that each speed is one among so many. They meet in this process, or by files in a folder that processes share.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::BenchError;

/// How long others are waited for. A first start compiles kernels; nothing else takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(1);

/// Where processes meet: so many, each of which measures one or more models.
#[derive(Debug, Clone)]
pub struct Meeting {
    pub processes: usize,
    /// One that was empty before the first came.
    pub folder: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub struct Company {
    count: usize,
    /// In this process, by [`Stage`].
    here: [AtomicUsize; 3],
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Ready,
    Done,
    Failed,
}

impl Company {
    /// A model alone.
    pub(super) fn none() -> Self {
        Self::of(1, None)
    }

    /// So many models of this process, and as many of each other one that comes to the meeting.
    pub(super) fn of(count: usize, meeting: Option<&Meeting>) -> Self {
        let processes = meeting.map_or(1, |meeting| meeting.processes);
        let folder = meeting.map(|meeting| meeting.folder.clone());
        Self { count: count * processes, here: Default::default(), folder }
    }

    /// Says that one is ready and waits for the others.
    pub(super) fn begin(&self) -> Result<(), BenchError> {
        self.tell(Stage::Ready)?;
        let begun = Instant::now();
        loop {
            let came = self.told(Stage::Ready)?;
            if self.told(Stage::Failed)? > 0 {
                return Err(BenchError::Company(self.count));
            }
            if came == self.count {
                return Ok(());
            }
            if came > self.count || begun.elapsed() > PATIENCE {
                return Err(self.alone(came));
            }
            sleep(LOOK);
        }
    }

    /// Says that one has what it wanted.
    pub(super) fn finish(&self) -> Result<(), BenchError> {
        self.tell(Stage::Done)
    }

    /// Whether all have what they wanted, or never will; this one has since `finished`.
    pub(super) fn is_over(&self, finished: Instant) -> Result<bool, BenchError> {
        let through = self.told(Stage::Done)?;
        let is_over = through + self.told(Stage::Failed)? >= self.count;
        if !is_over && finished.elapsed() > PATIENCE { Err(self.alone(through)) } else { Ok(is_over) }
    }

    fn alone(&self, came: usize) -> BenchError {
        BenchError::Alone { came, expected: self.count, folder: self.folder.clone().unwrap_or_default() }
    }

    /// Says that one broke; its error is told elsewhere.
    pub(super) fn fail(&self) {
        let _ = self.tell(Stage::Failed);
    }

    fn tell(&self, stage: Stage) -> Result<(), BenchError> {
        let at = self.here[stage as usize].fetch_add(1, Ordering::SeqCst);
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(format!("{}{}-{at}", prefix(stage), std::process::id()));
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        made.map(drop).map_err(|source| BenchError::Io { path, source })
    }

    fn told(&self, stage: Stage) -> Result<usize, BenchError> {
        match &self.folder {
            None => Ok(self.here[stage as usize].load(Ordering::SeqCst)),
            Some(folder) => count(folder, prefix(stage)),
        }
    }
}

fn prefix(stage: Stage) -> &'static str {
    match stage {
        Stage::Ready => "ready-",
        Stage::Done => "done-",
        Stage::Failed => "failed-",
    }
}

/// Files whose names begin so.
fn count(folder: &Path, start: &str) -> Result<usize, BenchError> {
    let broken = |source| BenchError::Io { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(broken)?;
    let named = entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    Ok(named.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two models each of two processes, as far as the folder knows.
    #[test]
    fn nobody_begins_before_all_are_ready_and_nobody_ends_before_all_are_through() {
        let dir = tempfile::tempdir().unwrap();
        let meeting = Meeting { processes: 2, folder: dir.path().to_owned() };
        let ours = Company::of(2, Some(&meeting));
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let model = || {
                ours.begin().unwrap();
                begun.fetch_add(1, Ordering::SeqCst);
                ours.finish().unwrap();
                while !ours.is_over(Instant::now()).unwrap() {
                    sleep(LOOK);
                }
                ended.fetch_add(1, Ordering::SeqCst);
            };
            scope.spawn(model);
            scope.spawn(model);
            let come = |stage: &str, of: [u32; 2]| {
                of.iter().for_each(|at| fs::write(dir.path().join(format!("{stage}-other-{at}")), "").unwrap());
            };
            come("ready", [1, 1]);
            while count(dir.path(), "ready-").unwrap() < 3 {
                sleep(LOOK);
            }
            assert_eq!(begun.load(Ordering::SeqCst), 0);
            come("ready", [1, 2]);
            while count(dir.path(), "done-").unwrap() < 2 {
                sleep(LOOK);
            }
            assert_eq!((begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (2, 0));
            come("done", [1, 2]);
        });
        assert_eq!(ended.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn one_that_breaks_keeps_nobody_waiting() {
        let company = Company::of(2, None);
        company.fail();
        assert!(matches!(company.begin(), Err(BenchError::Company(2))));
        company.finish().unwrap();
        assert!(company.is_over(Instant::now()).unwrap());
    }

    #[test]
    fn a_folder_that_others_used_is_no_meeting() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ready-before-0"), "").unwrap();
        let company = Company::of(1, Some(&Meeting { processes: 1, folder: dir.path().to_owned() }));
        let told = company.begin().unwrap_err().to_string();
        assert!(told.starts_with("2 of 1 models") && told.contains(dir.path().to_str().unwrap()), "{told}");
    }
}
