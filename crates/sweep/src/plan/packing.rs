//! How many threads each run should get on a machine of so many cores, so that the whole plan ends soonest: many runs side
//! by side with one thread each, or fewer with more. Which is chosen changes no result.

use std::cmp::Reverse;

use crate::plan::{Action, Plan, PlannedRun, Trunk};
use crate::run::{EngineKind, Run};

/// What a second and every further thread adds to the time of a step: threads meet twice in each.
const MEETING: f64 = 0.03;

/// One piece of work: seconds on one thread, and what must be done before.
struct Job<'p> {
    run: &'p Run,
    seconds: f64,
    after: Option<usize>,
}

impl Plan {
    /// Threads for each slot on `cores` cores: a divisor of `cores`, 1 where it makes no difference. Uses the seconds of the
    /// probe, or FLOPs where none was made.
    pub fn threads_per_run(&self, cores: u32) -> u32 {
        best(&self.runs, &self.trunks, cores).0
    }
}

/// Threads for each slot, and when all ends then, in the unit that the jobs are measured in.
pub(crate) fn best(runs: &[PlannedRun], trunks: &[Trunk], cores: u32) -> (u32, f64) {
    let jobs = jobs(runs, trunks);
    let divisors = (1..=cores).filter(|threads| cores.is_multiple_of(*threads));
    let spans = divisors.map(|threads| (threads, makespan(&jobs, cores / threads, threads)));
    // A gain within the error of the estimate is none.
    spans.reduce(|best, new| if new.1 < 0.97 * best.1 { new } else { best }).unwrap_or((1, 0.0))
}

fn jobs<'p>(runs: &'p [PlannedRun], trunks: &'p [Trunk]) -> Vec<Job<'p>> {
    // Runs on GPUs take no core.
    let on_core = |run: &Run, seconds: f64| if run.numerics.engine == EngineKind::Cuda { 0.0 } else { seconds };
    let trunk = |trunk: &'p Trunk| Job {
        run: &trunk.run,
        seconds: on_core(&trunk.run, trunk.seconds.unwrap_or(trunk.flops.get())),
        after: None,
    };
    let run = |planned: &'p PlannedRun| Job {
        run: &planned.run,
        seconds: on_core(&planned.run, planned.seconds.unwrap_or(planned.flops.get())),
        after: planned.depends_on.and_then(|from| trunks.iter().position(|trunk| trunk.trunk_id == from.trunk)),
    };
    let wanted = runs.iter().filter(|planned| planned.action != Action::Reuse);
    trunks.iter().map(trunk).chain(wanted.map(run)).collect()
}

/// When the last job ends if each slot takes the longest that is ready.
fn makespan(jobs: &[Job<'_>], slots: u32, threads: u32) -> f64 {
    let mut free = vec![0.0_f64; slots as usize];
    let mut ends = vec![f64::INFINITY; jobs.len()];
    // Trunks first, then the longest: branches wait for their trunk's end, which is rather late than early.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&at| (jobs[at].after.is_some(), Reverse(jobs[at].seconds.to_bits()), at));
    for at in order {
        let job = &jobs[at];
        let ready = job.after.map_or(0.0, |before| ends[before]);
        let slot = free.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("a machine has a core");
        *slot = slot.max(ready) + job.seconds * share(job.run, threads);
        ends[at] = *slot;
    }
    free.into_iter().fold(0.0, f64::max)
}

/// Time on `threads` threads over that on one: lanes of sequences are shared out whole.
fn share(run: &Run, threads: u32) -> f64 {
    if run.numerics.engine != EngineKind::Cpu || threads == 1 {
        return 1.0;
    }
    let lanes = run.model.lanes(run.train.batch);
    f64::from(lanes.div_ceil(threads)) / f64::from(lanes) + MEETING
}
