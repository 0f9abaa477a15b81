//! The worker daemon: acquire, run a child process, renew, report, repeat.
//!
//! A worker offers slots (groups of cores, GPUs) and runs one child process in each. It trains nothing itself, so that
//! a crash, an out-of-memory or a driver fault ends one attempt and nothing else, and it trusts nothing but its own
//! monotonic clock. It does not know sled, scheduling or other workers.
//!
//! Its data directory:
//!
//! | path | what |
//! |---|---|
//! | `worker.lock` | held while the worker lives: one worker per directory; who it is |
//! | `identity.json` | which directory this is, and how often a worker was started on it |
//! | `corpora/<digest>/` | corpora fetched from the coordinator |
//! | `trainers/<digest>/` | files that travel with commands of sweeps: the folders where they run |
//! | `checkpoints/<run>/<attempt>/` | what children write, and `checkpoints.json`, which lists it |
//! | `mps/` | sockets and logs of an MPS daemon of its own, where several runs share a GPU |
//! | `outbox/<run>-<attempt>.json` | endings of attempts that the coordinator has not acknowledged |
//! | `refused/` | endings that it refused for another reason than age: kept for people |

mod artifacts;
mod attempt;
mod checkpoints;
mod child;
mod config;
mod corpora;
mod daemon;
mod delivery;
mod disk;
mod gpus;
mod guard;
mod held;
mod identity;
mod lines;
mod meter;
mod mps;
mod outbox;
mod pipes;
mod programs;
mod renewal;
mod retention;
mod room;
mod spare;
mod strays;
mod tether;

pub use artifacts::{Artifacts, ArtifactsError};
pub use config::{Config, core_groups, gpu_slots};
pub use daemon::{WorkerError, run};
pub use guard::{guard, keep};
pub use mps::{MpsConfig, Sharing, answers};
pub use retention::Keep;
pub use tether::die_with_parent;
