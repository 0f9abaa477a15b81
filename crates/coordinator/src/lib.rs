//! The daemon: HTTP API, scheduler, web page, metrics. Does not know candle or CUDA; only `store` names sled.
//!
//! Its data directory:
//!
//! | path | what |
//! |---|---|
//! | `token` | the owner's bearer token, readable by him alone |
//! | `tokens.json` | digests and roles of all other tokens |
//! | `submissions.jsonl` | answers to the last submissions with an `Idempotency-Key` |
//! | `lease-keys.json` | the secret from which the keys of leases are derived, readable by its owner alone |
//! | `store/` | the journal (record of truth) and its index |
//! | `logs/<run>.json` | the last lines that a run said, for people; may be removed |
//! | `corpora/<digest>/` | surveyed corpora: `manifest.json` and the files it names |

mod admissions;
pub mod authority;
mod chatter;
mod config;
mod crash;
mod daemon;
mod disk;
mod fitting;
mod http;
mod keys;
mod meters;
mod page;
mod planning;
mod routing;
mod rows;
pub mod schedule;
mod serving;
mod summaries;
mod surveys;
mod tls;
pub mod tokens;
mod upkeep;
mod verify;

pub use config::{Config, token};
pub use crash::{Crash, NotACrash};
pub use daemon::{ServeError, serve};
pub use planning::{Errand, Planning, PlanningError, Reach, Said, Site, Trouble, plan};
pub use serving::listen;
pub use tls::{Tls, TlsError};
pub use upkeep::{StoreSalvaged, StoreShrunk, backup_store, compact_store, restore_store, salvage_store};
pub use verify::{StoreCheck, StoreSummary, VerifyError, verify_store};
