//! What an attempt goes on from: the file it starts at, and the branch points of a trunk that are there already.

use std::collections::BTreeSet;
use std::path::PathBuf;

use isoloss_wire::api::{CheckpointRef, Lease};

use super::ending::End;
use super::start::stopped_by;
use crate::artifacts::{Artifacts, TransferError, read_name};
use crate::daemon::Context;

/// What earlier attempts left to this one.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) resume: Option<PathBuf>,
    /// Made known again, because an earlier attempt may have died before it could.
    pub(super) known: Vec<CheckpointRef>,
}

pub(super) async fn origin(context: &Context, lease: &Lease) -> Result<Origin, End> {
    let Some(artifacts) = &context.config.artifacts else {
        let passed = |step, error: &std::io::Error| pass(context, lease, step, error);
        let resume =
            context.checkpoints.start(lease, passed).map_err(|error| stopped_by("cannot read the trunk", &error))?;
        return Ok(Origin { resume, known: context.checkpoints.of_trunk(lease) });
    };
    let stored = artifacts.list(lease.run_id).await.map_err(|error| lost(&error.into()))?;
    let known = known(context, lease, artifacts, &stored).await.map_err(|error| lost(&error))?;
    for own in context.checkpoints.own(lease, &stored) {
        let Some((run_id, object)) = read_name(&own.path) else {
            match context.checkpoints.verified(&own) {
                Ok(path) => return Ok(Origin { resume: Some(path), known }),
                Err(error) => {
                    pass(context, lease, own.step, &error);
                    continue;
                }
            }
        };
        match context.checkpoints.fetched(artifacts, run_id, &object).await {
            Ok(path) => return Ok(Origin { resume: Some(path), known }),
            Err(error @ (TransferError::Corrupt(_) | TransferError::Store(object_store::Error::NotFound { .. }))) => {
                tracing::warn!(run = %lease.run_id.short(), %error, "an artifact is passed over");
                context.held.log((lease.run_id, lease.attempt), &format!("passed over: {error}"));
            }
            Err(error) => return Err(lost(&error)),
        }
    }
    let resume = match &lease.resume {
        None => None,
        Some(trunk) => Some(branch_point(context, artifacts, trunk).await?),
    };
    Ok(Origin { resume, known })
}

/// Tells why the attempt begins further back than it might.
fn pass(context: &Context, lease: &Lease, step: u64, error: &std::io::Error) {
    tracing::warn!(run = %lease.run_id.short(), step, %error, "a checkpoint is passed over");
    context.held.log((lease.run_id, lease.attempt), &format!("the checkpoint at step {step} is passed over: {error}"));
}

/// The file of a trunk's checkpoint. Names come from the coordinator, who has them from workers: only what is a name of a
/// checkpoint is asked for.
async fn branch_point(context: &Context, artifacts: &Artifacts, trunk: &CheckpointRef) -> Result<PathBuf, End> {
    let named = read_name(&trunk.path).filter(|(_, named)| named == trunk);
    let (run_id, object) =
        named.ok_or_else(|| End::broke(format!("the trunk's checkpoint {:?} is no artifact", trunk.path)))?;
    context.checkpoints.fetched(artifacts, run_id, &object).await.map_err(|error| lost(&error))
}

/// The trunk's branch points that earlier attempts wrote: those here are stored where they are not, those stored by
/// others go by their names.
async fn known(
    context: &Context,
    lease: &Lease,
    artifacts: &Artifacts,
    stored: &[CheckpointRef],
) -> Result<Vec<CheckpointRef>, TransferError> {
    let mut known = Vec::new();
    for one in context.checkpoints.of_trunk(lease) {
        let path = context.checkpoints.path(&one);
        if artifacts.has(lease.run_id, &path, &one).await? {
            known.extend(stored.iter().find(|object| (object.step, object.digest) == (one.step, one.digest)).cloned());
        } else {
            known.push(artifacts.upload(lease.run_id, &path, one.step, one.digest).await?);
        }
    }
    let mut steps: BTreeSet<u64> = known.iter().map(|one| one.step).collect();
    let further = stored.iter().filter(|one| lease.trunk_steps.contains(&one.step) && steps.insert(one.step));
    known.extend(further.cloned().collect::<Vec<_>>());
    Ok(known)
}

/// The store failed, which is not the run's fault.
fn lost(error: &TransferError) -> End {
    tracing::warn!(%error, "the artifacts cannot be used");
    End::of_storage(format!("artifacts: {error}"))
}
