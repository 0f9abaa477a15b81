//! What each sweep adds up to. A small sweep is added up at every question. A large one is added up in short looks and
//! kept: a reader gets the sum of a moment ago at once, and a new one is made behind his back when something changed. Seconds
//! later he waits for the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isoloss_sweep::{RunId, SweepId};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use crate::authority::{Authority, Gone, Head, PART};
use crate::rows::Tally;

/// Sweeps up to this size are added up anew each time: it takes a few milliseconds.
pub(crate) const SMALL: usize = 2 * PART;
/// Runs in one look while a sum is made: each costs well under a microsecond of everybody's time.
const SUMMED: usize = 8 * PART;
/// A sum of a large sweep in which something changed is used for this long.
const FRESH: Duration = Duration::from_secs(1);
/// For so long it serves whoever asks while the next one is made; whoever comes later waits for that.
const OLD: Duration = Duration::from_secs(3);
/// And of one in which nothing is known to have changed: ages and estimates move all the same.
const STALE: Duration = Duration::from_secs(30);

/// Sums of large sweeps.
pub(crate) struct Summaries {
    inner: Mutex<Inner>,
}

struct Inner {
    kept: BTreeMap<SweepId, Kept>,
    changes: Receiver<RunId>,
}

struct Kept {
    tally: Arc<Tally>,
    head: Head,
    made: Instant,
    changed: bool,
    /// Somebody is making the next one.
    renewing: bool,
}

impl Summaries {
    fn new(authority: &Authority) -> Self {
        Self { inner: Mutex::new(Inner { kept: BTreeMap::new(), changes: authority.changes() }) }
    }

    /// What the runs of a sweep add up to.
    pub(crate) async fn of(self: &Arc<Self>, authority: &Authority, head: &Head) -> Result<Arc<Tally>, Gone> {
        if head.members <= SMALL {
            return add_up(authority, head).await.map(Arc::new);
        }
        let known = self.inner().known(head);
        match known {
            Some((tally, false)) => Ok(tally),
            Some((tally, true)) => {
                let (summaries, authority, head) = (self.clone(), authority.clone(), head.clone());
                // Gone with the coordinator; nobody waits for it.
                tokio::spawn(async move { summaries.renew(&authority, &head).await.map(drop) });
                Ok(tally)
            }
            None => self.renew(authority, head).await,
        }
    }

    /// Begins with the sweeps that are there.
    pub(crate) fn begin(authority: &Authority) -> Arc<Self> {
        let summaries = Arc::new(Self::new(authority));
        summaries.prime(authority);
        summaries
    }

    /// Makes the sums of large sweeps before anybody asks for them.
    pub(crate) fn prime(self: &Arc<Self>, authority: &Authority) {
        let (summaries, authority) = (self.clone(), authority.clone());
        tokio::spawn(async move {
            for head in authority.heads().await? {
                if head.members > SMALL {
                    summaries.of(&authority, &head).await?;
                }
            }
            Ok::<(), Gone>(())
        });
    }

    async fn renew(&self, authority: &Authority, head: &Head) -> Result<Arc<Tally>, Gone> {
        let made = Instant::now();
        let tally = Arc::new(add_up(authority, head).await?);
        let kept = Kept { tally: tally.clone(), head: head.clone(), made, changed: false, renewing: false };
        self.inner().kept.insert(head.sweep_id, kept);
        Ok(tally)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The kept sum, and whether the asker is to have the next one made.
    fn known(&mut self, head: &Head) -> Option<(Arc<Tally>, bool)> {
        if self.anything_changed() {
            self.kept.values_mut().for_each(|kept| kept.changed = true);
        }
        let kept = self.kept.get_mut(&head.sweep_id)?;
        // After an order the old sum would say the opposite of what was just answered.
        if kept.head != *head {
            return None;
        }
        let use_for = if kept.changed { FRESH } else { STALE };
        let age = kept.made.elapsed();
        if age > use_for.max(OLD) {
            return None;
        }
        let due = age > use_for && !kept.renewing;
        kept.renewing |= due;
        Some((kept.tally.clone(), due))
    }

    fn anything_changed(&mut self) -> bool {
        let mut changed = false;
        loop {
            match self.changes.try_recv() {
                Ok(_) | Err(TryRecvError::Lagged(_)) => changed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return changed,
            }
        }
    }
}

async fn add_up(authority: &Authority, head: &Head) -> Result<Tally, Gone> {
    let mut tally = Tally::default();
    for start in (0..head.members).step_by(SUMMED) {
        let (sweep_id, places) = (head.sweep_id, start..(start + SUMMED).min(head.members));
        let part = authority.read(move |truth| truth.part(sweep_id, places)).await?;
        part.iter().for_each(|member| tally.add(member));
    }
    Ok(tally)
}

/// The places of runs in a sweep's plan; a run that stands in two arms has two.
#[derive(Debug, Default)]
pub(crate) struct Places(BTreeMap<RunId, Vec<usize>>);

impl Places {
    pub(crate) fn note(&mut self, run_id: RunId, place: usize) {
        let places = self.0.entry(run_id).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
    }

    pub(crate) fn of(&self, runs: &BTreeSet<RunId>) -> Vec<usize> {
        runs.iter().filter_map(|run_id| self.0.get(run_id)).flatten().copied().collect()
    }
}
