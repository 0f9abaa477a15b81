//! One frame: the header before a payload, its checksum and its link to the frame before.

use super::JournalError;

/// Largest payload: an admission of some fifty thousand runs. A larger length in a header is damage.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// First bytes of every frame, so that a reader finds the next one after damage.
pub(super) const MAGIC: [u8; 4] = *b"\xa5ISO";

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) sequence: u64,
    pub(super) group: u64,
    pub(super) chain: [u8; 32],
    crc: u32,
}

impl Frame {
    pub(super) const HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 32 + 4;

    /// Links a payload to the chain.
    pub(super) fn seal(before: &[u8; 32], sequence: u64, group: u64, payload: &[u8]) -> Result<Self, JournalError> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length as usize <= PAYLOAD_BYTES_MAX)
            .ok_or(JournalError::TooLarge(payload.len()))?;
        let mut frame = Self { length, sequence, group, chain: link(before, sequence, payload), crc: 0 };
        frame.crc = frame.checksum(payload);
        Ok(frame)
    }

    /// Bytes of header and payload.
    pub(super) fn size(&self) -> u64 {
        Self::HEADER_BYTES as u64 + u64::from(self.length)
    }

    pub(super) fn write(&self, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.checked_part());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(payload);
    }

    /// The header's fields, nothing checked but the magic and the bound of the length.
    pub(super) fn parse_header(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::HEADER_BYTES] = bytes.first_chunk()?;
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (group, rest) = rest.split_first_chunk::<8>()?;
        let (chain, crc) = rest.split_first_chunk::<32>()?;
        let frame = Self {
            length: u32::from_le_bytes(*length),
            sequence: u64::from_le_bytes(*sequence),
            group: u64::from_le_bytes(*group),
            chain: *chain,
            crc: u32::from_le_bytes(*crc.first_chunk()?),
        };
        (*magic == MAGIC && frame.length as usize <= PAYLOAD_BYTES_MAX).then_some(frame)
    }

    /// A frame at the start of `bytes` whose checksum holds.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let frame = Self::parse_header(bytes)?;
        let payload = bytes.get(Self::HEADER_BYTES..Self::HEADER_BYTES + frame.length as usize)?;
        (frame.checksum(payload) == frame.crc).then_some(frame)
    }

    /// Whether this is the frame that comes after `before`.
    pub(super) fn follows(&self, before: &[u8; 32], sequence: u64, payload: &[u8]) -> bool {
        self.sequence == sequence && self.chain == link(before, sequence, payload)
    }

    fn checked_part(&self) -> [u8; Self::HEADER_BYTES - 4] {
        let mut bytes = [0; Self::HEADER_BYTES - 4];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.group.to_le_bytes());
        bytes[24..].copy_from_slice(&self.chain);
        bytes
    }

    fn checksum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.checked_part());
        hasher.update(payload);
        hasher.finalize()
    }
}

fn link(before: &[u8; 32], sequence: u64, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}
