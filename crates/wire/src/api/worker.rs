//! What a worker and the coordinator say to each other. Durations only, never clock times: each side has its own clock.

use std::collections::BTreeMap;

use isoloss_sweep::{Digest, Outcome, Run, RunId, outcome::CurvePoint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::run::Live;

/// A place that holds one run at a time: a group of cores or a share of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Unique within the worker: `cpu:0-1`, or the GPU's UUID.
    pub name: String,
    /// UUID of the GPU that the child may see; missing for cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    pub threads: u32,
    pub memory_bytes: u64,
}

/// The process that speaks for a worker's name: two of one name would make each other's runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Drawn at each start; every later message carries it.
    pub id: String,
    /// Drawn once for a data directory, which a lock gives to one process at a time.
    pub home: String,
    /// Counts the starts on that directory: a later one takes over from an earlier one at once.
    pub start: u64,
    /// Where it lives, for people: the process and its data directory.
    pub place: String,
}

/// First word of a worker, repeated whenever the coordinator does not know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// [`crate::api::WORKER_VERSION`] of the worker.
    pub schema_version: u32,
    /// Version of the child protocol.
    pub protocol: u32,
    pub code_version: String,
    /// Chosen by the worker, the same over restarts of it on the same data directory.
    pub worker: String,
    /// Missing: a worker of before there were any. Another live process of the name is a [`crate::api::Code::Conflict`],
    /// one that fell silent [`crate::api::Code::Busy`] until its lease is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    pub slots: Vec<Slot>,
    /// As the driver calls its GPUs, by [`Slot::gpu`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_names: BTreeMap<String, String>,
    /// Names the disk that holds its checkpoints: a branch goes only where its trunk can be read.
    pub storage: String,
    /// Whether it was started with leave to run commands that sweeps name.
    pub allow_commands: bool,
    /// Attempts that its children hold at this moment, so that a coordinator that restarted takes them up again.
    #[serde(default)]
    pub holding: Vec<Renewal>,
}

/// What the worker must keep to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    pub schema_version: u32,
    /// A lease not renewed for this long is over.
    pub lease_seconds: f64,
    /// How often to renew.
    pub renew_seconds: f64,
}

/// Asks for work for one free slot. Asking again for a slot that holds a lease gives the same lease again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acquire {
    pub worker: String,
    /// [`Instance::id`], if it registered with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub slot: String,
    /// How long the coordinator may hold the answer while there is no work (at most 30 s).
    pub wait_seconds: f64,
}

/// Work, or none for now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acquired {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Box<Lease>>,
}

/// Exclusive, expiring right to one attempt at a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    pub run_id: RunId,
    /// The fencing token.
    pub attempt: u64,
    /// Whoever reports on the attempt shows it; missing from a coordinator of before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<LeaseKey>,
    pub run: Run,
    /// Counted by the worker from before it asked.
    pub seconds: f64,
    /// Set for a trunk: a checkpoint at each of these steps, no decay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk_steps: Vec<u64>,
    /// The trunk's checkpoint to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<CheckpointRef>,
    /// What the coordinator has reserved for the run of the slot's memory; missing from one that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// The secret of one lease, known to the coordinator and the worker that was given it: attempt numbers can be guessed. It is
/// shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LeaseKey(pub String);

impl std::fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseKey(..)")
    }
}

/// A checkpoint on a worker's storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointRef {
    /// Relative to the checkpoint folder of the storage.
    pub path: String,
    pub step: u64,
    pub digest: Digest,
}

/// Sign of life for all attempts of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    pub worker: String,
    /// [`Instance::id`], if it registered with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub leases: Vec<Renewal>,
    /// Why it asks for no work, for people; missing while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resting: Option<String>,
    /// Its GPUs that were not to be had of late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus_resting: Vec<RestingGpu>,
}

/// A GPU, or a group of them, that was not to be had for a run. It rests, and then gets one run at a time until one trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestingGpu {
    /// As in [`Slot::gpu`].
    pub gpu: String,
    /// What the last run that wanted it was told: one line, for people.
    pub reason: String,
    /// How long its slots ask for no work yet; 0 when they may ask for one run.
    pub seconds: f64,
}

/// Sign of life of one attempt, with what is new since the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    pub run_id: RunId,
    pub attempt: u64,
    /// [`Lease::key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<LeaseKey>,
    pub slot: String,
    /// Missing before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<CurvePoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<CheckpointRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// One verdict for each renewal, in any order; an attempt without one keeps its old deadline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Renewed {
    pub schema_version: u32,
    pub leases: Vec<VerdictRow>,
}

/// The verdict on one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictRow {
    pub run_id: RunId,
    pub attempt: u64,
    pub verdict: Verdict,
}

/// Whether an attempt goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The lease lasts this long from before the renewal was sent.
    Keep { seconds: f64 },
    /// The lease is over: end the child, its result is not wanted.
    Stop { reason: String },
}

/// The end of an attempt. Sent again until answered; the same one twice is recorded once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    pub worker: String,
    /// [`Instance::id`], for the work that is asked for along with it; the ending itself is judged by key and token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub run_id: RunId,
    pub attempt: u64,
    /// [`Lease::key`]; missing from an outbox of before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<LeaseKey>,
    pub device: String,
    pub ending: Ending,
    /// All that a trunk wrote, or the last one of a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<CheckpointRef>,
    /// Last lines of the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// The slot asks for its next work in the same breath: the ending and the grant are written with one fsync.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub next: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Finished, diverged, or broke by its own fault.
    Outcome(Box<Outcome>),
    /// Stopped through no fault of its own: the worker ends, or the child gave the device back.
    Yielded {
        reason: String,
        /// Whether the run is to wait before its next try: this machine's storage failed or is full.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        wait: bool,
    },
}

/// The result is durable. A stale token is a [`crate::api::Code::StaleToken`] problem instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settled {
    pub schema_version: u32,
    /// Recorded before: an answer was lost.
    pub duplicate: bool,
    /// The next work of the slot, where it was asked for and there is some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Box<Lease>>,
}

/// Last word of a worker that ends in good order: its name is free at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    pub worker: String,
    /// [`Instance::id`], if it registered with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// The worker is not expected any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    pub schema_version: u32,
}

/// What an order to a worker did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drained {
    pub schema_version: u32,
    pub worker: String,
    /// Whether it gets no more runs.
    pub draining: bool,
    /// Runs that it still makes.
    pub busy: u64,
}

/// A worker as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerRow {
    pub worker: String,
    pub code_version: String,
    pub slots: Vec<Slot>,
    /// As the driver calls its GPUs, by [`Slot::gpu`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu_names: BTreeMap<String, String>,
    /// Slots that hold a lease.
    pub busy: u64,
    /// Since it was last heard of.
    pub silent_seconds: f64,
    /// An order keeps further runs from it; those that it makes go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// It gets no run for this long, because different runs failed there one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back_seconds: Option<f64>,
    /// Why it asks for no work, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resting: Option<String>,
    /// Its GPUs that were not to be had when it spoke last, with the time that each rests from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus_resting: Vec<RestingGpu>,
}

/// Workers heard of in this life of the coordinator, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workers {
    pub schema_version: u32,
    pub workers: Vec<WorkerRow>,
    /// Missing on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
