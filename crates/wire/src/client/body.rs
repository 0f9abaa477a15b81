//! Answers too long to hold: corpora and files of trainers.

use reqwest::Response;

use super::{ClientError, broken};

/// A long answer, read piece by piece.
#[derive(Debug)]
pub struct Body {
    pub(super) response: Response,
    pub(super) server: String,
}

impl Body {
    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let chunk = self.response.chunk().await.map_err(|error| broken(&self.server, &error))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}
