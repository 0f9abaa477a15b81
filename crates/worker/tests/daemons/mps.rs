//! GPUs shared through MPS, with a control program, a probe and trainers that only look like it: what runs are told, whose
//! daemon lives how long, and what is forgiven.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isoloss_wire::api::RunState;
use isoloss_wire::child::{Assignment, EXIT_CONTEXT, EXIT_DEVICE};
use isoloss_worker::{Config, MpsConfig, Sharing, gpu_slots};

use crate::lab::{self, Coordinator, Worker, eventually};
use crate::processes::{gone_within, is_alive, read_pids};

/// With -f a daemon, which also has a server that outlives a kill of its parent; else a client of it.
const CONTROL: &str = include_str!("control.sh");
const PROBE: &str =
    "#!/bin/sh\necho \"$CUDA_MPS_PIPE_DIRECTORY\" >>\"$(dirname \"$0\")/probed\"\necho '[{\"uuid\":\"GPU-1\"}]'\n";

/// What a trainer of these tests does before it trains. It notes what it was told of the GPU.
pub(crate) fn run(mode: &str, assignment: &Assignment) {
    let pipes = std::env::var("CUDA_MPS_PIPE_DIRECTORY").unwrap_or_default();
    let limit = std::env::var("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT").unwrap_or_default();
    let told = PathBuf::from(std::env::var_os("LAB_TOLD").expect("such a trainer writes down what it is told"));
    let mut file = fs::OpenOptions::new().append(true).create(true).open(&told).unwrap();
    let expected = assignment.memory_bytes.map_or_else(String::new, |bytes| format!("0={}M", bytes.div_ceil(1 << 20)));
    // In one piece: trainers beside it write there too.
    let line = format!("{pipes} {}\n", if limit == expected { "limited" } else { limit.as_str() });
    file.write_all(line.as_bytes()).unwrap();
    assert_eq!(std::env::var("CUDA_VISIBLE_DEVICES").as_deref(), Ok("GPU-1"));
    if mode == "mps refused" && assignment.attempt == 1 {
        eprintln!("cuDevicePrimaryCtxRetain failed: CUDA_ERROR_MPS_SERVER_NOT_READY");
        std::process::exit(EXIT_DEVICE);
    }
    if mode == "mps broken" && !pipes.ends_with("none") {
        while fs::read_to_string(&told).unwrap().lines().count() < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS");
        std::process::exit(EXIT_CONTEXT);
    }
}

/// A worker in a process of its own, with a GPU of the machine in that folder.
fn spawn_worker_process(coordinator: &Coordinator, dir: &Path, machine: &Path) -> Child {
    let mut command = lab::worker_command(coordinator, dir);
    command.env("LAB_MPS", machine);
    command.spawn().unwrap()
}

/// A folder with the programs of the machine.
pub(crate) struct Machine(tempfile::TempDir);

impl Machine {
    fn new(control: &str, probe: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (name, text) in [("control", control), ("probe", probe)] {
            let file = machine.file(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        machine
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.file(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn pids(&self) -> Vec<i32> {
        read_pids(&self.file("pids"))
    }

    /// The daemon of the machine, that nobody here started.
    fn daemon(&self) -> Child {
        let usual = self.file("usual");
        fs::create_dir(&usual).unwrap();
        let mut command = Command::new(self.file("control"));
        command.arg("-f").env("CUDA_MPS_PIPE_DIRECTORY", &usual).stdin(Stdio::null()).spawn().unwrap()
    }
}

/// Two slots of one GPU for a worker on `dir`.
pub(crate) fn configure(config: &mut Config, machine: &Path, patience: Duration) {
    config.slots = gpu_slots("GPU-1", 80 << 30, 2);
    config.env.push(("LAB_TOLD".into(), machine.join("told").into()));
    config.mps = Some(settings(machine, patience));
}

fn settings(machine: &Path, patience: Duration) -> MpsConfig {
    let program = std::env::current_exe().unwrap();
    let words =
        [program.as_os_str(), "--exact".as_ref(), "--nocapture".as_ref(), "guard_process".as_ref(), "--".as_ref()];
    MpsConfig {
        chosen: None,
        usual: machine.join("usual"),
        control: Some(machine.join("control")),
        guard: words.map(Into::into).to_vec(),
        probe: vec![machine.join("probe").into()],
        patience,
        temp: machine.to_owned(),
    }
}

async fn worker(coordinator: &Coordinator, machine: &Machine, mode: &str, patience: Duration) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(coordinator, "w", mode, 1, dir.path());
    configure(&mut config, machine.0.path(), patience);
    Worker::start_as(coordinator, config, dir).await
}

/// All runs of a sweep on the GPU finish, though none may fail even once.
/// Says of each whether its outcome tells of MPS.
async fn all_finish(coordinator: &Coordinator) -> Vec<bool> {
    let submitted = coordinator.submit_with(&["train.engine='cuda'", "retry.failures=0"]).await;
    let sweep = submitted.sweep_id.to_string();
    coordinator.ended(&sweep).await;
    let rows = coordinator.client.runs(&sweep).await.unwrap();
    assert!(rows.iter().all(|row| row.state == RunState::Finished), "{rows:?}");
    rows.iter().map(|row| row.gpu.as_ref().unwrap().mps).collect()
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_a_daemon_of_its_own_as_long_as_it_lives() {
    let (coordinator, machine) = (Coordinator::start().await, Machine::new(CONTROL, PROBE));
    let worker = worker(&coordinator, &machine, "mps", PATIENCE).await;
    assert_eq!(all_finish(&coordinator).await, [true; 4]);
    let home = worker.dir().canonicalize().unwrap().join("mps");
    let [pipes, logs] = ["pipe", "log"].map(|name| home.join(name).display().to_string());
    assert_eq!(machine.lines("daemons"), [format!("GPU-1 in {pipes} logs {logs}")]);
    assert_eq!(machine.lines("probed"), std::slice::from_ref(&pipes));
    assert_eq!(machine.lines("told"), vec![format!("{pipes} limited"); 4]);
    let pids = machine.pids();
    assert!(pids.len() == 2 && pids.iter().all(|&pid| is_alive(pid)), "{pids:?}");
    worker.stop().await;
    assert!(gone_within(&pids, Duration::from_secs(2)).await, "with its server");
    assert_eq!(machine.lines("daemons")[1..], ["obeyed"], "it was asked, not killed");
    assert!(!Path::new(&pipes).exists());
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_s_daemon_is_used_and_left_alone() {
    let (coordinator, machine) = (Coordinator::start().await, Machine::new(CONTROL, PROBE));
    let mut foreign = machine.daemon();
    eventually("the daemon is there", || async {
        machine.pids().len() == 2 && machine.file("usual").join("nvidia-cuda-mps-control.pid").exists()
    })
    .await;
    let worker = worker(&coordinator, &machine, "mps", PATIENCE).await;
    assert_eq!(all_finish(&coordinator).await, [true; 4]);
    worker.stop().await;
    assert_eq!(machine.lines("told"), vec![format!("{} limited", machine.file("usual").display()); 4]);
    assert_eq!(machine.lines("daemons").len(), 1, "no second one, and no wish that it goes");
    assert!(foreign.try_wait().unwrap().is_none());
    fs::remove_file(machine.file("usual").join("nvidia-cuda-mps-control.pid")).unwrap();
    foreign.wait().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(machine.pids()[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_is_left_out_and_nothing_of_it_stays() {
    let fails = "#!/bin/sh\necho 'no right to do this' >&2\nexit 1\n";
    let hangs = "#!/bin/sh\necho $$ >>\"$(dirname \"$0\")/pids\"\nexec sleep 600\n";
    let short = Duration::from_millis(1500);
    let coordinator = Coordinator::start().await;
    let cases = [
        ("a daemon that fails", fails, PROBE, PATIENCE),
        ("a daemon that hangs", hangs, PROBE, short),
        ("a GPU that does not open", CONTROL, fails, PATIENCE),
        ("a GPU that opens for ever", CONTROL, hangs, short),
        ("too few GPUs", CONTROL, "#!/bin/sh\necho '[]'\n", PATIENCE),
    ];
    for (seed, (what, control, probe, patience)) in cases.into_iter().enumerate() {
        let machine = Machine::new(control, probe);
        let worker = worker(&coordinator, &machine, "mps outside", patience).await;
        // Also those of the probe and of clients that hang; nobody waits for the worker's end.
        let pids = machine.pids();
        assert!(gone_within(&pids, Duration::from_secs(20)).await, "{what}: {pids:?}");
        let seed = format!("seed={}", seed + 2);
        let submitted = coordinator.submit_with(&["train.engine='cuda'", &seed]).await;
        coordinator.ended(&submitted.sweep_id.to_string()).await;
        let nowhere = worker.dir().join("mps").join("none");
        let told = machine.lines("told");
        assert_eq!(told, vec![format!("{} ", nowhere.display()); 4], "{what}");
        worker.stop().await;
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_no_daemon_and_the_next_has_its_own() {
    let (coordinator, machine) = (Coordinator::start().await, Machine::new(CONTROL, PROBE));
    let dir = tempfile::tempdir().unwrap();
    let mut first = spawn_worker_process(&coordinator, dir.path(), machine.0.path());
    eventually("the worker joins", || async { !coordinator.client.workers().await.unwrap().workers.is_empty() }).await;
    let pids = machine.pids();
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(pids.len() == 2 && gone_within(&pids, Duration::from_secs(5)).await, "{pids:?}");
    // As if the guard had been killed with it: a daemon and what it left still lie there.
    let pipes = dir.path().canonicalize().unwrap().join("mps").join("pipe");
    let mut stale = Command::new(machine.file("control"));
    let mut stale = stale.arg("-f").env("CUDA_MPS_PIPE_DIRECTORY", &pipes).stdin(Stdio::null()).spawn().unwrap();
    eventually("it is there", || async { pipes.join("nvidia-cuda-mps-control.pid").exists() }).await;
    let mut second = spawn_worker_process(&coordinator, dir.path(), machine.0.path());
    eventually("the second has a daemon", || async { machine.pids().len() == 6 }).await;
    assert!(stale.wait().unwrap().success(), "it was asked to go");
    second.kill().unwrap();
    second.wait().unwrap();
    let left = machine.pids();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left[2]), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(gone_within(&left[4..], Duration::from_secs(5)).await);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_service_is_no_failure_of_the_run() {
    let (coordinator, machine) = (Coordinator::start().await, Machine::new(CONTROL, PROBE));
    let worker = worker(&coordinator, &machine, "mps refused", PATIENCE).await;
    assert_eq!(all_finish(&coordinator).await, [true; 4]);
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_in_a_broken_context_runs_again_outside() {
    let (coordinator, machine) = (Coordinator::start().await, Machine::new(CONTROL, PROBE));
    let worker = worker(&coordinator, &machine, "mps broken", PATIENCE).await;
    assert_eq!(all_finish(&coordinator).await, [false; 4], "the attempt that counts");
    let outside = machine.lines("told").iter().filter(|line| line.contains("none")).count();
    assert_eq!((machine.lines("told").len(), outside), (8, 4), "each once inside and once outside");
    worker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_timed_are_told_what_runs_are_told() {
    let (machine, gpu) = (Machine::new(CONTROL, PROBE), ["GPU-1".to_owned()]);
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let settings = settings(machine.0.path(), PATIENCE);
    let first = Sharing::begin(&settings, dirs[0].path(), &gpu).await;
    let home = dirs[0].path().canonicalize().unwrap().join("mps");
    let daemon = [
        ("CUDA_MPS_PIPE_DIRECTORY", home.join("pipe").into_os_string()),
        ("CUDA_MPS_LOG_DIRECTORY", home.join("log").into_os_string()),
        ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=3M".into()),
    ];
    assert!(first.is_through_mps());
    assert_eq!(first.environment(Some((2 << 20) + 1)), daemon);
    assert_eq!(first.environment(None), daemon[..2]);
    let second = Sharing::begin(&settings, dirs[1].path(), &gpu).await;
    let pids = machine.pids();
    assert_eq!(pids.len(), 4, "each has its own");
    second.end().await;
    assert!(gone_within(&pids[2..], Duration::from_secs(2)).await && pids[..2].iter().all(|pid| is_alive(*pid)));
    assert_eq!(machine.lines("daemons").last().unwrap(), "obeyed");
    drop(first);
    assert!(gone_within(&pids[..2], Duration::from_secs(5)).await, "without a word of farewell");
    fs::write(machine.file("probe"), "#!/bin/sh\nexit 1\n").unwrap();
    let nowhere = [("CUDA_MPS_PIPE_DIRECTORY", dirs[2].path().join("mps").join("none").into_os_string())];
    for outside in [Sharing::begin(&settings, dirs[2].path(), &gpu).await, Sharing::outside(dirs[2].path())] {
        assert!(!outside.is_through_mps());
        assert_eq!(outside.environment(Some(1)), nowhere);
    }
    assert_eq!(Sharing::default().environment(Some(1)), []);
}
