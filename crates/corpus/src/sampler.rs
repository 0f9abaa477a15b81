//! Training batches that depend on (seed, step) alone: exact, resumable, and without repeats inside an epoch.

use std::sync::Arc;

use isoloss_sweep::Tokens;

use crate::dataset::DatasetError;
use crate::mix::mix_all;
use crate::permutation::Permutation;
use crate::stream::Stream;

/// Where batches come from.
///
/// An epoch cuts the stream, closed to a ring, into windows of `context` targets from a start that the epoch's key
/// picks, and visits them in an order that the same key picks. So an epoch has each token as a target at most once,
/// leaves out fewer than `context`, and other ones each time.
#[derive(Debug, Clone)]
pub struct Sampler {
    stream: Arc<Stream>,
    context: usize,
    seed: u64,
    /// Tokens of the ring: the stream's first.
    ring: usize,
}

/// One pass: where on the ring it starts, and the order of its windows.
struct Epoch {
    number: u64,
    start: usize,
    order: Permutation,
}

impl Sampler {
    pub(crate) fn new(
        stream: Arc<Stream>,
        context: u32,
        seed: u64,
        tokens_unique: Option<Tokens>,
    ) -> Result<Self, DatasetError> {
        let available = stream.len() as u64;
        let ring = tokens_unique.map_or(available, Tokens::get);
        if ring > available {
            return Err(DatasetError::TokensUnique { wanted: ring, available });
        }
        if context == 0 || ring <= u64::from(context) {
            return Err(DatasetError::ShorterThanContext { tokens: ring, context });
        }
        Ok(Self { stream, context: context as usize, seed, ring: ring as usize })
    }

    /// Distinct tokens that training can meet.
    pub fn tokens_unique(&self) -> Tokens {
        Tokens(self.ring as u64)
    }

    /// Windows in an epoch.
    pub fn windows(&self) -> u64 {
        (self.ring / self.context) as u64
    }

    /// The batch of optimizer step `step`: `batch` windows of `context + 1` tokens, row-major. `out` is replaced.
    pub fn fill(&self, step: u64, batch: u32, out: &mut Vec<u32>) {
        out.clear();
        out.reserve(batch as usize * (self.context + 1));
        let first = step * u64::from(batch);
        let mut epoch = self.epoch(first / self.windows());
        for index in first..first + u64::from(batch) {
            if index / self.windows() != epoch.number {
                epoch = self.epoch(index / self.windows());
            }
            let window = epoch.order.get(index % self.windows()) as usize;
            self.window((epoch.start + window * self.context) % self.ring, out);
        }
    }

    fn epoch(&self, number: u64) -> Epoch {
        let key = mix_all(&[self.seed, number]);
        // The bias of the remainder is ring / 2^64.
        let start = (mix_all(&[key, 1]) % self.ring as u64) as usize;
        Epoch { number, start, order: Permutation::new(self.windows(), key) }
    }

    /// `context + 1` tokens from `start` on, around the ring.
    fn window(&self, start: usize, out: &mut Vec<u32>) {
        let end = start + self.context + 1;
        self.stream.copy(start..end.min(self.ring), out);
        self.stream.copy(0..end.saturating_sub(self.ring), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose tokens are their own places.
    fn counting(len: u32) -> Arc<Stream> {
        let mut stream = Stream::new(u32::MAX);
        stream.tokens.extend(&(0..len).collect::<Vec<_>>());
        Arc::new(stream)
    }

    #[test]
    fn an_epoch_has_every_token_once_as_a_target() {
        let sampler = Sampler::new(counting(960), 16, 9, None).unwrap();
        assert_eq!(sampler.windows(), 60);
        let (mut out, mut starts) = (Vec::new(), Vec::new());
        for epoch in 0..3 {
            let mut targets = Vec::new();
            for step in epoch * 10..(epoch + 1) * 10 {
                sampler.fill(step, 6, &mut out);
                assert_eq!(out.len(), 6 * 17);
                for window in out.chunks(17) {
                    assert!(window.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 960));
                    targets.extend_from_slice(&window[1..]);
                    starts.push(window[0]);
                }
            }
            targets.sort_unstable();
            assert!(targets.into_iter().eq(0..960));
        }
        assert_ne!(starts[..60], starts[60..120], "epochs differ in order and phase");
    }

    #[test]
    fn a_batch_depends_on_seed_and_step_alone_and_may_cross_epochs() {
        let stream = counting(1000);
        let sampler = |seed| Sampler::new(Arc::clone(&stream), 7, seed, Some(Tokens(500))).unwrap();
        let batch = |seed, step, rows| {
            let mut out = vec![1, 2, 3];
            sampler(seed).fill(step, rows, &mut out);
            out
        };
        assert_eq!(batch(1, 40, 3), batch(1, 40, 3));
        assert_ne!(batch(1, 40, 3), batch(2, 40, 3));
        // The order of windows does not depend on how they are batched.
        let joined = [batch(1, 46, 3), batch(1, 47, 3)].concat();
        assert_eq!(batch(1, 23, 6), joined);
        assert!(batch(1, 0, 200).iter().all(|&token| token < 500));
    }

    #[test]
    fn impossible_requests_are_refused() {
        let refused = |context, unique| Sampler::new(counting(100), context, 0, unique).unwrap_err().to_string();
        assert!(refused(100, None).contains("100 tokens"));
        assert!(refused(10, Some(Tokens(101))).contains("101"));
    }
}
