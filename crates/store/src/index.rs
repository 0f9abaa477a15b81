//! The index: sled holding an image of the ledger, so that opening need not read the whole journal. It can always be
//! thrown away. It holds what became of sweeps and runs since they were admitted, and places: admissions and outcomes
//! stay in the journal, where a checksum guards each read. A row is written again at every step of its run, so it is small,
//! and a run of which nothing is known but its admission has none.
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
use crate::ledger::{Kept, Key, Ledger, SweepRow};
use crate::record::{Admission, Record};

mod glimpse;
mod witness;

pub(crate) use glimpse::{Glimpse, glimpse};
pub(crate) use witness::Witness;

/// Format of the rows; another one is rebuilt.
const FORMAT: u32 = 4;
/// Against sled's default of 1 GiB; the ledger itself is in memory, and rows are read back only at opening.
const CACHE_BYTES: u64 = 8 << 20;
/// Rows read with one look into sled, at opening. It counts looks at a page, not rows, and forgets nothing before it has
/// counted 64 looks in each of 256 parts of its cache: read in one sweep, all rows would stay in memory for good.
const READ_ROWS: usize = 2;
const META: &[u8] = b"meta";
/// First bytes of the keys of rows.
const RUN: u8 = b'r';
const SWEEP: u8 = b's';
const DRAINED: u8 = b'd';
/// In the place of an id in the key of the row that there is once.
const NOBODY: [u8; 32] = [0; 32];
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

/// Reads the admission that stands at a place of the journal.
pub(crate) type ReadAdmission<'a> = &'a dyn Fn(Place) -> Option<Arc<Admission>>;

/// Takes a row of some kind: the id in its key, and its value.
type TakeRow<'a> = &'a mut dyn FnMut(Digest, &[u8]) -> Result<(), IndexError>;

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
    row: SweepRow,
    place: StoredPlace,
}

#[derive(Serialize, Deserialize)]
struct StoredRun {
    kept: Kept,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<StoredPlace>,
}

impl Meta {
    fn tip(&self) -> Tip {
        Tip { sequence: self.sequence, newest: self.newest, end: self.end, chain: *self.chain.as_bytes() }
    }
}

/// Opens or makes a sled directory. One that was closed in this process may keep its lock until its last thread has gone.
pub(crate) fn database(path: &Path) -> Result<sled::Db, IndexError> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
    let open = || guarded(|| Ok(config.open()));
    let mut db = open()?;
    for _ in 0..LOCK_TRIES {
        if !matches!(&db, Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock")) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        db = open()?;
    }
    Ok(db?)
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
        Ok(Self { db: database(path)?, rows: [0; 32] })
    }

    /// How far the journal had been made durable when it was written last: no row is written before the fsync of its
    /// record. `None` for an index that nothing was written to.
    pub(crate) fn tip(&self) -> Result<Option<Tip>, IndexError> {
        Ok(guarded(|| self.meta())?.map(|meta| meta.tip()))
    }

    fn meta(&self) -> Result<Option<Meta>, IndexError> {
        let Some(meta) = self.db.get(META)? else {
            return if self.db.is_empty() { Ok(None) } else { Err(IndexError::Unfaithful("no meta row")) };
        };
        let meta: Meta = serde_json::from_slice(&meta)?;
        if meta.format != FORMAT {
            return Err(IndexError::Unfaithful("another format"));
        }
        if meta.tip() == Tip::nowhere() {
            return Err(IndexError::Unfaithful("it was not written to its end"));
        }
        Ok(Some(meta))
    }

    /// Reads the image back, if it is a faithful one; `admission` reads from the journal.
    pub(crate) fn load(&mut self, admission: ReadAdmission<'_>) -> Result<Image, IndexError> {
        guarded(|| self.load_image(admission))
    }

    fn load_image(&mut self, admission: ReadAdmission<'_>) -> Result<Image, IndexError> {
        let meta = self.meta()?.ok_or(IndexError::Unfaithful("it is empty"))?;
        self.rows = [0; 32];
        let mut image = Image { ledger: Ledger::default(), places: Places::default(), tip: meta.tip() };
        let mut sweeps: Vec<(SweepId, StoredSweep)> = Vec::new();
        self.each(SWEEP, &mut |id, value| {
            sweeps.push((SweepId(id), serde_json::from_slice(value)?));
            Ok(())
        })?;
        sweeps.sort_by_key(|(_, stored)| stored.place.sequence);
        for (id, StoredSweep { row, place }) in sweeps {
            let place = Place::from(place);
            let admission =
                admission(place).ok_or(IndexError::Unfaithful("an admission that is not in the journal"))?;
            image.ledger.apply(&Record::Admitted { admission });
            image.places.admissions.insert(id, place);
            if !image.ledger.restore_sweep(id, row) {
                return Err(IndexError::Unfaithful("another sweep's admission"));
            }
        }
        self.each(RUN, &mut |id, value| {
            let stored: StoredRun = serde_json::from_slice(value)?;
            image.places.outcomes.extend(stored.outcome.map(|place| (RunId(id), place.into())));
            match image.ledger.restore_run(stored.kept) {
                true => Ok(()),
                false => Err(IndexError::Unfaithful("a run that no sweep has")),
            }
        })?;
        self.each(DRAINED, &mut |_, value| {
            image.ledger.restore_drained(serde_json::from_slice(value)?);
            Ok(())
        })?;
        if self.rows != *meta.rows.as_bytes() {
            return Err(IndexError::Unfaithful("rows lost or old"));
        }
        Ok(image)
    }

    /// Hands out every row of a kind.
    fn each(&mut self, kind: u8, take: TakeRow<'_>) -> Result<(), IndexError> {
        let mut from = vec![kind];
        loop {
            let begun = from.clone();
            for item in self.db.range(begun.clone()..vec![kind + 1]).take(READ_ROWS) {
                let (key, value) = item?;
                toggle(&mut self.rows, &key, &value);
                let id = key.get(1..).and_then(|id| <[u8; 32]>::try_from(id).ok());
                take(Digest::from_bytes(id.ok_or(IndexError::Unfaithful("a key of another length"))?), &value)?;
                // The next key that there can be.
                from = [key.as_ref(), &[0]].concat();
            }
            if from == begun {
                return Ok(());
            }
        }
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
                Key::Drained => encode_drained(ledger, &mut rows)?,
            }
        }
        let mut batch = sled::Batch::default();
        for (key, Encoded { value, is_as_admitted }) in rows {
            match self.db.get(&key)? {
                Some(old) => toggle(&mut self.rows, &key, &old),
                None if is_as_admitted => continue,
                None => {}
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

/// sled asserts on what it finds on disk: a panic there is one more way of saying "corrupt".
fn guarded<T>(read: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| IndexError::Panicked)?
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

struct Encoded {
    value: Vec<u8>,
    /// Says nothing that the admission does not say.
    is_as_admitted: bool,
}

fn key(kind: u8, id: &Digest) -> Vec<u8> {
    [&[kind], id.as_bytes().as_slice()].concat()
}

type Rows = BTreeMap<Vec<u8>, Encoded>;

fn encode_run(id: RunId, ledger: &Ledger, places: &Places, out: &mut Rows) -> Result<(), IndexError> {
    let Some(row) = ledger.run(id) else {
        return Ok(());
    };
    let kept = Kept::of(id, row);
    let is_as_admitted = kept.is_as_admitted();
    let stored = StoredRun { kept, outcome: places.outcomes.get(&id).map(|place| (*place).into()) };
    out.insert(key(RUN, &id.0), Encoded { value: serde_json::to_vec(&stored)?, is_as_admitted });
    Ok(())
}

fn encode_drained(ledger: &Ledger, out: &mut Rows) -> Result<(), IndexError> {
    let value = serde_json::to_vec(ledger.drained())?;
    out.insert(key(DRAINED, &Digest::from_bytes(NOBODY)), Encoded { value, is_as_admitted: false });
    Ok(())
}

fn encode_sweep(id: SweepId, ledger: &Ledger, places: &Places, out: &mut Rows) -> Result<(), IndexError> {
    let (Some(row), Some(place)) = (ledger.sweep(id), places.admissions.get(&id)) else {
        return Ok(());
    };
    let stored = StoredSweep { row: row.clone(), place: (*place).into() };
    out.insert(key(SWEEP, &id.0), Encoded { value: serde_json::to_vec(&stored)?, is_as_admitted: false });
    Ok(())
}
