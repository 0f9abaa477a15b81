//! Checkpoints of one attempt on their way to the artifacts, one at a time and beside the training. Of a run without
//! branches only the newest that waits is sent: the others are of no use any more.

use std::collections::VecDeque;

use isoloss_wire::api::{CheckpointRef, Lease};
use tokio::task::JoinHandle;

use crate::artifacts::{Artifacts, TransferError};
use crate::daemon::Context;

/// Stored checkpoints of a run that is under way: the newest, and one more should it be damaged.
const KEPT: usize = 2;

pub(super) struct Uploads<'a> {
    context: &'a Context,
    lease: &'a Lease,
    waiting: VecDeque<CheckpointRef>,
    running: Option<JoinHandle<Result<CheckpointRef, TransferError>>>,
}

impl<'a> Uploads<'a> {
    pub(super) fn new(context: &'a Context, lease: &'a Lease) -> Self {
        Self { context, lease, waiting: VecDeque::new(), running: None }
    }

    /// Takes up a checkpoint that was noted here; gives it back where there are no artifacts.
    pub(super) fn add(&mut self, checkpoint: CheckpointRef) -> Option<CheckpointRef> {
        let Some(artifacts) = &self.context.config.artifacts else { return Some(checkpoint) };
        if self.lease.trunk_steps.is_empty() {
            self.waiting.clear();
        }
        self.waiting.push_back(checkpoint);
        self.begin(artifacts);
        None
    }

    fn begin(&mut self, artifacts: &Artifacts) {
        if self.running.is_some() {
            return;
        }
        let Some(one) = self.waiting.pop_front() else { return };
        let (artifacts, run_id, is_trunk) = (artifacts.clone(), self.lease.run_id, !self.lease.trunk_steps.is_empty());
        let file = self.context.checkpoints.path(&one);
        self.running = Some(tokio::spawn(async move {
            let stored = artifacts.upload(run_id, &file, one.step, one.digest).await?;
            if !is_trunk {
                artifacts.thin_out(run_id, KEPT).await;
            }
            Ok(stored)
        }));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// The next that is stored, or why it is not; never, when nothing is under way.
    pub(super) async fn next(&mut self) -> Result<CheckpointRef, TransferError> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let stored = running.await;
        self.running = None;
        if let Some(artifacts) = &self.context.config.artifacts {
            self.begin(artifacts);
        }
        stored.unwrap_or_else(|broke| Err(std::io::Error::other(broke).into()))
    }

    /// Nothing more is sent.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

impl Drop for Uploads<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}
