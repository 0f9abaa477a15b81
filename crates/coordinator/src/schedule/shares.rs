//! How much of the machines each sweep has, so that sweeps of equal priority share them. Cores and GPUs are two
//! currencies. In memory only: after a restart everybody begins anew, with what is held then.

use std::collections::BTreeMap;

use super::Millis;
use super::queue::{Class, Lane};

/// What a sweep used counts half after this time. Runs are minutes to hours long: a sweep that waited for one of them
/// goes first for about as long as it waited.
const HALF_LIFE_MS: Millis = 600_000;

/// What one lease takes, on whose account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) class: Class,
    pub(super) lane: Lane,
    /// Threads of a CPU slot, or 1 for a slot of a GPU.
    pub(super) width: u64,
}

#[derive(Debug, Default)]
struct Use {
    /// Held now.
    width: u64,
    /// Width times milliseconds of leases that ended, halved again and again.
    recent: u64,
}

/// Every sweep's account, by the order of its admission.
#[derive(Debug, Default)]
pub(super) struct Shares {
    uses: BTreeMap<(Class, u64), Use>,
    halved: Millis,
}

impl Shares {
    pub(super) fn begin(&mut self, share: Share) {
        self.uses.entry((share.class, share.lane.order)).or_default().width += share.width;
    }

    /// A lease ended after `ms`. A long one counts as no more than one half-life: what it took earlier is forgiven.
    pub(super) fn end(&mut self, share: Share, ms: Millis) {
        let account = self.uses.entry((share.class, share.lane.order)).or_default();
        account.width = account.width.saturating_sub(share.width);
        account.recent = account.recent.saturating_add(share.width.saturating_mul(ms.min(HALF_LIFE_MS)));
    }

    /// What a sweep has now, as if for one half-life, and what it had of late: who has least goes first.
    pub(super) fn taken(&self, class: Class, lane: Lane) -> u64 {
        let account = self.uses.get(&(class, lane.order));
        account.map_or(0, |account| account.width.saturating_mul(HALF_LIFE_MS).saturating_add(account.recent))
    }

    /// Time passes, and what was used is forgotten by and by.
    pub(super) fn pass(&mut self, now: Millis) {
        let halvings = now.saturating_sub(self.halved) / HALF_LIFE_MS;
        if halvings == 0 {
            return;
        }
        self.halved += halvings * HALF_LIFE_MS;
        self.uses.retain(|_, account| {
            account.recent >>= halvings.min(63);
            account.width > 0 || account.recent > 0
        });
    }
}
