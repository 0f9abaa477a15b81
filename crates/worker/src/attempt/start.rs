//! The way from a lease to a running child: corpus, files of the command, checkpoint to start from, environment.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use isoloss_wire::api::{CheckpointRef, Lease, Slot};
use isoloss_wire::child::{Assignment, CHILD_PROTOCOL, ToChild, is_of_storage};
use tokio::sync::watch;

use super::ending::End;
use super::origin::origin;
use crate::artifacts::Artifacts;
use crate::child::{self, Child};
use crate::corpora::CorpusError;
use crate::daemon::Context;
use crate::mps::Seat;
use crate::programs::ProgramError;
use crate::spare::{Past, Spare};
use crate::strays::MARK;

/// A coordinator that cannot be reached is asked again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// A child that was given its run.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) past: Past,
    /// The branch points of a trunk that are there already.
    pub(super) known: Vec<CheckpointRef>,
}

/// Gives the run to the child that the slot has to spare or to a new one, unless nobody wants it any more by then.
pub(super) async fn start(
    context: &Context,
    slot: &Slot,
    lease: &Lease,
    seat: &Seat,
    spare: Option<Spare>,
    mut revoked: watch::Receiver<Option<String>>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Started, End> {
    tokio::select! {
        started = prepare(context, slot, lease, seat, spare) => started,
        _ = revoked.wait_for(Option::is_some) => Err(End::Revoked),
        _ = shutdown.wait_for(|ended| *ended) => Err(End::yielded("the worker was stopped")),
    }
}

/// The end of an attempt that the operating system stopped: by its storage, or otherwise.
pub(super) fn stopped_by(what: &str, error: &std::io::Error) -> End {
    let reason = format!("{what}: {error}");
    if is_of_storage(error) { End::of_storage(reason) } else { End::broke(reason) }
}

async fn prepare(
    context: &Context,
    slot: &Slot,
    lease: &Lease,
    seat: &Seat,
    spare: Option<Spare>,
) -> Result<Started, End> {
    context.room.fits(lease).map_err(End::of_storage)?;
    // Also for a child that is there: files of its command are put right before each run.
    let command = command(context, lease).await?;
    let origin = origin(context, lease).await?;
    let checkpoints = context.checkpoints.folder(lease.run_id, lease.attempt);
    let assignment = Assignment {
        protocol: CHILD_PROTOCOL,
        run_id: lease.run_id,
        attempt: lease.attempt,
        run: lease.run.clone(),
        corpus: corpus(context, lease).await?,
        checkpoints: checkpoints.map_err(|error| stopped_by("cannot make the checkpoint folder", &error))?,
        resume: origin.resume,
        trunk_steps: lease.trunk_steps.clone(),
        threads: slot.threads,
        device: slot.name.clone(),
        memory_bytes: lease.memory_bytes,
        gpu_process_bytes: context.config.gpu_process_bytes,
    };
    let order = ToChild::Run(Box::new(assignment));
    let known = origin.known;
    if let Some(spare) = spare
        && let Some((child, past)) = spare.take_up(lease, slot, seat, &order).await
    {
        return Ok(Started { child, past, known });
    }
    let (child, past) = fresh(context, slot, lease, seat, command, &order).await?;
    Ok(Started { child, past, known })
}

/// A child that is started for this run.
async fn fresh(
    context: &Context,
    slot: &Slot,
    lease: &Lease,
    seat: &Seat,
    mut command: Command,
    order: &ToChild,
) -> Result<(Child, Past), End> {
    // Of this life of the worker alone: another worker on this machine may hold the next attempt at the run.
    let mark = format!("{}-{}-{}", lease.run_id, lease.attempt, std::process::id());
    command
        // The child sees its own device and no other, and no credentials.
        .env("CUDA_VISIBLE_DEVICES", slot.gpu.as_deref().unwrap_or(""))
        .env("OMP_NUM_THREADS", slot.threads.to_string())
        .env("RAYON_NUM_THREADS", slot.threads.to_string())
        .env(MARK, &mark)
        .envs(seat.environment().iter().map(|(name, value)| (name, value)))
        .env_remove("ISOLOSS_TOKEN_FILE");
    let variables = context.config.artifacts.iter().flat_map(Artifacts::variables);
    for name in variables {
        command.env_remove(name);
    }
    command.envs(context.config.env.iter().map(|(name, value)| (name, value)));
    let program = command.get_program().to_owned();
    let strays = lease.run.trainer.is_some().then(|| mark.clone());
    let started = child::start(command, order, strays).await;
    let child = started.map_err(|error| stopped_by(&format!("cannot start {}", program.display()), &error))?;
    Ok((child, Past::new(lease, slot, seat, mark)))
}

/// The worker's own trainer, or the command of the sweep behind the guard.
async fn command(context: &Context, lease: &Lease) -> Result<Command, End> {
    let config = &context.config;
    let (words, folder) = match &lease.run.trainer {
        None => (config.trainer.clone(), None),
        Some(trainer) if config.allow_commands => {
            let folder = folder(context, lease).await?;
            (config.guard.iter().cloned().chain(trainer.command.iter().map(Into::into)).collect(), folder)
        }
        Some(_) => return Err(End::broke("this worker was started without leave to run commands".to_owned())),
    };
    let Some((program, arguments)) = words.split_first() else {
        return Err(End::broke("the command that trains is empty".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    Ok(command)
}

/// The folder where the command of the sweep runs.
async fn folder(context: &Context, lease: &Lease) -> Result<Option<PathBuf>, End> {
    let Some(trainer) = &lease.run.trainer else {
        return Ok(None);
    };
    loop {
        match context.programs.folder(&context.client, trainer).await {
            Ok(folder) => return Ok(Some(folder)),
            Err(error) if error.may_pass() => {
                tracing::info!(run = lease.run_id.short(), %error, "waiting for the trainer's files");
                tokio::time::sleep(AGAIN).await;
            }
            Err(ProgramError::Disk(error)) => return Err(stopped_by("cannot store the trainer's files", &error)),
            Err(error) => return Err(End::broke(error.to_string())),
        }
    }
}

/// The corpus of the run; a coordinator that restarts meanwhile is waited for.
async fn corpus(context: &Context, lease: &Lease) -> Result<PathBuf, End> {
    loop {
        match context.corpora.resolve(&context.client, lease.run.data.corpus).await {
            Ok(folder) => return Ok(folder),
            Err(error) if error.may_pass() => {
                tracing::info!(run = lease.run_id.short(), %error, "waiting for the corpus");
                tokio::time::sleep(AGAIN).await;
            }
            Err(CorpusError::Disk(error)) => return Err(stopped_by("cannot store the corpus", &error)),
            Err(error) => return Err(End::broke(error.to_string())),
        }
    }
}
