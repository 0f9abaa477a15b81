//! Server-sent events, of which only `data:` lines matter here.

use crate::api::Event;
use crate::client::{Body, ClientError};

/// A row with its live numbers is far below; anything longer is not ours.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The events of a sweep as they come.
#[derive(Debug)]
pub struct Events {
    body: Body,
    pending: Vec<u8>,
}

impl Events {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, pending: Vec::new() }
    }

    /// The next event; `None` when the coordinator ended the stream.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(line) = take_line(&mut self.pending) {
                match parse(&line) {
                    None => continue,
                    Some(Ok(event)) => return Ok(Some(event)),
                    Some(Err(error)) => return Err(self.garbled(error.to_string())),
                }
            }
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(self.garbled(format!("an event line is longer than {LINE_BYTES_MAX} bytes")));
            }
            match self.body.chunk().await? {
                Some(bytes) => self.pending.extend(bytes),
                None => return Ok(None),
            }
        }
    }

    fn garbled(&self, reason: String) -> ClientError {
        ClientError::Garbled { server: self.body.server.clone(), reason }
    }
}

fn take_line(pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = pending.iter().position(|byte| *byte == b'\n')?;
    let rest = pending.split_off(end + 1);
    let mut line = std::mem::replace(pending, rest);
    line.pop();
    Some(line)
}

/// `None` for comments, blank lines and other fields.
fn parse(line: &[u8]) -> Option<serde_json::Result<Event>> {
    line.strip_prefix(b"data:").map(serde_json::from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_anywhere_and_only_data_counts() {
        let mut pending = b": keep-alive\n\ndata: {\"event\":\"nonsense\"}\nda".to_vec();
        let kinds: Vec<Option<bool>> = std::iter::from_fn(|| take_line(&mut pending))
            .map(|line| parse(&line).map(|parsed| parsed.is_ok()))
            .collect();
        assert_eq!(kinds, [None, None, Some(false)]);
        assert_eq!(pending, b"da");
    }
}
