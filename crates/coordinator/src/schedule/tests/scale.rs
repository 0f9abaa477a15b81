//! What the scheduler costs at the size that it is made for. Prints times and judges none: run it with `--release`.

use std::time::{Duration, Instant};

use super::*;

const WORKERS: usize = 1_000;
const SLOTS: u32 = 4;
const RUNS: u64 = 100_000;

/// The slowest and the mean of many.
#[derive(Default)]
struct Times {
    count: u32,
    total: Duration,
    longest: Duration,
}

impl Times {
    fn of<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = what();
        let took = begin.elapsed();
        self.count += 1;
        self.total += took;
        self.longest = self.longest.max(took);
        result
    }

    fn tell(&self, what: &str) {
        eprintln!("{what}: mean {:?}, longest {:?} of {}", self.total / self.count.max(1), self.longest, self.count);
    }
}

#[test]
#[ignore = "prints times: with --release and --nocapture"]
fn a_thousand_workers_and_a_hundred_thousand_runs() {
    let [mut submit, mut acquire, mut renew, mut tick, mut settle, mut explain, mut restore] =
        std::array::from_fn(|_| Times::default());
    let runs = (0..RUNS).map(|seed| Planned { memory_bytes: (1 + seed % 40) << 20, ..sample::planned(seed) });
    let admission = sample::admission("one", runs);
    let mut bench = Bench::new(&[]);
    submit.of(|| bench.submit(&admission));
    let mut grants = Vec::new();
    for worker in 0..WORKERS {
        let name = format!("w{worker}");
        bench.join(cpu(&name, "here", SLOTS));
        for slot in 0..SLOTS {
            let slot = format!("cpu:{slot}");
            grants.push(acquire.of(|| bench.acquire(&name, &slot)).expect("there is work for all"));
        }
    }
    for second in 1..=60 {
        bench.now += 1_000;
        for grant in grants.iter().skip(second % 10).step_by(10) {
            renew.of(|| bench.renew(grant, second as u64));
        }
        tick.of(|| bench.tell(Event::Tick));
    }
    for grant in grants.iter().step_by(10) {
        settle.of(|| bench.settle(grant, sample::finished(1.0)));
        explain.of(|| bench.state.explain(admission.runs[7].run_id, bench.now));
    }
    bench.now += LEASE - 1_000;
    tick.of(|| bench.tell(Event::Tick));
    for _ in 0..LEASE / 10_000 + 1 {
        bench.now += 10_000;
        tick.of(|| bench.tell(Event::Tick));
    }
    let ledger = bench.state.ledger().clone();
    restore.of(|| State::restore(Config::default(), ledger, 0));
    let told = [
        (&submit, "submit"),
        (&acquire, "acquire"),
        (&renew, "renew"),
        (&tick, "tick; the longest ends all leases at once"),
        (&settle, "settle"),
        (&explain, "explain"),
        (&restore, "restore"),
    ];
    told.iter().for_each(|(times, what)| times.tell(what));
}
