//! Listening to a child until it is gone: what it says is noted, and it is stopped when it must be. A child may say
//! anything: what is kept of it is bounded, and nothing of it reaches another run.

use std::path::PathBuf;
use std::time::Duration;

use isoloss_sweep::outcome::Failed;
use isoloss_sweep::{Digest, Outcome};
use isoloss_wire::api::{CheckpointRef, Lease, Slot};
use isoloss_wire::child::FromChild;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ending::{End, Tail};
use super::ladder::Ladder;
use super::told::{self, Seen, Word};
use crate::child::{Child, Said};
use crate::daemon::Context;
use crate::disk;
use crate::held::Key;
use crate::meter::Meter;

/// Of a line that is not understood this much is kept.
const GARBAGE_CHARS: usize = 200;

/// What was heard of an attempt so far.
struct Heard<'a> {
    context: &'a Context,
    slot: &'a Slot,
    lease: &'a Lease,
    begun: Instant,
    last: Instant,
    tail: Tail,
    outcome: Option<Outcome>,
    checkpoints: Vec<CheckpointRef>,
    memory_bytes: u64,
    meter: &'a mut Meter,
}

/// Listens to the child until it is gone.
pub(super) async fn supervise(
    context: &Context,
    slot: &Slot,
    lease: &Lease,
    mut child: Child,
    meter: &mut Meter,
    mut revoked: watch::Receiver<Option<String>>,
    mut shutdown: watch::Receiver<bool>,
) -> End {
    let mut heard = Heard::new(context, slot, lease, meter);
    let mut ladder = Ladder::new(context.config.grace);
    let (mut is_revoked, mut is_yielding, mut is_over) = (false, false, false);
    loop {
        // What guards a channel must not be held while a file is read, so each branch gives plain data first.
        let event = tokio::select! {
            said = child.next() => Event::Said(said),
            reason = revoked.wait_for(Option::is_some), if !is_revoked => {
                Event::Revoked(reason.ok().and_then(|reason| reason.clone()).unwrap_or_default())
            }
            _ = shutdown.wait_for(|ended| *ended), if !is_yielding && !is_revoked && !is_over => Event::Shutdown,
            () = heard.silence_ends(), if !is_revoked && !is_over => Event::Silent,
            () = ladder.patience_ends() => Event::Impatient,
        };
        match event {
            Event::Said(Some(Said::Exited(exit))) if is_revoked => {
                tracing::debug!(?exit, "a revoked child is gone");
                return End::Revoked;
            }
            Event::Said(Some(Said::Exited(exit))) => {
                return End::of(heard.outcome, exit, is_yielding, &heard.tail, heard.checkpoints);
            }
            Event::Said(Some(said)) => {
                heard.hear(said).await;
                if heard.outcome.is_some() && !is_over {
                    is_over = true;
                    heard.meter.outcome();
                    ladder.said_all(&mut child, lease.run.trainer.is_some());
                }
            }
            Event::Said(None) => return End::broke("the child's thread ended without a word".to_owned()),
            Event::Revoked(reason) => {
                is_revoked = true;
                tracing::info!(run = lease.run_id.short(), attempt = lease.attempt, reason, "attempt revoked");
                ladder.end_now(&mut child);
            }
            Event::Shutdown => {
                is_yielding = true;
                ladder.stop(&mut child);
            }
            Event::Silent => {
                is_over = true;
                heard.outcome = Some(heard.silent());
                ladder.end_now(&mut child);
            }
            Event::Impatient => ladder.climb(&mut child),
        }
    }
}

/// What happens while a child runs.
enum Event {
    Said(Option<Said>),
    Revoked(String),
    Shutdown,
    Silent,
    /// The next rung of the ladder is due.
    Impatient,
}

impl<'a> Heard<'a> {
    fn new(context: &'a Context, slot: &'a Slot, lease: &'a Lease, meter: &'a mut Meter) -> Self {
        let checkpoints = context.checkpoints.of_trunk(lease);
        checkpoints.iter().for_each(|one| context.held.checkpoint((lease.run_id, lease.attempt), one.clone()));
        let now = Instant::now();
        let tail = Tail::default();
        Self { context, slot, lease, begun: now, last: now, tail, outcome: None, checkpoints, memory_bytes: 0, meter }
    }

    fn key(&self) -> Key {
        (self.lease.run_id, self.lease.attempt)
    }

    async fn hear(&mut self, said: Said) {
        match said {
            Said::Line(line) => self.understand(*line).await,
            Said::Log(text) => self.note(text),
            Said::Garbage(text) => self.guess(text).await,
            Said::Exited(_) => {}
        }
    }

    /// A line for people.
    fn note(&mut self, text: String) {
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
            Ok(Word::Checkpoint { .. }) => {}
            Err(_) if self.outcome.is_some() => {}
            Err(why) => {
                let start: String = text.chars().take(GARBAGE_CHARS).collect();
                self.note(format!("not a line of the protocol ({why}): {start}"));
            }
        }
    }

    fn is_foreign(&self) -> bool {
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
        match line {
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
            FromChild::Outcome { result, .. } if self.is_foreign() => {
                self.outcome = Some(told::held_to(result, &self.lease.run));
            }
            FromChild::Outcome { result, .. } => self.outcome = Some(result),
        }
    }

    /// Ours reads back what it wrote before it speaks; of a foreign one the worker reads the file itself.
    async fn take_checkpoint(&mut self, path: PathBuf, step: u64, said: Option<Digest>) {
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
        if self.lease.trunk_steps.is_empty() {
            self.checkpoints.clear();
            // Ours does so itself.
            if self.is_foreign() {
                self.context.checkpoints.keep_two(self.key());
            }
        }
        self.checkpoints.retain(|known| known.step != step);
        self.checkpoints.push(checkpoint.clone());
        self.context.held.checkpoint(self.key(), checkpoint);
    }

    /// Done when a foreign trainer has said nothing of its run for too long; what is no line of the protocol says nothing. Ours say something every second or so, and where
    /// they do not, it is the machine that hangs.
    async fn silence_ends(&self) {
        match self.lease.run.trainer {
            Some(_) => tokio::time::sleep_until(self.last + self.context.config.silence).await,
            None => std::future::pending().await,
        }
    }

    fn silent(&self) -> Outcome {
        let patience: Duration = self.context.config.silence;
        let reason = format!("the command said nothing of its run for {} s and was ended", patience.as_secs_f64());
        Outcome::Failed(Failed { reason, retry: true })
    }
}
