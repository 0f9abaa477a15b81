//! A machine's own monotonic clock: fast or slow, sometimes ahead by hours at once, sometimes standing still.

use super::*;

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Thousandths of the true speed.
    rate: u64,
    /// What it showed at a true time.
    shown: Millis,
    at: Millis,
}

impl Clock {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, shown: 0, at: 0 }
    }

    pub(super) fn read(&self, true_ms: Millis) -> Millis {
        self.shown + true_ms.saturating_sub(self.at) * self.rate / 1000
    }

    /// From now on it shows so much more.
    pub(super) fn jump(&mut self, true_ms: Millis, ahead: Millis) {
        *self = Self { shown: self.read(true_ms) + ahead, at: true_ms, ..*self };
    }

    /// It stands still for the next milliseconds.
    pub(super) fn stand(&mut self, true_ms: Millis, still: Millis) {
        *self = Self { shown: self.read(true_ms), at: true_ms + still, ..*self };
    }
}
