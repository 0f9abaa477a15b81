//! Which process speaks for a worker's name. Two of one name would make each other's runs: the first keeps the name for as
//! long as it is heard of, and messages of any other are answered with who that is. A later start on the same data
//! directory is the same worker going on, and takes over at once.

use super::{Effect, Instance, Millis, Occupied, State, Worker, WorkerSpec};

impl State {
    /// Who keeps a process from joining under its name, if anybody does.
    pub(super) fn occupant(&self, spec: &WorkerSpec, now: Millis) -> Option<Occupied> {
        let known = self.workers.get(&spec.worker)?;
        let is_silent = known.seen + self.config.lease_ms <= now;
        // A worker of before there were instances is taken for an earlier life of whoever comes.
        let is_next = known.spec.instance.as_ref().is_none_or(|old| match &spec.instance {
            Some(new) => new.id == old.id || (new.home == old.home && new.start > old.start) || is_silent,
            None => is_silent,
        });
        (!is_next).then(|| self.occupied(known, now))
    }

    /// Whether a message is of the process that joined; another is told so. Of an unknown worker anybody may speak.
    pub(super) fn speaks(&self, worker: &str, instance: Option<&str>, now: Millis, out: &mut Vec<Effect>) -> bool {
        let Some(known) = self.workers.get(worker) else {
            return true;
        };
        let is_own = known.spec.instance.as_ref().map(|own| own.id.as_str()) == instance;
        if !is_own {
            out.push(Effect::Occupied(self.occupied(known, now)));
        }
        is_own
    }

    fn occupied(&self, known: &Worker, now: Millis) -> Occupied {
        Occupied {
            worker: known.spec.worker.clone(),
            place: known.spec.place.clone(),
            joined_ms: now.saturating_sub(known.joined),
            silent_ms: now.saturating_sub(known.seen),
            lease_ms: self.config.lease_ms,
        }
    }

    /// Since when the process that joins speaks for the name: joining again changes nothing.
    pub(super) fn joined(&self, spec: &WorkerSpec, now: Millis) -> Millis {
        let id = |instance: &Option<Instance>| instance.as_ref().map(|instance| instance.id.clone());
        let known = self.workers.get(&spec.worker).filter(|known| id(&known.spec.instance) == id(&spec.instance));
        known.map_or(now, |known| known.joined)
    }
}
