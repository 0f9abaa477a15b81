//! A checkpoint as a stream of bytes: written from the state where it lies and read into the state that will be used, a few
//! kilobytes at a time, so that no run needs the memory of a second state to save itself.

use std::io::{self, Read, Write};
use std::path::Path;

use isoloss_sweep::Digest;

use super::{CheckpointError, FORMAT_VERSION, Header, MAGIC, Version, damaged};
use crate::engine::State;

const DIGEST_LEN: usize = 32;
/// Numbers on their way at a time.
const CHUNK: usize = 1 << 14;

/// Passes bytes on and hashes them.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: blake3::Hasher::new() }
    }

    /// Of all that has passed.
    fn digest(&self) -> Digest {
        Digest::from_bytes(*self.hasher.finalize().as_bytes())
    }
}

impl<T: Write> Hashed<T> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Hashed<T> {
    /// Fills `bytes`; false where the stream ends before.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.inner.read_exact(bytes) {
            Ok(()) => {
                self.hasher.update(bytes);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Writes header, buffers and digest; gives the digest of the whole.
pub(super) fn encode(header: &[u8], state: &State, to: impl Write) -> io::Result<Digest> {
    let mut to = Hashed::new(to);
    to.put(MAGIC)?;
    to.put(&(header.len() as u64).to_le_bytes())?;
    to.put(header)?;
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for buffer in [&state.params, &state.first_moment, &state.second_moment, &state.router_bias] {
        for chunk in buffer.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            to.put(&bytes)?;
        }
    }
    let content = to.digest();
    to.put(content.as_bytes())?;
    to.inner.flush()?;
    Ok(to.digest())
}

/// Reads what [`encode`] wrote, `size` bytes of it; `path` is for messages.
pub(super) fn decode(from: impl Read, size: u64, path: &Path) -> Result<(Header, State), CheckpointError> {
    let damaged = |what| damaged(path, what);
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let mut from = Hashed::new(from);
    let mut magic = [0; MAGIC.len()];
    if !from.fill(&mut magic).map_err(io)? || magic != *MAGIC {
        return Err(damaged("it does not start like a checkpoint"));
    }
    let mut length = [0; 8];
    let known = from.fill(&mut length).map_err(io)?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| known && *length <= size);
    let length = length.and_then(|length| usize::try_from(length).ok()).ok_or_else(|| damaged("it is cut off"))?;
    let mut header = vec![0; length];
    if !from.fill(&mut header).map_err(io)? {
        return Err(damaged("its header is cut off"));
    }
    let version = serde_json::from_slice::<Version>(&header).map_err(|_| damaged("its header has no version"))?;
    if version.version != FORMAT_VERSION {
        return Err(CheckpointError::Version { path: path.to_owned(), found: version.version });
    }
    let header: Header = serde_json::from_slice(&header).map_err(|_| damaged("its header does not parse"))?;
    let mut bytes = vec![0; 4 * CHUNK];
    let mut buffer = |len: usize| -> Result<Vec<f32>, CheckpointError> {
        if (len as u64).saturating_mul(4) > size {
            return Err(damaged("its buffers are cut off"));
        }
        let mut values = Vec::with_capacity(len);
        while values.len() < len {
            let bytes = &mut bytes[..4 * CHUNK.min(len - values.len())];
            if !from.fill(bytes).map_err(io)? {
                return Err(damaged("its buffers are cut off"));
            }
            let word = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes"));
            values.extend(bytes.chunks_exact(4).map(word));
        }
        Ok(values)
    };
    let state = State {
        step: header.step,
        params: buffer(header.params)?,
        first_moment: buffer(header.params)?,
        second_moment: buffer(header.params)?,
        router_bias: buffer(header.router_bias)?,
    };
    let content = from.digest();
    let mut digest = [0; DIGEST_LEN];
    if !from.fill(&mut digest).map_err(io)? {
        return Err(damaged("it is cut off"));
    }
    if content != Digest::from_bytes(digest) || from.fill(&mut [0]).map_err(io)? {
        return Err(damaged("its digest does not match its content"));
    }
    Ok((header, state))
}

/// The digest of all that a stream gives.
pub(super) fn digest_of(mut from: impl Read) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut from, &mut hasher)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}
