//! MPS without a worker: processes that are timed before there is one are told what its runs will be told. No run is judged
//! here.

use std::ffi::OsString;
use std::path::Path;

use super::{Daemon, MpsConfig, State, open};

/// How processes share a GPU as long as this is held. Without [`Sharing::end`] a daemon of its own ends when this is dropped,
/// or with its process. The default tells processes nothing, as a worker's that has one run at a time on each GPU.
#[derive(Debug, Default)]
pub struct Sharing {
    state: State,
    daemon: Option<Daemon>,
}

impl Sharing {
    /// Finds MPS or starts it for GPUs by their UUIDs, and proves it, as a worker does: one that does not work is logged as
    /// a warning and left out. A daemon of its own lives in `dir`, which exists and is nobody else's: one that answers there
    /// already is taken for a left over one and asked to go. Needs a tokio runtime that lives as long as this.
    pub async fn begin(settings: &MpsConfig, dir: &Path, gpus: &[String]) -> Self {
        let (state, daemon) = open(settings, dir, gpus).await;
        Self { state, daemon }
    }

    /// Processes stay out of MPS, whatever daemon the machine has.
    pub fn outside(dir: &Path) -> Self {
        Self { state: State::outside(dir), daemon: None }
    }

    /// Whether processes go through MPS.
    pub fn is_through_mps(&self) -> bool {
        self.state.daemon.is_some()
    }

    /// What a process on one GPU is told. A client of MPS gets `limit_bytes` of the GPU's memory at most.
    pub fn environment(&self, limit_bytes: Option<u64>) -> Vec<(&'static str, OsString)> {
        self.state.told(false, limit_bytes, 1).0
    }

    /// Ends a daemon of its own, when its clients are gone.
    pub async fn end(self) {
        if let Some(daemon) = self.daemon {
            daemon.end().await;
        }
    }
}
