//! When the last run on GPUs ends: every GPU has some places, and runs go the faster the fewer share it.

use std::collections::BinaryHeap;

use crate::plan::gpu_speed::{Gpus, Span};

/// One piece of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) span: Span,
    pub(crate) memory_bytes: u64,
    /// What must have ended before.
    pub(crate) after: Option<usize>,
}

#[derive(Debug, Default)]
struct Card {
    /// Job, and the share of it that is left.
    running: Vec<(usize, f64)>,
    taken_bytes: u64,
}

/// Seconds until all jobs have ended: the longest that is ready goes first, to the GPU with the fewest runs. Runs of unlike
/// length are believed to slow each other down as like ones do.
pub(crate) fn makespan(jobs: &[Job], gpus: &Gpus) -> f64 {
    if jobs.is_empty() {
        return 0.0;
    }
    let (count, most) = (gpus.cards.max(1), gpus.beside.max(1));
    let mut cards: Vec<Card> = (0..count).map(|_| Card::default()).collect();
    // Numbers above zero are ordered by their bits. A job that others wait for goes first.
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (at, before) in jobs.iter().enumerate().filter_map(|(at, job)| Some((at, job.after?))) {
        followers[before].push(at);
    }
    let rank = |at: usize| (!followers[at].is_empty(), jobs[at].span.beside.to_bits(), at);
    let mut ready: BinaryHeap<_> = (0..jobs.len()).filter(|&at| jobs[at].after.is_none()).map(rank).collect();
    let mut now = gpus.process_seconds;
    loop {
        while let Some(&(_, _, at)) = ready.peek() {
            let Some(card) = place(&mut cards, most, jobs[at].memory_bytes, gpus.memory_bytes) else { break };
            card.running.push((at, 1.0));
            card.taken_bytes += jobs[at].memory_bytes;
            ready.pop();
        }
        let speed = |card: &Card, at: usize| 1.0 / jobs[at].span.among(card.running.len() as u32, most).max(1e-9);
        let next = cards.iter().flat_map(|card| card.running.iter().map(move |&(at, left)| left / speed(card, at)));
        let step = next.fold(f64::INFINITY, f64::min);
        if step.is_infinite() {
            return now;
        }
        now += step;
        for card in &mut cards {
            let speeds: Vec<f64> = card.running.iter().map(|&(at, _)| speed(card, at)).collect();
            card.running.iter_mut().zip(speeds).for_each(|(job, speed)| job.1 -= step * speed);
            let (ended, running): (Vec<_>, Vec<_>) = card.running.drain(..).partition(|&(_, left)| left <= 1e-9);
            card.running = running;
            for (at, _) in ended {
                card.taken_bytes -= jobs[at].memory_bytes;
                ready.extend(followers[at].iter().map(|&follower| rank(follower)));
            }
        }
    }
}

/// A GPU with a place and the memory; one that nobody uses takes every run, as none would ever start otherwise.
fn place(cards: &mut [Card], most: u32, wanted: u64, memory: u64) -> Option<&mut Card> {
    let free = |card: &&mut Card| {
        card.running.is_empty()
            || (card.running.len() < most as usize && card.taken_bytes.saturating_add(wanted) <= memory)
    };
    cards.iter_mut().filter(free).min_by_key(|card| card.running.len())
}
