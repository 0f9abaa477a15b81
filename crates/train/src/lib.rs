//! One run on one device: a resolved run and a corpus in, one outcome out.
//!
//! Does not know the network, the store or leases. All engines share one parameter layout.

mod assess;
pub mod bench;
pub mod check;
pub mod checkpoint;
mod compared;
pub mod cpu;
pub mod cuda;
pub mod engine;
pub mod export;
#[cfg(test)]
mod fixture;
pub mod init;
pub mod layout;
pub mod ledger;
pub mod memory;
pub mod optimizer;
pub mod reference;
pub mod select;
pub mod session;

pub use init::initial_state;
pub use memory::share_one_heap;
pub use select::build;
pub use session::{Control, End, Event, Options, TrainError, train};
