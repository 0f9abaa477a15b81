//! Durable runs, leases and outcomes: the journal is the record of truth, sled its index.
//!
//! The only gate for fencing: a record is judged and written in one step. Does not know HTTP, candle or fits, and
//! keeps no liveness: heartbeats, deadlines and progress are never written.

pub mod disk;
mod index;
pub mod journal;
pub mod ledger;
pub mod record;
#[doc(hidden)]
pub mod sample;
pub mod store;

pub use ledger::{Block, End, Key, Ledger, Refusal, RunRow, Status, SweepRow};
pub use record::PRIORITY_USUAL;
pub use record::{Admission, Branch, Checkpoint, Labels, Lapse, Name, Needs, Planned, Record, Retry, Target};
pub use store::{
    Compacted, Inspected, Loss, LostOutcome, Opened, Progress, Salvaged, Store, StoreError, Verified, Written, check,
};
