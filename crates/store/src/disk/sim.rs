//! A disk in memory that forgets, at a crash, what was not synced. For tests of this crate and of its users.
//!
//! Each file is its synced contents and the operations since. A crash keeps of those, for each file, a whole number of
//! operations (any subset when `reorder`), the last of them torn at a byte; lost appends between kept ones read as
//! zeros, as a file system that wrote the size before the data shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Disk;

/// A shared handle: the test keeps one, the store gets another.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<Files>>,
}

#[derive(Debug, Clone, Default)]
struct Files {
    files: BTreeMap<String, Contents>,
    /// Names that a crash keeps.
    names: BTreeSet<String>,
    syncs: u64,
    fail_sync_at: Option<u64>,
    dead: bool,
}

#[derive(Debug, Clone, Default)]
struct Contents {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Ends of the appends since the last sync, as offsets into `now`.
    appends: Vec<usize>,
}

/// What a crash leaves of the bytes that were never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Nothing.
    Lost,
    /// All of it.
    Kept,
    /// The first bytes, this many thousandths of them.
    Prefix(u32),
    /// All but the first append, which reads as zeros.
    Hole,
    /// The right size, only zeros.
    Zeros,
    /// The first bytes, exactly so many.
    Cut(usize),
    /// The right size; of its blocks of so many bytes those whose bit is set, from the lowest on and over again, and
    /// zeros for the others: a disk writes blocks in any order.
    Blocks { bytes: usize, kept: u64 },
}

impl SimDisk {
    /// Syncs so far, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The `at`-th sync from the start fails, and so does everything after it.
    pub fn fail_sync_at(&self, at: u64) {
        self.state().fail_sync_at = Some(at);
    }

    /// The bytes of a file as a reader sees them now.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().files.get(name).map_or_else(Vec::new, |file| file.now.clone())
    }

    /// Replaces a file's bytes, as rot does: durable at once.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let contents = Contents { synced: bytes.clone(), now: bytes, appends: Vec::new() };
        self.state().files.insert(name.to_owned(), contents);
    }

    /// Changes bits of one byte, as rot does: durable at once.
    pub fn flip(&self, name: &str, at: usize, mask: u8) {
        let mut state = self.state();
        let file = state.files.get_mut(name).expect("a file that is there");
        file.now[at] ^= mask;
        file.synced[at] ^= mask;
    }

    /// Bytes at the end of a file that were never synced.
    pub fn unsynced(&self, name: &str) -> usize {
        self.state().files.get(name).map_or(0, |file| file.now.len().saturating_sub(file.synced.len()))
    }

    /// What a power cut at this moment leaves: a new disk, this one untouched.
    pub fn crash(&self, tear: Tear) -> Self {
        let state = self.state();
        let files = state
            .files
            .iter()
            .filter(|(name, _)| state.names.contains(*name) || tear != Tear::Lost)
            .map(|(name, file)| {
                let bytes = file.after(tear);
                let contents = Contents { synced: bytes.clone(), now: bytes, appends: Vec::new() };
                (name.clone(), contents)
            })
            .collect::<BTreeMap<_, _>>();
        let names = files.keys().cloned().collect();
        Self { state: Arc::new(Mutex::new(Files { files, names, ..Files::default() })) }
    }

    fn state(&self) -> MutexGuard<'_, Files> {
        self.state.lock().expect("no test panics while it holds the disk")
    }
}

impl Contents {
    fn after(&self, tear: Tear) -> Vec<u8> {
        let from = self.synced.len().min(self.now.len());
        let mut bytes = self.now.clone();
        match tear {
            Tear::Lost => bytes = self.synced.clone(),
            Tear::Kept => {}
            Tear::Prefix(thousandths) => {
                bytes.truncate(from + (self.now.len() - from) * thousandths.min(1000) as usize / 1000);
            }
            Tear::Hole => {
                let end = self.appends.first().copied().unwrap_or(from).max(from);
                bytes[from..end].fill(0);
            }
            Tear::Zeros => bytes[from..].fill(0),
            Tear::Cut(length) => bytes.truncate(from + length.min(self.now.len() - from)),
            Tear::Blocks { bytes: size, kept } => {
                let lost = |block: &usize| kept >> (block % 64) & 1 == 0;
                for block in (from / size..=bytes.len() / size).filter(lost) {
                    let end = ((block + 1) * size).min(bytes.len());
                    bytes[(block * size).clamp(from, end)..end].fill(0);
                }
            }
        }
        bytes
    }
}

impl Files {
    fn alive(&self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the simulated disk has failed"));
        }
        Ok(())
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.fail_sync_at == Some(self.syncs) {
            self.dead = true;
        }
        self.alive()
    }

    fn file(&self, name: &str) -> io::Result<&Contents> {
        self.files.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.state().files.get(name).map(|file| file.now.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let bytes = &state.file(name)?.now;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = bytes.get(start..start.saturating_add(length));
        part.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let file = state.files.entry(name.to_owned()).or_default();
        file.now.extend_from_slice(bytes);
        file.appends.push(file.now.len());
        Ok(())
    }

    fn truncate(&mut self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.now.truncate(usize::try_from(size).map_err(io::Error::other)?);
        Ok(())
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = self.state();
        state.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let same = state.file(name)?.now.get(start..start + bytes.len()) == Some(bytes);
        if same { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.count_sync()?;
        let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.synced = file.now.clone();
        file.appends.clear();
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.count_sync()?;
        state.names = state.files.keys().cloned().collect();
        Ok(())
    }
}
