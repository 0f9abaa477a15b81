//! Whether this worker's storage has room for one more attempt. A worker without room asks for no work: what it was
//! given could only be lost. It frees nothing and decides nothing about runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isoloss_sweep::Run;
use isoloss_sweep::spec::bytes_words;
use isoloss_wire::api::Lease;
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::time::Instant;

/// Under this nobody can work: logs, notes and endings need some room too.
const BYTES_MIN: u64 = 64 << 20;
/// A parameter with its two moments, in f32.
const BYTES_PER_PARAM: u64 = 12;
/// Checkpoints of one run at a time: two are kept while the next is written.
const CHECKPOINTS: u64 = 3;
/// Pauses after attempts that storage took, doubled by each further one: a quota or a failing disk does not show in the
/// bytes that are free.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// The room under some folders.
#[derive(Debug)]
pub(crate) struct Room {
    folders: Vec<PathBuf>,
    state: Mutex<State>,
}

/// What a look at the storage says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Enough,
    /// There is room again after there was none.
    Again,
    Short {
        free_bytes: u64,
        needed_bytes: u64,
        /// Whether this was said before.
        said: bool,
    },
}

#[derive(Debug, Default)]
struct State {
    /// What the last attempt that was lost would have needed.
    needed_bytes: u64,
    losses: u32,
    not_before: Option<Instant>,
    short: bool,
}

impl Room {
    pub(crate) fn of(folders: Vec<PathBuf>) -> Self {
        Self { folders, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether work may be asked for now.
    pub(crate) fn look(&self) -> Look {
        self.state().judge(self.free_bytes(), Instant::now())
    }

    /// Why no work is asked for now, for people; it changes nothing.
    pub(crate) fn shortage(&self) -> Option<String> {
        self.state().shortage(self.free_bytes(), Instant::now())
    }

    /// Whether the checkpoints of the run fit.
    pub(crate) fn fits(&self, lease: &Lease) -> Result<(), String> {
        let (free, needed) = (self.free_bytes(), needed_bytes(&lease.run, lease.trunk_steps.len()));
        if free >= needed {
            return Ok(());
        }
        let [free, needed] = [free, needed].map(bytes_words);
        Err(format!("the worker's disk has {free} free, the run's checkpoints need {needed}"))
    }

    /// Storage took an attempt at this lease.
    pub(crate) fn lost(&self, lease: &Lease) {
        self.state().lose(needed_bytes(&lease.run, lease.trunk_steps.len()), Instant::now());
    }

    /// An attempt ended as it should: storage works.
    pub(crate) fn kept(&self) {
        self.state().losses = 0;
    }

    /// Of the fullest of the folders. What cannot be asked is taken to have room: writing will tell.
    fn free_bytes(&self) -> u64 {
        self.folders.iter().map(|folder| free_bytes(folder).unwrap_or(u64::MAX)).min().unwrap_or(u64::MAX)
    }
}

impl State {
    fn judge(&mut self, free_bytes: u64, now: Instant) -> Look {
        let needed_bytes = self.needed_bytes.max(BYTES_MIN);
        let waits = self.not_before.is_some_and(|until| now < until);
        if free_bytes < needed_bytes || waits {
            let said = std::mem::replace(&mut self.short, true);
            return Look::Short { free_bytes, needed_bytes, said };
        }
        self.needed_bytes = 0;
        self.not_before = None;
        if std::mem::take(&mut self.short) { Look::Again } else { Look::Enough }
    }

    fn shortage(&self, free_bytes: u64, now: Instant) -> Option<String> {
        let needed_bytes = self.needed_bytes.max(BYTES_MIN);
        if free_bytes < needed_bytes {
            let [free, needed] = [free_bytes, needed_bytes].map(bytes_words);
            return Some(format!("its disk has {free} free and {needed} are needed"));
        }
        let until = self.not_before.filter(|until| now < *until)?;
        let seconds = (until - now).as_secs() + 1;
        Some(format!("its disk failed {} attempt(s) one after the other, so it waits {seconds} s more", self.losses))
    }

    fn lose(&mut self, needed_bytes: u64, now: Instant) {
        self.needed_bytes = self.needed_bytes.max(needed_bytes);
        let pause = PAUSE_FIRST.saturating_mul(1 << self.losses.min(16)).min(PAUSE_LONGEST);
        self.losses += 1;
        self.not_before = Some(now + pause);
    }
}

/// What the checkpoints of a run take, with those that a trunk keeps for its branches.
fn needed_bytes(run: &Run, trunk_steps: usize) -> u64 {
    let one = run.model.param_counts().total.get().saturating_mul(BYTES_PER_PARAM);
    BYTES_MIN.saturating_add(one.saturating_mul(CHECKPOINTS + trunk_steps as u64))
}

/// Bytes that this process may still write under `folder`; none where the file system is read-only.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let found = statvfs(folder)?;
    if found.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(0);
    }
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_said_once_and_ends_with_room() {
        let (mut state, now) = (State::default(), Instant::now());
        let short = |free_bytes, said| Look::Short { free_bytes, needed_bytes: BYTES_MIN, said };
        assert_eq!(state.judge(BYTES_MIN, now), Look::Enough);
        assert_eq!(state.judge(5, now), short(5, false));
        assert_eq!(state.judge(6, now), short(6, true));
        let words = state.shortage(40 << 20, now).unwrap();
        assert_eq!(words, "its disk has 40.0 MiB free and 64.0 MiB are needed");
        assert_eq!(state.shortage(BYTES_MIN, now), None);
        assert_eq!(state.judge(BYTES_MIN, now), Look::Again);
        assert_eq!(state.judge(BYTES_MIN, now), Look::Enough);
        assert_eq!(state.judge(0, now), short(0, false), "a new shortage is told anew");
    }

    #[test]
    fn what_storage_took_is_waited_for_longer_and_longer() {
        let (mut state, mut now) = (State::default(), Instant::now());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            state.lose(3 * BYTES_MIN, now);
            assert!(matches!(state.judge(u64::MAX, now), Look::Short { .. }));
            let words = state.shortage(u64::MAX, now).unwrap();
            assert!(words.contains("failed") && words.contains("so it waits"), "{words}");
            now += Duration::from_secs(pause) - Duration::from_millis(1);
            assert!(matches!(state.judge(u64::MAX, now), Look::Short { said: true, .. }), "{pause} s");
            now += Duration::from_millis(1);
            assert!(matches!(state.judge(3 * BYTES_MIN - 1, now), Look::Short { .. }), "the run needs more");
            assert_eq!(state.judge(3 * BYTES_MIN, now), Look::Again);
        }
    }

    #[test]
    fn the_storage_under_a_folder_can_be_asked() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_bytes(Path::new("/no such folder")).is_err());
    }
}
