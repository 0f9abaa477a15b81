//! The sweeps that want one run: mostly one, and as many of these sets as runs, so that runs share them.

use std::sync::Arc;

use isoloss_sweep::SweepId;

/// A set, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweeps(Arc<[SweepId]>);

impl Sweeps {
    /// Whether it was new.
    pub fn insert(&mut self, id: SweepId) -> bool {
        let Err(place) = self.0.binary_search(&id) else {
            return false;
        };
        let mut all = self.0.to_vec();
        all.insert(place, id);
        self.0 = all.into();
        true
    }

    pub fn iter(&self) -> std::slice::Iter<'_, SweepId> {
        self.0.iter()
    }

    pub fn contains(&self, id: &SweepId) -> bool {
        self.0.binary_search(id).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<SweepId>> for Sweeps {
    fn from(mut ids: Vec<SweepId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }
}

impl<'a> IntoIterator for &'a Sweeps {
    type Item = &'a SweepId;
    type IntoIter = std::slice::Iter<'a, SweepId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::Digest;

    use super::*;

    #[test]
    fn it_is_a_set_in_order() {
        let ids: Vec<SweepId> = (0..5u8).map(|n| SweepId(Digest::of(&[n]))).collect();
        let mut sweeps = Sweeps::default();
        assert!(ids.iter().chain(&ids).map(|id| sweeps.insert(*id)).eq([[true; 5], [false; 5]].concat()));
        assert_eq!(sweeps, Sweeps::from(ids.iter().rev().chain(&ids).copied().collect::<Vec<_>>()));
        assert!(sweeps.iter().is_sorted() && ids.iter().all(|id| sweeps.contains(id)));
        assert_eq!((sweeps.len(), Sweeps::default().is_empty()), (5, true));
    }
}
