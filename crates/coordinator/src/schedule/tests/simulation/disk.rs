//! A disk that does what disks do: it is full, an fsync fails and drops the pages, a power cut tears what was not synced.
//! The death of a process leaves the page cache as it is: bytes that nobody synced can be read and are still not safe.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use isoloss_store::disk::Disk;

use super::*;

/// A shared handle: the world keeps one, each life of the store gets another.
#[derive(Debug, Clone, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    files: BTreeMap<String, Contents>,
    names: BTreeSet<String>,
    /// Bytes that still fit, where the disk is full.
    room: Option<usize>,
    /// The next sync fails.
    fail_sync: bool,
    /// Planted: a failed sync is tried again.
    retries: bool,
}

#[derive(Debug, Default)]
struct Contents {
    /// As a reader sees them.
    now: Vec<u8>,
    /// So many of them are clean, and safe but for the holes.
    clean: usize,
    /// Pages that a failed sync dropped: clean, and not what stands on the disk.
    holes: Vec<(usize, usize)>,
    /// From here on pages are dirty again.
    rewritten: Option<usize>,
}

impl FaultyDisk {
    pub(super) fn new(retries: bool) -> Self {
        Self(Arc::new(Mutex::new(Files { retries, ..Files::default() })))
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().expect("no thread but one uses the disk")
    }

    pub(super) fn fill(&self, room: Option<usize>) {
        self.files().room = room;
    }

    pub(super) fn is_full(&self) -> bool {
        self.files().room.is_some()
    }

    pub(super) fn fail_next_sync(&self, fails: bool) {
        self.files().fail_sync = fails;
    }

    /// Power goes: of what was not synced stays nothing, all, a prefix or zeros.
    pub(super) fn cut_power(&self, dice: &mut Dice) {
        let mut files = self.files();
        let names = files.names.clone();
        let keeps_names = dice.chance(50);
        files.files.retain(|name, _| keeps_names || names.contains(name));
        for file in files.files.values_mut() {
            for (from, to) in std::mem::take(&mut file.holes) {
                let to = to.min(file.now.len());
                file.now[from.min(to)..to].fill(0);
            }
            let dirty = file.now.len().saturating_sub(file.clean) as u64;
            match dice.roll(4) {
                0 => file.now.truncate(file.clean),
                1 => {}
                2 => file.now.truncate(file.clean + usize::try_from(dice.roll(dirty + 1)).unwrap()),
                _ => {
                    let clean = file.clean.min(file.now.len());
                    file.now[clean..].fill(0);
                }
            }
            file.clean = file.now.len();
            file.rewritten = None;
        }
        files.names = files.files.keys().cloned().collect();
    }
}

impl Files {
    fn sync_once(&mut self, name: Option<&str>) -> io::Result<()> {
        let fails = std::mem::take(&mut self.fail_sync);
        if let Some(name) = name {
            let file = self.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            if fails && file.clean < file.now.len() {
                file.holes.push((file.clean, file.now.len()));
            }
            let rewritten = file.rewritten.take().filter(|_| !fails).unwrap_or(usize::MAX);
            file.holes.retain(|(from, _)| *from < rewritten);
            file.clean = file.now.len();
        }
        if fails { Err(io::Error::other("the fsync failed")) } else { Ok(()) }
    }

    fn sync(&mut self, name: Option<&str>) -> io::Result<()> {
        let synced = self.sync_once(name);
        if synced.is_err() && self.retries { self.sync_once(name) } else { synced }
    }
}

impl Disk for FaultyDisk {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.files().files.get(name).map(|file| file.now.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let files = self.files();
        let file = files.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = file.now.get(start..start.saturating_add(length));
        part.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files();
        let fits = files.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        files.files.entry(name.to_owned()).or_default().now.extend_from_slice(&bytes[..fits]);
        if let Some(room) = &mut files.room {
            *room -= fits;
        }
        if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn truncate(&mut self, name: &str, size: u64) -> io::Result<()> {
        let mut files = self.files();
        let file = files.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.now.truncate(usize::try_from(size).map_err(io::Error::other)?);
        // Taken to be safe at once: a crash before the sync only makes the same torn tail again.
        file.clean = file.clean.min(file.now.len());
        Ok(())
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files();
        let file = files.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        assert_eq!(file.now.get(start..start + bytes.len()), Some(bytes), "the same bytes again");
        // Dirty again until the next sync. A write in place of what the disk holds already cannot tear.
        file.rewritten = Some(file.rewritten.map_or(start, |before| before.min(start)));
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.files().sync(Some(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut files = self.files();
        files.sync(None)?;
        files.names = files.files.keys().cloned().collect();
        Ok(())
    }
}
