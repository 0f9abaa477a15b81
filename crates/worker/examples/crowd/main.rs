//! How far one coordinator goes: a real daemon over HTTP on loopback, workers that speak as the real one does and train
//! nothing, readers beside them, and then two kills.
//!
//!     cargo build --release && cargo run --release -p isoloss-worker --example crowd -- --runs 100000
//!
//! `--rate 2000` holds the fleet to a pace, `--reads 50` reads so often a second.
//!
//! Prints runs from grant to durable outcome a second, latencies of the read API meanwhile, memory of the daemon, the
//! scheduler's tick, and the time from `kill -9` to serving, with the index and from the journal alone. All processes
//! share the machine, so the workers' and readers' own work is in every figure.

mod daemon;
mod fleet;
mod readers;
mod sweep;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use isoloss_wire::Client;
use isoloss_wire::api::{SCHEMA_VERSION, Submit};
use tokio::sync::watch;

use daemon::Daemon;

/// Configurations of one seed.
const CONFIGURATIONS: usize = 10;
const SUMS_LATE_MAX: Duration = Duration::from_secs(10);

struct Args {
    isoloss: PathBuf,
    workers: usize,
    runs: usize,
    sweeps: usize,
    reads_per_second: f64,
    /// Runs a second that the fleet takes up at most.
    rate: Option<f64>,
}

fn args() -> Args {
    let mut args = Args {
        isoloss: PathBuf::from("target/release/isoloss"),
        workers: 1000,
        runs: 100_000,
        sweeps: 10,
        reads_per_second: 20.0,
        rate: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{flag} needs a value"));
        let number = || value.parse().unwrap_or_else(|_| panic!("{flag}: a number, not {value:?}"));
        match flag.as_str() {
            "--isoloss" => args.isoloss = PathBuf::from(value),
            "--workers" => args.workers = number(),
            "--runs" => args.runs = number(),
            "--sweeps" => args.sweeps = number(),
            "--rate" => args.rate = Some(number() as f64),
            "--reads" => args.reads_per_second = number() as f64,
            _ => panic!("unknown flag {flag}: --isoloss, --workers, --runs, --sweeps, --reads, --rate"),
        }
    }
    args
}

fn main() {
    let args = args();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(&args));
}

async fn measure(args: &Args) {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&args.isoloss, folder.path());
    let client = daemon.client().await;
    let begun = Instant::now();
    let per_sweep = args.runs / args.sweeps / CONFIGURATIONS;
    let mut ids = Vec::new();
    for number in 0..args.sweeps {
        let submit = Submit {
            schema_version: SCHEMA_VERSION,
            toml: sweep::toml(number, per_sweep),
            file: "scale.toml".to_owned(),
            set: Vec::new(),
            base: PathBuf::from("/"),
            hold: false,
        };
        ids.push(client.submit(&submit).await.expect("a sweep that is planned").sweep_id.to_string());
    }
    let runs = args.sweeps * per_sweep * CONFIGURATIONS;
    println!("{runs} runs in {} sweeps submitted in {:.1} s", args.sweeps, begun.elapsed().as_secs_f64());
    println!("daemon memory: {}", daemon.memory());

    let (stop, stopped) = watch::channel(false);
    let reading = tokio::spawn(readers::read(daemon.reader(), ids.clone(), args.reads_per_second, stopped.clone()));
    let begun = Instant::now();
    let fleet = fleet::Fleet::start(&client, args.workers, runs, args.rate, stopped);
    fleet.done().await;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{runs} runs by {} workers in {seconds:.1} s: {:.0} runs a second", args.workers, runs as f64 / seconds);
    println!("daemon: {:.1} s of processor time; memory: {}", daemon.processor_seconds(), daemon.memory());
    println!("scheduler tick: {}", daemon.ticks().await);
    stop.send_replace(true);
    reading.await.unwrap().print();
    check(&client, &ids, runs).await;
    println!("journal {:.0} MB, index {:.0} MB", daemon.megabytes("journal"), daemon.megabytes("index"));

    for (kind, without_index) in [("with the index", false), ("from the journal alone", true)] {
        daemon.kill();
        if without_index {
            daemon.remove_index();
        }
        let begun = Instant::now();
        daemon = Daemon::start(&args.isoloss, folder.path());
        let client = daemon.client().await;
        println!("kill -9 to serving, {kind}: {:.2} s; memory: {}", begun.elapsed().as_secs_f64(), daemon.memory());
        check(&client, &ids, runs).await;
    }
}

/// All runs of all sweeps are finished, as the daemon says. Its sums of large sweeps may be some seconds old.
async fn check(client: &Client, ids: &[String], runs: usize) {
    let begun = Instant::now();
    loop {
        let mut finished = 0;
        for id in ids {
            finished += client.sweep(id).await.expect("a known sweep").sweep.counts.finished;
        }
        if finished == runs as u64 {
            println!("finished: {finished} of {runs}; none lost");
            return;
        }
        assert!(begun.elapsed() < SUMS_LATE_MAX, "{finished} of {runs} accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
