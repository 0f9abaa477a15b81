//! What is made ready once and replayed: a whole step, or a part of one where the batch does not fit at a time.

use isoloss_gpu::Command;

use super::network::{Network, Pass};
use super::steps::{Rows, Steps};

/// A part of a step, or all of it, that is made ready once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    /// Forward and backward of some sequences of a batch, with the gradient set or added.
    Pass {
        sequences: usize,
        positions: usize,
        batch: usize,
        add: bool,
    },
    /// A batch that fits at a time: pass, norm and update.
    Whole {
        batch: usize,
        positions: usize,
    },
    /// Norm and update.
    Update,
    Evaluate {
        sequences: usize,
        positions: usize,
    },
}

/// The commands of a piece.
pub(super) fn build(network: &Network, piece: Piece) -> Vec<Command> {
    let mut steps = Steps::default();
    match piece {
        Piece::Pass { sequences, positions, batch, add } => {
            pass(network, &mut steps, Rows { sequences, positions }, batch, add);
        }
        Piece::Whole { batch, positions } => {
            pass(network, &mut steps, Rows { sequences: batch, positions }, batch, false);
            network.measure(&mut steps);
            network.update(&mut steps);
        }
        Piece::Update => {
            network.measure(&mut steps);
            network.update(&mut steps);
        }
        Piece::Evaluate { sequences, positions } => {
            let rows = Rows { sequences, positions };
            network.forward(&mut steps, rows, Pass::Evaluate);
            network.score(&mut steps, rows, Pass::Evaluate);
            network.keep_report(&mut steps);
        }
    }
    steps.take()
}

fn pass(network: &Network, steps: &mut Steps, rows: Rows, batch: usize, add: bool) {
    let pass = Pass::Train { batch, add };
    network.forward(steps, rows, pass);
    network.score(steps, rows, pass);
    network.backward(steps, rows, pass);
}
