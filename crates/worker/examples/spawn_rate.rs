//! Runs a second through a real coordinator on loopback and a real worker: each run a real child process that prints its
//! outcome and exits, and children that take one run after another; beside it what this machine's fork, exec and fsync
//! allow at best. Processor time is of this process, which is coordinator and worker, and of all children.
//!
//!     cargo run --release -p isoloss-worker --example spawn_rate -- [RUNS] [SLOTS] [DIR]

#[path = "../tests/daemons/stages.rs"]
mod stages;
#[path = "../tests/daemons/trainer.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod trainer;

use std::io::{BufRead, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isoloss_wire::Client;
use isoloss_wire::api::{Phase, SCHEMA_VERSION, Submit};
use isoloss_wire::child::{FromChild, ToChild};
use isoloss_worker::{Config, core_groups};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the other trainer of the tests does with a foreign run; nothing here is foreign.
mod rogue {
    use std::sync::mpsc::Receiver;

    use isoloss_wire::child::Assignment;

    pub(crate) fn run(_order: &Assignment, _orders: &Receiver<Box<Assignment>>) -> ! {
        unreachable!("no run of this measurement is foreign")
    }
}

/// Nor does any share a GPU.
mod mps {
    use isoloss_wire::child::Assignment;

    pub(crate) fn run(_mode: &str, _order: &Assignment) {
        unreachable!("no run of this measurement is on a GPU")
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--trainer") => return train(false),
        Some("--trainer-again") => return train(true),
        Some("--nothing") => return,
        _ => {}
    }
    let number =
        |at: usize, usual: usize| std::env::args().nth(at).map_or(usual, |word| word.parse().expect("a number"));
    let (runs, slots) = (number(1, 2000), number(2, 2));
    let dir = std::env::args().nth(3).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("a folder to work in");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {runs} runs, {slots} slots, data in {}", dir.path().display());
    for threads in [1, cores] {
        println!("fork + exec + wait of this binary, {threads} thread(s): {:.0} a second", spawns(threads, 1000));
    }
    for threads in [1, cores] {
        println!("write + fsync of a new file, {threads} thread(s): {:.0} a second", syncs(dir.path(), threads, 300));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let slots = u32::try_from(slots).expect("few slots");
    for (trainer, what) in [("--trainer", "a child for each"), ("--trainer-again", "children take one after another")] {
        let before = processor_seconds();
        let seconds = runtime.block_on(measure(&dir.path().join(trainer), trainer, runs, slots));
        let [own, children] = [0, 1].map(|who| (processor_seconds()[who] - before[who]) * 1e3 / runs as f64);
        println!(
            "runs through coordinator, worker and child, {what}: {:.0} a second ({seconds:.2} s; processor time of a run: \
             {own:.2} ms here, {children:.2} ms in children)",
            runs as f64 / seconds
        );
    }
}

/// One order, one outcome, and the end or the next.
fn train(again: bool) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a worker gives an order");
        let Ok(ToChild::Run(order)) = serde_json::from_str(&line) else { std::process::exit(78) };
        let (run_id, attempt) = (order.run_id, order.attempt);
        let say = |line: &FromChild| isoloss_wire::orders::say(&mut stdout(), line).expect("a worker listens");
        say(&FromChild::Taken { run_id, attempt });
        let result = trainer::outcome(&order.run, &order.device);
        say(&FromChild::Outcome { run_id, attempt, result, again });
        if !again {
            return;
        }
    }
}

/// User and system time of this process, and of its children that have ended.
fn processor_seconds() -> [f64; 2] {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
        let usage = getrusage(who).expect("the system tells");
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

/// Starts, and waits for, as many processes that do nothing.
fn spawns(threads: usize, each: usize) -> f64 {
    let program = std::env::current_exe().expect("this binary has a path");
    in_threads(threads, each, |_| {
        let mut command = Command::new(&program);
        command.arg("--nothing").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().and_then(|mut child| child.wait()).expect("a process starts");
    })
}

fn syncs(dir: &Path, threads: usize, each: usize) -> f64 {
    in_threads(threads, each, |at| {
        let path = dir.join(format!("sync-{at}-{:?}", std::thread::current().id()));
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(&[0; 2000]).and_then(|()| file.sync_all()).expect("a disk");
        std::fs::remove_file(path).expect("its own file");
    })
}

fn in_threads(threads: usize, each: usize, work: impl Fn(usize) + Sync) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..each).for_each(&work));
        }
    });
    (threads * each) as f64 / begun.elapsed().as_secs_f64()
}

/// Seconds from the first grant that was possible to the end of the sweep.
async fn measure(dir: &Path, trainer: &str, runs: usize, slots: u32) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("a bound address"));
    let data = dir.join("coordinator");
    let token = isoloss_coordinator::token(&data).expect("a token");
    let (stop, shutdown) = watch::channel(false);
    let mut config = isoloss_coordinator::Config::new(data);
    config.lease = Duration::from_secs(30);
    let coordinator = tokio::spawn(isoloss_coordinator::serve(config, listener, shutdown.clone()));
    let client = Client::new(&server, Some(token.clone())).expect("a client");
    client.ready().await.expect("the coordinator serves");
    let sweep = submit(&client, dir, runs).await;

    let program = std::env::current_exe().expect("this binary has a path");
    let mut config = Config::new(&server, "w", dir.join("worker"), core_groups(slots, 1, 64 << 30), program.clone());
    config.token = Some(token);
    config.corpora = vec![dir.join("coordinator").join("corpora")];
    config.trainer = vec![program.into(), trainer.into()];
    let begun = Instant::now();
    let worker = tokio::spawn(isoloss_worker::run(config, shutdown));
    loop {
        let row = client.sweep(&sweep).await.expect("the sweep is known").sweep;
        if row.phase == Phase::Ended {
            assert_eq!(row.counts.finished as usize, runs, "{row:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    stop.send_replace(true);
    worker.await.expect("the worker's task ends").expect("the worker ends well");
    coordinator.await.expect("the coordinator's task ends").expect("the coordinator ends well");
    seconds
}

async fn submit(client: &Client, dir: &Path, runs: usize) -> String {
    let toml = format!(
        "schema = 1\nname = 'rate'\n[corpus]\nsource = 'synthetic'\npreset = 'tiny'\nbytes = '1MiB'\n\
         [model]\ncontext = 64\n[axes]\nparams = ['10k']\ntokens = ['20k']\nseed = {{ linear = [1, {runs}], n = {runs} }}\n"
    );
    let (file, base) = ("rate.toml".to_owned(), dir.to_owned());
    let submit = Submit { schema_version: SCHEMA_VERSION, toml, file, set: Vec::new(), base, hold: false };
    client.submit(&submit).await.expect("the sweep is admitted").sweep_id.to_string()
}
