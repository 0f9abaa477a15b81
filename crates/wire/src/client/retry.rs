//! When to try again: a bounded number of times, after pauses that double, each drawn from its upper half so that many
//! clients of one coordinator do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses between tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    left: u32,
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new(tries: u32) -> Self {
        Self { left: tries.saturating_sub(1), pause: FIRST }
    }

    /// The next pause; `None` when there were tries enough.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        Some(pause.mul_f64(0.5 + 0.5 * fraction()))
    }
}

/// Uniform in [0, 1): the standard library seeds every hasher anew, which is randomness enough for a pause.
fn fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded_in_number_and_length() {
        let pauses: Vec<Duration> = std::iter::from_fn({
            let mut backoff = Backoff::new(10);
            move || backoff.next()
        })
        .collect();
        assert_eq!(pauses.len(), 9);
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(Backoff::new(1).next().is_none());
    }
}
