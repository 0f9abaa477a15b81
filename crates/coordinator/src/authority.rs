//! The one task that owns the scheduler's state and the store. Handlers send it typed requests; it applies them in
//! order, writes the records of a whole group with one fsync, and only then answers. It knows no HTTP.
//!
//! When the disk fails it answers nobody any more and ends with the error, and the daemon must exit: what a failed
//! fsync left behind is found out by replay, never by trying again.

mod keeper;
mod part;
mod request;
mod tally;
#[cfg(test)]
mod tests;
mod view;

pub use keeper::{Keeper, start};
pub use part::{Head, MemberView, PART};
pub use request::{Authority, AuthorityError, Gone, Settlement, Submitted, Verdict};
pub use view::{LeaseRow, RunView, Truth, WorkerView};
