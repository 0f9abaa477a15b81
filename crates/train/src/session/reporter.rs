//! Tells the caller what happens, at most so often, and remembers when it asks to stop.

use std::time::{Duration, Instant};

use isoloss_sweep::Tokens;

use super::{Control, Event};
use crate::ledger::Ledger;
use crate::memory;

pub(super) struct Reporter<'a> {
    events: &'a mut dyn FnMut(Event) -> Control,
    interval: Duration,
    steps: u64,
    /// When progress was told last, and the tokens and training seconds of then.
    told: Option<Instant>,
    tokens: u64,
    seconds: f64,
    stop: bool,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(events: &'a mut dyn FnMut(Event) -> Control, interval: Duration, steps: u64) -> Self {
        Self { events, interval, steps, told: None, tokens: 0, seconds: 0.0, stop: false }
    }

    /// Once asked to stop, the answer stays.
    pub(super) fn tell(&mut self, event: Event) -> Control {
        self.stop |= (self.events)(event) == Control::Stop;
        if self.stop { Control::Stop } else { Control::Continue }
    }

    /// Tells progress for the first time, when the interval has passed, and when `always`.
    pub(super) fn progress(&mut self, step: u64, tokens: Tokens, ledger: &Ledger, always: bool) -> Control {
        let due = self.told.is_none_or(|told| told.elapsed() >= self.interval);
        if !always && !due {
            return if self.stop { Control::Stop } else { Control::Continue };
        }
        let (trained, seconds) = (ledger.tokens_timed - self.tokens, ledger.seconds_training - self.seconds);
        let recent = trained as f64 / seconds;
        let told = self.told.replace(Instant::now());
        (self.tokens, self.seconds) = (ledger.tokens_timed, ledger.seconds_training);
        self.tell(Event::Progress {
            step,
            steps: self.steps,
            tokens,
            loss_nats: ledger.last_loss(),
            // While scoring no tokens are trained: the mean so far stands in.
            tokens_per_second: if told.is_some() && trained > 0 { recent } else { ledger.tokens_per_second() },
            memory_bytes: memory::peak_bytes(),
        })
    }
}
