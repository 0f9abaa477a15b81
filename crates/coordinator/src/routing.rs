//! How evenly the finished mixtures of experts of each sweep route, for `/metrics`. Outcomes never change, so each is
//! read from the journal once; it judges nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use isoloss_sweep::{Outcome, RunId};

use crate::authority::Authority;
use crate::http::Refused;

/// Outcomes read at one look: whole curves are behind them, and the next look goes on.
const READ_MAX: usize = 100;

/// Load and dropped tokens of one run, or the worst of several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Routed {
    pub(crate) load_max_ratio: f64,
    pub(crate) dropped_fraction: f64,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Routings(Mutex<BTreeMap<RunId, Routed>>);

impl Routings {
    /// The worst of these finished mixtures, as far as they were read; `None` where there is none.
    pub(crate) async fn worst(&self, authority: &Authority, finished: &[RunId]) -> Result<Option<Routed>, Refused> {
        let (mut worst, mut read): (Option<Routed>, usize) = (None, 0);
        for run_id in finished.iter().copied() {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&run_id).copied();
            let routed = match known {
                Some(routed) => routed,
                None if read == READ_MAX => continue,
                None => {
                    read += 1;
                    let Some(routed) = routed(authority.outcome(run_id).await?) else { continue };
                    self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(run_id, routed);
                    routed
                }
            };
            worst = Some(worst.map_or(routed, |worst| Routed {
                load_max_ratio: worst.load_max_ratio.max(routed.load_max_ratio),
                dropped_fraction: worst.dropped_fraction.max(routed.dropped_fraction),
            }));
        }
        Ok(worst)
    }
}

fn routed(outcome: Option<Outcome>) -> Option<Routed> {
    match outcome? {
        Outcome::Finished(run) => run.routing.map(|routing| Routed {
            load_max_ratio: routing.load_max_ratio,
            dropped_fraction: routing.dropped_fraction,
        }),
        Outcome::Diverged(_) | Outcome::Failed(_) => None,
    }
}
