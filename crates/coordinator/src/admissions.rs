//! Sweeps as they were admitted, the last used ones: reading one back means reading the journal. They never change. Of
//! their runs only the first is kept: who asks here asks for the sweep file, and a list of runs is as long as the ledger.

use std::sync::Arc;

use isoloss_store::Admission;
use isoloss_sweep::SweepId;

/// Sweeps that are kept; sweep files are some kilobytes, mostly.
const SWEEPS_MAX: usize = 256;

/// The kept ones, the last used at the end.
#[derive(Debug, Default)]
pub(crate) struct Admissions(Vec<Arc<Admission>>);

impl Admissions {
    pub(crate) fn get(&mut self, sweep_id: SweepId) -> Option<Arc<Admission>> {
        let place = self.0.iter().position(|admission| admission.sweep_id == sweep_id)?;
        let found = self.0.remove(place);
        self.0.push(Arc::clone(&found));
        Some(found)
    }

    /// Keeps one, at the cost of the one that was not used for longest.
    pub(crate) fn keep(&mut self, admission: &Admission) -> Arc<Admission> {
        let runs = admission.runs.iter().take(1).cloned().collect();
        let brief = Arc::new(Admission { runs, ..admission.clone() });
        self.0.retain(|known| known.sweep_id != brief.sweep_id);
        self.0.push(Arc::clone(&brief));
        if self.0.len() > SWEEPS_MAX {
            self.0.remove(0);
        }
        brief
    }
}

#[cfg(test)]
mod tests {
    use isoloss_store::sample;

    use super::*;

    #[test]
    fn the_last_used_are_kept_with_one_run_of_each() {
        let mut kept = Admissions::default();
        let of = |number: usize| sample::admission(&number.to_string(), [1, 2].map(sample::planned));
        let ids: Vec<SweepId> = (0..SWEEPS_MAX).map(|number| kept.keep(&of(number)).sweep_id).collect();
        assert_eq!(kept.get(ids[0]).unwrap().runs.len(), 1);
        kept.keep(&of(SWEEPS_MAX));
        assert!(kept.get(ids[0]).is_some() && kept.get(ids[1]).is_none() && kept.get(ids[2]).is_some());
    }
}
