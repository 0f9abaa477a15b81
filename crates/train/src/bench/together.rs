//! Several models of a shape side by side in one process: on a GPU each has a queue of its own in one context, which is
//! one of the ways to fill it. Processes beside each other, the way runs are made, are the other; see `deploy/gpu.sh`.

use std::thread;

use super::{BenchError, Company, Machine, Row, Setting, Shape, one, start};
use crate::engine::State;

/// The shape's row with the speeds of `count` models added up, all measured at the same time.
pub fn measure_together(
    shape: &Shape,
    setting: &Setting,
    machine: &Machine,
    peak: Option<f64>,
    count: usize,
) -> Result<Row, BenchError> {
    among(shape, setting, machine, peak, count, &|| start(&shape.model))
}

/// The same from weights that `start` gives.
pub(super) fn among(
    shape: &Shape,
    setting: &Setting,
    machine: &Machine,
    peak: Option<f64>,
    count: usize,
    start: &(dyn Fn() -> State + Sync),
) -> Result<Row, BenchError> {
    let company = Company::of(count, setting.meeting.as_ref());
    let rows: Vec<_> = thread::scope(|scope| {
        let one = || {
            let row = one(shape, setting, machine, peak, &company, start);
            if row.is_err() {
                company.fail();
            }
            row
        };
        let running: Vec<_> = (1..count).map(|_| scope.spawn(one)).collect();
        let first = one();
        let others = running.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(first).chain(others).collect()
    });
    added(rows, count)
}

/// One row for all. Of errors the first that says what is wrong.
fn added(rows: Vec<Result<Row, BenchError>>, count: usize) -> Result<Row, BenchError> {
    let (mut sum, mut others): (Option<Row>, Option<BenchError>) = (None, None);
    for row in rows {
        match (row, &mut sum) {
            (Err(error @ BenchError::Company(_)), _) => others = Some(error),
            (Err(error), _) => return Err(error),
            (Ok(row), Some(sum)) => add(sum, &row),
            (Ok(row), none) => *none = Some(row),
        }
    }
    match (others, sum) {
        (None, Some(sum)) => Ok(Row { together: count, ..sum }),
        (others, _) => Err(others.unwrap_or(BenchError::Company(count))),
    }
}

fn add(sum: &mut Row, row: &Row) {
    sum.tokens_per_second += row.tokens_per_second;
    sum.gflops += row.gflops;
    sum.peak_share += row.peak_share;
    sum.gpu_memory_bytes = sum.gpu_memory_bytes.zip(row.gpu_memory_bytes).map(|(a, b)| a + b);
    sum.memory_bytes = sum.memory_bytes.max(row.memory_bytes);
    // Processor time is the whole process's, over the tokens of one.
    sum.tokens_per_cpu_second = sum.tokens_per_cpu_second.zip(row.tokens_per_cpu_second).map(|(a, b)| a + b);
}
