//! `store verify`: reads the whole journal of a coordinator that is not running and checks it against the index.

use std::path::Path;

use isoloss_store::{Store, StoreError};
use serde::Serialize;

/// What a check found.
#[derive(Debug, Clone)]
pub struct StoreCheck {
    pub summary: StoreSummary,
    /// What is wrong, for people; nothing, mostly.
    pub damage: Option<String>,
}

/// The store in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct StoreSummary {
    pub schema_version: u32,
    pub records: u64,
    pub bytes: u64,
    pub sweeps: u64,
    pub runs: u64,
    /// Runs with an accepted outcome.
    pub settled: u64,
    pub sound: bool,
}

/// Checks the store under `data_dir`; refused while a coordinator uses it.
pub fn verify_store(data_dir: &Path) -> Result<StoreCheck, StoreError> {
    let store = Store::open(&crate::Config::new(data_dir.to_owned()).store_dir())?;
    let verified = store.verify()?;
    let ledger = store.ledger();
    let summary = StoreSummary {
        schema_version: isoloss_wire::api::SCHEMA_VERSION,
        records: store.records(),
        bytes: store.size_bytes(),
        sweeps: ledger.sweeps().count() as u64,
        runs: ledger.runs().count() as u64,
        settled: ledger.runs().filter(|(_, row)| row.settled.is_some()).count() as u64,
        sound: verified.is_sound(),
    };
    let damage = match verified.scan.damage {
        Some(damage) => Some(format!("{} at byte {}, {} bytes long", damage.kind, damage.offset, damage.bytes)),
        None if !verified.agrees => Some("the journal and what was read from it at the start differ".to_owned()),
        None => None,
    };
    Ok(StoreCheck { summary, damage })
}
