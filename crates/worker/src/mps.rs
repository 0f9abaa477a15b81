//! Runs that share a GPU through NVIDIA's Multi-Process Service (MPS): without it the GPU gives each process a slice of
//! time, with it kernels of several processes run at once. A daemon that is there already is used and never stopped;
//! otherwise the worker has one of its own. Here is what each run is told of it and what its end says of it; processes and
//! folders are the parts'. It does not know pipes, leases that end, or what a run computes.
//!
//! All processes of a GPU share one context under MPS: what breaks there breaks for all, and the driver does not say whose
//! kernel it was. Whoever was in such company gets another try that counts as no failure, outside MPS: there the GPU keeps
//! processes apart, and what breaks again is the run's own fault.

mod folder;
mod service;
mod sharing;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isoloss_sweep::RunId;
use isoloss_wire::api::{Lease, Slot};
use isoloss_wire::child::{EXIT_CONTEXT, EXIT_DEVICE};
use tokio::time::Instant;

use crate::child::Exit;
use crate::config::Config;
pub(crate) use service::Daemon;
pub use service::answers;
pub use sharing::Sharing;

const PIPES: &str = "CUDA_MPS_PIPE_DIRECTORY";
const LOGS: &str = "CUDA_MPS_LOG_DIRECTORY";
/// Most memory of a GPU that a client may have: `0=512M` for the first that it sees (NVIDIA, "Multi-Process Service").
const LIMIT: &str = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT";

/// Who ended so shortly before may have broken the context, or was the first to hear of it: reports stay on the GPU for a
/// few steps.
const COMPANY: Duration = Duration::from_secs(30);
/// A service that took no run for so long and refused so many is given up.
const FAILING: Duration = Duration::from_secs(60);
const FAILURES: u32 = 5;
/// Whether this process has said that MPS does not work.
static TOLD: AtomicBool = AtomicBool::new(false);
/// Runs whose fault is unclear, at most: beyond it a broken context counts against the run.
const SUSPECTS_MAX: usize = 10_000;

/// How a worker is to find MPS, or to start it. What is not found is passed over in silence; what does not work is said once.
#[derive(Debug, Clone)]
pub struct MpsConfig {
    /// What the worker's own `CUDA_MPS_PIPE_DIRECTORY` says: a daemon that somebody chose for it.
    pub chosen: Option<PathBuf>,
    /// Where the daemon of the machine has its sockets, if it has one: `/tmp/nvidia-mps`.
    pub usual: PathBuf,
    /// The file of `nvidia-cuda-mps-control`.
    pub control: Option<PathBuf>,
    /// Program and arguments before a service, which ends it with the worker: `isoloss guard --service --`.
    pub guard: Vec<OsString>,
    /// Program and arguments that open every GPU they see and print them as a JSON array: `isoloss gpu-open`.
    pub probe: Vec<OsString>,
    /// How long the daemon may take to answer, and the probe to end.
    pub patience: Duration,
    /// Where a short folder can be made: a socket's path has 108 bytes.
    pub temp: PathBuf,
}

/// A name and its value.
pub(crate) type Variable = (&'static str, OsString);

/// What a worker's runs have to do with MPS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mps(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// A folder without a daemon: a process that is told of it runs without MPS, whatever daemon the machine has.
    nowhere: Option<PathBuf>,
    /// What tells a process of the daemon; none without MPS.
    daemon: Option<Vec<Variable>>,
    /// GPUs that other people's processes may share.
    is_foreign: bool,
    /// Whether a GPU takes no process outside MPS.
    is_exclusive: bool,
    clients: HashMap<String, Vec<Client>>,
    suspects: HashSet<RunId>,
    failures: u32,
    failing_since: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    run_id: RunId,
    ended: Option<Instant>,
}

/// A run's place on a GPU, as long as its attempt lasts.
#[derive(Debug)]
pub(crate) struct Seat {
    mps: Mps,
    run_id: RunId,
    gpu: Option<String>,
    environment: Vec<Variable>,
    is_client: bool,
}

/// Whose fault the end of a child is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The run's, or nobody's: it is what it looks like.
    Own,
    /// The GPU or the service was not to be had.
    Service,
    /// The context broke, and others were in it.
    Unclear,
}

/// Finds or starts MPS for a worker that puts several runs on a GPU, and proves it before any run depends on it. Gives the
/// daemon too where it is the worker's own.
pub(crate) async fn begin(config: &Config) -> (Mps, Option<Daemon>) {
    let gpus = shared_gpus(config);
    let Some(settings) = config.mps.as_ref().filter(|_| !gpus.is_empty()) else {
        return (Mps::default(), None);
    };
    let (state, daemon) = open(settings, &config.data_dir, &gpus).await;
    (Mps(Arc::new(Mutex::new(state))), daemon)
}

/// MPS for these GPUs. What does not work is said, and left out.
async fn open(settings: &MpsConfig, dir: &Path, gpus: &[String]) -> (State, Option<Daemon>) {
    let mut state = State::outside(dir);
    let daemon = match service::find(settings, dir, gpus).await {
        Ok(None) => None,
        Ok(Some(found)) => {
            tracing::info!(pipes = %found.pipes.display(), own = found.daemon.is_some(), "runs share GPUs through MPS");
            state.is_foreign = found.daemon.is_none();
            state.daemon = Some(found.variables());
            found.daemon
        }
        Err(why) => {
            const WORDS: &str = "MPS is here and does not work: runs share GPUs without it; --mps off does not try it";
            // A process may ask twice, to time runs and to make them: it is the same MPS.
            match TOLD.swap(true, Ordering::Relaxed) {
                false => tracing::warn!(why, "{WORDS}"),
                true => tracing::debug!(why, "{WORDS}"),
            }
            None
        }
    };
    (state, daemon)
}

/// GPUs with more than one slot, each by itself where slots have groups of them.
fn shared_gpus(config: &Config) -> Vec<String> {
    let gpus: Vec<&String> = config.slots.iter().filter_map(|slot| slot.gpu.as_ref()).collect();
    let mut shared: Vec<String> = Vec::new();
    for (at, gpu) in gpus.iter().enumerate() {
        if gpus[..at].contains(gpu) && !shared.contains(gpu) {
            shared.push((*gpu).clone());
        }
    }
    shared.iter().flat_map(|group| group.split(',')).map(str::to_owned).collect()
}

impl Mps {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the run of `lease`. A run that was in a context when it broke gets one outside MPS.
    pub(crate) fn seat(&self, slot: &Slot, lease: &Lease) -> Seat {
        // What a foreign command takes is not counted by the formula that was reserved.
        let limit = lease.memory_bytes.filter(|_| lease.run.trainer.is_none());
        self.place(slot.gpu.as_deref(), lease.run_id, limit)
    }

    fn place(&self, gpu: Option<&str>, run_id: RunId, limit_bytes: Option<u64>) -> Seat {
        let mut state = self.state();
        let (environment, is_client) = match gpu {
            Some(gpus) => state.environment(&run_id, limit_bytes, gpus.split(',').count()),
            None => (Vec::new(), false),
        };
        let gpu = gpu.map(str::to_owned);
        if let Some(gpu) = gpu.clone().filter(|_| is_client) {
            state.clients.entry(gpu).or_default().push(Client { run_id, ended: None });
        }
        Seat { mps: self.clone(), run_id, gpu, environment, is_client }
    }
}

impl Seat {
    /// What the child is told.
    pub(crate) fn environment(&self) -> &[Variable] {
        &self.environment
    }

    /// Whether the child's process is a client of MPS.
    pub(crate) fn is_client(&self) -> bool {
        self.is_client
    }

    /// What the end of a child says that told no outcome, or did.
    pub(crate) fn judge(&self, exit: Exit, told: bool) -> Verdict {
        let Some(gpu) = &self.gpu else { return Verdict::Own };
        let mut state = self.mps.state();
        match exit {
            Exit::Code(EXIT_DEVICE) if !told => {
                state.refused(self.is_client, &self.run_id);
                Verdict::Service
            }
            Exit::Code(EXIT_CONTEXT) if !told && self.is_client && state.is_unclear(gpu, &self.run_id) => {
                state.suspects.insert(self.run_id);
                Verdict::Unclear
            }
            _ => {
                if self.is_client {
                    (state.failures, state.failing_since) = (0, None);
                }
                Verdict::Own
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (Some(gpu), true) = (&self.gpu, self.is_client) else { return };
        let (mut state, now) = (self.mps.state(), Instant::now());
        let clients = state.clients.entry(gpu.clone()).or_default();
        clients.retain(|client| client.ended.is_none_or(|ended| now - ended <= COMPANY));
        let own = clients.iter_mut().find(|client| client.run_id == self.run_id && client.ended.is_none());
        own.into_iter().for_each(|client| client.ended = Some(now));
    }
}

impl State {
    /// Without MPS, whatever daemon the machine has. `dir` is where the folder lies that nobody makes.
    fn outside(dir: &Path) -> Self {
        Self { nowhere: Some(folder::nowhere(dir)), ..Self::default() }
    }

    /// What a run's process is told, and whether that makes it a client.
    fn environment(&self, run_id: &RunId, limit_bytes: Option<u64>, gpus: usize) -> (Vec<Variable>, bool) {
        self.told(self.suspects.contains(run_id) && !self.is_exclusive, limit_bytes, gpus)
    }

    /// What a process is told, of the daemon where it may be a client.
    fn told(&self, is_suspect: bool, limit_bytes: Option<u64>, gpus: usize) -> (Vec<Variable>, bool) {
        let Some(nowhere) = &self.nowhere else { return (Vec::new(), false) };
        let Some(daemon) = self.daemon.as_ref().filter(|_| !is_suspect) else {
            return (vec![(PIPES, nowhere.into())], false);
        };
        let limits = |bytes: u64| (0..gpus).map(move |gpu| format!("{gpu}={}M", bytes.div_ceil(1 << 20)));
        let limit = limit_bytes.map(|bytes| (LIMIT, limits(bytes).collect::<Vec<_>>().join(",").into()));
        (daemon.iter().cloned().chain(limit).collect(), true)
    }

    /// A client was refused; where that goes on, runs go on without MPS. One outside MPS that is refused too shows that the
    /// GPU takes none there.
    fn refused(&mut self, is_client: bool, run_id: &RunId) {
        if !is_client {
            self.is_exclusive |= self.daemon.is_some() && self.suspects.contains(run_id);
            return;
        }
        self.failures += 1;
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if self.failures >= FAILURES && since.elapsed() >= FAILING && self.daemon.take().is_some() {
            tracing::warn!(
                failures = self.failures,
                "MPS takes no run any more: runs share GPUs without it from now on"
            );
        }
    }

    /// Whether a broken context may be another's fault, and the run was in none before.
    fn is_unclear(&self, gpu: &str, run_id: &RunId) -> bool {
        let near = |client: &Client| client.ended.is_none_or(|ended| ended.elapsed() <= COMPANY);
        let others = self.clients.get(gpu).into_iter().flatten().filter(|client| client.run_id != *run_id);
        let company = self.is_foreign || others.into_iter().any(near);
        company && !self.suspects.contains(run_id) && self.suspects.len() < SUSPECTS_MAX
    }
}

#[cfg(test)]
mod tests;
