//! Listening to a child: what it says of its run is noted. A child may say anything: what is kept of it is bounded, and
//! nothing of it reaches another run. It stops nothing.

use std::path::PathBuf;
use std::time::Duration;

use isoloss_sweep::outcome::{CurvePoint, Diverged, Failed};
use isoloss_sweep::{Digest, Outcome};
use isoloss_wire::api::{CheckpointRef, Lease, Slot};
use isoloss_wire::child::{EXIT_CONTEXT, EXIT_DEVICE, EXIT_NO_RETRY, EXIT_STORAGE, EXIT_YIELDED, FromChild};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ending::{End, Tail, unexplained};
use super::lost::Lost;
use super::start::Started;
use super::told::{self, Seen, Word};
use super::upload::Uploads;
use crate::artifacts::TransferError;
use crate::child::{Exit, Said};
use crate::daemon::Context;
use crate::disk;
use crate::held::Key;
use crate::meter::Meter;
use crate::mps::{Seat, Verdict};

/// Of a line that is not understood this much is kept.
const GARBAGE_CHARS: usize = 200;

/// What was heard of an attempt so far.
pub(super) struct Heard<'a> {
    pub(super) context: &'a Context,
    slot: &'a Slot,
    pub(super) lease: &'a Lease,
    pub(super) seat: &'a Seat,
    begun: Instant,
    last: Instant,
    /// Until then a child that had other runs before may be silent of this one.
    taken_by: Option<Instant>,
    tail: Tail,
    /// What was wrong with its last line that was meant for the worker and is none of the protocol.
    misspoken: Option<String>,
    pub(super) outcome: Option<Outcome>,
    /// Whether the outcome is the worker's word on a child that goes on.
    pub(super) is_judged: bool,
    /// Whether it said that it may be given another run.
    pub(super) again: bool,
    /// Noted here and not yet made known.
    pub(super) recorded: Vec<CheckpointRef>,
    checkpoints: Vec<CheckpointRef>,
    /// Why the artifacts failed.
    lost: Option<String>,
    memory_bytes: u64,
    pub(super) meter: &'a mut Meter,
}

impl<'a> Heard<'a> {
    /// Nothing yet, but the branch points of a trunk that are there already.
    pub(super) fn new(
        context: &'a Context,
        slot: &'a Slot,
        lease: &'a Lease,
        seat: &'a Seat,
        started: &Started,
        meter: &'a mut Meter,
    ) -> Self {
        let known = started.known.clone();
        known.iter().for_each(|one| context.held.checkpoint((lease.run_id, lease.attempt), one.clone()));
        let now = Instant::now();
        Self {
            context,
            slot,
            lease,
            seat,
            begun: now,
            last: now,
            taken_by: (!started.past.is_fresh()).then(|| now + context.config.grace),
            tail: Tail::default(),
            misspoken: None,
            outcome: None,
            is_judged: false,
            again: false,
            recorded: Vec::new(),
            checkpoints: known,
            lost: None,
            memory_bytes: 0,
            meter,
        }
    }

    fn key(&self) -> Key {
        (self.lease.run_id, self.lease.attempt)
    }

    pub(super) async fn hear(&mut self, said: Said) {
        match said {
            Said::Line(line) => self.understand(*line).await,
            Said::Log(text) => self.note(text),
            Said::Garbage(text) => self.guess(text).await,
            Said::Exited(_) => {}
        }
    }

    /// A line for people.
    pub(super) fn note(&mut self, text: String) {
        self.context.held.log(self.key(), &text);
        self.tail.push(text);
    }

    /// A line of stdout that is not of the protocol. A foreign trainer may have left out what the run knows; a line that
    /// was meant to be one of the protocol is worth a word on why it is none.
    async fn guess(&mut self, text: String) {
        let seen = Seen {
            lease: self.lease,
            device: &self.slot.name,
            threads: self.slot.threads,
            seconds: self.begun.elapsed().as_secs_f64(),
            memory_bytes: self.memory_bytes,
            text: &|| self.context.corpora.training_text(self.lease.run.data.corpus),
        };
        if !self.is_foreign() || !text.trim_start().starts_with('{') {
            return self.context.held.log(self.key(), &text);
        }
        match told::read(&text, &seen) {
            Ok(Word::Line(line)) => self.understand(line).await,
            Ok(Word::Checkpoint { subject, path, step }) if self.is_own(subject) => {
                self.take_checkpoint(path, step, None).await;
            }
            Ok(Word::Lost { subject, lost, curve }) if self.is_own(subject) => self.take_lost(&lost, curve),
            Ok(Word::Checkpoint { .. } | Word::Lost { .. }) => {}
            Err(_) if self.outcome.is_some() => {}
            Err(why) => {
                let start: String = text.chars().take(GARBAGE_CHARS).collect();
                self.note(format!("not a line of the protocol ({why}): {start}"));
                self.misspoken = Some(why);
            }
        }
    }

    /// The loss is no number any more, which ends the run.
    fn take_lost(&mut self, lost: &Lost, curve: Vec<CurvePoint>) {
        self.last = Instant::now();
        if self.outcome.is_some() {
            return;
        }
        self.note(lost.hint());
        self.is_judged = !lost.is_last_word();
        let (reason, seconds) = (lost.reason(), self.begun.elapsed().as_secs_f64());
        let diverged = Outcome::Diverged(Diverged { step: lost.step, reason, curve, seconds, gpu: None });
        self.outcome = Some(told::held_to(diverged, &self.lease.run));
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.lease.run.trainer.is_some()
    }

    fn is_own(&mut self, subject: Key) -> bool {
        if subject == self.key() {
            return true;
        }
        let (run_id, attempt) = subject;
        self.note(format!("the child speaks of attempt {attempt} at run {}, which is not its own", run_id.short()));
        false
    }

    /// Takes note of a line of the protocol.
    async fn understand(&mut self, line: FromChild) {
        if !self.is_own(line.subject()) {
            return;
        }
        self.last = Instant::now();
        self.taken_by = None;
        self.prove(&line);
        match line {
            FromChild::Taken { .. } => {}
            FromChild::Began { .. } => self.meter.begin(),
            FromChild::Progress { memory_bytes, .. } => {
                self.meter.step();
                self.memory_bytes = self.memory_bytes.max(memory_bytes);
                self.context.held.progress(self.key(), &line);
            }
            FromChild::Eval { .. } => self.context.held.progress(self.key(), &line),
            FromChild::Checkpoint { path, step, digest, .. } => self.take_checkpoint(path, step, Some(digest)).await,
            // The first word counts: what follows it cannot take it back.
            FromChild::Outcome { .. } if self.outcome.is_some() => {
                self.note("a second outcome is not heard".to_owned());
            }
            FromChild::Outcome { result, again, .. } => {
                let foreign = self.is_foreign();
                self.outcome = Some(if foreign { told::held_to(result, &self.lease.run) } else { result });
                self.again = again;
            }
        }
    }

    /// A child that trains has its GPU.
    fn prove(&self, line: &FromChild) {
        let trains = match line {
            FromChild::Taken { .. } => false,
            FromChild::Outcome { result, .. } => !matches!(result, Outcome::Failed(_)),
            FromChild::Began { .. }
            | FromChild::Progress { .. }
            | FromChild::Eval { .. }
            | FromChild::Checkpoint { .. } => true,
        };
        if trains {
            self.context.gpus.works(self.slot, self.begun);
        }
    }

    /// Ours reads back what it wrote before it speaks; of a foreign one the worker reads the file itself.
    async fn take_checkpoint(&mut self, path: PathBuf, step: u64, said: Option<Digest>) {
        // A relative path begins in the folder that the attempt was given.
        let folder = self.context.checkpoints.folder(self.lease.run_id, self.lease.attempt);
        let path = folder.map_or_else(|_| path.clone(), |folder| folder.join(&path));
        let found = match said {
            Some(digest) if !self.is_foreign() => Ok(digest),
            _ => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || disk::digest_of(&path)).await;
                read.unwrap_or_else(|broke| Err(std::io::Error::other(broke)))
            }
        };
        let digest = match found {
            Ok(digest) if said.is_none_or(|said| said == digest) => digest,
            Ok(_) => return self.note(format!("a checkpoint without the digest that was said: {}", path.display())),
            Err(error) => return self.note(format!("a checkpoint that cannot be read: {}: {error}", path.display())),
        };
        let Some(checkpoint) = self.context.checkpoints.record(self.key(), &path, step, digest) else {
            return self.note(format!("a checkpoint outside this attempt's folder: {}", path.display()));
        };
        // Ours does so itself.
        if self.lease.trunk_steps.is_empty() && self.is_foreign() {
            self.context.checkpoints.keep_two(self.key());
        }
        self.recorded.push(checkpoint);
    }

    /// A checkpoint is where others may read it.
    pub(super) fn make_known(&mut self, checkpoint: CheckpointRef) {
        if self.lease.trunk_steps.is_empty() {
            self.checkpoints.clear();
        }
        self.checkpoints.retain(|known| known.step != checkpoint.step);
        self.checkpoints.push(checkpoint.clone());
        self.context.held.checkpoint(self.key(), checkpoint);
    }

    /// Whether the artifacts failed. A file that its trainer removed or changed is no fault of theirs.
    pub(super) fn take_stored(&mut self, stored: Result<CheckpointRef, TransferError>) -> bool {
        match stored {
            Ok(checkpoint) => self.make_known(checkpoint),
            Err(error @ (TransferError::Gone(_) | TransferError::Corrupt(_))) => {
                self.note(format!("a checkpoint is not stored: {error}"));
            }
            Err(error) => {
                let reason = format!("artifacts: {error}");
                tracing::warn!(run = %self.lease.run_id.short(), reason, "a checkpoint is not stored");
                self.context.held.log(self.key(), &reason);
                self.lost = Some(reason);
            }
        }
        self.lost.is_some()
    }

    /// The child is gone or waits for another run; what is under way to the artifacts arrives first. A result that needs no checkpoint counts even
    /// when they fail.
    pub(super) async fn end(
        mut self,
        mut uploads: Uploads<'_>,
        exit: Exit,
        is_yielding: bool,
        mut revoked: watch::Receiver<Option<String>>,
        mut shutdown: watch::Receiver<bool>,
    ) -> End {
        let grace = self.context.config.grace;
        let patience = async {
            let _ = shutdown.wait_for(|ended| *ended).await.is_ok();
            tokio::time::sleep(grace).await;
        };
        tokio::pin!(patience);
        while !uploads.is_idle() && self.lost.is_none() {
            tokio::select! {
                stored = uploads.next() => { let _ = self.take_stored(stored); }
                _ = revoked.wait_for(Option::is_some) => return End::Revoked,
                () = &mut patience => uploads.give_up(),
            }
        }
        let needs_none = self.lease.trunk_steps.is_empty()
            && matches!(self.outcome, Some(Outcome::Finished(_) | Outcome::Diverged(_)));
        match self.lost {
            Some(reason) if !needs_none => End::lost(reason, self.checkpoints),
            _ => {
                let last = self.tail.last().unwrap_or("the GPU was not to be had");
                match self.seat.judge(exit, self.outcome.is_some()) {
                    Verdict::Service if !is_yielding => End::of_device(last.to_owned(), self.checkpoints),
                    Verdict::Unclear if !is_yielding => {
                        let then = "under MPS this may be another run's fault: the next try is outside MPS";
                        End::of_others(&format!("{last}; {then}"), self.checkpoints)
                    }
                    _ => End::of(self.outcome, exit, is_yielding, &self.tail, self.checkpoints),
                }
            }
        }
    }

    /// Done when a child that had other runs before has not taken this one in time.
    pub(super) async fn is_deaf(&self) {
        match self.taken_by {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Done when a foreign trainer, or ours on a GPU, has said nothing of its run for too long; what is no line of the
    /// protocol says nothing. A GPU may hang, or one of several wait for the others, and end nothing by itself. On cores
    /// ours say something every second or so, and where they do not, it is the machine that hangs.
    pub(super) async fn silence_ends(&self) {
        match (&self.lease.run.trainer, &self.slot.gpu) {
            (None, None) => std::future::pending().await,
            _ => tokio::time::sleep_until(self.last + self.context.config.silence).await,
        }
    }

    pub(super) fn silent(&self) -> Outcome {
        let patience: Duration = self.context.config.silence;
        let who = if self.lease.run.trainer.is_some() { "command" } else { "trainer on a GPU" };
        let mut reason = format!("the {who} said nothing of its run for {} s and was ended", patience.as_secs_f64());
        if let Some(why) = &self.misspoken {
            reason.push_str(&format!("; what it said was no line of the protocol: {why}"));
        }
        Outcome::Failed(Failed { reason, retry: true })
    }

    /// Whether the run ended so that its child may be given another.
    pub(super) fn is_clean(&self) -> bool {
        self.again && matches!(self.outcome, Some(Outcome::Finished(_) | Outcome::Diverged(_)))
    }

    /// Why the child broke, where it may be the child's fault and not the run's or the machine's.
    pub(super) fn broke(&self, exit: Exit) -> Option<String> {
        // A context that broke under MPS is not to be broken again at once.
        if exit == Exit::Code(EXIT_CONTEXT) && self.seat.is_client() {
            return None;
        }
        let meant = [EXIT_DEVICE, EXIT_NO_RETRY, EXIT_STORAGE, EXIT_YIELDED].map(Exit::Code).contains(&exit);
        match &self.outcome {
            None if !meant => Some(unexplained(exit, &self.tail)),
            Some(Outcome::Failed(Failed { reason, retry: true })) => Some(reason.clone()),
            _ => None,
        }
    }
}
