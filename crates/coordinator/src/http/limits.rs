//! How often somebody may do what costs or tempts: wrong tokens by address, writes by token. Buckets that fill again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Wrong tokens from one address. Guessing 256 bits is hopeless at any speed; this keeps it from filling the log. Whoever
/// shows a right token is never held back by the wrong ones of a neighbour.
pub(crate) const WRONG_TOKENS: Rate = Rate { burst: 20.0, per_second: 0.5 };
/// Plans, submissions and orders of one token: more than a person or a script in its right mind sends.
pub(crate) const WRITES: Rate = Rate { burst: 200.0, per_second: 20.0 };
/// Buckets that are remembered; full ones go first, since they say nothing.
const BUCKETS_MAX: usize = 4096;

/// A bucket's size and how fast it fills again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    burst: f64,
    per_second: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Buckets of one rate by whose they are.
#[derive(Debug)]
pub(crate) struct Limits {
    rate: Rate,
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

impl Limits {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one from the bucket of `who`; else the seconds until there is one again.
    pub(crate) fn take(&self, who: &str, now: Instant) -> Result<(), u64> {
        let rate = self.rate;
        let filled = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + rate.per_second * seconds).min(rate.burst)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(who) {
            buckets.retain(|_, bucket| filled(bucket) < rate.burst);
            if buckets.len() >= BUCKETS_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(who.to_owned()).or_insert(Bucket { left: rate.burst, at: now });
        let left = filled(bucket);
        if left < 1.0 {
            return Err(((1.0 - left) / rate.per_second).ceil() as u64);
        }
        *bucket = Bucket { left: left - 1.0, at: now };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again_for_each_alone() {
        let limits = Limits::new(Rate { burst: 3.0, per_second: 0.5 });
        let begin = Instant::now();
        for _ in 0..3 {
            assert_eq!(limits.take("a", begin), Ok(()));
        }
        assert_eq!(limits.take("a", begin), Err(2));
        assert_eq!(limits.take("b", begin), Ok(()));
        assert_eq!(limits.take("a", begin + Duration::from_secs(2)), Ok(()));
        assert!(limits.take("a", begin + Duration::from_secs(2)).is_err());
    }

    #[test]
    fn strangers_without_number_take_bounded_memory() {
        let limits = Limits::new(Rate { burst: 3.0, per_second: 0.5 });
        let now = Instant::now();
        for stranger in 0..3 * BUCKETS_MAX {
            assert_eq!(limits.take(&stranger.to_string(), now), Ok(()));
        }
        assert!(limits.buckets.lock().unwrap().len() <= BUCKETS_MAX);
    }
}
