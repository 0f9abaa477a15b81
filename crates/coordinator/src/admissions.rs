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
    pub(crate) fn keep(&mut self, brief: Arc<Admission>) {
        self.0.retain(|known| known.sweep_id != brief.sweep_id);
        self.0.push(brief);
        if self.0.len() > SWEEPS_MAX {
            self.0.remove(0);
        }
    }
}

/// An admission with the first of its runs alone.
pub(crate) fn brief(admission: &Admission) -> Arc<Admission> {
    let Admission { sweep_id, name, toml, set, submitted_at_ms, manifests, retry, priority, held, runs } = admission;
    Arc::new(Admission {
        sweep_id: *sweep_id,
        name: name.clone(),
        toml: toml.clone(),
        set: set.clone(),
        submitted_at_ms: *submitted_at_ms,
        manifests: manifests.clone(),
        retry: *retry,
        priority: *priority,
        held: *held,
        runs: runs.iter().take(1).cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use isoloss_store::sample;

    use super::*;

    #[test]
    fn the_last_used_are_kept_with_one_run_of_each() {
        let mut kept = Admissions::default();
        let of = |number: usize| sample::admission(&number.to_string(), [1, 2].map(sample::planned));
        let keep = |number: usize, kept: &mut Admissions| {
            let brief = brief(&of(number));
            let id = brief.sweep_id;
            kept.keep(brief);
            id
        };
        let ids: Vec<SweepId> = (0..SWEEPS_MAX).map(|number| keep(number, &mut kept)).collect();
        assert_eq!(kept.get(ids[0]).unwrap().runs.len(), 1);
        keep(SWEEPS_MAX, &mut kept);
        assert!(kept.get(ids[0]).is_some() && kept.get(ids[1]).is_none() && kept.get(ids[2]).is_some());
    }
}
