//! `store verify`: reads the whole journal of a coordinator that is not running, or a backup, and checks every record.
//! It writes nothing, and makes no store where there is none.

use std::path::Path;

use isoloss_store::journal::{Damage, DamageKind};
use isoloss_store::{Inspected, Loss, Progress, Store, StoreError};
use serde::Serialize;

/// What a check found.
#[derive(Debug, Clone)]
pub struct StoreCheck {
    pub summary: StoreSummary,
    /// What is wrong, for people; nothing, mostly.
    pub damage: Option<String>,
}

/// The store in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct StoreSummary {
    pub schema_version: u32,
    /// Format of the journal.
    pub format: u32,
    pub records: u64,
    pub bytes: u64,
    pub sweeps: u64,
    pub runs: u64,
    /// Runs with an accepted outcome.
    pub settled: u64,
    pub sound: bool,
    /// Vouches for every record and their order: equal digests, equal journals.
    pub digest: String,
}

impl StoreSummary {
    pub(crate) fn of(inspected: &Inspected) -> Self {
        let ledger = &inspected.ledger;
        Self {
            schema_version: isoloss_wire::api::SCHEMA_VERSION,
            format: isoloss_store::journal::FORMAT,
            records: inspected.scan.tip.sequence,
            bytes: inspected.size_bytes,
            sweeps: ledger.sweeps().count() as u64,
            runs: ledger.runs().count() as u64,
            settled: ledger.runs().filter(|(_, row)| row.settled.is_some()).count() as u64,
            sound: inspected.is_sound(),
            digest: isoloss_sweep::Digest::from_bytes(inspected.scan.tip.chain).to_string(),
        }
    }
}

/// Why a store cannot be checked or worked on.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No store, or no backup.
    #[error("{0}")]
    Missing(StoreError),
    /// A file or folder that never was one.
    #[error("{0}")]
    NotABackup(StoreError),
    #[error("{0}{advice}", advice = .0.advice())]
    Store(StoreError),
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(_) | StoreError::NoFile(_) => Self::Missing(error),
            StoreError::NotABackup { .. } => Self::NotABackup(error),
            error => Self::Store(error),
        }
    }
}

/// Checks the store under `data_dir`, refused while a coordinator uses it, or the backup `file`.
pub fn verify_store(data_dir: &Path, file: Option<&Path>, progress: Progress<'_>) -> Result<StoreCheck, VerifyError> {
    let inspected = match file {
        Some(file) => Store::inspect_file(file, progress)?,
        None => Store::inspect(&crate::Config::new(data_dir.to_owned()).store_dir(), progress)?,
    };
    let damage = match file {
        Some(file) => inspected.damage_of_backup(file).map(|error| error.to_string()),
        None => words(&inspected),
    };
    Ok(StoreCheck { summary: StoreSummary::of(&inspected), damage })
}

/// Of the journal of a data directory: what is wrong, where, and what becomes of it.
fn words(inspected: &Inspected) -> Option<String> {
    if let Some(loss) = &inspected.loss {
        return Some(format!("the journal is not whole: {loss}{}", loss.advice()));
    }
    let Damage { kind, offset, bytes } = inspected.scan.damage?;
    let advice = match kind {
        DamageKind::TornTail => "; a coordinator that starts here sets it aside in a file and goes on".to_owned(),
        DamageKind::Rot => format!(": no coordinator starts on it{}", Loss::WAYS_OUT),
    };
    Some(format!("the journal is damaged at byte {offset}, {bytes} bytes before its end: {kind}{advice}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use isoloss_store::{Record, sample};

    use super::*;

    fn verify(dir: &Path) -> Result<StoreCheck, VerifyError> {
        verify_store(dir, None, &mut |_, _| {})
    }

    fn names(dir: &Path) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_store_is_checked_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere");
        assert!(matches!(verify(&nowhere), Err(VerifyError::Missing(_))));
        assert!(!nowhere.exists());

        let store_dir = dir.path().join("store");
        let mut store = Store::open(&store_dir).unwrap();
        let admission = sample::admission("one", [sample::planned(1)]);
        store.append(&Record::Admitted { admission: admission.into() }).unwrap();
        store.commit().unwrap();
        assert!(matches!(verify(dir.path()), Err(VerifyError::Store(StoreError::Locked { .. }))));
        drop(store);
        let before = names(&store_dir);
        let check = verify(dir.path()).unwrap();
        assert!(check.summary.sound && check.damage.is_none());
        assert_eq!((check.summary.records, check.summary.sweeps, check.summary.runs), (1, 1, 1));

        // A torn tail is told and left where it is; a record that the index has seen whole is lost.
        let journal = store_dir.join("journal");
        let whole = std::fs::read(&journal).unwrap();
        let torn = [&whole[..], &whole[whole.len() / 2..whole.len() / 2 + 10]].concat();
        for (bytes, told) in [(&torn[..], "torn tail"), (&whole[..whole.len() - 3], "1 record(s) are lost")] {
            std::fs::write(&journal, bytes).unwrap();
            let check = verify(dir.path()).unwrap();
            let damage = check.damage.unwrap();
            assert!(!check.summary.sound && damage.contains(told), "{told}: {damage}");
            assert_eq!(std::fs::read(&journal).unwrap(), bytes);
        }
        assert_eq!(names(&store_dir), before);
    }
}
