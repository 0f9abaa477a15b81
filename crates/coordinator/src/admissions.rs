//! Sweeps as they were admitted, the last used ones: reading one back means reading the journal. They never change.

use std::sync::Arc;

use isoloss_store::Admission;
use isoloss_sweep::SweepId;

/// Runs in all that is kept; some 30 MB.
const RUNS_MAX: usize = 20_000;

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

    /// Keeps one, at the cost of those that were not used for longest.
    pub(crate) fn keep(&mut self, admission: &Arc<Admission>) {
        self.0.retain(|known| known.sweep_id != admission.sweep_id);
        self.0.push(Arc::clone(admission));
        let runs = |kept: &[Arc<Admission>]| kept.iter().map(|admission| admission.runs.len()).sum::<usize>();
        while self.0.len() > 1 && runs(&self.0) > RUNS_MAX {
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use isoloss_store::sample;

    use super::*;

    #[test]
    fn the_last_used_are_kept_and_the_newest_always() {
        let mut kept = Admissions::default();
        let of = |name: &str, runs: usize| {
            let runs = vec![sample::planned(1); runs];
            Arc::new(sample::admission(name, runs))
        };
        let [one, two, three, huge] = [of("1", 9000), of("2", 9000), of("3", 9000), of("4", RUNS_MAX + 1)];
        kept.keep(&one);
        kept.keep(&two);
        assert!(kept.get(one.sweep_id).is_some());
        kept.keep(&three);
        let mut is = |sweep: &Arc<Admission>| kept.get(sweep.sweep_id).is_some();
        assert_eq!((is(&one), is(&two), is(&three)), (true, false, true));
        kept.keep(&huge);
        let mut is = |sweep: &Arc<Admission>| kept.get(sweep.sweep_id).is_some();
        assert_eq!((is(&one), is(&three), is(&huge)), (false, false, true));
    }
}
