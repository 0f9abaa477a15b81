//! Runs that share something, to be joined by one curve: equal tokens, equal tokens per parameter, equal FLOPs or equal
//! size, whichever explains the sweep's design with the fewest curves.

use crate::lab::LabRun;
use crate::plot::{power, short_si};

/// What the runs of a slice have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Params,
    Tokens,
    TokensPerParam,
    Flops,
}

/// Runs that share a value, and the value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slice {
    pub(crate) value: f64,
    /// Positions in the list that was cut.
    pub(crate) members: Vec<usize>,
}

/// Values within this of their neighbour are the same by design: batches round tokens, ladders round sizes.
pub(crate) const NEAR: f64 = 0.08;

impl Held {
    pub(crate) fn of(self, run: &LabRun) -> f64 {
        match self {
            Self::Params => run.size(),
            Self::Tokens => run.tokens().as_f64(),
            Self::TokensPerParam => run.tokens().as_f64() / run.size(),
            Self::Flops => run.flops().get(),
        }
    }

    pub(crate) fn word(self, value: f64) -> String {
        match self {
            Self::Params => format!("{} params", short_si(value)),
            Self::Tokens => format!("{} tokens", short_si(value)),
            Self::TokensPerParam => format!("{} tokens/param", short_si((value * 10.0).round() / 10.0)),
            Self::Flops => format!("{} FLOPs", power(value)),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Params => "model size",
            Self::Tokens => "number of training tokens",
            Self::TokensPerParam => "number of tokens per parameter",
            Self::Flops => "training budget",
        }
    }
}

/// Cuts the runs by one quantity, smallest value first.
pub(crate) fn cut(runs: &[&LabRun], held: Held) -> Vec<Slice> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|a, b| held.of(runs[*a]).total_cmp(&held.of(runs[*b])));
    let mut slices: Vec<Slice> = Vec::new();
    let mut last = f64::NEG_INFINITY;
    for at in order {
        let value = held.of(runs[at]).ln();
        match slices.last_mut() {
            Some(slice) if value - last < NEAR => slice.members.push(at),
            _ => slices.push(Slice { value: 0.0, members: vec![at] }),
        }
        last = value;
    }
    for slice in &mut slices {
        let sum: f64 = slice.members.iter().map(|at| held.of(runs[*at]).ln()).sum();
        slice.value = (sum / slice.members.len() as f64).exp();
    }
    slices
}

/// The cut with the fewest slices; the first choice wins a tie.
pub(crate) fn fewest(runs: &[&LabRun], choices: &[Held]) -> (Held, Vec<Slice>) {
    let cuts = choices.iter().map(|held| (*held, cut(runs, *held)));
    cuts.min_by_key(|(_, slices)| slices.len()).unwrap_or((Held::Tokens, Vec::new()))
}

/// Where a value lies between the least and the greatest of its kind, on a log scale: its place on the colour ramp.
pub(crate) fn share(value: f64, all: impl Iterator<Item = f64>) -> f64 {
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if high > low * (1.0 + 1e-9) { (value / low).ln() / (high / low).ln() } else { 1.0 }
}
