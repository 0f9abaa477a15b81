//! The keys of leases. An attempt's number is shown to every reader and can be guessed, so it says nothing of who reports
//! on it; the key goes to the lease's holder alone. Keys are derived from one secret of the data directory: nothing of
//! them is journaled, and a coordinator that starts again knows all of them. It fences nothing: that is the attempt's.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use isoloss_store::Ledger;
use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::LeaseKey;
use serde::{Deserialize, Serialize};

use crate::tokens;

const FILE: &str = "lease-keys.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    secret: Digest,
    /// Attempts that were given out when there was no secret yet, or another one (an older isoloss, a restored store), and
    /// whose end is not known: their holders cannot show a key.
    unlocked: Vec<(RunId, u64)>,
}

/// All keys.
pub(crate) struct Keys {
    secret: [u8; 32],
    unlocked: BTreeMap<RunId, u64>,
}

impl Keys {
    /// The keys of a data directory; made where there are none, before any lease of theirs is given.
    pub(crate) fn open(data_dir: &Path, ledger: &Ledger) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let stored = match std::fs::read(&path) {
            Ok(text) => understood(&path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let open = ledger.runs().filter(|(_, row)| row.attempt > 0 && row.settled.is_none());
                let unlocked = open.map(|(run_id, row)| (run_id, row.attempt)).collect();
                let secret = tokens::random()?.parse().map_err(io::Error::other)?;
                let stored = Stored { version: VERSION, secret, unlocked };
                keep(data_dir, &path, &stored)?;
                stored
            }
            Err(error) => return Err(error),
        };
        Ok(Self { secret: *stored.secret.as_bytes(), unlocked: stored.unlocked.into_iter().collect() })
    }

    /// The key of one attempt at a run.
    pub(crate) fn key(&self, run_id: RunId, attempt: u64) -> LeaseKey {
        LeaseKey(self.derive(run_id, attempt).to_hex().to_string())
    }

    /// Whether who shows this key was given the attempt. What the comparison takes says nothing about the right one.
    pub(crate) fn opens(&self, run_id: RunId, attempt: u64, key: Option<&LeaseKey>) -> bool {
        let shown = key.and_then(|key| blake3::Hash::from_hex(&key.0).ok());
        shown.is_some_and(|shown| shown == self.derive(run_id, attempt))
            || self.unlocked.get(&run_id).is_some_and(|unlocked| *unlocked == attempt)
    }

    fn derive(&self, run_id: RunId, attempt: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(run_id.0.as_bytes());
        hasher.update(&attempt.to_le_bytes());
        hasher.finalize()
    }
}

fn understood(path: &Path, text: &[u8]) -> io::Result<Stored> {
    let garbled = |what: String| {
        let advice = "move it away: attempts that are under way then count without a key";
        io::Error::other(format!("{} is not what was written there: {what}; {advice}", path.display()))
    };
    let stored: Stored = serde_json::from_slice(text).map_err(|error| garbled(error.to_string()))?;
    match stored.version {
        VERSION => Ok(stored),
        other => Err(garbled(format!("version {other}, expected {VERSION}"))),
    }
}

fn keep(data_dir: &Path, path: &Path, stored: &Stored) -> io::Result<()> {
    let partial = data_dir.join(".lease-keys.partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use isoloss_store::{Record, sample};

    use super::*;

    #[test]
    fn a_key_opens_its_own_attempt_and_a_restart_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (sample::planned(1).run_id, sample::planned(2).run_id);
        let keys = Keys::open(dir.path(), &Ledger::default()).unwrap();
        let key = keys.key(one, 1);
        assert!(keys.opens(one, 1, Some(&key)));
        assert!(!keys.opens(one, 2, Some(&key)) && !keys.opens(two, 1, Some(&key)) && !keys.opens(one, 1, None));
        for forged in ["", "no digits", &"0".repeat(64), &key.0[..63], &format!("{}0", key.0)] {
            assert!(!keys.opens(one, 1, Some(&LeaseKey(forged.to_owned()))), "{forged}");
        }
        assert!(!format!("{key:?}").contains(&key.0), "no log shows it");
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Keys::open(dir.path(), &Ledger::default()).unwrap().opens(one, 1, Some(&key)));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let garbled = Keys::open(dir.path(), &Ledger::default()).err().unwrap().to_string();
        assert!(garbled.contains(FILE) && garbled.contains("move it away"), "{garbled}");
    }

    #[test]
    fn an_attempt_from_before_there_were_keys_counts_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let (open, ended) = (sample::planned(1), sample::planned(2));
        let (one, two) = (open.run_id, ended.run_id);
        let mut ledger = Ledger::default();
        ledger.apply(&Record::Admitted { admission: Arc::new(sample::admission("old", [open, ended])) });
        for run_id in [one, two] {
            let (worker, slot) = ("w".to_owned(), "cpu:0".to_owned());
            ledger.apply(&Record::Granted { run_id, attempt: 1, worker, slot });
        }
        let outcome = Box::new(sample::diverged());
        ledger.apply(&Record::Settled { run_id: two, attempt: 1, worker: "w".to_owned(), outcome });
        drop(Keys::open(dir.path(), &ledger).unwrap());
        // Also in the next life of the coordinator, and no attempt but those.
        let keys = Keys::open(dir.path(), &ledger).unwrap();
        assert!(keys.opens(one, 1, None) && !keys.opens(one, 2, None) && !keys.opens(two, 1, None));
        assert!(keys.opens(one, 1, Some(&LeaseKey("of another secret".to_owned()))));
    }
}
