//! The record of truth: one append-only file of checksummed, hash-chained frames. It knows no record types: payloads
//! are bytes, each with a sequence number and the place where it stands.
//!
//! ```text
//! file   "isoloss journal 1\n" frame*
//! frame  magic[4] length:u32 sequence:u64 group:u64 chain[32] crc:u32 payload[length]     (little endian)
//! ```
//!
//! `chain` is BLAKE3(chain before, sequence, payload): a frame vouches for all before it. `crc` is CRC-32 of the header
//! before it and the payload: a frame read alone is checked without its past. `group` is the sequence number of the
//! first frame of its commit: at most one group is ever unsynced, so damage that is followed by a valid frame of a later
//! group is rot and not a torn tail, and the two are told apart.

use std::io;

use crate::disk::Disk;

mod frame;
mod header;
mod pieces;
mod scan;
#[cfg(test)]
mod tests;

pub use frame::PAYLOAD_BYTES_MAX;
pub use pieces::Gap;
pub use scan::{Damage, DamageKind, Entry, Scan};

use frame::Frame;

/// The journal's file name.
pub const FILE: &str = "journal";
/// Rises when an older isoloss could not read what a newer one writes.
pub const FORMAT: u32 = 1;
pub(crate) const HEADER: &[u8] = b"isoloss journal 1\n";
/// What every header begins with, whatever its format.
pub(crate) const NAME: &[u8] = b"isoloss journal ";

/// Why the journal does not go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal: {0}")]
    Io(#[from] io::Error),
    #[error("journal: damaged at byte {offset}: {kind}")]
    Damaged { offset: u64, kind: DamageKind },
    /// Nothing was read on, and nothing was changed.
    #[error(
        "journal: written in format {found}, and this version of isoloss reads formats up to {known}: use the version that wrote it, or a newer one"
    )]
    Newer { found: u32, known: u32 },
    #[error("journal: a record of {0} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    TooLarge(usize),
    /// An earlier write or fsync failed: nothing is acknowledged until a new process has replayed the file.
    #[error("journal: an earlier write failed, nothing more is accepted")]
    Poisoned,
}

/// Where a frame stands and what it proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub length: u32,
    pub sequence: u64,
}

/// The end of the journal: what comes next is chained to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Frames so far; the first frame has sequence number 1.
    pub sequence: u64,
    /// Offset of the newest frame, 0 before the first.
    pub newest: u64,
    /// Where the next frame goes.
    pub end: u64,
    pub chain: [u8; 32],
}

impl Tip {
    /// A tip that no journal holds: the mark of an unfinished index.
    pub(crate) fn nowhere() -> Self {
        Self { sequence: u64::MAX, ..Self::start() }
    }

    pub(crate) fn start() -> Self {
        Self { sequence: 0, newest: 0, end: HEADER.len() as u64, chain: *blake3::hash(HEADER).as_bytes() }
    }
}

/// Room for staged frames that is kept from one commit to the next; a large admission's goes back.
const PENDING_KEPT_BYTES: usize = 1 << 20;

/// An open journal.
pub struct Journal {
    disk: Box<dyn Disk>,
    tip: Tip,
    /// First sequence number of the group that is not synced yet.
    group: Option<u64>,
    pending: Vec<u8>,
    poisoned: bool,
}

impl Journal {
    /// Makes the file where it is missing, or was torn before its first frame. Nothing is read yet: see [`Self::scan`].
    pub fn open(mut disk: Box<dyn Disk>) -> Result<Self, JournalError> {
        let size = disk.size(FILE)?;
        let begin = HEADER.len() as u64;
        if size.unwrap_or(0) < begin {
            if let Some(size) = size {
                header::check_begun(&disk.read(FILE, 0, size as usize)?)?;
                disk.truncate(FILE, 0)?;
            }
            disk.append(FILE, HEADER)?;
            disk.sync(FILE)?;
            disk.sync_names()?;
        } else {
            let found = disk.read(FILE, 0, HEADER.len())?;
            if size == Some(begin) && header::is_torn(&found) {
                disk.truncate(FILE, 0)?;
                return Self::open(disk);
            }
            header::check(disk.as_ref(), &found)?;
        }
        Ok(Self { disk, tip: Tip::start(), group: None, pending: Vec::new(), poisoned: false })
    }

    /// A journal that is there, to be read: nothing is written.
    pub fn existing(disk: Box<dyn Disk>) -> Result<Self, JournalError> {
        let size = disk.size(FILE)?.unwrap_or(0);
        if size < HEADER.len() as u64 {
            header::check_begun(&disk.read(FILE, 0, size as usize)?)?;
            return Err(JournalError::Damaged { offset: size, kind: DamageKind::TornTail });
        }
        let found = disk.read(FILE, 0, HEADER.len())?;
        header::check(disk.as_ref(), &found)?;
        Ok(Self { disk, tip: Tip::start(), group: None, pending: Vec::new(), poisoned: false })
    }

    /// A journal that is there and may be damaged anywhere, its first line included: for [`Self::pieces`].
    pub fn damaged(disk: Box<dyn Disk>) -> Result<Self, JournalError> {
        let size = disk.size(FILE)?.unwrap_or(0);
        let found = disk.read(FILE, 0, HEADER.len().min(usize::try_from(size).unwrap_or(usize::MAX)))?;
        if found.len() == HEADER.len()
            && let Err(newer @ JournalError::Newer { .. }) = header::check(disk.as_ref(), &found)
        {
            return Err(newer);
        }
        Ok(Self { disk, tip: Tip::start(), group: None, pending: Vec::new(), poisoned: false })
    }

    /// The newest frame and what it proves, appended ones included.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// Bytes in the file.
    pub fn size_bytes(&self) -> u64 {
        self.tip.end
    }

    /// Whether a write failed since it was opened.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Stages a payload; it is durable, and may be acknowledged, after [`Self::commit`].
    pub fn append(&mut self, payload: &[u8]) -> Result<Place, JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        let sequence = self.tip.sequence + 1;
        let group = *self.group.get_or_insert(sequence);
        let frame = Frame::seal(&self.tip.chain, sequence, group, payload)?;
        let place = Place { offset: self.tip.end, length: frame.length, sequence };
        frame.write(payload, &mut self.pending);
        self.tip = Tip { sequence, newest: place.offset, end: self.tip.end + frame.size(), chain: frame.chain };
        Ok(place)
    }

    /// Writes and syncs all that was appended, with one fsync. After an error nothing was acknowledged and nothing ever
    /// will be: a failed fsync may have dropped the pages, and a second one would report success.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.disk.append(FILE, &self.pending).and_then(|()| self.disk.sync(FILE));
        if let Err(error) = written {
            self.poisoned = true;
            return Err(error.into());
        }
        self.pending.clear();
        self.pending.shrink_to(PENDING_KEPT_BYTES);
        self.group = None;
        Ok(())
    }

    /// Reads one committed payload, checked.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, JournalError> {
        let damaged = JournalError::Damaged { offset: place.offset, kind: DamageKind::Rot };
        let size = Frame::HEADER_BYTES + place.length as usize;
        let mut bytes = match self.disk.read(FILE, place.offset, size) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged),
            Err(error) => return Err(error.into()),
        };
        match Frame::parse(&bytes) {
            Some(frame) if frame.sequence == place.sequence && frame.length == place.length => {
                bytes.drain(..Frame::HEADER_BYTES);
                Ok(bytes)
            }
            _ => Err(damaged),
        }
    }

    /// Reads on from `from`, checking every frame, and hands out each payload. The journal is then open for appending
    /// after the last good frame. A torn tail is moved to a file of its own and reported; rot is reported and refuses.
    pub fn replay(&mut self, from: Tip, each: &mut dyn FnMut(Entry<'_>)) -> Result<Option<Damage>, JournalError> {
        let mut last = (0, from.end);
        let scan = scan::scan(self.disk.as_ref(), from, &mut |entry| {
            if entry.group != last.0 {
                last = (entry.group, entry.place.offset);
            }
            each(entry);
        })?;
        self.tip = scan.tip;
        match &scan.damage {
            None => {}
            Some(damage) if damage.kind == DamageKind::TornTail => self.set_aside(damage.offset)?,
            Some(damage) => {
                return Err(JournalError::Damaged { offset: damage.offset, kind: damage.kind });
            }
        }
        self.secure(last.1)?;
        Ok(scan.damage)
    }

    /// Makes durable what was read from `offset` on. The process before this one may have ended between write and fsync,
    /// or because the fsync failed: then its last group stands in the page cache and not on the disk, clean, so that no
    /// later fsync would write it (Rebello et al., "Can applications recover from fsync failures?", ATC 2020).
    fn secure(&mut self, offset: u64) -> Result<(), JournalError> {
        let length = usize::try_from(self.tip.end.saturating_sub(offset)).map_err(io::Error::other)?;
        if length > 0 {
            let group = self.disk.read(FILE, offset, length)?;
            self.disk.rewrite(FILE, offset, &group)?;
            self.disk.sync(FILE)?;
        }
        Ok(())
    }

    /// Checks every frame from the first on, changing nothing.
    pub fn scan(&self, each: &mut dyn FnMut(Entry<'_>)) -> Result<Scan, JournalError> {
        scan::scan(self.disk.as_ref(), Tip::start(), each)
    }

    /// Hands out every frame that is whole in itself, those behind damage too, and says what lies between them.
    pub fn pieces(&self, each: &mut dyn FnMut(Entry<'_>)) -> Result<Vec<Gap>, JournalError> {
        pieces::pieces(self.disk.as_ref(), each)
    }

    /// Bytes of the file as it is now.
    pub fn file_bytes(&self) -> Result<u64, JournalError> {
        Ok(self.disk.size(FILE)?.unwrap_or(0))
    }

    /// Refuses bytes before `to` that have changed since they were written.
    pub fn prove(&self, to: Tip) -> Result<(), JournalError> {
        match scan::rot_before(self.disk.as_ref(), to)? {
            Some(offset) => Err(JournalError::Damaged { offset, kind: DamageKind::Rot }),
            None => Ok(()),
        }
    }

    /// Whether the frame before `tip` is really there, to its last byte: an index built on another journal must not be
    /// trusted.
    pub fn holds(&self, tip: Tip) -> bool {
        if tip.sequence == 0 {
            return tip == Tip::start();
        }
        if !matches!(self.disk.size(FILE), Ok(Some(size)) if size >= tip.end) {
            return false;
        }
        let Ok(header) = self.disk.read(FILE, tip.newest, Frame::HEADER_BYTES) else {
            return false;
        };
        let Some(frame) = Frame::parse_header(&header) else {
            return false;
        };
        frame.sequence == tip.sequence && frame.chain == tip.chain && tip.newest + frame.size() == tip.end
    }

    /// Keeps what stands from `offset` on in a file of its own and cuts the journal there. Nothing is destroyed.
    pub fn set_aside(&mut self, offset: u64) -> Result<(), JournalError> {
        let size = self.disk.size(FILE)?.unwrap_or(0);
        let length = usize::try_from(size.saturating_sub(offset)).map_err(io::Error::other)?;
        let tail = self.disk.read(FILE, offset, length)?;
        let mut name = format!("journal.tail-{offset}");
        while self.disk.size(&name)?.is_some() {
            name.push('+');
        }
        self.disk.append(&name, &tail)?;
        self.disk.sync(&name)?;
        self.disk.sync_names()?;
        self.disk.truncate(FILE, offset)?;
        self.disk.sync(FILE)?;
        Ok(())
    }
}
