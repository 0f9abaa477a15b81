//! Coordinators and workers for tests: in this process, in others, and one played by hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isoloss_sweep::RunId;
use isoloss_sweep::plan::Capability;
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_wire::api::{
    Acquire, Ending, Instance, Lease, Phase, Register, Renew, Renewal, RunRow, RunState, SCHEMA_VERSION, Settle,
    Settled, Submit, Submitted, Verdict, WORKER_VERSION,
};
use isoloss_wire::child::CHILD_PROTOCOL;
use isoloss_wire::{Client, ClientError};
use isoloss_worker::{Artifacts, Config, core_groups};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::processes::read_pids;
use crate::trainer;

const SWEEP: &str = r#"
schema = 1
name = "nothing"
[corpus]
source = "synthetic"
preset = "tiny"
bytes = "1MiB"
[model]
context = 64
[axes]
params = ["10k", "20k"]
tokens = ["20k", "40k"]
"#;

/// Waits for a condition; a test that would wait for ever fails.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    patience.await.unwrap_or_else(|_| panic!("waited too long until {what}"));
}

/// A coordinator in this process.
pub(crate) struct Coordinator {
    pub(crate) client: Client,
    pub(crate) server: String,
    pub(crate) token: String,
    dir: TempDir,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap(), "127.0.0.1:0").await
    }

    async fn on(dir: TempDir, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let mut config = isoloss_coordinator::Config::new(dir.path().to_owned());
        config.lease = Duration::from_secs(10);
        let precisions = vec![Precision::F32];
        config.capabilities.engines.push(Capability { engine: EngineKind::Cuda, precisions, moe: false });
        let token = isoloss_coordinator::token(dir.path()).unwrap();
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(async move { isoloss_coordinator::serve(config, listener, shutdown).await.unwrap() });
        let client = Client::new(&server, Some(token.clone())).unwrap();
        client.ready().await.unwrap();
        Self { client, server, token, dir, stop, task }
    }

    /// Ends and starts again on the same data and address.
    pub(crate) async fn restart(self) -> Self {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        let address = self.server.trim_start_matches("http://").to_owned();
        Self::on(self.dir, &address).await
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn submit(&self) -> Submitted {
        self.submit_with(&[]).await
    }

    pub(crate) async fn submit_with(&self, set: &[&str]) -> Submitted {
        let submit = Submit {
            schema_version: SCHEMA_VERSION,
            toml: SWEEP.to_owned(),
            file: "nothing.toml".to_owned(),
            set: set.iter().map(|&set| set.to_owned()).collect(),
            base: self.dir.path().to_owned(),
            hold: false,
        };
        self.client.submit(&submit).await.unwrap()
    }

    /// Waits for the sweep's end.
    pub(crate) async fn ended(&self, sweep: &str) {
        eventually("the sweep ends", || async {
            let phase = self.client.sweep(sweep).await.unwrap().sweep.phase;
            matches!(phase, Phase::Ended | Phase::Cancelled)
        })
        .await;
    }

    /// Waits for a run of the sweep that is leased.
    pub(crate) async fn leased(&self, sweep: &str) -> RunRow {
        let leased = || async {
            let rows = self.client.runs(sweep).await.unwrap();
            rows.into_iter().find(|row| row.state == RunState::Leased)
        };
        eventually("a run is leased", || async { leased().await.is_some() }).await;
        leased().await.unwrap()
    }
}

/// What a worker of these tests is told. Its trainer is this test binary.
pub(crate) fn config(coordinator: &Coordinator, name: &str, mode: &str, slots: u32, dir: &Path) -> Config {
    config_for(&coordinator.server, &coordinator.token, name, mode, slots, dir)
}

fn config_for(server: &str, token: &str, name: &str, mode: &str, slots: u32, dir: &Path) -> Config {
    let program = std::env::current_exe().unwrap();
    let mut config = Config::new(server, name, dir.to_owned(), core_groups(slots, 1, 4 << 30), program.clone());
    config.token = Some(token.to_owned());
    config.trainer = vec![program.into(), "--exact".into(), "fake_trainer".into(), "--nocapture".into()];
    config.env = vec![
        ("LAB_TRAINER".into(), mode.into()),
        ("LAB_GATE".into(), dir.join("gate").into()),
        ("LAB_PIDS".into(), dir.join("pids").into()),
    ];
    config
}

pub(crate) fn artifacts(store: &Path) -> Artifacts {
    Artifacts::open(store.to_str().unwrap(), []).unwrap()
}

/// A worker in this process.
pub(crate) struct Worker {
    dir: TempDir,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(crate) async fn start(coordinator: &Coordinator, name: &str, mode: &str, slots: u32) -> Self {
        Self::start_in(coordinator, name, mode, slots, tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(coordinator: &Coordinator, name: &str, mode: &str, slots: u32, dir: TempDir) -> Self {
        let config = config(coordinator, name, mode, slots, dir.path());
        Self::start_as(coordinator, config, dir).await
    }

    pub(crate) async fn start_as(coordinator: &Coordinator, config: Config, dir: TempDir) -> Self {
        let name = config.name.clone();
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(async move { isoloss_worker::run(config, shutdown).await.unwrap() });
        eventually("the worker joins", || async {
            coordinator.client.workers().await.unwrap().workers.iter().any(|row| row.worker == name)
        })
        .await;
        Self { dir, stop, task }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Lets waiting trainers go on.
    pub(crate) fn release(&self) {
        std::fs::write(self.dir.path().join("gate"), "").unwrap();
    }

    /// The newest child.
    pub(crate) async fn child(&self) -> i32 {
        let pids = self.dir.path().join("pids");
        eventually("a child runs", || async { !read_pids(&pids).is_empty() }).await;
        *read_pids(&pids).last().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// A worker played by the test: it holds what it is given and says what the test wants.
pub(crate) struct FakeWorker {
    client: Client,
    name: String,
}

impl FakeWorker {
    pub(crate) async fn join(coordinator: &Coordinator, name: &str) -> Self {
        Self::register(coordinator, name, None).await
    }

    /// As a later start on the data directory of another worker.
    pub(crate) async fn join_as(coordinator: &Coordinator, name: &str, id: &str, home: &str) -> Self {
        let (id, home, place) = (id.to_owned(), home.to_owned(), format!("the {id} process"));
        Self::register(coordinator, name, Some(Instance { id, home, start: 99, place })).await
    }

    async fn register(coordinator: &Coordinator, name: &str, instance: Option<Instance>) -> Self {
        let client = coordinator.client.clone();
        let register = Register {
            schema_version: WORKER_VERSION,
            protocol: CHILD_PROTOCOL,
            code_version: "test".to_owned(),
            worker: name.to_owned(),
            instance,
            slots: core_groups(1, 1, 4 << 30),
            gpu_names: std::collections::BTreeMap::new(),
            storage: name.to_owned(),
            allow_commands: false,
            holding: Vec::new(),
        };
        client.register(&register).await.unwrap();
        Self { client, name: name.to_owned() }
    }

    pub(crate) async fn acquire(&self) -> Lease {
        let acquire =
            Acquire { worker: self.name.clone(), instance: None, slot: "cpu:0".to_owned(), wait_seconds: 10.0 };
        *self.client.acquire(&acquire).await.unwrap().lease.expect("there is work")
    }

    /// Acquires until it is given that run; others are given back.
    pub(crate) async fn acquire_run(&self, run_id: RunId) -> Lease {
        for _ in 0..100 {
            let lease = self.acquire().await;
            if lease.run_id == run_id {
                return lease;
            }
            let back = self.ending(&lease, Ending::Yielded { reason: "another was wanted".to_owned(), wait: false });
            self.settle(&back).await.unwrap();
        }
        panic!("the run was never granted again");
    }

    pub(crate) fn ending(&self, lease: &Lease, ending: Ending) -> Settle {
        Settle {
            worker: self.name.clone(),
            instance: None,
            run_id: lease.run_id,
            attempt: lease.attempt,
            key: lease.key.clone(),
            device: "cpu:0".to_owned(),
            ending,
            checkpoints: Vec::new(),
            log: Vec::new(),
            next: false,
        }
    }

    pub(crate) fn finished(&self, lease: &Lease) -> Settle {
        self.ending(lease, Ending::Outcome(Box::new(trainer::outcome(&lease.run, "cpu:0"))))
    }

    pub(crate) async fn settle(&self, settle: &Settle) -> Result<Settled, ClientError> {
        self.client.settle(settle).await
    }

    pub(crate) async fn renew(&self, leases: &[&Lease]) -> BTreeMap<(RunId, u64), Verdict> {
        let renewal = |lease: &&Lease| Renewal {
            run_id: lease.run_id,
            attempt: lease.attempt,
            key: lease.key.clone(),
            slot: "cpu:0".to_owned(),
            live: None,
            points: Vec::new(),
            checkpoints: Vec::new(),
            log: Vec::new(),
        };
        let leases = leases.iter().map(renewal).collect();
        let renew =
            Renew { worker: self.name.clone(), instance: None, leases, resting: None, gpus_resting: Vec::new() };
        let renewed = self.client.renew(&renew).await.unwrap();
        renewed.leases.into_iter().map(|row| ((row.run_id, row.attempt), row.verdict)).collect()
    }
}

/// This binary as a worker.
pub(crate) fn worker_command(coordinator: &Coordinator, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker_process", "--nocapture"]).stdout(Stdio::null());
    command.env("LAB_WORKER", &coordinator.server).env("LAB_TOKEN", &coordinator.token).env("LAB_DIR", dir);
    command
}

/// A worker in a process of its own.
pub(crate) fn spawn_worker_process(coordinator: &Coordinator, dir: &Path, pids: &Path, guarded: bool) -> Child {
    let mut command = worker_command(coordinator, dir);
    command.env("LAB_PIDS", pids);
    if guarded {
        command.env("LAB_GUARDED", "1");
    }
    command.spawn().unwrap()
}

/// What makes the sweep one of foreign trainers: this binary, which does as `mode` says.
pub(crate) fn foreign_sets(mode: &str, failures: u64) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    vec![
        format!("trainer.command=['{}', '--exact', 'fake_trainer', '--nocapture']", program.display()),
        format!("trainer.version='{mode}'"),
        format!("retry.failures={failures}"),
    ]
}

/// A worker in a process of its own that may run commands, behind the guard.
pub(crate) fn spawn_foreign_worker_process(coordinator: &Coordinator, dir: &Path, pids: &Path) -> Child {
    let mut command = worker_command(coordinator, dir);
    command.env("LAB_PIDS", pids).env("LAB_FOREIGN", "1");
    command.spawn().unwrap()
}

/// The other side of [`spawn_worker_process`].
pub(crate) fn worker_process() {
    let Ok(server) = std::env::var("LAB_WORKER") else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os("LAB_DIR").unwrap());
    let token = std::env::var("LAB_TOKEN").unwrap();
    let mut config = config_for(&server, &token, "doomed", "wait", 1, &dir);
    if std::env::var_os("LAB_GUARDED").is_some() {
        let program = std::env::current_exe().unwrap();
        config.name = "guarded".to_owned();
        config.trainer = vec![program.into(), "--exact".into(), "guard_process".into(), "--nocapture".into()];
        config.env.push(("LAB_GUARD".into(), "1".into()));
    }
    if std::env::var_os("LAB_FOREIGN").is_some() {
        config = config_for(&server, &token, "foreign", "foreign", 2, &dir);
        config.allow_commands = true;
        let program = std::env::current_exe().unwrap();
        config.guard = [program.as_os_str(), "--exact".as_ref(), "--nocapture".as_ref(), "guard_process".as_ref()]
            .iter()
            .map(|&word| word.to_owned())
            .chain(["--".into()])
            .collect();
        config.grace = Duration::from_millis(500);
        config.silence = Duration::from_secs(4);
    }
    if let Some(machine) = std::env::var_os("LAB_MPS") {
        crate::mps::configure(&mut config, Path::new(&machine), Duration::from_secs(20));
    }
    if let Some(store) = std::env::var_os("LAB_STORE") {
        config = config_for(&server, &token, "doomed", "doomed", 1, &dir);
        config.artifacts = Some(artifacts(Path::new(&store)));
    }
    let (_stop, shutdown) = watch::channel(false);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(isoloss_worker::run(config, shutdown)).unwrap();
}
