//! Which slot of a GPU asks for work, and when. Slots of one GPU are alike: one of them asks at a time, for all. Runs are
//! spread: a GPU with more of them than another one of this worker asks now and then and waits for no answer, so that work
//! that comes goes to the emptier one, and what does not fit there is found all the same. A GPU that was not to be had rests,
//! longer each time, and then gets one run at a time until one trains. It asks nobody and knows nothing of runs; cores ask
//! as they like.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isoloss_wire::api::{RestingGpu, Slot};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What was asked for so long ago is not there now; a fuller GPU asks so often.
const MOMENT: Duration = Duration::from_secs(1);
/// How long a GPU rests that was not to be had, doubled by each further attempt that was lost.
const REST_FIRST: Duration = Duration::from_secs(2);
const REST_LONGEST: Duration = Duration::from_secs(300);
/// Of the reason of a loss, which is a child's last line, so much is told.
const REASON_CHARS_MAX: usize = 300;

/// The GPUs of a worker's slots.
#[derive(Debug, Clone)]
pub(crate) struct Gpus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gpus: Mutex<BTreeMap<String, Gpu>>,
    changes: watch::Sender<()>,
}

/// One GPU, or a group of them that is used as one.
#[derive(Debug, Default)]
struct Gpu {
    slots: usize,
    /// Slots that have a run.
    busy: usize,
    /// What one run would have had of the GPU if it had been there from the start: its time over the runs of each moment.
    had: Duration,
    /// Until when that is added up.
    counted: Option<Instant>,
    is_asking: bool,
    /// Since when a question waits at the coordinator.
    waiting: Option<Instant>,
    /// Attempts that were lost one after the other.
    losses: u32,
    /// What the last of them was told.
    reason: String,
    lost: Option<Instant>,
    /// Whether the one run that it gets after a rest is under way.
    is_on_trial: bool,
}

/// The right of a slot to ask, until it is dropped or work is granted.
#[derive(Debug)]
pub(crate) struct Asking {
    gpus: Gpus,
    gpu: Option<String>,
}

/// A slot's work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    gpus: Gpus,
    gpu: Option<String>,
    is_trial: bool,
}

/// How a GPU is to ask now.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// As long as it takes.
    Patiently,
    /// Another one has fewer runs: it may have what comes.
    Fuller,
    Rests(Instant),
    /// Something else has to end first.
    Later,
}

impl Gpus {
    pub(crate) fn of(slots: &[Slot]) -> Self {
        let mut gpus: BTreeMap<String, Gpu> = BTreeMap::new();
        for gpu in slots.iter().filter_map(|slot| slot.gpu.clone()) {
            gpus.entry(gpu).or_default().slots += 1;
        }
        Self(Arc::new(Shared { gpus: Mutex::new(gpus), changes: watch::Sender::new(()) }))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Gpu>> {
        self.0.gpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of a GPU and wakes whoever waits for it.
    fn change<T>(&self, gpu: &str, note: impl FnOnce(&mut Gpu) -> T) -> T {
        let noted = note(self.all().entry(gpu.to_owned()).or_default());
        self.0.changes.send_replace(());
        noted
    }

    /// Waits until no other slot of the GPU asks and the GPU does not rest.
    pub(crate) async fn asking(&self, slot: &Slot) -> Asking {
        let mut changes = self.0.changes.subscribe();
        while let Some(gpu) = &slot.gpu {
            let until = {
                let mut all = self.all();
                match turn(&all, gpu, Instant::now()) {
                    Turn::Rests(until) => Some(until),
                    Turn::Later => None,
                    Turn::Patiently | Turn::Fuller => {
                        all.entry(gpu.clone()).or_default().is_asking = true;
                        break;
                    }
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = rest(until) => {}
            }
        }
        Asking { gpus: self.clone(), gpu: slot.gpu.clone() }
    }

    /// Whether a slot whose run ended well may have the next one at once.
    pub(crate) fn may_go_on(&self, slot: &Slot) -> bool {
        slot.gpu.as_ref().is_none_or(|gpu| may_go_on(&self.all(), gpu, Instant::now()))
    }

    /// The GPU was not to be had for an attempt that began at `begun`.
    pub(crate) fn lost(&self, slot: &Slot, begun: Instant, reason: &str) {
        let Some(gpu) = &slot.gpu else { return };
        if self.change(gpu, |state| state.lose(begun, Instant::now(), reason)) == 1 {
            let then = "its slots ask for no work for a while, then for one run at a time until one trains";
            tracing::warn!(gpu, reason, then, "a GPU is not to be had");
        }
    }

    /// An attempt whose child was given its run at `begun` trains.
    pub(crate) fn works(&self, slot: &Slot, begun: Instant) {
        let Some(gpu) = &slot.gpu else { return };
        if self.all().get(gpu).is_none_or(|state| !state.is_proved_by(begun)) {
            return;
        }
        let losses = self.change(gpu, |state| {
            state.is_on_trial = false;
            std::mem::take(&mut state.losses)
        });
        tracing::warn!(gpu, losses, "a GPU is there again: its slots go on");
    }
}

impl Gpus {
    /// Those that were lost and have trained no run since, for people.
    pub(crate) fn resting(&self) -> Vec<RestingGpu> {
        let now = Instant::now();
        let row = |(gpu, state): (&String, &Gpu)| {
            let left = state.rests_until()?.saturating_duration_since(now);
            Some(RestingGpu { gpu: gpu.clone(), reason: state.reason.clone(), seconds: left.as_secs_f64() })
        };
        self.all().iter().filter_map(row).collect()
    }

    /// A clock that goes by the GPU time that each run of the slot's GPU has: slower the more of them there are. It stands
    /// while there is none; of a group it counts one GPU.
    pub(crate) fn clock(&self, slot: &Slot, now: Instant) -> Duration {
        let Some(gpu) = &slot.gpu else { return Duration::ZERO };
        let mut all = self.all();
        let state = all.entry(gpu.clone()).or_default();
        state.count(now);
        state.had
    }
}

impl Asking {
    /// Waits for the GPU's turn; whether the coordinator may be asked to hold the question until there is work.
    pub(crate) async fn is_patient(&self) -> bool {
        let Some(gpu) = &self.gpu else { return true };
        let mut changes = self.gpus.0.changes.subscribe();
        let moment = Instant::now() + MOMENT;
        loop {
            let until = {
                let (mut all, now) = (self.gpus.all(), Instant::now());
                let turn = turn_of_asking(&all, gpu, now);
                let waiting = &mut all.entry(gpu.clone()).or_default().waiting;
                match turn {
                    Turn::Patiently => {
                        waiting.get_or_insert(now);
                        return true;
                    }
                    Turn::Fuller => {
                        *waiting = None;
                        if now >= moment {
                            return false;
                        }
                        Some(moment)
                    }
                    Turn::Rests(until) => Some(until),
                    Turn::Later => None,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = rest(until) => {}
            }
        }
    }

    /// Done when a question that waits is better asked by another GPU, or by none. What the coordinator granted meanwhile
    /// it grants again to the same slot, which therefore keeps its right to ask.
    pub(crate) async fn overtaken(&self) {
        let mut changes = self.gpus.0.changes.subscribe();
        loop {
            let is_patient = self
                .gpu
                .as_ref()
                .is_none_or(|gpu| turn_of_asking(&self.gpus.all(), gpu, Instant::now()) == Turn::Patiently);
            if !is_patient {
                return;
            }
            let _never_closed = changes.changed().await;
        }
    }

    /// The slot has work.
    pub(crate) fn granted(self) -> Busy {
        let note = |state: &mut Gpu| {
            state.count(Instant::now());
            state.busy += 1;
            state.is_on_trial = state.losses > 0;
            state.is_on_trial
        };
        let is_trial = self.gpu.as_ref().is_some_and(|gpu| self.gpus.change(gpu, note));
        Busy { gpus: self.gpus.clone(), gpu: self.gpu.clone(), is_trial }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(gpu) = &self.gpu {
            self.gpus.change(gpu, |state| (state.is_asking, state.waiting) = (false, None));
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let note = |state: &mut Gpu| {
            state.count(Instant::now());
            state.busy = state.busy.saturating_sub(1);
            state.is_on_trial &= !self.is_trial;
        };
        if let Some(gpu) = &self.gpu {
            self.gpus.change(gpu, note);
        }
    }
}

impl Gpu {
    /// To be called before the number of runs changes.
    fn count(&mut self, now: Instant) {
        let since = *self.counted.get_or_insert(now);
        if let Ok(busy @ 1..) = u32::try_from(self.busy) {
            self.had += now.saturating_duration_since(since) / busy;
        }
        self.counted = Some(now.max(since));
    }

    fn rests_until(&self) -> Option<Instant> {
        let doublings = self.losses.checked_sub(1)?.min(16);
        Some(self.lost? + REST_FIRST.saturating_mul(1 << doublings).min(REST_LONGEST))
    }

    /// Losses of attempts that were under way together count once; how many those are, or 0 for one that counts no more.
    fn lose(&mut self, begun: Instant, now: Instant, reason: &str) -> u32 {
        if self.lost.is_some_and(|lost| begun < lost) {
            return 0;
        }
        self.reason = reason.chars().take(REASON_CHARS_MAX).collect();
        (self.losses, self.lost) = (self.losses + 1, Some(now));
        self.losses
    }

    /// Whether the news that such an attempt trains ends the rests: it opened the GPU after the loss.
    fn is_proved_by(&self, begun: Instant) -> bool {
        self.losses > 0 && self.lost.is_some_and(|lost| begun >= lost)
    }

    /// Whether it may have a run and is known for nothing bad.
    fn is_open(&self) -> bool {
        self.busy < self.slots && self.losses == 0
    }
}

async fn rest(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// For a slot that has no right to ask yet.
fn turn(all: &BTreeMap<String, Gpu>, gpu: &str, now: Instant) -> Turn {
    if all.get(gpu).is_some_and(|own| own.is_asking) { Turn::Later } else { turn_of_asking(all, gpu, now) }
}

/// For the slot that has it.
fn turn_of_asking(all: &BTreeMap<String, Gpu>, gpu: &str, now: Instant) -> Turn {
    let Some(own) = all.get(gpu) else { return Turn::Patiently };
    if let Some(until) = own.rests_until().filter(|until| now < *until) {
        return Turn::Rests(until);
    }
    if own.is_on_trial {
        return Turn::Later;
    }
    let is_fuller = all.values().any(|other| other.is_open() && other.busy < own.busy);
    if is_fuller { Turn::Fuller } else { Turn::Patiently }
}

/// It may not where another GPU would have fewer runs than this one then, unless that one has waited in vain.
fn may_go_on(all: &BTreeMap<String, Gpu>, gpu: &str, now: Instant) -> bool {
    let Some(own) = all.get(gpu) else { return true };
    let in_vain = |other: &Gpu| other.waiting.is_some_and(|since| since + MOMENT <= now);
    let is_better = |other: &Gpu| other.is_open() && other.busy + 1 < own.busy && !in_vain(other);
    own.losses == 0 && !all.values().any(is_better)
}

#[cfg(test)]
mod tests;
