//! What the scheduler is told and what it answers. Durations only cross to workers, never clock times.

use std::collections::BTreeMap;
use std::sync::Arc;

use isoloss_store::{Admission, Checkpoint, Planned, Record, Refusal, Target};
use isoloss_sweep::{Outcome, RunId, SweepId};

use super::Shortage;

/// Milliseconds on the coordinator's own monotonic clock.
pub type Millis = u64;

/// A worker's name, the same over restarts on the same data directory.
pub type WorkerId = String;

/// A worker as it describes itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSpec {
    pub worker: WorkerId,
    /// Missing: a worker of before there were any.
    pub instance: Option<Instance>,
    /// Where it lives, for people.
    pub place: String,
    pub code_version: String,
    pub slots: Vec<Slot>,
    /// As the driver calls its GPUs, by their UUIDs.
    pub gpu_names: BTreeMap<String, String>,
    /// Names the disk that holds its checkpoints.
    pub storage: String,
    /// Whether it may run commands that sweeps name.
    pub allow_commands: bool,
}

/// A process that speaks for a worker's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its own.
    pub id: String,
    /// Of its data directory.
    pub home: String,
    /// Counts the starts on that directory.
    pub start: u64,
}

/// A place that holds one run at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Unique within the worker.
    pub name: String,
    pub device: Device,
    /// Of the device: slots of one GPU share it, and every lease reserves its part.
    pub memory_bytes: u64,
}

/// What a slot computes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    Cpu { threads: u32 },
    Gpu { uuid: String },
}

/// One attempt that a worker says it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    pub run_id: RunId,
    pub attempt: u64,
    pub slot: String,
    /// Missing before the first step.
    pub progress: Option<Progress>,
}

/// What a leased run last said of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub step: u64,
    pub steps: u64,
    pub tokens: u64,
    pub tokens_per_second: f64,
    pub loss_nats: Option<f64>,
    pub bits_per_byte: Option<f64>,
    pub memory_bytes: u64,
    /// Whether its process is a client of MPS.
    pub mps: bool,
}

/// What asks for no work, as a worker says it of itself. It decides nothing: what rests does not ask.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resting {
    /// Why all of it does, for people.
    pub why: Option<String>,
    pub gpus: Vec<GpuRest>,
}

/// A GPU that was not to be had for a run and has trained none since.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuRest {
    /// As its slots name it.
    pub uuid: String,
    /// What the run was told.
    pub reason: String,
    /// How long it asks for no work yet; at 0 it may ask for one run.
    pub ms: Millis,
}

/// How an attempt ended, as its worker reports it.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Outcome(Box<Outcome>),
    /// Through no fault of its own.
    Yielded {
        reason: String,
        /// Whether the run waits before its next try: the worker's storage failed or is full.
        wait: bool,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A sweep is handed in; again is fine.
    Submit {
        admission: Arc<Admission>,
    },
    /// A worker starts, or comes back after either side restarted. Leases it does not name are over.
    Join {
        spec: WorkerSpec,
        holding: Vec<Holding>,
    },
    /// A worker ends in good order: what it holds goes back to pending at once.
    Leave {
        worker: WorkerId,
        instance: Option<String>,
    },
    /// No more grants to this worker; what it holds goes on.
    Drain {
        worker: WorkerId,
        on: bool,
    },
    /// A worker asks for work for one free slot. Asking for a slot that holds a lease gives that lease again.
    Acquire {
        worker: WorkerId,
        instance: Option<String>,
        slot: String,
    },
    /// Sign of life. Leases that are not named keep their deadlines.
    Renew {
        worker: WorkerId,
        instance: Option<String>,
        holding: Vec<Holding>,
        resting: Resting,
    },
    Settle {
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        ending: Ending,
    },
    Publish {
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        checkpoint: Checkpoint,
    },
    Cancel {
        target: Target,
    },
    Pause {
        target: Target,
    },
    Resume {
        target: Target,
    },
    /// A sweep lets these runs go too, or all of them again.
    Choose {
        sweep_id: SweepId,
        runs: Option<Vec<RunId>>,
    },
    /// Starts the failed and quarantined runs of the target afresh; a single run also when diverged or cancelled.
    Retry {
        target: Target,
    },
    /// Whether the coordinator's disk is nearly full. Then no run is granted; what is held goes on.
    Room {
        shortage: Option<Shortage>,
    },
    /// Time passes.
    Tick,
}

/// What follows. Records come first and must be durable before anything else of the step is told to anyone.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Record(Record),
    Grant(Grant),
    /// The lease goes on for this long from before the renewal was sent.
    Keep {
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        lease_ms: Millis,
    },
    /// The attempt is over: its child must end.
    Stop {
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        reason: StopReason,
    },
    /// The coordinator does not know this worker: it must join again.
    Rejoin {
        worker: WorkerId,
    },
    /// Another process speaks for the worker's name: this one is not heard.
    Occupied(Occupied),
    /// How many runs an order changed.
    Ordered {
        runs: u64,
    },
    /// A run left the queue for a slot after this time of being ready.
    Waited {
        ms: Millis,
    },
    /// A slot is free again after this time; `useful` when its attempt gave a result.
    Freed {
        useful: bool,
        ms: Millis,
    },
    /// Somebody should look at this.
    Alarm(Alarm),
    /// The event was not taken, or said nothing new.
    Refused(Refusal),
    /// Status or progress of a run changed.
    Changed {
        run_id: RunId,
    },
}

/// Who speaks for a worker's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker {worker:?} is another process: {place}; it joined {} s ago and spoke {} s ago. Give this one another name with \
     --name, or end that one: the name is free when it has ended, or {} s after its last word",
    joined_ms / 1000, silent_ms / 1000, lease_ms / 1000
)]
pub struct Occupied {
    pub worker: WorkerId,
    pub place: String,
    pub joined_ms: Millis,
    pub silent_ms: Millis,
    /// After so much silence the name is free.
    pub lease_ms: Millis,
}

impl Occupied {
    /// Whether it has let two renewals pass: it may be gone, and whoever wants its name may wait for that.
    pub fn may_be_gone(&self) -> bool {
        self.silent_ms > self.lease_ms / 5
    }
}

/// What a person should hear of, though nothing waits for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    #[error("{worker} gets no run for {} s: {runs} different runs failed there soon after their start", ms / 1000)]
    HeldBack { worker: WorkerId, runs: usize, ms: Millis },
    #[error("attempt {attempt} on {worker} {slot} made no step for {} s", ms / 1000)]
    NoProgress { run_id: RunId, attempt: u64, worker: WorkerId, slot: String, ms: Millis },
}

/// A lease as it is handed out.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    pub worker: WorkerId,
    pub slot: String,
    pub run_id: RunId,
    /// The fencing token.
    pub attempt: u64,
    pub lease_ms: Millis,
    pub planned: Arc<Planned>,
    /// The trunk's checkpoint that a branch starts from.
    pub resume: Option<Checkpoint>,
}

/// Why an attempt is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    #[error("nobody wants the run any more")]
    Cancelled,
    #[error("the run has ended")]
    Ended,
    #[error("a newer attempt holds the run")]
    Superseded,
    #[error("the attempt was given up")]
    GivenUp,
    #[error("the coordinator does not know this run")]
    Unknown,
}
