//! What lies between runs: coordinator, worker and children in processes of their own, real runs of a model of about a million
//! weights on the CPU, the corpus cached. Prints, for a child for each run and for children that take one run after another, the
//! time from a grant to the first step and from an outcome to the next run's first step, and what share of a run of 30 s that is.
//!
//!     cargo run --release --example idle -- [RUNS] [PARAMS] [DIR]

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use isoloss_sweep::Outcome;
use isoloss_wire::Client;
use isoloss_wire::api::{Phase, SCHEMA_VERSION, Submit};

/// Commands that daemons and children of this measurement are started with: they are this program.
const COMMANDS: [&str; 4] = ["serve", "survey", "worker", "train"];
/// The run that the idle time is compared with.
const RUN_SECONDS: f64 = 30.0;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if words.first().is_some_and(|word| COMMANDS.contains(&word.as_str())) {
        return isoloss_cli::main();
    }
    let runs: usize = words.first().map_or(20, |word| word.parse().expect("a number of runs"));
    let params = words.get(1).map_or("1M", String::as_str);
    let dir = words.get(2).map_or_else(env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("a folder to work in");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let house = House::open(dir.path());
    let client = runtime.block_on(house.client());
    for (round, per_child) in [1, 100].into_iter().enumerate() {
        let worker = house.work(per_child);
        let seconds = runtime.block_on(sweep(&client, dir.path(), runs, params, 1000 * (round + 1)));
        drop(worker);
        let what = if per_child == 1 { "a child for each run" } else { "children take one run after another" };
        println!("{what}: {runs} runs of {params} weights, {seconds:.2} s each");
        house.tell(per_child, runs);
    }
    ExitCode::SUCCESS
}

/// A process that ends with this one.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coordinator, and the folder of all.
struct House {
    dir: PathBuf,
    server: String,
    _coordinator: Daemon,
}

impl House {
    fn open(dir: &Path) -> Self {
        let probe = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = probe.expect("a free port").to_string();
        let mut serve = program(dir, "coordinator");
        serve.args(["serve", "--listen", &address]);
        let coordinator = Daemon(serve.spawn().expect("this program starts"));
        Self { dir: dir.to_owned(), server: format!("http://{address}"), _coordinator: coordinator }
    }

    async fn client(&self) -> Client {
        let file = self.dir.join("coordinator").join("token");
        for _ in 0..600 {
            if let Ok(token) = fs::read_to_string(&file)
                && let Ok(client) = Client::new(&self.server, Some(token.trim().to_owned()))
                && client.ready().await.is_ok()
            {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the coordinator does not come up");
    }

    /// A worker of one slot and one thread.
    fn work(&self, per_child: u32) -> Daemon {
        // A name of its own: the one before was killed without a goodbye, and keeps its name for a while.
        let name = format!("worker-{per_child}");
        let mut worker = program(&self.dir, &name);
        worker.args(["worker", "--name", &name, "--cores", "1", "--server", &self.server, "--token-file"]);
        worker.arg(self.dir.join("coordinator").join("token"));
        worker.args(["--runs-per-child", &per_child.to_string()]).env("ISOLOSS_LOG", "isoloss_worker=info");
        Daemon(worker.spawn().expect("this program starts"))
    }

    /// What the worker measured, run by run. The first run of its life has to fetch the corpus.
    fn tell(&self, per_child: u32, runs: usize) {
        let log = fs::read_to_string(self.dir.join(format!("worker-{per_child}.log"))).expect("the worker has a log");
        let ends: Vec<&str> = log.lines().filter(|line| line.contains("attempt ends")).collect();
        assert_eq!(ends.len(), runs + 1, "{log}");
        let read = |name: &str| -> Vec<f64> { ends[1..].iter().map(|line| number(line, name)).collect() };
        println!("  first run of the worker's life: {:.0} ms to its first step", number(ends[0], "start_ms"));
        for (what, name) in [
            ("grant to begin of first step", "start_ms"),
            ("grant to end of first step", "first_step_ms"),
            ("outcome to begin of the next first step", "idle_ms"),
        ] {
            let mut values = read(name);
            values.sort_by(f64::total_cmp);
            println!("  {what}: {:.1} ms median, {:.1} ms at most", values[values.len() / 2], values[values.len() - 1]);
        }
        let idle = read("idle_ms").iter().sum::<f64>() / runs as f64 / 1e3;
        println!("  idle between runs of {RUN_SECONDS} s: {:.2} %", 100.0 * idle / (RUN_SECONDS + idle));
    }
}

fn number(line: &str, name: &str) -> f64 {
    let rest = line.split_once(&format!("{name}=")).expect("the worker says it").1;
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

/// This program with a data directory and a log of its own.
fn program(dir: &Path, name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    let log = File::create(dir.join(format!("{name}.log"))).expect("a log");
    command.env("ISOLOSS_DATA_DIR", dir.join(name)).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// Mean seconds of a run.
async fn sweep(client: &Client, dir: &Path, runs: usize, params: &str, seed: usize) -> f64 {
    let last = seed + runs;
    let toml = format!(
        "schema = 1\nname = 'idle-{seed}'\n[corpus]\nsource = 'synthetic'\npreset = 'tiny'\nbytes = '16MiB'\n\
         scored_bytes = '8KiB'\ncurve_bytes = '4KiB'\n[model]\ncontext = 128\n[train]\nbatch = 4\n\
         [axes]\nparams = ['{params}']\ntokens = ['8k']\nseed = {{ linear = [{seed}, {last}], n = {} }}\n",
        runs + 1
    );
    let (file, base) = ("idle.toml".to_owned(), dir.to_owned());
    let submit = Submit { schema_version: SCHEMA_VERSION, toml, file, set: Vec::new(), base, hold: false };
    let sweep = client.submit(&submit).await.expect("the sweep is admitted").sweep_id.to_string();
    while client.sweep(&sweep).await.expect("the sweep is known").sweep.phase != Phase::Ended {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let results = client.results(&sweep).await.expect("the sweep has results");
    let seconds = results.iter().map(|result| match &result.outcome {
        Some(Outcome::Finished(finished)) => finished.cost.seconds,
        other => panic!("a run that did not finish: {other:?}"),
    });
    seconds.sum::<f64>() / results.len() as f64
}
