//! The attempts that this worker holds, as shared by those who run them and the one who renews them. In memory only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isoloss_sweep::outcome::{CurvePoint, GpuUse};
use isoloss_sweep::{RunId, Tokens};
use isoloss_wire::api::{CheckpointRef, Lease, LeaseKey, Live, Renewal};
use isoloss_wire::child::FromChild;
use tokio::sync::watch;
use tokio::time::Instant;

/// Log lines that wait for the next renewal; older ones are dropped.
const LOG_LINES_MAX: usize = 200;
/// Points of the curve and checkpoints that wait for the next renewal: a child that says more of them in a few seconds
/// is not to fill the memory, nor the request.
const NEWS_MAX: usize = 1000;
/// Longer lines are cut.
const LOG_CHARS_MAX: usize = 2000;
/// An attempt whose lease ran out while the coordinator could not be reached goes on for this long: its token still
/// decides what counts, and a coordinator that comes back takes it up again. Beyond, the machine is given back.
const ORPHANED: Duration = Duration::from_secs(3600);

/// A run and its fencing token.
pub(crate) type Key = (RunId, u64);

/// All attempts of the worker.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<BTreeMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    worker: String,
    slot: String,
    gpu: Option<GpuUse>,
    key: Option<LeaseKey>,
    granted: Instant,
    deadline: Instant,
    live: Option<Live>,
    points: Vec<CurvePoint>,
    checkpoints: Vec<CheckpointRef>,
    log: VecDeque<String>,
    revoke: watch::Sender<Option<String>>,
}

impl Held {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up an attempt; the receiver tells if it is revoked, and why.
    pub(crate) fn insert(
        &self,
        worker: &str,
        slot: &str,
        gpu: Option<GpuUse>,
        lease: &Lease,
        asked: Instant,
    ) -> watch::Receiver<Option<String>> {
        let (revoke, revoked) = watch::channel(None);
        let entry = Entry {
            worker: worker.to_owned(),
            slot: slot.to_owned(),
            gpu,
            key: lease.key.clone(),
            granted: Instant::now(),
            deadline: asked + Duration::from_secs_f64(lease.seconds),
            live: None,
            points: Vec::new(),
            checkpoints: Vec::new(),
            log: VecDeque::new(),
            revoke,
        };
        self.entries().insert((lease.run_id, lease.attempt), entry);
        revoked
    }

    pub(crate) fn remove(&self, key: Key) {
        self.entries().remove(&key);
    }

    /// Whether an attempt at this run is under way here.
    pub(crate) fn has(&self, run_id: RunId) -> bool {
        self.entries().keys().any(|(held, _)| *held == run_id)
    }

    pub(crate) fn log(&self, key: Key, text: &str) {
        if let Some(entry) = self.entries().get_mut(&key) {
            if entry.log.len() == LOG_LINES_MAX {
                entry.log.pop_front();
            }
            entry.log.push_back(text.chars().take(LOG_CHARS_MAX).collect());
        }
    }

    /// The lines that no renewal has carried yet.
    pub(crate) fn take_log(&self, key: Key) -> Vec<String> {
        self.entries().get_mut(&key).map(|entry| std::mem::take(&mut entry.log).into()).unwrap_or_default()
    }

    pub(crate) fn checkpoint(&self, key: Key, checkpoint: CheckpointRef) {
        if let Some(entry) = self.entries().get_mut(&key) {
            if entry.checkpoints.len() == NEWS_MAX {
                entry.checkpoints.remove(0);
            }
            entry.checkpoints.push(checkpoint);
        }
    }

    /// Takes the numbers out of a progress or eval line.
    pub(crate) fn progress(&self, key: Key, line: &FromChild) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&key) else { return };
        let live = entry.live.get_or_insert_with(|| Live {
            worker: entry.worker.clone(),
            device: entry.slot.clone(),
            gpu: entry.gpu.clone(),
            attempt: key.1,
            step: 0,
            steps: 0,
            tokens: Tokens(0),
            tokens_per_second: 0.0,
            loss_nats: None,
            bits_per_byte: None,
            memory_bytes: 0,
            seconds: 0.0,
        });
        live.seconds = entry.granted.elapsed().as_secs_f64();
        match line {
            FromChild::Progress { step, steps, tokens, loss_nats, tokens_per_second, memory_bytes, .. } => {
                live.step = *step;
                live.steps = *steps;
                live.tokens = Tokens(*tokens);
                live.loss_nats = Some(*loss_nats);
                live.tokens_per_second = *tokens_per_second;
                live.memory_bytes = *memory_bytes;
            }
            FromChild::Eval { step, tokens, loss_nats, bits_per_byte, .. } => {
                live.bits_per_byte = Some(*bits_per_byte);
                if entry.points.len() == NEWS_MAX {
                    entry.points.pop();
                }
                entry.points.push(CurvePoint {
                    step: *step,
                    tokens: Tokens(*tokens),
                    loss_nats: *loss_nats,
                    bits_per_byte: *bits_per_byte,
                    train_loss_nats: live.loss_nats.unwrap_or(*loss_nats),
                });
            }
            FromChild::Taken { .. }
            | FromChild::Began { .. }
            | FromChild::Checkpoint { .. }
            | FromChild::Outcome { .. } => {}
        }
    }

    /// Signs of life for all attempts; what is new is taken out.
    pub(crate) fn renewals(&self) -> Vec<Renewal> {
        let renewal = |(key, entry): (&Key, &mut Entry)| Renewal {
            run_id: key.0,
            attempt: key.1,
            key: entry.key.clone(),
            slot: entry.slot.clone(),
            live: entry.live.clone(),
            points: std::mem::take(&mut entry.points),
            checkpoints: std::mem::take(&mut entry.checkpoints),
            log: std::mem::take(&mut entry.log).into(),
        };
        self.entries().iter_mut().map(renewal).collect()
    }

    /// Puts back what a renewal that did not arrive had taken out.
    pub(crate) fn put_back(&self, renewals: Vec<Renewal>) {
        let mut entries = self.entries();
        for renewal in renewals {
            let Some(entry) = entries.get_mut(&(renewal.run_id, renewal.attempt)) else {
                continue;
            };
            entry.points.splice(0..0, renewal.points);
            entry.checkpoints.splice(0..0, renewal.checkpoints);
            renewal.log.into_iter().rev().for_each(|line| entry.log.push_front(line));
            let excess = entry.log.len().saturating_sub(LOG_LINES_MAX);
            entry.log.drain(..excess);
        }
    }

    /// The lease of an attempt lasts for `seconds` from `since`.
    pub(crate) fn keep(&self, key: Key, since: Instant, seconds: f64) {
        if let Some(entry) = self.entries().get_mut(&key) {
            entry.deadline = entry.deadline.max(since + Duration::from_secs_f64(seconds));
        }
    }

    pub(crate) fn revoke(&self, key: Key, reason: &str) {
        if let Some(entry) = self.entries().get(&key) {
            entry.revoke.send_replace(Some(reason.to_owned()));
        }
    }

    /// Revokes what nobody has renewed for too long.
    pub(crate) fn revoke_orphaned(&self) {
        let now = Instant::now();
        for (_, entry) in self.entries().iter().filter(|(_, entry)| now > entry.deadline + ORPHANED) {
            entry.revoke.send_replace(Some("the coordinator could not be reached for too long".to_owned()));
        }
    }
}
