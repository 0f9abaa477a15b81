//! What a watcher of a sweep is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{RunRow, SweepRow};

/// One server-sent event: first the sweep and each of its runs, then what changes. A watcher that is too slow gets the
/// newest rows, not every one between. Events have no ids: whoever comes back gets all rows anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Sweep {
        row: SweepRow,
    },
    Run {
        row: Box<RunRow>,
    },
    /// No run of the sweep will change any more; the last event.
    End {
        row: SweepRow,
    },
}
