//! What is left of a damaged journal: every frame whose own checksum holds. One that follows another is chained to it; one
//! behind a gap vouches for itself alone.

use super::frame::MAGIC;
use super::{Entry, FILE, Frame, JournalError, Place, Tip};
use crate::disk::Disk;

/// A stretch where no frame is whole, or where one does not follow from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub offset: u64,
    pub bytes: u64,
    /// Records that stood there; told by the sequence numbers around it, and not known at the end of the file.
    pub records: Option<u64>,
}

impl Gap {
    /// How many records it may have had at most.
    pub fn records_max(&self) -> u64 {
        self.records.unwrap_or_else(|| self.bytes.div_ceil(Frame::HEADER_BYTES as u64))
    }
}

/// Reads the whole file into memory: for a person who waits, and once.
pub(super) fn pieces(disk: &dyn Disk, each: &mut dyn FnMut(Entry<'_>)) -> Result<Vec<Gap>, JournalError> {
    let size = disk.size(FILE)?.unwrap_or(0);
    let bytes = disk.read(FILE, 0, usize::try_from(size).map_err(std::io::Error::other)?)?;
    let mut gaps = Vec::new();
    let mut tip = Tip::start();
    let mut at = usize::try_from(tip.end).map_err(std::io::Error::other)?;
    while let Some((start, frame)) = next(&bytes, at, tip.sequence) {
        let offset = start as u64;
        let end = offset + frame.size();
        let whole = &bytes[start..start + Frame::HEADER_BYTES + frame.length as usize];
        let payload = &whole[Frame::HEADER_BYTES..];
        if offset != tip.end || !frame.follows(&tip.chain, tip.sequence + 1, payload) {
            let records = Some(frame.sequence - tip.sequence - 1);
            gaps.push(Gap { offset: tip.end, bytes: offset - tip.end, records });
        }
        let place = Place { offset, length: frame.length, sequence: frame.sequence };
        each(Entry { place, frame: whole, group: frame.group, payload });
        tip = Tip { sequence: frame.sequence, newest: offset, end, chain: frame.chain };
        at = start + whole.len();
    }
    if tip.end < size {
        gaps.push(Gap { offset: tip.end, bytes: size - tip.end, records: None });
    }
    Ok(gaps)
}

/// The next whole frame from `at` on that comes behind the one with this sequence number.
fn next(bytes: &[u8], at: usize, sequence: u64) -> Option<(usize, Frame)> {
    (at..bytes.len()).filter(|at| bytes[*at..].starts_with(&MAGIC)).find_map(|at| {
        let frame = Frame::parse(&bytes[at..]).filter(|frame| frame.sequence > sequence)?;
        Some((at, frame))
    })
}
