//! A batch spread over threads with a result that does not depend on how many there are.
//!
//! Sequences are dealt to a fixed number of lanes; a thread sums a lane's gradient in a buffer of its own and adds it to
//! the total when all lower lanes have been added. So the order of every sum is fixed, and only as many gradients exist as
//! there are threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::room::Room;
use super::sequence::Pass;
use crate::engine::{Batch, Evaluation, StepReport};

/// One thread's buffers.
pub(super) struct Worker {
    pub(super) room: Room,
    gradient: Vec<f32>,
}

impl Worker {
    pub(super) fn new(room: Room, params: usize) -> Self {
        Self { room, gradient: vec![0.0; params] }
    }
}

/// What the lanes below `turn` add up to. The report's means are sums until the end.
struct Total<'a> {
    turn: usize,
    gradient: &'a mut [f32],
    report: StepReport,
}

/// The total and the lane whose turn it is.
struct Queue<'a> {
    next: AtomicUsize,
    total: Mutex<Total<'a>>,
    turned: Condvar,
}

/// Lets the threads that wait for a lane go when its thread panics.
struct Abandon<'q, 'a>(&'q Queue<'a>);

impl Drop for Abandon<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Ok(mut total) = self.0.total.lock() {
                total.turn = usize::MAX;
            }
            self.0.turned.notify_all();
        }
    }
}

/// Mean objective and gradient of a batch; `gradient` comes in as zeros.
pub(super) fn gradient(pass: Pass<'_>, workers: &mut [Worker], batch: Batch<'_>, gradient: &mut [f32]) -> StepReport {
    let lanes = pass.network.model.lanes(batch.sequences as u32) as usize;
    let layers = pass.network.model.experts.as_ref().map_or(0, |_| pass.network.map.layers.len());
    let experts = pass.network.model.experts.as_ref().map_or(0, |e| e.count as usize);
    let report = StepReport { load: vec![vec![0; experts]; layers], ..StepReport::default() };
    let queue = Queue {
        next: AtomicUsize::new(0),
        total: Mutex::new(Total { turn: 0, gradient, report }),
        turned: Condvar::new(),
    };
    each(&mut workers[..], lanes, |worker| {
        let _abandon = Abandon(&queue);
        loop {
            let lane = queue.next.fetch_add(1, Ordering::Relaxed);
            if lane >= lanes {
                return;
            }
            let mut report = StepReport { load: vec![vec![0; experts]; layers], ..StepReport::default() };
            for sequence in (lane..batch.sequences).step_by(lanes) {
                one_sequence(pass, worker, batch, sequence, &mut report);
            }
            queue.settle(lane, &mut worker.gradient, &report);
        }
    });
    let mut report = queue.total.into_inner().expect("a panic has been passed on").report;
    report.loss_nats /= batch.sequences as f64;
    report.aux_loss /= batch.sequences as f64;
    report.router_z_loss /= batch.sequences as f64;
    report
}

impl<'a> Queue<'a> {
    /// Adds a lane in its turn and clears the thread's gradient.
    fn settle(&self, lane: usize, gradient: &mut [f32], report: &StepReport) {
        let mut total = self.wait(lane);
        for (sum, g) in total.gradient.iter_mut().zip(gradient) {
            *sum += *g;
            *g = 0.0;
        }
        total.report.loss_nats += report.loss_nats;
        total.report.aux_loss += report.aux_loss;
        total.report.router_z_loss += report.router_z_loss;
        total.report.dropped += report.dropped;
        add_load(&mut total.report.load, &report.load);
        total.turn += 1;
        drop(total);
        self.turned.notify_all();
    }

    fn wait(&self, lane: usize) -> MutexGuard<'_, Total<'a>> {
        let mut total = self.total.lock().expect("no thread panics while it adds");
        while total.turn != lane {
            assert!(total.turn < lane, "the thread of an earlier lane panicked");
            total = self.turned.wait(total).expect("no thread panics while it adds");
        }
        total
    }
}

fn add_load(sum: &mut [Vec<u64>], load: &[Vec<u64>]) {
    for (sum, load) in sum.iter_mut().flatten().zip(load.iter().flatten()) {
        *sum += load;
    }
}

/// Forward and backward of one sequence, added to the worker's gradient and to the lane's report.
fn one_sequence(pass: Pass<'_>, worker: &mut Worker, batch: Batch<'_>, sequence: usize, report: &mut StepReport) {
    let (inputs, targets) = window(batch, sequence);
    let room = &mut worker.room;
    pass.forward(room, inputs);
    pass.backward(room, inputs, targets, 1.0 / batch.sequences as f64, &mut worker.gradient);
    let nats: f64 = room.nats[..inputs.len()].iter().map(|&n| f64::from(n)).sum();
    report.loss_nats += nats / inputs.len() as f64;
    for (saved, load) in room.layers.iter().zip(&mut report.load) {
        let routed = saved.routed.as_ref().expect("a layer with a load has experts");
        let (balance, z) = routed.routing.losses(inputs.len());
        report.aux_loss += balance;
        report.router_z_loss += z;
        report.dropped += routed.dropped;
        load.iter_mut().zip(&routed.routing.load).for_each(|(sum, n)| *sum += n);
    }
}

/// Losses of every target, without gradients.
pub(super) fn evaluate(pass: Pass<'_>, workers: &mut [Worker], batch: Batch<'_>) -> Evaluation {
    let mut losses = vec![0f32; batch.sequences * batch.context];
    let model = &pass.network.model;
    let layers = model.experts.as_ref().map_or(0, |_| model.layers as usize);
    let experts = model.experts.as_ref().map_or(0, |e| e.count as usize);
    let load = Mutex::new(vec![vec![0u64; experts]; layers]);
    let left = Mutex::new(losses.chunks_exact_mut(batch.context).enumerate());
    each(workers, batch.sequences, |worker| {
        loop {
            let taken = left.lock().expect("taking a window does not panic").next();
            let Some((sequence, losses)) = taken else { return };
            let (inputs, targets) = window(batch, sequence);
            pass.forward(&mut worker.room, inputs);
            pass.score(&mut worker.room, targets);
            losses.copy_from_slice(&worker.room.nats[..targets.len()]);
            let routed = worker.room.layers.iter().filter_map(|saved| saved.routed.as_ref());
            let found: Vec<Vec<u64>> = routed.map(|routed| routed.routing.load.clone()).collect();
            add_load(&mut load.lock().expect("adding counts does not panic"), &found);
        }
    });
    let load = load.into_inner().expect("a panic has been passed on");
    Evaluation { losses, load }
}

/// Inputs and targets of a sequence.
fn window(batch: Batch<'_>, sequence: usize) -> (&[u32], &[u32]) {
    let tokens = &batch.tokens[sequence * (batch.context + 1)..][..batch.context + 1];
    (&tokens[..batch.context], &tokens[1..])
}

/// Runs `work` on as many of the workers as there are pieces, the first on this thread. Starting a thread costs some
/// 20 microseconds, a step at least milliseconds.
pub(super) fn each(workers: &mut [Worker], pieces: usize, work: impl Fn(&mut Worker) + Sync) {
    let count = workers.len().min(pieces);
    let Some((first, others)) = workers[..count].split_first_mut() else {
        return;
    };
    std::thread::scope(|scope| {
        for worker in others {
            scope.spawn(|| work(worker));
        }
        work(first);
    });
}
