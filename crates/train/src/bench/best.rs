//! The batch that a GPU trains a shape fastest with: a few are looked at for a moment, the best is measured.

use isoloss_gpu::GpuError;

use super::together::among;
use super::{BenchError, Machine, Row, Setting, Shape, start};
use crate::engine::EngineError;

/// Sequences that are tried, ascending; each a power of two.
const BATCHES: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// A batch that is so much slower than the best before it is the last that is tried: larger ones fill the GPU no better.
const SLOWER: f64 = 0.95;

/// How far the search is. Batches are in sequences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Search {
    /// A batch is looked at; the best one before it with its tokens a second.
    Trying { batch: usize, best: Option<(usize, f64)> },
    /// It is the best, and measured.
    Chosen { batch: usize },
}

/// The shape's row with the best batch, the speeds of `count` models side by side added up. `told` hears of each step before
/// it is made.
pub fn measure_best(
    shape: &Shape,
    setting: &Setting,
    machine: &Machine,
    peak: Option<f64>,
    count: usize,
    told: &mut dyn FnMut(Search),
) -> Result<Row, BenchError> {
    // Weights of a large model take longer to draw than to train with.
    let weights = start(&shape.model);
    let row = |batch, time| {
        let setting = Setting { time, ..setting.clone() };
        among(&Shape { batch, ..shape.clone() }, &setting, machine, peak, count, &|| weights.clone())
    };
    let batch = fastest(&mut |batch| Ok(row(batch, setting.time / 8)?.tokens_per_second), told)?;
    told(Search::Chosen { batch });
    row(batch, setting.time)
}

/// The batch of the highest speed.
fn fastest(
    speed: &mut dyn FnMut(usize) -> Result<f64, BenchError>,
    told: &mut dyn FnMut(Search),
) -> Result<usize, BenchError> {
    let mut best: Option<(f64, usize)> = None;
    for batch in BATCHES {
        told(Search::Trying { batch, best: best.map(|(speed, batch)| (batch, speed)) });
        match (speed(batch), best) {
            (Ok(found), Some((most, _))) if found < SLOWER * most => break,
            (Ok(found), Some((most, _))) if found <= most => {}
            (Ok(found), _) => best = Some((found, batch)),
            (Err(BenchError::Engine(EngineError::Gpu(GpuError::OutOfMemory { .. }))), Some(_)) => break,
            // One of several side by side, which said the same.
            (Err(BenchError::Company(_)), Some(_)) => break,
            (Err(error), _) => return Err(error),
        }
    }
    Ok(best.map_or(BATCHES[0], |(_, batch)| batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(batch: usize, most: usize) -> Result<(), BenchError> {
        let error = GpuError::OutOfMemory { what: "x".to_owned(), wanted: 2, free: 1 };
        if batch > most { Err(EngineError::Gpu(error).into()) } else { Ok(()) }
    }

    #[test]
    fn the_fastest_is_found_and_none_after_a_much_slower_one_is_tried() {
        let (mut tried, mut told) = (Vec::new(), Vec::new());
        let mut speed = |batch| {
            tried.push(batch);
            Ok(match batch {
                16 => 1.0,
                32 => 3.0,
                64 => 2.9,
                128 => 3.1,
                _ => 2.0,
            })
        };
        let found = fastest(&mut speed, &mut |step| told.push(step));
        assert_eq!((found.unwrap(), tried), (128, vec![16, 32, 64, 128, 256]));
        let best = [None, Some((16, 1.0)), Some((32, 3.0)), Some((32, 3.0)), Some((128, 3.1))];
        let steps = [16, 32, 64, 128, 256].into_iter().zip(best);
        assert_eq!(told, steps.map(|(batch, best)| Search::Trying { batch, best }).collect::<Vec<_>>());
    }

    #[test]
    fn memory_ends_the_search_and_is_an_error_where_nothing_fits() {
        let speed = |most| move |batch: usize| full(batch, most).map(|()| batch as f64);
        assert_eq!(fastest(&mut speed(64), &mut |_| ()).unwrap(), 64);
        assert!(matches!(fastest(&mut speed(8), &mut |_| ()), Err(BenchError::Engine(EngineError::Gpu(_)))));
    }
}
