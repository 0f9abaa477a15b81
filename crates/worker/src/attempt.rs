//! One attempt at a run, from its lease to its acknowledged ending. It decides when the child is stopped and what its
//! end means; it knows neither pipes nor HTTP.

mod ending;
mod ladder;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use isoloss_sweep::Outcome;
use isoloss_wire::api::{CheckpointRef, Lease, Settle, Slot};
use isoloss_wire::child::{Assignment, CHILD_PROTOCOL, FromChild, ToChild};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attempt::ending::{End, Tail};
use crate::attempt::ladder::Ladder;
use crate::child::{self, Child, Said};
use crate::corpora::CorpusError;
use crate::daemon::Context;
use crate::delivery::deliver;
use crate::disk;

/// Sees an attempt through. When it returns, the child is gone and its ending is acknowledged, or on disk because the
/// worker ends too.
pub(crate) async fn attempt(
    context: &Context,
    slot: &Slot,
    lease: &Lease,
    asked: Instant,
    shutdown: watch::Receiver<bool>,
) {
    let key = (lease.run_id, lease.attempt);
    let span = (lease.run_id.short(), lease.attempt);
    tracing::info!(run = span.0, attempt = span.1, slot = slot.name, "attempt begins");
    let revoked = context.held.insert(&context.config.name, &slot.name, lease, asked);
    let end = match start(context, slot, lease, revoked.clone(), shutdown.clone()).await {
        Ok(child) => supervise(context, lease, child, revoked, shutdown.clone()).await,
        Err(end) => end,
    };
    tracing::info!(run = span.0, attempt = span.1, end = end.name(), "attempt ends");
    if end.is_of_storage() {
        context.room.lost(lease);
    } else {
        context.room.kept();
    }
    if let End::Settle { ending, checkpoints } = end {
        let settle = Settle {
            worker: context.config.name.clone(),
            run_id: lease.run_id,
            attempt: lease.attempt,
            device: slot.name.clone(),
            ending,
            checkpoints,
            log: context.held.take_log(key),
        };
        if let Err(error) = context.outbox.put(&settle) {
            // A full disk: the ending is still sent, it only would not survive this worker.
            tracing::error!(run = span.0, %error, "cannot write the ending to disk");
        }
        deliver(&context.client, &context.outbox, &settle, shutdown).await;
    }
    // Only now: a lease that is renewed until its ending is acknowledged cannot run out in between.
    context.held.remove(key);
}

/// The end of an attempt that the operating system stopped: by its storage, or otherwise.
fn stopped_by(what: &str, error: &std::io::Error) -> End {
    let reason = format!("{what}: {error}");
    if disk::is_of_storage(error) { End::of_storage(reason) } else { End::broke(reason) }
}

/// Starts the child, unless nobody wants it any more before it is started.
async fn start(
    context: &Context,
    slot: &Slot,
    lease: &Lease,
    mut revoked: watch::Receiver<Option<String>>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Child, End> {
    tokio::select! {
        child = prepare(context, slot, lease) => child,
        _ = revoked.wait_for(Option::is_some) => Err(End::Revoked),
        _ = shutdown.wait_for(|ended| *ended) => Err(End::yielded("the worker was stopped")),
    }
}

/// The corpus of the run; a coordinator that restarts meanwhile is waited for.
async fn corpus(context: &Context, lease: &Lease) -> Result<PathBuf, End> {
    loop {
        match context.corpora.resolve(&context.client, lease.run.data.corpus).await {
            Ok(folder) => return Ok(folder),
            Err(error) if error.may_pass() => {
                tracing::info!(run = lease.run_id.short(), %error, "waiting for the corpus");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(CorpusError::Disk(error)) => return Err(stopped_by("cannot store the corpus", &error)),
            Err(error) => return Err(End::broke(error.to_string())),
        }
    }
}

/// Finds the corpus and the checkpoint to start from and starts the child.
async fn prepare(context: &Context, slot: &Slot, lease: &Lease) -> Result<Child, End> {
    let config = &context.config;
    context.room.fits(lease).map_err(End::of_storage)?;
    let checkpoints = context.checkpoints.folder(lease.run_id, lease.attempt);
    let assignment = Assignment {
        protocol: CHILD_PROTOCOL,
        run_id: lease.run_id,
        attempt: lease.attempt,
        run: lease.run.clone(),
        corpus: corpus(context, lease).await?,
        checkpoints: checkpoints.map_err(|error| stopped_by("cannot make the checkpoint folder", &error))?,
        resume: context.checkpoints.start(lease).map_err(|error| stopped_by("cannot read the trunk", &error))?,
        trunk_steps: lease.trunk_steps.clone(),
        threads: slot.threads,
        device: slot.name.clone(),
    };
    let words = match &lease.command {
        None => config.trainer.clone(),
        Some(command) if config.allow_commands => {
            config.guard.iter().cloned().chain(command.iter().map(Into::into)).collect()
        }
        Some(_) => return Err(End::broke("this worker was started without leave to run commands".to_owned())),
    };
    let Some((program, arguments)) = words.split_first() else {
        return Err(End::broke("the command that trains is empty".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        // The child sees its own device and no other, and no credentials.
        .env("CUDA_VISIBLE_DEVICES", slot.gpu.as_deref().unwrap_or(""))
        .env("OMP_NUM_THREADS", slot.threads.to_string())
        .env("RAYON_NUM_THREADS", slot.threads.to_string())
        .env_remove("ISOLOSS_TOKEN_FILE")
        .envs(config.env.iter().map(|(name, value)| (name, value)));
    let order = ToChild::Run(Box::new(assignment));
    let started = child::start(command, &order).await;
    started.map_err(|error| stopped_by(&format!("cannot start {}", program.display()), &error))
}

/// Listens to the child until it is gone.
async fn supervise(
    context: &Context,
    lease: &Lease,
    mut child: Child,
    mut revoked: watch::Receiver<Option<String>>,
    mut shutdown: watch::Receiver<bool>,
) -> End {
    let mut tail = Tail::default();
    let mut ladder = Ladder::new(context.config.grace);
    let mut outcome = None;
    let mut checkpoints = context.checkpoints.of_trunk(lease);
    checkpoints.iter().for_each(|one| context.held.checkpoint((lease.run_id, lease.attempt), one.clone()));
    let (mut is_revoked, mut is_yielding, mut is_over) = (false, false, false);
    loop {
        tokio::select! {
            said = child.next() => match said {
                Some(Said::Line(line)) => {
                    hear(context, lease, *line, &mut outcome, &mut checkpoints);
                    if outcome.is_some() && !is_over {
                        is_over = true;
                        ladder.said_all(&mut child, lease.command.is_some());
                    }
                }
                Some(Said::Log(text)) => {
                    context.held.log((lease.run_id, lease.attempt), &text);
                    tail.push(text);
                }
                Some(Said::Garbage(text)) => context.held.log((lease.run_id, lease.attempt), &text),
                Some(Said::Exited(exit)) if is_revoked => {
                    tracing::debug!(?exit, "a revoked child is gone");
                    return End::Revoked;
                }
                Some(Said::Exited(exit)) => return End::of(outcome, exit, is_yielding, &tail, checkpoints),
                None => return End::broke("the child's thread ended without a word".to_owned()),
            },
            reason = revoked.wait_for(Option::is_some), if !is_revoked => {
                is_revoked = true;
                let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                tracing::info!(run = lease.run_id.short(), attempt = lease.attempt, reason, "attempt revoked");
                ladder.end_now(&mut child);
            }
            _ = shutdown.wait_for(|ended| *ended), if !is_yielding && !is_revoked && !is_over => {
                is_yielding = true;
                ladder.stop(&mut child);
            }
            () = ladder.patience_ends() => ladder.climb(&mut child),
        }
    }
}

/// Takes note of a line of the protocol.
fn hear(
    context: &Context,
    lease: &Lease,
    line: FromChild,
    outcome: &mut Option<Outcome>,
    checkpoints: &mut Vec<CheckpointRef>,
) {
    let key = (lease.run_id, lease.attempt);
    if line.subject() != key {
        tracing::warn!(run = lease.run_id.short(), "the child speaks of another attempt");
        return;
    }
    match line {
        FromChild::Progress { .. } | FromChild::Eval { .. } => context.held.progress(key, &line),
        FromChild::Checkpoint { path, step, digest, .. } => {
            let Some(checkpoint) = context.checkpoints.record(lease.run_id, &path, step, digest) else {
                tracing::warn!(run = lease.run_id.short(), path = %path.display(), "checkpoint outside its folder");
                return;
            };
            if lease.trunk_steps.is_empty() {
                checkpoints.clear();
            }
            checkpoints.push(checkpoint.clone());
            context.held.checkpoint(key, checkpoint);
        }
        FromChild::Outcome { result, .. } => *outcome = Some(result),
    }
}
