//! The first line of the journal: what it is and in which format.

use super::frame::Frame;
use super::{DamageKind, FILE, FORMAT, HEADER, JournalError, NAME};
use crate::disk::Disk;

/// Whether a crash left `found` of the header: zeros stand where a file's size reached the disk before its bytes. Nothing
/// was recorded behind it.
pub(super) fn is_torn(found: &[u8]) -> bool {
    found != HEADER && check_begun(found).is_ok()
}

/// Refuses bytes that no crash left where a header was being written: the file is something else.
pub(super) fn check_begun(found: &[u8]) -> Result<(), JournalError> {
    match found.iter().zip(HEADER).position(|(found, meant)| found != meant && *found != 0) {
        Some(at) => Err(JournalError::Damaged { offset: at as u64, kind: DamageKind::Rot }),
        None => Ok(()),
    }
}

/// Whether `found`, the first bytes of the file, begin a journal of this format.
pub(super) fn check(disk: &dyn Disk, found: &[u8]) -> Result<(), JournalError> {
    let Some(at) = (0..HEADER.len()).find(|at| found[*at] != HEADER[*at]) else {
        return Ok(());
    };
    match format(found) {
        // One changed digit is no other format: the first frame is chained to the whole line.
        Some(format) if format > FORMAT && !begins_here(disk)? => {
            Err(JournalError::Newer { found: format, known: FORMAT })
        }
        _ => Err(JournalError::Damaged { offset: at as u64, kind: DamageKind::Rot }),
    }
}

fn format(found: &[u8]) -> Option<u32> {
    let digits: Vec<u8> = found.strip_prefix(NAME)?.iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

/// Whether the first frame was written behind the header of this format.
fn begins_here(disk: &dyn Disk) -> Result<bool, JournalError> {
    let size = disk.size(FILE)?.unwrap_or(0);
    let begin = HEADER.len() as u64;
    if size < begin + Frame::HEADER_BYTES as u64 {
        return Ok(false);
    }
    let header = disk.read(FILE, begin, Frame::HEADER_BYTES)?;
    let Some(frame) = Frame::parse_header(&header).filter(|frame| begin + frame.size() <= size) else {
        return Ok(false);
    };
    let payload = disk.read(FILE, begin + Frame::HEADER_BYTES as u64, frame.length as usize)?;
    Ok(frame.follows(blake3::hash(HEADER).as_bytes(), 1, &payload))
}
