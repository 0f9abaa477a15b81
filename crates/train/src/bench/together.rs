//! Several models of a shape side by side in one process: on a GPU each has a queue of its own in one context, which is
//! one of the ways to fill it. Processes beside each other, the way runs are made, are the other; see `deploy/gpu.sh`.

use std::thread;

use super::{Machine, Row, Setting, Shape, measure};
use crate::engine::EngineError;

/// The shape's row with the speeds of `count` models added up, each measured while the others train; one is [`measure`].
pub fn measure_together(
    shape: &Shape,
    setting: &Setting,
    machine: &Machine,
    peak: Option<f64>,
    count: usize,
) -> Result<Row, EngineError> {
    let rows: Vec<_> = thread::scope(|scope| {
        let one = || measure(shape, setting, machine, peak);
        let running: Vec<_> = (1..count).map(|_| scope.spawn(one)).collect();
        let first = one();
        let others = running.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(first).chain(others).collect()
    });
    let mut rows = rows.into_iter();
    let mut sum = rows.next().expect("one was measured")?;
    sum.together = count;
    for row in rows {
        let row = row?;
        sum.tokens_per_second += row.tokens_per_second;
        sum.gflops += row.gflops;
        sum.peak_share += row.peak_share;
        sum.gpu_memory_bytes = sum.gpu_memory_bytes.zip(row.gpu_memory_bytes).map(|(a, b)| a + b);
        sum.memory_bytes = sum.memory_bytes.max(row.memory_bytes);
        // Processor time is the whole process's, over the tokens of one.
        sum.tokens_per_cpu_second = sum.tokens_per_cpu_second.zip(row.tokens_per_cpu_second).map(|(a, b)| a + b);
    }
    Ok(sum)
}
