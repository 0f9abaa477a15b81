//! Letters between workers and the coordinator: lost, repeated, late, out of order, or cut off for a while.

use super::coverage::Fault;
use super::*;

/// A request of a worker, or an answer to one.
#[derive(Debug, Clone)]
pub(super) enum Letter {
    Request(Asked),
    Answer(Told),
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) worker: usize,
    pub(super) life: u64,
    /// By the worker's clock.
    pub(super) at: Millis,
    pub(super) events: Vec<Event>,
    /// The mark on the outcome that it reports.
    pub(super) stamp: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) worker: usize,
    pub(super) life: u64,
    /// When it was asked, by the worker's clock.
    pub(super) asked: Millis,
    pub(super) is_renewal: bool,
    /// The attempt whose ending need not be said again.
    pub(super) settled: Option<(RunId, u64)>,
    pub(super) effects: Vec<Effect>,
}

impl World {
    pub(super) fn send(&mut self, worker: usize, at: Millis, events: Vec<Event>) {
        let life = self.workers[worker].life;
        self.post(Letter::Request(Asked { worker, life, at, events, stamp: None }));
    }

    pub(super) fn send_ending(&mut self, worker: usize, at: Millis, events: Vec<Event>, stamp: Option<u64>) {
        let life = self.workers[worker].life;
        self.post(Letter::Request(Asked { worker, life, at, events, stamp }));
    }

    pub(super) fn post(&mut self, letter: Letter) {
        let mut due = self.t + 1;
        if self.trouble() {
            let (Letter::Request(Asked { worker, .. }) | Letter::Answer(Told { worker, .. })) = &letter;
            if self.workers[*worker].cut_until > self.t {
                return;
            }
            match self.dice.roll(100) {
                0..=3 => return self.strike(Fault::MessageLost),
                4..=6 => {
                    self.strike(Fault::MessageRepeated);
                    let later = due + self.dice.roll(20_000);
                    self.letters.push((later, letter.clone()));
                }
                7..=12 => {
                    self.strike(Fault::MessageDelayed);
                    due += self.dice.roll(60_000);
                }
                _ => {}
            }
        }
        self.letters.push((due, letter));
    }

    /// What arrives in this quantum, in any order.
    pub(super) fn arrivals(&mut self) -> Vec<Letter> {
        let t = self.t;
        let mut due: Vec<Letter> = self.letters.extract_if(.., |(at, _)| *at <= t).map(|(_, letter)| letter).collect();
        if self.trouble() && due.len() > 1 && self.dice.chance(10) {
            self.strike(Fault::MessagesReordered);
            for last in (1..due.len()).rev() {
                due.swap(last, usize::try_from(self.dice.roll(last as u64 + 1)).unwrap());
            }
        }
        due
    }
}
