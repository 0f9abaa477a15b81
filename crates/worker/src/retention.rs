//! Which checkpoints stay when a run has ended. What a run still needs is never touched: it decides about runs that have
//! an outcome or that nobody will train any more, and about trunks only what is no branch point.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use isoloss_sweep::RunId;
use isoloss_wire::api::{Kind, RunState};

use crate::checkpoints::Checkpoints;
use crate::daemon::Context;

/// Checkpoints of ended runs that stay on the worker's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// None. Branch points of trunks stay.
    None,
    /// The newest of each run: what exports and probes read.
    #[default]
    Last,
    /// Everything that was written.
    All,
}

impl Checkpoints {
    /// Clears up after a run that has ended; gives the bytes that became free. What cannot be removed is left.
    pub(crate) fn clear_up(&self, run_id: RunId, is_trunk: bool, keep: Keep) -> u64 {
        let kept: BTreeSet<PathBuf> = match (is_trunk, keep) {
            (_, Keep::All) => return 0,
            // Attempts at a trunk go on where earlier ones stopped, so its branch points lie in any of them.
            (true, _) => self.noted(run_id).iter().map(|one| self.path(one)).collect(),
            (false, Keep::Last) => self.newest(run_id).iter().map(|one| self.path(one)).collect(),
            (false, Keep::None) => BTreeSet::new(),
        };
        let mut freed = 0;
        for attempt in self.attempts(run_id) {
            let folder = self.place(run_id, attempt);
            let has_kept = kept.iter().any(|path| path.starts_with(&folder));
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_note = has_kept && path.ends_with(crate::checkpoints::NOTES);
                let bytes = entry.metadata().map_or(0, |about| about.len());
                if !kept.contains(&path) && !is_note && std::fs::remove_file(&path).is_ok() {
                    freed += bytes;
                }
            }
            if !has_kept {
                // A folder that a command filled with folders of its own goes too.
                let _ = std::fs::remove_dir_all(&folder);
            }
        }
        if kept.is_empty() {
            let _ = std::fs::remove_dir(self.root().join(run_id.to_string()));
        }
        freed
    }
}

/// Clears up after a run that has ended, here and among the artifacts; gives the bytes that became free here.
pub(crate) async fn clear_up(context: &Arc<Context>, run_id: RunId, is_trunk: bool) -> u64 {
    let keep = context.config.keep;
    let here = context.clone();
    // Not while a branch fetches into the trunk's folder what is not noted yet.
    let alone = match &context.config.artifacts {
        Some(artifacts) => Some(artifacts.alone().await),
        None => None,
    };
    let freed = tokio::task::spawn_blocking(move || here.checkpoints.clear_up(run_id, is_trunk, keep)).await;
    drop(alone);
    let kept = match keep {
        Keep::All => None,
        Keep::Last => Some(1),
        Keep::None => Some(0),
    };
    // Any of a trunk's may be a branch point.
    if let (Some(artifacts), Some(kept), false) = (&context.config.artifacts, kept, is_trunk) {
        artifacts.thin_out(run_id, kept).await;
    }
    freed.unwrap_or(0)
}

/// Clears up after runs that ended while this worker was not there to see it.
pub(crate) async fn clear_up_orphans(context: &Arc<Context>) {
    let mut freed = 0;
    let mut runs: BTreeSet<RunId> = context.checkpoints.runs().into_iter().collect();
    // A worker that is gone for good clears up after nothing.
    if let Some(artifacts) = &context.config.artifacts {
        match artifacts.runs().await {
            Ok(stored) => runs.extend(stored),
            Err(error) => tracing::warn!(%error, "cannot list the artifacts"),
        }
    }
    for run_id in runs {
        // One that the coordinator does not know may be another's.
        let Ok(run) = context.client.run(&run_id.to_string()).await else { continue };
        let over = match run.row.state {
            RunState::Finished | RunState::Diverged | RunState::Cancelled | RunState::Failed => true,
            RunState::Pending | RunState::Blocked | RunState::Leased | RunState::Quarantined => false,
        };
        // A failed run may have been tried again and granted to this worker since.
        if over && !context.held.has(run_id) {
            freed += clear_up(context, run_id, run.row.kind == Kind::Trunk).await;
        }
    }
    if freed > 0 {
        tracing::info!(freed_bytes = freed, "cleared up after runs that ended meanwhile");
    }
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::Digest;

    use super::*;

    /// A run with two attempts of two checkpoints each, and a half-written file.
    fn two_attempts(checkpoints: &Checkpoints, run_id: RunId) {
        for (attempt, steps) in [(1, [10, 20]), (2, [20, 30])] {
            let folder = checkpoints.folder(run_id, attempt).unwrap();
            std::fs::write(folder.join("x.partial"), "half").unwrap();
            for step in steps {
                let (path, text) = (folder.join(format!("{step}.bin")), format!("{attempt} {step}"));
                std::fs::write(&path, &text).unwrap();
                checkpoints.record((run_id, attempt), &path, step, Digest::of(text.as_bytes())).unwrap();
            }
        }
    }

    fn left(checkpoints: &Checkpoints, run_id: RunId) -> Vec<String> {
        let mut names = Vec::new();
        for attempt in checkpoints.attempts(run_id) {
            let files = std::fs::read_dir(checkpoints.place(run_id, attempt)).unwrap().flatten();
            let files = files.map(|file| file.file_name().to_string_lossy().into_owned());
            names.extend(files.filter(|name| name != "checkpoints.json").map(|name| format!("{attempt}/{name}")));
        }
        names.sort();
        names
    }

    #[test]
    fn what_stays_is_what_the_policy_says_and_branch_points_always_stay() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path().to_owned()).unwrap();
        let run = |seed: u8| RunId(Digest::of(&[seed]));
        let cases: [(Keep, bool, &[&str]); 5] = [
            (Keep::All, false, &["1/10.bin", "1/20.bin", "1/x.partial", "2/20.bin", "2/30.bin", "2/x.partial"]),
            (Keep::Last, false, &["2/30.bin"]),
            (Keep::None, false, &[]),
            (Keep::Last, true, &["1/10.bin", "1/20.bin", "2/20.bin", "2/30.bin"]),
            (Keep::None, true, &["1/10.bin", "1/20.bin", "2/20.bin", "2/30.bin"]),
        ];
        for (seed, (keep, is_trunk, stays)) in cases.into_iter().enumerate() {
            let run_id = run(seed as u8);
            two_attempts(&checkpoints, run_id);
            let freed = checkpoints.clear_up(run_id, is_trunk, keep);
            assert_eq!(left(&checkpoints, run_id), stays, "{keep:?}, trunk: {is_trunk}");
            assert_eq!(freed == 0, keep == Keep::All);
        }
        assert_eq!(checkpoints.runs().len(), 4, "nothing is left of the run that keeps nothing");
    }

    #[test]
    fn two_checkpoints_of_a_running_command_stay() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path().to_owned()).unwrap();
        let key = (RunId(Digest::of(b"run")), 1);
        for step in 1..=5_u64 {
            // Step 5 is written over the file of step 3, which must not be taken from it.
            let name = if step == 5 { 3 } else { step };
            let path = checkpoints.folder(key.0, key.1).unwrap().join(format!("{name}.bin"));
            std::fs::write(&path, format!("{step}")).unwrap();
            checkpoints.record(key, &path, step, Digest::of(step.to_string().as_bytes())).unwrap();
            checkpoints.keep_two(key);
        }
        assert_eq!(left(&checkpoints, key.0), ["1/3.bin", "1/4.bin"]);
        assert_eq!(checkpoints.newest(key.0).unwrap().step, 5);
    }

    #[test]
    fn a_stale_attempt_cannot_replace_what_a_newer_one_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path().to_owned()).unwrap();
        let run_id = RunId(Digest::of(b"run"));
        two_attempts(&checkpoints, run_id);
        let theirs = checkpoints.folder(run_id, 2).unwrap().join("30.bin");
        assert_eq!(checkpoints.record((run_id, 1), &theirs, 40, Digest::of(b"x")), None, "not in its own folder");
        let late = checkpoints.folder(run_id, 1).unwrap().join("late.bin");
        std::fs::write(&late, "late").unwrap();
        checkpoints.record((run_id, 1), &late, 20, Digest::of(b"late")).unwrap();
        let at_20 = checkpoints.noted(run_id).into_iter().find(|one| one.step == 20).unwrap();
        assert!(at_20.path.ends_with("2/20.bin"), "{at_20:?}");
        // Damaged bytes are passed over, and so is what was put in the place of a file.
        std::fs::write(&theirs, "rot").unwrap();
        assert_eq!(checkpoints.newest(run_id).unwrap().step, 20);
        std::fs::remove_file(&theirs).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &theirs).unwrap();
        assert_eq!(checkpoints.newest(run_id).unwrap().step, 20);
    }
}
