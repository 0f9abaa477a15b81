//! What a slot loses between runs, on the worker's own clock: from the grant to the first step, and from the outcome of
//! one run to the first step of the next. A step is work, so both end where it begins.

use std::time::Duration;

use tokio::time::Instant;

/// The clock of one slot.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    granted: Option<Instant>,
    /// When the first step began, where the child says so.
    began: Option<Instant>,
    first_step: Option<Instant>,
    outcome: Option<Instant>,
    /// When the run before said its outcome.
    before: Option<Instant>,
}

impl Meter {
    /// A lease was granted for this slot.
    pub(crate) fn grant(&mut self) {
        *self = Self { granted: Some(Instant::now()), before: self.outcome, ..Self::default() };
    }

    /// The first step begins.
    pub(crate) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// A step was reported.
    pub(crate) fn step(&mut self) {
        self.first_step.get_or_insert_with(Instant::now);
    }

    /// The outcome was said: from now on the device waits.
    pub(crate) fn outcome(&mut self) {
        self.outcome.get_or_insert_with(Instant::now);
    }

    /// From the grant to the first step: to its begin, or to its end where nothing is said of its begin.
    pub(crate) fn start(&self) -> Option<Duration> {
        Some(self.began.or(self.first_step)?.duration_since(self.granted?))
    }

    /// From the outcome of the run before to the first step.
    pub(crate) fn idle(&self) -> Option<Duration> {
        Some(self.began.or(self.first_step)?.duration_since(self.before?))
    }

    /// From the grant to the report of the first step.
    pub(crate) fn stepped(&self) -> Option<Duration> {
        Some(self.first_step?.duration_since(self.granted?))
    }
}

/// For the log: milliseconds, or -1 where there was no such moment.
pub(crate) fn millis(span: Option<Duration>) -> f64 {
    span.map_or(-1.0, |span| (span.as_secs_f64() * 1e4).round() / 10.0)
}
