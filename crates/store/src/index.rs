//! The index: sled holding an image of the ledger, so that opening need not read the whole journal. It can always be
//! thrown away. It holds rows and places; outcomes and sweep files stay in the journal, where a checksum guards each
//! read, and no value here grows past some kilobytes but a sweep's list of members, which is cut into pieces.
//!
//! sled 0.34.7 acknowledges before a real fsync and may refuse to open after a crash, so nothing here is believed
//! unproved: each batch carries the tip of the journal that it reflects and a digest over all rows, both checked at
//! opening; anything else than a perfect image is a reason to rebuild, not an error.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isoloss_sweep::{Digest, RunId, SweepId};
use serde::{Deserialize, Serialize};

use crate::journal::{Place, Tip};
use crate::ledger::{Key, Ledger, Member, RunRow, SweepRow};

/// Format of the rows; another one is rebuilt.
const FORMAT: u32 = 3;
/// Against sled's default of 1 GiB; the ledger itself is in memory, and rows are read back only at opening.
const CACHE_BYTES: u64 = 8 << 20;
/// Members of a sweep in one value: some 40 KiB.
const MEMBERS_PER_ROW: usize = 200;
/// Rows read with one look into sled, at opening. It counts looks at a page, not rows, and forgets nothing before it has
/// counted 64 looks in each of 256 parts of its cache: read in one sweep, 150 MB of rows would stay in memory for good.
const READ_ROWS: usize = 2;
const META: &[u8] = b"meta";
/// Waits for a lock that is about to be let go: a second together.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the index cannot be used; it is rebuilt or done without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("index: {0}")]
    Sled(#[from] sled::Error),
    #[error("index: {0}")]
    Io(#[from] std::io::Error),
    #[error("index: {0}")]
    Json(#[from] serde_json::Error),
    #[error("index: sled panicked while opening")]
    Panicked,
    #[error("index: not a faithful image: {0}")]
    Unfaithful(&'static str),
}

/// Where in the journal the long values stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Places {
    pub(crate) admissions: BTreeMap<SweepId, Place>,
    pub(crate) outcomes: BTreeMap<RunId, Place>,
}

/// The image as read back.
pub(crate) struct Image {
    pub(crate) ledger: Ledger,
    pub(crate) places: Places,
    pub(crate) tip: Tip,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    format: u32,
    sequence: u64,
    newest: u64,
    end: u64,
    chain: Digest,
    rows: Digest,
}

#[derive(Serialize, Deserialize)]
struct StoredPlace {
    offset: u64,
    length: u32,
    sequence: u64,
}

impl From<Place> for StoredPlace {
    fn from(place: Place) -> Self {
        Self { offset: place.offset, length: place.length, sequence: place.sequence }
    }
}

impl From<StoredPlace> for Place {
    fn from(place: StoredPlace) -> Self {
        Self { offset: place.offset, length: place.length, sequence: place.sequence }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSweep {
    /// Members stand in rows of their own.
    row: SweepRow,
    members: usize,
    place: StoredPlace,
}

#[derive(Serialize, Deserialize)]
struct StoredRun {
    row: RunRow,
    outcome: Option<StoredPlace>,
}

/// An open index.
pub(crate) struct Index {
    db: sled::Db,
    /// XOR of the digests of all rows: cheap to keep, and a lost or old row shows.
    rows: [u8; 32],
}

impl Index {
    /// Opens or makes the sled directory at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        // Sled would make it as the umask says.
        crate::disk::private_folder(path)?;
        remove_torn_snapshots(path)?;
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
        // sled asserts on what it finds on disk; a panic here is one more way of saying "corrupt".
        let open = || catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| IndexError::Panicked);
        let mut db = open()?;
        // A database that was closed in this process may keep its lock until its last thread has gone.
        for _ in 0..LOCK_TRIES {
            if !matches!(&db, Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock")) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            db = open()?;
        }
        Ok(Self { db: db?, rows: [0; 32] })
    }

    /// Reads the image back, if there is a faithful one.
    pub(crate) fn load(&mut self) -> Result<Option<Image>, IndexError> {
        catch_unwind(AssertUnwindSafe(|| self.load_rows())).map_err(|_| IndexError::Panicked)?
    }

    fn load_rows(&mut self) -> Result<Option<Image>, IndexError> {
        let Some(meta) = self.db.get(META)? else {
            return if self.db.is_empty() { Ok(None) } else { Err(IndexError::Unfaithful("no meta row")) };
        };
        let meta: Meta = serde_json::from_slice(&meta)?;
        if meta.format != FORMAT {
            return Err(IndexError::Unfaithful("another format"));
        }
        let mut rows = Rows::default();
        let mut from = Vec::new();
        loop {
            let mut stretch = self.db.range(from.clone()..).take(READ_ROWS).peekable();
            if stretch.peek().is_none() {
                break;
            }
            for item in stretch {
                let (key, value) = item?;
                if key.as_ref() != META {
                    toggle(&mut self.rows, &key, &value);
                    rows.take(&key, &value)?;
                }
                // The next key that there can be.
                from = [key.as_ref(), &[0]].concat();
            }
        }
        if self.rows != *meta.rows.as_bytes() {
            return Err(IndexError::Unfaithful("rows lost or old"));
        }
        let tip = Tip { sequence: meta.sequence, newest: meta.newest, end: meta.end, chain: *meta.chain.as_bytes() };
        rows.image(tip).map(Some)
    }

    /// Writes the touched rows and the tip that they reflect, in one atomic batch.
    pub(crate) fn write(
        &mut self,
        touched: impl IntoIterator<Item = Key>,
        ledger: &Ledger,
        places: &Places,
        tip: Tip,
    ) -> Result<(), IndexError> {
        let mut rows = BTreeMap::new();
        for key in touched {
            match key {
                Key::Run(id) => encode_run(id, ledger, places, &mut rows)?,
                Key::Sweep(id) => encode_sweep(id, ledger, places, &mut rows)?,
            }
        }
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            if let Some(old) = self.db.get(&key)? {
                toggle(&mut self.rows, &key, &old);
            }
            toggle(&mut self.rows, &key, &value);
            batch.insert(key, value);
        }
        let meta = Meta {
            format: FORMAT,
            sequence: tip.sequence,
            newest: tip.newest,
            end: tip.end,
            chain: Digest::from_bytes(tip.chain),
            rows: Digest::from_bytes(self.rows),
        };
        batch.insert(META, serde_json::to_vec(&meta)?);
        Ok(self.db.apply_batch(batch)?)
    }
}

/// Removes the whole directory, to begin anew.
pub(crate) fn remove(path: &Path) -> Result<(), IndexError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) if path.is_file() => Ok(std::fs::remove_file(path)?),
        other => Ok(other?),
    }
}

/// A crash while sled opens can leave `snap.<lsn>.generating`, which the next open takes for the newest snapshot and
/// rejects; the log it was made from is intact.
fn remove_torn_snapshots(path: &Path) -> Result<(), IndexError> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Ok(());
    };
    let torn = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("snap.") && name.ends_with(".generating")
    };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(torn) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn toggle(rows: &mut [u8; 32], key: &[u8], value: &[u8]) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    rows.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(all, one)| *all ^= one);
}

type Encoded = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(kind: u8, id: &Digest, part: Option<u32>) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(id.as_bytes());
    key.extend(part.into_iter().flat_map(u32::to_be_bytes));
    key
}

fn encode_run(id: RunId, ledger: &Ledger, places: &Places, out: &mut Encoded) -> Result<(), IndexError> {
    let Some(row) = ledger.run(id) else {
        return Ok(());
    };
    let stored = StoredRun { row: row.clone(), outcome: places.outcomes.get(&id).map(|place| (*place).into()) };
    out.insert(key(b'r', &id.0, None), serde_json::to_vec(&stored)?);
    Ok(())
}

fn encode_sweep(id: SweepId, ledger: &Ledger, places: &Places, out: &mut Encoded) -> Result<(), IndexError> {
    let (Some(row), Some(place)) = (ledger.sweep(id), places.admissions.get(&id)) else {
        return Ok(());
    };
    for (part, members) in (0u32..).zip(row.members.chunks(MEMBERS_PER_ROW)) {
        out.insert(key(b'm', &id.0, Some(part)), serde_json::to_vec(members)?);
    }
    let stored = StoredSweep {
        row: SweepRow { members: Vec::new(), ..row.clone() },
        members: row.members.len(),
        place: (*place).into(),
    };
    out.insert(key(b's', &id.0, None), serde_json::to_vec(&stored)?);
    Ok(())
}

#[derive(Default)]
struct Rows {
    sweeps: BTreeMap<SweepId, StoredSweep>,
    members: BTreeMap<SweepId, Vec<Member>>,
    runs: BTreeMap<RunId, Arc<RunRow>>,
    outcomes: BTreeMap<RunId, Place>,
}

impl Rows {
    /// Rows come in key order, so the parts of a sweep's members do too.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        let id = key.get(1..33).and_then(|id| <[u8; 32]>::try_from(id).ok());
        let id = Digest::from_bytes(id.ok_or(IndexError::Unfaithful("a key of another length"))?);
        match key[0] {
            b's' => drop(self.sweeps.insert(SweepId(id), serde_json::from_slice(value)?)),
            b'r' => {
                let stored: StoredRun = serde_json::from_slice(value)?;
                self.outcomes.extend(stored.outcome.map(|place| (RunId(id), place.into())));
                self.runs.insert(RunId(id), Arc::new(stored.row));
            }
            b'm' => {
                let part: Vec<Member> = serde_json::from_slice(value)?;
                self.members.entry(SweepId(id)).or_default().extend(part);
            }
            _ => return Err(IndexError::Unfaithful("a key of another kind")),
        }
        Ok(())
    }

    fn image(mut self, tip: Tip) -> Result<Image, IndexError> {
        let mut places = Places { outcomes: self.outcomes, ..Places::default() };
        let mut sweeps = BTreeMap::new();
        for (id, stored) in self.sweeps {
            let members = self.members.remove(&id).unwrap_or_default();
            if members.len() != stored.members {
                return Err(IndexError::Unfaithful("members of a sweep lost"));
            }
            places.admissions.insert(id, stored.place.into());
            sweeps.insert(id, SweepRow { members, ..stored.row });
        }
        Ok(Image { ledger: Ledger::from_rows(sweeps, self.runs), places, tip })
    }
}
