//! A design carried out on runs that were made already: what it would have chosen, and what it would have known.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::design::{Candidate, Purse, Question, choose};
use crate::observation::Observation;

/// Of the runs seen, how many more are made before the laws are fitted again.
const BATCH_SHARE: f64 = 0.1;

/// A pool whose losses are shown run by run, as they are paid for.
#[derive(Debug, Clone)]
pub struct Replay {
    open: Vec<Candidate>,
    seen: Vec<Observation>,
    spent: f64,
}

impl Replay {
    /// The losses of the pool are its outcomes. The seed shuffles it: tables are sorted, and among equal runs a design takes
    /// the first, which must not be the one of least loss.
    pub fn new(mut pool: Vec<Candidate>, seed: u64) -> Self {
        pool.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        Self { open: pool, seen: Vec::new(), spent: 0.0 }
    }

    pub fn seen(&self) -> &[Observation] {
        &self.seen
    }

    /// What was paid so far.
    pub fn spent(&self) -> f64 {
        self.spent
    }

    /// Makes runs until `budget` is spent, all that was spent before included; `each` looks on after every few.
    pub fn until(&mut self, budget: f64, question: &Question, each: &mut dyn FnMut(&Self)) {
        let mut purse = Purse::of(&Question { budget: budget - self.spent, ..question.clone() });
        loop {
            let question = Question { budget: purse.left, trunks: purse.trunks.clone(), ..question.clone() };
            let choice = choose(&self.seen, &self.open, &question);
            let batch = match choice.deviation {
                Some(_) => 1 + (BATCH_SHARE * self.seen.len() as f64) as usize,
                None => choice.picks.len(),
            };
            let mut picks: Vec<usize> = choice.picks.into_iter().take(batch).collect();
            if picks.is_empty() {
                return;
            }
            picks.sort_unstable();
            for at in picks.into_iter().rev() {
                let made = self.open.remove(at);
                let before = purse.left;
                purse.spend(&made);
                self.spent += before - purse.left;
                self.seen.push(made.row);
            }
            each(self);
        }
    }
}
