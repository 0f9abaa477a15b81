//! Reading the journal forward, and saying what is wrong where it stops.

use std::fmt;

use super::frame::MAGIC;
use super::{FILE, Frame, JournalError, Place, Tip};
use crate::disk::Disk;

/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// One good frame.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub place: Place,
    /// The frame as it stands in the file, payload included.
    pub frame: &'a [u8],
    /// Sequence number of the first frame of its commit.
    pub group: u64,
    pub payload: &'a [u8],
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The end of the good part.
    pub tip: Tip,
    pub damage: Option<Damage>,
}

/// Where the good part ends although the file goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    pub offset: u64,
    pub kind: DamageKind,
    /// Bytes from there to the end of the file.
    pub bytes: u64,
}

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The last, never acknowledged group: what a crash leaves.
    TornTail,
    /// Bytes that were durable have changed.
    Rot,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TornTail => "a torn tail that was never acknowledged",
            Self::Rot => "bytes that were durable have changed",
        })
    }
}

/// Reads from `from` to the end of the file or to the first damage.
pub(super) fn scan(disk: &dyn Disk, from: Tip, each: &mut dyn FnMut(Entry<'_>)) -> Result<Scan, JournalError> {
    let size = disk.size(FILE)?.unwrap_or(0);
    let mut window = Window::new(disk, size);
    let mut tip = from;
    while tip.end < size {
        let Some((frame, bytes)) = window.frame(tip.end)? else {
            return damaged(disk, size, tip);
        };
        let payload = &bytes[Frame::HEADER_BYTES..];
        if !frame.follows(&tip.chain, tip.sequence + 1, payload) {
            return damaged(disk, size, tip);
        }
        let place = Place { offset: tip.end, length: frame.length, sequence: frame.sequence };
        each(Entry { place, frame: bytes, group: frame.group, payload });
        tip = Tip { sequence: frame.sequence, newest: tip.end, end: tip.end + frame.size(), chain: frame.chain };
    }
    Ok(Scan { tip, damage: None })
}

/// Reads the frames before `to` and compares their checksums, which any change of a few bytes breaks; the links of the
/// chain, which take ten times as long, only where `to` ends. The offset of the first bad frame.
pub(super) fn rot_before(disk: &dyn Disk, to: Tip) -> Result<Option<u64>, JournalError> {
    let mut window = Window::new(disk, disk.size(FILE)?.unwrap_or(0));
    let mut tip = Tip::start();
    while tip.end < to.end {
        match window.frame(tip.end)? {
            Some((frame, _)) if frame.sequence == tip.sequence + 1 => {
                let end = tip.end + frame.size();
                tip = Tip { sequence: frame.sequence, newest: tip.end, end, chain: frame.chain };
            }
            _ => return Ok(Some(tip.end)),
        }
    }
    Ok((tip != to).then_some(tip.newest))
}

/// Tells a torn tail from rot: after rot stands a whole frame of a group that began later.
fn damaged(disk: &dyn Disk, size: u64, tip: Tip) -> Result<Scan, JournalError> {
    let missing = tip.sequence + 1;
    let length = usize::try_from(size - tip.end).map_err(std::io::Error::other)?;
    let rest = disk.read(FILE, tip.end, length)?;
    let later = (0..rest.len()).any(|at| {
        rest[at..].starts_with(&MAGIC)
            && Frame::parse(&rest[at..]).is_some_and(|frame| frame.group > missing && frame.sequence > missing)
    });
    let kind = if later { DamageKind::Rot } else { DamageKind::TornTail };
    Ok(Scan { tip, damage: Some(Damage { offset: tip.end, kind, bytes: size - tip.end }) })
}

/// A stretch of the file in memory, so that small frames do not cost a read each.
struct Window<'a> {
    disk: &'a dyn Disk,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(disk: &'a dyn Disk, size: u64) -> Self {
        Self { disk, size, start: 0, bytes: Vec::new() }
    }

    /// The whole frame at `offset`, if there is one whose checksum holds.
    fn frame(&mut self, offset: u64) -> Result<Option<(Frame, &[u8])>, JournalError> {
        let header = self.bytes(offset, Frame::HEADER_BYTES)?;
        let Some(frame) = header.and_then(Frame::parse_header) else {
            return Ok(None);
        };
        let size = Frame::HEADER_BYTES + frame.length as usize;
        let whole = self.bytes(offset, size)?.filter(|bytes| Frame::parse(bytes).is_some());
        Ok(whole.map(|bytes| (frame, bytes)))
    }

    fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, JournalError> {
        if offset + length as u64 > self.size {
            return Ok(None);
        }
        if offset < self.start || offset + length as u64 > self.start + self.bytes.len() as u64 {
            let left = usize::try_from(self.size - offset).unwrap_or(usize::MAX);
            self.bytes = self.disk.read(FILE, offset, left.min(length.max(WINDOW_BYTES)))?;
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).map_err(std::io::Error::other)?;
        Ok(Some(&self.bytes[at..at + length]))
    }
}
