//! One run on one device: a resolved run and a corpus in, one outcome out.
//!
//! Does not know the network, the store or leases. All engines share one parameter layout.

pub mod engine;
pub mod init;
pub mod layout;
pub mod optimizer;
pub mod reference;

pub use init::initial_state;
